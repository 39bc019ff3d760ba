//! What is wrong with a text, said to the people who write tags.

use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::osm::{Holidays, MAX_CHARS, MAX_RULES};
use super::repair::{self, Reader};
use crate::wording::{clip, quote_str};

/// Characters that are quoted of the place.
const MAX_PLACE: usize = 40;

/// A text that isn't hours, or that Curfew doesn't accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHours {
    text: Box<str>,
    found: Found,
    write: Option<Box<str>>,
}

/// A fault, and the part of the tidied text that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) fault: Fault,
    pub(super) place: Box<str>,
}

/// What can be wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is empty.
    Blank,
    /// It is longer than a tag's value.
    TooLong {
        /// How long it is.
        chars: usize,
    },
    /// It has more rules than are read.
    TooManyRules {
        /// How many it has.
        rules: usize,
    },
    /// It can't be read.
    Unreadable,
    /// It can be read, but it doesn't exist.
    Impossible(Box<str>),
    /// `||`: a second choice, for people who look for an open shop.
    Fallback,
    /// `unknown`: neither running nor stopped.
    Unknown,
    /// A comment.
    Comment,
    /// Quotes around all of it.
    Quotes,
    /// A tag of Cloud Custodian that names its own time zone.
    Custodian,
    /// `SH`: school holidays.
    SchoolHolidays,
    /// `sunrise` and the like.
    SunTime,
    /// `18:00+`, `Jan 15+`: without an end.
    OpenEnd,
    /// `10:00-16:00/01:30`.
    Repeats,
    /// `08:00-08:00`: nothing, or a day?
    BeginIsEnd,
    /// `Feb 30`.
    NoSuchDay {
        /// The last day that the month has.
        last: u8,
    },
    /// `PH`, without a country.
    NoHolidays,
    /// `PH off`, and then a rule that opens them again.
    HolidaysTooEarly {
        /// The rule that does.
        later: Box<str>,
    },
    /// `08:00-12:00; 13:00-17:00`: a rule about every day, after which those before it say nothing.
    EveryDayAgain,
    /// `PH Mo`: both, or a holiday that is a Monday?
    HolidaysBesideDays,
    /// It is never open.
    NeverOpens,
    /// `Mo, We 08:00-19:00`: Mondays round the clock.
    CommaBlank {
        /// Whether what is before it has times.
        timed: bool,
    },
    /// `Mo-Fr`: round the clock, or forgotten?
    NoTimes,
    /// `Jan,Apr Mo[1]`: all of January, and a Monday.
    MonthsWithoutColon,
    /// `2026Jan`.
    YearWithoutBlank,
    /// `11-13/3`: a step that leads out of the range.
    LongStep,
    /// `24/7; 20:00-06:00 off`: a cut belongs to the day on which it begins, and can't reach into the next.
    CutOverMidnight,
    /// A date moved by more than a year.
    FarOffset,
    /// A range of dates from or to a fifth weekday, which not every month has.
    FifthInRange,
    /// The crate that reads it doesn't read the rule twice in the same way.
    Unsure,
}

impl Fault {
    pub(super) fn at(self, place: &str) -> Found {
        Found { fault: self, place: place.into() }
    }
}

impl From<Fault> for Found {
    fn from(fault: Fault) -> Self {
        Self { fault, place: "".into() }
    }
}

impl BadHours {
    pub(super) fn new(text: &str, found: impl Into<Found>) -> Self {
        Self { text: text.into(), found: found.into(), write: None }
    }

    /// Adds the nearest right text, if it is clear which that is: one that opens within 400 days of the moment.
    #[must_use]
    pub fn advised(self, zone: Tz, holidays: &Holidays, moment: DateTime<Utc>) -> Self {
        let write = repair::nearest(&self.text, &Reader { zone, holidays, moment });
        Self { write: write.map(Into::into), ..self }
    }

    /// Returns the text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what is wrong with it.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.found.fault
    }

    /// Returns the part of the text that is wrong; empty if it is all of it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.found.place
    }

    /// Returns the nearest right text, if it has been added and is clear.
    #[must_use]
    pub fn write(&self) -> Option<&str> {
        self.write.as_deref()
    }
}

impl std::error::Error for BadHours {}

