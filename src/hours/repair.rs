//! The nearest right text.
//!
//! Guesses freely, because a guess is only offered if it can be read and opens: what the words suggest (`Mon-Fri 8-19`,
//! `weekdays 9am to 5pm`), what the refusal itself says how to write, or both, one after the other. But whoever copies it
//! pays for it: no guess is open longer than the text can have meant, so that where it is in doubt nothing is offered.

use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;

use super::osm::{self, Holidays};
use super::refusal::{Fault, Found};
use super::{Hours, words};

/// How many faults in a text are corrected.
const MAX_REPAIRS: usize = 12;

pub(super) const DAYS: [(&str, &[&str]); 7] = [
    ("Mo", &["m", "mo", "mon", "monday", "mondays"]),
    ("Tu", &["tu", "tue", "tues", "tuesday", "tuesdays"]),
    ("We", &["w", "we", "wed", "weds", "wednesday", "wednesdays"]),
    ("Th", &["th", "thu", "thur", "thurs", "thursday", "thursdays"]),
    ("Fr", &["f", "fr", "fri", "friday", "fridays"]),
    ("Sa", &["sa", "sat", "saturday", "saturdays"]),
    ("Su", &["su", "sun", "sunday", "sundays"]),
];

pub(super) const MONTHS: [(&str, &str); 12] = [
    ("Jan", "january"),
    ("Feb", "february"),
    ("Mar", "march"),
    ("Apr", "april"),
    ("May", "may"),
    ("Jun", "june"),
    ("Jul", "july"),
    ("Aug", "august"),
    ("Sep", "september"),
    ("Oct", "october"),
    ("Nov", "november"),
    ("Dec", "december"),
];

/// For whom a text is read: what it is read with, and the moment from which it has to open.
pub(super) struct Reader<'a> {
    pub(super) zone: Tz,
    pub(super) holidays: &'a Holidays,
    pub(super) moment: DateTime<Utc>,
}

impl Reader<'_> {
    fn read(&self, text: &str) -> Result<Hours, Found> {
        let texts = vec![osm::read(text, self.holidays)?];
        Ok(Hours { texts, zone: self.zone, holidays: self.holidays.clone() })
    }

    /// Whether hours open within 400 days, or are open.
    fn opens(&self, hours: &Hours) -> bool {
        hours.state_at(self.moment).open || hours.next_edge(self.moment).is_some()
    }

    /// The days on which hours are compared.
    fn days(&self) -> impl Iterator<Item = NaiveDate> {
        self.moment.date_naive().iter_days().take(400)
    }

    /// Whether two texts are open alike.
    fn alike(&self, one: &Hours, other: &Hours) -> bool {
        let first = self.moment.date_naive();
        let last = first + Days::new(400);
        one.spans(first, last) == other.spans(first, last)
    }

    /// Whether rules, which a guess has parted, undo each other.
    fn undone(&self, hours: &Hours) -> bool {
        self.days().any(|day| hours.texts.iter().any(|rules| rules.open_twice(day)))
    }
}

/// Returns the nearest right text.
pub(super) fn nearest(text: &str, reader: &Reader<'_>) -> Option<String> {
    let original = osm::tidy(text);
    if original.chars().count() > osm::MAX_CHARS {
        return None;
    }
    let timed = words::have_times(&original);
    let mut text = original.clone();
    for _ in 0..MAX_REPAIRS {
        let found = match reader.read(&text) {
            Ok(hours) => {
                let parted = text.matches(';').count() > original.matches(';').count();
                return (reader.opens(&hours) && !(parted && reader.undone(&hours))).then_some(text);
            }
            Err(found) => found,
        };
        let mended = mend(&text, &found, timed, reader)?;
        if mended == text || mended.chars().count() > osm::MAX_CHARS {
            return None;
        }
        text = mended;
    }
    None
}

