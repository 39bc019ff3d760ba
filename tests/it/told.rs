//! What people read: log lines, the report, its size.

use std::collections::BTreeSet;

use chrono::DateTime;
use ec2_sim::{Fault, Machine};
use serde_json::{Value, json};

use crate::world::*;

/// Replaces what differs from run to run.
fn still(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                *value = match key.as_str() {
                    "timestamp" | "Timestamp" | "launched" => json!("[time]"),
                    "duration" | "duration_ms" => json!(0),
                    _ => still(value.take()),
                };
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = still(value.take())),
        _ => {}
    }
    value
}

async fn an_office() -> (World, Value) {
    let world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(Machine::default().tag("curfew", "yes"));
    world.sim.add(ours("asg").tag("aws:autoscaling:groupName", "workers"));
    world.sim.add(ours("demo").tag("curfew:exempt", "2099-12-31 22:00"));
    world.sim.add(ours("typo").tag("curfew:exempt", "false"));
    world.sim.add(ours("db"));
    world.sim.fault(
        Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized to perform this operation.")
            .on(["db"])
            .status(403),
    );
    (world, with(stop_7pm(), json!({"timezone": "Europe/Berlin"})))
}

#[tokio::test]
async fn the_report_and_the_log_read_well() {
    let (mut world, event) = an_office().await;
    let told = world.invoke(event).await;
    insta::assert_json_snapshot!("report", still(told.report.clone()));
    let lines: Vec<Value> = told.logs.iter().filter(|line| line.get("targets").is_none()).cloned().map(still).collect();
    insta::assert_json_snapshot!("log", lines);
}

#[tokio::test]
async fn every_line_is_flat_json_with_a_timestamp_a_level_and_a_message() {
    let (mut world, event) = an_office().await;
    let told = world.invoke(event).await;
    assert_eq!(told.logs.len(), 8, "a line an instance, the metrics and the report: {:#?}", told.logs);
    assert!(told.logs[7].get("targets").is_some(), "the report comes last");
    for line in &told.logs {
        DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        assert!(["INFO", "WARN", "ERROR"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(!line["message"].as_str().unwrap().is_empty());
        let is_nested = line.get("targets").is_some() || line.get("_aws").is_some();
        assert!(
            is_nested || line.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()),
            "{line}"
        );
    }
}

/// Checks a line against CloudWatch's "Specification: Embedded metric format", and returns its metrics' values.
fn metrics(line: &Value) -> Value {
    let text = |value: &Value, most: usize| value.as_str().is_some_and(|it| (1..=most).contains(&it.len()));
    let now = chrono::Utc::now().timestamp_millis();
    assert!((now - line["_aws"]["Timestamp"].as_i64().unwrap()).abs() < 60_000, "milliseconds since 1970: {line}");
    let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    let mut values = serde_json::Map::new();
    for directive in directives {
        let members: BTreeSet<&str> = directive.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, BTreeSet::from(["Namespace", "Dimensions", "Metrics"]));
        assert!(text(&directive["Namespace"], 1024));
        for set in directive["Dimensions"].as_array().unwrap() {
            assert!(set.as_array().unwrap().len() <= 30);
            for key in set.as_array().unwrap() {
                assert!(text(key, 250) && text(&line[key.as_str().unwrap()], 1024), "{key} of {line}");
            }
        }
        assert!(directive["Metrics"].as_array().unwrap().len() <= 100);
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(text(&metric["Name"], 1024));
            assert!(["Count", "Milliseconds"].contains(&metric["Unit"].as_str().unwrap()));
            let name = metric["Name"].as_str().unwrap();
            assert!(line[name].is_number(), "{name} of {line}");
            values.insert(name.to_owned(), line[name].clone());
        }
    }
    Value::Object(values)
}

