//! What goes wrong only where a test asks for it: half-truths, refusals that pass, answers that leave something out.

mod ask;

use std::time::Duration;

use ask::{Answer, ask, call, later};
use chrono::TimeDelta;
use ec2_sim::{Fault, Fleet, Machine, Shortage, Sim};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The names in the range from `web-1` on.
async fn with_stopped(count: usize) -> Sim {
    let sim = Sim::start().await;
    sim.add_many(count, |n| Machine::named(&format!("web-{n}")).state("stopped"));
    sim
}

async fn start(sim: &Sim, names: &[&str]) -> String {
    ask(sim, &call("StartInstances", sim, names)).await.code().to_owned()
}

#[tokio::test]
async fn room_is_taken_by_what_starts_and_a_start_for_more_than_is_left_is_refused_whole() {
    let sim = with_stopped(5).await;
    sim.add(Machine::named("far").state("stopped").zone("us-east-1b"));
    let soon = sim.clock() + seconds(60);
    sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").room(3).more(soon, 1)]);

    assert_eq!(start(&sim, &["web-1", "web-2", "web-3", "web-4"]).await, "InsufficientInstanceCapacity");
    let dry = ask(&sim, &(call("StartInstances", &sim, &["web-1", "web-2", "web-3"]) + "&DryRun=true")).await;
    assert_eq!(dry.code(), "DryRunOperation");
    assert_eq!(start(&sim, &["web-1", "web-2", "far"]).await, "ok");
    assert_eq!(start(&sim, &["web-1", "web-2"]).await, "ok", "what is on needs no room");
    assert_eq!(start(&sim, &["web-3", "web-4"]).await, "InsufficientInstanceCapacity");
    assert_eq!(start(&sim, &["web-3"]).await, "ok");
    assert_eq!(start(&sim, &["web-4"]).await, "InsufficientInstanceCapacity");

    sim.advance(seconds(60));
    assert_eq!(start(&sim, &["web-4", "web-5"]).await, "InsufficientInstanceCapacity", "there is room for one");
    assert_eq!(start(&sim, &["web-4"]).await, "ok");
    sim.settings(|settings| settings.shortages[0].room += 1);
    assert_eq!(start(&sim, &["web-5"]).await, "ok");
}

#[tokio::test]
async fn a_lack_of_room_may_have_another_name_and_be_that_of_all_types_in_a_zone() {
    let sim = with_stopped(1).await;
    sim.add(Machine::named("big").state("stopped").kind("m5.large"));
    let message = "There are not enough free addresses in subnet.";
    let shortage = Shortage::new("us-east-1a", "").room(1);
    sim.settings(|settings| {
        settings.shortages = vec![shortage.says("InsufficientFreeAddressesInSubnet", message, 400)];
    });

    let refused = ask(&sim, &call("StartInstances", &sim, &["web-1", "big"])).await;
    assert_eq!((refused.0, refused.code()), (400, "InsufficientFreeAddressesInSubnet"));
    assert_eq!(refused.texts("Message"), [message]);
    assert_eq!(start(&sim, &["big"]).await, "ok");
    assert_eq!(start(&sim, &["web-1"]).await, "InsufficientFreeAddressesInSubnet");
}

#[tokio::test]
async fn one_machine_may_be_refused_with_any_code_and_status_for_a_while_of_the_clouds_time() {
    let sim = with_stopped(2).await;
    let no = Fault::refuse("StartInstances", "InternalError", "An error with {id}, of {ids}").status(500);
    sim.fault(no.clone().on(["web-1", "web-2"]).lasting(seconds(14)));
    sim.advance(seconds(100));

    let refused = ask(&sim, &call("StartInstances", &sim, &["web-1", "web-2"])).await;
    let [one, two] = ["web-1", "web-2"].map(|name| sim.machine(name).id);
    assert_eq!((refused.0, refused.code()), (500, "InternalError"));
    assert_eq!(refused.texts("Message"), [format!("An error with {one}, of {one}, {two}")]);
    sim.advance(seconds(13));
    assert_eq!(start(&sim, &["web-2"]).await, "InternalError", "the time begins with the first call that is struck");
    sim.advance(seconds(1));
    assert_eq!(start(&sim, &["web-2"]).await, "ok");

    sim.fault(no.on(["web-1"]).until(sim.clock() + seconds(5)));
    assert_eq!(start(&sim, &["web-1"]).await, "InternalError");
    sim.advance(seconds(5));
    assert_eq!(start(&sim, &["web-1"]).await, "ok");
}

