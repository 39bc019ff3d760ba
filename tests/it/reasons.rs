//! Which instances are left alone, and why: every row of the table in README.md, "Why didn't mine stop?".

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ec2_sim::{Fault, Machine, Sim};
use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn a_stop_leaves_each_kind_alone_for_its_own_reason_and_switches_off_the_rest() {
    let mut world = World::new().await;
    let later = in_minutes(180);
    for machine in [
        ours("web"),
        ours("exempt").tag("curfew:exempt", "true"),
        ours("exempt-empty").tag("curfew:exempt", ""),
        ours("exempt-until").tag("curfew:exempt", &later),
        ours("exempt-past").tag("curfew:exempt", &in_minutes(-10)),
        ours("exempt-unclear").tag("curfew:exempt", "false"),
        ours("bastion").tag("Role", "bastion-1"),
        ours("hours").tag("curfew:hours", "Mo-Fr 08:00-19:00"),
        ours("asg").tag("aws:autoscaling:groupName", "workers"),
        ours("operated").managed_by("eks.amazonaws.com"),
        ours("fleet").tag("aws:ec2:fleet-id", "fleet-1"),
        ours("spot-fleet").tag("aws:ec2spot:fleet-request-id", "sfr-1"),
        ours("emr").tag("aws:elasticmapreduce:job-flow-id", "j-1"),
        ours("karpenter").tag("karpenter.sh/nodepool", "default"),
        ours("karpenter-old").tag("karpenter.sh/provisioner-name", "default"),
        ours("nodegroup").tag("eks:nodegroup-name", "ng"),
        ours("eks").tag("eks:cluster-name", "c"),
        ours("aws-eks").tag("aws:eks:cluster-name", "c"),
        ours("scratch").instance_store(),
        ours("spot-1").spot_one_time(),
        ours("spot-p").spot_persistent(),
        ours("vault").stop_protected(),
        ours("young").launched(Utc::now() - TimeDelta::minutes(2)),
        Machine::named("not-ours"),
        Machine::named("other-case").tag("curfew", "Yes"),
    ] {
        world.sim.add(machine);
    }
    let event = with(stop(), json!({"except_tags": {"Role": "bastion*"}, "scheduled_time": in_minutes(-5)}));
    let told = world.invoke(event).await;

    assert_eq!(told.verdict(), "complete", "{:#}", told.report);
    assert_eq!(told.names("changed"), names(["web", "exempt-past", "spot-p"]));
    for (name, reason) in [
        ("exempt", "exempt"),
        ("exempt-empty", "exempt"),
        ("exempt-until", "exempt"),
        ("exempt-unclear", "exempt"),
        ("bastion", "exempt"),
        ("hours", "has_hours"),
        ("asg", "autoscaling_member"),
        ("operated", "service_managed"),
        ("fleet", "service_managed"),
        ("spot-fleet", "service_managed"),
        ("emr", "service_managed"),
        ("karpenter", "service_managed"),
        ("karpenter-old", "service_managed"),
        ("nodegroup", "service_managed"),
        ("eks", "service_managed"),
        ("aws-eks", "service_managed"),
        ("scratch", "instance_store_root"),
        ("spot-1", "spot_one_time"),
        ("vault", "stop_protected"),
        ("young", "started_since"),
    ] {
        assert_eq!(told.reason(name), reason, "{name}");
        assert_eq!(told.line(name)["reason"], reason, "its log line");
        assert_eq!(world.sim.state(name), "running", "{name}");
    }
    assert_eq!(told.entry("skipped", "exempt-until")["until"], *later);
    assert_eq!(told.line("exempt-unclear")["level"], "WARN");
    assert_eq!(told.report["skipped_by"]["service_managed"], 9);
    assert_eq!(world.sim.state("not-ours"), "running");
    assert_eq!(world.sim.state("other-case"), "running");
}