#[tokio::test]
async fn every_run_tells_its_metrics_in_cloudwatchs_format() {
    let (mut world, event) = an_office().await;
    let told = world.invoke(event.clone()).await;
    let line = told.logs.iter().find(|line| line.get("_aws").is_some()).unwrap();
    let counts = json!({
        "matched": 6, "changed": 2, "skipped": 3, "failed": 1, "unfinished": 0, "stale": 0,
        "duration": told.report["duration_ms"]
    });
    assert_eq!(metrics(line), counts);
    assert_eq!((&line["name"], &line["action"]), (&json!("office"), &json!("stop")));
    let dimensions = &line["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
    assert_eq!(dimensions, &json!([["function", "name", "action"]]), "each more would cost");
    assert_eq!(line["function"], "curfew");
    assert_eq!(line["skipped_by"], told.report["skipped_by"]);

    let late = world.invoke(with(event, json!({"scheduled_time": in_minutes(-90)}))).await;
    let line = late.logs.iter().find(|line| line.get("_aws").is_some()).unwrap();
    assert_eq!((&metrics(line)["stale"], &metrics(line)["matched"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn the_log_level_is_lambdas() {
    let levels = async |level: &str| -> BTreeSet<String> {
        let mut world = World::with_env(&[("AWS_LAMBDA_LOG_LEVEL", level)]).await;
        world.sim.add(ours("web"));
        world.sim.add(ours("vault").stop_protected());
        world.sim.add(ours("typo").tag("curfew:exempt", "false"));
        world
            .sim
            .fault(Fault::refuse("StopInstances", "IncorrectInstanceState", "The instance '{ids}' is odd").on(["web"]));
        let told = world.invoke(stop()).await;
        told.logs.iter().map(|line| line["level"].as_str().unwrap().to_owned()).collect()
    };
    let set = |levels: &[&str]| levels.iter().map(|level| (*level).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(levels("ERROR").await, set(&["ERROR"]));
    assert_eq!(levels("WARN").await, set(&["ERROR", "WARN"]));
    assert_eq!(levels("INFO").await, set(&["ERROR", "INFO", "WARN"]));
    assert_eq!(levels("DEBUG").await, set(&["DEBUG", "ERROR", "INFO", "WARN"]));
}

#[tokio::test]
async fn the_report_of_four_thousand_instances_stays_under_200_kb_and_its_counts_exact() {
    let mut world = World::new().await;
    // A tag holds 256 characters. EC2 lets this many be stopped at once; more would wait for its tokens.
    let long = "x".repeat(200);
    world.sim.add_many(3300, |n| ours(&format!("skipped-{n}-{long}")).tag("aws:autoscaling:groupName", "workers"));
    world.sim.add_many(700, |n| ours(&format!("web-{n}-{long}")));
    world.sim.add(ours("db"));
    world.sim.fault(Fault::refuse("StopInstances", "IncorrectInstanceState", "The instance is odd").on(["db"]));
    let told = world.invoke(stop()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert!(told.report.to_string().len() < 200_000, "{} bytes", told.report.to_string().len());
    assert_eq!(
        told.report["summary"],
        json!({"matched": 4001, "changed": 700, "would_change": 0, "skipped": 3300, "failed": 1, "unfinished": 0})
    );
    let target = &told.report["targets"][0];
    let listed = ["skipped", "changed", "failed"].map(|list| target[list].as_array().unwrap().len());
    assert_eq!(target["truncated"].as_u64().unwrap() as usize, 4001 - listed.iter().sum::<usize>());
    assert_eq!(listed[0], 0, "skipped is cut first");
    assert_eq!(listed[2], 1, "trouble is cut last");
    assert_eq!(told.logs.len(), 4003, "every instance has its own line all the same");
}

#[tokio::test]
async fn a_report_of_nothing_but_targets_that_could_not_be_worked_on_stays_under_200_kb() {
    let mut world = World::new().await;
    let regions: Vec<String> =
        (0..400).map(|n| format!("xx-{}{}-{}", (b'a' + (n / 90) as u8) as char, "x", 10 + n % 90)).collect();
    world.sim.settings(|settings| settings.regions = regions.clone());
    world.sim.fault(Fault::refuse("DescribeInstances", "OptInRequired", &"m".repeat(900)).status(401));
    let told = world.invoke(with(stop(), json!({"regions": regions}))).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert!(told.report.to_string().len() < 200_000, "{} bytes", told.report.to_string().len());
    let listed = told.report["targets"].as_array().unwrap().len() as u64;
    assert_eq!(told.report["truncated_targets"].as_u64().unwrap() + listed, 400);
}

#[tokio::test]
async fn clean_targets_are_cut_before_trouble_and_counted() {
    let mut world = World::new().await;
    let message = "m".repeat(1500);
    world.sim.add_many(150, |n| ours(&format!("bad-{n}")));
    world.sim.add(ours("good").region("eu-west-1"));
    world.sim.fault(Fault::refuse("StopInstances", "IncorrectInstanceState", &message).region("us-east-1"));
    let told = world.invoke(with(stop(), json!({"regions": ["us-east-1", "eu-west-1"]}))).await;
    assert!(told.report.to_string().len() < 200_000);
    assert_eq!(told.report["truncated_targets"], 1);
    assert_eq!(told.report["summary"]["failed"], 150);
    assert!(told.entries("failed").len() > 100);
}
