//! A text → the rules that it means: OpenStreetMap's opening_hours, without what would surprise who writes it.
//!
//! The only file that names the crates `opening_hours` and `opening_hours_syntax`. They parse, and they know the calendar;
//! what is open when, `hours.rs` decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::NaiveDate;
use opening_hours::localization::Country;
use opening_hours::{Context, ContextHolidays, OpeningHours};
use opening_hours_syntax::Error;
use opening_hours_syntax::rules::day::{Date, HolidayKind, MonthdayRange, WeekDayRange};
use opening_hours_syntax::rules::time::{Time, TimeSpan};
use opening_hours_syntax::rules::{RuleKind, RuleOperator, RuleSequence};

use super::refusal::{Fault, Found};
use super::{Effect, Rule, Rules, Span};
use crate::wording::nearest;

/// Characters of a text: as many as a tag's value holds.
pub(super) const MAX_CHARS: usize = 256;
/// Rules in a text: people can't follow more, and each costs time at every evaluation.
pub(super) const MAX_RULES: usize = 24;
/// Days by which a date may be moved: the crate looks for it in the years before and after.
const MAX_OFFSET: i16 = 365;

/// The days on which `PH` is true: a country's, and some that a team adds or works through.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holidays {
    country: Option<Country>,
    add: BTreeSet<NaiveDate>,
    except: BTreeSet<NaiveDate>,
}

impl Holidays {
    /// Builds a country's; `code` is its ISO 3166-1 code of two letters.
    ///
    /// # Errors
    /// The code that was probably meant, if one is near, where it is not that of a country whose holidays are known.
    pub fn of(code: &str) -> Result<Self, Option<&'static str>> {
        let by_name = || Country::ALL.iter().find(|country| country.name().eq_ignore_ascii_case(code));
        let by_slip = || {
            let near = nearest(code, Country::ALL.iter().map(|country| country.name()))?;
            Country::ALL.iter().find(|country| country.name() == near)
        };
        let by_case = || Country::ALL.iter().find(|country| country.iso_code().eq_ignore_ascii_case(code));
        match Country::ALL.iter().find(|country| country.iso_code() == code) {
            Some(country) => Ok(Self { country: Some(*country), ..Self::default() }),
            // Half the world writes it this way.
            None if code == "UK" => Err(Some("GB")),
            None => Err(by_case().or_else(by_name).or_else(by_slip).map(|country| country.iso_code())),
        }
    }

    /// Adds days.
    #[must_use]
    pub fn with(mut self, days: impl IntoIterator<Item = NaiveDate>) -> Self {
        self.add.extend(days);
        self
    }

    /// Takes days out.
    #[must_use]
    pub fn without(mut self, days: impl IntoIterator<Item = NaiveDate>) -> Self {
        self.except.extend(days);
        self
    }

    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.country.is_none() && self.add.is_empty()
    }

    /// Whether a day is one of them.
    #[must_use]
    pub fn contains(&self, day: NaiveDate) -> bool {
        let of_country = || self.country.is_some_and(|country| country.holidays().get_public().contains(day));
        !self.except.contains(&day) && (self.add.contains(&day) || of_country())
    }

    fn context(&self) -> Context {
        let of_country = self.country.map(Country::holidays).unwrap_or_default();
        if self.add.is_empty() && self.except.is_empty() {
            return Context::default().with_holidays(of_country);
        }
        // An empty one: the crate that has the calendar's type is not ours to name.
        let mut days = ContextHolidays::default().get_public().clone();
        let known = of_country.get_public().iter().chain(self.add.iter().copied());
        for day in known.filter(|day| !self.except.contains(day)) {
            days.insert(day);
        }
        Context::default().with_holidays(ContextHolidays::new(Arc::new(days), Arc::default()))
    }
}

/// The days that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Days {
    All,
    /// Those on which it is open: the rule without its times.
    Some(OpeningHours),
}

impl Days {
    /// Whether a day is one of them.
    pub(super) fn contains(&self, day: NaiveDate) -> bool {
        match self {
            Self::All => true,
            // One day's schedule: the crate's searches over time have no bound.
            Self::Some(hours) => !hours.schedule_at(day).is_empty(),
        }
    }

