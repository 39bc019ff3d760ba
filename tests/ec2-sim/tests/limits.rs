//! What the simulated EC2 does only where a test asks for it: limits, lags, policies, half-done stops.

mod ask;

use std::time::{Duration, Instant};

use ask::{ask, ask_in, call, later};
use ec2_sim::{Fault, Machine, Shortage, Sim};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_protected_instance_may_spare_only_its_zone() {
    let sim = Sim::start().await;
    sim.add(Machine::named("vault").stop_protected());
    sim.add(Machine::named("neighbour"));
    sim.add(Machine::named("far").zone("us-east-1b"));
    sim.add(Machine::named("store").zone("us-east-1c").instance_store());
    let stop = call("StopInstances", &sim, &["vault", "neighbour", "far"]);

    assert_eq!(ask(&sim, &stop).await.code(), "OperationNotPermitted");
    assert_eq!(sim.state("far"), "running", "by default a stop happens wholly or not at all");

    sim.settings(|settings| settings.partial_success = true);
    assert_eq!(ask(&sim, &format!("{stop}&DryRun=true")).await.code(), "DryRunOperation");
    assert_eq!(sim.state("far"), "running");
    let unknown = format!("{stop}&InstanceId.4=i-0123456789abcdef0");
    assert_eq!(ask(&sim, &unknown).await.code(), "InvalidInstanceID.NotFound");
    let store = call("StopInstances", &sim, &["vault", "far", "store"]);
    assert_eq!(ask(&sim, &store).await.code(), "OperationNotPermitted");
    assert_eq!(sim.state("far"), "running", "what is refused for another reason still spares the rest");

    assert_eq!(ask(&sim, &stop).await.code(), "OperationNotPermitted");
    assert_eq!(["vault", "neighbour", "far"].map(|name| sim.state(name)), ["running", "running", "stopping"]);
}

#[tokio::test]
async fn a_refusal_because_of_some_machines_may_spare_only_their_zones() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.partial_success = true);
    sim.add(Machine::named("bad"));
    sim.add(Machine::named("neighbour"));
    sim.add(Machine::named("far").zone("us-east-1b"));
    let stop = call("StopInstances", &sim, &["bad", "neighbour", "far"]);

    sim.fault(Fault::refuse("StopInstances", "Nope", "No.").times(1));
    assert_eq!(ask(&sim, &stop).await.code(), "Nope");
    assert_eq!(sim.state("far"), "running", "no machine is to blame, so all are");

    sim.fault(Fault::refuse("StopInstances", "Nope", "No.").on(["bad"]));
    assert_eq!(ask(&sim, &format!("{stop}&DryRun=true")).await.code(), "Nope");
    assert_eq!(ask(&sim, &format!("{stop}&InstanceId.4=i-0123456789abcdef0")).await.code(), "Nope");
    assert_eq!(sim.state("far"), "running");
    assert_eq!(ask(&sim, &stop).await.code(), "Nope");
    assert_eq!(["bad", "neighbour", "far"].map(|name| sim.state(name)), ["running", "running", "stopping"]);

    later(&sim);
    sim.fault(Fault::refuse("StartInstances", "Nope", "No.").on(["bad"]));
    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["bad", "far"])).await.code(), "Nope");
    assert_eq!(sim.state("far"), "stopped", "a start stays whole");
}

