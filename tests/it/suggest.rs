//! `curfew suggest` through its front door: the real tool, against doubles of EC2, CloudWatch and Price List.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use ec2_curfew::hours::{Holidays, Hours};
use ec2_sim::{Fault, Machine, Sim};
use serde_json::{Value, json};

use crate::saved::{Desk, Said, id, numbered};
use crate::services::*;
use crate::world::*;

const ZONE: Tz = chrono_tz::America::New_York;

/// What an instance does in an hour, given in local time: CPU in percent, and bytes of network; none while it is off.
type Habit = fn(DateTime<Tz>) -> Option<(f64, f64)>;

fn weekday(at: DateTime<Tz>) -> bool {
    !matches!(at.weekday(), Weekday::Sat | Weekday::Sun)
}

fn busy_if(busy: bool) -> Option<(f64, f64)> {
    Some(if busy { (40.0, 9e6) } else { (0.8, 2e5) })
}

/// Busy from 8 to 19 on weekdays.
fn office(at: DateTime<Tz>) -> Option<(f64, f64)> {
    busy_if(weekday(at) && (8..19).contains(&at.hour()))
}

/// Busy from 9 to 20 on weekdays.
fn late(at: DateTime<Tz>) -> Option<(f64, f64)> {
    busy_if(weekday(at) && (9..20).contains(&at.hour()))
}

/// Little CPU but much network from 8 to 19 on weekdays; off at other times.
fn files(at: DateTime<Tz>) -> Option<(f64, f64)> {
    let day = weekday(at) && (8..19).contains(&at.hour());
    day.then_some((1.5, 8e7))
}

/// Busy from 22 to 6, in the nights after weekdays.
fn night(at: DateTime<Tz>) -> Option<(f64, f64)> {
    let began = at - TimeDelta::hours(12);
    busy_if(weekday(began) && (at.hour() >= 22 || at.hour() < 6))
}

fn always(_: DateTime<Tz>) -> Option<(f64, f64)> {
    busy_if(true)
}

fn never(_: DateTime<Tz>) -> Option<(f64, f64)> {
    busy_if(false)
}

/// Exists only since two days ago.
fn young(at: DateTime<Tz>) -> Option<(f64, f64)> {
    ((Utc::now() - at.to_utc()) < TimeDelta::days(2)).then_some((50.0, 9e6))
}

const HABITS: [(&str, Habit); 8] = [
    ("web-1", office),
    ("web-2", office),
    ("web-10", late),
    ("files", files),
    ("night", night),
    ("always", always),
    ("never", never),
    ("young", young),
];

fn fleet(sim: &Sim) -> BTreeMap<String, Habit> {
    let add = |machine: Machine| sim.add(machine.kind("m5.large"));
    add(ours("has-hours").tag("curfew:hours", "office"));
    add(ours("asg").tag("aws:autoscaling:groupName", "shop"));
    add(ours("karpenter").tag("karpenter.sh/nodepool", "a"));
    for (n, (name, _)) in HABITS.iter().enumerate() {
        add(numbered(n + 101, name));
    }
    HABITS.iter().enumerate().map(|(n, (_, habit))| (id(n + 101), *habit)).collect()
}

/// Builds CloudWatch's answer, one page for each day (CloudWatch API reference, GetMetricData); times are in seconds,
/// as in AWS JSON 1.0.
fn metric_data(habits: &BTreeMap<String, Habit>, input: &Value) -> Value {
    let queries = input["MetricDataQueries"].as_array().unwrap();
    assert!(queries.len() <= 500, "{} queries in a call", queries.len());
    let (from, to) = (input["StartTime"].as_i64().unwrap(), input["EndTime"].as_i64().unwrap());
    assert!(from % 3600 == 0 && to % 3600 == 0, "whole hours");
    let day = input["NextToken"].as_str().map_or(0, |token| token.parse::<i64>().unwrap());
    let hours = (from + day * 86_400..to.min(from + (day + 1) * 86_400)).step_by(3600);
    let results = queries.iter().map(|query| {
        let stat = &query["MetricStat"];
        assert_eq!(stat["Period"], 3600);
        let id = stat["Metric"]["Dimensions"][0]["Value"].as_str().unwrap();
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for time in hours.clone() {
            let at = DateTime::from_timestamp(time, 0).unwrap().with_timezone(&ZONE);
            let Some((cpu, bytes)) = habits.get(id).and_then(|habit| habit(at)) else { continue };
            times.push(time as f64);
            values.push(match (stat["Metric"]["MetricName"].as_str().unwrap(), stat["Stat"].as_str().unwrap()) {
                ("CPUUtilization", "Average") => cpu,
                ("NetworkIn" | "NetworkOut", "Sum") => bytes / 2.0,
                other => panic!("{other:?}"),
            });
        }
        json!({ "Id": query["Id"], "Label": "a", "StatusCode": "Complete", "Timestamps": times, "Values": values })
    });
    let more = from + (day + 1) * 86_400 < to;
    json!({ "MetricDataResults": results.collect::<Vec<_>>(), "NextToken": more.then(|| (day + 1).to_string()) })
}

