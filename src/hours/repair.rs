//! The nearest right text.
//!
//! Guesses freely, because a guess is only offered if it can be read: what the words suggest (`Mon-Fri 8-19`,
//! `weekdays 9am to 5pm`), what the refusal itself says how to write, or both, one after the other.

use super::osm::{self, Holidays};
use super::refusal::{Fault, Found};

/// How many faults in a text are corrected.
const MAX_REPAIRS: usize = 8;

const DAYS: [(&str, &[&str]); 7] = [
    ("Mo", &["m", "mo", "mon", "monday", "mondays"]),
    ("Tu", &["tu", "tue", "tues", "tuesday", "tuesdays"]),
    ("We", &["w", "we", "wed", "weds", "wednesday", "wednesdays"]),
    ("Th", &["th", "thu", "thur", "thurs", "thursday", "thursdays"]),
    ("Fr", &["f", "fr", "fri", "friday", "fridays"]),
    ("Sa", &["sa", "sat", "saturday", "saturdays"]),
    ("Su", &["su", "sun", "sunday", "sundays"]),
];

const MONTHS: [(&str, &str); 12] = [
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

/// Returns the nearest right text.
pub(super) fn nearest(text: &str, holidays: &Holidays) -> Option<String> {
    let mut text = osm::tidy(text);
    if text.chars().count() > osm::MAX_CHARS {
        return None;
    }
    for _ in 0..MAX_REPAIRS {
        let found = match osm::read(&text, holidays) {
            Ok(_) => return Some(text),
            Err(found) => found,
        };
        let mended = mend(&text, &found)?;
        if mended == text || mended.chars().count() > osm::MAX_CHARS {
            return None;
        }
        text = mended;
    }
    None
}

fn mend(text: &str, found: &Found) -> Option<String> {
    let place = &*found.place;
    let replaced = |part: &str, by: &str| Some(text.replacen(part, by, 1));
    match &found.fault {
        Fault::Unreadable | Fault::Impossible(_) => Some(of_custodian(text).unwrap_or_else(|| in_words(text))),
        Fault::Comment => Some(osm::tidy(&text.replacen(place, "", 1))),
        Fault::CommaBlank => Some(without_comma_blank(text)),
        Fault::NoTimes => replaced(place, &format!("{} 00:00-24:00", place.trim_end_matches(" open"))),
        Fault::OpenEnd => replaced(place, &with_end(place)),
        Fault::Repeats => replaced(place, &without_repeats(place)),
        Fault::BeginIsEnd => replaced(place, &with_another_day(place)),
        Fault::NoSuchDay { last } => {
            let (month, day) = place.rsplit_once(' ')?;
            let month_alone = month.rsplit(' ').next()?;
            let day = [format!("{month_alone} {day}"), format!("{month_alone} 0{day}"), format!("-{day}")]
                .into_iter()
                .find(|written| text.contains(written))?;
            let digits = day.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
            replaced(&day, &format!("{digits}{last}"))
        }
        Fault::HolidaysTooEarly { .. } => {
            let rules: Vec<&str> = text.split(';').map(str::trim).collect();
            let early = rules.iter().position(|rule| *rule == place)?;
            let others = rules.iter().enumerate().filter(|(n, _)| *n != early).map(|(_, rule)| *rule);
            Some(others.chain([place]).collect::<Vec<_>>().join("; "))
        }
        Fault::EveryDayAgain => {
            let rules: Vec<&str> = text.split(';').map(str::trim).collect();
            let only_times = |rule: &&str| rule.chars().all(|c| c.is_ascii_digit() || ":-,".contains(c));
            // `08:00-12:00; 13:00-17:00` is one rule with two times.
            if rules.iter().all(only_times) {
                return Some(rules.join(","));
            }
            let others = rules.iter().copied().filter(|rule| *rule != place);
            Some([place].into_iter().chain(others).collect::<Vec<_>>().join("; "))
        }
        Fault::HolidaysBesideDays => {
            let days = DAYS.iter().map(|(day, _)| *day);
            let sides = days.flat_map(|day| {
                [(format!("PH {day}"), format!("PH,{day}")), (format!("{day} PH"), format!("{day},PH"))]
            });
            sides
                .into_iter()
                .find(|(blank, _)| text.contains(blank))
                .map(|(blank, comma)| text.replacen(&blank, &comma, 1))
        }
        Fault::MonthsWithoutColon => {
            let colon = MONTHS
                .iter()
                .flat_map(|(month, _)| DAYS.map(|(day, _)| (format!("{month} {day}["), format!("{month}: {day}["))));
            colon
                .into_iter()
                .find(|(blank, _)| place.contains(blank))
                .and_then(|(blank, colon)| replaced(place, &place.replace(&blank, &colon)))
        }
        Fault::YearWithoutBlank => {
            let month = MONTHS
                .iter()
                .filter_map(|(month, _)| place.find(month))
                .find(|at| place[..*at].ends_with(|c: char| c.is_ascii_digit()))?;
            replaced(place, &format!("{} {}", &place[..month], &place[month..]))
        }
        // Only its author knows what was meant.
        Fault::Blank
        | Fault::TooLong { .. }
        | Fault::TooManyRules { .. }
        | Fault::Fallback
        | Fault::Unknown
        | Fault::SchoolHolidays
        | Fault::SunTime
        | Fault::NoHolidays
        | Fault::NeverOpens
        | Fault::FarOffset
        | Fault::FifthInRange
        | Fault::Unsure => None,
    }
}

/// After times a comma begins a rule, before them it is one of a list.
fn without_comma_blank(text: &str) -> String {
    let mut parts = text.split(", ");
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rule = written.rsplit(';').next().unwrap_or_default();
        let complete = rule.contains(':') || rule.ends_with("off") || rule.ends_with("closed");
        let begins = complete && part.starts_with(|c: char| c.is_ascii_alphabetic());
        written.push_str(if begins { "; " } else { "," });
        written.push_str(part);
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
    let mut written = String::new();
    let mut rest = rule;
    while let Some(slash) = rest.find('/') {
        written.push_str(rest[..slash].trim_end());
        rest = rest[slash + 1..].trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    }
    written + rest
}

/// `08:00-08:00` → `08:00-32:00`.
fn with_another_day(rule: &str) -> String {
    let longer = |part: &str| {
        let (before, span) = part.rsplit_once(' ').map_or(("", part), |(before, span)| (before, span));
        let (begin, end) = span.split_once('-')?;
        let minutes = |time: &str| {
            let (hours, minutes) = time.split_once(':')?;
            Some(hours.parse::<u16>().ok()? * 60 + minutes.parse::<u16>().ok()?)
        };
        let end = minutes(end).filter(|end| minutes(begin) == Some(*end))?;
        let blank = if before.is_empty() { "" } else { " " };
        Some(format!("{before}{blank}{begin}-{:02}:{:02}", end / 60 + 24, end % 60))
    };
    rule.split(',').map(|part| longer(part).unwrap_or_else(|| part.to_owned())).collect::<Vec<_>>().join(",")
}

/// Cloud Custodian's `off=(M-F,19);on=(M-F,7)`, where both are about the same days.
fn of_custodian(text: &str) -> Option<String> {
    let value = |key: &str| {
        let rest = text.split(';').map(str::trim).find_map(|part| part.strip_prefix(key))?;
        let (days, hour) = rest.strip_prefix("=(")?.strip_suffix(')')?.rsplit_once(',')?;
        Some((days.trim(), hour.trim().parse::<u16>().ok().filter(|hour| *hour < 24)?))
    };
    let ((days, on), (days_off, off)) = (value("on")?, value("off")?);
    let letters = [('M', "Mo"), ('T', "Tu"), ('W', "We"), ('H', "Th"), ('F', "Fr"), ('S', "Sa"), ('U', "Su")];
    let day = |c: char| letters.iter().find(|(letter, _)| *letter == c).map_or("", |(_, day)| day);
    let days = (days == days_off)
        .then(|| days.replace(|c: char| c.is_ascii_uppercase(), ""))
        .filter(|rest| rest.is_empty() || rest == "-")
        .map(|_| days.chars().map(|c| if c == '-' { "-" } else { day(c) }).collect::<String>())?;
    Some(format!("{days} {on:02}:00-{off:02}:00"))
}

/// A piece of a text that people write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Days(String),
    Month(&'static str),
    /// A day of a month, or a year.
    Number(String),
    Time(u16),
    Off,
    /// `,`
    And,
    /// `-`
    To,
    /// `;`
    Then,
    /// What stays as it is: `[1]`, `week`, `easter`, `24/7`.
    Other(String),
}

/// Writes the words that people use as the language's.
fn in_words(text: &str) -> String {
    let mut words = Vec::new();
    for piece in pieces(text) {
        push(&mut words, &piece);
    }
    written(&words)
}

/// Cuts a text at blanks and marks, and between letters and digits.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        _ if c.is_ascii_digit() || c == ':' || c == '.' => 0,
        _ if c.is_alphabetic() => 1,
        '[' | ']' => 2,
        _ => 3,
    };
    let mut bracket = false;
    let mut joined = false;
    for c in text.chars() {
        if c == ' ' {
            joined = false;
            continue;
        }
        let same = pieces
            .last()
            .and_then(|piece| piece.chars().next_back())
            .is_some_and(|last| kind(last) == kind(c) && kind(c) < 2);
        match pieces.last_mut() {
            Some(piece) if bracket || (joined && same) => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
        bracket = (bracket || c == '[') && c != ']';
        joined = true;
    }
    pieces
}