#[tokio::test]
async fn calls_draw_from_a_bucket_per_region_and_action_that_time_fills() {
    let sim = Sim::start().await;
    // 50 seconds for one token: the test itself may take a few.
    sim.settings(|settings| (settings.throttle, settings.throttle_refill) = (true, 0.01));
    sim.add(Machine::named("web"));
    let start = call("StartInstances", &sim, &["web"]);

    for _ in 0..5 {
        assert_eq!(ask(&sim, &format!("{start}&DryRun=true")).await.code(), "DryRunOperation");
    }
    let refused = ask(&sim, &start).await;
    assert_eq!((refused.0, refused.code()), (503, "RequestLimitExceeded"));
    assert_eq!(refused.texts("Message"), ["Request limit exceeded."]);
    assert_eq!(ask(&sim, &call("StopInstances", &sim, &["web"])).await.code(), "ok", "another action");
    let elsewhere = ask_in("eu-west-1", &sim, &start).await.expect("an answer");
    assert_eq!(elsewhere.code(), "InvalidInstanceID.NotFound", "another region");

    sim.advance(seconds(50));
    assert_eq!(ask(&sim, &start).await.code(), "ok");
    assert_eq!(ask(&sim, &start).await.code(), "RequestLimitExceeded");

    sim.settings(|settings| (settings.throttle_size, settings.throttle_refill) = (0.04, 0.0));
    for (describe, calls) in [("DescribeInstances", 2), ("DescribeInstances&MaxResults=5", 4)] {
        for _ in 0..calls {
            assert_eq!(ask(&sim, describe).await.code(), "ok");
        }
        assert_eq!(ask(&sim, describe).await.code(), "RequestLimitExceeded");
    }
}

