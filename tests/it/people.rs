//! What people do during a run takes precedence over it.

use std::cell::Cell;
use std::time::Duration;

use ec2_sim::{Fault, Shortage, Sim};
use serde_json::json;

use crate::world::*;

/// Makes the first stop take so long that the plan's look is too old for the next.
fn slow_first_stop() -> Fault {
    Fault::stall("StopInstances", Duration::from_secs(11)).times(1)
}

const DENIED: &str = "You are not authorized to perform this operation.";

#[tokio::test]
async fn what_is_exempted_while_ec2_throttles_is_left_alone_and_keeps_no_mark() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("demo"));
    world.sim.fault(slow_first_stop());
    world.sim.fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Too many.").status(503).times(1));
    let act = |sim: &Sim| exempt(sim, "demo");
    let told = world.while_it_runs(with(stop(), json!({"remember": true})), Duration::from_secs(5), act).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])), "{:#}", told.report);
    assert_eq!(told.reason("demo"), "exempt");
    assert_eq!((world.sim.state("demo").as_str(), world.sim.tag("demo", "curfew:stopped-at")), ("running", None));
}

#[tokio::test]
async fn what_somebody_else_stops_while_ec2_throttles_stays_off_and_loses_its_mark() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(slow_first_stop());
    world.sim.fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Too many.").status(503).times(1));
    let off = |sim: &Sim| sim.switch_off("web");
    let told = world.while_it_runs(with(stop(), json!({"remember": true})), Duration::from_secs(5), off).await;
    assert_eq!((told.verdict().as_str(), world.sim.state("web").as_str()), ("complete", "stopped"));
    assert_eq!(world.sim.tag("web", MARK), None, "off by hand stays off");
}

#[tokio::test]
async fn a_region_that_is_slow_to_plan_makes_no_others_look_fresh() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("west").region("us-west-2"));
    world.sim.fault(Fault::stall("DescribeInstances", Duration::from_secs(12)).region("us-west-2").times(1));
    let event = with(stop(), json!({"regions": ["us-east-1", "us-west-2"]}));
    let told = world.while_it_runs(event, Duration::from_secs(4), |sim| exempt(sim, "web")).await;
    assert_eq!((told.reason("web").as_str(), told.names("changed")), ("exempt", names(["west"])));
}

#[tokio::test]
async fn what_is_exempted_before_it_is_asked_as_an_example_is_left_alone() {
    let mut world = World::new().await;
    world.sim.add_many(140, |n| ours(&format!("web-{n}")));
    world.sim.fault(slow_first_stop());
    let first: Vec<String> = (1..=64).map(|n| format!("web-{n}")).collect();
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).on(first).status(403));
    let act = |sim: &Sim| (65..=140).for_each(|n| exempt(sim, &format!("web-{n}")));
    let told = world.while_it_runs(stop(), Duration::from_secs(4), act).await;
    assert_eq!(told.report["summary"]["changed"], 0, "{}", told.message());
    assert!(world.sim.machines().iter().all(|machine| machine.state == "running"));
}

#[tokio::test]
async fn without_an_answer_to_the_second_look_nothing_is_switched() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(slow_first_stop());
    world.sim.fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Too many.").status(503).times(1));
    let busy = Fault::refuse("DescribeInstances", "RequestLimitExceeded", "Too many.").status(503);
    world.sim.fault(busy.after(1).times(6));
    let told = world.while_it_runs(stop(), Duration::from_secs(5), |sim| exempt(sim, "web")).await;
    assert_eq!((told.reason("web").as_str(), world.sim.state("web").as_str()), ("exempt", "running"));
}

