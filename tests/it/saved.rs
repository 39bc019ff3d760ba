//! `curfew saved` through its front door: the real tool, against doubles of EC2, CloudWatch Logs, Price List and Cost
//! Explorer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ec2_sim::{Fault, Machine, Sim};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::services::*;
use crate::world::*;

pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// A user's home directory, with a cache of prices in it.
pub(crate) struct Desk(pub(crate) PathBuf);

impl Desk {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("curfew-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) async fn run(&self, sim: &Sim, services: &str, args: &[&str], env: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
        command.args(args).current_dir(&self.0).env_clear();
        let (ec2, cache) = (sim.url(), self.0.join("cache"));
        command.envs([("AWS_ENDPOINT_URL_EC2", &*ec2), ("AWS_ENDPOINT_URL_STS", &ec2), ("AWS_ENDPOINT_URL", services)]);
        command.envs([("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
        command.env("HOME", &self.0).env("XDG_CACHE_HOME", cache).envs(env.iter().copied()).kill_on_drop(true);
        let output = tokio::time::timeout(AMPLE, command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let only_looks =
            |it: &ec2_sim::Call| ["DescribeInstances", "GetCallerIdentity", "AssumeRole"].contains(&&*it.action);
        assert!(sim.calls().iter().all(only_looks), "{:#?}", sim.calls());
        Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap() }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("{text}Z")).unwrap().to_utc()
}

pub(crate) fn id(n: usize) -> String {
    format!("i-0ec2000000000{n:04}")
}

/// A machine with that id.
pub(crate) fn numbered(n: usize, name: &str) -> Machine {
    let mut machine = Machine::named(name);
    machine.id = id(n);
    machine
}

/// A line of the log, as version 0.1.0 wrote it (infra/README.md, "The log").
fn line(time: &str, n: usize, name: &str, schedule: &str, from: &str, to: &str) -> Value {
    json!({
        "timestamp": format!("{time}.123456Z"), "level": "INFO", "message": format!("{name}: {from} → {to}"),
        "id": id(n), "name": name, "account": "123456789012", "region": "us-east-1", "schedule": schedule,
        "action": if schedule == "hours" { "reconcile" } else if to == "stopping" { "stop" } else { "start" },
        "from": from, "to": to,
    })
}

fn off(time: &str, n: usize, name: &str) -> Value {
    line(time, n, name, "office", "running", "stopping")
}

/// A line as it is written today: with the last start.
fn off_since(time: &str, n: usize, name: &str, launched: &str) -> Value {
    with(off(time, n, name), json!({ "launched": format!("{launched}Z") }))
}

fn on(time: &str, n: usize, name: &str) -> Value {
    line(time, n, name, "office", "stopped", "running")
}

/// The log around October 2025. Each instance's lines are in order, but not all lines together.
fn october() -> Vec<Value> {
    vec![
        // web-1 is off 13 h; 15 h until a person starts it on Saturday at 10:00, which the next stop tells; 37 h to
        // Monday.
        off_since("2025-10-01T19:00:00", 1, "web-1", "2025-09-29T08:00:00"),
        // logged three minutes after the start
        on("2025-10-02T08:03:00", 1, "web-1"),
        off_since("2025-10-03T19:00:00", 1, "web-1", "2025-10-02T08:00:00"),
        off_since("2025-10-04T19:00:00", 1, "web-1", "2025-10-04T10:00:00"),
        // logged twice: the second run found it stopping
        with(off_since("2025-10-04T19:01:00", 1, "web-1", "2025-10-04T10:00:00"), json!({ "from": "stopping" })),
        on("2025-10-06T08:00:00", 1, "web-1"),
        // win-1 was stopped before the month, 6.5 h of which are in it; and is off since the month's last evening, 4 h.
        off_since("2025-09-28T19:00:00", 2, "win-1", "2025-09-28T08:00:00"),
        on("2025-10-01T06:30:00", 2, "win-1"),
        off_since("2025-10-31T20:00:00", 2, "win-1", "2025-10-01T06:30:00"),
        // old-1, logged by version 0.1.0: 13 h; a night that a person cut short, at a time that is unknown; 13 h.
        off("2025-10-10T19:00:00", 3, "old-1"),
        on("2025-10-11T08:00:00", 3, "old-1"),
        off("2025-10-12T19:00:00", 3, "old-1"),
        off("2025-10-13T19:00:00", 3, "old-1"),
        on("2025-10-14T08:00:00", 3, "old-1"),
        // gone-1: 12 h, and then a stop after which it was terminated.
        off_since("2025-10-20T19:00:00", 4, "gone-1", "2025-10-20T08:00:00"),
        on("2025-10-21T07:00:00", 4, "gone-1"),
        off_since("2025-10-22T19:00:00", 4, "gone-1", "2025-10-21T07:00:00"),
        // By hours: Spot 10 h, on a Dedicated Host 11 h, of a type without a price 9 h.
        line("2025-10-07T20:00:00", 5, "spot-1", "hours", "running", "stopping"),
        line("2025-10-08T06:00:00", 5, "spot-1", "hours", "stopped", "running"),
        line("2025-10-07T20:00:00", 6, "host-1", "hours", "running", "stopping"),
        line("2025-10-08T07:00:00", 6, "host-1", "hours", "stopped", "running"),
        line("2025-10-07T20:00:00", 7, "odd-1", "hours", "running", "stopping"),
        line("2025-10-08T05:00:00", 7, "odd-1", "hours", "stopped", "running"),
        // Not stops: a rehearsal, a failure, the report, and a line of Lambda's own.
        with(off("2025-10-15T19:00:00", 8, "dry"), json!({ "dry_run": true })),
        with(on("2025-10-16T08:00:00", 8, "dry"), json!({ "dry_run": true })),
        json!({ "timestamp": "2025-10-15T19:00:00Z", "id": id(8), "name": "no", "account": "123456789012", "region": "us-east-1", "schedule": "office", "code": "UnauthorizedOperation" }),
        json!({ "timestamp": "2025-10-15T19:00:00Z", "name": "office", "action": "stop", "targets": [{ "changed": [{ "id": id(8), "from": "running", "to": "stopping" }] }] }),
        json!("START RequestId"),
    ]
}

fn fleet(sim: &Sim) {
    let add = |n: usize, name: &str, kind: &str, machine: fn(Machine) -> Machine| {
        let it = numbered(n, name).kind(kind);
        sim.add(machine(it.launched(at("2025-11-03T08:00:00"))));
    };
    add(1, "web-1", "m5.large", |it| it);
    add(2, "win-1", "m5.large", |it| it.state("stopped").shown("usageOperation", "RunInstances:0002"));
    add(3, "old-1", "t3.micro", |it| it);
    add(5, "spot-1", "m5.large", |it| it.spot_persistent());
    add(6, "host-1", "m5.large", |it| it.tenancy("host"));
    add(7, "odd-1", "u7in-32tb.224xlarge", |it| it);
}

const PRICES: [[&str; 6]; 3] = [
    ["us-east-1", "m5.large", "RunInstances", "Shared", "0.0960000000", "USD"],
    ["us-east-1", "m5.large", "RunInstances:0002", "Shared", "0.1880000000", "USD"],
    ["us-east-1", "t3.micro", "RunInstances", "Shared", "0.0104000000", "USD"],
];
const OCTOBER: [&str; 5] = ["saved", "--days", "31", "--until", "2025-10-31"];

/// Answers FilterLogEvents with two lines a page, and empty pages in between (Logs API reference, FilterLogEvents).
fn log_events(lines: &[Value], input: &Value) -> Value {
    let from = input["nextToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
    let inside = lines.iter().filter(|line| {
        let time =
            line["timestamp"].as_str().map(|time| DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis());
        time.is_none_or(|time| input["startTime"].as_i64() <= Some(time) && Some(time) <= input["endTime"].as_i64())
    });
    let inside: Vec<Value> = inside.map(|line| json!({ "logStreamName": "a", "message": line.to_string() })).collect();
    let page: Vec<&Value> =
        if from % 3 == 2 { Vec::new() } else { inside.iter().skip(from / 3 * 4 + from % 3 * 2).take(2).collect() };
    let more = from < inside.len() * 2;
    json!({ "events": page, "searchedLogStreams": [], "nextToken": more.then(|| (from + 1).to_string()) })
}

/// Answers for Cost Explorer (Cost Management API reference, GetCostAndUsageWithResources, GetSavingsPlansUtilization).
fn costs(operation: &str, used: &[&str]) -> Answer {
    let group = |n: usize, cost: &str, hours: &str| json!({ "Keys": [id(n)], "Metrics": { "AmortizedCost": { "Amount": cost, "Unit": "USD" }, "UsageQuantity": { "Amount": hours, "Unit": "Hrs" } } });
    let utilization = |used: &str| json!({ "TotalCommitment": "24", "UsedCommitment": "0", "UnusedCommitment": "0", "UtilizationPercentage": used });
    match operation {
        "GetCostAndUsageWithResources" => Ok(json!({ "ResultsByTime": [
            { "TimePeriod": {}, "Estimated": true, "Groups": [group(1, "1.20", "20"), group(3, "0.10", "10"), group(900, "700", "24")] },
            { "TimePeriod": {}, "Estimated": true, "Groups": [group(1, "0.72", "10"), { "Keys": ["NoResourceId"], "Metrics": {} }] },
        ] })),
        _ if used.is_empty() => Err((400, "DataUnavailableException", "The requested data is unavailable.")),
        _ => Ok(json!({
            "SavingsPlansUtilizationsByTime": used.iter().enumerate().map(|(n, used)| json!({
                "TimePeriod": { "Start": format!("2026-01-0{}T00:00:00.000Z", n + 1) }, "Utilization": utilization(used),
            })).collect::<Vec<_>>(),
            "Total": { "Utilization": utilization("85.25") },
        })),
    }
}

async fn aws(lines: Vec<Value>) -> Services {
    let lines = Arc::new(lines);
    Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        "GetProducts" => Ok(price_list(&PRICES, input)),
        other => costs(other, &["100", "70.5"]),
    })
    .await
}

#[tokio::test]
async fn a_month_is_right_to_the_cent() {
    let (sim, desk, aws) = (Sim::start().await, Desk::new("month"), aws(october()).await);
    fleet(&sim);
    let said = desk.run(&sim, &aws.url, &[&OCTOBER[..], &["--json"]].concat(), &[]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let of = |name: &str| {
        let all = told["schedules"].as_array().unwrap().iter().flat_map(|it| it["instances"].as_array().unwrap());
        let it = all.clone().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name} in {told:#}"));
        (it["hours_off"].as_f64().unwrap(), it["saved"]["USD"].as_str().unwrap_or("none").to_owned())
    };
    let some = |hours: f64, saved: &str| (hours, saved.to_owned());
    // 13 + 15 + 37 = 65 h; 65 × $0.096 = $6.24
    assert_eq!(of("web-1"), some(65.0, "6.24"));
    // 6.5 + 4 = 10.5 h; 10.5 × $0.188 = $1.974
    assert_eq!(of("win-1"), some(10.5, "1.97"));
    // 13 + 13 = 26 h; 26 × $0.0104 = $0.2704; the night from the 12th to the 13th is not counted
    assert_eq!(of("old-1"), some(26.0, "0.27"));
    assert_eq!(of("gone-1"), some(12.0, "none"));
    assert_eq!([of("spot-1"), of("host-1"), of("odd-1")], [some(10.0, "none"), some(11.0, "none"), some(9.0, "none")]);
    // 6.24 + 1.974 + 0.2704 = 8.4844 (the sum of the rounded amounts happens to be the same); 65 + 10.5 + 26 + 12 + 30
    // = 143.5 h
    assert_eq!(
        (&told["saved"], &told["hours_off"], &told["instances"]),
        (&json!({"USD": "8.48"}), &json!(143.5), &json!(7))
    );
    let days = told["days"].as_array().unwrap();
    assert_eq!(days.len(), 31);
    // Wednesday the 1st: win-1 6.5 h × 0.188 = 1.222, web-1 from 19:00 5 h × 0.096 = 0.48; 1.702
    assert_eq!(days[0], json!({"date": "2025-10-01", "hours_off": 11.5, "saved": {"USD": "1.70"}}));
    // Sunday the 5th: web-1 all day, 24 × 0.096 = 2.304
    assert_eq!(days[4], json!({"date": "2025-10-05", "hours_off": 24.0, "saved": {"USD": "2.30"}}));
    let hours: f64 = days.iter().map(|day| day["hours_off"].as_f64().unwrap()).sum();
    assert!((hours - 143.5).abs() < 0.001, "{hours}");
    // Only four prices are asked for; the second time, only the one that was not found.
    let asked = || aws.asked("GetProducts").len();
    assert_eq!(asked(), 4);
    let again = desk.run(&sim, &aws.url, &[&OCTOBER[..], &["--json"]].concat(), &[]).await;
    assert_eq!((again.out == said.out, asked()), (true, 5));
}

#[tokio::test]
async fn what_was_saved_reads_well() {
    let (sim, desk, aws) = (Sim::start().await, Desk::new("reads"), aws(october()).await);
    fleet(&sim);
    let shown = |columns| [("COLUMNS", columns)];
    let wide = desk.run(&sim, &aws.url, &OCTOBER, &shown("120")).await;
    insta::assert_snapshot!("october", wide.out);
    let narrow = desk.run(&sim, &aws.url, &OCTOBER, &shown("80")).await;
    insta::assert_snapshot!("october_80", narrow.out);
    assert!(aws.asked("GetCostAndUsageWithResources").is_empty(), "each call costs a cent");
}

#[tokio::test]
async fn what_was_billed_is_shown_only_when_asked_for_and_its_price_first() {
    let (sim, desk) = (Sim::start().await, Desk::new("billed"));
    fleet(&sim);
    let aws = aws(october()).await;
    let args = [&OCTOBER[..], &["--billed", "--json"]].concat();
    let said = desk.run(&sim, &aws.url, &args, &[]).await;
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, "Cost Explorer takes $0.01 for each call: 2 of them here, or more for thousands of instances\n")
    );
    let told: Value = serde_json::from_str(&said.out).unwrap();
    // i-…1: 1.20 + 0.72 = 1.92 for 30 h; i-…3: 0.10 for 10 h. By the list 30 × 0.096 + 10 × 0.0104 = 2.984; 2.02 /
    // 2.984 = 67.7%
    assert_eq!(
        told["billed"]["instances"],
        json!({ id(1): {"hours": 30.0, "cost": 1.92}, id(3): {"hours": 10.0, "cost": 0.1} })
    );
    let says = told["billed"]["says"].as_array().unwrap();
    let says: Vec<&str> = says.iter().map(|it| it.as_str().unwrap()).collect();
    assert!(
        says[0]
            .ends_with(": $2.02 for the 40 h that 2 of these instances ran; at list price $2.98: 68% of it was paid."),
        "{says:?}"
    );
    assert_eq!(
        says[1],
        "Savings Plans: 85.2% of what is committed was used, least on 2026-01-02 (70.5%). What is not used is paid for all the same: part of the saving is fictional. AWS tells it by the day, not by the hour: at night it is less."
    );
    let asked = &aws.asked("GetCostAndUsageWithResources")[0];
    let day = |name: &str| asked["TimePeriod"][name].as_str().unwrap().parse::<chrono::NaiveDate>().unwrap();
    assert_eq!(day("End") - day("Start"), TimeDelta::days(14), "{asked}");

    // The read-only policy allows everything that was called.
    let policy: Value = serde_json::from_str(include_str!("../../policy/read-only.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter().map(|it| it["Action"].to_string());
    let allowed = statements.collect::<String>();
    for (service, operation) in [
        ("logs", "FilterLogEvents"),
        ("pricing", "GetProducts"),
        ("ce", "GetCostAndUsageWithResources"),
        ("ce", "GetSavingsPlansUtilization"),
    ] {
        assert!(
            !aws.asked(operation).is_empty() && allowed.contains(&format!("\"{service}:{operation}\"")),
            "{operation}"
        );
    }
    assert_eq!(
        aws.operations(),
        names(["FilterLogEvents", "GetCostAndUsageWithResources", "GetProducts", "GetSavingsPlansUtilization"])
    );

    let lines = Arc::new(october());
    let denied = Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        "GetProducts" => Ok(price_list(&PRICES, input)),
        "GetSavingsPlansUtilization" => costs(operation, &[]),
        _ => Err((
            400,
            "AccessDeniedException",
            "User: me is not authorized to perform: ce:GetCostAndUsageWithResources",
        )),
    })
    .await;
    let said = desk.run(&sim, &denied.url, &args, &[]).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &told["saved"]), (1, &json!({"USD": "8.48"})), "the rest is told");
    assert!(told["notes"][0].as_str().unwrap().contains("ce:GetCostAndUsageWithResources and"), "{told:#}");
}