#[tokio::test]
async fn a_batch_larger_than_its_bucket_is_refused_as_a_whole_and_takes_nothing() {
    let sim = Sim::start().await;
    // StopInstances: 5 calls and 100 instances; a call every 200 s, an instance every 50.
    sim.settings(|settings| {
        (settings.throttle, settings.throttle_size, settings.throttle_refill) = (true, 0.1, 0.001);
    });
    let names: Vec<_> = (1..=101).map(|n| format!("web-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sim.add_many(101, |n| Machine::named(&format!("web-{n}")));
    let all = call("StopInstances", &sim, &names);
    let hundred = call("StopInstances", &sim, &names[1..]);
    let one = call("StopInstances", &sim, &names[..1]);

    for _ in 0..6 {
        assert_eq!(ask(&sim, &all).await.code(), "RequestLimitExceeded");
    }
    assert!(sim.machines().iter().all(|machine| machine.state == "running"));
    assert_eq!(ask(&sim, &format!("{hundred}&DryRun=true")).await.code(), "DryRunOperation", "no instance's token");
    assert_eq!(ask(&sim, &hundred).await.code(), "ok");
    assert_eq!(ask(&sim, &one).await.code(), "RequestLimitExceeded");
    sim.advance(seconds(50));
    assert_eq!(ask(&sim, &one).await.code(), "ok");
}

#[tokio::test]
async fn a_description_may_be_late_and_a_switch_never_is() {
    let sim = Sim::start().await;
    sim.settings(|settings| {
        (settings.start_takes, settings.stop_takes, settings.describe_lag) = (seconds(30), seconds(30), seconds(100));
    });
    sim.add(Machine::named("web").tag("a", "old"));
    let launched = sim.machine("web").launch_time.format("%FT%T.000Z").to_string();
    let id = sim.machine("web").id;
    let shown = async || {
        let by_id = ask(&sim, &format!("DescribeInstances&InstanceId.1={id}")).await;
        let listed = ask(&sim, "DescribeInstances").await;
        assert_eq!(by_id.texts("name"), listed.texts("name"));
        by_id.texts("name").concat()
    };
    let found = async |filter: &str, value: &str| {
        let filter = format!("DescribeInstances&Filter.1.Name={filter}&Filter.1.Value.1={value}");
        ask(&sim, &filter).await.texts("instanceId").len() == 1
    };

    // 0 s: it stops; 10 s: it is tagged; 30 s: it is stopped; 40 s: it starts; 70 s: it runs; 115 s: it loses the tag.
    ask(&sim, &call("StopInstances", &sim, &["web"])).await;
    sim.advance(seconds(10));
    ask(&sim, &format!("CreateTags&ResourceId.1={id}&Tag.1.Key=a&Tag.1.Value=new")).await;
    sim.advance(seconds(30));
    assert_eq!((sim.state("web").as_str(), shown().await.as_str()), ("stopped", "running"));
    assert!(found("instance-state-name", "running").await && !found("instance-state-name", "stopped").await);
    assert!(found("tag:a", "old").await && !found("tag:a", "new").await);
    let started = ask(&sim, &call("StartInstances", &sim, &["web"])).await;
    assert_eq!(started.texts("name"), ["pending", "stopped"], "a start acts on the truth");

    sim.advance(seconds(65));
    assert_eq!(shown().await, "stopping", "at 105 s");
    assert!(found("tag:a", "old").await && sim.state("web") == "running");
    sim.advance(seconds(10));
    assert!(found("tag:a", "new").await, "at 115 s");
    ask(&sim, &format!("DeleteTags&ResourceId.1={id}&Tag.1.Key=a")).await;
    sim.advance(seconds(20));
    let stopped = ask(&sim, "DescribeInstances").await;
    assert_eq!((stopped.texts("name"), stopped.texts("launchTime")), (vec!["stopped"], vec![launched.as_str()]));
    assert_eq!(stopped.texts("message"), ["Client.UserInitiatedShutdown: User initiated shutdown"]);
    sim.advance(seconds(10));
    let pending = ask(&sim, "DescribeInstances").await;
    assert_eq!(pending.texts("name"), ["pending"], "at 145 s");
    assert!(pending.texts("message").is_empty() && pending.texts("launchTime")[0] > launched.as_str());
    sim.advance(seconds(30));
    assert_eq!(shown().await, "running", "at 175 s");
    assert!(found("tag:a", "new").await && sim.tag("web", "a").is_none());

    sim.switch_off("web");
    assert_eq!(shown().await, "running", "what people do shows late as well");
    sim.advance(seconds(101));
    assert_eq!(shown().await, "stopped");
}

#[tokio::test]
async fn ec2_may_deny_a_while_that_there_is_a_new_machine() {
    let sim = Sim::start().await;
    sim.add(Machine::named("old"));
    sim.set_clock(sim.clock() - seconds(3600));
    sim.settings(|settings| settings.not_found_for = seconds(60));
    sim.add(Machine::named("new"));
    let calls = ["DescribeInstances", "StopInstances"].map(|action| call(action, &sim, &["old", "new"]));

    for call in &calls {
        assert_eq!(ask(&sim, call).await.code(), "InvalidInstanceID.NotFound");
    }
    assert_eq!(ask(&sim, "DescribeInstances").await.texts("instanceId"), [sim.machine("old").id]);
    assert_eq!((sim.state("old").as_str(), sim.state("new").as_str()), ("running", "running"));

    sim.advance(seconds(60));
    for call in &calls {
        assert_eq!(ask(&sim, call).await.code(), "ok");
    }
    assert_eq!(ask(&sim, "DescribeInstances").await.texts("instanceId").len(), 2);
}

#[tokio::test]
async fn a_policy_on_a_tag_refuses_the_whole_call_and_may_say_which_machine() {
    let sim = Sim::start().await;
    sim.add(Machine::named("ours").tag("curfew", "yes"));
    let theirs = sim.add(Machine::named("theirs").tag("curfew", "no"));
    sim.settings(|settings| settings.only_tagged = Some(("curfew".into(), "yes".into())));
    let stop = call("StopInstances", &sim, &["ours", "theirs"]);
    let tags = stop.replace("InstanceId", "ResourceId");
    let tags = ["CreateTags", "DeleteTags"].map(|action| tags.replace("StopInstances", action) + "&Tag.1.Key=curfew");

    for call in [&stop, &format!("{stop}&DryRun=true"), &stop.replace("Stop", "Start"), &tags[0], &tags[1]] {
        let refused = ask(&sim, call).await;
        assert_eq!((refused.0, refused.code()), (403, "UnauthorizedOperation"), "{call}");
        let message = refused.texts("Message")[0];
        let words = "You are not authorized to perform this operation. Encoded authorization failure message: ";
        assert!(message.starts_with(words) && !message.contains("i-0"), "{message}");
    }
    assert_eq!((sim.state("ours").as_str(), sim.tag("ours", "curfew").as_deref()), ("running", Some("yes")));
    assert_eq!(ask(&sim, &call("DescribeInstances", &sim, &["ours", "theirs"])).await.code(), "ok");

    sim.settings(|settings| settings.only_tagged_names = true);
    let named = ask(&sim, &stop).await;
    let message = format!(
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/curfew/curfew \
         is not authorized to perform: ec2:StopInstances on resource: \
         arn:aws:ec2:us-east-1:123456789012:instance/{theirs} because no identity-based policy allows the \
         ec2:StopInstances action"
    );
    assert!(named.texts("Message")[0].starts_with(&message), "{}", named.1);
    assert_eq!(ask(&sim, &call("StopInstances", &sim, &["ours"])).await.code(), "ok");
}

#[tokio::test]
async fn a_zone_may_have_no_room_for_a_type_until_it_has() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web").state("stopped"));
    sim.add(Machine::named("big").state("stopped").kind("m5.large"));
    sim.add(Machine::named("far").state("stopped").zone("us-east-1b"));
    sim.add(Machine::named("on"));
    let all = call("StartInstances", &sim, &["web", "big", "far"]);
    let room_at = sim.clock() + seconds(60);
    sim.settings(|settings| {
        settings.shortages = vec![
            Shortage::new("us-east-1a", "t3.micro").times(2),
            Shortage::new("us-east-1b", "t3.micro").until(room_at),
        ];
    });

    assert_eq!(ask(&sim, &format!("{all}&DryRun=true")).await.code(), "DryRunOperation");
    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["on", "big"])).await.code(), "ok", "there is room for those");
    let refused = ask(&sim, &all).await;
    assert_eq!((refused.0, refused.code()), (500, "InsufficientInstanceCapacity"));
    let message = "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested \
        (us-east-1a). Our system will be working on provisioning additional capacity. You can currently get t3.micro \
        capacity by not specifying an Availability Zone in your request or choosing us-east-1b.";
    assert_eq!(refused.texts("Message"), [message]);
    assert_eq!(["web", "far"].map(|name| sim.state(name)), ["stopped", "stopped"]);

    assert_eq!(ask(&sim, &all).await.code(), "InsufficientInstanceCapacity");
    assert!(ask(&sim, &all).await.1.contains("(us-east-1b)"), "two calls later the other zone is the obstacle");
    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["web"])).await.code(), "ok");
    sim.advance(seconds(60));
    assert_eq!(ask(&sim, &all).await.code(), "ok");
}