#[tokio::test]
async fn a_start_leaves_those_alone_too_that_are_exempt_or_somebody_elses() {
    let mut world = World::new().await;
    for machine in [
        ours("web"),
        ours("exempt").tag("curfew:exempt", "true"),
        ours("hours").tag("curfew:hours", "office"),
        ours("asg").tag("aws:autoscaling:groupName", "workers"),
        ours("eks").tag("eks:nodegroup-name", "ng"),
    ] {
        world.sim.add(machine.state("stopped"));
    }
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "complete");
    assert_eq!(told.names("changed"), names(["web"]));
    assert_eq!(
        told.report["skipped_by"],
        json!({"autoscaling_member": 1, "exempt": 1, "has_hours": 1, "service_managed": 1})
    );
}

#[tokio::test]
async fn an_exemption_by_date_lasts_to_the_end_of_the_day_in_the_requests_time_zone() {
    let mut world = World::new().await;
    // Kiritimati is 14 hours ahead of UTC: its yesterday may still be today elsewhere.
    let kiritimati = (Utc::now() + TimeDelta::hours(14)).format("%Y-%m-%d").to_string();
    let yesterday_there = (Utc::now() + TimeDelta::hours(14) - TimeDelta::days(1)).format("%Y-%m-%d").to_string();
    world.sim.add(ours("today").tag("curfew:exempt", &kiritimati));
    world.sim.add(ours("yesterday").tag("curfew:exempt", &yesterday_there));
    let told = world.invoke(with(stop(), json!({"timezone": "Pacific/Kiritimati"}))).await;
    assert_eq!(told.reason("today"), "exempt");
    assert_eq!(told.names("changed"), names(["yesterday"]));
}

#[tokio::test]
async fn an_instance_named_by_id_is_switched_in_spite_of_its_hours() {
    let mut world = World::new().await;
    let id = world.sim.add(Machine::named("hours").tag("curfew:hours", "office"));
    let told = world.invoke(json!({"action": "stop", "instance_ids": id})).await;
    assert_eq!(told.names("changed"), names(["hours"]));
}

#[tokio::test]
async fn instances_named_by_id_are_all_accounted_for_whatever_their_state() {
    let mut world = World::new().await;
    let mut ids = vec![world.sim.add(Machine::named("on"))];
    ids.push(world.sim.add(Machine::named("off").state("stopped")));
    ids.push(world.sim.add(Machine::named("gone").state("terminated")));
    ids.push(world.sim.add(Machine::named("odd").state("defragmenting")));
    ids.push("i-0000000000000dead".to_owned());
    world.sim.add(Machine::named("bystander"));

    let told = world.invoke(json!({"action": "stop", "instance_ids": ids})).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.names("changed"), names(["on"]));
    assert_eq!(told.reason("off"), "already_done");
    assert_eq!(told.reason("odd"), "unknown_state");
    assert_eq!(told.entry("failed", "gone")["code"], "IncorrectInstanceState");
    let absent = told.entries("failed").into_iter().find(|failed| failed["name"].is_null()).unwrap();
    assert_eq!(
        (absent["id"].as_str(), absent["code"].as_str()),
        (Some("i-0000000000000dead"), Some("InvalidInstanceID.NotFound"))
    );
    assert_eq!(world.sim.state("bystander"), "running");
}

#[tokio::test]
async fn ids_beside_tags_narrow_the_selection() {
    let mut world = World::new().await;
    let a = world.sim.add(ours("a"));
    world.sim.add(ours("b"));
    let c = world.sim.add(Machine::named("c"));
    let told = world.invoke(with(stop(), json!({"instance_ids": [a, c]}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["a"])));
}

#[tokio::test]
async fn five_hundred_ids_are_looked_up_in_groups_that_ec2_takes() {
    let mut world = World::new().await;
    let ids = world.sim.add_many(450, |n| Machine::named(&format!("m-{n}")));
    let told = world.invoke(json!({"action": "stop", "instance_ids": ids})).await;
    assert_eq!(told.report["summary"]["changed"], 450);
    assert_eq!(world.count("DescribeInstances"), 3, "200 + 200 + 50");
    assert_eq!(world.count("StopInstances"), 8, "64 at a time");
}

