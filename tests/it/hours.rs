//! Running hours: nights and weeks of ticks on the simulated EC2's clock, and what people do between them.

mod edges;
mod nights;
mod people;
mod quiet;
mod reasons;
mod selection;
mod starts;
mod texts;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use ec2_sim::{Call, Machine, StateReason};
use serde_json::{Value, json};

use crate::world::*;

/// The tag with the hours.
const HOURS: &str = "curfew:hours";

/// The hours in most tests: five days a week, from eight to seven.
const OFFICE: &str = "Mo-Fr 08:00-19:00";

/// An event like the shipped one, except that ticks of weeks ago are not stale.
fn reconcile() -> Value {
    json!({
        "action": "reconcile", "name": "office", "tags": {"curfew": "yes"}, "remember": true, "max_delay_minutes": 500_000,
        "hours": {"office": OFFICE},
    })
}

/// The same without `remember`: whatever is off at an opening is started.
fn forgetful() -> Value {
    with(reconcile(), json!({"remember": false}))
}

/// A machine with these hours, launched on Monday morning.
fn with_hours(name: &str, hours: &str) -> Machine {
    ours(name).tag(HOURS, hours).launched(at("Mo 08:00:05"))
}

/// The Monday with which the tests begin, four weeks ago: a tick may be late by a year at most.
static MONDAY: LazyLock<NaiveDate> = LazyLock::new(|| {
    let day = Utc::now().date_naive() - Days::new(28);
    day - Days::new(day.weekday().num_days_from_monday().into())
});

/// Reads a moment in UTC: in the first week like `Fr 19:05` or `Fr 19:05:30`, in the second like `Mo+1 08:00`, or in
/// RFC 3339.
fn at(moment: &str) -> DateTime<Utc> {
    if let Ok(moment) = moment.parse() {
        return moment;
    }
    let (day, time) = moment.split_once(' ').unwrap();
    let (name, weeks) = day.split_at(2);
    let weekday = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"].iter().position(|it| *it == name).unwrap() as i64;
    let weeks: i64 = if weeks.is_empty() { 0 } else { weeks.parse().unwrap() };
    let time = NaiveTime::parse_from_str(&format!("{time}:00")[..8.min(time.len() + 3)], "%H:%M:%S").unwrap();
    (*MONDAY + TimeDelta::days(7 * weeks + weekday)).and_time(time).and_utc()
}

/// Returns a mark as a tick due at this moment would have written it.
fn mark(moment: &str) -> String {
    format!("{} 0123abcd", rfc3339(at(moment)))
}

/// A world with these machines, in which transitions are quick.
async fn cloud(machines: impl IntoIterator<Item = Machine>) -> World {
    cloud_with_env(&[], machines).await
}

async fn cloud_with_env(env: &[(&str, &str)], machines: impl IntoIterator<Item = Machine>) -> World {
    let world = World::with_env(env).await;
    let short = Duration::from_millis(20);
    world.sim.settings(|settings| (settings.start_takes, settings.stop_takes) = (short, short));
    machines.into_iter().for_each(|machine| drop(world.sim.add(machine)));
    world
}

/// Returns an event as Scheduler sends it at a moment.
fn due(event: &Value, moment: &str) -> Value {
    with(event.clone(), json!({"scheduled_time": rfc3339(at(moment))}))
}

/// Runs one tick, and waits for all transitions to end.
async fn tick(world: &mut World, event: &Value, moment: &str) -> Told {
    late_tick(world, event, moment, moment).await
}

/// Runs a tick that is due at one moment but comes at another.
async fn late_tick(world: &mut World, event: &Value, moment: &str, comes: &str) -> Told {
    set_clock(world, comes);
    let told = world.invoke(due(event, moment)).await;
    arrived(world).await;
    told
}

/// Sets the clock to shortly after a moment: Scheduler and Lambda take three seconds.
fn set_clock(world: &World, moment: &str) {
    world.sim.set_clock(at(moment) + TimeDelta::seconds(3));
}

