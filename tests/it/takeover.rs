//! `curfew takeover` through its front door: schedules of others in, an event and what is lost out; then compared with what runs.

mod custodian;
mod scheduler;

use std::path::Path;

use chrono::{TimeDelta, Timelike, Utc};
use ec2_sim::{Fault, Machine};
use insta::assert_snapshot;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cli::{Desk, Said};
use crate::moto::Moto;
use crate::world::{AMPLE, with};

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/takeover/files").join(name).display().to_string()
}

fn event_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// An instance as `aws ec2 describe-instances` shows it.
fn instance(id: &str, tags: &[(&str, &str)]) -> Value {
    let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    json!({"InstanceId": id, "Tags": tags, "State": {"Name": "running"}})
}

/// What a person reads: the exit code, the event, and what doesn't carry over.
fn read(said: &Said) -> String {
    format!("exit {}\n{}{}", said.code, said.out, said.err)
}

// ---- AWS Instance Scheduler ----

#[tokio::test]
async fn schedules_and_periods_become_an_event_and_what_is_lost_is_named() {
    let said = Desk::new().await.run(&["takeover", "instance-scheduler", &file("scan.json")]).await;
    assert_snapshot!("instance_scheduler", read(&said));
}

#[tokio::test]
async fn what_its_own_command_line_prints_will_do() {
    let desk = Desk::new().await;
    let files = [file("describe-schedules.json"), file("describe-periods.json")];
    let args = ["takeover", "instance-scheduler", &files[0], &files[1], "--tag", "Hours", "--timezone", "Asia/Tokyo"];
    assert_snapshot!("describe", read(&desk.run(&args).await));
    let said = desk.run(&["takeover", "instance-scheduler", &files[0]]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err.contains("there is no such period") && said.err.contains("nothing is left to carry over"),
        "{said:?}"
    );
}

#[tokio::test]
async fn accounts_and_services_of_its_configuration_are_named_where_they_are_lost() {
    let desk = Desk::new().await;
    let config = |fields: Value| {
        let config = with(json!({"type": {"S": "config"}, "name": {"S": "scheduler"}}), fields);
        let period = json!({"type": {"S": "period"}, "name": {"S": "oh"}, "begintime": {"S": "09:00"}, "endtime": {"S": "17:00"}});
        let schedule = json!({"type": {"S": "schedule"}, "name": {"S": "office"}, "timezone": {"S": "UTC"}, "periods": {"SS": ["oh"]}, "stop_new_instances": {"BOOL": false}});
        json!({"Items": [config, period, schedule]}).to_string()
    };
    let mut answers = Vec::new();
    for (what, fields) in [
        (
            "version 3",
            json!({"organization_id": {"S": "o-abc1234567"}, "remote_account_ids": {"SS": ["444455556666", "111122223333"]}}),
        ),
        (
            "version 1",
            json!({
                "cross_account_roles": {"SS": ["arn:aws:iam::111122223333:role/scheduler"]}, "schedule_lambda_account": {"BOOL": false},
                "scheduled_services": {"SS": ["ec2", "rds"]}, "started_tags": {"S": "by=scheduler"}, "stopped_tags": {"S": "by=nobody"},
            }),
        ),
        (
            "one account",
            json!({"remote_account_ids": {"L": []}, "organization_id": {"S": ""}, "scheduled_services": {"SS": ["ec2"]}}),
        ),
    ] {
        desk.file("config.json", &config(fields));
        let said = desk.run(&["takeover", "instance-scheduler", "config.json"]).await;
        assert_eq!(said.code, 0, "{what}: {said:?}");
        answers.push(format!("{what}:\n{}", said.err));
    }
    assert_snapshot!("configuration", answers.join("\n"));
}

