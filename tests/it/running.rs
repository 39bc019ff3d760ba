//! Ordinary runs: dry run, limits, lateness, regions, retries.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ec2_sim::{Fault, Machine};
use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn a_stop_and_a_start_say_what_ec2_said() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let told = world.invoke(stop()).await;
    let changed = told.entry("changed", "web");
    assert_eq!((changed["from"].as_str(), changed["to"].as_str()), (Some("running"), Some("stopping")));
    assert_eq!(told.message(), "curfew: stopped 1 of 1");
    world.settled("web", "stopped").await;
    let told = world.invoke(start()).await;
    let changed = told.entry("changed", "web");
    assert_eq!((changed["from"].as_str(), changed["to"].as_str()), (Some("stopped"), Some("running")));
    assert_eq!(told.message(), "curfew: started 1 of 1");
    assert_eq!(world.sim.state("web"), "running", "said only once it runs");
}

#[tokio::test]
async fn twice_in_a_row_changes_nothing_the_second_time() {
    let mut world = World::new().await;
    world.sim.add_many(5, |n| ours(&format!("web-{n}")));
    assert_eq!(world.invoke(stop_7pm()).await.report["summary"]["changed"], 5);
    let told = world.invoke(stop_7pm()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["matched"]), ("complete", &json!(0)));
    assert_eq!(world.count("StopInstances") + world.count("CreateTags"), 0);
    world.settled("web-5", "stopped").await;
    assert_eq!(world.invoke(start_8am()).await.report["summary"]["changed"], 5);
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["matched"]), ("complete", &json!(0)));
    assert_eq!(world.count("StartInstances") + world.count("DeleteTags"), 0);
}

#[tokio::test]
async fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("spared").tag("curfew:exempt", ""));
    world.sim.add(ours("denied"));
    world.sim.fault(
        Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized to perform this operation.")
            .on(["denied"])
            .status(403),
    );
    let told = world.invoke(with(stop_7pm(), json!({"dry_run": true}))).await;
    assert_eq!(told.verdict(), "Incomplete", "a missing permission shows");
    assert_eq!(told.names("would_change"), names(["web"]));
    assert_eq!(told.names("changed"), names([]));
    assert_eq!(told.entry("failed", "denied")["code"], "UnauthorizedOperation");
    assert_eq!(told.reason("spared"), "exempt");
    assert_eq!(world.sim.state("web"), "running");
    assert_eq!(world.sim.tag("web", "curfew:stopped-at"), None);
    assert!(world.sim.calls().iter().filter(|call| call.action != "DescribeInstances").all(|call| call.dry_run));
    assert!(world.sim.calls().iter().any(|call| call.action == "CreateTags"), "may it mark?");
    assert!(told.message().contains("dry run, would stop 1 of 3"), "{}", told.message());
}

#[tokio::test]
async fn a_dry_run_of_a_start_asks_too_and_starts_nothing() {
    let mut world = World::new().await;
    world.sim.add(ours("web").state("stopped"));
    let told = world.invoke(with(start(), json!({"dry_run": true}))).await;
    assert_eq!((told.verdict().as_str(), told.names("would_change")), ("complete", names(["web"])));
    assert_eq!(world.sim.state("web"), "stopped");
    assert_eq!(world.count("StartInstances"), 1);
}

#[tokio::test]
async fn a_plan_larger_than_max_changes_changes_nothing_and_fails() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("west").region("us-west-2"));
    world.sim.add(ours("spared").tag("curfew:exempt", ""));
    let event = |max: u64| with(stop(), json!({"max_changes": max, "regions": ["us-east-1", "us-west-2"]}));
    let told = world.invoke(event(3)).await;
    assert_eq!(told.verdict(), "TooManyChanges");
    assert_eq!(told.report["outcome"], "too_many_changes");
    assert!(
        told.message().starts_with("curfew: nothing stopped: would stop 4, more than max_changes (3)"),
        "{}",
        told.message()
    );
    assert_eq!(world.count("StopInstances"), 0);
    assert_eq!(world.sim.state("web-1"), "running");
    assert_eq!(world.invoke(event(4)).await.report["summary"]["changed"], 4, "as many is not more");
}

