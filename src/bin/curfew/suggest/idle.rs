//! Pure: hours of CPU and network → when an instance looks idle, as running hours.
//!
//! An hour is busy by a threshold; a day of the week is a working day if on most of its dates something was busy; and its
//! hours reach from the first to the last hour that is busy on more than a tenth of all working days. Hours that cross midnight
//! are found, too: a day begins in the middle of its longest quiet.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use ec2_curfew::hours::{Holidays, Hours};

/// CPU from which an hour is busy, in percent: below it Compute Optimizer calls an instance idle (Compute Optimizer user guide,
/// "Idle resources").
pub(super) const BUSY_CPU: f64 = 5.0;
/// Bytes in and out from which an hour is busy: what agents, time and updates send is a tenth of it.
pub(super) const BUSY_NETWORK: f64 = 5e6;
/// A part of all days on which an hour may be busy, and doesn't count: a backup, an update.
const NOISE: f64 = 0.1;
/// Hours that are busy on a working day, at least.
const WORK: usize = 2;
/// Hours a day from which there is nothing to gain.
const ALWAYS: usize = 22;
/// Time without which nothing is said: a week has all its days.
const LEAST: TimeDelta = TimeDelta::days(6);
/// Hours that it has run without which nothing is said, however far apart they are: a working week, as whoever switches it
/// off at night by hand has it run.
const LEAST_HOURS: usize = 40;
const WEEKDAYS: [&str; 7] = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

/// An hour in which an instance ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hour {
    /// Its beginning.
    pub(super) at: DateTime<Utc>,
    /// CPU in percent, on average.
    pub(super) cpu: f64,
    /// Bytes in and out.
    pub(super) network: f64,
}

impl Hour {
    fn is_busy(&self) -> bool {
        self.cpu >= BUSY_CPU || self.network >= BUSY_NETWORK
    }
}

/// What an instance looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Idle outside these hours.
    Idle(Span),
    /// Idle all the time.
    AllIdle,
    /// Busy most of the time, or at no hours in particular.
    Busy,
    /// It has run for less than a week.
    New,
}

/// The same hours on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// From Monday on.
    pub(super) days: [bool; 7],
    /// The first hour, below 24.
    pub(super) begin: usize,
    /// The hour after the last, up to 47: it may be in the next day.
    pub(super) end: usize,
}

impl Span {
    /// Writes the days: `Mo-Fr`, `Mo-We,Su`.
    fn days(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut day = 0;
        while day < 7 {
            let length = self.days[day..].iter().take_while(|works| **works).count();
            match length {
                0 => {}
                1 | 2 => parts.extend(WEEKDAYS[day..day + length].iter().map(|&day| day.to_owned())),
                _ => parts.push(format!("{}-{}", WEEKDAYS[day], WEEKDAYS[day + length - 1])),
            }
            day += length.max(1);
        }
        parts.join(",")
    }

    /// Writes the hours as a tag has them.
    pub(super) fn text(&self) -> String {
        let end = if self.end > 24 { self.end - 24 } else { self.end };
        format!("{} {:02}:00-{end:02}:00", self.days(), self.begin)
    }

    /// Returns a name for them.
    pub(super) fn name(&self) -> String {
        let days = self.days().to_lowercase().replace(',', "-");
        format!("{days}-{:02}-{:02}", self.begin, if self.end > 24 { self.end - 24 } else { self.end })
    }

    /// Whether both have the same days, and hardly other hours.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.days == other.days && self.begin.abs_diff(other.begin) <= 1 && self.end.abs_diff(other.end) <= 1
    }

    /// Returns hours in which both are open.
    pub(super) fn with(&self, other: &Self) -> Self {
        Self { days: self.days, begin: self.begin.min(other.begin), end: self.end.max(other.end) }
    }

    /// Returns them as the function reads them; none if it wouldn't.
    pub(super) fn hours(&self, zone: Tz) -> Option<Hours> {
        Hours::parse(&self.text(), zone, &Holidays::default()).ok()
    }
}

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Confidence {
    /// Hardly.
    Low,
    /// A week at least, and idle outside the hours but for a few.
    Medium,
    /// Two weeks at least, with a working week's hours in each, and nearly always idle outside the hours.
    High,
}

/// What some hours would save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain {
    /// Hours in which it ran outside of them.
    pub(super) outside: usize,
    /// Those of them in which it looked idle.
    pub(super) idle: usize,
    /// How sure it is.
    pub(super) confidence: Confidence,
}

