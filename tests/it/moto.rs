//! Curfew against moto, a double of EC2 by people who do not know us; and ec2-sim held against it, question by
//! question, so that it can't drift into agreeing with our mistakes.
//!
//! Where moto differs from AWS, as far as these tests meet it:
//! - A page holds so many reservations; one launch per instance makes the two the same.
//! - `stopping` and `pending` are seen in the call's own answer only.
//! - LaunchTime is when it was launched, not when it was last started. So a stop whose scheduled_time is before the
//!   launch finds everything `started_since`, and a mark would count even after a start by hand.
//! - The rest is in [`DIFFERENCES`], with both answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::DateTime;
use ec2_sim::{Host, Machine, Sim, StateReason};
use roxmltree::{Document, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::world::*;

mod snapshots;

const EAST: &str = "us-east-1";
const WEST: &str = "eu-west-1";
/// What the refusal of a stop and that of a termination have in common.
const DISABLE_API_STOP: &str = ". Modify its 'disableApiStop' instance attribute and try again.";

// ---- Curfew ----

#[tokio::test]
async fn the_selection_is_the_same_in_a_cloud_that_we_did_not_write() {
    let mut night = Night::new().await;
    let mut ids = BTreeMap::new();
    for (name, environment, team, kind) in [
        ("a", "dev", "x", "t3.micro"),
        ("b", "test-7", "x", "t3.micro"),
        ("c", "prod", "x", "t3.micro"),
        ("d", "dev", "y", "t3.large"),
        ("e", "t*", "x", "m5.large"),
        ("f", "Dev", "x", "t3.micro"),
        ("bastion-1", "dev", "x", "t3.micro"),
    ] {
        let machine = Machine::named(name).kind(kind).tag("Environment", environment).tag("Team", team);
        ids.insert(name, night.moto.launch(&machine.tag("team", "lower case")).await);
    }
    let id = |name: &str| ids[name].clone();
    for (fields, expected) in [
        (json!({"tags": {"Environment": "dev"}}), names(["a", "d", "bastion-1"])),
        (json!({"tags": {"Environment": "dev", "Team": "x"}}), names(["a", "bastion-1"])),
        (json!({"tags": {"Environment": ["dev", "test-?"], "Team": "x"}}), names(["a", "b", "bastion-1"])),
        (json!({"tags": {"Environment": "?ev"}}), names(["a", "d", "f", "bastion-1"])),
        (json!({"tags": {"Environment": "t*"}}), names(["b", "e"])),
        (json!({"tags": {"Environment": "t\\*"}}), names(["e"])),
        (json!({"tags": {"Environment": "*", "Team": ["y", "z"]}}), names(["d"])),
        (json!({"tags": {"environment": "dev"}}), names([])),
        (json!({"tags": {"Environment": "DEV"}}), names([])),
        (json!({"tags": {"team": "lower case", "Team": "y"}}), names(["d"])),
        (json!({"filters": {"instance-type": "m5.large"}}), names(["e"])),
        (json!({"filters": {"instance-type": ["t3.large", "m5.large"]}, "tags": {"Team": "y"}}), names(["d"])),
        (json!({"filters": {"tag-key": "Team", "instance-type": "t3.large"}}), names(["d"])),
        (json!({"instance_ids": [id("a"), id("f")]}), names(["a", "f"])),
        (json!({"instance_ids": [id("a"), id("c")], "tags": {"Environment": "dev"}}), names(["a"])),
        (json!({"instance_ids": [id("d"), id("e")], "filters": {"instance-type": "m5.large"}}), names(["e"])),
    ] {
        let told = night.invoke(with(json!({"action": "stop", "dry_run": true}), fields.clone())).await;
        assert_eq!((told.verdict().as_str(), told.names("would_change")), ("complete", expected), "{fields}");
    }
    let spared = json!({"tags": {"Environment": "dev"}, "except_tags": {"Name": "bastion*", "Team": "y"}});
    let told = night.invoke(with(json!({"action": "stop", "dry_run": true}), spared.clone())).await;
    assert_eq!(told.names("would_change"), names(["a"]));
    assert_eq!(told.report["skipped_by"], json!({"exempt": 2}));

    let told = night.invoke(with(json!({"action": "stop"}), spared)).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["a"])), "for once not a dry run");
    let told =
        night.invoke(json!({"action": "start", "instance_ids": [id("a"), id("b"), "i-0123456789abcdef0"]})).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("Incomplete", names(["a"])));
    assert_eq!(told.reason("b"), "already_done");
    let absent = &told.entries("failed")[0];
    assert_eq!((&absent["id"], &absent["code"]), (&json!("i-0123456789abcdef0"), &json!("InvalidInstanceID.NotFound")));
}

