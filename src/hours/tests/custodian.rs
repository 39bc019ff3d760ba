//! Against code of others: tags of Cloud Custodian, and what its own `onhour` and `offhour` filters make of them.
//!
//! They answer a tick every hour with yes or no and know of no hours in between: a yes is an edge, unless ours is open, or
//! closed, already. Six weeks in spring and six in autumn, in which clocks change in each of the four zones.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde_json::{Value, json};

use super::{Hours, at, zone};
use crate::hours::{Edge, Holidays};

const WINDOWS: [[&str; 2]; 2] =
    [["2026-03-02T00:00:00Z", "2026-04-13T00:00:00Z"], ["2026-09-28T00:00:00Z", "2026-11-09T00:00:00Z"]];
/// Their names of zones, and ours.
const ZONES: [(&str, &str); 4] =
    [("et", "America/New_York"), ("pt", "America/Los_Angeles"), ("bst", "Europe/London"), ("aet", "Australia/Sydney")];
/// The day that a policy skips.
const SKIPPED: &str = "2026-10-13";

/// A tag's value, without its zone, and the same in our words.
const TAGS: [(&str, &str); 13] = [
    ("off=(M-F,19);on=(M-F,7)", "Mo-Fr 07:00-19:00"),
    ("off=[(M-F,21),(U,18)];on=[(M-F,6),(U,10)]", "Mo-Fr 06:00-21:00; Su 10:00-18:00"),
    ("off=(S-H,0);on=(F-W,7)", "Fr-We 07:00-24:00"),
    ("off=(T-S,6);on=(M-F,22)", "Mo-Fr 22:00-06:00"),
    ("off=(F,19);on=(M,7)", "Mo 07:00-24:00; Tu-Th 00:00-24:00; Fr 00:00-19:00"),
    ("off=(M-U,12);on=(M-U,4)", "04:00-12:00"),
    ("offu3du28M-Fu2c18u29u3bonu3du28M-Fu2c9u29", "Mo-Fr 09:00-18:00"),
    // half of it, the other half is the policy's default
    ("on=(M-F,9)", "Mo-Fr 09:00-19:00"),
    ("off=(M-F,16)", "Mo-Fr 07:00-16:00"),
    // more on one side than on the other
    ("off=(M-U,19);on=(M-F,7)", "Mo-Fr 07:00-19:00"),
    ("off=(M-F,19);on=(M-U,7)", "Mo 00:00-19:00; Tu-Fr 07:00-19:00; Sa 07:00-24:00; Su 00:00-24:00"),
    // at an hour that clocks skip and repeat
    ("off=(M-U,1);on=(M-U,9)", "09:00-25:00"),
    ("off=(M-U,2);on=(M-U,9)", "09:00-26:00"),
];

/// A tag under a policy that says more than the zone.
fn with_policies() -> Vec<(Value, Value, &'static str, &'static str)> {
    vec![
        // The defaults: Eastern time, and off at the weekend.
        (json!(""), json!({ "default_tz": "et" }), "Mo-Fr 07:00-19:00", "America/New_York"),
        (json!("on"), json!({ "default_tz": "pt" }), "Mo-Fr 07:00-19:00", "America/Los_Angeles"),
        (json!("tz=europe/london"), json!({ "default_tz": "et" }), "Mo-Fr 07:00-19:00", "Europe/London"),
        (json!("on"), json!({ "onhour": 8, "offhour": 20, "weekends": false }), "08:00-20:00", "America/New_York"),
        (
            json!("on"),
            json!({ "weekends-only": true }),
            "Mo 07:00-24:00; Tu-Th 00:00-24:00; Fr 00:00-19:00",
            "America/New_York",
        ),
        // No tag where tagging is for those who want out: in ours, a tag for each.
        (json!(null), json!({ "opt-out": true, "default_tz": "aet" }), "Mo-Fr 07:00-19:00", "Australia/Sydney"),
        (
            json!(null),
            json!({ "fallback-schedule": "off=(M-F,18);on=(M-F,8)" }),
            "Mo-Fr 08:00-18:00",
            "America/New_York",
        ),
        // A holiday.
        (json!("on"), json!({ "skip-days": [SKIPPED] }), "Mo-Fr 07:00-19:00; PH off", "America/New_York"),
        (
            json!("off=(T-S,6);on=(M-F,22)"),
            json!({ "skip-days": [SKIPPED] }),
            "Mo-Fr 22:00-06:00; PH off",
            "America/New_York",
        ),
    ]
}