impl fmt::Display for BadHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = quote_str(&clip(&self.found.place, MAX_PLACE));
        write!(f, "{}: ", quote_str(&self.text))?;
        // The advice, where no text can be offered.
        let advice = match &self.found.fault {
            Fault::Blank => {
                f.write_str("blank")?;
                "write hours like \"Mo-Fr 08:00-19:00\""
            }
            Fault::TooLong { chars } => {
                write!(f, "{chars} characters, at most {MAX_CHARS}")?;
                "split it into a list of texts under a name in \"hours\""
            }
            Fault::TooManyRules { rules } => {
                write!(f, "{rules} rules, at most {MAX_RULES}")?;
                "split it into a list of texts under a name in \"hours\""
            }
            Fault::Unreadable => {
                let character = self.text.find(&*self.found.place).map(|at| self.text[..at].chars().count() + 1);
                match character {
                    _ if self.found.place.is_empty() => f.write_str("can't be read as hours")?,
                    Some(n) => write!(f, "can't be read from {place} on (character {n})")?,
                    None => write!(f, "can't be read from {place} on")?,
                }
                "write hours like \"Mo-Fr 08:00-19:00; PH off\""
            }
            Fault::Impossible(why) => {
                f.write_str(why)?;
                "write hours like \"Mo-Fr 08:00-19:00\""
            }
            Fault::Fallback => {
                write!(f, "{place} is not supported")?;
                "separate rules with \";\"; for each day, the last rule about it decides"
            }
            Fault::Unknown => {
                write!(f, "{place} is neither open nor closed")?;
                "leave it out, or write \"off\""
            }
            Fault::Comment => {
                write!(f, "the comment {place} is not supported")?;
                "leave it out"
            }
            Fault::Quotes => {
                f.write_str("the quotes around it are part of it")?;
                "leave them out"
            }
            Fault::Custodian => {
                f.write_str("Cloud Custodian's, with a time zone of its own")?;
                "name it in the request's \"hours\", with its hours in \"open\" and its zone in \"timezone\""
            }
            Fault::SchoolHolidays => {
                write!(f, "{place}: school holidays are not known")?;
                "write their dates like \"Jul 20-Aug 31\""
            }
            Fault::SunTime => {
                write!(f, "{place}: the time of sunrise and sunset is not known")?;
                "write times like \"06:00\""
            }
            Fault::OpenEnd => {
                write!(f, "{place} has a \"+\" and so no end")?;
                "write when it ends"
            }
            Fault::Repeats => {
                write!(f, "{place} repeats within a time")?;
                "write each time out, like \"10:00-11:00,13:00-14:00\""
            }
            Fault::BeginIsEnd => {
                write!(f, "{place} ends when it begins")?;
                "write a whole day as \"00:00-24:00\""
            }
            Fault::NoSuchDay { .. } => {
                write!(f, "there is no {place}")?;
                "write a day that the month has"
            }
            Fault::NoHolidays => {
                write!(f, "{place}: it isn't said whose public holidays \"PH\" means")?;
                "name a country in the request's \"holidays\", like \"DE\""
            }
            Fault::HolidaysTooEarly { later } => {
                let later = quote_str(&clip(later, MAX_PLACE));
                write!(f, "{place} is undone by {later} after it")?;
                "write it last"
            }
            Fault::EveryDayAgain => {
                write!(f, "{place} applies to every day and undoes the rules before it")?;
                "write it first, or say which days it is for"
            }
            Fault::HolidaysBesideDays => {
                write!(f, "{place}: with only a blank between them, it isn't clear whether both are meant")?;
                "put a comma between them"
            }
            Fault::NeverOpens => {
                f.write_str("never open")?;
                "write when it should run; to stop it for good, stop it by hand"
            }
            Fault::CommaBlank { timed } => {
                match timed {
                    true => write!(f, "the blank after {place} begins another rule, beside the one before it")?,
                    false => write!(
                        f,
                        "the blank after {place} ends the rule, so what is before it would be open round the clock"
                    )?,
                }
                "between days write \",\" without a blank, between rules \";\"; for each day, the last rule about it decides"
            }
            Fault::NoTimes => {
                write!(f, "{place} has no times")?;
                "write a whole day as \"00:00-24:00\""
            }
            Fault::MonthsWithoutColon => {
                write!(f, "{place} means all days of the first months")?;
                "write a colon after the months"
            }
            Fault::YearWithoutBlank => {
                write!(f, "{place} needs a blank after the year")?;
                "write it like \"2026 Jan-Mar\""
            }
            Fault::LongStep => {
                write!(f, "{place}: the step leads out of the range, so that only its first would be meant")?;
                "write that one alone"
            }
            Fault::CutOverMidnight => {
                write!(f, "{place} ends at midnight: what begins on the next day is not cut")?;
                "write what is off after midnight as a rule of its own, about the day after"
            }
            Fault::FarOffset => {
                write!(f, "{place} moves a day by more than a year")?;
                "write the date"
            }
            Fault::FifthInRange => {
                write!(f, "{place}: not every month has a fifth weekday to begin or end with")?;
                "count from the end, like \"Mo[-1]\", or write the date"
            }
            Fault::Unsure => {
                write!(f, "it is not clear which days {place} means")?;
                "write it as several rules, or as a list of texts"
            }
        };
        match self.write() {
            Some(text) => write!(f, "; write {}", serde_json::Value::String(text.to_owned())),
            None => write!(f, "; {advice}"),
        }
    }
}
