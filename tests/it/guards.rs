//! Misleading or incomplete answers: nothing is switched because of them, and they never pass for a night with nothing
//! to do.

use std::time::Duration;

use ec2_sim::{Fault, Machine, Sim};
use serde_json::{Value, json};

use crate::world::*;

/// A stop of everything in the VPC except bastions: a request that doesn't filter by a tag.
fn stop_the_vpc() -> Value {
    json!({"action": "stop", "filters": {"vpc-id": "vpc-0ec20001"}, "except_tags": {"Role": "bastion*"}})
}

/// Two machines to be stopped, and four to be left alone.
fn six() -> [Machine; 6] {
    [
        Machine::named("web").tag("Team", "x"),
        Machine::named("db").tag("Team", "y"),
        Machine::named("exempt").tag("curfew:exempt", "true"),
        Machine::named("asg").tag("aws:autoscaling:groupName", "workers"),
        Machine::named("bastion").tag("Role", "bastion-1"),
        Machine::named("node").tag("eks:nodegroup-name", "workers"),
    ]
}

#[tokio::test]
async fn where_tags_are_left_out_of_an_answer_nothing_is_stopped_that_a_tag_spares() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.tags_omitted = true);
    for machine in six() {
        world.sim.add(machine);
    }
    let told = world.invoke(stop_the_vpc()).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["db", "web"])),
        "{:#}",
        told.report
    );
    assert_eq!(told.report["skipped_by"], json!({"autoscaling_member": 1, "exempt": 2, "service_managed": 1}));
    assert!(world.count("DescribeInstances") <= 2, "{} looks", world.count("DescribeInstances"));
}

#[tokio::test]
async fn tags_that_are_left_out_of_some_instances_only_are_asked_for_too() {
    let mut world = World::new().await;
    for (n, machine) in six().into_iter().enumerate() {
        world.sim.add(if n % 2 == 0 { machine.tags_omitted() } else { machine });
    }
    let told = world.invoke(stop_the_vpc()).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["db", "web"])),
        "{:#}",
        told.report
    );
}

#[tokio::test]
async fn an_instance_that_has_no_tags_is_stopped_for_all_that_and_costs_one_look_more() {
    let mut world = World::new().await;
    let bare = world.sim.add(Machine::default());
    world.sim.add(Machine::named("web"));
    let told = world.invoke(stop_the_vpc()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(2)));
    assert_eq!((world.sim.state(&bare) == "running", world.count("DescribeInstances")), (false, 2));
}

#[tokio::test]
async fn where_every_instance_shows_its_tags_no_look_is_spent_on_them() {
    let mut world = World::new().await;
    world.sim.add_many(1100, |n| Machine::named(&format!("web-{n}")));
    let told = world.invoke(stop_the_vpc()).await;
    assert_eq!((told.verdict().as_str(), world.count("DescribeInstances")), ("complete", 2), "two pages");
}

#[tokio::test]
async fn without_an_answer_to_the_question_for_tags_nothing_is_switched() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.tags_omitted = true);
    for machine in six() {
        world.sim.add(machine);
    }
    world.sim.fault(Fault::refuse("DescribeInstances", "InternalError", "Not now.").status(500).after(1));
    let told = world.within(Duration::from_secs(6), stop_the_vpc()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert!(world.sim.machines().iter().all(|machine| machine.state == "running"));
}

#[tokio::test]
async fn where_tags_are_left_out_a_second_look_does_not_take_an_instance_for_another() {
    let mut world = World::new().await;
    world.sim.settings(|settings| (settings.tags_omitted, settings.start_takes) = (true, Duration::from_secs(3)));
    world.sim.add(ours("web"));
    world.sim.add(ours("slow").state("stopped"));
    assert_eq!(world.within(Duration::from_secs(2), start()).await.verdict(), "Unfinished");
    assert_eq!(world.sim.state("slow"), "pending");
    let told = world.invoke(stop()).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["slow", "web"])),
        "{:#}",
        told.report
    );
}

#[tokio::test]
async fn what_showed_its_tags_and_now_shows_none_is_taken_for_what_it_was() {
    for exempted_meanwhile in [false, true] {
        let mut world = World::new().await;
        world.sim.settings(|settings| settings.start_takes = Duration::from_secs(6));
        world.sim.add(Machine::named("slow").tag("Team", "x").state("stopped"));
        let start_it = json!({"action": "start", "filters": {"vpc-id": "vpc-0ec20001"}});
        assert_eq!(world.within(Duration::from_secs(3), start_it).await.verdict(), "Unfinished");
        let act = |sim: &Sim| {
            sim.settings(|settings| settings.tags_omitted = true);
            if exempted_meanwhile {
                exempt(sim, "slow");
            }
        };
        let told = world.while_it_runs(stop_the_vpc(), Duration::from_secs(1), act).await;
        match exempted_meanwhile {
            false => assert_eq!(told.names("changed"), names(["slow"]), "{:#}", told.report),
            true => assert_eq!(told.reason("slow"), "exempt", "{:#}", told.report),
        }
    }
}