/// Mends a fault; `timed` is whether the text that a person wrote has times.
fn mend(text: &str, found: &Found, timed: bool, reader: &Reader<'_>) -> Option<String> {
    let place = &*found.place;
    let rule = |by: String| with_rule(text, place, &by);
    match &found.fault {
        Fault::Unreadable | Fault::Impossible(_) => of_custodian(text).or_else(|| words::written(text)),
        Fault::Quotes => Some(osm::unquoted(text).to_owned()),
        // A comment that says when is meant: only one without such words says nothing about the hours.
        Fault::Comment => match words::say_when(place) {
            true => Some(osm::tidy(&text.replacen(place, &place.replace('"', " "), 1))),
            false => Some(osm::tidy(&text.replacen(place, "", 1))),
        },
        Fault::CommaBlank { .. } => Some(without_comma_blank(text)),
        // Round the clock, if that can be meant: not where times stand elsewhere.
        Fault::NoTimes if !timed => rule(format!("{} 00:00-24:00", place.trim_end_matches(" open"))),
        Fault::NoTimes => with_the_next(text, place),
        Fault::OpenEnd => rule(with_end(place)),
        Fault::Repeats => rule(without_repeats(place)),
        // A whole day, if it begins with it; half of one, if `8:00-8:00` is of a clock with twelve hours.
        Fault::BeginIsEnd => words::written(text),
        Fault::NoSuchDay { last } => with_last_day(text, place, *last),
        Fault::HolidaysTooEarly { .. } => {
            let rules = rules_of(text);
            let early = rules.iter().position(|rule| *rule == place)?;
            let others = rules.iter().enumerate().filter(|(n, _)| *n != early).map(|(_, rule)| *rule);
            Some(others.chain([place]).collect::<Vec<_>>().join("; "))
        }
        Fault::EveryDayAgain => {
            let rules = rules_of(text);
            let only_times = |rule: &&str| rule.chars().all(|c| c.is_ascii_digit() || ":-,".contains(c));
            // `08:00-12:00; 13:00-17:00` is one rule with two times.
            if rules.iter().all(only_times) {
                return Some(rules.join(","));
            }
            let others = rules.iter().copied().filter(|rule| *rule != place);
            Some([place].into_iter().chain(others).collect::<Vec<_>>().join("; "))
        }
        Fault::HolidaysBesideDays => with_holidays(text, place, reader),
        Fault::MonthsWithoutColon => {
            let colon = MONTHS
                .iter()
                .flat_map(|(month, _)| DAYS.map(|(day, _)| (format!("{month} {day}["), format!("{month}: {day}["))));
            colon
                .into_iter()
                .find(|(blank, _)| place.contains(blank))
                .and_then(|(blank, colon)| rule(place.replace(&blank, &colon)))
        }
        Fault::YearWithoutBlank => {
            let month = MONTHS
                .iter()
                .filter_map(|(month, _)| place.find(month))
                .find(|at| place[..*at].ends_with(|c: char| c.is_ascii_digit()))?;
            rule(format!("{} {}", &place[..month], &place[month..]))
        }
        Fault::LongStep => Some(text.replacen(place, place.split('-').next()?, 1)),
        Fault::CutOverMidnight => rule(cut_in_two(place)?),
        // Only its author knows what was meant.
        Fault::Blank
        | Fault::TooLong { .. }
        | Fault::TooManyRules { .. }
        | Fault::Fallback
        | Fault::Unknown
        | Fault::Custodian
        | Fault::SchoolHolidays
        | Fault::SunTime
        | Fault::NoHolidays
        | Fault::NeverOpens
        | Fault::FarOffset
        | Fault::FifthInRange
        | Fault::Unsure => None,
    }
}

fn rules_of(text: &str) -> Vec<&str> {
    text.split(';').map(str::trim).collect()
}

/// Replaces a rule.
fn with_rule(text: &str, rule: &str, by: &str) -> Option<String> {
    let mut rules = rules_of(text);
    let place = rules.iter().position(|it| *it == rule)?;
    rules[place] = by;
    Some(rules.join("; "))
}

/// `Mo; We; Fr 08:00-19:00`, as `Mo / We / Fr 08:00-19:00` is read, is a list.
fn with_the_next(text: &str, rule: &str) -> Option<String> {
    let mut rules = rules_of(text);
    let place = rules.iter().position(|it| *it == rule)?;
    let next = *rules.get(place + 1)?;
    let is_day = |text: &str| DAYS.iter().any(|(day, _)| text == *day);
    let begins = |text: &str| text.split([' ', ',', '-', '[']).next().is_some_and(is_day);
    // `Mo-Fr; Sa 09:00-12:00` may be one that forgot a time.
    let joined = (rule.split(',').all(is_day) && begins(next)).then(|| format!("{rule},{next}"))?;
    rules.splice(place..place + 2, [joined.as_str()]);
    Some(rules.join("; "))
}

