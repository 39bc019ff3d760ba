//! Quiet at 288 ticks a day: how little a tick logs if nothing happens.

use super::*;

#[tokio::test]
async fn a_quiet_tick_is_one_report_line_under_1_kb_and_one_metrics_line() {
    let mut world = cloud((1..=200).map(|n| with_hours(&format!("web-{n}"), "office"))).await;
    let told = tick(&mut world, &reconcile(), "Tu 12:00").await;
    assert_eq!(told.message(), "office: 200 of 200 as scheduled");
    assert_eq!(told.logs.len(), 2, "{:#?}", told.logs);
    for line in &told.logs {
        assert!(line.to_string().len() < 1000, "{} bytes: {line}", line.to_string().len());
    }
    assert_eq!(metrics(&told).into_keys().collect::<Vec<_>>(), ["duration"]);
    // Skips are not listed, either, once their edge is some time ago.
    person_stops(&world, "web-7", "Tu 12:01").await;
    let told = tick(&mut world, &reconcile(), "Tu 12:05").await;
    assert_eq!((told.logs.len(), &told.report["skipped_by"]["stopped_since"]), (2, &json!(1)), "{:#?}", told.logs);
}

#[tokio::test]
async fn a_quiet_tick_over_forty_targets_is_as_short() {
    let regions: Vec<String> = (1..=20).map(|n| format!("eu-west-{n}")).collect();
    let mut world = cloud([]).await;
    world.sim.settings(|settings| settings.regions = regions.clone());
    let accounts = ["123456789012", "111111111111"];
    for (account, region) in accounts.iter().flat_map(|account| regions.iter().map(move |region| (account, region))) {
        world.sim.add(with_hours(&format!("{account}-{region}"), "office").account(account).region(region));
    }
    let name = "n".repeat(64);
    let event = with(
        reconcile(),
        json!({"name": name, "accounts": ["self", accounts[1]], "role": "curfew-member", "regions": "all"}),
    );
    let told = tick(&mut world, &event, "Tu 12:00").await;
    assert_eq!(told.message(), format!("{name}: 40 of 40 as scheduled"));
    assert_eq!(told.logs.len(), 2);
    for line in &told.logs {
        assert!(line.to_string().len() < 1000, "{} bytes: {line}", line.to_string().len());
    }
    let shown = told.report["targets"].as_array().unwrap().len();
    assert_eq!(told.report["truncated_targets"], 40 - shown, "counted");
    // What happens is reported, however long that gets.
    let told = tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!((told.message().as_str(), told.names("changed").len()), (&*format!("{name}: stopped 40 of 40"), 40));
}

#[tokio::test]
async fn skips_are_told_only_within_15_minutes_of_their_edge_their_launch_or_their_exemptions_end() {
    let mut world = cloud([
        with_hours("launched", "office").launched(at("Tu 21:00")),
        with_hours("exempt", "office").tag("curfew:exempt", &rfc3339(at("We 02:00"))),
        with_hours("always", "office").tag("curfew:exempt", "true"),
    ])
    .await;
    let night = ticks(&mut world, &reconcile(), "Tu 18:30", "We 02:30").await;
    let edge = ["Tue 19:00", "Tue 19:05", "Tue 19:10", "Tue 19:15"];
    assert_eq!(night.listed("skipped", "always"), edge);
    let (end, launch) = (
        ["Wed 01:45", "Wed 01:50", "Wed 01:55"],
        ["Tue 20:45", "Tue 20:50", "Tue 20:55", "Tue 21:00", "Tue 21:05", "Tue 21:10", "Tue 21:15"],
    );
    assert_eq!(night.listed("skipped", "exempt"), [&edge[..], &end].concat());
    let launched: Vec<String> = night.listed("skipped", "launched");
    assert_eq!(launched.iter().filter(|at| launch.contains(&at.as_str())).count(), launch.len());
    assert_eq!(launched.len(), launch.len() + edge.len());
    // All are always counted; the log has lines for just those that are listed.
    assert!(night.told.iter().all(|(_, told)| told.report["summary"]["matched"] == 3));
    for (moment, told) in &night.told {
        let listed = told.entries("skipped").len() + told.entries("changed").len();
        assert_eq!(other_lines(told).len(), listed, "{moment}: {:#?}", told.logs);
    }
}

#[tokio::test]
async fn metrics_are_told_only_where_they_are_not_zero() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office")]).await;
    let names_of = |told: &Told| metrics(told).into_keys().collect::<Vec<_>>();
    assert_eq!(names_of(&tick(&mut world, &reconcile(), "Tu 12:00").await), ["duration"]);
    assert_eq!(names_of(&tick(&mut world, &reconcile(), "Tu 19:00").await), ["changed", "duration"]);
    retag(&world, "web", "ofice");
    assert_eq!(names_of(&tick(&mut world, &reconcile(), "Tu 19:05").await), ["bad_tag", "duration"]);
    let no = "You are not authorized to perform this operation.";
    world.sim.fault(ec2_sim::Fault::refuse("StartInstances", "UnauthorizedOperation", no).status(403));
    assert_eq!(names_of(&tick(&mut world, &reconcile(), "We 08:00").await), ["bad_tag", "duration", "left"]);
    let told = tick(&mut world, &reconcile(), "We 08:05").await;
    let line = told.logs.iter().find(|line| line.get("_aws").is_some()).unwrap();
    assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["function", "name", "action"]]));
    assert_eq!((&line["name"], &line["action"], &line["left"]), (&json!("office"), &json!("reconcile"), &json!(1)));
}

#[tokio::test]
async fn at_rest_it_makes_one_call_per_thousand_instances_and_writes_nothing() {
    let mut world = cloud([]).await;
    world.sim.add_many(1500, |n| with_hours(&format!("web-{n}"), "office"));
    world.sim.add_many(700, |n| ours(&format!("other-{n}")));
    for moment in ["Tu 12:00", "Tu 12:05"] {
        let told = tick(&mut world, &reconcile(), moment).await;
        assert_eq!(told.message(), "office: 1500 of 1500 as scheduled");
        let calls: Vec<String> = world.sim.calls().into_iter().map(|call| call.action).collect();
        assert_eq!(calls, ["DescribeInstances", "DescribeInstances"]);
        assert_eq!(told.logs.len(), 2);
    }
}
