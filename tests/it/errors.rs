//! Every row of the table of errors, and every fault: the bad one is reported, the others go through, nothing is lost.

use std::time::Duration;

use ec2_sim::{Fault, Host, Outcome, Shortage, Sim};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::*;

const DENIED: &str = "You are not authorized to perform this operation.";

async fn a_thousand() -> World {
    let world = World::new().await;
    world.sim.add_many(1000, |n| ours(&format!("web-{n}")));
    world
}

/// The calls that a thousand cost without trouble: a look, and 16 batches.
const THOUSAND: usize = 1 + 16;

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
async fn of_a_thousand_one_that_a_tag_conditioned_policy_refuses_costs_at_most_fourteen_calls_more() {
    let mut world = a_thousand().await;
    world.sim.add_many(999, |n| ours(&format!("x-{n}")).region("eu-west-1").tag("managed", "yes"));
    world.sim.add(ours("untagged").region("eu-west-1"));
    world.sim.settings(|settings| settings.only_tagged = Some(("managed".to_owned(), "yes".to_owned())));
    let told = world.invoke(with(stop(), json!({"regions": "eu-west-1"}))).await;
    assert_eq!((&told.report["summary"]["changed"], told.names("failed")), (&json!(999), names(["untagged"])));
    assert_eq!(told.entry("failed", "untagged")["code"], "UnauthorizedOperation");
    assert!(world.sim.calls().len() <= THOUSAND + 14, "{} calls", world.sim.calls().len());
}

#[tokio::test]
async fn a_few_bad_ones_of_a_hundred_cost_no_other_its_night_wherever_they_stand() {
    for bad in [
        &["web-001", "web-002", "web-080"][..],
        &["web-001", "web-100"],
        &["web-003", "web-004", "web-005", "web-051", "web-099"],
    ] {
        let mut world = World::new().await;
        world.sim.add_many(300, |n| ours(&format!("web-{n:03}")));
        world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).on(bad.to_vec()).status(403));
        let told = world.invoke(with(stop(), json!({"remember": true}))).await;
        let failed: Vec<String> = told.names("failed").into_iter().collect();
        assert_eq!(
            (failed, &told.report["summary"]["changed"]),
            (bad.iter().map(ToString::to_string).collect(), &json!(300 - bad.len()))
        );
    }
}

#[tokio::test]
async fn among_a_few_that_a_policy_refuses_the_one_that_it_allows_is_found() {
    for allowed in ["web-1", "web-6", "web-12"] {
        let mut world = World::new().await;
        world.sim.add_many(12, |n| ours(&format!("web-{n}")));
        let others = (1..=12).map(|n| format!("web-{n}")).filter(|name| name != allowed);
        world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).on(others).status(403));
        let told = world.invoke(stop()).await;
        assert_eq!((told.names("changed"), told.names("failed").len()), (names([allowed]), 11));
    }
}

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

/// The first stop takes so long that the plan's look is too old for whatever comes after it.
fn slow_first_stop() -> Fault {
    Fault::stall("StopInstances", Duration::from_secs(11)).times(1)
}

fn exempt(sim: &Sim, name: &str) {
    sim.edit(name, |machine| drop(machine.tags.insert("curfew:exempt".into(), "true".into())));
}

#[tokio::test]
async fn what_somebody_else_stops_while_ec2_throttles_keeps_its_mark() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(slow_first_stop());
    world.sim.fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Too many.").status(503).times(1));
    let off = |sim: &Sim| sim.switch_off("web");
    let told = world.while_it_runs(with(stop(), json!({"remember": true})), Duration::from_secs(5), off).await;
    assert_eq!((told.verdict().as_str(), world.sim.state("web").as_str()), ("complete", "stopped"));
    assert!(world.sim.tag("web", "curfew:stopped-at").is_some(), "another run of the same moment may have stopped it");
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
    let unwell = Fault::refuse("DescribeInstances", "RequestLimitExceeded", "Too many.").status(503);
    world.sim.fault(unwell.after(1).times(6));
    let told = world.while_it_runs(stop(), Duration::from_secs(5), |sim| exempt(sim, "web")).await;
    assert_eq!((told.reason("web").as_str(), world.sim.state("web").as_str()), ("exempt", "running"));
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
async fn a_missing_permission_is_not_hammered_under_throttling_either() {
    let mut world = a_thousand().await;
    world.sim.settings(|settings| {
        (settings.throttle, settings.throttle_size, settings.throttle_refill) = (true, 0.1, 1.0);
        settings.only_tagged = Some(("managed".to_owned(), "yes".to_owned()));
    });
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["failed"]), ("Incomplete", &json!(1000)));
    let calls = world.sim.calls();
    let refused = calls.iter().filter(|call| call.code == "UnauthorizedOperation").count();
    assert!(refused <= 20 && calls.len() <= 40, "{refused} refused of {} calls", calls.len());
}