const PRICES: [[&str; 6]; 1] = [["us-east-1", "m5.large", "RunInstances", "Shared", "0.0960000000", "USD"]];

async fn aws(habits: BTreeMap<String, Habit>) -> Services {
    let habits = Arc::new(habits);
    Services::start(move |operation, input| match operation {
        "GetMetricData" => Ok(metric_data(&habits, input)),
        _ => Ok(price_list(&PRICES, input)),
    })
    .await
}

/// Replaces amounts, which depend on the hour of the day.
fn without_money(text: &str) -> String {
    let mut parts = text.split('$');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "[money]" + part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

#[tokio::test]
async fn what_looks_idle_is_told_with_hours_confidence_and_money() {
    let (sim, desk) = (Sim::start().await, Desk::new("suggest"));
    let aws = aws(fleet(&sim)).await;
    let args = ["suggest", "--timezone", "America/New_York"];
    let said = desk.run(&sim, &aws.url, &args, &[("COLUMNS", "110")]).await;
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, "CloudWatch takes $0.01 for each 1,000 metrics; 24 metrics of 8 instances: $0.01\n")
    );
    insta::assert_snapshot!("suggested", without_money(&said.out));
    let said = desk.run(&sim, &aws.url, &[&args[..], &["--json"]].concat(), &[]).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let groups = told["looks_idle"].as_array().unwrap();
    let names = |group: &Value| -> Vec<String> {
        group["instances"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    let by_hours: BTreeMap<&str, Vec<String>> =
        groups.iter().map(|it| (it["hours"].as_str().unwrap(), names(it))).collect();
    // Office and late hours become one schedule, which is open long enough for both.
    let expected =
        [("Mo-Fr 08:00-20:00", vec!["files", "web-1", "web-2", "web-10"]), ("Mo-Fr 22:00-06:00", vec!["night"])];
    let expected: BTreeMap<&str, Vec<String>> =
        expected.into_iter().map(|(hours, names)| (hours, names.into_iter().map(String::from).collect())).collect();
    assert_eq!(by_hours, expected);
    for (list, name) in [("looks_idle_all_the_time", "never"), ("busy", "always"), ("too_new", "young")] {
        assert_eq!((told[list].as_array().unwrap().len(), &told[list][0]["name"]), (1, &json!(name)), "{list}");
    }
    assert_eq!(told["left_out"], json!({"in Auto Scaling groups": 1, "run by a service": 1, "with hours already": 1}));

    // By hand: hours of the last 14 days outside of them, of 336, times 730 × $0.096 = $70.08.
    let hours = Hours::parse("Mo-Fr 08:00-20:00", ZONE, &Holidays::default()).unwrap();
    let now = aws.asked("GetMetricData").pop().unwrap()["EndTime"].as_i64().unwrap() / 3600;
    let outside =
        (now - 336..now).filter(|hour| !hours.state_at(DateTime::from_timestamp(hour * 3600, 0).unwrap()).open);
    let saved = outside.count() as f64 / 336.0 * 70.08;
    let of = |name: &str| {
        let all = groups.iter().flat_map(|it| it["instances"].as_array().unwrap());
        all.clone().find(|it| it["name"] == name).unwrap().clone()
    };
    let month: f64 = of("web-1")["a_month"]["USD"].as_str().unwrap().parse().unwrap();
    assert!((month - saved).abs() < 0.006, "{month} and {saved}");
    assert_eq!(of("web-1")["confidence"], "high");
    // It is already off at night, so there is nothing to gain.
    assert_eq!((&of("files")["hours_running_outside"], &of("files")["a_month"]["USD"]), (&json!(0), &json!("0.00")));
    for group in groups {
        Hours::parse(group["hours"].as_str().unwrap(), ZONE, &Holidays::default()).unwrap();
        assert_eq!(told["hours"][group["name"].as_str().unwrap()], group["hours"]);
    }
}

/// In four hours of two weeks.
fn seldom(at: DateTime<Tz>) -> Option<(f64, f64)> {
    let days = (Utc::now() - at.to_utc()).num_days();
    ([1, 12].contains(&days) && (11..13).contains(&at.hour())).then_some((40.0, 9e6))
}

/// At noon of its first and its last day, and idle.
fn seldom_idle(at: DateTime<Tz>) -> Option<(f64, f64)> {
    seldom(at).filter(|_| at.hour() == 11).map(|_| (0.8, 2e5))
}

#[tokio::test]
async fn a_few_hours_are_no_week_however_far_apart() {
    let (sim, desk) = (Sim::start().await, Desk::new("seldom"));
    for (n, name) in ["seldom", "seldom-idle"].into_iter().enumerate() {
        sim.add(numbered(n, name).kind("m5.large"));
    }
    let aws = aws(BTreeMap::from([(id(0), seldom as Habit), (id(1), seldom_idle)])).await;
    let said = desk.run(&sim, &aws.url, &["suggest", "--timezone", "America/New_York"], &[]).await;
    assert!(said.out.contains("seldom, seldom-idle have run for less than a week of that time"), "{}", said.out);
    assert!(!said.out.contains("confidence") && !said.out.contains("\"hours\""), "{}", said.out);
}

#[tokio::test]
async fn five_hundred_queries_go_into_a_call() {
    let (sim, desk) = (Sim::start().await, Desk::new("many"));
    let mut habits: BTreeMap<String, Habit> = BTreeMap::new();
    for n in 0..400 {
        sim.add(numbered(n, &format!("web-{n}")).kind("m5.large"));
        habits.insert(id(n), office);
    }
    let aws = aws(habits).await;
    let said =
        desk.run(&sim, &aws.url, &["suggest", "--days", "7", "--json", "--timezone", "America/New_York"], &[]).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["looks_idle"][0]["instances"].as_array().unwrap().len(), 400, "{}", said.err);
    assert!(said.err.contains("1,200 metrics of 400 instances: $0.02"), "{}", said.err);
    // 166 instances, 498 queries a call: three calls, of seven pages.
    assert_eq!(aws.asked("GetMetricData").len(), 3 * 7);
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_with_what_to_do() {
    let (sim, desk) = (Sim::start().await, Desk::new("suggest-trouble"));
    let mut all = String::new();
    let mut tell = |title: &str, said: &Said| {
        all.push_str(&format!("## {title}: {}\n{}{}\n", said.code, said.err, said.out));
    };
    let denied = Services::start(|_, _| {
        Err((400, "AccessDenied", "User: me is not authorized to perform: cloudwatch:GetMetricData"))
    })
    .await;
    tell("a slip in a zone", &desk.run(&sim, &denied.url, &["suggest", "--timezone", "Europe/Berln"], &[]).await);
    tell("no zone", &desk.run(&sim, &denied.url, &["suggest", "--timezone", "Mars"], &[]).await);
    tell("no instance", &desk.run(&sim, &denied.url, &["suggest"], &[]).await);
    fleet(&sim);
    tell("no permission for metrics", &desk.run(&sim, &denied.url, &["suggest"], &[]).await);
    let empty = Services::start(|operation, _| match operation {
        "GetMetricData" => Ok(json!({ "MetricDataResults": [] })),
        _ => Err((400, "AccessDeniedException", "User: me is not authorized to perform: pricing:GetProducts")),
    })
    .await;
    tell("no data, no prices", &desk.run(&sim, &empty.url, &["suggest"], &[]).await);
    let broken = Services::start(|operation, _| match operation {
        "GetMetricData" => Ok(json!({ "MetricDataResults": [] })),
        _ => Err((400, "InvalidParameterException", "The filter is not one.")),
    })
    .await;
    tell("what no permission cures", &desk.run(&sim, &broken.url, &["suggest"], &[]).await);
    sim.fault(
        Fault::refuse(
            "DescribeInstances",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        )
        .status(403),
    );
    tell("no permission for EC2", &desk.run(&sim, &denied.url, &["suggest"], &[]).await);
    insta::assert_snapshot!("trouble", all);
}