#[tokio::test]
async fn its_table_is_read_over_pages_by_name_or_by_stack() {
    let moto = Moto::start().await;
    let table = "scheduler-ConfigTable-1ABCDEFGHIJKL";
    fill(&moto, table).await;
    let desk = Desk::new().await.env("AWS_ENDPOINT_URL_DYNAMODB", moto.url());
    let exported = desk.run(&["takeover", "instance-scheduler", &file("scan.json")]).await;
    for by in [["--table", table], ["--stack", "scheduler"]] {
        let said = desk.run(&["takeover", "instance-scheduler", by[0], by[1]]).await;
        assert_eq!((said.out, said.err, said.code), (exported.out.clone(), exported.err.clone(), 1), "{by:?}");
    }
    let said = desk.run(&["takeover", "instance-scheduler", "--table", table, "--output", "event.json"]).await;
    assert_eq!(said.out, "");
    assert_eq!(std::fs::read_to_string(desk.folder.join("event.json")).unwrap(), exported.out);

    let mut answers = Vec::new();
    for by in [["--table", "scheduler"], ["--stack", "elsewhere"]] {
        let said = desk.run(&["takeover", "instance-scheduler", by[0], by[1]]).await;
        answers.push(format!("{}\n{}", by.join(" "), read(&said)));
    }
    assert_snapshot!("no_table", answers.join("\n"));
}

/// Makes a configuration table, large enough for two pages: a megabyte is one.
async fn fill(moto: &Moto, table: &str) {
    let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
    let text = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    let create = json!({
        "TableName": table, "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [key("type", "HASH"), key("name", "RANGE")], "AttributeDefinitions": [text("type"), text("name")],
    });
    dynamodb(moto, "CreateTable", &create).await;
    let scan: Value = serde_json::from_str(&std::fs::read_to_string(file("scan.json")).unwrap()).unwrap();
    let filling = (0..4)
        .map(|n| json!({"type": {"S": "aside"}, "name": {"S": n.to_string()}, "text": {"S": "x".repeat(350_000)}}));
    for item in scan["Items"].as_array().unwrap().iter().cloned().chain(filling) {
        dynamodb(moto, "PutItem", &json!({"TableName": table, "Item": item})).await;
    }
}

async fn dynamodb(moto: &Moto, operation: &str, input: &Value) {
    let scope = "AKIDTEST/20260101/us-east-1/dynamodb/aws4_request";
    let call = reqwest::Client::builder().no_proxy().build().unwrap().post(moto.url());
    let call =
        call.header("Authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"));
    let call = call.header("X-Amz-Target", format!("DynamoDB_20120810.{operation}"));
    let answer =
        call.header("Content-Type", "application/x-amz-json-1.0").body(input.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{operation}: {}", answer.text().await.unwrap());
}

#[tokio::test]
async fn a_service_that_throttles_is_asked_again_and_one_that_refuses_is_quoted() {
    let throttled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"Rate exceeded"}"#;
    let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: arn:aws:iam::123456789012:user/ada is not authorized to perform: dynamodb:Scan"}"#;
    let items = std::fs::read_to_string(file("scan.json")).unwrap();
    let mut answers = Vec::new();
    for script in [vec![(400, throttled), (500, "{}"), (200, &items)], vec![(400, denied)], vec![(200, "<html>"); 5]] {
        let (url, served) =
            answering(script.iter().map(|(status, body)| (*status, (*body).to_owned())).collect()).await;
        let desk = Desk::new().await.env("AWS_ENDPOINT_URL_DYNAMODB", &url);
        let said = desk.run(&["takeover", "instance-scheduler", "--table", "config"]).await;
        let asked = served.await.unwrap();
        assert_eq!(asked.len(), script.len(), "{said:?}");
        for request in &asked {
            let request = request.to_lowercase();
            assert!(request.contains("x-amz-target: dynamodb_20120810.scan"), "{request}");
            assert!(request.contains("content-type: application/x-amz-json-1.0"), "{request}");
            assert!(request.contains("/us-east-1/dynamodb/aws4_request"), "{request}");
            assert!(request.ends_with(r#"{"tablename":"config"}"#), "{request}");
        }
        if said.code == 2 {
            answers.push(read(&said));
        }
    }
    assert_snapshot!("refused", answers.join("\n"));
}

/// A server that gives these answers, one after the other, and tells what it was asked.
async fn answering(script: Vec<(u16, String)>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, body) in script {
            let (mut stream, _) = tokio::time::timeout(AMPLE, listener.accept()).await.unwrap().unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let length = text
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|it| it.split('\r').next()?.parse::<usize>().ok());
                if let (Some((_, so_far)), Some(length)) = (text.split_once("\r\n\r\n"), length)
                    && so_far.len() >= length
                {
                    asked.push(text);
                    break;
                }
            }
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
        asked
    });
    (url, served)
}