#[tokio::test]
async fn what_somebody_ends_or_exempts_while_there_is_no_room_is_not_started() {
    let mut world = World::new().await;
    for name in ["web", "demo", "gone"] {
        world.sim.add(ours(name).state("stopped"));
    }
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").times(1)]);
    let act = |sim: &Sim| {
        exempt(sim, "demo");
        sim.edit("gone", |machine| machine.state = "terminated".to_owned());
    };
    let told = world.while_it_runs(start(), Duration::from_secs(5), act).await;
    assert_eq!(told.names("changed"), names(["web"]), "{:#}", told.report);
    assert_eq!(told.reason("demo"), "exempt");
    assert_eq!(told.entry("failed", "gone")["code"], "IncorrectInstanceState");
    assert_eq!(world.count("StartInstances"), 2);
}

#[tokio::test]
async fn a_missing_permission_costs_at_most_twenty_calls_named_or_not_marked_or_not() {
    for (named, remember) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = a_thousand().await;
        if named {
            world.sim.settings(|settings| {
                (settings.only_tagged, settings.only_tagged_names) =
                    (Some(("managed".to_owned(), "yes".to_owned())), true);
            });
        } else {
            world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).status(403));
        }
        let told = world.invoke(with(stop(), json!({"remember": remember}))).await;
        assert_eq!(told.report["summary"]["failed"], 1000);
        assert!(world.sim.calls().len() <= 20, "named {named}, remember {remember}: {} calls", world.sim.calls().len());
        assert!(
            world.sim.machines().iter().all(|machine| !machine.tags.contains_key("curfew:stopped-at")),
            "a mark stayed"
        );
    }
}

#[tokio::test]
async fn a_limit_of_on_demand_instances_is_none_of_spot_instances() {
    let mut world = World::new().await;
    world.sim.add(ours("on-demand").state("stopped"));
    world.sim.add(ours("spot").state("stopped").spot_persistent());
    world.sim.fault(Fault::refuse("StartInstances", "VcpuLimitExceeded", "No more.").on(["on-demand"]));
    let told = world.invoke(start()).await;
    assert_eq!((told.names("changed"), told.names("failed")), (names(["spot"]), names(["on-demand"])));
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
async fn a_shortage_that_ends_is_waited_for_and_delays_no_other() {
    let mut world = World::new().await;
    for (name, zone, kind) in
        [("a", "us-east-1a", "t3.micro"), ("b", "us-east-1b", "t3.micro"), ("c", "us-east-1a", "m5.large")]
    {
        world.sim.add(ours(name).state("stopped").zone(zone).kind(kind));
    }
    // The batch, the group, and then there is room.
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").times(2)]);
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["a", "b", "c"])));
    let started = |name: &str| world.sim.machine(name).launch_time;
    assert!(started("b") < started("a") && started("c") < started("a"), "the others went through at once");
}

#[tokio::test]
async fn no_host_capacity_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("a").state("stopped"));
    world.sim.fault(Fault::refuse("StartInstances", "InsufficientHostCapacity", "Insufficient capacity.").status(500));
    let told = world.within(Duration::from_secs(8), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "a")["reason"], "InsufficientHostCapacity");
    assert_eq!(world.sim.state("a"), "stopped");
}

#[tokio::test]
async fn within_a_vcpu_limit_as_many_start_as_fit() {
    let mut world = World::new().await;
    world.sim.add_many(60, |n| ours(&format!("web-{n:02}")).state("stopped"));
    world.sim.settings(|settings| settings.vcpu_limit = Some(37));
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!((&told.report["summary"]["changed"], &told.report["summary"]["failed"]), (&json!(37), &json!(23)));
    assert!(told.entries("failed").iter().all(|failed| failed["code"] == "VcpuLimitExceeded"));
    assert!(world.count("StartInstances") <= 14, "{} calls", world.count("StartInstances"));
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

#[tokio::test]
async fn a_storm_of_server_errors_is_sat_out() {
    for (code, status) in [
        ("InternalError", 500),
        ("InternalFailure", 500),
        ("Unavailable", 503),
        ("ServiceUnavailable", 503),
        ("BadGateway", 502),
    ] {
        let mut world = World::new().await;
        world.sim.add_many(4, |n| ours(&format!("web-{n}")));
        world.sim.fault(Fault::refuse("StopInstances", code, "Not now.").status(status).times(5));
        let told = world.invoke(stop()).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(4)), "{code}");
    }
}