#[tokio::test]
async fn an_evening_and_a_morning_leave_it_as_the_reports_say() {
    let mut night = Night::new().await;
    for n in 1..=3 {
        night.moto.launch(&ours(&format!("web-{n}"))).await;
    }
    night.moto.launch(&Machine::named("bystander")).await;
    let off_by_hand = night.moto.launch(&ours("off-by-hand")).await;
    night.moto.set("StopInstances", &[("InstanceId.1", &off_by_hand)]).await;
    let webs = || names(["web-1", "web-2", "web-3"]);
    tokio::time::sleep(Duration::from_millis(1100)).await; // a mark has whole seconds, and must lie after LaunchTime

    // An event that is older than the machines: somebody switched them on since.
    let told = night.invoke(with(stop_7pm(), json!({"scheduled_time": in_minutes(-5)}))).await;
    assert_eq!(told.report["skipped_by"], json!({"started_since": 3}), "{:#}", told.report);

    let evening = with(stop_7pm(), json!({"scheduled_time": in_minutes(1)}));
    let told = night.invoke(with(evening.clone(), json!({"dry_run": true}))).await;
    assert_eq!(told.names("changed"), names([]));
    assert_eq!(told.names("would_change"), webs());

    let told = night.invoke(evening).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", webs()));
    assert_eq!(told.entry("changed", "web-1")["to"], "stopping");
    assert_eq!(night.moto.state("web-1").await, "stopped");
    let told = night.invoke(stop_7pm()).await;
    assert_eq!(told.message(), "office: nothing to stop, all 4 are already stopped");

    let told = night.invoke(with(start_8am(), json!({"scheduled_time": in_minutes(1)}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", webs()), "just what the evening marked");
    assert_eq!(told.entry("changed", "web-1")["to"], "running");
    assert_eq!(told.reason("off-by-hand"), "not_marked");
    assert_eq!(night.moto.state("web-1").await, "running");
    assert_eq!(night.moto.state("off-by-hand").await, "stopped");
    for machine in night.moto.machines().await.values() {
        assert_eq!(machine.tags.get("curfew:stopped-at"), None, "{} is not one that waits", machine.name());
    }

    let told = night.invoke(json!({"action": "start", "tags": {"Name": ["web-?", "bystander"]}})).await;
    assert_eq!(told.message(), "curfew: nothing to start, all 4 are already running");
    let told = night.invoke(json!({"action": "start", "tags": {"Name": "wbe-*"}})).await;
    assert_eq!(
        told.message(),
        "curfew: nothing to start, no instance in us-east-1 has Name=wbe-*, but 1 instance has Name=bystander, 1 has \
         Name=off-by-hand, 1 has Name=web-1, and 2 more"
    );
}

#[tokio::test]
async fn one_stop_protected_instance_does_not_keep_the_other_nine_awake() {
    let mut night = Night::new().await;
    let mut others = BTreeSet::new();
    for n in 1..=9 {
        night.moto.launch(&ours(&format!("web-{n}"))).await;
        others.insert(format!("web-{n}"));
    }
    let vault = night.moto.launch(&ours("vault")).await;
    night.moto.protect(&vault).await;
    let told = night.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.reason("vault").as_str()), ("complete", "stop_protected"));
    for machine in night.moto.machines().await.values() {
        assert_eq!(machine.state, if machine.name() == "vault" { "running" } else { "stopped" }, "{}", machine.name());
    }
    // moto has stopped those that came before the vault in a call that it then refused: they are our changes too.
    assert_eq!(told.names("changed"), others);
}

#[tokio::test]
async fn every_page_of_every_region_named_is_read() {
    let moto = Moto::start().await;
    let pages = Pages::of_seven(&moto.ec2.url).await;
    let mut night = Night::seen_through(moto, &pages.url).await;
    for n in 1..=60 {
        night.moto.launch(&ours(&format!("web-{n}"))).await;
    }
    night.moto.launch(&ours("west").region(WEST)).await;
    night.moto.launch(&ours("elsewhere").region("ap-south-1")).await;

    let told = night.invoke(with(stop(), json!({"regions": [WEST, EAST]}))).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(61)));
    assert_eq!(pages.asked.load(Ordering::Relaxed), 1 + 9, "60 are 8 pages of 7 and a rest");
    assert_eq!(told.report["targets"][0]["changed"][0]["name"], "west");
    assert_eq!(night.moto.state("elsewhere").await, "running");

    // Not `all`: moto has 38 regions, and furnishes each at the first look.
    let told = night.invoke(with(start(), json!({"regions": [EAST, WEST]}))).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(61)));
}

// ---- ec2-sim ----

