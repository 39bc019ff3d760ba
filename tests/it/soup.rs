//! Fuzzing: random bytes and JSON as events, tags and EC2's answers. Nothing panics, and the next event works.
//!
//! `CURFEW_CASES` sets how many cases; `make soak` sets it high.

use std::env;

use chrono::Utc;
use ec2_curfew::event::{Event, unwrap};
use ec2_curfew::request::Request;
use ec2_sim::Fault;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::world::*;

fn cases(default: u32) -> u32 {
    env::var("CURFEW_CASES").map_or(default, |text| text.parse().unwrap())
}

/// Reads an event as the runtime does; the tests fail if this panics.
fn read(bytes: &[u8]) -> Result<Request, String> {
    let event = serde_json::from_slice(&Event::wrapped_whole(bytes)).unwrap();
    let unwrapped = unwrap(event).map_err(|refused| refused.to_string())?;
    Request::parse(unwrapped.request, unwrapped.time, Utc::now()).map_err(|refused| refused.to_string())
}

/// Random JSON, made of the words that requests consist of.
fn jsons() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "action",
        "stop",
        "start",
        "reconcile",
        "tags",
        "filters",
        "instance_ids",
        "except_tags",
        "regions",
        "all",
        "us-east-1",
        "accounts",
        "role",
        "dry_run",
        "hibernate",
        "remember",
        "max_changes",
        "scheduled_time",
        "2026-11-20T19:00:00Z",
        "detail",
        "detail-type",
        "time",
        "max_delay_minutes",
        "timezone",
        "Europe/Berlin",
        "holidays",
        "hours",
        "name",
        "Key",
        "Values",
        "tag:Role",
        "instance-state-name",
        "Records",
        "eventSource",
        "requestPayload",
        "source",
        "aws.ec2",
        "dryRun",
        "i-0abc12345678def00",
        "*",
        "\\",
        "",
        "é\u{0}",
        "<aws.scheduler.scheduled-time>",
        "{}",
        "{\"action\":\"stop\"}",
        "+262142-12-31T23:59:59Z",
        "9999-12-31",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from("z".repeat(5000))),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(words.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(5000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_event_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err(), "random bytes are no request");
    }

    #[test]
    fn no_json_makes_it_panic_and_every_refusal_stays_short(value in jsons()) {
        if let Err(message) = read(value.to_string().as_bytes()) {
            prop_assert!(message.chars().count() < 12_000, "{} characters", message.len());
            prop_assert!(message.contains("nothing was called"));
        }
    }

    #[test]
    fn one_byte_changed_in_a_good_event_is_refused_or_still_selects_something(at in 0..200_usize, byte in any::<u8>()) {
        let mut bytes = stop_7pm().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(request) = read(&bytes) {
            prop_assert!(!request.selection.tags.0.is_empty());
        }
    }

    #[test]
    fn no_exemption_and_no_mark_makes_the_tag_parsers_panic(value in prop_oneof![".{0,40}", "[+-]?[0-9]{1,7}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{2,12}(Z|[+-][0-9:]{2,6})?)?"]) {
        for zone in ["UTC", "Pacific/Apia", "America/St_Johns"] {
            let _ = ec2_curfew::instance::Exemption::parse(&value, zone.parse().unwrap());
        }
    }
}

/// Answers that begin like EC2's, and then go wrong somewhere.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let good = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
        <requestId>r</requestId><reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>\
        <instanceId>i-0ec20000000000001</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
        <launchTime>2026-11-20T08:00:00.000Z</launchTime><rootDeviceType>ebs</rootDeviceType><tagSet><item><key>curfew</key>\
        <value>yes</value></item></tagSet></item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
        .as_bytes()
        .to_vec();
    let cut = {
        let good = good.clone();
        (0..good.len()).prop_map(move |at| good[..at].to_vec())
    };
    let changed = (0..good.len(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..400), cut, changed]
}

#[tokio::test]
async fn no_answer_of_ec2_makes_the_function_panic_and_none_switches_what_ec2_did_not_show() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let mut runner = TestRunner::deterministic();
    for _ in 0..cases(150) {
        let answer = answers().new_tree(&mut runner).unwrap().current();
        world.sim.fault(Fault::answer("DescribeInstances", 200, answer.clone()).times(1));
        // A dry run, so that even if the answer can be read, the machine still runs for the next case.
        let told = world.invoke(with(stop(), json!({"dry_run": true}))).await;
        assert_ne!(told.verdict(), "Internal", "{:?}", String::from_utf8_lossy(&answer));
        world.sim.clear_faults();
    }
    assert_eq!(world.invoke(stop()).await.names("changed"), names(["web"]));
}

#[tokio::test]
async fn an_answer_of_twenty_megabytes_of_nothing_is_no_end() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let nothing = [b"<DescribeInstancesResponse>".to_vec(), vec![b' '; 20_000_000]].concat();
    world.sim.fault(Fault::answer("DescribeInstances", 200, nothing).times(1));
    assert_eq!(world.invoke(stop()).await.names("changed"), names(["web"]));
}