/// Waits for what stops to have stopped, and for what starts to run.
async fn arrived(world: &World) {
    let moves = |machine: &Machine| ["pending", "stopping"].contains(&machine.state.as_str());
    while world.sim.machines().iter().any(moves) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a tick every five minutes from one moment to another, both included.
async fn ticks(world: &mut World, event: &Value, from: &str, to: &str) -> Ticks {
    ticks_every(world, event, 5, from, to).await
}

async fn ticks_every(world: &mut World, event: &Value, minutes: i64, from: &str, to: &str) -> Ticks {
    let (mut all, mut moment) = (Ticks::default(), at(from));
    while moment <= at(to) {
        let told = tick(world, event, &rfc3339(moment)).await;
        all.calls.extend(world.sim.calls());
        all.told.push((moment, told));
        moment += TimeDelta::minutes(minutes);
    }
    all
}

/// The results of many ticks, and all their calls.
#[derive(Default)]
struct Ticks {
    told: Vec<(DateTime<Utc>, Told)>,
    calls: Vec<Call>,
}

impl Ticks {
    /// Counts the calls of an action.
    fn count(&self, action: &str) -> usize {
        self.calls.iter().filter(|call| call.action == action).count()
    }

    /// Returns when an instance was in this list of a report.
    fn listed(&self, list: &str, name: &str) -> Vec<String> {
        let has = |told: &&(DateTime<Utc>, Told)| told.1.names(list).contains(name);
        self.told.iter().filter(has).map(|(at, _)| at.format("%a %H:%M").to_string()).collect()
    }

    /// Returns the ticks' messages without consecutive repetitions, each with the time of its first tick.
    fn sentences(&self) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        let mut last = String::new();
        for (at, told) in &self.told {
            let message = told.message();
            if message != last {
                said.push(format!("{} {message}", at.format("%a %H:%M")));
            }
            last = message;
        }
        said
    }

    /// Returns the values of a metric, in the order of the ticks; 0 where it is missing.
    fn metric(&self, name: &str) -> Vec<u64> {
        self.told.iter().map(|(_, told)| metrics(told).get(name).copied().unwrap_or_default()).collect()
    }
}

/// Returns the metrics that a tick's only metrics line declares.
fn metrics(told: &Told) -> BTreeMap<String, u64> {
    let lines: Vec<&Value> = told.logs.iter().filter(|line| line.get("_aws").is_some()).collect();
    let [line] = lines[..] else { panic!("one metrics line: {:#?}", told.logs) };
    let declared = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
    declared
        .iter()
        .map(|metric| metric["Name"].as_str().unwrap().to_owned())
        .map(|name| (name.clone(), line[name].as_u64().unwrap()))
        .collect()
}

/// Returns the log lines of a tick besides its report and its metrics.
fn other_lines(told: &Told) -> Vec<&Value> {
    told.logs.iter().filter(|line| line.get("_aws").is_none() && line.get("targets").is_none()).collect()
}

/// A person at the console switches it on.
async fn person_starts(world: &World, name: &str, moment: &str) {
    world.sim.set_clock(at(moment));
    world.sim.switch_on(name);
    arrived(world).await;
}

/// A person at the console switches it off.
async fn person_stops(world: &World, name: &str, moment: &str) {
    world.sim.set_clock(at(moment));
    world.sim.switch_off(name);
    arrived(world).await;
}

/// EC2 itself stops it, for this reason.
fn ec2_stops(world: &World, name: &str, code: &str, message: &str) {
    world.sim.edit(name, |machine| {
        machine.state = "stopped".into();
        machine.state_reason = Some(StateReason { code: code.into(), message: message.into() });
    });
}

fn retag(world: &World, name: &str, hours: &str) {
    world.sim.edit(name, |machine| drop(machine.tags.insert(HOURS.into(), hours.into())));
}

/// Deletes the mark, as Terraform does with tags that it doesn't know.
fn strip_mark(world: &World, name: &str) {
    assert!(world.sim.edit(name, |machine| machine.tags.remove(MARK)).is_some(), "{name} has a mark");
}

/// Whether an instance is running; panics if it is neither running nor stopped.
fn runs(world: &World, name: &str) -> bool {
    match world.sim.state(name).as_str() {
        "running" => true,
        "stopped" => false,
        other => panic!("{name} is {other}"),
    }
}

#[tokio::test]
async fn both_directions_in_one_tick() {
    let batch = with_hours("batch", "Mo-Fr 19:00-24:00").state("stopped").tag(MARK, &mark("Tu 00:00"));
    let mut world = cloud([with_hours("web", "office"), batch]).await;
    let told = tick(&mut world, &reconcile(), "Fr 19:00").await;
    assert_eq!(told.message(), "office: stopped 1, started 1 of 2");
    assert!(!runs(&world, "web") && runs(&world, "batch"));
    let told = tick(&mut world, &reconcile(), "Fr 19:05").await;
    assert_eq!(told.message(), "office: 2 of 2 as scheduled");
    assert_eq!(world.sim.calls().len(), 1, "one DescribeInstances");
}