#[tokio::test]
async fn both_doubles_give_the_same_answer_to_the_same_look() {
    let mut both = Both::new().await;
    both.launch(Machine::named("web-1").tag("curfew", "yes").tag("Environment", "dev")).await;
    both.launch(Machine::named("web-2").tag("curfew", "Yes").tag("Environment", "test-7").kind("m5.large")).await;
    both.launch(Machine::named("star").tag("curfew", "y*s").tag("Environment", "a?c").kind("t3.large")).await;
    both.launch(Machine::named("empty").tag("curfew", "")).await;
    both.launch(Machine::named("ümlaut & <xml>").tag("curfew", "a b+c=d&e%20f")).await;
    both.launch(Machine::named("off").tag("curfew", "yes")).await;
    both.launch(Machine::named("west").tag("curfew", "yes").region(WEST)).await;
    for n in 1..=6 {
        both.launch(Machine::named(&format!("page-{n}")).tag("Set", "pages")).await;
    }
    both.agree("StopInstances", &[("InstanceId.1", "{off}")]).await;

    let everything = "200 web-1 web-2 star empty ümlaut & <xml> off page-1 page-2 page-3 page-4 page-5 page-6";
    assert_eq!(both.agree("DescribeInstances", &[]).await, everything);
    for (values, expected) in [
        (&["yes"][..], "200 web-1 off"),
        (&["Yes"], "200 web-2"),
        (&["YES"], "200"),
        (&["yes", "Yes"], "200 web-1 web-2 off"),
        (&["?es"], "200 web-1 web-2 off"),
        (&["??es"], "200"),
        (&["y*"], "200 web-1 star off"),
        (&["*s"], "200 web-1 web-2 star off"),
        (&["y\\*s"], "200 star"),
        (&["y\\**"], "200 star"),
        (&["y?s"], "200 web-1 star off"),
        (&["*"], "200 web-1 web-2 star empty ümlaut & <xml> off"),
        (&["**"], "200 web-1 web-2 star empty ümlaut & <xml> off"),
        (&["?*"], "200 web-1 web-2 star ümlaut & <xml> off"),
        (&[""], "200 empty"),
        (&["a b+c=d&e%20f"], "200 ümlaut & <xml>"),
        (&["a*d&e*"], "200 ümlaut & <xml>"),
        (&["es"], "200"),
    ] {
        assert_eq!(both.agree_on_filters(&[("tag:curfew", values)]).await, expected, "tag:curfew {values:?}");
    }
    for (filters, expected) in [
        (&[("tag:Environment", &["a\\?c"][..])][..], "200 star"),
        (&[("tag:Environment", &["a?c"])], "200 star"),
        (&[("tag:Curfew", &["yes"])], "200"),
        (&[("tag:curfew", &["yes"]), ("tag:Environment", &["dev"])], "200 web-1"),
        (&[("tag:curfew", &["yes"]), ("tag:Environment", &["test-7"])], "200"),
        (&[("tag:Name", &["*&*"])], "200 ümlaut & <xml>"),
        (&[("tag-key", &["Environment"])], "200 web-1 web-2 star"),
        (&[("tag-key", &["environment"])], "200"),
        (&[("tag-key", &["Env*", "S?t"])], "200 web-1 web-2 star page-1 page-2 page-3 page-4 page-5 page-6"),
        (&[("tag-value", &["dev", "pages"])], "200 web-1 page-1 page-2 page-3 page-4 page-5 page-6"),
        (
            &[("instance-state-name", &["running"])],
            "200 web-1 web-2 star empty ümlaut & <xml> page-1 page-2 page-3 page-4 page-5 page-6",
        ),
        (&[("instance-state-name", &["stopped"])], "200 off"),
        (&[("instance-state-name", &["pending", "running", "stopping", "stopped"])], everything),
        (&[("instance-state-name", &["terminated"])], "200"),
        (&[("instance-state-name", &["running"]), ("tag:curfew", &["yes"])], "200 web-1"),
        (&[("instance-type", &["m5.large"])], "200 web-2"),
        (&[("instance-type", &["m5.large", "t3.large"])], "200 web-2 star"),
        (&[("instance-type", &["T3.large"])], "200"),
        (&[("instance-id", &["{web-1}", "{star}"])], "200 web-1 star"),
        (
            &[("instance-id", &["{web-1}", "{star}"]), ("tag:curfew", &["y*s"]), ("instance-type", &["t3.large"])],
            "200 star",
        ),
        (&[("instance-id", &["i-0123456789abcdef0"])], "200"),
        (&[("instance-id", &["{west}"])], "200"),
        (&[("vpc-id", &["{star vpcId}"]), ("tag:Name", &["star"])], "200 star"),
        (&[("vpc-id", &["vpc-00000000"])], "200"),
        (&[("image-id", &["{web-1 imageId}"])], everything),
        (&[("private-ip-address", &["{web-2 privateIpAddress}"])], "200 web-2"),
        (&[("availability-zone", &["us-east-1z"])], "200"),
    ] {
        assert_eq!(both.agree_on_filters(filters).await, expected, "{filters:?}");
    }
    for (question, expected) in [
        (&[("InstanceId.1", "{web-1}"), ("InstanceId.2", "{off}")][..], "200 web-1 off"),
        (&[("InstanceId.1", "{web-1}"), ("Filter.1.Name", "tag:curfew"), ("Filter.1.Value.1", "no")], "200"),
        (&[("InstanceId.1", "i-0123456789abcdef0")], "400 InvalidInstanceID.NotFound"),
        (&[("InstanceId.1", "{web-1}"), ("InstanceId.2", "i-0123456789abcdef0")], "400 InvalidInstanceID.NotFound"),
        (&[("InstanceId.1", "{west}")], "400 InvalidInstanceID.NotFound"),
        (&[("InstanceId.1", "{web-1}"), ("MaxResults", "5")], "400 InvalidParameterCombination"),
        (&[("DryRun", "true")], "412 DryRunOperation"),
        (&[("DryRun", "true"), ("InstanceId.1", "{web-1}")], "412 DryRunOperation"),
    ] {
        assert_eq!(both.agree("DescribeInstances", question).await, expected, "{question:?}");
    }
    for (size, tag, expected) in [
        (
            "5",
            "Name",
            &["200 web-1 web-2 star empty ümlaut & <xml>", "200 off page-1 page-2 page-3 page-4", "200 page-5 page-6"]
                [..],
        ),
        (
            "7",
            "Name",
            &["200 web-1 web-2 star empty ümlaut & <xml> off page-1", "200 page-2 page-3 page-4 page-5 page-6"],
        ),
        ("5", "Set", &["200 page-1 page-2 page-3 page-4 page-5", "200 page-6"]),
        ("6", "Set", &["200 page-1 page-2 page-3 page-4 page-5 page-6"]),
    ] {
        assert_eq!(both.pages(size, tag).await, expected, "MaxResults {size} of those with {tag}");
    }

    both.region = WEST;
    assert_eq!(both.agree("DescribeInstances", &[]).await, "200 west");
    assert_eq!(both.agree("DescribeInstances", &[("InstanceId.1", "{west}")]).await, "200 west");
    assert_eq!(both.agree("DescribeInstances", &[("InstanceId.1", "{web-1}")]).await, "400 InvalidInstanceID.NotFound");

    let regions = |reply: Reply| {
        let region = |item: Node<'_, '_>| ["regionName", "regionEndpoint"].map(|name| text(item, name));
        reply.read(|root| items(root, "regionInfo").map(region).collect::<BTreeSet<_>>())
    };
    let mut in_moto = regions(both.ec2s[1].call(EAST, "DescribeRegions", &[]).await);
    // AWS shows those of one partition only.
    in_moto.retain(|[name, _]| !name.starts_with("cn-"));
    both.sim.settings(|settings| settings.regions = in_moto.iter().map(|[name, _]| name.clone()).collect());
    assert_eq!(regions(both.ec2s[0].call(EAST, "DescribeRegions", &[]).await), in_moto);
    assert!(in_moto.contains(&[WEST.to_owned(), format!("ec2.{WEST}.amazonaws.com")]), "{in_moto:?}");
}