#[tokio::test]
async fn ec2_may_do_it_and_say_no_all_the_same() {
    let sim = Sim::start().await;
    let id = sim.add(Machine::named("web"));
    sim.fault(Fault::refuse_after("StopInstances", "InternalError", "An error with {ids}").status(500).times(1));
    sim.fault(Fault::refuse_after("CreateTags", "Unavailable", "Not now.").status(503).times(1));

    let stopped = ask(&sim, &call("StopInstances", &sim, &["web"])).await;
    let tagged = ask(&sim, &format!("CreateTags&ResourceId.1={id}&Tag.1.Key=a&Tag.1.Value=b")).await;

    assert_eq!((stopped.0, stopped.texts("Message")), (500, vec![format!("An error with {id}").as_str()]));
    assert_eq!((tagged.0, tagged.code()), (503, "Unavailable"));
    assert_eq!((sim.state("web").as_str(), sim.tag("web", "a").as_deref()), ("stopping", Some("b")));
    assert_eq!(sim.calls()[0].code, "InternalError");
    assert_eq!(ask(&sim, &call("StopInstances", &sim, &["web"])).await.code(), "ok");
}

#[tokio::test]
async fn tags_may_be_left_out_unless_a_filter_names_one() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web").tag("curfew", "yes"));
    sim.add(Machine::named("shy").tag("curfew", "yes").tags_omitted());
    sim.add(Machine::default());
    let keys = async |filters: &str| {
        let answer = ask(&sim, &format!("DescribeInstances{filters}")).await;
        (answer.texts("key").len(), answer.1.matches("<tagSet>").count())
    };
    let (any, ids) = ("&Filter.1.Name=tag-key&Filter.1.Value.1=*", call("", &sim, &["web", "shy"]));
    let vpc = "&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-*";

    assert_eq!(keys("").await, (2, 2), "of one only");
    sim.settings(|settings| settings.tags_omitted = true);
    assert_eq!([keys("").await, keys(vpc).await, keys(&ids).await], [(0, 0); 3]);
    assert_eq!(keys(any).await, (4, 2), "tag-key=* shows what has a tag at all, and its tags");
    assert_eq!(keys(&format!("{ids}{any}")).await, (4, 2));
    assert_eq!(keys("&Filter.1.Name=tag-key&Filter.1.Value.1=cur*").await, (4, 2));
    assert_eq!(keys("&Filter.1.Name=tag:Name&Filter.1.Value.1=w?b").await, (2, 1));
    assert_eq!(sim.machine("web").tags.len(), 2, "it still has them");
}

#[tokio::test]
async fn a_start_may_fall_back_so_many_times_and_then_run() {
    let sim = Sim::start().await;
    let reason = ("Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: no capacity");
    sim.add(Machine::named("web").state("stopped").falls_back(reason.0, reason.1).falls_back_times(2));
    for expected in ["stopped", "stopped", "running"] {
        assert_eq!(start(&sim, &["web"]).await, "ok");
        later(&sim);
        assert_eq!(sim.state("web"), expected);
        let shown = ask(&sim, &call("DescribeInstances", &sim, &["web"])).await;
        assert_eq!(shown.texts("message").first().copied(), (expected == "stopped").then_some(reason.1));
    }
}