#[tokio::test]
async fn what_the_function_tells_is_what_is_read() {
    let mut world = World::new().await;
    for name in ["web", "db"] {
        world.sim.add(ours(name));
    }
    let desk = Desk::new("real");
    let mut lines = Vec::new();
    for event in [stop(), start()] {
        let told = world.invoke(event).await;
        assert_eq!(told.verdict(), "complete");
        lines.extend(told.logs);
    }
    // The stops are moved ten hours into the past.
    let earlier = rfc3339(Utc::now() - TimeDelta::hours(10));
    for line in lines.iter_mut().filter(|line| line["to"] == "stopping") {
        assert!(line["launched"].is_string(), "{line}");
        line["timestamp"] = json!(earlier);
    }
    assert!(lines.iter().all(|line| line["to"] != "running" || line.get("launched").is_none()));
    world.sim.forget_calls();
    let prices = desk.0.join("prices.json");
    std::fs::write(&prices, r#"{"prices": [{"region": "us-east-1", "type": "t3.micro", "price": "0.0104"}]}"#).unwrap();
    let aws = aws(lines).await;
    let said = desk.run(&world.sim, &aws.url, &["saved", "--json", "--prices", "prices.json"], &[]).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let hours = told["hours_off"].as_f64().unwrap();
    // 2 × 10 h × $0.0104 = $0.208
    assert!((19.99..20.1).contains(&hours) && told["saved"] == json!({"USD": "0.21"}), "{told:#}");
    assert!(aws.asked("GetProducts").is_empty(), "the file is enough");
}

#[tokio::test]
async fn other_accounts_and_china() {
    let (sim, desk) = (Sim::start().await, Desk::new("china"));
    let launched = at("2025-11-03T08:00:00");
    let place = |n: usize, account: &str, region: &str| {
        sim.add(numbered(n, "a").kind("m5.large").account(account).region(region).launched(launched));
    };
    place(1, "123456789012", "cn-north-1");
    place(2, "444455556666", "us-east-1");
    let moved = |line: Value, account: &str, region: &str| with(line, json!({ "account": account, "region": region }));
    let mut lines = Vec::new();
    for line in [off("2025-10-01T10:00:00", 1, "a"), on("2025-10-01T20:00:00", 1, "a")] {
        lines.push(moved(line, "123456789012", "cn-north-1"));
    }
    for line in [off("2025-10-01T10:00:00", 2, "a"), on("2025-10-01T20:00:00", 2, "a")] {
        lines.push(moved(line, "444455556666", "us-east-1"));
    }
    let lines = Arc::new(lines);
    let aws = Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        _ => Ok(price_list(
            &[PRICES[0], ["cn-north-1", "m5.large", "RunInstances", "Shared", "0.6660000000", "CNY"]],
            input,
        )),
    })
    .await;
    let said = desk.run(&sim, &aws.url, &OCTOBER, &[("COLUMNS", "120")]).await;
    assert_eq!(said.code, 1);
    insta::assert_snapshot!("china", said.out);
    let said = desk.run(&sim, &aws.url, &[&OCTOBER[..], &["--role", "curfew-member", "--json"]].concat(), &[]).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    // 10 h × 0.666 and 10 h × 0.096
    assert_eq!((said.code, &told["saved"]), (0, &json!({"CNY": "6.66", "USD": "0.96"})), "{told:#}");
}

