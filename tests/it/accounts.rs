//! Other accounts: one role in each, trouble in one target affects no other, and no log contains a credential.

use std::collections::BTreeSet;
use std::time::Duration;

use ec2_sim::Fault;
use serde_json::{Value, json};

use crate::world::*;

const OWN: &str = "123456789012";
const ONE: &str = "111111111111";
const TWO: &str = "222222222222";

/// A stop in these accounts.
fn stop_in(accounts: &[&str]) -> Value {
    with(stop(), json!({"name": "office", "accounts": accounts, "role": "curfew-member"}))
}

/// A world with one machine of ours in each account.
async fn with_accounts(accounts: &[&str]) -> World {
    let world = World::new().await;
    for account in accounts {
        world.sim.add(ours(&format!("web-{account}")).account(account));
    }
    world
}

fn targets(told: &Told) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let targets = told.report["targets"].as_array().unwrap().iter();
    targets.map(|it| (text(&it["account"]), text(&it["region"]), it["error"]["code"].clone())).collect()
}

#[tokio::test]
async fn every_account_and_region_named_is_worked_on_in_a_session_that_names_the_schedule() {
    let mut world = World::new().await;
    for account in [OWN, ONE, TWO] {
        for region in ["us-east-1", "eu-west-1"] {
            world.sim.add(ours(&format!("{account}-{region}")).account(account).region(region));
        }
    }
    world.sim.add(ours("not-asked").account("333333333333"));
    let event = with(stop_in(&["self", ONE, TWO]), json!({"regions": ["us-east-1", "eu-west-1"]}));
    let told = world.invoke(event).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(6)));
    assert_eq!(
        targets(&told).into_iter().map(|(account, region, _)| (account, region)).collect::<Vec<_>>(),
        [OWN, ONE, TWO]
            .iter()
            .flat_map(|it| ["us-east-1", "eu-west-1"].map(|region| (it.to_string(), region.to_owned())))
            .collect::<Vec<_>>()
    );
    let assumed: Vec<_> = world.sim.calls().into_iter().filter(|call| call.action == "AssumeRole").collect();
    assert_eq!(assumed.len(), 2, "once an account, and never the function's own");
    assert!(assumed.iter().all(|call| call.params["RoleSessionName"] == "curfew-office"));
    assert_eq!(
        assumed.iter().map(|call| call.params["RoleArn"].clone()).collect::<BTreeSet<_>>(),
        names(["arn:aws:iam::111111111111:role/curfew-member", "arn:aws:iam::222222222222:role/curfew-member"])
    );
    assert_eq!(world.sim.state("not-asked"), "running");
}

#[tokio::test]
async fn who_stopped_mine_is_answered_by_the_sessions_source_identity_which_is_the_invocation() {
    let mut world = with_accounts(&[ONE, TWO]).await;
    world.sim.settings(|settings| settings.anonymous_accounts = vec![TWO.to_owned()]);
    let told = world.invoke(stop_in(&[ONE, TWO])).await;
    // A role that doesn't allow a source identity is assumed without one.
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(2)));
    let identities = |account: &str| -> Vec<_> {
        let calls = world.sim.calls().into_iter();
        let assumed = calls.filter(|call| call.action == "AssumeRole" && call.params["RoleArn"].contains(account));
        assumed.map(|call| call.params.get("SourceIdentity").cloned()).collect()
    };
    assert_eq!(identities(ONE), [Some(told.request_id.clone())]);
    assert_eq!(identities(TWO), [Some(told.request_id.clone()), None]);
}

#[tokio::test]
async fn the_functions_own_account_named_by_its_id_too_is_worked_on_once_and_needs_no_role() {
    let mut world = with_accounts(&[OWN]).await;
    let told = world.invoke(stop_in(&["self", OWN])).await;
    assert_eq!((told.verdict().as_str(), targets(&told).len()), ("complete", 1));
    assert_eq!(world.count("AssumeRole"), 0);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_that_accounts_matter_alone() {
    let mut world = with_accounts(&[OWN, ONE, TWO]).await;
    world.sim.settings(|settings| settings.denied_accounts = vec![ONE.to_owned()]);
    let told = world.invoke(stop_in(&["self", ONE, TWO])).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.report["summary"]["changed"], 2);
    let failed = "office: stopped 2 of 2; 111111111111 us-east-1 failed as a whole: AccessDenied, User: arn:aws:sts::";
    assert!(told.message().starts_with(failed), "{}", told.message());
    let error = &told.report["targets"][1]["error"];
    assert!(error["message"].as_str().unwrap().contains("not authorized to perform: sts:AssumeRole"), "{error}");
    assert_eq!(world.sim.state(&format!("web-{ONE}")), "running");
    let line = told.logs.iter().find(|line| line["code"] == "AccessDenied").unwrap();
    assert_eq!((line["level"].as_str(), line["account"].as_str()), (Some("ERROR"), Some(ONE)));
}

#[tokio::test]
async fn all_regions_are_those_of_each_account() {
    let mut world = with_accounts(&[OWN, ONE]).await;
    world.sim.settings(|settings| settings.regions = vec!["us-east-1".into(), "eu-west-1".into()]);
    let told = world.invoke(with(stop_in(&["self", ONE]), json!({"regions": "all"}))).await;
    assert_eq!((told.verdict().as_str(), targets(&told).len()), ("complete", 4));
    let asked: BTreeSet<_> = world
        .sim
        .calls()
        .into_iter()
        .filter(|call| call.action == "DescribeRegions")
        .map(|call| call.account)
        .collect();
    assert_eq!(asked, names([OWN, ONE]));
}