    /// Returns those that they would be if no day were a holiday.
    pub(super) fn without_holidays(&self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Some(hours) => Self::Some(hours.clone().with_context(Context::default())),
        }
    }

    /// Whether public holidays have a say in it.
    pub(super) fn know_holidays(&self) -> bool {
        let Self::Some(hours) = self else { return false };
        hours.get_expression().rules.iter().any(has_holidays)
    }
}

/// Writes a text as the grammar wants it, where there is no doubt what is meant.
pub(super) fn tidy(text: &str) -> String {
    let dash = |c: char| matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}');
    let plain: String = text.chars().map(|c| if dash(c) { '-' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let joined = words.join(" ").replace("24 / 7", "24/7").replace(" / ", "; ");
    let mut parts = joined.split('-').map(str::trim);
    let mut tidied = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // `PH -1 day`: here the blank belongs to the grammar.
        let number = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let moved = number.len() < part.len() && number.starts_with(" day");
        tidied.push_str(if moved { " -" } else { "-" });
        tidied.push_str(part);
    }
    tidied.replace(" ;", ";").trim_end_matches([';', ' ']).to_owned()
}

/// Returns a text without the quotes around all of it.
pub(super) fn unquoted(text: &str) -> &str {
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    let inner =
        |(open, close)| text.strip_prefix(open)?.strip_suffix(close).filter(|inner| !inner.contains([open, close]));
    pairs.into_iter().find_map(inner).map_or(text, str::trim)
}

/// Reads a text.
pub(super) fn read(text: &str, holidays: &Holidays) -> Result<Rules, Found> {
    let text = tidy(text);
    let chars = text.chars().count();
    if text.is_empty() {
        return Err(Fault::Blank.into());
    }
    if chars > MAX_CHARS {
        return Err(Fault::TooLong { chars }.into());
    }
    let written: Vec<&str> = text.split(';').map(str::trim).collect();
    if written.len() > MAX_RULES {
        return Err(Fault::TooManyRules { rules: written.len() }.into());
    }
    foreign(&text)?;
    let parsed: OpeningHours = text.parse().map_err(|error| unreadable(&text, &error))?;
    let rules = &parsed.get_expression().rules;
    if rules.iter().any(|rule| rule.operator == RuleOperator::Additional) {
        // Between times a blank is harmless.
        let between = |at: usize| text[at + 2..].starts_with(|c: char| !c.is_ascii_digit());
        let comma = text.match_indices(", ").map(|(at, _)| at).find(|at| between(*at)).or_else(|| text.find(", "));
        let before = &text[..=comma.unwrap_or_default()];
        let timed = before.rsplit(';').next().is_some_and(|rule| first_time(rule).is_some());
        return Err(Fault::CommaBlank { timed }.at(before.rsplit([' ', ';']).next().unwrap_or(before)));
    }
    if rules.len() != written.len() {
        return Err(Fault::Unsure.at(&text));
    }
    // A country's first use costs milliseconds.
    let context = if rules.iter().any(has_holidays) { holidays.context() } else { Context::default() };
    let read: Vec<Rule> =
        rules.iter().zip(&written).map(|(rule, text)| read_rule(rule, text, &context)).collect::<Result<_, _>>()?;
    if let Some(rule) = rules.iter().position(has_holidays) {
        if holidays.is_empty() {
            return Err(Fault::NoHolidays.at(written[rule]));
        }
        holidays_last(rules, &written)?;
    }
    // A rule about every day leaves nothing of those before it: opening_hours.js takes it for an addition, and so may
    // people.
    let again = rules.iter().skip(1).position(|rule| rule.day_selector.is_empty() && rule.kind == RuleKind::Open);
    if let Some(again) = again {
        return Err(Fault::EveryDayAgain.at(written[again + 1]));
    }
    if read.iter().all(|rule| !matches!(rule.effect, Effect::Open(_))) {
        return Err(Fault::NeverOpens.into());
    }
    if let Some(rule) = cut_after_midnight(&read) {
        return Err(Fault::CutOverMidnight.at(written[rule]));
    }
    Ok(Rules(read))
}