#[tokio::test]
async fn what_has_just_arrived_may_be_treated_a_while_as_if_it_had_not() {
    let sim = Sim::start().await;
    sim.settings(|settings| {
        (settings.spot_lag, settings.running_lag, settings.hibernation_lag) = (seconds(8), seconds(6), seconds(60));
    });
    sim.add(Machine::named("spot").spot_persistent());
    let id = sim.add(Machine::named("sleepy").state("stopped").hibernation());
    let stop = call("StopInstances", &sim, &["sleepy"]);
    assert_eq!(ask(&sim, &call("StopInstances", &sim, &["spot"])).await.code(), "ok", "it has been on for long");

    assert_eq!(start(&sim, &["sleepy"]).await, "ok");
    sim.advance(seconds(1));
    assert_eq!((sim.state("spot"), sim.state("sleepy")), ("stopped".into(), "running".into()));
    let early = ask(&sim, &stop).await;
    let words = format!("Instance '{id}' cannot be stopped as it has never reached the 'running' state.");
    assert_eq!((early.code(), early.texts("Message")), ("IncorrectInstanceState", vec![words.as_str()]));
    assert_eq!(start(&sim, &["spot"]).await, "IncorrectSpotRequestState");

    sim.advance(seconds(8));
    assert_eq!(start(&sim, &["spot"]).await, "ok");
    let drowsy = ask(&sim, &format!("{stop}&Hibernate=true")).await;
    let words = "Instance is not ready to hibernate yet, retry in a few minutes";
    assert_eq!((drowsy.code(), drowsy.texts("Message")), ("UnsupportedOperation", vec![words]));
    sim.advance(seconds(60));
    assert_eq!(ask(&sim, &format!("{stop}&Hibernate=true")).await.code(), "ok");
}

#[tokio::test]
async fn hibernation_may_be_refused_though_it_is_configured() {
    let sim = Sim::start().await;
    let id = sim.add(Machine::named("sleepy").hibernation().never_hibernates());
    let stop = call("StopInstances", &sim, &["sleepy"]);

    let refused = ask(&sim, &format!("{stop}&Hibernate=true")).await;
    let words = "The instance can't be hibernated because it was not configured at launch for hibernation";
    assert_eq!(refused.code(), "UnsupportedHibernationConfiguration");
    assert_eq!(refused.texts("Message"), [format!("{words}: {id}")]);
    assert_eq!(ask(&sim, "DescribeInstances").await.texts("configured"), ["true"]);
    assert_eq!(ask(&sim, &stop).await.code(), "ok");
}

#[tokio::test]
async fn a_clock_ahead_or_behind_shows_in_the_launch_time() {
    let sim = with_stopped(2).await;
    for (name, skew) in [("web-1", 300), ("web-2", -300)] {
        let real = chrono::Utc::now();
        sim.set_clock(real + TimeDelta::seconds(skew));
        start(&sim, &[name]).await;
        let off = (sim.machine(name).launch_time - real).num_seconds();
        assert!((off - skew).abs() <= 2, "{off} s");
    }
}

#[tokio::test]
async fn a_token_may_lead_back_to_itself_for_ever() {
    let sim = with_stopped(7).await;
    sim.settings(|settings| (settings.token_stuck, settings.page_size) = (true, 5));
    let first = ask(&sim, "DescribeInstances&MaxResults=1000").await;
    assert_eq!(first.texts("instanceId").len(), 5);
    let token = first.texts("nextToken")[0];
    for _ in 0..3 {
        let next = ask(&sim, &format!("DescribeInstances&NextToken={token}")).await;
        assert_eq!((next.texts("nextToken"), next.texts("instanceId").len()), (vec![token], 0));
    }
}

