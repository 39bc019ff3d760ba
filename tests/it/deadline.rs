//! The deadline of an invocation.

use std::time::Duration;

use ec2_sim::{Fault, Outcome};
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn the_report_is_out_before_lambda_kills_the_function() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(3600));
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.within(Duration::from_secs(4), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.report["summary"]["unfinished"], 3);
    assert_eq!(told.entry("unfinished", "web-1")["reason"], "deadline");
    assert_eq!(told.line("web-1")["level"], "WARN");
    assert!(
        told.message().contains("3 unfinished: web-1 (deadline), web-2 (deadline), web-3 (deadline)"),
        "{}",
        told.message()
    );
}

#[tokio::test]
async fn an_ec2_that_hangs_ends_in_unfinished_and_never_in_a_killed_function() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::hang("StopInstances"));
    let told = world.within(Duration::from_secs(4), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "web")["reason"], "deadline");

    world.sim.clear_faults();
    world.sim.fault(Fault::hang("DescribeInstances"));
    let told = world.within(Duration::from_secs(4), stop()).await;
    assert_eq!(told.verdict(), "Unfinished", "a retry may find it well");
    assert_eq!(told.report["targets"][0]["error"]["code"], "Deadline");

    world.sim.clear_faults();
    assert_eq!(world.invoke(stop()).await.names("changed"), names(["web"]), "the same process goes on");
}

#[tokio::test]
async fn no_call_is_begun_that_could_not_be_answered_in_time() {
    let mut world = World::new().await;
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::stall("StopInstances", Duration::from_millis(1300)));
    let told = world.within(Duration::from_secs(4), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert!(matches!(told.outcome, Outcome::Failed { .. }));
    let done = told.report["summary"]["changed"].as_u64().unwrap();
    assert!((64..300).contains(&done), "{done} of 300");
    tokio::time::sleep(Duration::from_millis(1500)).await; // a call cut off would be carried out by now
    assert_eq!(done, world.done("StopInstances").len() as u64, "what EC2 did is what was told: no call was cut off");
}

#[tokio::test]
async fn no_running_machine_keeps_a_mark_when_the_time_is_over() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.throttle = true);
    world.sim.add_many(700, |n| ours(&format!("spot-{n}")).spot_one_time());
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    let told = world.within(Duration::from_secs(14), with(stop(), json!({"remember": true}))).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Unfinished", &json!(300)));
    assert!(!told.entries("unfinished").is_empty());
    for machine in world.sim.machines() {
        let is_off = machine.state != "running";
        assert_eq!(counts(&machine), is_off, "{} is {}: {:?}", machine.name(), machine.state, machine.tags);
    }
    assert!(world.count("DeleteTags") <= 20, "{} calls", world.count("DeleteTags"));
}

#[tokio::test]
async fn a_stop_that_is_never_answered_leaves_no_mark_on_what_runs_on() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::hang("StopInstances"));
    let told = world.within(Duration::from_secs(6), remembering(stop())).await;
    assert_eq!((told.verdict().as_str(), told.names("unfinished").len()), ("Unfinished", 3));
    for machine in world.sim.machines() {
        assert!(!machine.tags.contains_key(MARK), "{} runs, and is marked", machine.name());
    }
}