#[tokio::test]
async fn a_stale_event_calls_nothing_and_succeeds() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let due = in_minutes(-61);
    let told = world.invoke(with(stop(), json!({"scheduled_time": due}))).await;
    assert_eq!(told.verdict(), "stale");
    assert_eq!(
        told.message(),
        format!(
            "curfew: nothing stopped, this run was due at {due} (scheduled_time), 1 hour 1 minute ago; max_delay_minutes \
             allows 1 hour"
        )
    );
    assert_eq!(world.sim.calls().len(), 0);
    assert_eq!(told.logs.last().unwrap()["level"], "WARN");

    let told = world.invoke(with(stop(), json!({"scheduled_time": in_minutes(-61), "max_delay_minutes": 90}))).await;
    assert_eq!(told.verdict(), "complete");
    world.settled("web", "stopped").await;
    let told = world.invoke(with(start(), json!({"scheduled_time": in_minutes(-230)}))).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["web"])),
        "a start may be 4 hours late"
    );
}

#[tokio::test]
async fn a_scheduled_time_in_the_future_is_refused_but_for_clocks_that_differ() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let told = world.invoke(with(stop(), json!({"scheduled_time": in_minutes(7)}))).await;
    assert_eq!(told.verdict(), "InvalidRequest");
    assert!(told.message().contains("is in the future"), "{}", told.message());
    assert_eq!(world.sim.calls().len(), 0);
    assert_eq!(world.invoke(with(stop(), json!({"scheduled_time": in_minutes(4)}))).await.verdict(), "complete");
}

#[tokio::test]
async fn several_regions_are_worked_on_and_reported_in_the_order_of_the_event() {
    let mut world = World::new().await;
    for region in ["us-east-1", "eu-west-1", "us-west-2"] {
        world.sim.add(ours("web").region(region));
    }
    let told = world.invoke(with(stop(), json!({"regions": ["eu-west-1", "us-east-1"]}))).await;
    assert_eq!(told.verdict(), "complete");
    let regions: Vec<_> =
        told.report["targets"].as_array().unwrap().iter().map(|target| target["region"].clone()).collect();
    assert_eq!(regions, ["eu-west-1", "us-east-1"]);
    assert!(told.report["targets"].as_array().unwrap().iter().all(|target| target["account"] == "123456789012"));
    assert_eq!(world.sim.state("us-west-2/web"), "running");
    assert_ne!(world.sim.state("eu-west-1/web"), "running");
}

#[tokio::test]
async fn all_regions_means_every_region_enabled_for_the_account() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.regions = vec!["eu-west-1".into(), "us-east-1".into(), "me-south-1".into()]);
    for region in ["us-east-1", "eu-west-1", "me-south-1"] {
        world.sim.add(ours("web").region(region));
    }
    let denied = "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/curfew/curfew is not authorized \
                  to perform: ec2:DescribeInstances with an explicit deny in a service control policy";
    world
        .sim
        .fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", denied).region("me-south-1").status(403));
    let told = world.invoke(with(stop(), json!({"regions": "all"}))).await;
    assert_eq!(told.verdict(), "complete", "a region that the organization forbids is only noted");
    assert_eq!(told.report["summary"]["changed"], 2);
    let forbidden = told.report["targets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|target| target["region"] == "me-south-1")
        .unwrap()
        .clone();
    assert!(
        forbidden["error"].is_null() && forbidden["note"].as_str().unwrap().contains("service control policy"),
        "{forbidden}"
    );
}

#[tokio::test]
async fn a_region_that_cannot_be_worked_on_costs_no_other_its_night_off() {
    let mut world = World::new().await;
    world.sim.add(ours("web").region("eu-west-1"));
    world.sim.fault(
        Fault::refuse("DescribeInstances", "OptInRequired", "You are not subscribed to this service.")
            .region("us-east-1")
            .status(401),
    );
    let told = world.invoke(with(stop(), json!({"regions": ["us-east-1", "eu-west-1"]}))).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.names("changed"), names(["web"]));
    assert_eq!(told.report["targets"][0]["error"]["code"], "OptInRequired");
    assert_eq!(
        told.message(),
        "curfew: stopped 1 of 1; us-east-1 failed as a whole: OptInRequired, You are not subscribed to this service; is the region \
         enabled for this account?"
    );
}

