//! AWS Instance Scheduler's rules, implemented a second time from its implementation guide ("Schedule reference",
//! "Period reference"). Nothing here reads its configuration: each schedule of `files/scan.json` is written again by
//! hand.
//!
//! It looks every five minutes, so every five minutes of two years are compared. It never looks at 23:59, which is how
//! its users write midnight.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use ec2_curfew::request::Request;
use serde_json::Value;

use super::*;

/// A period: the days on which it applies, and when it begins and ends on these.
struct Period {
    day: fn(NaiveDate) -> bool,
    begin: Option<&'static str>,
    end: Option<&'static str>,
}

/// The state that a period wants at a moment: "desired states have a relative priority of running > any > stopped".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Stopped,
    Any,
    Running,
}

fn between(day: fn(NaiveDate) -> bool, begin: &'static str, end: &'static str) -> Period {
    Period { day, begin: Some(begin), end: Some(end) }
}

impl Period {
    fn wish(&self, date: NaiveDate, time: NaiveTime) -> Wish {
        let clock = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").unwrap();
        let after = |text: &str| time >= clock(text);
        match (self.begin, self.end) {
            _ if !(self.day)(date) => Wish::Stopped,
            (None, None) => Wish::Running,
            (Some(begin), None) => {
                if after(begin) {
                    Wish::Running
                } else {
                    Wish::Any
                }
            }
            (None, Some(end)) => {
                if after(end) {
                    Wish::Stopped
                } else {
                    Wish::Any
                }
            }
            (Some(begin), Some(end)) => {
                if after(begin) && !after(end) {
                    Wish::Running
                } else {
                    Wish::Stopped
                }
            }
        }
    }
}

fn wish_of(periods: &[Period], zone: Tz, at: DateTime<Utc>) -> Wish {
    let alone = |at: DateTime<Utc>| {
        let local = at.with_timezone(&zone).naive_local();
        periods.iter().map(|period| period.wish(local.date(), local.time())).max().unwrap()
    };
    let minute = TimeDelta::minutes(1);
    let adjacent = || alone(at - minute) == Wish::Running && alone(at + minute) == Wish::Running;
    match alone(at) {
        // "If a schedule contains two adjacent running periods, the solution doesn't stop running instances."
        Wish::Stopped if periods.len() > 1 && adjacent() => Wish::Running,
        wish => wish,
    }
}

fn is(date: NaiveDate, days: &[Weekday]) -> bool {
    days.contains(&date.weekday())
}

fn workday(date: NaiveDate) -> bool {
    date.weekday().num_days_from_monday() < 5
}

fn days_in_month(date: NaiveDate) -> u32 {
    let next = date.with_day(1).unwrap() + chrono::Months::new(1);
    next.pred_opt().unwrap().day()
}

/// Whether a date is the workday of the same month that is nearest to a day of the month.
fn is_workday_nearest_to(date: NaiveDate, day: u32) -> bool {
    let meant = date.with_day(day).unwrap();
    let nearest = match meant.weekday() {
        Weekday::Sat if day == 1 => 3,
        Weekday::Sat => day - 1,
        Weekday::Sun if day == days_in_month(date) => day - 2,
        Weekday::Sun => day + 1,
        _ => day,
    };
    date.day() == nearest
}