/// Finds out how an instance looks.
pub(super) fn judge(hours: &[Hour], zone: Tz) -> Looks {
    let seen = hours.iter().map(|hour| hour.at);
    let (Some(first), Some(last)) = (seen.clone().min(), seen.max()) else { return Looks::New };
    if last - first < LEAST || hours.len() < LEAST_HOURS {
        return Looks::New;
    }
    let Some(shift) = quiet(hours, zone) else { return Looks::Busy };
    // Each hour as (date, hour) of a day that begins in the quiet.
    let mut dates: BTreeMap<NaiveDate, BTreeSet<usize>> = BTreeMap::new();
    for hour in hours {
        let local = hour.at.with_timezone(&zone).naive_local() - TimeDelta::hours(shift);
        let busy = dates.entry(local.date()).or_default();
        if hour.is_busy() {
            busy.insert(local.hour() as usize);
        }
    }
    let works = |weekday: usize| {
        let of_it = dates.iter().filter(|(date, _)| date.weekday().num_days_from_monday() as usize == weekday);
        let (busy, all) =
            of_it.fold((0, 0), |(busy, all), (_, hours)| (busy + usize::from(hours.len() >= WORK), all + 1));
        busy > 0 && busy * 2 >= all
    };
    let mut days: [bool; 7] = std::array::from_fn(works);
    let working: Vec<&BTreeSet<usize>> = dates
        .iter()
        .filter(|(date, _)| days[date.weekday().num_days_from_monday() as usize])
        .map(|(_, hours)| hours)
        .collect();
    let is_used = |hour: &usize| {
        let busy = working.iter().filter(|hours| hours.contains(hour)).count();
        busy as f64 > NOISE * working.len() as f64
    };
    let (Some(begin), Some(last)) = ((0..24).find(is_used), (0..24).rfind(is_used)) else {
        // Now and then something; at no hours that could be written down.
        let busy = hours.iter().filter(|hour| hour.is_busy()).count();
        return if busy as f64 <= 0.02 * hours.len() as f64 { Looks::AllIdle } else { Looks::Busy };
    };
    if last + 1 - begin >= ALWAYS {
        return Looks::Busy;
    }
    let (mut begin, mut end) = (begin as i64 + shift, last as i64 + 1 + shift);
    // They belong to the day on which they begin.
    if begin < 0 {
        (begin, end) = (begin + 24, end + 24);
        days.rotate_left(1);
    } else if begin >= 24 {
        (begin, end) = (begin - 24, end - 24);
        days.rotate_right(1);
    }
    match (usize::try_from(begin), usize::try_from(end)) {
        (Ok(begin), Ok(end)) => Looks::Idle(Span { days, begin, end }),
        _ => Looks::Busy,
    }
}

/// Finds how many hours after midnight a day begins, from -11 to 12, so that it begins in the middle of the longest quiet;
/// none if there is no quiet.
fn quiet(hours: &[Hour], zone: Tz) -> Option<i64> {
    let (mut busy, mut all) = ([0; 24], [0; 24]);
    for hour in hours {
        let at = hour.at.with_timezone(&zone).hour() as usize;
        all[at] += 1;
        busy[at] += usize::from(hour.is_busy());
    }
    let is_quiet = |hour: usize| busy[hour % 24] as f64 <= NOISE * f64::from(all[hour % 24]);
    let length = |from: usize| (from..from + 24).take_while(|hour| is_quiet(*hour)).count();
    let longest = (0..24).max_by_key(|from| (length(*from), std::cmp::Reverse(*from)))?;
    let length = length(longest);
    let middle = i64::try_from((longest + length / 2) % 24).ok()?;
    (length > 0).then_some(if middle <= 12 { middle } else { middle - 24 })
}

/// Returns what hours would save, of the hours in which it ran.
pub(super) fn gain(hours: &[Hour], of: &Hours) -> Gain {
    let is_outside = |hour: &&Hour| !of.state_at(hour.at + TimeDelta::minutes(30)).open;
    let outside: Vec<&Hour> = hours.iter().filter(is_outside).collect();
    let idle = outside.iter().filter(|hour| !hour.is_busy()).count();
    let seen = hours.iter().map(|hour| hour.at);
    let time = seen.clone().max().zip(seen.min()).map_or(TimeDelta::zero(), |(last, first)| last - first);
    let share = if outside.is_empty() { 1.0 } else { idle as f64 / outside.len() as f64 };
    let confidence = match () {
        () if share >= 0.99 && time >= TimeDelta::days(13) && hours.len() >= 2 * LEAST_HOURS => Confidence::High,
        () if share >= 0.95 => Confidence::Medium,
        () => Confidence::Low,
    };
    Gain { outside: outside.len(), idle, confidence }
}
