//! One bad instance among many: it is found in few calls, and keeps no other from being stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use ec2_sim::{Call, Fault};
use serde_json::json;

use crate::world::*;

/// The calls that a thousand instances need without trouble: a look, and 16 batches.
const THOUSAND: usize = 1 + 16;

async fn a_thousand() -> World {
    let world = World::new().await;
    world.sim.add_many(1000, |n| ours(&format!("web-{n}")));
    world
}

#[tokio::test]
async fn one_stop_protected_instance_does_not_keep_the_other_forty_nine_awake() {
    let mut world = World::new().await;
    world.sim.add_many(49, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("vault").stop_protected());
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(49)));
    assert_eq!(told.reason("vault"), "stop_protected");
    assert_eq!(world.count("StopInstances"), 2, "the message names it: one call more");
}

#[tokio::test]
async fn a_bad_one_that_ec2_does_not_name_is_found_by_halving() {
    let mut world = World::new().await;
    world.sim.add_many(299, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("db"));
    world
        .sim
        .fault(Fault::refuse("StopInstances", "UnsupportedOperation", "The instance does not support it.").on(["db"]));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Incomplete", &json!(299)));
    assert_eq!(told.entry("failed", "db")["code"], "UnsupportedOperation");
    assert!(world.count("StopInstances") <= 5 + 12, "{} calls", world.count("StopInstances"));
}

#[tokio::test]
async fn every_code_about_one_instance_costs_that_one_only_named_or_not() {
    for code in [
        "IncorrectInstanceState",
        "IncorrectSpotRequestState",
        "InvalidInstanceID.NotFound",
        "InvalidParameterValue",
        "OperationNotPermitted",
        "ReservationCapacityExceeded",
        "TagLimitExceeded",
        "Unsupported",
        "UnsupportedOperation",
    ] {
        for (message, most) in [("The instance '{ids}' can't.", 2), ("It can't.", 1 + 2 * 5)] {
            let mut world = World::new().await;
            world.sim.add_many(29, |n| ours(&format!("web-{n}")));
            world.sim.add(ours("bad"));
            world.sim.fault(Fault::refuse("StopInstances", code, message).on(["bad"]));
            let told = world.invoke(stop()).await;
            assert_eq!(told.verdict(), "Incomplete", "{code}");
            assert_eq!(told.report["summary"]["changed"], 29, "{code}: {message}");
            assert_eq!(told.entry("failed", "bad")["code"], code);
            assert!(world.count("StopInstances") <= most, "{code}: {} calls", world.count("StopInstances"));
        }
    }
}

#[tokio::test]
async fn of_a_thousand_a_bad_one_that_ec2_names_costs_at_most_two_calls_more() {
    let mut world = a_thousand().await;
    world.sim.add(ours("bad"));
    world
        .sim
        .fault(Fault::refuse("StopInstances", "IncorrectInstanceState", "The instance '{ids}' can't.").on(["bad"]));
    let told = world.invoke(stop()).await;
    assert_eq!((&told.report["summary"]["changed"], told.names("failed")), (&json!(1000), names(["bad"])));
    assert!(world.sim.calls().len() <= THOUSAND + 2, "{} calls", world.sim.calls().len());
}

#[tokio::test]
async fn of_a_thousand_a_bad_one_that_ec2_does_not_name_costs_at_most_fourteen_calls_more() {
    for place in ["web-1", "web-500", "web-951", "web-1000"] {
        let mut world = a_thousand().await;
        world.sim.fault(Fault::refuse("StopInstances", "UnsupportedOperation", "It can't.").on([place]));
        let told = world.invoke(stop()).await;
        assert_eq!((&told.report["summary"]["changed"], told.names("failed")), (&json!(999), names([place])));
        assert!(world.sim.calls().len() <= THOUSAND + 14, "{place}: {} calls", world.sim.calls().len());
    }
}

#[tokio::test]
async fn a_spot_instance_that_ec2_refuses_for_another_reason_is_not_called_one_time() {
    let mut world = World::new().await;
    world.sim.add(ours("spot").spot_persistent());
    world.sim.fault(
        Fault::refuse("StopInstances", "UnsupportedOperation", "The instance '{ids}' is being migrated.").on(["spot"]),
    );
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("failed")), ("Incomplete", names(["spot"])));
}

#[tokio::test]
async fn a_code_that_nobody_has_heard_of_is_isolated_and_reported() {
    let mut world = World::new().await;
    world.sim.add_many(30, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::refuse("StopInstances", "InstanceOnTheMoon", "Too far.").status(418).on(["web-7"]));
    let told = world.invoke(stop()).await;
    assert_eq!((&told.report["summary"]["changed"], told.names("failed")), (&json!(29), names(["web-7"])));
    assert_eq!(told.entry("failed", "web-7")["code"], "InstanceOnTheMoon");
}

#[tokio::test]
async fn one_sick_instance_costs_the_other_sixty_nine_nothing() {
    let mut world = World::new().await;
    world.sim.add_many(70, |n| ours(&format!("web-{n}")));
    world.sim.fault(
        Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500).on(["web-3"]),
    );
    let told = world.within(Duration::from_secs(15), remembering(stop())).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Unfinished", &json!(69)));
    assert_eq!(told.entry("unfinished", "web-3")["reason"], "InternalError");
    assert!(world.count("StopInstances") <= 40, "{} calls", world.count("StopInstances"));

    // The retry only asks for the one that is left.
    let told = world.within(Duration::from_secs(5), remembering(stop())).await;
    assert_eq!(told.names("unfinished"), names(["web-3"]));
    assert!(world.count("StopInstances") <= 8, "{} calls", world.count("StopInstances"));
}