#[tokio::test]
async fn what_somebody_ends_or_exempts_while_there_is_no_room_is_not_started() {
    let mut world = World::new().await;
    for name in ["web", "demo", "gone"] {
        world.sim.add(ours(name).state("stopped"));
    }
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro")]);
    let before_it = Cell::new(0);
    let act = |sim: &Sim| {
        exempt(sim, "demo");
        sim.edit("gone", |machine| machine.state = "terminated".to_owned());
        sim.settings(|settings| settings.shortages.clear());
        before_it.set(sim.calls().len());
    };
    let told = world.while_it_runs(start(), Duration::from_secs(5), act).await;
    assert_eq!(told.names("changed"), names(["web"]), "{:#}", told.report);
    assert_eq!(told.reason("demo"), "exempt");
    assert_eq!(told.reason("gone"), "gone");
    let web = [world.sim.machine("web").id];
    let after: Vec<_> = world.sim.calls().split_off(before_it.get());
    assert!(after.iter().filter(|call| call.action == "StartInstances").all(|call| call.ids == web), "{after:#?}");
}

#[tokio::test]
async fn what_is_terminated_between_the_look_and_the_stop_is_gone_and_the_night_complete() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("ended"));
    world.sim.add(ours("forgotten"));
    let act = |sim: &Sim| {
        sim.edit("ended", |machine| machine.state = "terminated".to_owned());
        // EC2 forgets what was terminated after an hour: here it doesn't know it any more.
        sim.edit("forgotten", |machine| machine.region = "eu-west-1".to_owned());
    };
    let told = world.at_the_call("StopInstances", remembering(stop()), act).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3), "{:#}", told.report);
    assert_eq!([told.reason("ended"), told.reason("forgotten")], ["gone", "gone"]);
}

#[tokio::test]
async fn what_is_terminated_while_its_start_is_followed_is_gone() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(3));
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    let act = |sim: &Sim| sim.edit("web-2", |machine| machine.state = "terminated".to_owned());
    let told = world.while_it_runs(start(), Duration::from_secs(2), act).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web-1", "web-3"])));
    assert_eq!(told.reason("web-2"), "gone");
}

#[tokio::test]
async fn what_a_person_starts_after_our_stop_stays_on_though_ec2_never_said_that_it_did_the_stop() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let sick = Fault::refuse_after("StopInstances", "InternalError", "An internal error has occurred").status(500);
    world.sim.fault(sick.lasting(Duration::from_secs(14)));
    world.others_act_on = names(["web-1"]);
    let on = |sim: &Sim| sim.switch_on("web-1");
    let event = remembering(with(stop(), json!({"scheduled_time": in_minutes(-1)})));
    let told = world.while_it_runs(event, Duration::from_millis(2500), on).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3), "{:#}", told.report);
    let asked: Vec<String> = world.calls("StopInstances").into_iter().flat_map(|call| call.ids).collect();
    assert_eq!(asked.len(), 3, "each once");
    assert_eq!(world.sim.state("web-1"), "running", "stopped against the person who needs it");
}

#[tokio::test]
async fn what_a_person_stops_after_our_start_stays_off_though_ec2_never_said_that_it_did_the_start() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(4));
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    let sick = Fault::refuse_after("StartInstances", "InternalError", "An internal error has occurred").status(500);
    world.sim.fault(sick.lasting(Duration::from_secs(14)));
    let off = |sim: &Sim| sim.switch_off("web-1");
    let told = world.while_it_runs(start(), Duration::from_millis(2500), off).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web-2", "web-3"])));
    assert_eq!((told.reason("web-1").as_str(), world.sim.state("web-1").as_str()), ("stopped_since", "stopped"));
    let asked: Vec<String> = world.calls("StartInstances").into_iter().flat_map(|call| call.ids).collect();
    assert_eq!(asked.len(), 3, "each once");
}

#[tokio::test]
async fn what_a_person_stops_after_a_start_that_ec2_accepted_stays_off() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(4));
    world.sim.add_many(2, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.while_it_runs(start(), Duration::from_millis(2500), |sim| sim.switch_off("web-1")).await;
    assert_eq!((told.verdict().as_str(), told.reason("web-1").as_str()), ("complete", "stopped_since"));
    assert_eq!(world.count("StartInstances"), 1);
}