#[tokio::test]
async fn an_account_may_have_only_so_many_machines_on() {
    let sim = Sim::start().await;
    sim.add(Machine::named("on"));
    sim.add(Machine::named("elsewhere").region("eu-west-1"));
    sim.add_many(3, |n| Machine::named(&format!("off-{n}")).state("stopped"));
    sim.settings(|settings| settings.vcpu_limit = Some(3));

    let refused = ask(&sim, &call("StartInstances", &sim, &["off-1", "off-2", "off-3"])).await;
    assert_eq!((refused.0, refused.code()), (400, "VcpuLimitExceeded"));
    let words =
        "You have requested more vCPU capacity than your current vCPU limit of 3 allows for the instance bucket";
    assert!(refused.texts("Message")[0].starts_with(words), "{}", refused.1);
    assert_eq!(sim.state("off-1"), "stopped");

    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["on", "off-1", "off-2"])).await.code(), "ok");
    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["off-3"])).await.code(), "VcpuLimitExceeded");
    assert_eq!(ask(&sim, &call("StartInstances", &sim, &["on", "off-1"])).await.code(), "ok", "a repeat needs no room");
}

#[tokio::test]
async fn a_fault_may_be_about_a_zone_or_a_type_and_names_only_its_machines() {
    let sim = Sim::start().await;
    let a = sim.add(Machine::named("a"));
    let big = sim.add(Machine::named("big").kind("m5.large"));
    let b = sim.add(Machine::named("b").zone("us-east-1b"));
    let said = async |fault: Fault, names: &[&str]| {
        sim.clear_faults();
        sim.fault(fault);
        let answer = ask(&sim, &call("DescribeInstances", &sim, names)).await;
        if answer.code() == "ok" { "spared".into() } else { answer.texts("Message").concat() }
    };
    let no = || Fault::refuse(None, "Nope", "{ids}");

    assert_eq!(said(no().in_zone("us-east-1a"), &["b", "big", "a"]).await, format!("{big}, {a}"));
    assert_eq!(said(no().in_zone("us-east-1a"), &["b"]).await, "spared");
    assert_eq!(said(no().of_kind("m5.large"), &["a", "big"]).await, big);
    assert_eq!(said(no().in_zone("us-east-1b").of_kind("t3.micro"), &["a", "big", "b"]).await, b);
    assert_eq!(said(no().in_zone("us-east-1b").of_kind("m5.large"), &["a", "big", "b"]).await, "spared");
    assert_eq!(said(no().on(["a", "b"]).in_zone("us-east-1b"), &["a", "b"]).await, b);
    assert_eq!(said(no().in_zone("us-east-1a"), &[]).await, "spared", "a call that names no machine is about none");
}