/// Finds a rule that cuts past midnight out of hours that may be the next day's: these it would leave as they are.
fn cut_after_midnight(rules: &[Rule]) -> Option<usize> {
    rules.iter().enumerate().position(|(n, rule)| {
        let Effect::Cut(cuts) = &rule.effect else { return false };
        let morning = cuts.iter().map(|cut| cut.end.saturating_sub(24 * 60)).max().unwrap_or_default();
        let opens_before = |rule: &Rule| match &rule.effect {
            Effect::Open(spans) => spans.iter().any(|span| span.start < morning),
            Effect::Off | Effect::Cut(_) => false,
        };
        rules[..n].iter().any(opens_before)
    })
}

/// Refuses what the grammar has and the language hasn't, by its words: so that it is named even where all of it can't be
/// read.
fn foreign(text: &str) -> Result<(), Found> {
    if text.contains("tz=") {
        return Err(Fault::Custodian.into());
    }
    if unquoted(text) != text {
        return Err(Fault::Quotes.into());
    }
    if let Some(at) = text.find('"') {
        let comment = text[at + 1..].find('"').map_or(&text[at..], |end| &text[at..=at + 1 + end]);
        return Err(Fault::Comment.at(comment));
    }
    if text.contains("||") {
        return Err(Fault::Fallback.at("||"));
    }
    for word in text.split(|c: char| !c.is_ascii_alphabetic()) {
        let fault = match word.to_ascii_lowercase().as_str() {
            "unknown" => Fault::Unknown,
            "sh" => Fault::SchoolHolidays,
            "dawn" | "sunrise" | "sunset" | "dusk" => Fault::SunTime,
            _ => continue,
        };
        return Err(fault.at(word));
    }
    Ok(())
}

/// Says where a text stops being readable.
fn unreadable(text: &str, error: &Error) -> Found {
    let error = match error {
        Error::Syntax(error) => error,
        Error::InvertedYearRange { start, end, .. } => {
            return Fault::Impossible(format!("{} is after {}", **start, **end).into()).into();
        }
        Error::InvertedWeekRange { start, end, .. } => {
            return Fault::Impossible(
                format!("week {0} is after week {1}, over New Year they are {0}-53,1-{1}", **start, **end).into(),
            )
            .into();
        }
        Error::InvalidExtendedTime { hour, minutes } => {
            return Fault::Impossible(format!("{hour:02}:{minutes:02} is after 48:00").into()).into();
        }
        Error::Unsupported(_)
        | Error::Overflow { .. }
        | Error::GrammarUnexpectedToken { .. }
        | Error::GrammarLogic { .. } => {
            return Fault::Unreadable.into();
        }
    };
    // The position's type is pest's, which is not ours to name; its display begins " --> line:column".
    let shown = error.to_string();
    let column = shown.split_once(" --> 1:").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    let column = column.and_then(|column| column.parse::<usize>().ok()).unwrap_or(1);
    let start = text.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(start, _)| start);
    // From the beginning of the word: "Mon" is what is wrong with it, not its "n".
    let outside = |c: char| !c.is_alphanumeric() && c != ':';
    let word = text[..start].char_indices().rev().find(|(_, c)| outside(*c)).map_or(0, |(at, c)| at + c.len_utf8());
    match &text[word..] {
        "" => Fault::Unreadable.into(),
        _ if word == 0 => Fault::Unreadable.into(),
        from => Fault::Unreadable.at(from),
    }
}

fn has_holidays(rule: &RuleSequence) -> bool {
    rule.day_selector.weekday.iter().any(|days| matches!(days, WeekDayRange::Holiday { .. }))
}

/// Refuses `PH off` before a rule that opens some of the holidays again, probably without wanting to.
fn holidays_last(rules: &[RuleSequence], written: &[&str]) -> Result<(), Found> {
    let closes = |rule: &RuleSequence| rule.kind == RuleKind::Closed && has_holidays(rule);
    let opens = |rule: &RuleSequence| rule.kind == RuleKind::Open && !has_holidays(rule);
    let Some(off) = rules.iter().position(closes) else { return Ok(()) };
    match rules[off..].iter().position(opens) {
        Some(later) => Err(Fault::HolidaysTooEarly { later: written[off + later].into() }.at(written[off])),
        None => Ok(()),
    }
}

