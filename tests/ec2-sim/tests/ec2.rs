//! What the simulated EC2 promises, asked over HTTP as a program would.

mod ask;

use std::time::Duration;

use ask::{ask, ask_in, call, later};
use chrono::{DateTime, TimeDelta, Utc};
use ec2_sim::{Fault, Fleet, Machine, Sim};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn one_bad_instance_fails_the_whole_call() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    for (name, machine, code) in [
        ("protected", Machine::named("protected").stop_protected(), "OperationNotPermitted"),
        ("spot", Machine::named("spot").spot_one_time(), "UnsupportedOperation"),
        ("store", Machine::named("store").instance_store(), "UnsupportedOperation"),
        ("young", Machine::named("young").state("pending"), "IncorrectInstanceState"),
        ("gone", Machine::named("gone").state("terminated"), "IncorrectInstanceState"),
        ("odd", Machine::named("odd").state("pondering"), "IncorrectInstanceState"),
    ] {
        let id = sim.add(machine);
        let answer = ask(&sim, &call("StopInstances", &sim, &["web", name])).await;
        assert_eq!(answer.code(), code, "{name}");
        assert!(answer.texts("Message")[0].contains(&format!("'{id}'")), "{}", answer.1);
        assert_eq!(sim.state("web"), "running");
    }
    let unknown = "&InstanceId.2=i-0123456789abcdef0&InstanceId.3=i-0123456789abcdef1";
    let answer = ask(&sim, &(call("StopInstances", &sim, &["web"]) + unknown)).await;
    let message = "The instance IDs 'i-0123456789abcdef0, i-0123456789abcdef1' do not exist";
    assert_eq!((answer.code(), answer.texts("Message")[0]), ("InvalidInstanceID.NotFound", message));
    let answer = ask(&sim, "StopInstances&InstanceId.1=web").await;
    assert_eq!(answer.code(), "InvalidInstanceID.Malformed");
    assert_eq!(sim.state("web"), "running");
}

#[tokio::test]
async fn a_stop_and_a_start_take_their_time_and_a_start_renews_the_launch_time() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    sim.add(Machine::named("batch").state("stopped"));
    let stop = call("StopInstances", &sim, &["web", "batch"]);
    let start = call("StartInstances", &sim, &["web"]);
    let launched = sim.machine("web").launch_time;
    assert!(sim.clock() - launched >= TimeDelta::days(3));

    let stopped = ask(&sim, &stop).await;
    assert_eq!(stopped.texts("name"), ["stopping", "running", "stopped", "stopped"]);
    assert_eq!(stopped.texts("code"), ["64", "16", "80", "80"]);
    assert_eq!(ask(&sim, &start).await.code(), "IncorrectInstanceState");
    assert_eq!(ask(&sim, &stop).await.texts("name")[..2], ["stopping", "stopping"]);
    later(&sim);
    let reason = sim.machine("web").state_reason.expect("a reason");
    assert_eq!((sim.state("web").as_str(), reason.code.as_str()), ("stopped", "Client.UserInitiatedShutdown"));

    let before = sim.clock();
    assert_eq!(ask(&sim, &start).await.texts("name"), ["pending", "stopped"]);
    let renewed = sim.machine("web").launch_time;
    assert!(renewed > before - TimeDelta::seconds(1) && renewed.timestamp_subsec_nanos() == 0);
    later(&sim);
    assert_eq!(sim.state("web"), "running");
    assert_eq!(ask(&sim, &start).await.texts("name"), ["running", "running"]);
    assert_eq!(sim.machine("web").launch_time, renewed, "a repeat is no start");
}

#[tokio::test]
async fn a_start_that_falls_back_ends_in_stopped_and_says_why() {
    let sim = Sim::start().await;
    let text = "Client.InternalError: Client error on launch";
    sim.add(Machine::named("db").state("stopped").falls_back("Client.InternalError", text));

    ask(&sim, &call("StartInstances", &sim, &["db"])).await;

    assert_eq!(sim.state("db"), "pending");
    later(&sim);
    let db = ask(&sim, &call("DescribeInstances", &sim, &["db"])).await;
    assert_eq!(db.texts("name"), ["stopped"]);
    assert_eq!(db.texts("message"), [text]);
}