#[tokio::test]
async fn sick_instances_in_several_groups_cost_no_other_its_night() {
    let mut world = World::new().await;
    world.sim.add_many(300, |n| ours(&format!("web-{n:03}")));
    let sick = ["web-001", "web-064", "web-065", "web-200"];
    world
        .sim
        .fault(Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500).on(sick));
    let told = world.within(Duration::from_secs(20), stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Unfinished", &json!(296)));
    assert_eq!(told.names("unfinished"), names(sick));
    assert!(world.count("StopInstances") <= 100, "{} calls", world.count("StopInstances"));
}

/// EC2's buckets fill this many times faster than documented, so that tests take that much less time.
const FASTER: f64 = 20.0;

/// A world with token buckets that fill faster than EC2's, and a function that is configured for them.
async fn with_fast_buckets() -> World {
    let limits = format!(
        r#"{{"StopInstances": {{"calls": {{"size": 50, "refill": {}}}, "instances": {{"size": 1000, "refill": {}}}}}}}"#,
        5.0 * FASTER,
        20.0 * FASTER
    );
    let world = World::with_env(&[("CURFEW_EC2_LIMITS", &limits)]).await;
    world.sim.settings(|settings| (settings.throttle, settings.throttle_refill) = (true, FASTER));
    world
}

/// Returns how many seconds these stops would take with EC2's own buckets, full at first.
fn seconds_under_ec2s_buckets(calls: &[Call]) -> f64 {
    let instances: usize = calls.iter().map(|call| call.ids.len()).sum();
    ((calls.len() as f64 - 50.0) / 5.0).max((instances as f64 - 1000.0) / 20.0).max(0.0)
}

/// Counts the calls that named one of these machines, until all of them were off.
fn calls_until_off(world: &World, calls: &[Call], is_one: impl Fn(&str) -> bool) -> usize {
    let mut on: BTreeSet<String> = world
        .sim
        .machines()
        .iter()
        .filter(|machine| is_one(machine.name()))
        .map(|machine| machine.id.clone())
        .collect();
    let mine = on.clone();
    let mut named = 0;
    for call in calls {
        named += usize::from(call.ids.iter().any(|id| mine.contains(id)));
        if call.code == "ok" {
            on.retain(|id| !call.ids.contains(id));
        }
        if on.is_empty() {
            return named;
        }
    }
    panic!("{} are not off", on.len())
}

#[tokio::test]
async fn a_hundred_and_twenty_protected_instances_keep_fifty_others_waiting_for_a_dozen_calls_at_most() {
    let mut world = with_fast_buckets().await;
    world.sim.add_many(120, |n| ours(&format!("vault-{n}")).stop_protected());
    world.sim.add_many(50, |n| ours(&format!("web-{n}")));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(50)));
    assert_eq!(told.report["skipped_by"], json!({"stop_protected": 120}));
    let calls = world.calls("StopInstances");
    let until_off = calls_until_off(&world, &calls, |name| name.starts_with("web-"));
    assert!(until_off <= 12, "{until_off} calls");
    let seconds = seconds_under_ec2s_buckets(&calls);
    assert!(
        seconds < 60.0 && told.took.as_secs_f64() < 60.0 / FASTER + 3.0,
        "{seconds} s by EC2, {:?} here",
        told.took
    );
}

#[tokio::test]
async fn protected_instances_among_the_others_are_all_told_and_the_others_all_off() {
    let mut world = with_fast_buckets().await;
    let is_vault = |n: usize| n % 17 < 12;
    world.sim.add_many(170, |n| match is_vault(n) {
        true => ours(&format!("vault-{n}")).stop_protected(),
        false => ours(&format!("web-{n}")),
    });
    let told = world.invoke(stop()).await;
    let vaults = (1..=170).filter(|n| is_vault(*n)).count();
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(170 - vaults)));
    assert_eq!(told.report["skipped_by"], json!({"stop_protected": vaults}));
    let calls = world.calls("StopInstances");
    let named: usize = calls.iter().map(|call| call.ids.len()).sum();
    assert!(calls.len() <= 230 && named <= 1500, "{} calls, which name {named}", calls.len());
}

#[tokio::test]
async fn seven_hundred_one_time_spot_instances_are_told_and_keep_three_hundred_others_waiting_for_nothing() {
    let mut world = with_fast_buckets().await;
    world.sim.add_many(700, |n| ours(&format!("spot-{n}")).spot_one_time());
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    let told = world.invoke(stop()).await;
    assert_eq!(
        (told.verdict().as_str(), &told.report["summary"]["changed"]),
        ("complete", &json!(300)),
        "{}",
        told.message()
    );
    assert_eq!(told.report["skipped_by"], json!({"spot_one_time": 700}));
    let calls = world.calls("StopInstances");
    let last = calls.iter().rposition(|call| call.code == "ok").unwrap();
    assert!(last < 20, "the 300 are off only at call {}", last + 1);
    let seconds = seconds_under_ec2s_buckets(&calls);
    assert!(seconds < 900.0 / 2.0, "{seconds} s");
}

#[tokio::test]
async fn a_spot_instance_refused_in_ec2s_older_words_is_one_time_too() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    for name in ["spot-1", "spot-2"] {
        world.sim.add(ours(name).spot_persistent());
        let words = "The instance '{id}' is a spot instance and may not be stopped.";
        world.sim.fault(Fault::refuse("StopInstances", "UnsupportedOperation", words).on([name]));
    }
    let told = world.invoke(remembering(stop())).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3), "{:#}", told.report);
    assert_eq!([told.reason("spot-1"), told.reason("spot-2")], ["spot_one_time", "spot_one_time"]);
}
