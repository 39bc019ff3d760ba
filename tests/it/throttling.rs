//! EC2's token buckets: they are respected, waited for, and spent where they help most.

use std::time::Duration;

use ec2_sim::{Call, Fault, Outcome};
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn throttling_is_waited_for_and_never_halved() {
    let mut world = World::new().await;
    world.sim.add_many(60, |n| ours(&format!("web-{n}")));
    world
        .sim
        .fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Request limit exceeded.").status(503).times(5));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(60)));
    assert!(world.sim.calls().iter().filter(|call| call.action == "StopInstances").all(|call| call.ids.len() == 60));
}

#[tokio::test]
async fn on_an_idle_account_with_ec2s_own_buckets_no_answer_is_throttled() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.throttle = true);
    world.sim.add_many(1100, |n| ours(&format!("web-{n}")));
    world.sim.add_many(640, |n| ours(&format!("db-{n}")).state("stopped").tag("tier", "db"));
    for (event, changed) in [(stop(), 1100), (with(start(), json!({"tags": {"tier": "db"}})), 640)] {
        let told = world.invoke(event).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(changed)));
        let throttled = world.sim.calls().iter().filter(|call| call.code == "RequestLimitExceeded").count();
        assert_eq!(throttled, 0, "of {} calls", world.sim.calls().len());
    }
}

#[tokio::test]
async fn starts_that_wait_for_ec2s_bucket_keep_nobody_from_following_the_others() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.throttle = true);
    world.sim.add_many(1100, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.within(Duration::from_secs(30), start()).await;
    // The 1000 tokens in the bucket are enough for 15 batches of 64 and 40 more; the 16th batch waits for 12 s, the
    // next for 32 s.
    let (changed, unfinished) = (&told.report["summary"]["changed"], &told.report["summary"]["unfinished"]);
    assert_eq!((told.verdict().as_str(), changed, unfinished), ("Unfinished", &json!(1024), &json!(76)));
    assert!(world.sim.calls().iter().all(|call| call.code != "RequestLimitExceeded"));
    let looks = |call: &&Call| call.action == "DescribeInstances" && !call.ids.is_empty();
    let (calls, starts) = (world.sim.calls(), |call: &&Call| call.action == "StartInstances");
    let last_start = calls.iter().rposition(|call| starts(&call)).unwrap();
    assert!(calls[..last_start].iter().filter(looks).count() > 2, "the others were looked at before it");
}

#[tokio::test]
async fn a_batch_is_never_larger_than_what_a_bucket_holds() {
    let lowered = r#"{"StopInstances": {"calls": {"size": 1, "refill": 5}, "instances": {"size": 20, "refill": 20}}}"#;
    let mut world = World::with_env(&[("CURFEW_EC2_LIMITS", lowered)]).await;
    world.sim.settings(|settings| (settings.throttle, settings.throttle_size) = (true, 0.02));
    world.sim.add_many(60, |n| ours(&format!("web-{n}")));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(60)));
    assert_eq!(world.count("StopInstances"), 3, "and none throttled");
}

#[tokio::test]
async fn limits_that_cannot_be_right_end_the_function_in_words_that_help() {
    for (limits, expected) in [
        (
            "2",
            "CURFEW_EC2_LIMITS: invalid type: integer `2`, expected an object at line 1 column 1; leave it out, or write it like {\"StartInstances\": ",
        ),
        (r#"{"Start": {}}"#, "unknown field `Start`, expected `StartInstances` or `StopInstances`"),
        (
            r#"{"StopInstances": {"calls": {"size": 50, "refill": 0}, "instances": {"size": 1000, "refill": 20}}}"#,
            "CURFEW_EC2_LIMITS: size 50 and refill 0; a bucket holds 1 at least, and fills by more than 0 a second",
        ),
    ] {
        let mut world = World::with_env(&[("CURFEW_EC2_LIMITS", limits)]).await;
        let invocation = world.host.invoke(stop().to_string(), AMPLE).await;
        assert!(matches!(invocation.outcome, Outcome::Exited(_)), "{:?}", invocation.outcome);
        let line = &invocation.json_logs()[0];
        assert!(line["level"] == "ERROR" && line["message"].as_str().unwrap().contains(expected), "{line}");
    }
}

#[tokio::test]
async fn where_tokens_are_short_the_well_ones_go_before_the_batch_with_the_bad_one() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.throttle = true);
    world.sim.add_many(1000, |n| ours(&format!("web-{n:04}")).state("stopped"));
    let bad = ["web-0010", "web-0070", "web-0140", "web-0200"];
    world.sim.fault(Fault::refuse("StartInstances", "UnsupportedOperation", "No.").on(bad));
    let told = world.within(Duration::from_secs(30), start()).await;
    let changed = told.report["summary"]["changed"].as_u64().unwrap();
    assert!(changed >= 650, "{changed} of 1000, where batches with a bad one first would leave it at 400");
}

#[tokio::test]
async fn under_token_buckets_the_same_batches_are_repeated_and_all_end_well() {
    let mut world = World::new().await;
    world.sim.add_many(700, |n| ours(&format!("web-{n}")));
    world.sim.settings(|settings| {
        settings.throttle = true;
        settings.throttle_size = 0.3; // 15 calls at once, 300 instances
        settings.throttle_refill = 8.0; // 160 instances a second
    });
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(700)));
    let calls = world.sim.calls();
    let stops: Vec<_> = calls.iter().filter(|call| call.action == "StopInstances").collect();
    assert!(stops.iter().any(|call| call.code == "RequestLimitExceeded"), "it was throttled");
    let batches: std::collections::BTreeSet<_> = stops.iter().map(|call| call.ids.clone()).collect();
    assert_eq!(batches.len(), 11, "no batch was ever taken apart");
}

#[tokio::test]
async fn a_bucket_that_others_have_emptied_is_not_hammered() {
    let mut world = World::new().await;
    world.sim.add_many(460, |n| ours(&format!("web-{n}")));
    world.sim.settings(|settings| (settings.throttle, settings.throttle_size) = (true, 0.2)); // 200 instances at once
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(460)));
    let throttled = world.sim.calls().iter().filter(|call| call.code == "RequestLimitExceeded").count();
    assert!((1..=8).contains(&throttled), "{throttled} throttled answers for eight batches");
}

#[tokio::test]
async fn every_way_to_say_throttled_is_waited_for() {
    for (code, status) in [
        ("Throttling", 400),
        ("ThrottlingException", 400),
        ("RequestLimitExceeded", 503),
        ("RequestThrottled", 503),
        ("SlowDown", 503),
    ] {
        let mut world = World::new().await;
        world.sim.add_many(4, |n| ours(&format!("web-{n}")));
        world.sim.fault(Fault::refuse("StopInstances", code, "Slow down.").status(status).times(4));
        let told = world.invoke(stop()).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(4)), "{code}");
        assert!(world.sim.calls().iter().filter(|call| call.action == "StopInstances").all(|call| call.ids.len() == 4));
    }
}
