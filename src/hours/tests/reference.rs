//! The hours once more, written apart and slowly: each minute is looked at by itself, and nothing is asked of the crate.
//!
//! Local time is a clock that never goes back: it waits for the last time that others show what it shows. So a time that
//! clocks repeat is reached when they show it for the last time, and one that they skip at the moment of the change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc, Weekday};
use chrono_tz::Tz;
use proptest::prelude::*;

use crate::hours::{Edge, Fault, Holidays, Hours};

const DAYS: [&str; 7] = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];
pub(super) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Pacific/Auckland",
];
/// Moments near which clocks change in one of the zones, and years begin, end and have their 29 February.
const MOMENTS: [&str; 12] = [
    "2026-02-15T02:00:00Z",
    "2026-03-08T06:00:00Z",
    "2026-03-22T02:00:00Z",
    "2026-03-29T01:00:00Z",
    "2026-04-05T00:00:00Z",
    "2026-04-24T00:00:00Z",
    "2026-10-03T15:30:00Z",
    "2026-10-25T01:00:00Z",
    "2026-10-30T00:00:00Z",
    "2026-11-01T06:00:00Z",
    "2027-01-01T00:00:00Z",
    "2028-03-01T00:00:00Z",
];

/// What a rule says, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    years: Option<(i32, i32)>,
    dates: Vec<Dates>,
    weeks: Option<(u32, u32, u32)>,
    days: Vec<Weekdays>,
    times: Vec<(u16, u16)>,
    off: bool,
}

#[derive(Clone, Debug)]
enum Dates {
    Months(u32, u32),
    Day(u32, u32),
    Range((u32, u32), (u32, u32)),
    InYear(i32, u32, u32),
    Nth(u32, u32, i64),
    Easter(i64),
}

#[derive(Clone, Debug)]
enum Weekdays {
    Range(u32, u32),
    Nth(u32, i64, i64),
    Holiday(i64),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let month = |month: u32| MONTHS[month as usize - 1];
        let day = |day: u32| DAYS[day as usize];
        let moved = |days: i64| if days == 0 { String::new() } else { format!(" {days:+} days") };
        let mut parts = Vec::new();
        if let Some((from, to)) = self.years {
            parts.push(if from == to { format!("{from}") } else { format!("{from}-{to}") });
        }
        let dates = self.dates.iter().map(|dates| match dates {
            Dates::Months(from, to) if from == to => month(*from).to_owned(),
            Dates::Months(from, to) => format!("{}-{}", month(*from), month(*to)),
            Dates::Day(m, d) => format!("{} {d}", month(*m)),
            Dates::Range(from, to) => format!("{} {:02}-{} {:02}", month(from.0), from.1, month(to.0), to.1),
            Dates::InYear(y, m, d) => format!("{y} {} {d}", month(*m)),
            Dates::Nth(m, d, n) => format!("{} {}[{n}]", month(*m), day(*d)),
            Dates::Easter(days) => format!("easter{}", moved(*days)),
        });
        parts.extend(Some(dates.collect::<Vec<_>>().join(",")).filter(|dates| !dates.is_empty()));
        if let Some((from, to, step)) = self.weeks {
            let step = if step == 1 { String::new() } else { format!("/{step}") };
            parts.push(if from == to { format!("week {from}") } else { format!("week {from}-{to}{step}") });
        }
        let wide = !parts.is_empty();
        let days = self.days.iter().map(|days| match days {
            Weekdays::Range(from, to) if from == to => day(*from).to_owned(),
            Weekdays::Range(from, to) => format!("{}-{}", day(*from), day(*to)),
            Weekdays::Nth(d, n, days) => format!("{}[{n}]{}", day(*d), moved(*days)),
            Weekdays::Holiday(days) => format!("PH{}", moved(*days)),
        });
        let days = days.collect::<Vec<_>>().join(",");
        if wide && !days.is_empty() {
            let last = parts.len() - 1;
            parts[last].push(':');
        }
        parts.extend(Some(days).filter(|days| !days.is_empty()));
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        // An end on the next day is written as its own time now and then: 22:00-06:00.
        let end = |begin: u16, end: u16| {
            if end > 1440 && end - 1440 < begin && end.is_multiple_of(2) { end - 1440 } else { end }
        };
        let times = self.times.iter().map(|(from, to)| format!("{}-{}", time(*from), time(end(*from, *to))));
        parts.extend(Some(times.collect::<Vec<_>>().join(",")).filter(|times| !times.is_empty()));
        if self.off {
            parts.push("off".to_owned());
        }
        f.write_str(&parts.join(" "))
    }
}