#[tokio::test]
async fn so_many_days_are_so_many_dates_today_among_them() {
    let (sim, desk) = (Sim::start().await, Desk::new("days"));
    fleet(&sim);
    let time = |hours| (Utc::now() - chrono::TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M:%S").to_string();
    let lines = Arc::new(vec![off(&time(3), 1, "web-1"), on(&time(1), 1, "web-1")]);
    let aws = Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        _ => Ok(price_list(&PRICES, input)),
    })
    .await;
    for (args, days) in [(&["saved", "--json", "--days", "2"][..], 2), (&["saved", "--json"], 30)] {
        let told: Value = serde_json::from_str(&desk.run(&sim, &aws.url, args, &[]).await.out).unwrap();
        let dates: Vec<&str> =
            told["days"].as_array().unwrap().iter().map(|day| day["date"].as_str().unwrap()).collect();
        assert_eq!(dates.len(), days, "{dates:?}");
        assert!(told["to"].as_str().unwrap().starts_with(dates[days - 1]), "{told:#}");
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_with_what_to_do() {
    let (sim, desk) = (Sim::start().await, Desk::new("trouble"));
    fleet(&sim);
    let mut all = String::new();
    let mut tell = |title: &str, said: &Said| {
        all.push_str(&format!("## {title}: {}\n{}{}\n", said.code, said.err, said.out));
    };
    let logs = |answer: Answer| {
        Services::start(move |operation, _| match operation {
            "FilterLogEvents" => answer.clone(),
            "DescribeLogGroups" => Ok(
                json!({ "logGroups": [{ "logGroupName": "/aws/lambda/curfew-test" }, { "logGroupName": "/aws/lambda/shop" }] }),
            ),
            other => panic!("{other}"),
        })
    };
    let empty = logs(Ok(json!({ "events": [] }))).await;
    tell("an empty log, or a month without data", &desk.run(&sim, &empty.url, &OCTOBER, &[]).await);
    let before = Arc::new(vec![off("2025-09-29T19:00:00", 1, "web-1"), on("2025-09-30T08:00:00", 1, "web-1")]);
    let before = Services::start(move |_, input| Ok(log_events(&before, input))).await;
    tell("all was before", &desk.run(&sim, &before.url, &OCTOBER, &[]).await);
    let missing = logs(Err((400, "ResourceNotFoundException", "The specified log group does not exist."))).await;
    tell("no such log group", &desk.run(&sim, &missing.url, &OCTOBER, &[]).await);
    let denied =
        logs(Err((400, "AccessDeniedException", "User: me is not authorized to perform: logs:FilterLogEvents"))).await;
    tell("no permission for the log", &desk.run(&sim, &denied.url, &OCTOBER, &[]).await);

    let lines = Arc::new(october()[..2].to_vec());
    let unpriced = Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        _ => Err((400, "AccessDeniedException", "User: me is not authorized to perform: pricing:GetProducts")),
    })
    .await;
    tell("no permission for prices", &desk.run(&sim, &unpriced.url, &OCTOBER, &[]).await);
    std::fs::write(desk.0.join("empty.json"), r#"{"prices": []}"#).unwrap();
    tell(
        "a file without the price",
        &desk.run(&sim, &unpriced.url, &[&OCTOBER[..], &["--prices", "empty.json"]].concat(), &[]).await,
    );
    std::fs::write(
        desk.0.join("bad.json"),
        r#"{"prices": [{"region": "us-east-1", "type": "m5.large", "price": "ten"}]}"#,
    )
    .unwrap();
    tell(
        "a file that can't be read",
        &desk.run(&sim, &unpriced.url, &[&OCTOBER[..], &["--prices", "bad.json"]].concat(), &[]).await,
    );
    std::fs::write(
        desk.0.join("misspelt.json"),
        r#"{"prices": [{"region": "us-east-1", "type": "m5.large", "price": "0.1", "curency": "EUR"}]}"#,
    )
    .unwrap();
    tell(
        "a file with a misspelt field",
        &desk.run(&sim, &unpriced.url, &[&OCTOBER[..], &["--prices", "misspelt.json"]].concat(), &[]).await,
    );
    let lines = Arc::new(october()[..2].to_vec());
    let broken = Services::start(move |operation, input| match operation {
        "FilterLogEvents" => Ok(log_events(&lines, input)),
        _ => Err((400, "InvalidParameterException", "The filter is not one.")),
    })
    .await;
    tell("what no permission cures", &desk.run(&sim, &broken.url, &[&OCTOBER[..], &["--billed"]].concat(), &[]).await);
    tell("no date", &desk.run(&sim, &unpriced.url, &["saved", "--until", "26-11-23"], &[]).await);
    tell("a day to come", &desk.run(&sim, &unpriced.url, &["saved", "--until", "2999-01-01"], &[]).await);
    sim.fault(
        Fault::refuse(
            "DescribeInstances",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        )
        .status(403),
    );
    tell("no permission for EC2", &desk.run(&sim, &unpriced.url, &OCTOBER, &[]).await);
    insta::assert_snapshot!("trouble", all);
}
