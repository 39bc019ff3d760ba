//! The request's `hours` and `holidays` → schedules by name; a tag's value → the schedule that it means.
//!
//! Must not know the rest of the request.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::{BadHours, Fault, Holidays, Hours, State};
use crate::wording::{nearest, path_of, quote, quote_str};

/// Schedules of a request: Scheduler's input holds 256 KB, so about so many of them, and reading them costs a tenth of a
/// second.
const MAX_SCHEDULES: usize = 1_000;
/// Texts in a schedule: each costs time at every evaluation.
const MAX_TEXTS: usize = 24;
/// Characters of a name: of a tag's value (EC2 user guide, "Tag restrictions").
const MAX_NAME_CHARS: usize = 256;
/// How hours are written.
const LIKE: &str = "write it like \"Mo-Fr 08:00-19:00; PH off\"";
const FIELDS: [&str; 4] = ["open", "timezone", "holidays", "start"];
const HOLIDAY_FIELDS: [&str; 3] = ["country", "add", "except"];

/// When instances run, and whether an opening starts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When they run.
    pub hours: Hours,
    /// Whether they are started at an opening; else only people start them.
    pub start: bool,
}

/// Tag values whose schedules are kept at hand: a run has few, unless somebody writes a text of its own on each instance.
const MAX_KEPT: usize = 4096;

/// The request's schedules, and what hours that a tag itself says are read with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedules {
    named: BTreeMap<String, Arc<Schedule>>,
    zone: Tz,
    holidays: Holidays,
    found: Memo,
}

/// What a tag's value means at a moment: its schedule, and whether that is open.
pub type InForce = Result<(Arc<Schedule>, State), Arc<BadTag>>;

/// A cache of what values mean: each is read once in a run. It is not part of the schedules' equality.
#[derive(Debug, Default)]
struct Memo(Mutex<Known>);