impl Rule {
    fn is_about(&self, day: NaiveDate, holidays: &BTreeSet<NaiveDate>) -> bool {
        let any = |empty: bool, found: bool| empty || found;
        self.years.is_none_or(|(from, to)| (from..=to).contains(&day.year()))
            && any(self.dates.is_empty(), self.dates.iter().any(|dates| dates.contain(day)))
            && self.weeks.is_none_or(|(from, to, step)| {
                let week = day.iso_week().week();
                (from..=to).contains(&week) && (week - from).is_multiple_of(step)
            })
            && any(self.days.is_empty(), self.days.iter().any(|days| days.contain(day, holidays)))
    }
}

impl Dates {
    fn contain(&self, day: NaiveDate) -> bool {
        let within = |at: (u32, u32), from: (u32, u32), to: (u32, u32)| {
            if from <= to { from <= at && at <= to } else { from <= at || at <= to }
        };
        let today = (day.month(), day.day());
        match *self {
            Self::Months(from, to) => within((day.month(), 0), (from, 0), (to, 0)),
            Self::Day(m, d) => today == (m, d),
            Self::Range(from, to) => within(today, from, to),
            Self::InYear(y, m, d) => (day.year(), today) == (y, (m, d)),
            Self::Nth(m, d, n) => day.month() == m && is_nth(day, d, n),
            Self::Easter(days) => day == easter(day.year()) + TimeDelta::days(days),
        }
    }
}

impl Weekdays {
    fn contain(&self, day: NaiveDate, holidays: &BTreeSet<NaiveDate>) -> bool {
        let number = day.weekday().num_days_from_monday();
        match *self {
            Self::Range(from, to) if from <= to => (from..=to).contains(&number),
            Self::Range(from, to) => number >= from || number <= to,
            Self::Nth(d, n, days) => is_nth(day - TimeDelta::days(days), d, n),
            Self::Holiday(days) => holidays.contains(&(day - TimeDelta::days(days))),
        }
    }
}

/// Whether a day is its month's nth of its weekday, from the end if negative: by counting them.
fn is_nth(day: NaiveDate, weekday: u32, nth: i64) -> bool {
    let first = day.with_day(1).expect("the first");
    let month = first.iter_days().take_while(|other| other.month() == day.month());
    let mut same: Vec<NaiveDate> =
        month.filter(|day| day.weekday() == Weekday::try_from(weekday as u8).expect("a weekday")).collect();
    if nth < 0 {
        same.reverse();
    }
    same.get(nth.unsigned_abs() as usize - 1) == Some(&day)
}

/// Easter Sunday (Gauss, as Meeus writes it).
fn easter(year: i32) -> NaiveDate {
    let (a, b, c) = (year % 19, year / 100, year % 100);
    let h = (19 * a + b - b / 4 - (b - (b + 8) / 25 + 1) / 3 + 15) % 30;
    let l = (32 + 2 * (b % 4) + 2 * (c / 4) - h - c % 4) % 7;
    let m = (a + 11 * h + 22 * l) / 451;
    let n = h + l - 7 * m + 114;
    NaiveDate::from_ymd_opt(year, (n / 31) as u32, (n % 31) as u32 + 1).expect("Easter")
}

/// The minutes of a day and the next, up to 48:00, that a text opens.
fn minutes(rules: &[Rule], day: NaiveDate, holidays: &BTreeSet<NaiveDate>) -> Vec<bool> {
    let mut open = vec![false; 2880];
    for rule in rules.iter().filter(|rule| rule.is_about(day, holidays)) {
        if !rule.off || rule.times.is_empty() {
            open.fill(false);
        }
        for (from, to) in &rule.times {
            open[usize::from(*from)..usize::from(*to)].fill(!rule.off);
        }
    }
    open
}