#[tokio::test]
async fn both_doubles_give_the_same_answer_to_the_same_switch_and_end_up_the_same() {
    let mut both = Both::new().await;
    for name in ["a", "b", "c", "vault", "gone"] {
        both.launch(Machine::named(name).tag("curfew", "yes")).await;
    }
    both.launch(Machine::named("west").region(WEST)).await;
    both.protect("vault").await;
    both.terminate("gone").await;
    let fifty: Vec<(String, String)> = (1..=50)
        .flat_map(|n| [(format!("Tag.{n}.Key"), format!("k{n}")), (format!("Tag.{n}.Value"), "v".to_owned())])
        .collect();
    let too_many: Vec<(&str, &str)> = [("ResourceId.1", "{a}")]
        .into_iter()
        .chain(fifty.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        .collect();
    const UNKNOWN: (&str, &str) = ("InstanceId.2", "i-0123456789abcdef0");
    const ABROAD: (&str, &str) = ("InstanceId.2", "{west}");
    const DRY: (&str, &str) = ("DryRun", "true");
    const A: (&str, &str) = ("InstanceId.1", "{a}");
    const B: (&str, &str) = ("InstanceId.2", "{b}");
    const TAG_A: (&str, &str) = ("ResourceId.1", "{a}");
    const TAG_B: (&str, &str) = ("ResourceId.2", "{b}");
    const MARK: (&str, &str) = ("Tag.1.Key", "curfew:stopped-at");
    const AT: (&str, &str) = ("Tag.1.Value", "2026-11-20T19:00:00Z");
    for (action, question, expected) in [
        ("StopInstances", &[A, DRY][..], "412 DryRunOperation"),
        ("StopInstances", &[A, UNKNOWN], "400 InvalidInstanceID.NotFound"),
        ("StopInstances", &[A, ABROAD], "400 InvalidInstanceID.NotFound"),
        ("StopInstances", &[("InstanceId.1", "i-0123456789abcdef1"), UNKNOWN], "400 InvalidInstanceID.NotFound"),
        ("StopInstances", &[("InstanceId.1", "{vault}"), ("InstanceId.2", "{a}")], "400 OperationNotPermitted"),
        ("StopInstances", &[("InstanceId.1", "{vault}"), DRY], "412 DryRunOperation"),
        ("CreateTags", &[TAG_A, TAG_B, MARK, AT, DRY], "412 DryRunOperation"),
        ("CreateTags", &[TAG_A, TAG_B, MARK, AT], "200"),
        ("CreateTags", &[TAG_A, ("Tag.1.Key", "curfew"), ("Tag.1.Value", "")], "200"),
        ("CreateTags", &[TAG_A, MARK, AT, ("Tag.2.Key", "New"), ("Tag.2.Value", "ü &")], "200"),
        ("CreateTags", &too_many, "400 TagLimitExceeded"),
        ("StopInstances", &[A, B], "200 a:running>stopping b:running>stopping"),
        ("StartInstances", &[A, DRY], "412 DryRunOperation"),
        ("StartInstances", &[A, UNKNOWN], "400 InvalidInstanceID.NotFound"),
        ("StartInstances", &[A, ABROAD], "400 InvalidInstanceID.NotFound"),
        ("StartInstances", &[A], "200 a:stopped>pending"),
        ("StopInstances", &[A], "200 a:running>stopping"),
        ("StartInstances", &[A, B], "200 a:stopped>pending b:stopped>pending"),
        ("DeleteTags", &[TAG_A, MARK, DRY], "412 DryRunOperation"),
        ("DeleteTags", &[TAG_A, MARK, ("Tag.1.Value", "another value")], "200"),
        ("DeleteTags", &[TAG_A, MARK, AT], "200"),
        ("DeleteTags", &[TAG_A, TAG_B, ("ResourceId.3", "{c}"), MARK], "200"),
        ("DeleteTags", &[TAG_A, ("Tag.1.Key", "absent")], "200"),
    ] {
        assert_eq!(both.agree(action, question).await, expected, "{action} {question:?}");
        both.agree("DescribeInstances", &[]).await;
    }
}

/// A question on which the doubles differ, and why ec2-sim's answer is the one to test with.
///
/// Both answers are held: the day moto is mended, its entry goes. No difference is skipped anywhere else.
struct Difference {
    action: &'static str,
    question: &'static [(&'static str, &'static str)],
    sim: &'static str,
    moto: &'static str,
    because: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        action: "DescribeInstances",
        question: &[("Filter.1.Name", "instance-type"), ("Filter.1.Value.1", "t3.*")],
        sim: "200 a b c d e vault gone tagged",
        moto: "200",
        because: "EC2's user guide, filtering: wildcards in all filter values; moto has them for tags only",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "[ab]")],
        sim: "200",
        moto: "200 a b",
        because: "the wildcards are * and ?, and no others; moto takes a shell's",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "\\a")],
        sim: "200 a",
        moto: "200",
        because: "a backslash takes whatever follows literally; moto knows it before * and ? only",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("Filter.1.Name", "root-device-type"), ("Filter.1.Value.1", "ebs")],
        sim: "200 a b c d e vault gone tagged",
        moto: "500",
        because: "a documented filter that moto has not implemented",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("Filter.1.Name", "no-such-filter"), ("Filter.1.Value.1", "x")],
        sim: "400 InvalidParameterValue",
        moto: "500",
        because: "EC2 answers \"The filter 'no-such-filter' is invalid\"; moto can't tell it from one not implemented",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("NextToken", "made-up")],
        sim: "400 InvalidNextToken",
        moto: "500",
        because: "the caller's mistake, so a 4xx (with which code, AWS doesn't say); moto falls over",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("MaxResults", "4")],
        sim: "400 InvalidParameterValue",
        moto: "200 a b c d",
        because: "the API reference: between 5 and 1000",
    },
    Difference {
        action: "DescribeInstances",
        question: &[("InstanceId.1", "i-nonsense")],
        sim: "400 InvalidInstanceID.Malformed",
        moto: "400 InvalidInstanceID.NotFound",
        because: "moto looks ids up without looking at them",
    },
    Difference {
        action: "StopInstances",
        question: &[],
        sim: "400 MissingParameter",
        moto: "200",
        because: "InstanceId is required",
    },
    Difference {
        action: "StopInstances",
        question: &[("InstanceId.1", "i-0123456789abcdef0"), ("DryRun", "true")],
        sim: "400 InvalidInstanceID.NotFound",
        moto: "412 DryRunOperation",
        because: "AWS doesn't say which it looks at first; ec2-sim's order is the stricter, moto looks at nothing",
    },
    Difference {
        action: "StartInstances",
        question: &[("InstanceId.1", "{a}")],
        sim: "200 a:running>running; a running with 2 tags",
        moto: "200 a:running>pending; a running with 2 tags",
        because: "a start of what runs succeeds and changes nothing; moto always says pending",
    },
    Difference {
        action: "StopInstances",
        question: &[("InstanceId.1", "{b}")],
        sim: "200 b:stopped>stopped; b stopped with 2 tags",
        moto: "200 b:stopped>stopping; b stopped with 2 tags",
        because: "a stop of what is off succeeds and changes nothing; moto always says stopping",
    },
    Difference {
        action: "StopInstances",
        question: &[("InstanceId.1", "{c}"), ("InstanceId.2", "{vault}")],
        sim: "400 OperationNotPermitted; c running with 2 tags, vault running with 2 tags",
        moto: "400 OperationNotPermitted; c stopped with 2 tags, vault running with 2 tags",
        because: "within a zone all or none (said of TerminateInstances); moto has stopped those before the vault",
    },
    Difference {
        action: "StopInstances",
        question: &[("InstanceId.1", "{d}"), ("Hibernate", "true")],
        sim: "400 UnsupportedHibernationConfiguration; d running with 2 tags",
        moto: "200 d:running>stopping; d stopped with 2 tags",
        because: "what was launched without hibernation can't be hibernated; moto ignores the wish",
    },
    Difference {
        action: "StartInstances",
        question: &[("InstanceId.1", "{gone}")],
        sim: "400 IncorrectInstanceState; gone terminated with 2 tags",
        moto: "200 gone:terminated>pending; gone running with 2 tags",
        because: "the dead don't rise",
    },
    Difference {
        action: "CreateTags",
        question: &[
            ("ResourceId.1", "{e}"),
            ("ResourceId.2", "i-0123456789abcdef0"),
            ("Tag.1.Key", "k"),
            ("Tag.1.Value", "v"),
        ],
        sim: "400 InvalidInstanceID.NotFound; e running with 2 tags",
        moto: "200; e running with 3 tags",
        because: "one wrong id and nothing in the call happens; moto looks at the ids' shape only",
    },
    Difference {
        action: "CreateTags",
        question: &[("ResourceId.1", "{e}"), ("Tag.1.Key", "aws:k"), ("Tag.1.Value", "v")],
        sim: "400 InvalidParameterValue; e running with 2 tags",
        moto: "200; e running with 4 tags",
        because: "the user guide, tag restrictions: aws: is reserved (moto's third tag is from the question before)",
    },
    Difference {
        action: "DeleteTags",
        question: &[("ResourceId.1", "{tagged}")],
        sim: "200; tagged running with 0 tags",
        moto: "200; tagged running with 2 tags",
        because: "the API reference: without tags, all of the user's go",
    },
];