/// The schedules of `files/scan.json`: name, zone, periods.
fn schedules() -> Vec<(&'static str, Tz, Vec<Period>)> {
    use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
    use chrono_tz::{America::New_York, Asia::Kolkata, Australia::Sydney, Europe::Berlin, UTC};
    let always = |_: NaiveDate| true;
    vec![
        ("office", New_York, vec![between(workday, "09:00", "17:00")]),
        ("alternate", Kolkata, vec![between(|date| is(date, &[Mon, Wed, Fri]), "08:00", "18:00")]),
        ("weekend", Berlin, vec![between(|date| is(date, &[Sat, Sun, Mon]), "10:00", "20:00")]),
        ("first-monday", Sydney, vec![between(|date| is(date, &[Mon]) && date.day() <= 7, "06:00", "22:00")]),
        (
            "last-friday",
            Berlin,
            vec![between(|date| is(date, &[Fri]) && date.day() + 7 > days_in_month(date), "18:00", "23:59")],
        ),
        (
            "quarter",
            UTC,
            vec![between(
                |date| is(date, &[Mon]) && date.day() <= 7 && [1, 4, 7, 10].contains(&date.month()),
                "08:00",
                "19:00",
            )],
        ),
        (
            "dates",
            UTC,
            vec![between(
                |date| [1, 8, 15].contains(&date.day()) || date.day() == days_in_month(date),
                "08:00",
                "20:00",
            )],
        ),
        (
            "payday",
            New_York,
            vec![between(|date| is_workday_nearest_to(date, 15) || is_workday_nearest_to(date, 1), "06:00", "23:00")],
        ),
        ("from-nine", UTC, vec![Period { day: workday, begin: Some("09:00"), end: None }]),
        ("stop-at-seven", Berlin, vec![Period { day: workday, begin: None, end: Some("19:00") }]),
        (
            "nights",
            New_York,
            vec![
                between(workday, "22:00", "23:59"),
                between(|date| is(date, &[Tue, Wed, Thu, Fri, Sat]), "00:00", "06:00"),
            ],
        ),
        (
            "long-week",
            New_York,
            vec![
                between(|date| is(date, &[Mon]), "09:00", "23:59"),
                Period { day: |date| is(date, &[Tue, Wed, Thu]), begin: None, end: None },
                between(|date| is(date, &[Fri]), "00:00", "17:00"),
            ],
        ),
        (
            "winter",
            UTC,
            vec![
                Period { day: |date| !workday(date) && [11, 12, 1, 2].contains(&date.month()), begin: None, end: None },
                between(workday, "09:00", "17:00"),
            ],
        ),
        (
            "adjacent",
            Berlin,
            vec![
                between(always, "08:00", "12:00"),
                between(always, "12:01", "17:30"),
                between(|date| is(date, &[Wed]), "10:00", "14:00"),
            ],
        ),
        ("small-hours", Berlin, vec![between(always, "02:30", "05:00")]),
        (
            "one-night",
            UTC,
            vec![
                Period { day: |date| is(date, &[Mon]), begin: Some("19:00"), end: None },
                Period { day: |date| is(date, &[Tue]), begin: None, end: Some("07:00") },
            ],
        ),
        (
            "summer",
            UTC,
            vec![between(
                |date| {
                    (6..=8).contains(&date.month())
                        && (workday(date) || is(date, &[Sat]) && (8..=14).contains(&date.day()))
                },
                "07:00",
                "21:00",
            )],
        ),
    ]
}

const ALIKE: &str = "alike";
const REPEATED: &str = "of an hour that clocks repeat, ours opens and closes in the second; there both count";

#[tokio::test]
async fn schedules_of_every_kind_of_period_are_open_when_their_rules_say_so() {
    let event = event_of(&Desk::new().await.run(&["takeover", "instance-scheduler", &file("scan.json")]).await);
    let Value::Object(fields) = event.clone() else { panic!("no object") };
    let from: DateTime<Utc> = "2027-01-01T00:00:00Z".parse().unwrap();
    // A leap year is one of them.
    let to: DateTime<Utc> = "2029-01-01T00:00:00Z".parse().unwrap();
    let request = Request::parse(fields, None, from).unwrap();
    let stated: BTreeSet<&str> = schedules().iter().map(|(name, ..)| *name).collect();
    let converted: BTreeSet<&str> = event["hours"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(converted, stated);

    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (name, zone, periods) in schedules() {
        let schedule = request.schedules.find(name, from).unwrap();
        let is_stop_only = periods.iter().all(|period| period.begin.is_none() && period.end.is_some());
        assert_eq!(schedule.start, !is_stop_only, "{name}");
        // From a month before, so that there is a state that "any" can leave as it is.
        let mut at = from - TimeDelta::days(31);
        let mut ours = schedule.hours.state_at(at).open;
        let mut edge = schedule.hours.next_edge(at);
        let mut theirs = false;
        while at < to {
            while let Some(next) = edge.filter(|edge| edge.at <= at) {
                (ours, edge) = (next.opens, schedule.hours.next_edge(next.at));
            }
            theirs = match wish_of(&periods, zone, at) {
                Wish::Running => true,
                Wish::Stopped => false,
                // With a schedule that only stops, instances may run until then.
                Wish::Any => theirs || is_stop_only,
            };
            if at >= from {
                let local = at.with_timezone(&zone).naive_local();
                let hour = |ahead: i64| (at + TimeDelta::hours(ahead)).with_timezone(&zone).hour();
                match () {
                    () if ours == theirs => *differences.entry(ALIKE).or_default() += 1,
                    () if hour(0) == hour(1) || hour(0) == hour(-1) => *differences.entry(REPEATED).or_default() += 1,
                    () => unexplained.push(format!("{name} at {local}: it is open: {ours}, there: {theirs}")),
                }
            }
            at += TimeDelta::minutes(5);
        }
    }
    println!("{differences:#?}");
    unexplained.truncate(40);
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let seen: BTreeSet<&str> = differences.keys().copied().collect();
    assert_eq!(seen, [ALIKE, REPEATED].into());
}