/// When it opens and closes between two moments, looked at every `step` minutes.
fn looked_at(
    texts: &[Vec<Rule>],
    zone: Tz,
    holidays: &BTreeSet<NaiveDate>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    step: i64,
) -> Vec<Edge> {
    // Clocks may go back after `to`, too.
    let looks = (to + TimeDelta::days(2) - from).num_minutes() / step;
    let mut clock: Vec<NaiveDateTime> =
        (0..=looks).map(|n| (from + TimeDelta::minutes(n * step)).with_timezone(&zone).naive_local()).collect();
    // From the end: what is shown once more later is not reached yet.
    let mut earliest = clock[clock.len() - 1];
    for shown in clock.iter_mut().rev().skip(1) {
        let not_yet = earliest - TimeDelta::minutes(step);
        earliest = earliest.min(*shown);
        *shown = not_yet.min(*shown);
    }
    let mut days: BTreeMap<NaiveDate, Vec<bool>> = BTreeMap::new();
    let mut is_open = |day: NaiveDate, minute: usize| {
        let open = days.entry(day).or_insert_with(|| {
            let each = texts.iter().map(|rules| minutes(rules, day, holidays));
            each.reduce(|a, b| a.iter().zip(b).map(|(a, b)| *a || b).collect()).expect("a text")
        });
        open[minute]
    };
    let mut before = None;
    let mut edges = Vec::new();
    for (n, local) in clock.iter().enumerate() {
        let at = from + TimeDelta::minutes(n as i64 * step);
        if at > to {
            break;
        }
        let minute = (local.time() - chrono::NaiveTime::MIN).num_minutes() as usize;
        let open = is_open(local.date(), minute) || is_open(local.date() - Days::new(1), minute + 1440);
        if before.is_some_and(|before| before != open) {
            edges.push(Edge { at, opens: open });
        }
        before = Some(open);
    }
    edges
}

pub(super) fn holidays() -> BTreeSet<NaiveDate> {
    let days = [
        "2026-02-16",
        "2026-03-09",
        "2026-03-30",
        "2026-04-06",
        "2026-10-26",
        "2026-12-25",
        "2027-01-01",
        "2028-02-29",
    ];
    days.iter().map(|day| day.parse().expect("a date")).collect()
}

/// Rules; `grid` is what their times are a multiple of, and `longest` where they end at the latest.
pub(super) fn rules(grid: u16, longest: u16) -> impl Strategy<Value = Vec<Rule>> {
    let weekday = || 0..7_u32;
    let nth = || prop_oneof![1..=5_i64, -5..=-1_i64];
    let moved = || prop_oneof![4 => Just(0_i64), 1 => -9..=9_i64];
    let day = || (1..=12_u32, 1..=28_u32);
    let date = prop_oneof![
        (1..=12_u32, 1..=12_u32).prop_map(|(from, to)| Dates::Months(from, to)),
        day().prop_map(|(m, d)| Dates::Day(m, d)),
        (day(), day()).prop_map(|(from, to)| Dates::Range(from, to)),
        Just(Dates::Day(2, 29)),
        (2026..=2028_i32, day()).prop_map(|(y, (m, d))| Dates::InYear(y, m, d)),
        (1..=12_u32, weekday(), nth()).prop_map(|(m, d, n)| Dates::Nth(m, d, n)),
        moved().prop_map(Dates::Easter),
    ];
    let days = prop_oneof![
        5 => (weekday(), weekday()).prop_map(|(from, to)| Weekdays::Range(from, to)),
        1 => (weekday(), nth(), moved()).prop_map(|(d, n, days)| Weekdays::Nth(d, n, days)),
        1 => moved().prop_map(Weekdays::Holiday),
    ];
    let time = (0..1440 / grid, 1..=longest / grid).prop_map(move |(from, length)| {
        let from = from * grid;
        (from, (from + length * grid).min(longest))
    });
    let years = prop_oneof![8 => Just(None), 1 => (2026..=2027_i32, 0..2_i32).prop_map(|(y, n)| Some((y, y + n)))];
    let weeks = prop_oneof![8 => Just(None), 1 => (1..=53_u32, 0..52_u32, 1..4_u32).prop_map(|(from, n, step)| {
        Some((from, (from + n).min(53), step))
    })];
    let dates = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(date, 1..3)];
    let rule =
        (years, dates, weeks, prop::collection::vec(days, 0..3), prop::collection::vec(time, 0..3), any::<bool>());
    let rule = rule.prop_map(|(years, dates, weeks, days, times, off)| Rule { years, dates, weeks, days, off, times });
    prop::collection::vec(rule, 1..5).prop_map(|mut rules| {
        // A text that begins by being off says nothing, nor does an open rule without times.
        for (n, rule) in rules.iter_mut().enumerate() {
            rule.off = rule.off && n > 0;
            // Refused: a rule about every day after others.
            if n > 0 && rule.years.is_none() && rule.dates.is_empty() && rule.weeks.is_none() && rule.days.is_empty() {
                rule.days.push(Weekdays::Range(1, 3));
            }
            if rule.times.is_empty() && !rule.off {
                rule.times.push((480, 1140));
            }
            // `2026 Mar 16-Jan 5`: a year alone is the first date's, not the rule's.
            if rule.years.is_some_and(|(from, to)| from == to)
                && !matches!(rule.dates.first(), None | Some(Dates::Months(..)))
            {
                rule.years = None;
                rule.days.push(Weekdays::Range(4, 0));
            }
            // The grammar takes them before or after weekdays, not among them.
            rule.days.sort_by_key(|days| !matches!(days, Weekdays::Holiday(_)));
        }
        rules
    })
}