fn read_rule(rule: &RuleSequence, text: &str, context: &Context) -> Result<Rule, Found> {
    let begin = first_time(text);
    let spans = match begin {
        None => None,
        Some(_) => Some(rule.time_selector.spans.iter().map(|span| read_span(span, text)).collect::<Result<_, _>>()?),
    };
    check_days(rule, text)?;
    let always = rule.day_selector.is_empty();
    let effect = match (rule.kind, spans) {
        (RuleKind::Open, Some(spans)) => Effect::Open(spans),
        (RuleKind::Open, None) if always && text.starts_with("24/7") => {
            Effect::Open(vec![Span { start: 0, end: 24 * 60 }])
        }
        (RuleKind::Open, None) => return Err(Fault::NoTimes.at(text)),
        (RuleKind::Closed, None) => Effect::Off,
        (RuleKind::Closed, Some(spans)) => Effect::Cut(spans),
        (RuleKind::Unknown, _) => return Err(Fault::Unknown.at(text)),
    };
    if always {
        return Ok(Rule { days: Days::All, effect });
    }
    // The rule without its times, read as a rule of its own: it has to be about the same days.
    let days = text[..begin.unwrap_or(text.len())].trim_end_matches([' ', ':']);
    let without_kind = ["off", "closed"].iter().find_map(|kind| {
        let cut = days.len().checked_sub(kind.len())?;
        (days.is_char_boundary(cut) && days[cut..].eq_ignore_ascii_case(kind)).then(|| days[..cut].trim_end())
    });
    let hours: OpeningHours = without_kind.unwrap_or(days).parse().map_err(|_| Fault::Unsure.at(text))?;
    let same = matches!(hours.get_expression().rules.as_slice(), [alone]
        if alone.day_selector == rule.day_selector && alone.kind == RuleKind::Open && alone.comment.is_empty());
    if !same {
        return Err(Fault::Unsure.at(text));
    }
    Ok(Rule { days: Days::Some(hours.with_context(context.clone())), effect })
}

/// Finds where a rule's times begin: digits, a colon, two digits.
fn first_time(rule: &str) -> Option<usize> {
    let bytes = rule.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let colon = rule.match_indices(':').map(|(at, _)| at);
    let time = colon.into_iter().find(|at| *at > 0 && digit(at - 1) && digit(at + 1) && digit(at + 2))?;
    Some(if time > 1 && digit(time - 2) { time - 2 } else { time - 1 })
}

fn read_span(span: &TimeSpan, rule: &str) -> Result<Span, Found> {
    let (Time::Fixed(begin), Time::Fixed(end)) = (span.range.start, span.range.end) else {
        return Err(Fault::SunTime.at(rule));
    };
    if span.open_end {
        return Err(Fault::OpenEnd.at(rule));
    }
    if span.repeats.is_some() {
        return Err(Fault::Repeats.at(rule));
    }
    let (begin, mut end) = (begin.mins_from_midnight(), end.mins_from_midnight());
    if begin == end {
        return Err(Fault::BeginIsEnd.at(rule));
    }
    if end < begin {
        end += 24 * 60;
    }
    Ok(begin..end)
}