/// `Apr 31` → `Apr 30`: the date itself, or the end of a range within its month.
fn with_last_day(text: &str, place: &str, last: u8) -> Option<String> {
    let (month, day) = place.rsplit_once(' ')?;
    let month = if text.contains(month) { month } else { month.rsplit(' ').next()? };
    text.match_indices(month).find_map(|(at, _)| {
        let dates = text[at + month.len()..].split([';', ',', ':']).next().unwrap_or_default();
        let number = |text: &str| text.trim_start_matches([' ', '0']).split(' ').next() == Some(day);
        // Up to the blank before weekdays or times.
        let from = match dates.split_once('-') {
            Some((first, end)) if first.trim().bytes().all(|b| b.is_ascii_digit()) && number(end) => first.len() + 1,
            _ if number(dates.split('-').next().unwrap_or_default()) => 0,
            _ => return None,
        };
        let digits = at + month.len() + from;
        let begin = digits + text[digits..].find(|c: char| c.is_ascii_digit())?;
        let end = begin + text[begin..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - begin);
        Some(format!("{}{last}{}", &text[..begin], &text[end..]))
    })
}

/// `PH Mo-Fr 08:00-12:00` → `PH,Mo-Fr 08:00-12:00`. Where days are off, both readings have to come to the same, or one of
/// them to nothing: `Mo-Fr 08:00-19:00; Mo-Fr PH off` can't mean that workdays are off.
fn with_holidays(text: &str, rule: &str, reader: &Reader<'_>) -> Option<String> {
    let days = DAYS.iter().map(|(day, _)| *day);
    let sides =
        days.flat_map(|day| [(format!("PH {day}"), format!("PH,{day}")), (format!("{day} PH"), format!("{day},PH"))]);
    let both = sides
        .into_iter()
        .find(|(blank, _)| rule.contains(blank))
        .and_then(|(blank, comma)| with_rule(text, rule, &rule.replacen(&blank, &comma, 1)));
    let Some((days, _)) = ["off", "closed"].iter().find_map(|off| Some((rule.strip_suffix(off)?.trim_end(), off)))
    else {
        return both;
    };
    let both = both?;
    let only =
        days.chars().all(|c| c.is_ascii_alphabetic() || " -,".contains(c)).then(|| with_rule(text, rule, "PH off"));
    let only = only.flatten()?;
    match (reader.read(&both), reader.read(&only)) {
        (Ok(off), Ok(holidays)) if reader.alike(&off, &holidays) => Some(both),
        (Ok(off), Ok(_)) if !reader.opens(&off) => Some(only),
        (Err(Found { fault: Fault::NeverOpens, .. }), Ok(_)) => Some(only),
        _ => None,
    }
}

/// `Mo-Fr 20:00-06:00 off` → `Mo-Fr 20:00-24:00 off; Tu-Sa 00:00-06:00 off`.
fn cut_in_two(rule: &str) -> Option<String> {
    let (before, kind) = rule.rsplit_once(' ')?;
    let (days, times) = before.rsplit_once(' ').unwrap_or(("", before));
    let days = days.trim_end_matches(':');
    let next = |day: &str| {
        let at = DAYS.iter().position(|(name, _)| day == *name)?;
        Some(DAYS[(at + 1) % DAYS.len()].0)
    };
    let shifted = |range: &str| range.split('-').map(next).collect::<Option<Vec<_>>>().map(|days| days.join("-"));
    let after = match days {
        "" => String::new(),
        days => days.split(',').map(shifted).collect::<Option<Vec<_>>>()?.join(","),
    };
    let (mut evening, mut morning) = (Vec::new(), Vec::new());
    for time in times.split(',') {
        let (begin, end) = time.split_once('-')?;
        let minutes = |time: &str| {
            let (hours, minutes) = time.split_once(':')?;
            Some(hours.parse::<u16>().ok()? * 60 + minutes.parse::<u16>().ok()?)
        };
        let (from, mut to) = (minutes(begin)?, minutes(end)?);
        if to < from {
            to += 24 * 60;
        }
        let written = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        if from < 24 * 60 {
            evening.push(format!("{}-{}", written(from), written(to.min(24 * 60))));
        }
        if to > 24 * 60 {
            morning.push(format!("{}-{}", written(from.saturating_sub(24 * 60)), written(to - 24 * 60)));
        }
    }
    // One rule, where both are about the same days.
    let parts = match after == days {
        true => vec![(days.to_owned(), [morning, evening].concat())],
        false => vec![(days.to_owned(), evening), (after, morning)],
    };
    let written = parts.into_iter().filter(|(_, times)| !times.is_empty()).map(|(days, times)| {
        let blank = if days.is_empty() { "" } else { " " };
        format!("{days}{blank}{} {kind}", times.join(","))
    });
    Some(written.collect::<Vec<_>>().join("; "))
}