#[tokio::test]
async fn what_is_no_configuration_is_answered_in_words_that_help() {
    let desk = Desk::new().await;
    desk.file("empty.json", "");
    desk.file("broken.json", "{\"Items\": [");
    desk.file("other.json", "{\"Reservations\": []}");
    desk.file("nothing.json", "{\"Items\": [], \"Count\": 0}");
    let mut answers = Vec::new();
    for name in ["empty.json", "broken.json", "other.json", "nothing.json", "missing.json"] {
        answers.push(format!("{name}: {}", read(&desk.run(&["takeover", "instance-scheduler", name]).await)));
    }
    answers.push(read(&desk.run(&["takeover", "instance-scheduler"]).await));
    assert_snapshot!("no_configuration", answers.join("\n"));
}

#[tokio::test]
async fn its_help_fits_a_narrow_terminal_and_says_how_it_ends() {
    let desk = Desk::new().await;
    let help = desk.run(&["takeover", "--help"]).await.out;
    assert!(help.contains("Exit status: 0,"), "{help}");
    for of in [
        &["takeover", "--help"][..],
        &["takeover", "instance-scheduler", "--help"],
        &["takeover", "custodian", "--help"],
    ] {
        let help = desk.run(of).await.out;
        let wide = help.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{of:?}");
    }
}

// ---- Cloud Custodian ----

/// A policy file like Custodian's documentation has, with one thing changed.
fn policies(filter: &str, others: &str, action: &str) -> String {
    format!(
        "policies:\n  - name: stop\n    resource: ec2\n    filters: [{{ type: offhour, default_tz: pt, {filter} }}{others}]\n    actions: [{action}]\n  \
         - name: start\n    resource: ec2\n    filters: [{{ type: onhour, default_tz: pt, {filter} }}{others}]\n    actions: [start]\n"
    )
}

#[tokio::test]
async fn policies_and_tags_become_an_event_and_what_is_lost_is_named() {
    let desk = Desk::new().await;
    for (name, key, value) in [
        ("web", "Downtime", "on"),
        ("db", "Downtime", "off=(F,19);on=(M,7)"),
        ("lab", "Downtime", "OFF"),
        ("build", "Downtime", "off=(M-F,20)"),
        ("odd", "Downtime", "off=(M-F,25)"),
        ("blank", "Downtime", ""),
        ("small", "downtime", "on"),
        ("mars", "Downtime", "tz=mars/olympus"),
        ("other", "Team", "blue"),
    ] {
        desk.sim.add(Machine::named(name).tag(key, value));
    }
    let said = desk.run(&["takeover", "custodian", &file("offhours.yml")]).await;
    // Ids are the double's own.
    let ids = regex_free_ids(&read(&said));
    assert_snapshot!("custodian", ids);
}