#[tokio::test]
async fn looks_on_which_a_decision_hangs_stay_within_ec2s_bound_of_filter_values() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(6));
    // EC2's bucket for starts holds five calls.
    world.sim.add_many(320, |n| ours(&format!("web-{n}")).state("stopped"));
    assert_eq!(world.within(Duration::from_secs(4), start()).await.verdict(), "Unfinished");
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(320)));
    let looks = world.calls("DescribeInstances");
    assert!(
        looks.iter().all(|look| look.code == "ok"),
        "{:?}",
        looks.iter().map(|look| &look.code).collect::<Vec<_>>()
    );
    assert!(looks.len() <= 1 + 2 * 8, "{} looks", looks.len());
}

#[tokio::test]
async fn a_page_that_leads_back_to_itself_is_a_broken_answer_at_once() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.token_stuck = true);
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let told = world.within(Duration::from_secs(12), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.report["targets"][0]["error"]["code"], "BrokenAnswer");
    assert!(world.count("DescribeInstances") <= 20, "{} calls", world.count("DescribeInstances"));
    assert!(world.sim.machines().iter().all(|machine| machine.state == "running"));
}

#[tokio::test]
async fn an_instance_without_a_readable_id_state_or_launch_time_is_a_broken_answer_and_no_quiet_night() {
    for (element, text) in [
        ("launchTime", None),
        ("launchTime", Some("yesterday")),
        ("launchTime", Some("")),
        ("instanceId", None),
        ("instanceId", Some("i-odd")),
        ("instanceState", None),
        ("instanceState", Some("")),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.add(ours("odd").shown(element, text));
        let told = world.within(Duration::from_secs(5), stop()).await;
        assert_eq!(told.verdict(), "Unfinished", "{element} {text:?}: {:#}", told.report);
        assert_eq!(told.report["targets"][0]["error"]["code"], "BrokenAnswer", "{element} {text:?}");
        assert!(world.sim.machines().iter().all(|machine| machine.state == "running"), "{element} {text:?}");
    }
}

#[tokio::test]
async fn what_is_found_only_by_the_second_look_is_stopped_or_told() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let empty = "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet/>\
                 </DescribeInstancesResponse>";
    world.sim.fault(Fault::answer("DescribeInstances", 200, empty).times(1));
    let told = world.invoke(stop()).await;
    let off = world.sim.machines().iter().filter(|machine| machine.state != "running").count();
    match told.verdict().as_str() {
        "complete" => assert_eq!(off, 3, "{:#}", told.report),
        verdict => {
            assert_eq!((verdict, told.entries("unfinished").len()), ("Unfinished", 3 - off), "{:#}", told.report)
        }
    }
    assert!(!told.message().contains("can't be stopped"), "{}", told.message());
}

#[tokio::test]
async fn every_region_denied_or_none_listed_is_an_error_and_no_quiet_night() {
    for denied in [true, false] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.settings(|settings| settings.regions.truncate(if denied { 2 } else { 0 }));
        if denied {
            let words = "You are not authorized, with an explicit deny in a service control policy";
            world.sim.fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", words).status(403));
        }
        let told = world.invoke(with(stop(), json!({"regions": "all"}))).await;
        assert_eq!(told.verdict(), "Incomplete", "denied {denied}: {}", told.message());
        let targets = told.report["targets"].as_array().unwrap();
        assert!(targets.iter().any(|target| target["error"].is_object()), "denied {denied}: {:#}", told.report);
    }
}