#[tokio::test]
async fn a_storm_that_outlasts_the_run_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::refuse("StopInstances", "InternalError", "Not now.").status(500));
    let told = world.within(Duration::from_secs(6), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "web")["reason"], "InternalError");
}

#[tokio::test]
async fn an_account_that_ec2_does_not_know_is_the_targets_error() {
    for code in ["AuthFailure", "OptInRequired", "UnrecognizedClientException", "Blocked"] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(Fault::refuse(None, code, "No.").status(401));
        let told = world.invoke(stop()).await;
        assert_eq!(told.verdict(), "Incomplete");
        assert_eq!(told.report["targets"][0]["error"]["code"], code);
        assert_eq!(world.sim.calls().len(), 1, "{code}: asked once");
    }
}

#[tokio::test]
async fn an_account_that_is_shut_out_midway_is_told_for_each_instance() {
    let mut world = World::new().await;
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::refuse("StopInstances", "AuthFailure", "No.").status(401));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["failed"]), ("Incomplete", &json!(300)));
    assert_eq!(told.report["targets"][0]["error"]["code"], "AuthFailure");
    assert_eq!(world.count("StopInstances"), 1);
}

#[tokio::test]
async fn what_a_refused_call_has_done_in_part_is_counted_right() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.partial_success = true);
    for zone in ["us-east-1a", "us-east-1b"] {
        world.sim.add_many(5, |n| ours(&format!("{zone}-{n}")).zone(zone));
    }
    world.sim.add(ours("vault").zone("us-east-1a").stop_protected());
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!(
        (told.verdict().as_str(), &told.report["summary"]["changed"]),
        ("complete", &json!(10)),
        "{:#}",
        told.report
    );
    assert_eq!(told.reason("vault"), "stop_protected");
    assert!(world.sim.tag("us-east-1b-1", "curfew:stopped-at").is_some(), "it will be started again");
}

#[tokio::test]
async fn a_lost_answer_followed_by_a_refusal_is_looked_into() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::lose_answer("StopInstances").times(1));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!(
        (told.verdict().as_str(), &told.report["summary"]["changed"]),
        ("complete", &json!(3)),
        "EC2 had done it"
    );
    assert!(world.sim.tag("web-1", "curfew:stopped-at").is_some());
}

#[tokio::test]
async fn a_lost_answer_of_a_start_followed_by_a_refusal_is_looked_into() {
    let mut world = World::new().await;
    world.sim.add(ours("web").state("stopped"));
    world.sim.fault(Fault::lose_answer("StartInstances").times(1));
    world.sim.fault(Fault::refuse("StartInstances", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
}

#[tokio::test]
async fn what_a_refused_call_has_done_in_part_and_ec2_then_refuses_is_looked_into() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.partial_success = true);
    world.sim.add(ours("web").zone("us-east-1b"));
    world.sim.add(ours("vault").zone("us-east-1a").stop_protected());
    let fault = Fault::refuse("StopInstances", "IncorrectInstanceState", "The instance '{ids}' can't.");
    world.sim.fault(fault.on(["web"]).after(1));
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!((told.names("changed"), told.reason("vault").as_str()), (names(["web"]), "stop_protected"));
    assert!(world.sim.tag("web", "curfew:stopped-at").is_some(), "it will be started again");
}

#[tokio::test]
async fn answers_that_are_no_answers_are_asked_for_again() {
    let html = "<html><body>503 Service Temporarily Unavailable</body></html>";
    let other = "<StopInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><instancesSet/></StopInstancesResponse>";
    for (status, body) in
        [(200, ""), (200, "\u{0}\u{1}\u{2}"), (200, "<a><a><a>"), (200, html), (503, html), (502, ""), (200, other)]
    {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(Fault::answer("StopInstances", status, body).times(1));
        let told = world.invoke(stop()).await;
        assert_eq!(
            (told.verdict().as_str(), told.names("changed")),
            ("complete", names(["web"])),
            "{status} {body:?}: {:#}",
            told.report
        );
    }
}

#[tokio::test]
async fn half_a_list_of_instances_is_not_a_list_of_half_the_instances() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let first = "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet>";
    world.sim.fault(Fault::answer("DescribeInstances", 200, first).times(1));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(3)), "asked again");

    world.sim.add(ours("late"));
    world.sim.fault(Fault::answer("DescribeInstances", 200, first));
    let told = world.invoke(stop()).await;
    assert_eq!(told.verdict(), "Unfinished", "never a quiet night");
    assert_eq!(told.report["targets"][0]["error"]["code"], "BrokenAnswer");
}