#[tokio::test]
async fn what_a_whole_region_fails_for_is_said_in_ec2s_words_and_with_what_helps() {
    let filter = "The filter 'vpcid' is invalid.";
    let closed = "AWS was not able to validate the provided access credentials";
    for (fault, regions, said) in [
        (
            Fault::refuse("DescribeInstances", "InvalidParameterValue", filter),
            json!(["us-east-1", "eu-west-1"]),
            "us-east-1, eu-west-1 failed as a whole: InvalidParameterValue, The filter 'vpcid' is invalid",
        ),
        (
            Fault::refuse("DescribeInstances", "AuthFailure", closed).status(401).region("eu-west-1"),
            json!(["us-east-1", "eu-west-1"]),
            "eu-west-1 failed as a whole: AuthFailure, AWS was not able to validate the provided access credentials; is the \
             region enabled for this account?",
        ),
        (
            Fault::cut("DescribeInstances"),
            json!(["us-east-1"]),
            "; a function in a VPC needs a NAT gateway or a VPC endpoint for ec2",
        ),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(fault);
        let told = world.within(Duration::from_secs(14), with(stop(), json!({"regions": regions}))).await;
        assert!(told.message().ends_with(said), "{}", told.message());
    }
}

#[tokio::test]
async fn a_region_that_fails_costs_no_other_its_night_off() {
    for trouble in [
        Fault::hang("DescribeInstances"),
        Fault::hang("StopInstances"),
        Fault::refuse("StopInstances", "InternalError", "Not now.").status(500),
        Fault::refuse("DescribeInstances", "RequestLimitExceeded", "Request limit exceeded.").status(503),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("east"));
        world.sim.add(ours("west").region("us-west-2"));
        world.sim.fault(trouble.clone().region("us-east-1"));
        let event = with(stop(), json!({"regions": ["us-east-1", "us-west-2"]}));
        let told = world.within(Duration::from_secs(5), event).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("Unfinished", names(["west"])), "{trouble:?}");
    }
}

#[tokio::test]
async fn a_shortage_in_one_region_costs_no_other_its_morning() {
    let mut world = World::new().await;
    world.sim.add(ours("east").state("stopped"));
    world.sim.add(ours("west").state("stopped").region("us-west-2"));
    let none =
        "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested (us-east-1a).";
    world
        .sim
        .fault(Fault::refuse("StartInstances", "InsufficientInstanceCapacity", none).status(500).region("us-east-1"));
    let event = with(start(), json!({"regions": ["us-east-1", "us-west-2"]}));
    let told = world.within(Duration::from_secs(8), event).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("Unfinished", names(["west"])));
}

#[tokio::test]
async fn a_throttled_look_is_waited_for() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(
        Fault::refuse("DescribeInstances", "RequestLimitExceeded", "Request limit exceeded.").status(503).times(5),
    );
    assert_eq!(world.invoke(stop()).await.names("changed"), names(["web"]));
}

#[tokio::test]
async fn a_look_is_repeated_until_ec2_is_well_again_and_its_own_words_are_told_if_it_never_is() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    for fault in [Fault::cut("DescribeInstances"), Fault::garble("DescribeInstances")] {
        world.sim.fault(fault.times(10));
        let told = world.invoke(stop()).await;
        assert_eq!(told.names("changed"), names(["web"]), "{:#}", told.report);
        world.sim.edit("web", |machine| machine.state = "running".to_owned());
    }
    world.sim.fault(Fault::refuse("DescribeInstances", "InternalError", "Not now.").status(500));
    let told = world.within(Duration::from_secs(8), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.report["targets"][0]["error"]["code"], "InternalError");
}

#[tokio::test]
async fn a_list_of_regions_that_is_throttled_is_waited_for() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::refuse("DescribeRegions", "RequestLimitExceeded", "Too many.").status(503).times(4));
    let told = world.invoke(with(stop(), json!({"regions": "all"}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
}

#[tokio::test]
async fn regions_that_cannot_be_listed_are_the_own_regions_error() {
    let mut world = World::new().await;
    world.sim.fault(Fault::refuse("DescribeRegions", "UnauthorizedOperation", "You are not authorized").status(403));
    let told = world.invoke(with(stop(), json!({"regions": "all"}))).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.report["targets"][0]["error"]["code"], "UnauthorizedOperation");
}

#[tokio::test]
async fn the_retry_of_a_half_done_stop_does_just_the_rest() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("db"));
    world.sim.fault(
        Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized").on(["db"]).status(403),
    );
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1)}));
    let told = world.invoke(event.clone()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("Incomplete", names(["web"])));
    assert_eq!(told.message(), "office: stopped 1 of 2; 1 failed: db (UnauthorizedOperation)");
    world.sim.clear_faults();
    let told = world.invoke(event).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["db"])));
    assert_eq!(world.done("StopInstances"), names(["db"]));
}

