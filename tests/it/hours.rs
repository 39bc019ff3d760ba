//! Running hours: weeks of ticks on the pretend EC2's clock.

use chrono::{DateTime, TimeDelta, Utc};
use ec2_sim::Machine;
use serde_json::{Value, json};

use crate::world::*;

/// The mark, the tag with the hours.
const HOURS: &str = "curfew:hours";

/// An event as it is shipped, but that ticks of last year are not stale.
fn reconcile() -> Value {
    json!({
        "action": "reconcile", "name": "office", "tags": {"curfew": "yes"}, "remember": true, "max_delay_minutes": 500_000,
        "hours": {"office": "Mo-Fr 08:00-19:00"},
    })
}

/// A machine with these hours, launched in the morning of Friday, 20 November 2026.
fn with_hours(name: &str, hours: &str) -> Machine {
    ours(name).tag(HOURS, hours).launched(at("2026-11-20T08:00:05Z"))
}

fn at(moment: &str) -> DateTime<Utc> {
    moment.parse().unwrap()
}

/// Lets it tick once.
async fn tick(world: &mut World, event: &Value, moment: &str) -> Told {
    world.sim.set_clock(at(moment) + TimeDelta::milliseconds(800));
    let told = world.invoke(with(event.clone(), json!({"scheduled_time": moment}))).await;
    // What stops has stopped, what starts runs.
    let moves = |machine: &Machine| ["pending", "stopping"].contains(&machine.state.as_str());
    while world.sim.machines().iter().any(moves) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    told
}

#[tokio::test]
async fn both_directions_in_one_tick() {
    let mut world = World::new().await;
    world.sim.add(with_hours("web", "office"));
    world.sim.add(with_hours("batch", "Mo-Fr 19:00-24:00").state("stopped").tag(MARK, "2026-11-20T12:00:00Z"));
    let told = tick(&mut world, &reconcile(), "2026-11-20T19:00:00Z").await;
    assert_eq!(told.message(), "office: stopped 1, started 1 of 2");
    assert_eq!((world.sim.state("web"), world.sim.state("batch")), ("stopped".to_owned(), "running".to_owned()));
    let told = tick(&mut world, &reconcile(), "2026-11-20T19:05:00Z").await;
    assert_eq!(told.message(), "office: 2 of 2 as scheduled");
    assert_eq!(world.sim.calls().len(), 1, "one DescribeInstances");
    println!("{:#?}", told.logs);
}