fn push(words: &mut Vec<Word>, piece: &str) {
    let lower = piece.trim_matches('.').to_lowercase();
    let day = DAYS.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(day, _)| *day);
    let is_month = |(short, long): &(&str, &str)| {
        lower.len() > 2 && (long.starts_with(&lower) || lower == format!("{}t", short.to_lowercase()))
    };
    let month = MONTHS.iter().find(|month| is_month(month)).map(|(month, _)| *month);
    let word = match lower.as_str() {
        "" => return,
        "weekday" | "weekdays" | "workday" | "workdays" => Word::Days("Mo-Fr".to_owned()),
        "weekend" | "weekends" => Word::Days("Sa,Su".to_owned()),
        "daily" | "everyday" => Word::Days("Mo-Su".to_owned()),
        "ph" | "holiday" | "holidays" => Word::Days("PH".to_owned()),
        "off" | "closed" | "close" => Word::Off,
        "to" | "until" | "till" | "through" | "-" => Word::To,
        "and" | "&" | "," => Word::And,
        ";" => Word::Then,
        "from" | "between" | "at" | "on" | "open" | "public" | "bank" | "hours" | "hrs" | "h" | "uhr" | "o"
        | "clock" | "every" => return,
        "noon" => Word::Time(12 * 60),
        "midnight" => Word::Time(if words.last() == Some(&Word::To) { 24 * 60 } else { 0 }),
        "am" | "a" => return half_day(words, 0),
        "pm" | "p" => return half_day(words, 12 * 60),
        _ if day.is_some() || month.is_some() => match (day, month) {
            (Some(day), _) => Word::Days(day.to_owned()),
            (None, month) => Word::Month(month.unwrap_or_default()),
        },
        _ if lower.starts_with(|c: char| c.is_ascii_digit()) => number(words, &lower),
        _ => Word::Other(piece.to_owned()),
    };
    words.push(word);
}

