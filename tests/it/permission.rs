//! Refusals because of a policy or the state of an account: recognized in few calls, and not retried again and again.

use ec2_sim::Fault;
use serde_json::{Value, json};

use crate::world::*;

/// The calls that a thousand instances need without trouble: a look, and 16 batches.
const THOUSAND: usize = 1 + 16;

const DENIED: &str = "You are not authorized to perform this operation.";

async fn a_thousand() -> World {
    let world = World::new().await;
    world.sim.add_many(1000, |n| ours(&format!("web-{n}")));
    world
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
    assert!(told.entries("failed").iter().all(|failed| failed["code"] == "AuthFailure"), "{:#}", told.report);
    assert!(world.sim.calls().len() <= 20, "{} calls for 300 refused instances", world.sim.calls().len());
}

#[tokio::test]
async fn a_product_that_one_of_six_has_not_accepted_keeps_no_other_from_starting() {
    for code in ["OptInRequired", "AuthFailure", "PendingVerification", "Blocked"] {
        let mut world = World::new().await;
        world.sim.add_many(6, |n| ours(&format!("web-{n}")).state("stopped"));
        let words = "In order to use this AWS Marketplace product you need to accept terms and subscribe.";
        world.sim.fault(Fault::refuse("StartInstances", code, words).status(401).on(["web-4"]));
        let told = world.invoke(start()).await;
        assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("Incomplete", 5), "{code}");
        assert_eq!(told.entry("failed", "web-4")["code"], code);
        assert_eq!(told.report["targets"][0]["error"], Value::Null, "{code}");
        assert!(world.count("StartInstances") <= 10, "{code}: {} calls", world.count("StartInstances"));
    }
}

/// The first in line are often alike: what EC2 says of them doesn't hold for all.
#[tokio::test]
async fn those_who_are_refused_first_speak_for_nobody_else() {
    let named = "You are not authorized to perform ec2:StopInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/{ids}";
    for (event, before, action, code, words) in [
        (stop(), "running", "StopInstances", "UnauthorizedOperation", DENIED),
        (stop(), "running", "StopInstances", "UnauthorizedOperation", named),
        (remembering(stop()), "running", "CreateTags", "UnauthorizedOperation", DENIED),
        (start(), "stopped", "StartInstances", "AuthFailure", "No."),
        (start(), "stopped", "StartInstances", "OptInRequired", "Accept the terms."),
    ] {
        // EC2 takes two starts a second.
        let fleets = if before == "running" { &[(7, 33), (13, 6), (8, 57)][..] } else { &[(7, 33)] };
        for (bad, good) in fleets.iter().copied() {
            let mut world = World::new().await;
            world.sim.add_many(bad, |n| ours(&format!("bad-{n}")).state(before));
            world.sim.add_many(good, |n| ours(&format!("good-{n}")).state(before));
            let names: Vec<String> = (1..=bad).map(|n| format!("bad-{n}")).collect();
            world.sim.fault(Fault::refuse(action, code, words).status(403).on(names.iter().map(String::as_str)));
            let told = world.invoke(event.clone()).await;
            let (changed, failed) = (told.names("changed").len(), told.names("failed").len());
            assert_eq!((changed, failed), (good, bad), "{action}, {code}, {bad} and {good}: {}", told.message());
        }
    }
}

/// EC2's message is a real one: the encoded part at its end may be cut, so our advice comes first.
#[tokio::test]
async fn an_organization_that_forbids_tagging_stops_nothing_and_is_told_what_to_leave_open() {
    for policy in [
        "with an explicit deny in a service control policy",
        "because no service control policy allows the ec2:CreateTags action",
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        let words = format!(
            "{DENIED} User: arn:aws:sts::123456789012:assumed-role/curfew/curfew is not authorized to perform: ec2:CreateTags on \
             resource: arn:aws:ec2:us-east-1:123456789012:instance/* {policy}. Encoded authorization failure message: {}",
            "x".repeat(4000)
        );
        world.sim.fault(Fault::refuse("CreateTags", "UnauthorizedOperation", &words).status(403));
        let told = world.invoke(remembering(stop())).await;
        assert_eq!((told.verdict().as_str(), told.names("failed")), ("Incomplete", names(["web"])));
        let failed = told.entry("failed", "web");
        let hint = "it could not be marked with curfew:stopped-at; an organization's policy must leave ec2:CreateTags on \
                    instances open to the function's role: You are not authorized";
        assert!(failed["message"].as_str().unwrap().starts_with(hint), "{failed}");
        assert_eq!((world.sim.state("web"), world.count("StopInstances")), ("running".to_owned(), 0));
    }
}

#[tokio::test]
async fn a_role_that_may_not_tag_is_not_taken_for_an_organizations_policy() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::refuse("CreateTags", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(remembering(stop())).await;
    let message = format!("it could not be marked with curfew:stopped-at: {DENIED}");
    assert_eq!(told.entry("failed", "web")["message"], message.as_str());
}