#[tokio::test]
async fn tags_select_with_every_key_and_any_value_and_ec2s_wildcards() {
    let mut world = World::new().await;
    for (name, environment, team) in
        [("a", "dev", "x"), ("b", "test-7", "x"), ("c", "prod", "x"), ("d", "dev", "y"), ("e", "t*", "x")]
    {
        world.sim.add(Machine::named(name).tag("Environment", environment).tag("Team", team));
    }
    let select = |environment: Value| json!({"action": "stop", "dry_run": true, "tags": {"Environment": environment, "Team": "x"}});
    assert_eq!(world.invoke(select(json!(["dev", "test-?"]))).await.names("would_change"), names(["a", "b"]));
    assert_eq!(world.invoke(select(json!("t*"))).await.names("would_change"), names(["b", "e"]));
    assert_eq!(world.invoke(select(json!("t\\*"))).await.names("would_change"), names(["e"]));
    assert_eq!(world.invoke(select(json!("*"))).await.names("would_change"), names(["a", "b", "c", "e"]));
}

#[tokio::test]
async fn filters_select_by_anything_that_describe_instances_knows() {
    let mut world = World::new().await;
    world.sim.add(Machine::named("small").kind("t3.micro"));
    world.sim.add(Machine::named("large").kind("m5.4xlarge"));
    let told = world.invoke(json!({"action": "stop", "filters": {"instance-type": ["t3.*", "t4g.*"]}})).await;
    assert_eq!(told.names("changed"), names(["small"]));
}

#[tokio::test]
async fn selection_and_state_are_filtered_by_ec2_a_thousand_to_a_page() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(stop()).await;
    let describe = world.sim.calls().into_iter().find(|call| call.action == "DescribeInstances").unwrap();
    assert_eq!(describe.params["MaxResults"], "1000");
    let values: Vec<&String> =
        describe.params.iter().filter(|(key, _)| key.starts_with("Filter.")).map(|(_, value)| value).collect();
    for wanted in ["tag:curfew", "yes", "instance-state-name", "pending", "running"] {
        assert!(values.iter().any(|value| *value == wanted), "{wanted} in {values:?}");
    }
}

#[tokio::test]
async fn short_and_empty_pages_are_followed_to_the_end() {
    let mut world = World::new().await;
    world.sim.settings(|settings| (settings.page_size, settings.empty_pages) = (3, 2));
    world.sim.add_many(10, |n| ours(&format!("web-{n}")));
    let told = world.invoke(stop()).await;
    assert_eq!(told.report["summary"]["changed"], 10);
    assert!(world.count("DescribeInstances") >= 12, "4 pages, each after 2 empty ones");
}

#[tokio::test]
async fn nothing_matched_because_all_are_already_off() {
    let mut world = World::new().await;
    world.sim.add_many(12, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.invoke(stop()).await;
    assert_eq!(told.verdict(), "complete");
    assert_eq!(told.message(), "curfew: nothing to stop, all 12 are already stopped");
    assert_eq!(told.logs.last().unwrap()["level"], "INFO");
}

#[tokio::test]
async fn nothing_matched_because_of_a_typo_is_a_warning_and_no_quiet_night() {
    let mut world = World::new().await;
    world.sim.add(Machine::named("web").tag("Environment", "development"));
    let told = world.invoke(json!({"action": "stop", "tags": {"Environment": "dev"}})).await;
    assert_eq!(told.verdict(), "complete");
    assert_eq!(
        told.message(),
        "curfew: nothing to stop, no instance in us-east-1 has Environment=dev, but 1 instance has Environment=development"
    );
    assert_eq!(told.logs.last().unwrap()["level"], "WARN");

    world.sim.add_many(2, |n| Machine::named(&format!("blank-{n}")).tag("Environment", "dev ").tag("Team", "blue"));
    let told = world.invoke(json!({"action": "stop", "tags": {"Environment": "dev", "Team": "blue"}})).await;
    assert!(
        told.message().ends_with("has Environment=dev and Team=blue, but 2 have Environment=\"dev \""),
        "{}",
        told.message()
    );

    let told = world.invoke(json!({"action": "stop", "tags": {"environment": "dev"}})).await;
    assert!(told.message().ends_with("has environment=dev; is that what was meant?"), "{}", told.message());
}

#[tokio::test]
async fn nothing_matched_because_what_is_selected_is_going_for_good_reads_like_neither() {
    let mut world = World::new().await;
    world.sim.add(ours("old").state("shutting-down"));
    let told = world.invoke(stop()).await;
    assert_eq!(told.message(), "curfew: nothing to stop, what is selected can't be stopped: 1 shutting-down");
    assert_eq!(told.logs.last().unwrap()["level"], "WARN");

    world.sim.add_many(2, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.invoke(stop()).await;
    assert_eq!(told.message(), "curfew: nothing to stop, 2 already stopped, 1 shutting-down");
    assert_eq!(told.logs.last().unwrap()["level"], "INFO");
}

#[tokio::test]
async fn nothing_matched_and_the_second_look_refused_is_no_quiet_night() {
    let mut world = World::new().await;
    world.sim.add(ours("web").state("stopped"));
    world.sim.fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", "No.").status(403).after(1));
    let told = world.invoke(stop()).await;
    assert_eq!(
        told.message(),
        "curfew: nothing to stop, and EC2 would not say what is there whatever its state (UnauthorizedOperation)"
    );
    assert_eq!((told.verdict().as_str(), &told.logs.last().unwrap()["level"]), ("complete", &json!("WARN")));
}

#[tokio::test]
async fn nothing_matched_beside_a_forbidden_region_is_asked_about_all_the_same() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.regions = vec!["us-east-1".into(), "me-south-1".into()]);
    let denied = "You are not authorized, with an explicit deny in a service control policy";
    world
        .sim
        .fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", denied).region("me-south-1").status(403));
    let told = world.invoke(with(stop(), json!({"regions": "all"}))).await;
    assert_eq!(
        told.message(),
        "curfew: nothing to stop, no instance in us-east-1 has curfew=yes; is that what was meant?"
    );
}