/// By value: the moment, and what it means then.
type Known = BTreeMap<Box<str>, (DateTime<Utc>, InForce)>;

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl Schedules {
    /// Builds those of a request that names none.
    #[must_use]
    pub fn unnamed(zone: Tz, holidays: Holidays) -> Self {
        Self { named: BTreeMap::new(), zone, holidays, found: Memo::default() }
    }

    /// Reads the request's `hours`, in whose `zone` and with whose `holidays` those are read that say none; notes every
    /// problem with its path.
    #[must_use]
    pub fn read(value: Value, zone: Tz, holidays: Holidays, moment: DateTime<Utc>, problems: &mut Vec<String>) -> Self {
        let mut schedules = Self::unnamed(zone, holidays);
        let map = match value {
            Value::Object(map) if map.is_empty() => {
                problems.push("hours: empty; name at least one, or leave it out".to_owned());
                return schedules;
            }
            Value::Object(map) if map.len() > MAX_SCHEDULES => {
                problems.push(format!("hours: {} of them, at most {MAX_SCHEDULES}; split the event", map.len()));
                return schedules;
            }
            Value::Object(map) => map,
            other => {
                let like = "{\"office\": \"Mo-Fr 08:00-19:00; PH off\"}";
                problems.push(format!("hours: expected a map, found {}; write it like {like}", quote(&other)));
                return schedules;
            }
        };
        for (name, value) in map {
            let path = format!("hours.{}", path_of(&name));
            match name.chars().count() {
                0 => problems
                    .push(format!("{path}: a schedule without a name; write what the tags say, like \"office\"")),
                1..=MAX_NAME_CHARS => {}
                n => problems.push(format!(
                    "{path}: a name of {n} characters, but a tag's value has at most {MAX_NAME_CHARS}; shorten it"
                )),
            }
            if let Some(schedule) = schedules.schedule(&path, value, moment, problems) {
                schedules.named.insert(name, Arc::new(schedule));
            }
        }
        schedules
    }

    fn schedule(
        &self,
        path: &str,
        value: Value,
        moment: DateTime<Utc>,
        problems: &mut Vec<String>,
    ) -> Option<Schedule> {
        let mut fields = match value {
            Value::Object(fields) => fields,
            text @ (Value::String(_) | Value::Array(_)) => {
                let texts = texts_of(path, text, problems)?;
                let hours = read_texts(path, texts, self.zone, &self.holidays, moment, problems)?;
                return Some(Schedule { hours, start: true });
            }
            other => {
                problems
                    .push(format!("{path}: expected text, a list of texts or a map, found {}; {LIKE}", quote(&other)));
                return None;
            }
        };
        let before = problems.len();
        unknown_fields(path, &mut fields, &FIELDS, problems);
        let zone = fields.remove("timezone").map_or(Some(self.zone), |value| read_zone(path, value, problems));
        let holidays = match fields.remove("holidays") {
            None => Some(self.holidays.clone()),
            Some(value) => Holidays::read(&format!("{path}.holidays"), value, problems),
        };
        let start = match fields.remove("start") {
            None => true,
            Some(Value::Bool(start)) => start,
            Some(other) => {
                problems.push(format!("{path}.start: expected true or false without quotes, found {}", quote(&other)));
                true
            }
        };
        let Some(open) = fields.remove("open") else {
            // A misspelt field is one problem, not two.
            if problems.len() == before || !problems[before..].iter().any(|problem| problem.ends_with("\"open\"?")) {
                problems.push(format!("{path}.open: missing, {LIKE}"));
            }
            return None;
        };
        let path = format!("{path}.open");
        let texts = texts_of(&path, open, problems)?;
        let hours = read_texts(&path, texts, zone?, &holidays?, moment, problems)?;
        Some(Schedule { hours, start })
    }

    /// Returns those that have names, in the names' order.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Schedule)> {
        self.named.iter().map(|(name, schedule)| (name.as_str(), &**schedule))
    }

    /// Finds what a tag's value means, and whether it is open.
    ///
    /// # Errors
    /// It is neither a name nor hours, or it is closed for good.
    pub fn at(&self, value: &str, moment: DateTime<Utc>) -> InForce {
        let mut found = self.found.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = found.get(value).filter(|(at, _)| *at == moment) {
            return known.clone();
        }
        let schedule = self.find(value, moment).map_err(Arc::new);
        let in_force = schedule.map(|schedule| {
            let state = schedule.hours.state_at(moment);
            (schedule, state)
        });
        if found.len() < MAX_KEPT {
            found.insert(value.into(), (moment, in_force.clone()));
        }
        in_force
    }

    /// Finds what a tag's value means: a name, else hours.
    ///
    /// # Errors
    /// It is neither, or it is closed for good.
    pub fn find(&self, value: &str, moment: DateTime<Utc>) -> Result<Arc<Schedule>, BadTag> {
        let schedule = match self.named.get(value) {
            Some(schedule) => schedule.clone(),
            None => match Hours::parse(value, self.zone, &self.holidays) {
                Ok(hours) => Arc::new(Schedule { hours, start: true }),
                Err(bad) => {
                    let near = nearest(value.trim(), self.named.keys().map(String::as_str));
                    let bad = bad.advised(self.zone, &self.holidays, moment);
                    return Err(BadTag { bad, name: near.map(Into::into) });
                }
            },
        };
        if schedule.hours.never_open(moment) {
            let bad = BadHours::new(value, Fault::NeverOpens);
            return Err(BadTag { bad, name: None });
        }
        Ok(schedule)
    }
}

/// A tag's value that is neither the name of a schedule nor hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTag {
    bad: BadHours,
    name: Option<Box<str>>,
}

impl BadTag {
    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> &str {
        self.bad.text()
    }

    /// Returns what to write instead, if it is clear: the name of a schedule, or hours.
    #[must_use]
    pub fn write(&self) -> Option<&str> {
        self.name.as_deref().or(self.bad.write())
    }

    /// Writes the value and what to write instead, for the report's one sentence: `"Mon-Fri 8-19", write "Mo-Fr
    /// 08:00-19:00"`.
    #[must_use]
    pub fn in_short(&self) -> String {
        let value = quote_str(self.value());
        match self.write() {
            Some(text) => format!("{value}, write {}", Value::String(text.to_owned())),
            None => value,
        }
    }
}

impl std::error::Error for BadTag {}