/// `9 am`, `12 pm`.
fn half_day(words: &mut [Word], add: u16) {
    let Some(last) = words.last_mut() else { return };
    let time = match last {
        Word::Time(time) => *time,
        Word::Number(number) => number.parse::<u16>().map_or(0, |hour| hour.min(24) * 60),
        _ => return,
    };
    if (60..13 * 60).contains(&time) {
        *last = Word::Time(time % (12 * 60) + add);
    }
}

/// A time, a day of the month or a year: after a month, and in its list or range, a day.
fn number(words: &[Word], digits: &str) -> Word {
    let parts: Vec<&str> = digits.split([':', '.']).collect();
    let value = |text: &str| text.parse::<u16>().ok();
    let time = match parts.as_slice() {
        [hours, minutes, ..] if minutes.len() == 2 => value(hours).zip(value(minutes)),
        [hours] if hours.len() <= 2 => value(hours).map(|hours| (afternoon(words, hours), 0)),
        [both] if both.len() == 4 => value(&both[..2]).zip(value(&both[2..])),
        _ => None,
    };
    let of_month = match words {
        [.., Word::Month(_)] => true,
        [.., Word::Month(_), Word::Number(_), Word::To | Word::And] => parts.len() == 1,
        _ => false,
    };
    let year = matches!(value(digits), Some(2000..=2099)) && !matches!(words, [.., Word::To | Word::Days(_)]);
    match time {
        _ if year || (of_month && parts.len() == 1) => Word::Number(digits.to_owned()),
        Some((hours, minutes)) if hours <= 48 && minutes < 60 => Word::Time(hours * 60 + minutes),
        _ => Word::Other(digits.to_owned()),
    }
}