#[tokio::test]
async fn where_moto_is_not_like_aws_ec2_sim_is_as_far_as_aws_says() {
    let mut both = Both::new().await;
    for name in ["a", "b", "c", "d", "e", "vault", "gone", "tagged"] {
        both.launch(Machine::named(name).tag("curfew", "yes")).await;
    }
    both.protect("vault").await;
    both.terminate("gone").await;
    both.agree("StopInstances", &[("InstanceId.1", "{b}")]).await;
    for Difference { action, question, sim, moto, because } in DIFFERENCES {
        assert_ne!(sim, moto, "no difference: {action} {question:?}");
        let mut answers = both.ask(action, question).await.map(|answer| answer.gist);
        if *action != "DescribeInstances" {
            for (which, answer) in answers.iter_mut().enumerate() {
                answer.push_str(&both.told_of(which, question).await);
            }
        }
        assert_eq!(answers, [*sim, *moto], "ec2-sim and moto on {action} {question:?}, where {because}");
    }
}

// ---- The ways to ask ----

/// moto, running until this is dropped.
pub(crate) struct Moto {
    ec2: Ec2,
    /// Where it has machines.
    regions: BTreeSet<String>,
    server: Child,
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/moto_server");
        assert!(program.exists(), "{} is missing: `make test` installs it", program.display());
        let mut server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(server.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let url = loop {
            let line = timeout(AMPLE, stderr.next_line()).await.expect("moto starts in a minute").unwrap();
            let line = line.unwrap_or_else(|| panic!("moto ended before it listened: {said:#?}"));
            match line.split_once("Running on ") {
                Some((_, url)) => break url.trim().to_owned(),
                None => said.push(line),
            }
        };
        // It writes a line for each call, and would wait if nobody read them.
        tokio::spawn(async move { copy(&mut stderr.into_inner(), &mut sink()).await });
        Self { ec2: Ec2::at(url), regions: BTreeSet::new(), server }
    }

