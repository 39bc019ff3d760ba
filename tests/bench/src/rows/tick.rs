//! A tick of running hours that finds everything as it should be: 287 of a day's 288 are so.

use std::time::Duration;

use ec2_sim::{Machine, Sim};
use serde_json::{Map, Value, json};

use super::{Measured, tell};
use crate::Bench;
use crate::cloud::{self, Way};
use crate::function::{Function, Taken};
use crate::table::{Row, median};

const INSTANCES: usize = 10_000;
const SCHEDULES: usize = 50;
const RUNS: u16 = 5;
/// How long the hours are open: they must not close during the measurement.
const OPEN: Duration = Duration::from_secs(8 * 60 * 60);
/// How long ago the instances were stopped: after their launch three days ago, so that the marks count.
const NIGHT: Duration = Duration::from_secs(13 * 60 * 60);
/// The bound on the log of a quiet tick, in bytes.
const MOST_LOG: usize = 2000;

/// Measures a quiet tick, against dry-run stops that look at the same instances and switch nothing, either.
pub(crate) async fn tick(bench: &Bench) -> Measured {
    let silent = bench.ours.silent();
    let (mut ticks, mut stops, mut skips) = (Vec::new(), Vec::new(), Vec::new());
    let (mut writes, mut log) = (0, 0);
    for _ in 0..bench.runs(RUNS) {
        let (sim, event) = morning().await;
        let opening = run(&bench.ours, &sim, &event).await?;
        expect(&opening, "changed", INSTANCES)?;

        sim.forget_calls();
        let quiet = run(&bench.ours, &sim, &event).await?;
        if quiet.answer["skipped_by"] != json!({ "as_scheduled": INSTANCES }) {
            return Err(format!("the second tick is not quiet: {}", quiet.answer));
        }
        writes = writes.max(sim.calls().iter().filter(|call| call.action != "DescribeInstances").count());
        log = log.max(quiet.log);
        ticks.push(quiet.cpu);

        // A plain stop leaves instances with hours alone, unless it reads hours from another tag.
        let mut event = Way::Stop.event();
        event["dry_run"] = json!(true);
        let skip = run(&silent, &sim, &event).await?;
        expect(&skip, "skipped", INSTANCES)?;
        skips.push(skip.cpu);
        event["hours_tag"] = json!("Schedule");
        let stop = run(&silent, &sim, &event).await?;
        expect(&stop, "would_change", INSTANCES)?;
        stops.push(stop.cpu);
    }
    let (tick, stop, skip) = (median(ticks), median(stops), median(skips));
    let what = "CPU of a quiet tick, 10,000 instances, 50 schedules, against a dry-run stop";
    Ok(vec![
        Row::times(what, tick, stop, 1.3),
        Row::times("the same, against a dry-run stop that leaves all alone", tick, skip, 1.3),
        Row::at_most("the same, calls that write", writes, 0, |calls| calls.to_string()),
        Row::at_most("the same, log", log, MOST_LOG, |bytes| format!("{bytes} bytes")),
    ])
}

/// Builds a fleet that Curfew stopped last night and whose hours have just opened, and the tick's event.
async fn morning() -> (Sim, Value) {
    let sim = Sim::start().await;
    let now = sim.clock();
    let stopped_at = (now - NIGHT).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let machine = |number| {
        let machine: Machine = cloud::ours(number, Way::Start);
        let hours = format!("schedule-{}", number % SCHEDULES + 1);
        machine.tag("curfew:stopped-at", &stopped_at).tag("curfew:hours", &hours)
    };
    sim.add_many(INSTANCES, machine);

    let hours = (1..=SCHEDULES as u64).map(|n| {
        let closes = now + OPEN + Duration::from_secs(60 * n);
        let text = format!("Mo-Su,PH {}-{}", now.format("%H:%M"), closes.format("%H:%M"));
        (format!("schedule-{n}"), Value::from(text))
    });
    let hours: Map<String, Value> = hours.collect();
    let event = json!({
        "action": "reconcile", "tags": { "curfew": "yes" }, "remember": true, "hours": hours, "holidays": "DE",
    });
    (sim, event)
}

async fn run(function: &Function, sim: &Sim, event: &Value) -> Result<Taken, String> {
    let taken = function.run(sim, &cloud::no_limits(), event).await?;
    tell(INSTANCES, &function.name, &taken);
    Ok(taken)
}

/// Checks one of the counts in the answer.
fn expect(taken: &Taken, count: &str, wanted: usize) -> Result<(), String> {
    match taken.answer["summary"][count] == wanted {
        true => Ok(()),
        false => Err(format!("{count} should be {wanted}: {}", taken.answer["message"])),
    }
}