#[tokio::test]
async fn an_instance_may_be_shown_without_what_it_has_or_with_nonsense() {
    let sim = Sim::start().await;
    sim.add(Machine::named("well"));
    sim.add(Machine::named("timeless").shown("launchTime", None));
    sim.add(Machine::named("odd").shown("launchTime", "soon & late").shown("instanceId", "i-?"));
    sim.add(Machine::named("stateless").shown("instanceState", None));
    let shown = ask(&sim, "DescribeInstances").await;
    let times = shown.texts("launchTime");
    assert_eq!((times.len(), times[1]), (3, "soon &amp; late"));
    assert_eq!((shown.texts("instanceId").len(), shown.texts("instanceId")[2]), (4, "i-?"));
    assert_eq!(shown.texts("name").len(), 3, "the states");
    assert_eq!(shown.texts("availabilityZone").len(), 4);
    let running = "DescribeInstances&Filter.1.Name=instance-state-name&Filter.1.Value.1=running";
    assert_eq!(ask(&sim, running).await.texts("instanceId").len(), 4, "filters go by the truth");
}

#[tokio::test]
async fn a_dry_run_may_be_ignored() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.ignores_dry_run = true);
    sim.add(Machine::named("web"));
    assert_eq!(ask(&sim, &(call("StopInstances", &sim, &["web"]) + "&DryRun=true")).await.code(), "ok");
    assert_eq!((sim.state("web").as_str(), sim.calls()[0].dry_run), ("stopping", true));
}

#[tokio::test]
async fn there_may_be_no_region_at_all() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.regions.clear());
    let Answer(status, xml) = ask(&sim, "DescribeRegions").await;
    assert_eq!((status, xml.contains("<regionInfo>"), xml.contains("regionName")), (200, true, false));
}

#[tokio::test]
async fn a_proxy_may_answer_in_ec2s_place() {
    let sim = with_stopped(1).await;
    for status in [302, 403, 407] {
        sim.fault(Fault::answer("StartInstances", status, "<html>Who are you?</html>").times(1));
        let request = reqwest::Client::new().post(sim.url());
        let answer = request.body(format!("Action={}", call("StartInstances", &sim, &["web-1"]))).send().await;
        assert_eq!(answer.expect("an answer").status().as_u16(), status);
    }
    assert_eq!(sim.state("web-1"), "stopped");
}

#[tokio::test]
async fn a_call_can_be_held_up_until_something_else_has_happened() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let stop = call("StopInstances", &sim, &["web"]);
    let mut held = sim.hold("StopInstances");
    let meddling = async {
        held.arrived().await;
        assert_eq!((sim.state("web").as_str(), sim.calls().len()), ("running", 0));
        sim.edit("web", |machine| machine.stop_protected = true);
        held.release();
    };
    let (answer, ()) = tokio::join!(ask(&sim, &stop), meddling);
    assert_eq!(answer.code(), "OperationNotPermitted");
    assert_eq!(ask(&sim, &stop).await.code(), "OperationNotPermitted", "only one call is held up");
}

#[tokio::test]
async fn all_of_it_can_be_written_in_json() {
    let fleet = r#"{
        "machines": [{
            "name": "web", "falls_back": { "code": "a", "message": "b" }, "falls_back_times": 1, "tags_omitted": true,
            "never_hibernates": true, "shown": { "launchTime": null, "instanceId": "i-?" }
        }],
        "faults": [
            { "action": "StopInstances", "then": { "refuse_after": { "code": "a", "message": "b", "status": 500 } } },
            { "then": "hang", "lasts_ms": 100, "until": "2026-11-20T07:00:00Z" }
        ],
        "settings": {
            "token_stuck": true, "tags_omitted": true, "ignores_dry_run": true, "regions": [],
            "spot_lag_ms": 1, "running_lag_ms": 2, "hibernation_lag_ms": 3,
            "shortages": [{
                "zone": "us-east-1a", "room": 3, "more": [["2026-11-20T07:00:00Z", 2]],
                "says": { "code": "a", "message": "b", "status": 500 }
            }]
        }
    }"#;
    let fleet: Fleet = serde_json::from_str(fleet).expect("a fleet");
    assert_eq!((fleet.settings.shortages[0].room, fleet.settings.hibernation_lag), (3, Duration::from_millis(3)));
    assert_eq!(fleet.machines[0].shown["launchTime"], None);
}