/// After times a comma begins a rule, before them it is one of a list.
fn without_comma_blank(text: &str) -> String {
    let mut parts = text.split(", ");
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rule = written.rsplit(';').next().unwrap_or_default();
        let complete = rule.contains(':') || rule.ends_with("off") || rule.ends_with("closed");
        let begins = complete && part.starts_with(|c: char| c.is_ascii_alphabetic());
        let days = |rule: &str| rule.trim().rsplit_once(' ').map(|(days, _)| days.to_owned());
        match days(rule).filter(|same| begins && days(part).as_ref() == Some(same)) {
            // `Mo-Fr 08:00-12:00, Mo-Fr 13:00-17:00`.
            Some(days) => written.push_str(&format!(",{}", part[days.len()..].trim())),
            None => written.push_str(&format!("{}{part}", if begins { "; " } else { "," })),
        }
    }
    written
}

fn with_end(rule: &str) -> String {
    let Some(plus) = rule.find('+') else { return rule.to_owned() };
    let before = &rule[..plus];
    let word = before.rsplit([' ', ',']).next().unwrap_or_default();
    let end = match (word.contains(':'), word.contains('-')) {
        (true, true) => "",
        (true, false) => "-24:00",
        (false, _) => "-Dec 31",
    };
    format!("{before}{end}{}", &rule[plus + 1..])
}

fn without_repeats(rule: &str) -> String {
    // The step of weeks or years stands before the first time.
    let times = rule.find(':').unwrap_or(rule.len());
    let mut written = rule[..times].to_owned();
    let mut rest = &rule[times..];
    while let Some(slash) = rest.find('/') {
        written.push_str(rest[..slash].trim_end());
        rest = rest[slash + 1..].trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    }
    written + rest
}

/// Cloud Custodian's `off=(M-F,19);on=(M-F,7)`, where both are about the same days: after a night it would be off on the
/// day that follows, unless that is none of them.
fn of_custodian(text: &str) -> Option<String> {
    let value = |key: &str| {
        let rest = text.split(';').map(str::trim).find_map(|part| part.strip_prefix(key))?;
        let (days, hour) = rest.strip_prefix("=(")?.strip_suffix(')')?.rsplit_once(',')?;
        Some((days.trim(), hour.trim().parse::<u16>().ok().filter(|hour| *hour < 24)?))
    };
    let ((days, on), (days_off, off)) = (value("on")?, value("off")?);
    if off <= on {
        return None;
    }
    let letters = [('M', "Mo"), ('T', "Tu"), ('W', "We"), ('H', "Th"), ('F', "Fr"), ('S', "Sa"), ('U', "Su")];
    let day = |c: char| letters.iter().find(|(letter, _)| *letter == c).map_or("", |(_, day)| day);
    let days = (days == days_off)
        .then(|| days.replace(|c: char| c.is_ascii_uppercase(), ""))
        .filter(|rest| rest.is_empty() || rest == "-")
        .map(|_| days.chars().map(|c| if c == '-' { "-" } else { day(c) }).collect::<String>())?;
    Some(format!("{days} {on:02}:00-{off:02}:00"))
}