#[tokio::test]
async fn every_call_may_take_its_time_and_none_waits_for_another() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let stop = call("StopInstances", &sim, &["web"]);
    sim.settings(|settings| settings.latency = Duration::from_millis(400));

    let begun = Instant::now();
    let looks = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (sim.state("web"), begun.elapsed())
    };
    let five = async {
        tokio::join!(ask(&sim, &stop), ask(&sim, &stop), ask(&sim, &stop), ask(&sim, &stop), ask(&sim, &stop))
    };
    let ((state, looked), answers) = tokio::join!(looks, five);

    assert!(state == "running" && looked < Duration::from_millis(400), "{state} after {looked:?}");
    assert_eq!([answers.0.code(), answers.4.code(), &sim.state("web")], ["ok", "ok", "stopping"]);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(1800), "{took:?}");
    sim.fault(Fault::refuse(None, "Nope", "No."));
    assert_eq!(ask(&sim, "DescribeRegions").await.code(), "Nope");
    assert!(begun.elapsed() >= took + Duration::from_millis(400), "a refusal takes as long");
}

#[tokio::test]
async fn an_answer_may_dribble_in() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    sim.fault(Fault::trickle("DescribeInstances", Duration::from_millis(600)));

    let begun = Instant::now();
    let request = reqwest::Client::new().post(sim.url()).body("Action=DescribeInstances");
    let mut answer = request.send().await.expect("a status");
    let first = begun.elapsed();
    let (mut bits, mut text) = (0, Vec::new());
    while let Some(bit) = answer.chunk().await.expect("a bit") {
        bits += 1;
        text.extend(bit);
    }

    assert!(first < Duration::from_millis(500) && begun.elapsed() >= Duration::from_millis(600), "{first:?}");
    assert!(bits > 5 && text.ends_with(b"</DescribeInstancesResponse>"), "{bits} bits");
    assert_eq!(sim.calls()[0].code, "ok");
}

#[tokio::test]
async fn an_answer_may_be_anything() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let garbage = vec![0xff; 3_000_000];
    sim.fault(Fault::answer("StopInstances", 200, garbage.clone()).times(1));
    sim.fault(Fault::answer("StopInstances", 502, "<html>"));
    let stop = async || {
        let request = reqwest::Client::new().post(sim.url());
        let request = request.body(format!("Action={}", call("StopInstances", &sim, &["web"])));
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.bytes().await.expect("a body"))
    };

    assert!(stop().await == (200, garbage.into()));
    assert_eq!(stop().await, (502, "<html>".into()));
    assert_eq!((sim.state("web").as_str(), sim.calls()[0].code.as_str()), ("running", "scripted"));
}

#[tokio::test]
async fn each_machine_that_spares_its_zone_spares_one_more() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.partial_success = true);
    sim.add(Machine::named("bad"));
    sim.add(Machine::named("vault").stop_protected());
    sim.add(Machine::named("second-vault").zone("us-east-1b").stop_protected());
    sim.add(Machine::named("far").zone("us-east-1c"));
    sim.fault(Fault::refuse("StopInstances", "Nope", "No.").on(["bad"]));
    let stop = call("StopInstances", &sim, &["bad", "vault", "second-vault", "far"]);
    assert_eq!(ask(&sim, &stop).await.code(), "Nope");
    assert_eq!(sim.state("far"), "stopping");
    assert_eq!(["bad", "vault", "second-vault"].map(|name| sim.state(name)), ["running"; 3]);
}