pub(super) fn text(rules: &[Rule]) -> String {
    rules.iter().map(Rule::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads texts; none if one is of those that are refused although they can be read.
pub(super) fn parsed(texts: &[Vec<Rule>], zone: Tz, holidays: &Holidays) -> Option<Hours> {
    let written: Vec<String> = texts.iter().map(|rules| text(rules)).collect();
    match Hours::parse_all(written.iter().map(String::as_str), zone, holidays) {
        Ok(hours) => Some(hours),
        Err(errors) => {
            for (_, error) in errors {
                let expected = matches!(
                    error.fault(),
                    Fault::CutOverMidnight
                        | Fault::HolidaysTooEarly { .. }
                        | Fault::LongStep
                        | Fault::MonthsWithoutColon
                        | Fault::TooLong { .. }
                        | Fault::NeverOpens
                );
                assert!(expected, "{error}");
            }
            None
        }
    }
}

/// How many: `CURFEW_CASES`, if it says so.
pub(super) fn cases(default: u32) -> u32 {
    std::env::var("CURFEW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

fn edges(hours: &Hours, (from, to): (DateTime<Utc>, DateTime<Utc>)) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut moment = from;
    while let Some(edge) = hours.next_edge(moment).filter(|edge| edge.at <= to) {
        moment = edge.at;
        edges.push(edge);
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_minute_of_two_weeks_is_as_the_slow_reference_says(
        texts in prop::collection::vec(rules(1, 2880), 1..3),
        zone in prop::sample::select(&ZONES[..]),
        moment in prop::sample::select(&MOMENTS[..]),
        asked in prop::collection::vec(0..12 * 1440_i64, 8),
    ) {
        let (zone, days) = (zone.parse().expect("a zone"), holidays());
        let Some(hours) = parsed(&texts, zone, &Holidays::default().with(days.clone())) else { return Ok(()) };
        let from = super::at(moment) - TimeDelta::days(10);
        let window = (from, from + TimeDelta::days(13));
        let expected = looked_at(&texts, zone, &days, window, 1);
        prop_assert_eq!(edges(&hours, window), expected.clone());
        for minute in asked {
            let moment = from + TimeDelta::minutes(minute);
            let state = hours.state_at(moment);
            // An edge before the window is not known here, only that there is none in it.
            let last = expected.iter().rfind(|edge| edge.at <= moment);
            match last {
                Some(last) => prop_assert_eq!((state.open, state.edge), (last.opens, Some(last.at)), "{}", moment),
                None => prop_assert!(state.edge.is_none_or(|edge| edge <= from), "{}: {:?}", moment, state),
            }
        }
    }

    #[test]
    fn the_last_edge_within_400_days_is_as_the_slow_reference_says(
        rules in rules(15, 2880),
        zone in prop::sample::select(&ZONES[..]),
        moment in prop::sample::select(&MOMENTS[..]),
    ) {
        let (zone, days) = (zone.parse().expect("a zone"), holidays());
        let texts = [rules];
        let Some(hours) = parsed(&texts, zone, &Holidays::default().with(days.clone())) else { return Ok(()) };
        let moment = super::at(moment);
        let expected = looked_at(&texts, zone, &days, (moment - TimeDelta::days(399), moment + TimeDelta::days(399)), 15);
        let state = hours.state_at(moment);
        match expected.iter().rfind(|edge| edge.at <= moment) {
            Some(last) => prop_assert_eq!((state.open, state.edge), (last.opens, Some(last.at))),
            None => prop_assert!(state.edge.is_none_or(|edge| edge <= moment - TimeDelta::days(399)), "{:?}", state),
        }
        let next = expected.iter().find(|edge| edge.at > moment);
        match next {
            Some(next) => prop_assert_eq!(hours.next_edge(moment), Some(*next)),
            None => prop_assert!(hours.next_edge(moment).is_none_or(|edge| edge.at >= moment + TimeDelta::days(399))),
        }
    }
}