#[tokio::test]
async fn an_ec2_that_carries_dry_runs_out_is_found_out_at_the_first_call() {
    for (event, before, action) in [(stop(), "running", "StopInstances"), (start(), "stopped", "StartInstances")] {
        let mut world = World::new().await;
        world.sim.settings(|settings| settings.ignores_dry_run = true);
        world.sim.add_many(130, |n| ours(&format!("web-{n}")).state(before));
        let dry = with(event, json!({"dry_run": true}));
        // Without the audit, which would fail: this EC2 does in a dry run what the report says is only planned.
        let told = Told::of(world.host.invoke(dry.to_string(), AMPLE).await);
        assert_eq!(told.verdict(), "Incomplete", "{:#}", told.report);
        let calls = world.calls(action);
        assert_eq!(calls.len(), 1, "nothing more is called");
        let error = &told.report["targets"][0]["error"];
        assert_eq!(error["code"], "DryRunIgnored");
        let message = error["message"].as_str().unwrap();
        assert!(calls[0].ids.iter().all(|id| message.contains(id)), "it names what it hit: {message}");
        let hit = world.sim.machines().iter().filter(|machine| machine.state != before).count();
        assert_eq!(hit, calls[0].ids.len());
        assert_eq!(told.report["summary"]["would_change"], 0, "{}", told.message());
    }
}

#[tokio::test]
async fn a_mark_that_is_written_in_a_dry_run_ends_it_too() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.ignores_dry_run = true);
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let dry = remembering(with(stop(), json!({"dry_run": true})));
    let told = Told::of(world.host.invoke(dry.to_string(), AMPLE).await);
    assert_eq!(told.verdict(), "Incomplete", "{:#}", told.report);
    assert_eq!(told.report["targets"][0]["error"]["code"], "DryRunIgnored");
    let changing = world.sim.calls().iter().filter(|call| call.action != "DescribeInstances").count();
    assert_eq!(changing, 1, "nothing more is called");
}

#[tokio::test]
async fn what_a_proxy_answers_in_ec2s_place_is_no_answer() {
    let html = "<html><body>Who are you?</body></html>";
    for (status, body) in [(302, ""), (302, html), (403, html), (407, html), (404, ""), (400, html)] {
        let mut world = World::new().await;
        world.sim.add_many(3, |n| ours(&format!("web-{n}")));
        for action in ["DescribeInstances", "CreateTags", "StopInstances"] {
            world.sim.fault(Fault::answer(action, status, body).times(2));
        }
        let told = world.invoke(remembering(stop())).await;
        let shown = || format!("{status} {body:?}: {:#}", told.report);
        assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3), "{}", shown());
    }
}

#[tokio::test]
async fn a_proxy_that_stays_is_the_targets_error_which_a_retry_may_not_meet() {
    for status in [302, 403, 407] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(Fault::answer("DescribeInstances", status, "<html>Who are you?</html>"));
        let told = world.within(Duration::from_secs(5), stop()).await;
        assert_eq!(told.verdict(), "Unfinished", "{status}: {:#}", told.report);
    }
}

#[tokio::test]
async fn a_message_of_300_kb_is_clipped_in_the_report_and_in_the_log() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let long = format!("It can't. {}", "ü".repeat(150_000));
    world.sim.fault(Fault::refuse("StopInstances", "UnsupportedOperation", &long).on(["web-2"]));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Incomplete", &json!(2)));
    let message = told.entry("failed", "web-2")["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("It can't. ü") && message.len() <= 2100, "{} bytes", message.len());
    for line in &told.logs {
        assert!(line.to_string().len() < 10_000, "a line of {} bytes", line.to_string().len());
    }

    world.sim.fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", &long).status(403));
    let told = world.invoke(stop()).await;
    let message = told.report["targets"][0]["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("It can't. ü") && message.len() <= 2100, "{} bytes", message.len());
    assert!(told.logs.iter().all(|line| line.to_string().len() < 10_000));
}

#[tokio::test]
async fn a_role_that_is_no_name_and_exceptions_beyond_ec2s_bound_are_refused_before_any_call() {
    let mut world = World::new().await;
    let role = |role: &str| with(stop(), json!({"accounts": ["111122223333"], "role": role}));
    let patterns = |count: usize| {
        let values: Vec<String> = (0..count).map(|n| format!("*a*{n}*")).collect();
        with(stop(), json!({"except_tags": {"Role": values}}))
    };
    let keys: serde_json::Map<String, Value> = (0..201).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (event, expected) in [
        (role("."), "role"),
        (role(".."), "role"),
        (patterns(201), "except_tags"),
        (patterns(2000), "except_tags"),
        (with(stop(), json!({"except_tags": keys})), "except_tags"),
    ] {
        let told = world.invoke(event).await;
        assert_eq!(told.verdict(), "InvalidRequest", "{expected}");
        assert!(told.message().contains(expected), "{}", told.message());
        assert_eq!(world.sim.calls().len(), 0);
    }
    assert_eq!(world.invoke(patterns(200)).await.verdict(), "complete", "as many as elsewhere");
}