#[tokio::test]
async fn a_broken_policy_in_one_account_fails_its_instances_and_no_others() {
    let mut world = with_accounts(&[ONE, TWO]).await;
    let denied = "You are not authorized to perform this operation.";
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", denied).account(ONE).status(403));
    let told = world.invoke(stop_in(&[ONE, TWO])).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!((told.names("failed").len(), told.names("changed").len()), (1, 1));
    assert_eq!(told.report["targets"][0]["failed"][0]["code"], "UnauthorizedOperation");
}

#[tokio::test]
async fn a_throttled_sts_is_waited_for_and_one_that_keeps_failing_ends_unfinished() {
    let mut world = with_accounts(&[ONE]).await;
    world.sim.fault(Fault::refuse("AssumeRole", "Throttling", "Rate exceeded").status(400).times(4));
    assert_eq!(world.invoke(stop_in(&[ONE])).await.verdict(), "complete");
    world.sim.fault(Fault::refuse("AssumeRole", "InternalFailure", "Not now.").status(500));
    let told = world.within(Duration::from_secs(8), stop_in(&[ONE])).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(targets(&told)[0].2, "InternalFailure");
}

#[tokio::test]
async fn max_changes_counts_over_all_accounts() {
    let mut world = with_accounts(&[OWN, ONE, TWO]).await;
    let told = world.invoke(with(stop_in(&["self", ONE, TWO]), json!({"max_changes": 2}))).await;
    assert_eq!(told.verdict(), "TooManyChanges");
    assert_eq!(world.count("StopInstances"), 0);
}

#[tokio::test]
async fn nothing_matched_in_many_accounts_says_so() {
    let mut world = World::new().await;
    let told = world.invoke(stop_in(&["self", ONE])).await;
    assert_eq!(
        told.message(),
        "office: nothing to stop, no instance in 2 accounts has curfew=yes; is that what was meant?"
    );
}

#[tokio::test]
async fn no_credential_gets_into_a_log_at_any_level() {
    for level in ["INFO", "DEBUG", "TRACE"] {
        let mut world = World::with_env(&[
            ("AWS_LAMBDA_LOG_LEVEL", level),
            ("AWS_SECRET_ACCESS_KEY", "theSecretKeyOfTheFunctionItself"),
            ("AWS_SESSION_TOKEN", "theSessionTokenOfTheFunctionItself"),
        ])
        .await;
        world.sim.add(ours("web").account(ONE));
        world.sim.settings(|settings| settings.denied_accounts = vec![TWO.to_owned()]);
        world.sim.fault(Fault::refuse("StopInstances", "InternalError", "Not now.").status(500).times(1));
        let invocation = world.host.invoke(stop_in(&[ONE, TWO]).to_string(), AMPLE).await;
        let log = invocation.logs.join("\n");
        assert!(log.contains("stopped 1 of 1"), "{level}: {log}");
        let mut secrets = world.sim.secrets();
        assert!(secrets.len() >= 2, "a key and a token were given");
        secrets.push("theSecretKeyOfTheFunctionItself".to_owned());
        secrets.push("theSessionTokenOfTheFunctionItself".to_owned());
        for secret in secrets {
            // A long part of it is as bad, and is found even if the text is broken into lines.
            let part: String = secret.chars().take(20).collect();
            assert!(!log.contains(&part), "{level}: {part}… is in the log");
        }
    }
}

#[tokio::test]
async fn of_forty_targets_eleven_in_trouble_cost_no_other_its_night() {
    let accounts: Vec<String> = (0..40).map(|n| format!("{:012}", 100_000_000_000_u64 + n)).collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let mut world = with_accounts(&accounts).await;
    let (hang, rest) = accounts.split_at(5);
    let (throttle, rest) = rest.split_at(3);
    let (denied, rest) = rest.split_at(2);
    let (cut, well) = rest.split_at(1);
    for account in hang {
        world.sim.fault(Fault::hang("DescribeInstances").account(account));
    }
    for account in throttle {
        world
            .sim
            .fault(Fault::refuse("StopInstances", "RequestLimitExceeded", "Too many.").account(account).status(503));
    }
    world.sim.settings(|settings| settings.denied_accounts = denied.iter().map(ToString::to_string).collect());
    for account in cut {
        world.sim.fault(Fault::cut("DescribeInstances").account(account));
    }
    let told = world.within(Duration::from_secs(20), stop_in(&accounts)).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!((told.report["summary"]["changed"].clone(), well.len()), (json!(29), 29));
    let errors = |code: &str| targets(&told).iter().filter(|(_, _, it)| it == code).count();
    assert_eq!((errors("AccessDenied"), errors("NoConnection")), (2, 1), "{:#?}", targets(&told));
    assert_eq!(errors("Timeout") + errors("Deadline"), 5, "{:#?}", targets(&told));
    let left: Vec<Value> = told.entries("unfinished");
    assert!(left.len() == 3 && left.iter().all(|it| it["reason"] == "RequestLimitExceeded"), "{left:#?}");
}
