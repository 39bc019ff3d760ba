//! Property tests of the plan, with random fleets and requests.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ec2_curfew::instance::{Instance, InstanceId, RootDevice, State, StateReason, rfc3339};
use ec2_curfew::outcome::Reason;
use ec2_curfew::plan::{Decision, decide, plan, states};
use ec2_curfew::request::{Action, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOON: &str = "2026-11-20T12:00:00Z";

fn noon() -> DateTime<Utc> {
    NOON.parse().unwrap()
}

fn instances() -> impl Strategy<Value = Vec<Instance>> {
    let state = prop_oneof![
        4 => Just(State::Running),
        4 => Just(State::Stopped),
        1 => Just(State::Pending),
        1 => Just(State::Stopping),
        1 => Just(State::ShuttingDown),
        1 => Just(State::Terminated),
        1 => Just(State::Unknown("odd".into())),
    ];
    let tag = |key: &'static str, values: &'static [&'static str]| {
        proptest::option::weighted(0.4, proptest::sample::select(values))
            .prop_map(move |value| value.map(|value| (key.to_owned(), value.to_owned())))
    };
    let tags = (
        proptest::option::weighted(0.8, proptest::sample::select(&["yes", "no", "Yes"][..]))
            .prop_map(|v| v.map(|v| ("curfew".to_owned(), v.to_owned()))),
        tag("Environment", &["dev", "test", "prod"]),
        tag("curfew:exempt", &["", "true", "false", "2026-11-20T12:30:00Z", "2026-11-20T11:30:00Z", "2026-11-19"]),
        tag("curfew:stopped-at", &["2026-11-20T07:00:00Z", "2026-11-20T11:59:59Z", "nonsense", ""]),
        tag("aws:autoscaling:groupName", &["workers"]),
        tag("curfew:hours", &["office"]),
    );
    let instance =
        (state, tags, -300..300_i64, any::<bool>(), proptest::bool::weighted(0.1), proptest::bool::weighted(0.2))
            .prop_map(|(state, tags, minutes, spot, instance_store, fell_back)| {
                let (a, b, c, d, e, f) = tags;
                let code = if fell_back { "Client.InternalError" } else { "Client.UserInitiatedShutdown" };
                Instance {
                    id: InstanceId::parse("i-00000000").unwrap(),
                    tags: [a, b, c, d, e, f].into_iter().flatten().collect(),
                    state,
                    state_reason: Some(StateReason { code: code.to_owned(), message: String::new() }.into()),
                    launch_time: noon() + TimeDelta::minutes(minutes),
                    instance_type: "t3.micro".into(),
                    zone: "us-east-1a".into(),
                    root_device: if instance_store { RootDevice::InstanceStore } else { RootDevice::Ebs },
                    spot,
                    hibernation: false,
                    operator: None,
                }
            });
    proptest::collection::vec(instance, 0..40).prop_map(|mut instances| {
        for (n, instance) in instances.iter_mut().enumerate() {
            instance.id = InstanceId::parse(&format!("i-{n:08x}")).unwrap();
        }
        instances
    })
}

fn requests() -> impl Strategy<Value = Value> {
    let selection = prop_oneof![
        Just(json!({"tags": {"curfew": "yes"}})),
        Just(json!({"tags": {"curfew": ["yes", "no"], "Environment": "*"}})),
        Just(json!({"instance_ids": ["i-00000000", "i-00000003", "i-000000ff"]})),
        Just(json!({"tags": {"curfew": "y*"}, "instance_ids": ["i-00000001", "i-00000002"]})),
    ];
    let common = (selection, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    common.prop_map(|(mut request, stop, remember, dry_run, except, scheduled)| {
        request["action"] = json!(if stop { "stop" } else { "start" });
        request["remember"] = json!(remember);
        request["dry_run"] = json!(dry_run);
        if except {
            request["except_tags"] = json!({"Environment": "pro?"});
        }
        if scheduled {
            request["scheduled_time"] = json!(NOON);
        }
        request
    })
}

fn parse(request: &Value) -> Request {
    Request::parse(request.as_object().unwrap().clone(), None, noon()).unwrap()
}

/// Matching, implemented a second time and differently: plain loops over the JSON that was sent.
fn selected(request: &Value, instance: &Instance) -> bool {
    let tags_match = request.get("tags").is_none_or(|tags| {
        tags.as_object().unwrap().iter().all(|(key, values)| {
            let values: Vec<&str> = values.as_array().map_or_else(
                || vec![values.as_str().unwrap()],
                |list| list.iter().map(|v| v.as_str().unwrap()).collect(),
            );
            instance.tags.get(key).is_some_and(|tag| {
                values.iter().any(|value| match value.strip_suffix('*') {
                    Some(prefix) => tag.starts_with(prefix),
                    None => tag == *value,
                })
            })
        })
    });
    let id_matches =
        request.get("instance_ids").is_none_or(|ids| ids.as_array().unwrap().contains(&json!(instance.id.as_str())));
    tags_match && id_matches
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside_the_selection_is_ever_in_a_plan(request in requests(), fleet in instances()) {
        let parsed = parse(&request);
        let plan = plan(&parsed, fleet.clone(), noon());
        for (instance, _) in &plan.decided {
            prop_assert!(selected(&request, instance), "{} in the plan of {}", instance.id, request);
        }
        // And no selected instance in a state where there is something to do is missing from it.
        let here: Vec<&InstanceId> = plan.decided.iter().map(|(instance, _)| &instance.id).collect();
        for instance in fleet.iter().filter(|instance| selected(&request, instance) && states(parsed.action).contains(&instance.state)) {
            prop_assert!(here.contains(&&instance.id), "{} missing from the plan of {}", instance.id, request);
        }
    }

    #[test]
    fn what_is_switched_has_no_reason_to_be_left_alone(request in requests(), fleet in instances()) {
        let parsed = parse(&request);
        for (instance, decision) in plan(&parsed, fleet, noon()).decided {
            if !matches!(decision, Decision::Do(_) | Decision::Await(_)) {
                continue;
            }
            let tag = |key: &str| instance.tags.get(key);
            prop_assert!(!matches!(tag("curfew:exempt"), Some("" | "true" | "false" | "2026-11-20T12:30:00Z")));
            prop_assert!(tag("aws:autoscaling:groupName").is_none());
            prop_assert!(tag("curfew:hours").is_none() || request["instance_ids"].is_array());
            prop_assert!(request.get("except_tags").is_none() || tag("Environment") != Some("prod"));
            prop_assert_eq!(instance.root_device, RootDevice::Ebs);
            prop_assert!(!instance.state.is_gone());
            match parsed.action {
                Action::Stop { .. } => prop_assert!(instance.launch_time <= noon(), "started since"),
                Action::Start if parsed.remember => prop_assert!(tag("curfew:stopped-at").is_some_and(|mark| mark.starts_with("2026")), "no mark"),
                Action::Start | Action::Reconcile { .. } => {}
            }
        }
    }

    #[test]
    fn the_mark_that_a_stop_writes_counts_until_the_next_start(request in requests(), fleet in instances(), minutes in 1..600_i64) {
        let mut request = request;
        request["action"] = json!("stop");
        request["remember"] = json!(true);
        request["dry_run"] = json!(false);
        for (instance, decision) in plan(&parse(&request), fleet, noon()).decided {
            if !matches!(decision, Decision::Do(_)) {
                continue;
            }
            let mut stopped = instance.clone();
            let others = instance.tags.iter().filter(|(key, _)| *key != "curfew:stopped-at");
            let mark = rfc3339(noon());
            stopped.tags = others.chain([("curfew:stopped-at", mark.as_str())]).collect();
            stopped.state = State::Stopped;
            prop_assert!(stopped.is_marked(), "stopped, and could not be started again: {instance:?}");
            let mut touched = stopped.clone();
            touched.launch_time = noon() + TimeDelta::minutes(minutes);
            prop_assert!(!touched.is_marked(), "started since by whomever");
        }
    }

    #[test]
    fn planning_twice_equals_once_and_a_plan_carried_out_leaves_nothing_to_do(request in requests(), fleet in instances()) {
        let parsed = parse(&request);
        let first = plan(&parsed, fleet.clone(), noon());
        prop_assert_eq!(&first, &plan(&parsed, fleet.clone(), noon()));
        prop_assert_eq!(first.matched(), first.decided.len() + first.absent.len());
        let switched: BTreeMap<&InstanceId, ()> = first.decided.iter().filter(|(_, d)| matches!(d, Decision::Do(_))).map(|(i, _)| (&i.id, ())).collect();
        let after: Vec<Instance> = fleet.into_iter().map(|mut instance| {
            if switched.contains_key(&instance.id) {
                instance.state = match parsed.action { Action::Stop { .. } => State::Stopped, _ => State::Running };
            }
            instance
        }).collect();
        for (instance, decision) in plan(&parsed, after, noon()).decided {
            prop_assert!(!matches!(decision, Decision::Do(_)), "{} again", instance.id);
        }
    }
}

#[test]
fn an_unknown_state_is_left_alone_whatever_else_is_true_of_it() {
    let request = parse(&json!({"action": "stop", "tags": {"curfew": "yes"}}));
    let instance = Instance {
        id: InstanceId::parse("i-00000000").unwrap(),
        tags: [("curfew", "yes")].into_iter().collect(),
        state: State::parse("defragmenting"),
        state_reason: None,
        launch_time: noon() - TimeDelta::days(1),
        instance_type: "".into(),
        zone: "".into(),
        root_device: RootDevice::Ebs,
        spot: false,
        hibernation: false,
        operator: None,
    };
    let Decision::Leave(skip) = decide(&request, &instance, noon()) else { panic!("not left alone") };
    assert_eq!(skip.reason, Reason::UnknownState);
}