impl fmt::Display for BadTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(
                f,
                "{}: neither a name in the request's \"hours\" nor hours; did you mean {}?",
                quote_str(self.value()),
                Value::String(name.to_string())
            ),
            // Without a digit it was hardly meant as hours.
            None if *self.bad.fault() == Fault::Unreadable && self.bad.write().is_none() => {
                let why = self.bad.to_string();
                match self.value().contains(|c: char| c.is_ascii_digit()) {
                    true => f.write_str(&why),
                    false => write!(
                        f,
                        "{}: neither a name in the request's \"hours\" nor hours; write one of its names, or hours like \"Mo-Fr 08:00-19:00\"",
                        quote_str(self.value())
                    ),
                }
            }
            None => write!(f, "{}", self.bad),
        }
    }
}

impl Holidays {
    /// Reads `holidays`: a country's code, or a map of `country`, `add` and `except`; notes every problem with its path.
    #[must_use]
    pub fn read(path: &str, value: Value, problems: &mut Vec<String>) -> Option<Self> {
        const LIKE: &str = "write it like \"DE\", or {\"country\": \"DE\", \"add\": [\"2026-12-24\"]}";
        let before = problems.len();
        let mut fields = match value {
            Value::String(code) => return country(path, &code, problems),
            Value::Object(fields) if fields.is_empty() => {
                problems.push(format!("{path}: empty; {LIKE}"));
                return None;
            }
            Value::Object(fields) => fields,
            other => {
                problems.push(format!("{path}: expected a country's code or a map, found {}; {LIKE}", quote(&other)));
                return None;
            }
        };
        unknown_fields(path, &mut fields, &HOLIDAY_FIELDS, problems);
        let of_country = match fields.remove("country") {
            None => None,
            Some(Value::String(code)) => country(&format!("{path}.country"), &code, problems),
            Some(other) => {
                problems.push(format!(
                    "{path}.country: expected a country's code, found {}; write it like \"DE\"",
                    quote(&other)
                ));
                None
            }
        };
        let add = dates(&format!("{path}.add"), fields.remove("add"), problems);
        let except = dates(&format!("{path}.except"), fields.remove("except"), problems);
        if let Some(day) = add.intersection(&except).next() {
            problems.push(format!("{path}: \"{day}\" is in \"add\" and in \"except\"; leave it out of one"));
        }
        (problems.len() == before).then(|| of_country.unwrap_or_default().with(add).without(except))
    }
}

fn country(path: &str, code: &str, problems: &mut Vec<String>) -> Option<Holidays> {
    let meant = match Holidays::of(code) {
        Ok(holidays) => return Some(holidays),
        Err(meant) => meant,
    };
    let hint = meant.map_or_else(
        || "write two letters like \"DE\", or list the days in \"add\"".to_owned(),
        |code| format!("did you mean \"{code}\"?"),
    );
    problems.push(format!("{path}: {} is not a country whose holidays are known; {hint}", quote_str(code)));
    None
}

fn dates(path: &str, value: Option<Value>, problems: &mut Vec<String>) -> BTreeSet<NaiveDate> {
    let like = "write it like \"2026-12-24\"";
    let values = match value {
        None => return BTreeSet::new(),
        Some(Value::Array(values)) => {
            values.into_iter().enumerate().map(|(n, value)| (format!("{path}[{n}]"), value)).collect()
        }
        Some(one) => vec![(path.to_owned(), one)],
    };
    let mut dates = BTreeSet::new();
    for (path, value) in values {
        let Value::String(text) = value else {
            problems.push(format!("{path}: expected a date, found {}; {like}", quote(&value)));
            continue;
        };
        // Exactly this shape: chrono alone would read "26-1-5" as a day of the year 26.
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        match NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().filter(|_| shape == "0000-00-00") {
            Some(date) => {
                dates.insert(date);
            }
            None => problems.push(format!("{path}: {} is not a date; {like}", quote_str(&text))),
        }
    }
    dates
}

fn read_zone(path: &str, value: Value, problems: &mut Vec<String>) -> Option<Tz> {
    let Value::String(text) = value else {
        problems
            .push(format!("{path}.timezone: expected text, found {}; write it like \"Europe/Berlin\"", quote(&value)));
        return None;
    };
    zone(&text).map_err(|why| problems.push(format!("{path}.timezone: {why}"))).ok()
}