#[tokio::test]
async fn hibernation_wants_to_be_configured_and_a_resume_may_keep_the_launch_time() {
    let sim = Sim::start().await;
    sim.add(Machine::named("plain"));
    sim.add(Machine::named("sleepy").hibernation().resume_keeps_launch_time());
    let launched = sim.machine("sleepy").launch_time;

    let refused = ask(&sim, &(call("StopInstances", &sim, &["plain"]) + "&Hibernate=true")).await;
    ask(&sim, &(call("StopInstances", &sim, &["sleepy"]) + "&Hibernate=true")).await;

    assert_eq!(refused.code(), "UnsupportedHibernationConfiguration");
    let reason = sim.machine("sleepy").state_reason.expect("a reason");
    assert_eq!(reason.code, "Client.UserInitiatedHibernate");
    later(&sim);
    ask(&sim, &call("StartInstances", &sim, &["sleepy"])).await;
    assert_eq!((sim.state("sleepy"), sim.machine("sleepy").launch_time), ("pending".into(), launched));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_permission_is_checked_first() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let tag = format!("CreateTags&ResourceId.1={}&Tag.1.Key=a&Tag.1.Value=b", sim.machine("web").id);
    for call in [&call("StopInstances", &sim, &["web"]), &tag, "DescribeInstances", "DescribeRegions"] {
        let answer = ask(&sim, &format!("{call}&DryRun=true")).await;
        assert_eq!((answer.0, answer.code()), (412, "DryRunOperation"), "{call}");
    }
    assert_eq!((sim.state("web").as_str(), sim.tag("web", "a")), ("running", None));

    sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", "No."));
    let refused = ask(&sim, &(call("StopInstances", &sim, &["web"]) + "&DryRun=true")).await;
    assert_eq!(refused.code(), "UnauthorizedOperation");
}

#[tokio::test]
async fn pages_may_be_short_or_empty_and_still_show_every_machine_once() {
    let sim = Sim::start().await;
    let ids = sim.add_many(12, |n| Machine::named(&format!("web-{n}")));
    sim.settings(|settings| (settings.page_size, settings.empty_pages) = (5, 2));

    let (mut sizes, mut seen, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = ask(&sim, &format!("DescribeInstances&MaxResults=1000{token}")).await;
        sizes.push(page.texts("instanceId").len());
        seen.extend(page.texts("instanceId").into_iter().map(String::from));
        match page.texts("nextToken").first() {
            Some(next) => token = format!("&NextToken={next}"),
            None => break,
        }
    }

    assert_eq!(sizes, [0, 0, 5, 0, 0, 5, 0, 0, 2]);
    assert_eq!(seen, ids);
    for (parameters, code) in [
        ("&NextToken=made-up", "InvalidNextToken"),
        ("&MaxResults=4", "InvalidParameterValue"),
        ("&MaxResults=1001", "InvalidParameterValue"),
        (&format!("&MaxResults=5&InstanceId.1={}", ids[0]), "InvalidParameterCombination"),
    ] {
        assert_eq!(ask(&sim, &format!("DescribeInstances{parameters}")).await.code(), code);
    }
}

#[tokio::test]
async fn filters_narrow_each_other_and_their_values_widen_them() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web").tag("env", "dev").kind("m5.large"));
    sim.add(Machine::named("db").tag("env", "test").state("stopped"));
    sim.add(Machine::named("prod").tag("env", "prod").spot_persistent());
    let mut found = Vec::new();
    for filters in [
        "&Filter.1.Name=tag:env&Filter.1.Value.1=dev&Filter.1.Value.2=t*",
        "&Filter.1.Name=tag:env&Filter.1.Value.1=*&Filter.2.Name=instance-state-name&Filter.2.Value.1=running",
        "&Filter.1.Name=tag:Env&Filter.1.Value.1=*",
        "&Filter.1.Name=instance-lifecycle&Filter.1.Value.1=spot",
    ] {
        let answer = ask(&sim, &format!("DescribeInstances{filters}")).await;
        found.push(answer.texts("instanceId").iter().map(|id| sim.machine(id).name().to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec!["web", "db"], vec!["web", "prod"], vec![], vec!["prod"]]);

    let unknown = ask(&sim, "DescribeInstances&Filter.1.Name=colour&Filter.1.Value.1=red").await;
    assert_eq!(unknown.texts("Message"), ["The filter 'colour' is invalid"]);
    let values: String = (1..=201).map(|n| format!("&Filter.1.Value.{n}={n}")).collect();
    let many = ask(&sim, &format!("DescribeInstances&Filter.1.Name=tag:env{values}")).await;
    assert_eq!(many.code(), "FilterLimitExceeded");
}