/// Writes `i-…` for every id.
fn regex_free_ids(text: &str) -> String {
    let mut parts = text.split("i-0");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "i-…" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

#[tokio::test]
async fn other_filters_select_the_same_or_the_policy_is_left_out() {
    let desk = Desk::new().await;
    desk.file("instances.json", r#"{"Reservations": []}"#);
    let mut answers = Vec::new();
    for (what, filter, others, action) in [
        (
            "tags and places",
            "opt-out: true",
            ", 'tag:Env': dev, { type: value, key: 'tag:Team', op: in, value: [a, 'b*'] }, { not: [{ 'tag:Role': bastion }] }, { type: value, key: VpcId, value: vpc-1 }, 'State.Name': running",
            "{ type: stop, hibernate: true }",
        ),
        ("an age", "weekends: no", ", { type: instance-age, days: 3 }", "stop"),
        ("no switch", "offhour: 30", "", "tag"),
        ("weekends only", "weekends-only: yes, skip-days: ['2027-05-31']", "", "stop"),
        ("a fallback", "fallback-schedule: 'off=(M-F,18);on=(M-F,8)'", "", "{ type: stop, force: true }, notify"),
    ] {
        // Only mappings need braces of their own.
        let others = others
            .replace("'tag:Env': dev", "{ 'tag:Env': dev }")
            .replace("'State.Name': running", "{ 'State.Name': running }");
        desk.file("policy.yml", &policies(filter, &others, action));
        let said = desk.run(&["takeover", "custodian", "policy.yml", "--instances", "instances.json"]).await;
        answers.push(format!("{what}: {}", read(&said)));
    }
    for (what, filters) in [
        ("an or", "[{ or: [{ type: onhour, default_tz: pt }, 'tag:a': b] }]"),
        ("a not in an or", "[{ or: [{ not: [{ type: offhour, default_tz: pt }] }] }]"),
    ] {
        let filters = filters.replace("'tag:a': b", "{ 'tag:a': b }");
        desk.file(
            "policy.yml",
            &format!("policies:\n  - name: p\n    resource: ec2\n    filters: {filters}\n    actions: [start]\n"),
        );
        let said = desk.run(&["takeover", "custodian", "policy.yml", "--instances", "instances.json"]).await;
        answers.push(format!("{what}: {}", read(&said)));
    }
    assert_snapshot!("filters", answers.join("\n"));
}

#[tokio::test]
async fn what_is_no_policy_file_is_answered_in_words_that_help() {
    let desk = Desk::new().await;
    desk.file("instances.json", r#"{"Reservations": []}"#);
    desk.file(
        "two.yml",
        &format!(
            "{}{}",
            policies("tag: a", "", "stop"),
            policies("tag: b", "", "stop").trim_start_matches("policies:\n")
        ),
    );
    let mut answers = Vec::new();
    let bomb: String = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(b'b'..=b'j')
            .map(|c| {
                let (c, before) = (c as char, (c - 1) as char);
                format!("{c}: &{c} [{}]\n", vec![format!("*{before}"); 9].join(","))
            })
            .collect::<String>();
    for (name, text) in [
        ("empty.yml", ""),
        ("torn.yml", "policies:\n  - name: [a\n    b: {"),
        ("tabs.yml", "policies:\n\t- name: a"),
        ("other.yml", "Resources: {}"),
        ("none.yml", "policies: [{ name: a, resource: ec2, filters: [], actions: [stop] }]"),
        ("bomb.yml", &bomb),
    ] {
        desk.file(name, text);
        answers.push(format!(
            "{name}: {}",
            read(&desk.run(&["takeover", "custodian", name, "--instances", "instances.json"]).await)
        ));
    }
    answers.push(read(&desk.run(&["takeover", "custodian", "two.yml", "--instances", "instances.json"]).await));
    let said = desk.run(&["takeover", "custodian", "two.yml", "--instances", "instances.json", "--tag", "b"]).await;
    assert_eq!((said.code, &event_of(&said)["hours_tag"]), (0, &json!("b")), "{said:?}");
    desk.sim.fault(Fault::refuse(
        "DescribeInstances",
        "UnauthorizedOperation",
        "You are not authorized to perform this operation.",
    ));
    answers.push(read(&desk.run(&["takeover", "custodian", &file("offhours.yml")]).await));
    assert_snapshot!("no_policies", answers.join("\n"));
}

// ---- The week's proof ----

/// A configuration of two schedules, at whose place it is between noon and one: `open` since nine, `closed` since ten; and one
/// that has opened a few minutes ago.
fn around_now() -> String {
    let now = Utc::now();
    // Etc/GMT-2 is two hours east.
    let east = 12 - i64::from(now.hour());
    let zone = format!("Etc/GMT{}{}", if east > 0 { "-" } else { "+" }, east.abs());
    let local = now + TimeDelta::hours(east);
    let minutes_ago = |minutes| (local - TimeDelta::minutes(minutes)).format("%H:%M").to_string();
    let period = |name: &str, begin: &str, end: &str| json!({"Name": name, "Begintime": begin, "Endtime": end});
    let schedule = |name: &str| json!({"Name": name, "Periods": [name], "Timezone": zone, "StopNewInstances": false});
    json!({
        "Periods": [period("open", "09:00", "17:00"), period("closed", "01:00", "10:00"), period("opening", &minutes_ago(4), "17:00")],
        "Schedules": [schedule("open"), schedule("closed"), schedule("opening"), {"Name": "spared", "OverrideStatus": "running"}],
    })
    .to_string()
}

#[tokio::test]
async fn a_shadow_tells_where_what_runs_is_not_what_hours_say() {
    let desk = Desk::new().await;
    desk.file("schedules.json", &around_now());
    let hours_ago = |hours| Utc::now() - TimeDelta::hours(hours);
    let machine = |name: &str, schedule: &str| Machine::named(name).tag("Schedule", schedule).launched(hours_ago(30));
    for it in [
        machine("on-in-open-hours", "open"),
        machine("off-in-closed-hours", "closed").state("stopped"),
        machine("started-by-a-person", "closed").launched(hours_ago(1)),
        machine("stopped-by-a-person", "open").state("stopped").launched(hours_ago(2)),
        machine("on-its-way", "open").state("pending"),
        machine("not-yet-up", "opening").state("stopped"),
        machine("spared", "spared"),
        machine("spared-too", "spared").state("stopped"),
        machine("unknown", "nonsense"),
        machine("in-a-group", "closed").tag("aws:autoscaling:groupName", "shop"),
        Machine::named("nobodys"),
    ] {
        desk.sim.add(it);
    }
    let shadow = ["takeover", "instance-scheduler", "schedules.json", "--shadow"];
    let said = desk.run(&shadow).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let summary = said.out.split_once(" at ").unwrap().0.to_owned() + said.out.split_once('Z').unwrap().1;
    assert_snapshot!("no_difference", summary);

    desk.sim.add(machine("left-on", "closed"));
    desk.sim.add(machine("left-off\u{1b}[2J", "open").state("stopped"));
    let said = desk.run(&shadow).await;
    assert_eq!((said.code, said.err.as_str()), (1, ""), "{said:?}");
    assert!(said.out.starts_with("2 differences among 8 instances at "), "{said:?}");
    assert!(said.out.contains("left-on i-") && said.out.contains("would be stopped by its hours"), "{said:?}");
    assert!(
        said.out.contains("left-off\\u{1b}[2J i-") && said.out.contains("would be started by its hours"),
        "{said:?}"
    );

    let said = desk.run(&[&shadow[..], &["--json"]].concat()).await;
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, said.out.lines().count()), (1, 1));
    assert_eq!((&told["compared"], &told["settling"]), (&json!(8), &json!(1)));
    assert_eq!(told["left_alone"], json!({"exempt": 2, "bad_tag": 1, "autoscaling_member": 1}));
    let of = |n: usize, field: &str| told["differences"][n][field].clone();
    assert_eq!(
        (of(1, "name"), of(1, "tag"), of(1, "state"), of(1, "open")),
        (json!("left-on"), json!("closed"), json!("running"), json!(false))
    );
    assert_eq!(of(0, "open"), json!(true));

    desk.sim.fault(Fault::refuse(
        "DescribeInstances",
        "UnauthorizedOperation",
        "You are not authorized to perform this operation.",
    ));
    let said = desk.run(&shadow).await;
    assert_eq!((said.code, said.out.as_str()), (2, ""), "what could not be asked is no empty day: {said:?}");
    assert!(said.err.contains("these credentials need ec2:DescribeInstances"), "{said:?}");
}
