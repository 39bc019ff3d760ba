//! Why a reconcile leaves an instance alone, and how it says so.

use super::*;

#[tokio::test]
async fn what_is_as_scheduled_or_moving_is_counted_and_not_listed() {
    let stopping = with_hours("stopping", "office").state("stopping");
    let pending = with_hours("pending", "office").state("pending");
    let off = with_hours("off", "office").state("stopped").tag(MARK, &mark("Mo 19:00"));
    let mut world = cloud([with_hours("night", "Mo-Fr 18:00-24:00"), stopping, pending, off]).await;
    set_clock(&world, "Tu 19:00");
    let told = world.invoke(due(&reconcile(), "Tu 19:00")).await;
    assert_eq!(told.report["skipped_by"], json!({"as_scheduled": 2, "moving": 2}));
    assert!(told.entries("skipped").is_empty() && other_lines(&told).is_empty(), "{:#?}", told.logs);
    assert_eq!(told.message(), "office: 2 of 4 as scheduled");
    assert_eq!((told.verdict().as_str(), world.sim.calls().len()), ("complete", 1));
}

#[tokio::test]
async fn the_sentence_says_both_directions_and_the_bad_tags() {
    let mut world = cloud([with_hours("web-1", "Mon-Fri 8-19")]).await;
    let night = || |n: usize| with_hours(&format!("night-{n}"), "Mo-Fr 19:00-24:00").state("stopped");
    world.sim.add_many(12, |n| night()(n).tag(MARK, &mark("Tu 00:00")));
    world.sim.add_many(3, |n| with_hours(&format!("day-{n}"), "office"));
    world.sim.add_many(124, |n| with_hours(&format!("always-{n}"), "24/7"));
    let told = tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert_eq!(
        told.message(),
        r#"office: stopped 3, started 12 of 140; 1 bad tag: web-1 ("Mon-Fri 8-19", write "Mo-Fr 08:00-19:00")"#
    );
    let report = told.report;
    assert_eq!(report["summary"]["changed"], 15);
    assert_eq!(report["skipped_by"], json!({"as_scheduled": 124, "bad_tag": 1}));
    let entries = report["targets"][0]["changed"].as_array().unwrap();
    let went = |from: &str, to: &str| entries.iter().filter(|it| it["from"] == from && it["to"] == to).count();
    assert_eq!((went("running", "stopping"), went("stopped", "running")), (3, 12));
}