    /// Returns where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.ec2.url
    }

    /// Launches a machine with the type and the tags of this one, and returns its id.
    async fn launch(&mut self, machine: &Machine) -> String {
        let region = if machine.region.is_empty() { EAST } else { &machine.region };
        let kind = if machine.kind.is_empty() { "t3.micro" } else { &machine.kind };
        let mut params = vec![
            ("ImageId".to_owned(), "ami-12345678"),
            ("InstanceType".to_owned(), kind),
            ("MinCount".to_owned(), "1"),
            ("MaxCount".to_owned(), "1"),
            ("TagSpecification.1.ResourceType".to_owned(), "instance"),
        ];
        for (n, (key, value)) in (1..).zip(&machine.tags) {
            params.push((format!("TagSpecification.1.Tag.{n}.Key"), key));
            params.push((format!("TagSpecification.1.Tag.{n}.Value"), value));
        }
        let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let launched = self.ec2.call(region, "RunInstances", &params).await;
        self.regions.insert(region.to_owned());
        launched.machines().pop().unwrap_or_else(|| panic!("not launched: {launched:?}")).id
    }

    /// Makes a call that is expected to go through.
    async fn set(&self, action: &str, params: &[(&str, &str)]) {
        let reply = self.ec2.call(EAST, action, params).await;
        assert_eq!(reply.status, 200, "{action}: {}", reply.body);
    }

    async fn protect(&self, id: &str) {
        self.set("ModifyInstanceAttribute", &[("InstanceId", id), ("DisableApiStop.Value", "true")]).await;
    }

    /// Every machine that it has, by id.
    async fn machines(&self) -> BTreeMap<String, Machine> {
        let mut machines = BTreeMap::new();
        for region in &self.regions {
            let shown = self.ec2.call(region, "DescribeInstances", &[("MaxResults", "1000")]).await;
            machines.extend(shown.machines().into_iter().map(|machine| (machine.id.clone(), machine)));
        }
        machines
    }

    async fn machine(&self, name: &str) -> Machine {
        self.machines().await.into_values().find(|machine| machine.name() == name).unwrap()
    }

    async fn state(&self, name: &str) -> String {
        self.machine(name).await.state
    }
}