/// Reads a time zone's name, or says why it is none.
///
/// Only what differs by one slip is taken for a place's name: a guess at any other, or at an abbreviation, may be hours off.
pub(crate) fn zone(text: &str) -> Result<Tz, String> {
    let plain = |text: &str| text.replace(['_', ' '], "").to_ascii_lowercase();
    let is_place = |text: &str| text.contains('/') && !text.contains(|c: char| c.is_ascii_digit()) && text.len() < 40;
    let is_slip =
        |name: &&str| is_place(text) && is_place(name) && strsim::damerau_levenshtein(&plain(text), &plain(name)) == 1;
    text.parse().map_err(|_| {
        let mut names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let near = names.clone().find(|name| plain(name) == plain(text)).or_else(|| names.find(is_slip));
        let hint = near.map_or_else(
            || "write a place, like \"America/Los_Angeles\"".to_owned(),
            |name| format!("did you mean \"{name}\"?"),
        );
        format!("{} is not an IANA time zone; {hint}", quote_str(text))
    })
}

/// Texts of hours, and whether they stand in a list.
type Texts = (Vec<String>, bool);

/// Returns where in the request a text stands.
fn place(path: &str, n: usize, listed: bool) -> String {
    if listed { format!("{path}[{n}]") } else { path.to_owned() }
}

fn texts_of(path: &str, value: Value, problems: &mut Vec<String>) -> Option<Texts> {
    let (values, listed) = match value {
        Value::Array(values) if values.is_empty() => {
            problems.push(format!("{path}: an empty list is never open; {LIKE}"));
            return None;
        }
        Value::Array(values) if values.len() > MAX_TEXTS => {
            problems.push(format!("{path}: {} texts, at most {MAX_TEXTS}; join some with \";\"", values.len()));
            return None;
        }
        Value::Array(values) => (values, true),
        one => (vec![one], false),
    };
    let before = problems.len();
    let mut texts = Vec::new();
    for (n, value) in values.into_iter().enumerate() {
        match value {
            Value::String(text) => texts.push(text),
            other => problems.push(format!(
                "{}: expected text or a list of texts, found {}; {LIKE}",
                place(path, n, listed),
                quote(&other)
            )),
        }
    }
    (problems.len() == before).then_some((texts, listed))
}

fn read_texts(
    path: &str,
    (texts, listed): Texts,
    zone: Tz,
    holidays: &Holidays,
    moment: DateTime<Utc>,
    problems: &mut Vec<String>,
) -> Option<Hours> {
    match Hours::parse_all(texts.iter().map(String::as_str), zone, holidays) {
        Ok(hours) => {
            // In a list, one of a year that is over does no harm beside others that open.
            let closed = hours.never_open(moment);
            let never = |hours: &Hours| hours.never_open(moment) && (closed || hours.open_in_no_year(moment));
            let alone = hours.each().zip(&texts).enumerate().filter(|(_, (alone, _))| never(alone));
            let before = problems.len();
            problems.extend(alone.map(|(n, (_, text))| {
                format!("{}: {}", place(path, n, listed), BadHours::new(text, Fault::NeverOpens))
            }));
            (problems.len() == before).then_some(hours)
        }
        Err(errors) => {
            let advised = errors.into_iter().map(|(n, error)| (n, error.advised(zone, holidays, moment)));
            problems.extend(advised.map(|(n, error)| format!("{}: {error}", place(path, n, listed))));
            None
        }
    }
}

fn unknown_fields(path: &str, fields: &mut Map<String, Value>, known: &[&str], problems: &mut Vec<String>) {
    let unknown: Vec<String> = fields.keys().filter(|field| !known.contains(&field.as_str())).cloned().collect();
    for field in unknown {
        fields.remove(&field);
        let hint = nearest(&field, known.iter().copied())
            .map_or_else(|| "remove it".to_owned(), |known| format!("did you mean \"{known}\"?"));
        problems.push(format!("{path}.{}: unknown field, {hint}", path_of(&field)));
    }
}