#[tokio::test]
async fn the_retry_of_a_half_done_start_does_just_the_rest_and_follows_what_is_on_its_way() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(5));
    world.sim.add_many(2, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("crypt").falls_back("Client.InternalError", "Client.InternalError: Client error on launch"));
    world.invoke(stop_7pm()).await;
    world.settled("crypt", "stopped").await;

    let event = with(start_8am(), json!({"scheduled_time": in_minutes(0)}));
    let told = world.within(Duration::from_secs(3), event.clone()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "web-1")["reason"], "deadline");

    let told = world.invoke(event.clone()).await;
    assert_eq!(world.count("StartInstances"), 0, "all three are on their way");
    assert_eq!(told.verdict(), "Incomplete", "a start that then fails must not be called complete");
    assert_eq!(told.report["skipped_by"], json!({"already_done": 2}));
    assert_eq!(told.entry("failed", "crypt")["code"], "Client.InternalError");

    world.sim.settings(|settings| settings.start_takes = Duration::from_millis(100));
    world.sim.edit("crypt", |machine| machine.falls_back = None);
    let told = world.invoke(event).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["crypt"])),
        "marked again by the retry"
    );
}

#[tokio::test]
async fn what_somebody_starts_between_the_schedule_and_the_retry_stays_on() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("needed").state("stopped"));
    world.sim.switch_on("needed");
    world.settled("needed", "running").await;
    let told = world.invoke(with(stop_7pm(), json!({"scheduled_time": in_minutes(-3)}))).await;
    assert_eq!(told.names("changed"), names(["web"]));
    assert_eq!(told.reason("needed"), "started_since");
}

#[tokio::test]
async fn what_somebody_switched_faster_than_we_is_already_done() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    // Between our look and our call somebody stops it: EC2 answers that it was stopped before.
    world.sim.fault(Fault::stall("CreateTags", Duration::from_millis(600)));
    let event = stop_7pm();
    let World { sim, host, .. } = &mut world;
    let stopped_by_hand = async {
        while sim.calls().iter().all(|call| call.action != "DescribeInstances") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sim.edit("web", |machine| machine.state = "stopped".to_owned());
    };
    let (invocation, ()) = tokio::join!(host.invoke(event.to_string(), AMPLE), stopped_by_hand);
    let ec2_sim::Outcome::Answered(report) = invocation.outcome else { panic!("{invocation:?}") };
    assert_eq!(report["skipped_by"], json!({"already_done": 1}));
}

#[tokio::test]
async fn one_process_serves_many_events_and_a_refused_one_spoils_no_next_one() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    assert_eq!(world.invoke(json!("nonsense")).await.verdict(), "InvalidRequest");
    assert_eq!(
        world.invoke(json!({"action": "stop", "tags": {"curfew": "yes"}, "name": "né"})).await.verdict(),
        "InvalidRequest"
    );
    assert_eq!(world.invoke(stop()).await.verdict(), "complete");
}

#[tokio::test]
async fn an_old_instance_launched_before_the_schedule_is_stopped_even_by_a_late_event() {
    let mut world = World::new().await;
    world.sim.add(Machine::named("web").tag("curfew", "yes").launched(Utc::now() - TimeDelta::minutes(50)));
    let told = world.invoke(with(stop(), json!({"scheduled_time": in_minutes(-45)}))).await;
    assert_eq!(told.names("changed"), names(["web"]));
}

#[tokio::test]
async fn a_night_and_a_morning_make_every_call_that_the_policy_allows_on_ec2() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let mut called = BTreeSet::new();
    for (event, verb) in [(stop_7pm(), "stopped"), (start_8am(), "running")] {
        let told = world.invoke(with(event, json!({"regions": "all"}))).await;
        assert_eq!(told.verdict(), "complete");
        called.extend(world.sim.calls().into_iter().map(|call| format!("ec2:{}", call.action)));
        world.settled("web", verb).await;
    }
    let policy: Value = serde_json::from_str(include_str!("../../policy/execution-role.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let allowed: BTreeSet<String> = statements
        .iter()
        .flat_map(|it| it["Action"].as_array().cloned().unwrap_or_else(|| vec![it["Action"].clone()]))
        .filter_map(|action| action.as_str().filter(|it| it.starts_with("ec2:")).map(str::to_owned))
        .collect();
    assert_eq!(called, allowed);
}