impl Drop for Moto {
    /// Waits as well: tokio's own `kill_on_drop` would leave a zombie behind the test run.
    fn drop(&mut self) {
        if self.server.start_kill().is_ok() {
            while let Ok(None) = self.server.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Curfew before moto, with the same audit for every test: what the report says is what moto shows.
struct Night {
    moto: Moto,
    host: Host,
}

impl Night {
    async fn new() -> Self {
        let moto = Moto::start().await;
        let url = moto.ec2.url.clone();
        Self::seen_through(moto, &url).await
    }

    /// Gives Curfew another address than moto's own.
    async fn seen_through(moto: Moto, url: &str) -> Self {
        Self { moto, host: Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", url)]).await }
    }

    async fn invoke(&mut self, event: Value) -> Told {
        let before = self.moto.machines().await;
        let told = Told::of(self.host.invoke(event.to_string(), AMPLE).await);
        let after = self.moto.machines().await;

        let report = &told.report;
        let parts = ["changed", "would_change", "skipped", "failed", "unfinished"];
        let sum: u64 = parts.iter().map(|part| report["summary"][part].as_u64().unwrap()).sum();
        assert_eq!(report["summary"]["matched"], sum, "the sum of {report:#}");
        let changed = told.entries("changed");
        let mut changed: BTreeMap<&str, &Value> =
            changed.iter().map(|entry| (entry["id"].as_str().unwrap(), entry)).collect();
        let skipped = told.entries("skipped");
        let goal = if report["action"] == "stop" { "stopped" } else { "running" };
        for (id, before) in &before {
            let after = &after[id];
            if let Some(entry) = changed.remove(id.as_str()) {
                assert_eq!((entry["from"].as_str(), after.state.as_str()), (Some(&*before.state), goal), "{entry}");
            } else if skipped.iter().any(|entry| entry["id"] == **id && entry["reason"] == "already_done") {
                assert_eq!(after.state, goal, "said already done: {report:#}");
            } else {
                assert_eq!((&after.state, &after.tags), (&before.state, &before.tags), "not said: {report:#}");
            }
        }
        assert_eq!(changed, BTreeMap::new(), "said changed, and moto has never seen it");
        told
    }
}

/// A way to moto that asks for seven instances wherever Curfew asks for a thousand, which would be too many to launch.
struct Pages {
    url: String,
    /// How many pages were asked for.
    asked: Arc<AtomicUsize>,
}

impl Pages {
    async fn of_seven(url: &str) -> Self {
        let moto = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let pages = Self { url: format!("http://{}", listener.local_addr().unwrap()), asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (from_client, mut to_client) = client.into_split();
                let (mut from_moto, to_moto) = TcpStream::connect(&moto).await.unwrap().into_split();
                tokio::spawn(cut(from_client, to_moto, asked.clone()));
                tokio::spawn(async move { copy(&mut from_moto, &mut to_client).await });
            }
        });
        pages
    }
}

/// Passes bytes on; the number in the place of the other has as many digits, so that Content-Length stays true.
async fn cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Arc<AtomicUsize>) {
    let (thousand, seven) = (b"MaxResults=1000", b"MaxResults=0007");
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..length];
        if let Some(at) = bytes.windows(thousand.len()).position(|window| window == thousand) {
            bytes[at..at + seven.len()].copy_from_slice(seven);
            asked.fetch_add(1, Ordering::Relaxed);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Both doubles, with the same machines.
struct Both {
    sim: Sim,
    moto: Moto,
    ec2s: [Ec2; 2],
    /// Each machine's ids, by name: ec2-sim's, moto's.
    ids: BTreeMap<String, [String; 2]>,
    region: &'static str,
}

impl Both {
    async fn new() -> Self {
        let (sim, moto) = (Sim::start().await, Moto::start().await);
        sim.settings(|settings| (settings.start_takes, settings.stop_takes) = (Duration::ZERO, Duration::ZERO));
        let ec2s = [Ec2::at(sim.url()), moto.ec2.clone()];
        Self { sim, moto, ec2s, ids: BTreeMap::new(), region: EAST }
    }

    async fn launch(&mut self, machine: Machine) {
        let name = machine.name().to_owned();
        let in_moto = self.moto.launch(&machine).await;
        self.ids.insert(name, [self.sim.add(machine), in_moto]);
    }

    async fn protect(&self, name: &str) {
        self.sim.edit(name, |machine| machine.stop_protected = true);
        self.moto.protect(&self.ids[name][1]).await;
    }

    async fn terminate(&self, name: &str) {
        let code = "Client.UserInitiatedShutdown".to_owned();
        let reason = StateReason { message: format!("{code}: User initiated shutdown"), code };
        self.sim.edit(name, |machine| {
            machine.state = "terminated".to_owned();
            machine.state_reason = Some(reason);
            machine.transition_reason = "User initiated (2026-11-20 19:00:00 GMT)".to_owned();
        });
        self.moto.set("TerminateInstances", &[("InstanceId.1", &self.ids[name][1])]).await;
    }

    /// Asks both, and returns the answers; `{name}` in a question becomes the machine's id, `{name vpcId}` its `vpcId`.
    async fn ask(&self, action: &str, question: &[(&str, &str)]) -> [Answer; 2] {
        [self.ask_one(0, action, question).await, self.ask_one(1, action, question).await]
    }

    async fn ask_one(&self, which: usize, action: &str, question: &[(&str, &str)]) -> Answer {
        let ec2 = &self.ec2s[which];
        let mut params = Vec::new();
        for (key, value) in question {
            let value = match value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
                None => (*value).to_owned(),
                Some(name) => {
                    let (name, element) = name.split_once(' ').unwrap_or((name, "instanceId"));
                    let id = ("InstanceId.1", self.ids[name][which].as_str());
                    match element {
                        "instanceId" => id.1.to_owned(),
                        _ => ec2.call(EAST, "DescribeInstances", &[id]).await.first(element),
                    }
                }
            };
            params.push((*key, value));
        }
        let params: Vec<_> = params.iter().map(|(key, value)| (*key, value.as_str())).collect();
        ec2.call(self.region, action, &params).await.answer(&self.names(which))
    }

    /// Asks both, holds their answers against each other, and returns their gist.
    async fn agree(&self, action: &str, question: &[(&str, &str)]) -> String {
        let [sim, moto] = self.ask(action, question).await;
        assert_eq!(sim, moto, "ec2-sim and moto on {action} {question:?}");
        sim.gist
    }

    /// Asks both for the machines that pass the filters, and returns the gist of the answer.
    async fn agree_on_filters(&self, filters: &[(&str, &[&str])]) -> String {
        let mut question = Vec::new();
        for (n, (name, values)) in (1..).zip(filters) {
            question.push((format!("Filter.{n}.Name"), *name));
            question.extend((1..).zip(*values).map(|(v, value)| (format!("Filter.{n}.Value.{v}"), *value)));
        }
        let question: Vec<_> = question.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        self.agree("DescribeInstances", &question).await
    }

    /// Turns the pages of the machines that have this tag, and returns what both have on each.
    async fn pages(&self, size: &str, tag: &str) -> Vec<String> {
        let first = [("MaxResults", size), ("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", tag)];
        let mut pages = Vec::new();
        let mut tokens = [None, None];
        loop {
            let mut answers = Vec::new();
            for (which, token) in tokens.iter_mut().enumerate() {
                let mut question = first.to_vec();
                question.extend(token.as_deref().map(|token| ("NextToken", token)));
                let page = self.ec2s[which].call(EAST, "DescribeInstances", &question).await;
                let answer = page.answer(&self.names(which));
                *token = Some(page.first("nextToken")).filter(|token| !token.is_empty());
                answers.push(answer);
            }
            assert_eq!(answers[0], answers[1], "page {} of {size}", pages.len() + 1);
            pages.push(answers.swap_remove(0).gist);
            match &tokens {
                [None, None] => return pages,
                [Some(_), Some(_)] => {}
                _ => panic!("one has more to show after {pages:#?}"),
            }
        }
    }

    /// What became of the machines that a question named, in a double's words.
    async fn told_of(&self, which: usize, question: &[(&str, &str)]) -> String {
        let shown = self.ec2s[which].call(EAST, "DescribeInstances", &[]).await.machines();
        let names = self.names(which);
        let named = |machine: Machine| {
            let name = names[machine.id.as_str()];
            let asked = question.iter().any(|(_, value)| *value == format!("{{{name}}}"));
            asked.then(|| format!("{name} {} with {} tags", machine.state, machine.tags.len()))
        };
        let told: Vec<_> = shown.into_iter().filter_map(named).collect();
        if told.is_empty() { String::new() } else { format!("; {}", told.join(", ")) }
    }

    /// The names of a double's machines, by id.
    fn names(&self, which: usize) -> BTreeMap<&str, &str> {
        self.ids.iter().map(|(name, ids)| (ids[which].as_str(), name.as_str())).collect()
    }
}

/// A double's address, and a client of its own: one that knows nothing of what Curfew knows.
#[derive(Clone)]
struct Ec2 {
    url: String,
    http: reqwest::Client,
}

impl Ec2 {
    fn at(url: String) -> Self {
        Self { url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn call(&self, region: &str, action: &str, params: &[(&str, &str)]) -> Reply {
        let scope = format!("AKIDTEST/20260101/{region}/ec2/aws4_request");
        let all = [("Action", action), ("Version", "2016-11-15")].into_iter().chain(params.iter().copied());
        let form = reqwest::Url::parse_with_params("http://form", all).unwrap();
        let reply = self
            .http
            .post(&self.url)
            .header("Authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"))
            .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(form.query().unwrap().to_owned())
            .send()
            .await
            .unwrap();
        Reply { status: reply.status().as_u16(), body: reply.text().await.unwrap() }
    }
}

/// What a double sent.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: String,
}

/// What a double said, in words that both share.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// The status, the error's code, and who it is about.
    gist: String,
    /// Everything about each machine that must be the same in both.
    details: Vec<String>,
}