#[test]
fn tags_of_cloud_custodian_switch_at_the_hours_that_its_own_filters_say() {
    let with_zones = ZONES.iter().flat_map(|(tz, zone)| {
        let tag = move |(tag, text): &(&str, &'static str)| (json!(format!("{tag};tz={tz}")), json!({}), *text, *zone);
        TAGS.iter().map(tag)
    });
    let cases: Vec<_> = with_zones.chain(with_policies()).collect();
    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for [from, to] in WINDOWS {
        let asked: Vec<Value> = cases.iter().map(|(tag, policy, ..)| json!({ "tag": tag, "policy": policy })).collect();
        let input = json!({ "from": from, "to": to, "cases": asked }).to_string();
        let answers: Vec<Value> =
            serde_json::from_str(&super::ask_others(["python3", "offhours.py"], &input)).expect("answers");
        assert_eq!(answers.len(), cases.len());
        for ((tag, _, text, zone_name), answer) in cases.iter().zip(&answers) {
            let holidays = Holidays::default().with([SKIPPED.parse().expect("a date")]);
            let hours = Hours::parse(text, zone(zone_name), &holidays).expect(text);
            let theirs = edges_of(answer);
            let ours: Vec<Edge> = edges_between(&hours, at(from), at(to));
            assert!(ours.len() > 10, "{text}");
            let (ours_by, theirs_by): (BTreeSet<_>, BTreeSet<_>) =
                (ours.iter().map(by_time).collect(), theirs.iter().map(by_time).collect());
            *differences.entry(ALIKE).or_default() += ours_by.intersection(&theirs_by).count();
            for edge @ (moment, opens) in ours_by.symmetric_difference(&theirs_by) {
                match why(&hours, *edge, ours_by.contains(edge)) {
                    Some(why) => *differences.entry(why).or_default() += 1,
                    None => unexplained.push(format!("{tag} in {zone_name}: {moment}, opens: {opens}")),
                }
            }
        }
    }
    println!("{differences:#?}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let seen: BTreeSet<&str> = differences.keys().copied().collect();
    assert_eq!(seen, [ALIKE, ON_AGAIN, OFF_AGAIN, REPEATED, SKIPPED_HOUR, SKIPPED_DAY].into());
}

const ALIKE: &str = "alike";
const ON_AGAIN: &str = "it says \"on\" in open hours: what people have stopped since is started";
const OFF_AGAIN: &str = "it says \"off\" in closed hours: what people have started since is stopped";
const REPEATED: &str = "it acts in both of the hours that clocks repeat, ours in the later";
const SKIPPED_HOUR: &str = "it does nothing at an hour that clocks skip, ours acts when they change";
const SKIPPED_DAY: &str = "on a day that it skips it closes nothing either: what opened the day before runs on";

/// Says why only one of both has an edge.
fn why(hours: &Hours, (moment, opens): (DateTime<Utc>, bool), is_ours: bool) -> Option<&'static str> {
    let hour = |ahead: i64| (moment + TimeDelta::hours(ahead)).with_timezone(&hours.zone).hour();
    let is_open = hours.state_at(moment - TimeDelta::seconds(1)).open;
    match (is_ours, opens) {
        (false, _) if hour(0) == hour(1) => Some(REPEATED),
        (false, true) if is_open => Some(ON_AGAIN),
        (false, false) if !is_open => Some(OFF_AGAIN),
        (false, _) => None,
        (true, _) if (hour(-1) + 2) % 24 == hour(0) => Some(SKIPPED_HOUR),
        (true, false) if moment.with_timezone(&hours.zone).date_naive().to_string() == SKIPPED => Some(SKIPPED_DAY),
        (true, _) => None,
    }
}

fn by_time(edge: &Edge) -> (DateTime<Utc>, bool) {
    (edge.at, edge.opens)
}

fn edges_of(answer: &Value) -> Vec<Edge> {
    let sides = [("on", true), ("off", false)];
    let edges = |(side, opens): (&str, bool)| {
        let moments = answer[side].as_array().expect("hours").iter();
        moments.map(|moment| Edge { at: at(moment.as_str().expect("a moment")), opens }).collect::<Vec<_>>()
    };
    sides.into_iter().flat_map(edges).collect()
}

fn edges_between(hours: &Hours, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Edge> {
    // An edge at the first tick itself counts.
    let next = |last: &Edge| hours.next_edge(last.at);
    let first = hours.next_edge(from - TimeDelta::seconds(1));
    std::iter::successors(first, next).take_while(|edge| edge.at < to).collect()
}