#[tokio::test]
async fn a_long_selection_that_matches_nothing_is_quoted_in_part() {
    let mut world = World::new().await;
    let values: Vec<String> = (0..200).map(|n| format!("{n}{}", "x".repeat(250))).collect();
    let told = world.invoke(json!({"action": "stop", "tags": {"curfew": values}})).await;
    assert!(told.message().len() < 500, "{} characters", told.message().len());
    assert!(told.message().ends_with("…; is that what was meant?"), "{}", told.message());
}

#[tokio::test]
async fn an_instance_that_is_just_starting_does_not_escape_the_stop() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(4));
    world.sim.add(ours("slow").state("stopped"));
    assert_eq!(world.within(Duration::from_secs(3), start()).await.verdict(), "Unfinished");
    assert_eq!(world.sim.state("slow"), "pending");
    world.sim.add(ours("web"));
    let told = world.invoke(stop()).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["slow", "web"])),
        "{:#}",
        told.report
    );
}

#[tokio::test]
async fn what_loses_its_tag_while_it_is_waited_for_is_left_alone() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(6));
    world.sim.add(ours("slow").state("stopped"));
    assert_eq!(world.within(Duration::from_secs(3), start()).await.verdict(), "Unfinished");
    let untag = |sim: &Sim| sim.edit("slow", |machine| drop(machine.tags.remove("curfew")));
    let told = world.while_it_runs(stop(), Duration::from_secs(1), untag).await;
    assert_eq!(told.reason("slow"), "exempt");
    assert_eq!(told.entry("skipped", "slow")["message"], "its tags no longer match the request");
    assert_eq!(world.count("StopInstances"), 0);
}

#[tokio::test]
async fn an_instance_that_is_just_stopping_does_not_escape_the_start() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.stop_takes = Duration::from_millis(1500));
    world.sim.add(ours("slow"));
    assert_eq!(world.invoke(with(stop(), json!({"remember": true}))).await.verdict(), "complete");
    assert_eq!(world.sim.state("slow"), "stopping");
    let told = world.invoke(with(start(), json!({"remember": true}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["slow"])));
}

#[tokio::test]
async fn hibernate_hibernates_what_is_configured_for_it_and_stops_the_rest() {
    let mut world = World::new().await;
    world.sim.add(ours("sleeper").hibernation());
    world.sim.add(ours("plain"));
    let told = world.invoke(with(stop(), json!({"hibernate": true}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["sleeper", "plain"])));
    let reason = |name: &str| world.sim.machine(name).state_reason.unwrap().code;
    assert_eq!(reason("sleeper"), "Client.UserInitiatedHibernate");
    assert_eq!(reason("plain"), "Client.UserInitiatedShutdown");
}