#[tokio::test]
async fn an_answer_that_trickles_in_is_read_to_its_end() {
    let mut world = World::new().await;
    world.sim.add_many(50, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::trickle(None, Duration::from_millis(800)));
    assert_eq!(world.invoke(stop()).await.report["summary"]["changed"], 50);
}

#[tokio::test]
async fn a_describe_that_lags_behind_the_start_is_not_taken_for_a_fall_back() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    world.sim.settings(|settings| settings.describe_lag = Duration::from_millis(2500));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(3)));
}

#[tokio::test]
async fn an_id_not_found_while_starts_are_followed_hides_no_other() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    world.sim.fault(
        Fault::refuse("DescribeInstances", "InvalidInstanceID.NotFound", "The instance ID '{ids}' does not exist")
            .on(["web-2"]),
    );
    let told = world.within(Duration::from_secs(5), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.names("changed"), names(["web-1", "web-3"]));
    assert_eq!(told.names("unfinished"), names(["web-2"]));
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_the_targets_error_and_not_a_killed_function() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let _accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = silent.accept().await {
            open.push(connection);
        }
    });
    let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url)]).await;
    for seconds in [3, 30] {
        let told = Told::of(host.invoke(stop().to_string(), Duration::from_secs(seconds)).await);
        assert_eq!(told.verdict(), "Unfinished", "{seconds} s: {told:?}");
        let code = told.report["targets"][0]["error"]["code"].as_str().unwrap();
        assert_eq!(code, if seconds == 3 { "Deadline" } else { "Timeout" });
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_a_closed_port_are_the_targets_error() {
    for url in ["http://no-such-host.invalid", "http://127.0.0.1:9"] {
        let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", url)]).await;
        let told = Told::of(host.invoke(stop().to_string(), Duration::from_secs(30)).await);
        assert_eq!(told.verdict(), "Unfinished", "{url}: {told:?}");
        assert_eq!(told.report["targets"][0]["error"]["code"], "NoConnection", "{url}");
    }
}

/// Two functions, one cloud, at once.
async fn both(world: &mut World, one: Value, other: Value) -> [Value; 2] {
    let url = world.sim.url();
    let mut second = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url)]).await;
    let (one, other) = tokio::join!(world.host.invoke(one.to_string(), AMPLE), second.invoke(other.to_string(), AMPLE));
    [one, other].map(|invocation| match invocation.outcome {
        Outcome::Answered(report) => report,
        outcome => panic!("{outcome:?}: {:#?}", invocation.logs),
    })
}

#[tokio::test]
async fn two_stops_at_once_end_stopped_and_neither_report_hides_one() {
    let mut world = World::new().await;
    world.sim.add_many(250, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::stall("StopInstances", Duration::from_millis(30)));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1), "max_changes": 500}));
    let reports = both(&mut world, event.clone(), event).await;
    for n in 1..=250 {
        assert!(["stopping", "stopped"].contains(&world.sim.state(&format!("web-{n}")).as_str()));
        assert!(world.sim.tag(&format!("web-{n}"), "curfew:stopped-at").is_some());
    }
    for report in &reports {
        let summary = &report["summary"];
        assert_eq!(
            summary["matched"].as_u64().unwrap(),
            summary["changed"].as_u64().unwrap() + summary["skipped"].as_u64().unwrap()
        );
    }
    assert!(reports.iter().map(|report| report["summary"]["changed"].as_u64().unwrap()).sum::<u64>() >= 250);
}

#[tokio::test]
async fn a_stop_and_a_start_at_once_end_in_a_state_that_the_reports_explain() {
    let mut world = World::new().await;
    world.sim.add_many(20, |n| ours(&format!("on-{n}")));
    world.sim.add_many(20, |n| ours(&format!("off-{n}")).state("stopped"));
    let [stopped, started] = both(&mut world, stop(), start()).await;
    let ids = |report: &Value| -> Vec<String> {
        report["targets"][0]["changed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect()
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    for machine in world.sim.machines() {
        let was_on = machine.name().starts_with("on-");
        let changes = (ids(&stopped).contains(&machine.id), ids(&started).contains(&machine.id));
        match (was_on, machine.state.as_str()) {
            (true, "stopped") => assert!(changes.0, "{} is off, and nobody said so", machine.name()),
            (false, "running") => assert!(changes.1, "{} is on, and nobody said so", machine.name()),
            (true, "running") => assert!(!changes.0 || changes.1, "{} is on again, and nobody said so", machine.name()),
            (false, "stopped") => {
                assert!(!changes.1 || changes.0, "{} is off again, and nobody said so", machine.name())
            }
            (_, state) => panic!("{} is {state}", machine.name()),
        }
    }
}