/// Refuses days that no year has, and what the crate reads or counts differently from how people mean it.
fn check_days(rule: &RuleSequence, text: &str) -> Result<(), Found> {
    let days = &rule.day_selector;
    if has_open_end(text) {
        return Err(Fault::OpenEnd.at(text));
    }
    if let Some(range) = long_step(&text[..first_time(text).unwrap_or(text.len())]) {
        return Err(Fault::LongStep.at(range));
    }
    let is_month = |range: &MonthdayRange| matches!(range, MonthdayRange::Month { .. });
    let is_nth = |range: &MonthdayRange| matches!(range, MonthdayRange::Date { start: (Date::Weekday { .. }, _), .. });
    if days.monthday.iter().any(is_month) && days.monthday.iter().any(is_nth) {
        return Err(Fault::MonthsWithoutColon.at(text));
    }
    for range in &days.monthday {
        match range {
            // Only its first day counts (opening-hours 2.1.4).
            MonthdayRange::Month { year: Some(_), .. } => return Err(Fault::YearWithoutBlank.at(text)),
            MonthdayRange::Month { year: None, .. } => {}
            MonthdayRange::Date { start, end } => {
                for (date, offset) in [start, end] {
                    check_date(date)?;
                    if offset.day_offset.abs() > MAX_OFFSET {
                        return Err(Fault::FarOffset.at(text));
                    }
                }
                // A month that has no fifth Monday would leave the range open until the next that has one.
                let fifth = |date: &Date| matches!(date, Date::Weekday { nth: 5 | -5, .. });
                if start != end && (fifth(&start.0) || fifth(&end.0)) {
                    return Err(Fault::FifthInRange.at(text));
                }
            }
        }
    }
    if has_holidays_beside_days(rule, text) {
        return Err(Fault::HolidaysBesideDays.at(text));
    }
    for range in &days.weekday {
        let (WeekDayRange::Fixed { offset, .. } | WeekDayRange::Holiday { offset, .. }) = range;
        if offset.abs() > MAX_OFFSET {
            return Err(Fault::FarOffset.at(text));
        }
        if matches!(range, WeekDayRange::Holiday { kind: HolidayKind::School, .. }) {
            return Err(Fault::SchoolHolidays.at(text));
        }
    }
    Ok(())
}

/// Finds a range whose step leads out of it, `11-13/3`: the crate takes it for a step of one (opening-hours-syntax 2.1.4).
fn long_step(days: &str) -> Option<&str> {
    days.match_indices('/').find_map(|(slash, _)| {
        let begin = days[..slash].rfind(|c: char| !c.is_ascii_digit() && c != '-').map_or(0, |at| at + 1);
        let step = days[slash + 1..].split(|c: char| !c.is_ascii_digit()).next()?;
        let (first, last) = days[begin..slash].split_once('-')?;
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        let too_long = step.parse::<u16>().ok().is_none_or(|step| step > last.saturating_sub(first));
        (first < last && too_long).then(|| &days[begin..=slash + step.len()])
    })
}

/// Whether a `+` ends a date: not one that moves it (`+1 day`, `+Su`), nor a year's (`2026+`).
fn has_open_end(rule: &str) -> bool {
    rule.match_indices('+').any(|(at, _)| {
        let year = rule[..at].chars().rev().take_while(char::is_ascii_digit).count() == 4;
        !year && !rule[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// Whether days and holidays stand side by side with a blank: both, or those that are both? OpenStreetMap and the crate
/// don't agree.
fn has_holidays_beside_days(rule: &RuleSequence, text: &str) -> bool {
    let is_day = |word: &str| {
        let (day, rest) = word.split_at_checked(2).unwrap_or((word, ""));
        ["mo", "tu", "we", "th", "fr", "sa", "su"].contains(&day.to_ascii_lowercase().as_str())
            && (rest.is_empty() || rest.starts_with([',', '-', '[']))
    };
    let ends_days = |word: &str| {
        let last = word.rsplit([',', '-']).next().unwrap_or_default();
        !word.ends_with(':') && (is_day(last) || last.ends_with(']') || last == "day" || last == "days")
    };
    let ends_holidays = |word: &str| word.ends_with("PH") || word == "day" || word == "days";
    let words: Vec<&str> = text.split(' ').collect();
    has_holidays(rule)
        && rule.day_selector.weekday.iter().any(|days| matches!(days, WeekDayRange::Fixed { .. }))
        && words.windows(2).any(|pair| {
            (ends_holidays(pair[0]) && is_day(pair[1])) || (ends_days(pair[0]) && pair[1].starts_with("PH"))
        })
}

fn check_date(date: &Date) -> Result<(), Found> {
    let Date::Fixed { year, month, day } = date else { return Ok(()) };
    // 2024 was a leap year: without a year, 29 February is a day that some years have.
    let in_year = year.map_or(2024, |year| *year);
    if NaiveDate::from_ymd_opt(in_year, (*month).into(), (*day).into()).is_some() {
        return Ok(());
    }
    let last = (28..*day).rev().find(|day| NaiveDate::from_ymd_opt(in_year, (*month).into(), (*day).into()).is_some());
    let year = year.map_or_else(String::new, |year| format!("{} ", *year));
    Err(Fault::NoSuchDay { last: last.unwrap_or(28) }.at(&format!("{year}{month} {day}")))
}
