//! EC2's bad days, as far as this version goes; and the deadline.

use std::time::Duration;

use ec2_sim::{Call, Fault, Outcome};
use serde_json::json;

use crate::world::*;

const DENIED: &str = "You are not authorized to perform this operation.";

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
async fn untagged_ones_that_a_policy_refuses_are_isolated_and_reported() {
    let mut world = World::new().await;
    world.sim.add_many(298, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("db-1"));
    world.sim.add(ours("db-2"));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).on(["db-1", "db-2"]).status(403));
    let told = world.invoke(stop()).await;
    assert_eq!(told.report["summary"]["changed"], 298);
    assert_eq!(told.names("failed"), names(["db-1", "db-2"]));
    assert!(
        told.message().ends_with("2 failed: db-1 (UnauthorizedOperation), db-2 (UnauthorizedOperation)"),
        "{}",
        told.message()
    );
}

#[tokio::test]
async fn a_missing_permission_is_not_hammered() {
    let mut world = World::new().await;
    world.sim.add_many(1000, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["failed"]), ("Incomplete", &json!(1000)));
    assert!(world.sim.calls().len() <= 20, "{} calls for 1000 refused instances", world.sim.calls().len());
}

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
    // The thousand that the bucket holds are 15 batches of 64, and 40; the 16th has to wait for 12 s, the next for 32.
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
async fn a_lost_answer_is_asked_again_and_counted_as_our_change() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::lose_answer("StopInstances").times(1));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!(world.count("StopInstances"), 2);
}

#[tokio::test]
async fn a_server_error_and_a_cut_connection_and_half_an_answer_are_repeated() {
    for fault in [
        Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500),
        Fault::cut("StopInstances"),
        Fault::garble("StopInstances"),
        Fault::cut("DescribeInstances"),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(fault.clone().times(1));
        let told = world.invoke(stop()).await;
        assert_eq!(
            (told.verdict().as_str(), told.names("changed")),
            ("complete", names(["web"])),
            "{fault:?}: {:#}",
            told.report
        );
    }
}

#[tokio::test]
async fn capacity_in_one_zone_delays_no_other_and_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("a").state("stopped").zone("us-east-1a"));
    world.sim.add(ours("b").state("stopped").zone("us-east-1b"));
    let message =
        "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested (us-east-1a).";
    world.sim.fault(Fault::refuse("StartInstances", "InsufficientInstanceCapacity", message).on(["a"]).status(500));
    let told = world.within(Duration::from_secs(12), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.names("changed"), names(["b"]));
    assert_eq!(told.entry("unfinished", "a")["reason"], "InsufficientInstanceCapacity");
}

#[tokio::test]
async fn a_start_that_falls_back_is_never_called_started() {
    let mut world = World::new().await;
    // Long enough to be seen on its way.
    world.sim.settings(|settings| settings.start_takes = Duration::from_millis(1500));
    world.sim.add(
        ours("crypt")
            .state("stopped")
            .falls_back("Client.InternalError", "Client.InternalError: Client error on launch"),
    );
    world.sim.add(ours("web").state("stopped"));
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.message(), "curfew: started 1 of 2; 1 failed: crypt (Client.InternalError)");
    assert_eq!(told.line("crypt")["level"], "ERROR");
}

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
async fn the_accounts_limit_lets_through_what_fits_and_is_not_hammered() {
    let mut world = World::new().await;
    world.sim.add_many(100, |n| ours(&format!("web-{n:03}")).state("stopped").kind("m5.large"));
    world.sim.add(ours("small").state("stopped"));
    let over: Vec<String> = (31..=100).map(|n| format!("web-{n:03}")).collect();
    world.sim.fault(
        Fault::refuse(
            "StartInstances",
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit allows.",
        )
        .on(over),
    );
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!((&told.report["summary"]["changed"], &told.report["summary"]["failed"]), (&json!(31), &json!(70)));
    assert!(told.names("changed").contains("small"), "another instance type has its own limit");
    assert!(world.count("StartInstances") <= 16, "{} calls", world.count("StartInstances"));
}

#[tokio::test]
async fn twelve_hundred_starts_are_followed_a_thousand_to_a_look_and_looks_grow_apart() {
    let raised =
        r#"{"StartInstances": {"calls": {"size": 50, "refill": 20}, "instances": {"size": 5000, "refill": 20}}}"#;
    let mut world = World::with_env(&[("CURFEW_EC2_LIMITS", raised)]).await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(8));
    world.sim.add_many(1200, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(1200)));
    let calls = world.sim.calls();
    let looks: Vec<usize> = calls
        .iter()
        .filter(|call| call.action == "DescribeInstances" && !call.ids.is_empty())
        .map(|call| call.ids.len())
        .collect();
    assert_eq!(looks[..2], [1000, 200]);
    assert!(looks.len() <= 2 * 5, "{} looks in 8 seconds", looks.len() / 2);
}