/// `9-5` ends at 17:00.
fn afternoon(words: &[Word], hour: u16) -> u16 {
    match words {
        [.., Word::Time(begin), Word::To] if hour * 60 < *begin && *begin <= 12 * 60 => hour + 12,
        _ => hour,
    }
}

fn written(words: &[Word]) -> String {
    let mut text = String::new();
    // What has been written of the rule: whether its times have begun, and the month of its last date.
    let (mut timed, mut month) = (false, "");
    for (n, word) in words.iter().enumerate() {
        let previous = n.checked_sub(1).and_then(|n| words.get(n));
        let joined = matches!(previous, None | Some(Word::To | Word::And)) || text.is_empty();
        // `Mo-Fr 08:00-19:00 PH off`, `…, Sa 09:00-12:00`: times are the end of a rule.
        if timed && matches!(word, Word::Days(_) | Word::Month(_)) {
            text = format!("{}; ", text.trim_end_matches([',', ' ', '-']));
            timed = false;
        } else if !joined && !matches!(word, Word::To | Word::And | Word::Then) && !text.ends_with(' ') {
            // `Mo[1]`; `Mo Tu` is a list.
            match (previous, word) {
                (_, Word::Other(other)) if other.starts_with('[') => {}
                (Some(Word::Days(_)), Word::Days(_)) | (Some(Word::Time(_)), Word::Time(_)) => text.push(','),
                _ => text.push(' '),
            }
        }
        match word {
            Word::Days(days) => text.push_str(days),
            Word::Month(name) => {
                month = name;
                text.push_str(name);
            }
            // `Dec 24,25` is `Dec 24,Dec 25`.
            Word::Number(number) if previous == Some(&Word::And) => text.push_str(&format!("{month} {number}")),
            Word::Number(number) => text.push_str(number),
            Word::Time(time) => {
                timed = true;
                text.push_str(&format!("{:02}:{:02}", time / 60, time % 60));
            }
            Word::Off => text.push_str("off"),
            // `Mo-Fr, 08:00-19:00`.
            Word::And if matches!((previous, words.get(n + 1)), (Some(Word::Days(_)), Some(Word::Time(_)))) => {
                text.push(' ');
            }
            Word::And => text.push(','),
            Word::To => text.push('-'),
            Word::Then => {
                timed = false;
                text.push_str("; ");
            }
            Word::Other(other) => text.push_str(other),
        }
    }
    super::osm::tidy(&text)
}