#[tokio::test]
async fn a_tag_is_deleted_by_its_key_or_only_with_the_value_given() {
    let sim = Sim::start().await;
    let id = sim.add(Machine::named("web").tag("a", "1").tag("b", "2"));
    let tags = async |action: &str, tags: &str| {
        ask(&sim, &format!("{action}&ResourceId.1={id}{tags}")).await.code().to_owned()
    };

    tags("CreateTags", "&Tag.1.Key=c&Tag.1.Value=3").await;
    tags("DeleteTags", "&Tag.1.Key=a&Tag.1.Value=other&Tag.2.Key=b").await;

    assert_eq!(sim.machine("web").tags.into_keys().collect::<Vec<_>>(), ["Name", "a", "c"]);
    assert_eq!(tags("CreateTags", "&Tag.1.Key=aws:x&Tag.1.Value=").await, "InvalidParameterValue");
    let many: String = (1..=48).map(|n| format!("&Tag.{n}.Key=k{n}&Tag.{n}.Value=")).collect();
    assert_eq!(tags("CreateTags", &many).await, "TagLimitExceeded");
    assert_eq!(tags("CreateTags", &many.replace("Tag.48.Key=k48", "Tag.48.Key=k1")).await, "ok");
}

#[tokio::test]
async fn a_region_knows_only_its_own_machines() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    sim.add(Machine::named("web").region("eu-west-1"));
    let stop = call("StopInstances", &sim, &["eu-west-1/web"]);

    assert_eq!(ask(&sim, &stop).await.code(), "InvalidInstanceID.NotFound");
    assert_eq!(ask_in("eu-west-1", &sim, &stop).await.expect("an answer").code(), "ok");

    assert_eq!(sim.state("us-east-1/web"), "running");
    assert_eq!(sim.state("eu-west-1/web"), "stopping");
    assert_eq!(sim.calls().iter().map(|call| call.region.as_str()).collect::<Vec<_>>(), ["us-east-1", "eu-west-1"]);
}

#[tokio::test]
async fn a_refusal_strikes_the_calls_it_was_meant_for_and_names_the_machines() {
    let sim = Sim::start().await;
    let ids = sim.add_many(3, |n| Machine::named(&format!("web-{n}")).state("stopped"));
    let no = Fault::refuse("StartInstances", "InsufficientInstanceCapacity", "No room for {ids}");
    sim.fault(no.status(500).on(["web-2", "web-3"]).after(1).times(1));
    let start = call("StartInstances", &sim, &["web-1", "web-2"]);

    let spared = ask(&sim, &call("StartInstances", &sim, &["web-1"])).await;
    let let_through = ask(&sim, &start).await;
    let refused = ask(&sim, &start).await;
    let over = ask(&sim, &start).await;

    assert_eq!([spared.0, let_through.0, refused.0, over.0], [200, 200, 500, 200]);
    assert_eq!(refused.texts("Message"), [format!("No room for {}", ids[1])]);
    let codes: Vec<_> = sim.calls().into_iter().map(|call| call.code).collect();
    assert_eq!(codes, ["ok", "ok", "InsufficientInstanceCapacity", "ok"]);
}

#[tokio::test]
async fn an_answer_can_be_late_lost_cut_garbled_or_never_come() {
    let sim = Sim::start().await;
    for (fault, code, answered, state) in [
        (Fault::stall(None, Duration::from_millis(50)), "ok", true, "stopping"),
        (Fault::lose_answer("StopInstances"), "lost", false, "stopping"),
        (Fault::garble("StopInstances"), "garbled", true, "stopping"),
        (Fault::cut("StopInstances"), "cut", false, "running"),
        (Fault::hang("StopInstances"), "hang", false, "running"),
        (Fault::hang_after("StopInstances"), "hang_after", false, "stopped"),
    ] {
        sim.load(Fleet::default());
        sim.add(Machine::named("web"));
        sim.fault(fault);
        let begun = std::time::Instant::now();
        let stop = call("StopInstances", &sim, &["web"]);
        let silent = code.starts_with("hang");
        let patience = Duration::from_millis(if silent { 500 } else { 5000 });
        let answer = tokio::time::timeout(patience, ask_in("us-east-1", &sim, &stop)).await;

        assert_eq!(answer.is_err(), silent);
        let answer = answer.ok().and_then(Result::ok);
        assert_eq!(answer.is_some(), answered, "{code}");
        assert_eq!(answer.is_some_and(|a| a.0 == 200 && a.1.ends_with("</StopInstancesResponse>")), code == "ok");
        assert!(code != "ok" || begun.elapsed() >= Duration::from_millis(50));
        assert_eq!((sim.state("web").as_str(), sim.calls()[0].code.as_str()), (state, code));
    }
}

