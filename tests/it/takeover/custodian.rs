//! Compares the event that `curfew takeover` writes with Cloud Custodian's own filters, which read the same policy
//! file.
//!
//! At every quarter of an hour of two years, Custodian's filters say whether to switch at that moment, but not whether
//! hours are open: a yes is an edge, unless ours is already open, or closed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use chrono::{DateTime, NaiveDate, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use ec2_curfew::hours::Hours;
use ec2_curfew::request::Request;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::*;

const FROM: &str = "2027-01-01T00:00:00Z";
const TO: &str = "2029-01-01T00:00:00Z";
const SKIPPED: [&str; 2] = ["2027-05-31", "2027-12-24"];
/// Values of the tag, with the zones that they mean.
const VALUES: [(&str, Tz); 13] = {
    use chrono_tz::{America::*, Asia::*, Australia::*, Europe::*};
    [
        ("on", New_York),
        ("Off=(M-F,19);On=(M-F,7)", New_York),
        ("off=[(M-F,21),(U,18)];on=[(M-F,6),(U,10)];tz=pt", Los_Angeles),
        ("off=(S-H,0);on=(F-W,7);tz=bst", London),
        ("off=(T-S,6);on=(M-F,22);tz=aet", Sydney),
        ("off=(F,19);on=(M,7);tz=cet", Berlin),
        ("offu3du28M-Fu2c18u29u3bonu3du28M-Fu2c9u29", New_York),
        ("on=(M-F,9);tz=Asia/Kolkata", Kolkata),
        ("off=(M-F,16);", New_York),
        ("tz=europe/london", London),
        ("off=(M-U,2);on=(M-U,9);tz=europe/berlin", Berlin),
        ("'off=(M-U,19);on=(M-F,7)'", New_York),
        ("on=(M-U,7)", New_York),
    ]
};

const ALIKE: &str = "alike";
const ON_AGAIN: &str = "it says \"on\" in open hours: what people have stopped since is started";
const OFF_AGAIN: &str = "it says \"off\" in closed hours: what people have started since is stopped";
const REPEATED: &str = "it acts in both of the hours that clocks repeat, ours in the later";
const SKIPPED_HOUR: &str = "it does nothing at an hour that clocks skip, ours acts when they change";
const SKIPPED_DAY: &str =
    "on a day that it skips it closes nothing: what opened the day before runs on, where ours closes";
const NOT_SKIPPED: &str = "hours longer than a day know no skipped days";

#[tokio::test]
async fn tags_switch_at_the_quarter_hours_that_custodians_own_filters_say() {
    let instances: Vec<Value> = VALUES
        .iter()
        .enumerate()
        .map(|(n, (value, _))| instance(&format!("i-{n:08x}"), &[("Downtime", value)]))
        .collect();
    let desk = Desk::new().await;
    desk.file("instances.json", &json!({"Reservations": [{"Instances": instances}]}).to_string());
    let said = desk.run(&["takeover", "custodian", &file("offhours.yml"), "--instances", "instances.json"]).await;
    let Value::Object(fields) = event_of(&said) else { panic!("no object") };
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = (FROM.parse().unwrap(), TO.parse().unwrap());
    let request = Request::parse(fields, None, from).unwrap();

    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    // In two halves, for two cores.
    let (some, others) = VALUES.split_at(VALUES.len() / 2);
    let (some, others) = tokio::join!(ask(some), ask(others));
    for ((value, zone), theirs) in VALUES.iter().zip(some.into_iter().chain(others)) {
        let schedule = request.schedules.find(value, from).unwrap();
        let hours = &schedule.hours;
        let next = |last: &(DateTime<Utc>, bool)| hours.next_edge(last.0).map(|edge| (edge.at, edge.opens));
        let first = next(&(from - TimeDelta::seconds(1), false));
        let ours: BTreeSet<_> = std::iter::successors(first, next).take_while(|edge| edge.0 < to).collect();
        assert!(ours.len() > 100 && theirs.len() > 100, "{value}");
        let mut pairs = ours.iter().zip(ours.iter().skip(1));
        let lasts_days = pairs.any(|(from, to)| from.1 && to.0 - from.0 > TimeDelta::days(1));
        *differences.entry(ALIKE).or_default() += ours.intersection(&theirs).count();
        for edge in ours.symmetric_difference(&theirs) {
            match why(hours, *zone, lasts_days, *edge, ours.contains(edge)) {
                Some(why) => *differences.entry(why).or_default() += 1,
                None => {
                    unexplained.push(format!("{value}: {} opens: {}, ours: {}", edge.0, edge.1, ours.contains(edge)))
                }
            }
        }
    }
    println!("{differences:#?}");
    unexplained.truncate(40);
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let seen: BTreeSet<&str> = differences.keys().copied().collect();
    assert_eq!(seen, [ALIKE, ON_AGAIN, OFF_AGAIN, REPEATED, SKIPPED_HOUR, SKIPPED_DAY, NOT_SKIPPED].into());
}

/// Returns why only one of the two has an edge; none if nothing explains it. `lasts_days`: hours may be open for days.
fn why(
    hours: &Hours,
    zone: Tz,
    lasts_days: bool,
    (moment, opens): (DateTime<Utc>, bool),
    is_ours: bool,
) -> Option<&'static str> {
    let local = |ahead: i64| (moment + TimeDelta::hours(ahead)).with_timezone(&zone);
    let is_open = hours.state_at(moment - TimeDelta::seconds(1)).open;
    let on_skipped = |date: NaiveDate| SKIPPED.contains(&date.to_string().as_str());
    match (is_ours, opens) {
        (false, _) if local(0).hour() == local(1).hour() => Some(REPEATED),
        (false, true) if is_open => Some(ON_AGAIN),
        (false, false) if !is_open => Some(OFF_AGAIN),
        (false, _) => None,
        (true, _) if (local(-1).hour() + 2) % 24 == local(0).hour() => Some(SKIPPED_HOUR),
        (true, _) if on_skipped(local(0).date_naive()) && lasts_days => Some(NOT_SKIPPED),
        (true, false) if on_skipped(local(0).date_naive()) => Some(SKIPPED_DAY),
        (true, _) => None,
    }
}

/// Asks Custodian's filters about all moments; returns the edges of each value.
async fn ask(values: &[(&str, Tz)]) -> Vec<BTreeSet<(DateTime<Utc>, bool)>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv-hours/bin/python3");
    assert!(python.exists(), "{} is missing: `make test` installs it", python.display());
    let values: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
    let policies = std::fs::read_to_string(file("offhours.yml")).unwrap();
    let question = json!({"policies": policies, "from": FROM, "to": TO, "values": values}).to_string();
    let mut asked = tokio::process::Command::new(python)
        .arg(root.join("tests/hours/policies.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    asked.stdin.take().unwrap().write_all(question.as_bytes()).await.unwrap();
    let answer = asked.wait_with_output().await.unwrap();
    assert!(answer.status.success());
    let answers: Vec<BTreeMap<String, Vec<DateTime<Utc>>>> = serde_json::from_slice(&answer.stdout).unwrap();
    let edges = |answer: BTreeMap<String, Vec<DateTime<Utc>>>| {
        answer.into_iter().flat_map(|(side, moments)| moments.into_iter().map(move |at| (at, side == "on"))).collect()
    };
    answers.into_iter().map(edges).collect()
}