#[tokio::test]
async fn a_bad_tag_has_a_message_and_is_warned_of_once_per_distinct_value() {
    let mut world = cloud([]).await;
    world.sim.add_many(30, |n| with_hours(&format!("web-{n:02}"), "Mon-Fri 8-19"));
    world.sim.add_many(20, |n| with_hours(&format!("db-{n:02}"), "ofice"));
    world.sim.add(with_hours("odd", "whenever"));
    let told = tick(&mut world, &reconcile(), "Tu 12:00").await;
    assert_eq!(told.report["skipped_by"], json!({"bad_tag": 51}));
    assert_eq!(metrics(&told)["bad_tag"], 51);
    let mut warned: Vec<String> = other_lines(&told)
        .into_iter()
        .map(|line| {
            assert_eq!(
                (&line["level"], &line["reason"], &line["tag"]),
                (&json!("WARN"), &json!("bad_tag"), &json!(HOURS))
            );
            line["message"].as_str().unwrap().to_owned()
        })
        .collect();
    warned.sort();
    assert_eq!(
        warned,
        [
            r#"db-01 and 19 more: left alone, curfew:hours is "ofice": neither a name in the request's "hours" nor hours; did you mean "office"?"#,
            r#"odd: left alone, curfew:hours is "whenever": neither a name in the request's "hours" nor hours; write one of its names, or hours like "Mo-Fr 08:00-19:00""#,
            r#"web-01 and 29 more: left alone, curfew:hours is "Mon-Fri 8-19": can't be read as hours; write "Mo-Fr 08:00-19:00""#,
        ]
    );
    let message = told.entry("skipped", "web-07")["message"].as_str().unwrap().to_owned();
    assert!(message.contains(r#""Mon-Fri 8-19""#) && message.contains(r#"write "Mo-Fr 08:00-19:00""#), "{message}");
    assert_eq!(told.verdict(), "complete", "nothing that should have changed is left");
}

#[tokio::test]
async fn stopped_since_says_what_ec2_says() {
    let mut world = cloud([with_hours("web", "office"), with_hours("made", "office").state("stopped")]).await;
    ec2_stops(&world, "web", "Server.ScheduledStop", "Stopped due to scheduled retirement");
    let told = tick(&mut world, &reconcile(), "Tu 08:00").await;
    let said = told.entry("skipped", "web");
    assert_eq!(said["reason"], "stopped_since");
    assert_eq!(said["message"], "Server.ScheduledStop: Stopped due to scheduled retirement");
    let line = told.line("web");
    assert_eq!(line["level"], "INFO");
    assert_eq!(
        line["message"],
        "web: left alone, stopped_since, Server.ScheduledStop: Stopped due to scheduled retirement"
    );
    assert_eq!(told.entry("skipped", "made")["message"], Value::Null, "EC2 says nothing");
    assert_eq!(told.message(), "office: left 2 alone (2 stopped_since)");
}

#[tokio::test]
async fn the_reasons_of_all_actions_are_reconciles_too() {
    let mut world = cloud([
        with_hours("exempt", "office").tag("curfew:exempt", "true"),
        with_hours("unclear", "office").tag("curfew:exempt", "no"),
        with_hours("bastion", "office").tag("Role", "bastion-1"),
        with_hours("group", "office").tag("aws:autoscaling:groupName", "workers"),
        with_hours("node", "office").tag("eks:nodegroup-name", "nodes"),
        with_hours("disk", "office").instance_store(),
        with_hours("odd", "office").state("hibernating"),
        with_hours("vault", "office").stop_protected(),
        with_hours("spot", "office").spot_one_time(),
    ])
    .await;
    let told = tick(&mut world, &with(reconcile(), json!({"except_tags": {"Role": "bastion*"}})), "Tu 19:00").await;
    for (name, reason) in [
        ("exempt", "exempt"),
        ("unclear", "exempt"),
        ("bastion", "exempt"),
        ("group", "autoscaling_member"),
        ("node", "service_managed"),
        ("disk", "instance_store_root"),
        ("vault", "stop_protected"),
        ("spot", "spot_one_time"),
    ] {
        assert_eq!(told.reason(name), reason);
    }
    assert_eq!(told.line("unclear")["level"], "WARN");
    assert_eq!(told.verdict(), "complete");
}

#[tokio::test]
async fn it_fails_only_as_invalid_request() {
    let mut world = cloud([with_hours("web", "office")]).await;
    let told = tick(&mut world, &with(reconcile(), json!({"hours": {"office": "Mon-Fri 8-19"}})), "Tu 19:00").await;
    assert_eq!((told.verdict().as_str(), world.sim.calls().len()), ("InvalidRequest", 0));
    assert!(told.message().contains(r#"hours.office: "Mon-Fri 8-19""#), "{}", told.message());
    assert!(told.message().contains(r#"write "Mo-Fr 08:00-19:00""#), "{}", told.message());

    // EC2 fails as a whole: the next tick is the retry.
    world.sim.fault(ec2_sim::Fault::refuse("DescribeInstances", "AuthFailure", "No."));
    let told = tick(&mut world, &reconcile(), "Tu 19:05").await;
    assert!(matches!(told.outcome, ec2_sim::Outcome::Answered(_)), "{:?}", told.outcome);
    assert_eq!((told.verdict().as_str(), metrics(&told)["left"]), ("incomplete", 1));
}