impl Reply {
    /// Reads the XML; moto's page for an error of its own is none, and nothing is read from it.
    fn read<T: Default>(&self, read: impl for<'a> FnOnce(Node<'a, 'a>) -> T) -> T {
        Document::parse(&self.body).map(|document| read(document.root_element())).unwrap_or_default()
    }

    /// The text of the first element of this name.
    fn first(&self, name: &str) -> String {
        self.read(|root| text(root, name))
    }

    /// The machines that it shows.
    fn machines(&self) -> Vec<Machine> {
        let machine = |item: Node<'_, '_>| {
            let mut machine = Machine::default().state(&text(child(item, "instanceState")?, "name"));
            machine.id = text(item, "instanceId");
            machine.kind = text(item, "instanceType");
            machine.tags = tags(item);
            Some(machine)
        };
        self.read(|root| items(root, "instancesSet").filter_map(machine).collect())
    }

    /// Puts it into words, with names for ids.
    fn answer(&self, names: &BTreeMap<&str, &str>) -> Answer {
        let mut gist = vec![self.status.to_string(), self.first("Code")];
        let mut details = Vec::new();
        self.read(|root| {
            for item in items(root, "instancesSet") {
                let name = names[text(item, "instanceId").as_str()];
                let state = |element| child(item, element).map(|state| (text(state, "name"), text(state, "code")));
                match (state("previousState"), state("currentState")) {
                    (Some(from), Some(to)) => {
                        gist.push(format!("{name}:{}>{}", from.0, to.0));
                        details.push(format!("{name}: from {from:?} to {to:?}"));
                    }
                    _ => {
                        gist.push(name.to_owned());
                        details.push(format!("{name}: {:?}, {}", state("instanceState").unwrap(), described(item)));
                    }
                }
            }
        });
        let named = |message: String, (id, name): (&&str, &&str)| message.replace(id, name);
        let message = names.iter().fold(self.first("Message"), named);
        // AWS and ec2-sim say "stopped" here; moto has taken the sentence of a termination.
        let (wrong, right) = (["terminated", DISABLE_API_STOP].concat(), ["stopped", DISABLE_API_STOP].concat());
        details.push(message.replace(&wrong, &right));
        gist.retain(|word| !word.is_empty());
        Answer { gist: gist.join(" "), details }
    }
}

/// What both must say of a machine, with "some" for what is each one's own.
fn described(item: Node<'_, '_>) -> String {
    let launched = DateTime::parse_from_rfc3339(&text(item, "launchTime")).map(|_| "launched");
    let zone = text(child(item, "placement").unwrap(), "availabilityZone");
    let region = zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let own = ["imageId", "vpcId", "subnetId", "privateIpAddress"].map(|name| match text(item, name).is_empty() {
        true => format!("no {name}"),
        false => format!("some {name}"),
    });
    let reason = child(item, "stateReason").map(|reason| (text(reason, "code"), text(reason, "message")));
    // AWS and ec2-sim leave out what moto leaves blank.
    let reason = reason.filter(|(code, _)| !code.is_empty());
    format!(
        "{} {} {:?} {launched:?} in {region} {own:?} {reason:?} {:?} {:?}",
        text(item, "instanceType"),
        text(item, "rootDeviceType"),
        text(item, "instanceLifecycle"),
        text(item, "reason").split(' ').take(2).collect::<Vec<_>>(),
        tags(item),
    )
}

fn tags(item: Node<'_, '_>) -> BTreeMap<String, String> {
    items(item, "tagSet").map(|tag| (text(tag, "key"), text(tag, "value"))).collect()
}

/// The items of every list of this name.
fn items<'a>(node: Node<'a, 'a>, list: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    let lists = node.descendants().filter(move |node| node.tag_name().name() == list);
    lists.flat_map(|list| list.children()).filter(|node| node.is_element())
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|node| node.tag_name().name() == name)
}

/// The text of the first element of this name below a node; nothing if there is none.
fn text(node: Node<'_, '_>, name: &str) -> String {
    let found = node.descendants().find(|node| node.tag_name().name() == name);
    found.and_then(|node| node.text()).unwrap_or_default().to_owned()
}