#[tokio::test]
async fn a_cut_connection_closes_without_a_byte() {
    let sim = Sim::start().await;
    sim.fault(Fault::cut(None));
    let mut connection = TcpStream::connect(sim.url().replace("http://", "")).await.expect("a server");
    let request = b"POST / HTTP/1.1\r\nHost: ec2\r\nContent-Length: 22\r\n\r\nAction=DescribeRegions";
    connection.write_all(request).await.expect("a request");

    let mut answer = Vec::new();
    // Ends only when the server closes.
    connection.read_to_end(&mut answer).await.expect("an end");

    assert_eq!(answer, b"");
    assert_eq!(sim.calls().len(), 1);
}

#[tokio::test]
async fn what_ec2_has_begun_it_does_even_if_nobody_waits_for_the_answer() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    sim.fault(Fault::stall(None, Duration::from_millis(600)));
    let stop = call("StopInstances", &sim, &["web"]);

    let waited = tokio::time::timeout(Duration::from_millis(200), ask(&sim, &stop)).await;

    assert!(waited.is_err() && sim.state("web") == "running");
    let decided = async {
        while sim.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let decided = tokio::time::timeout(Duration::from_secs(5), decided).await;
    decided.expect("EC2 decides on the call");
    assert_ne!(sim.state("web"), "running");
}

#[tokio::test]
async fn by_hand_a_machine_settles_at_once() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let launched = sim.machine("web").launch_time;

    sim.switch_off("web");
    assert_eq!(sim.state("web"), "stopped");
    sim.switch_on("web");

    assert_eq!(sim.state("web"), "running");
    assert!(sim.machine("web").launch_time > launched);
    assert!(sim.calls().is_empty());
}

#[tokio::test]
async fn another_process_can_do_the_same_over_http() {
    let sim = Sim::start().await;
    let control = async |method: &str, path: &str, body: &str| {
        let method = method.parse().expect("a method");
        let url = format!("{}/_sim/{path}", sim.url());
        let request = reqwest::Client::new().request(method, url).body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    };
    let fleet = r#"{
        "machines": [{ "name": "web", "count": 2, "tags": { "curfew": "yes" } }, { "id": "i-12345678", "spot": "one_time" }],
        "faults": [{ "action": "StopInstances", "then": { "refuse": { "code": "Nope", "message": "no" } } }],
        "settings": {
            "stop_takes_ms": 5, "describe_lag_ms": 1, "not_found_for_ms": 60000, "only_tagged": ["curfew", "yes"],
            "shortages": [{ "zone": "us-east-1a", "kind": "t3.micro", "until": "2026-11-20T07:00:00Z" }]
        }
    }"#;
    assert_eq!(control("PUT", "fleet", fleet).await.0, 204);
    let listed: Value = serde_json::from_str(&control("GET", "instances", "").await.1).expect("JSON");
    assert_eq!(listed[1]["name"], json!("web-2"));
    assert_eq!((&listed[1]["state"], &listed[1]["region"]), (&json!("running"), &json!("us-east-1")));
    assert_eq!(listed[2]["id"], json!("i-12345678"));

    assert_eq!(ask(&sim, &call("StopInstances", &sim, &["web-1"])).await.code(), "Nope");
    assert!(control("GET", "calls", "").await.1.contains("Nope"));
    control("DELETE", "calls", "").await;
    control("DELETE", "faults", "").await;
    let known = ask(&sim, "DescribeInstances").await;
    assert_eq!(known.texts("instanceId").len(), 3, "a fleet's own machines are known at once");
    assert_eq!(control("POST", "faults", r#"[{ "then": "hang" }, { "then": { "stall": { "ms": 1 } } }]"#).await.0, 204);
    assert_eq!(control("POST", "faults", r#"{ "then": "garble", "times": 1 }"#).await.0, 204);
    let scripted = r#"{ "then": { "answer": { "status": 200, "body": "<html>" } } }"#;
    assert_eq!(control("POST", "faults", scripted).await.0, 204);

    let evening: DateTime<Utc> = "2026-11-20T19:00:00Z".parse().expect("a time");
    control("PUT", "clock", r#"{ "now": "2026-11-20T18:00:00Z" }"#).await;
    control("PUT", "clock", r#"{ "advance_s": 3600 }"#).await;
    assert!(sim.clock() - evening < TimeDelta::seconds(5) && sim.clock() >= evening);

    for (method, path, body, complaint) in [
        ("PUT", "fleet", r#"{ "machine": [] }"#, "not a fleet: unknown field `machine`, expected"),
        ("POST", "faults", r#"{ "then": "explode" }"#, "not a fault: unknown variant `explode`, expected"),
        ("PUT", "clock", "noon", "not {\"now\": …} or {\"advance_s\": …}: expected"),
    ] {
        let (status, text) = control(method, path, body).await;
        assert!(status == 400 && text.starts_with(complaint), "{text}");
    }
    assert_eq!(control("GET", "health", "").await, (200, "ok".into()));
}
