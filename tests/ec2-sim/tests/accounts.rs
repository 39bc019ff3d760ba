//! Other accounts: what is apart in them, and how STS lets one in.

mod ask;

use std::time::Duration;

use ask::{Answer, ask, ask_as, ask_in, call, later};
use chrono::{DateTime, TimeDelta, Utc};
use ec2_sim::{Fault, Fleet, Machine, Sim};

const OWN: &str = "123456789012";
const OTHER: &str = "111122223333";

fn assume(account: &str) -> String {
    format!(
        "AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::{account}:role/ops/curfew-member\
         &RoleSessionName=curfew"
    )
}

/// An access key id and its session token.
struct Keys(String, String);

impl Keys {
    fn of(answer: &Answer) -> Self {
        Self(answer.texts("AccessKeyId").concat(), answer.texts("SessionToken").concat())
    }

    async fn for_account(account: &str, sim: &Sim) -> Self {
        Self::of(&ask(sim, &assume(account)).await)
    }

    async fn ask_in(&self, region: &str, sim: &Sim, call: &str) -> Answer {
        ask_as((&self.0, &self.1), region, sim, call).await.expect("an answer")
    }

    async fn ask(&self, sim: &Sim, call: &str) -> Answer {
        self.ask_in("us-east-1", sim, call).await
    }
}

#[tokio::test]
async fn an_account_knows_only_its_own_machines() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let theirs = sim.add(Machine::named("web").account(OTHER));
    sim.add(Machine::named("web").account(OTHER).region("eu-west-1"));
    let keys = Keys::for_account(OTHER, &sim).await;
    let stop = call("StopInstances", &sim, &["111122223333/us-east-1/web"]);
    let tag = format!("CreateTags&ResourceId.1={theirs}&Tag.1.Key=a&Tag.1.Value=b");

    for call in [&stop, &stop.replace("Stop", "Start"), &stop.replace("Stop", "Describe"), &tag] {
        assert_eq!(ask(&sim, call).await.code(), "InvalidInstanceID.NotFound", "{call}");
    }
    assert_eq!(keys.ask_in("eu-west-1", &sim, &stop).await.code(), "InvalidInstanceID.NotFound");
    let listed = keys.ask(&sim, "DescribeInstances").await;
    assert_eq!((listed.texts("instanceId"), listed.texts("ownerId")), (vec![theirs.as_str()], vec![OTHER]));
    assert_eq!(ask(&sim, "DescribeInstances").await.texts("ownerId"), [OWN]);
    let elsewhere = ask_in("eu-west-1", &sim, "DescribeInstances").await.expect("an answer");
    assert!(elsewhere.texts("ownerId").is_empty());

    assert_eq!(keys.ask(&sim, &stop).await.code(), "ok");
    later(&sim);
    let states = ["123456789012/web", "111122223333/us-east-1/web", "eu-west-1/web"].map(|name| sim.state(name));
    assert_eq!(states, ["running", "stopped", "running"]);
    let regions = keys.ask(&sim, "DescribeRegions").await;
    assert_eq!(regions.texts("regionName"), ask(&sim, "DescribeRegions").await.texts("regionName"));
}

#[tokio::test]
async fn a_machine_put_into_another_account_is_found_there() {
    let sim = Sim::start().await;
    let id = sim.add(Machine::named("web").state("stopped"));
    let keys = Keys::for_account(OTHER, &sim).await;
    ask(&sim, &call("StartInstances", &sim, &["web"])).await;

    sim.edit("web", |machine| machine.account = OTHER.into());

    assert!(ask(&sim, "DescribeInstances").await.texts("instanceId").is_empty());
    assert_eq!(keys.ask(&sim, "DescribeInstances").await.texts("instanceId"), [id]);
    later(&sim);
    assert_eq!(sim.state("web"), "running", "it was on its way");
}

#[tokio::test]
async fn a_role_gives_credentials_for_an_hour_and_the_same_ones_every_time() {
    let sim = Sim::start().await;
    assert!(sim.secrets().is_empty());

    let answer = ask(&sim, &assume(OTHER)).await;

    assert_eq!(answer.0, 200);
    assert!(answer.1.contains(r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">"#));
    let arn = "arn:aws:sts::111122223333:assumed-role/curfew-member/curfew";
    assert_eq!(answer.texts("Arn"), [arn]);
    let id = answer.texts("AssumedRoleId")[0];
    assert!(id.starts_with("AROA") && id.ends_with(":curfew") && id.len() == 28, "{id}");
    let (key, secret, token) =
        (answer.texts("AccessKeyId")[0], answer.texts("SecretAccessKey")[0], answer.texts("SessionToken")[0]);
    assert!(key.starts_with("ASIA111122223333") && key.len() == 20, "{key}");
    assert_eq!((secret.len(), token.len()), (40, 400));
    assert_eq!(sim.secrets(), [secret, token]);
    let expires = |answer: &Answer| -> TimeDelta {
        let at: DateTime<Utc> = answer.texts("Expiration")[0].parse().expect("a time");
        at - Utc::now()
    };
    let hour = TimeDelta::hours(1);
    assert!(expires(&answer) <= hour && expires(&answer) > hour - TimeDelta::minutes(1));

    let again = ask(&sim, &format!("{}&DurationSeconds=900", assume(OTHER))).await;
    assert_eq!((again.texts("AccessKeyId"), again.texts("SessionToken")), (vec![key], vec![token]));
    assert!(expires(&again) <= TimeDelta::minutes(15));
    let another = Keys::for_account("444455556666", &sim).await;
    assert!(another.0.starts_with("ASIA444455556666") && another.1 != token);
    assert_eq!(sim.secrets().len(), 4);
}

#[tokio::test]
async fn credentials_live_longer_than_a_fleet() {
    let sim = Sim::start().await;
    let keys = Keys::for_account(OTHER, &sim).await;

    sim.load(Fleet { machines: vec![Machine::named("web").account(OTHER)], ..Fleet::default() });

    assert_eq!(keys.ask(&sim, "DescribeInstances").await.texts("instanceId").len(), 1);
    assert_eq!(sim.secrets().len(), 2);
}

#[tokio::test]
async fn a_key_that_nobody_got_or_one_without_its_token_opens_nothing() {
    let sim = Sim::start().await;
    sim.add(Machine::named("web"));
    let (theirs, third) = (Keys::for_account(OTHER, &sim).await, Keys::for_account("444455556666", &sim).await);
    let ours = Keys::for_account(OWN, &sim).await;
    let stop = call("StopInstances", &sim, &["web"]);
    sim.forget_calls();

    for (key, token) in [("ASIA777788889999AAAA", theirs.1.as_str()), (&theirs.0, ""), (&theirs.0, &third.1)] {
        let refused = ask_as((key, token), "us-east-1", &sim, &stop).await.expect("an answer");
        assert_eq!((refused.0, refused.code()), (401, "AuthFailure"), "{key}");
        let text = "AWS was not able to validate the provided access credentials";
        assert_eq!(refused.texts("Message"), [text]);
        let refused = ask_as((key, token), "us-east-1", &sim, &assume(OWN)).await.expect("an answer");
        assert_eq!((refused.0, refused.code()), (403, "InvalidClientTokenId"), "{key}");
    }
    let accounts: Vec<_> = sim.calls().into_iter().map(|call| call.account).collect();
    assert_eq!(accounts, ["", OWN, OTHER, OWN, OTHER, OWN]);
    assert_eq!(sim.state("web"), "running");
    assert_eq!(ours.ask(&sim, &stop).await.code(), "ok", "a role of the own account");
    let any = ask_as(("AKIDTEST", "any"), "us-east-1", &sim, &stop).await.expect("an answer");
    assert_eq!(any.code(), "ok", "any other key is the own account's");
}

#[tokio::test]
async fn a_denied_account_says_who_may_not_assume_what() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.denied_accounts = vec![OTHER.into()]);

    let refused = ask(&sim, &assume(OTHER)).await;

    assert_eq!((refused.0, refused.code(), refused.texts("Type")), (403, "AccessDenied", vec!["Sender"]));
    assert!(refused.1.contains(r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>"#));
    assert_eq!(refused.texts("RequestId").len(), 1);
    let message = "User: arn:aws:sts::123456789012:assumed-role/curfew/curfew is not authorized to perform: \
        sts:AssumeRole on resource: arn:aws:iam::111122223333:role/ops/curfew-member";
    assert_eq!(refused.texts("Message"), [message]);
    assert!(sim.secrets().is_empty());
    let third = Keys::for_account("444455556666", &sim).await;
    let chained = third.ask(&sim, &assume(OTHER)).await;
    let who = "User: arn:aws:sts::444455556666:assumed-role/curfew-member/curfew is not";
    assert!(chained.texts("Message")[0].starts_with(who), "{}", chained.1);
}

#[tokio::test]
async fn sts_refuses_what_it_cannot_read_and_sessions_beyond_an_hour() {
    let sim = Sim::start().await;
    let whole = assume(OTHER);
    for (call, message) in [
        (whole.replace("role/ops/curfew-member", "user/curfew"), "Request ARN is invalid"),
        (whole.replace(OTHER, "1111"), "Request ARN is invalid"),
        (whole.replace("RoleArn", "Role"), "Value null at 'roleArn' failed to satisfy constraint"),
        (whole.replace("RoleSessionName", "Name"), "Value null at 'roleSessionName' failed to satisfy constraint"),
        (whole.replace("=curfew", "=a/b"), "Value 'a/b' at 'roleSessionName' failed to satisfy constraint"),
        (format!("{whole}&SourceIdentity=a/b"), "Value 'a/b' at 'sourceIdentity' failed to satisfy constraint"),
        (format!("{whole}&DurationSeconds=899"), "Value '899' at 'durationSeconds' failed to satisfy constraint"),
        (
            format!("{whole}&DurationSeconds=3601"),
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
        ),
    ] {
        let refused = ask(&sim, &call).await;
        assert_eq!((refused.0, refused.code()), (400, "ValidationError"), "{call}");
        assert!(refused.texts("Message")[0].contains(message), "{}", refused.1);
    }
    assert!(sim.secrets().is_empty());
}

#[tokio::test]
async fn a_role_that_admits_no_source_identity_says_so_and_is_assumed_without() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.anonymous_accounts = vec![OTHER.to_owned()]);
    let refused = ask(&sim, &format!("{}&SourceIdentity=run-1", assume(OTHER))).await;
    assert_eq!((refused.0, refused.code()), (403, "AccessDenied"));
    let message = &refused.texts("Message")[0];
    assert!(
        message.contains("is not authorized to perform: sts:SetSourceIdentity on resource: arn:aws:iam::"),
        "{message}"
    );
    assert_eq!(ask(&sim, &assume(OTHER)).await.code(), "ok");
}

#[tokio::test]
async fn a_call_is_logged_with_its_account_and_an_assumed_role_with_the_roles() {
    let sim = Sim::start().await;
    let keys = Keys::for_account(OTHER, &sim).await;
    keys.ask_in("eu-west-1", &sim, "DescribeInstances").await;
    ask(&sim, "DescribeInstances").await;

    let calls = sim.calls();

    let told: Vec<_> =
        calls.iter().map(|call| [&call.action, &call.account, &call.region].map(String::as_str)).collect();
    assert_eq!(
        told,
        [
            ["AssumeRole", OTHER, "us-east-1"],
            ["DescribeInstances", OTHER, "eu-west-1"],
            ["DescribeInstances", OWN, "us-east-1"],
        ]
    );
    assert_eq!(calls[0].code, "ok");
    assert_eq!(calls[0].params["RoleArn"], "arn:aws:iam::111122223333:role/ops/curfew-member");
    assert_eq!(calls[0].params["RoleSessionName"], "curfew");
    let logged = format!("{calls:?}");
    assert!(sim.secrets().iter().all(|secret| !logged.contains(secret)));
}

#[tokio::test]
async fn a_fault_may_be_about_one_account_and_about_assuming_its_role() {
    let sim = Sim::start().await;
    let keys = Keys::for_account(OTHER, &sim).await;

    sim.fault(Fault::refuse("DescribeInstances", "Nope", "No.").account(OTHER));
    assert_eq!(keys.ask(&sim, "DescribeInstances").await.code(), "Nope");
    assert_eq!(keys.ask(&sim, "DescribeRegions").await.code(), "ok");
    assert_eq!(ask(&sim, "DescribeInstances").await.code(), "ok");

    sim.clear_faults();
    sim.fault(Fault::refuse("AssumeRole", "Throttling", "Rate exceeded").account(OTHER).times(1));
    sim.fault(Fault::refuse("AssumeRole", "InternalFailure", "Sorry.").status(500).account(OTHER).times(1));
    assert_eq!(ask(&sim, &assume("444455556666")).await.code(), "ok");
    let throttled = ask(&sim, &assume(OTHER)).await;
    assert_eq!((throttled.0, throttled.code(), throttled.texts("Type")), (400, "Throttling", vec!["Sender"]));
    let sorry = ask(&sim, &assume(OTHER)).await;
    assert_eq!((sorry.0, sorry.code(), sorry.texts("Type")), (500, "InternalFailure", vec!["Receiver"]));
    assert_eq!(ask(&sim, &assume(OTHER)).await.code(), "ok");

    sim.fault(Fault::lose_answer("AssumeRole"));
    assert!(ask_in("us-east-1", &sim, &assume(OTHER)).await.is_err());
    assert_eq!(
        sim.calls().last().map(|call| (call.account.clone(), call.code.clone())),
        Some((OTHER.into(), "lost".into()))
    );
}

#[tokio::test]
async fn every_account_has_its_own_buckets_and_its_own_limit() {
    let sim = Sim::start().await;
    sim.settings(|settings| {
        (settings.throttle, settings.throttle_refill, settings.vcpu_limit) = (true, 0.0, Some(1));
    });
    for account in [OWN, OTHER] {
        sim.add(Machine::named("on").account(account));
        sim.add(Machine::named("off").account(account).state("stopped"));
    }
    sim.edit("111122223333/on", |machine| machine.state = "stopped".into());
    let keys = Keys::for_account(OTHER, &sim).await;
    let ours = call("StartInstances", &sim, &["123456789012/off"]);
    let theirs = call("StartInstances", &sim, &["111122223333/off"]);

    for _ in 0..5 {
        assert_eq!(ask(&sim, &ours).await.code(), "VcpuLimitExceeded");
    }
    assert_eq!(ask(&sim, &ours).await.code(), "RequestLimitExceeded");

    assert_eq!(keys.ask(&sim, &theirs).await.code(), "ok");
    assert_eq!(sim.state("111122223333/off"), "pending");
}

#[tokio::test]
async fn a_policy_on_a_tag_names_the_role_that_asked() {
    let sim = Sim::start().await;
    let id = sim.add(Machine::named("web").account(OTHER));
    sim.settings(|settings| {
        (settings.only_tagged, settings.only_tagged_names) = (Some(("curfew".into(), "yes".into())), true);
    });
    let keys = Keys::for_account(OTHER, &sim).await;

    let refused = keys.ask(&sim, &call("StopInstances", &sim, &["web"])).await;

    let words = format!(
        "User: arn:aws:sts::111122223333:assumed-role/curfew-member/curfew is not authorized to perform: \
         ec2:StopInstances on resource: arn:aws:ec2:us-east-1:111122223333:instance/{id} because"
    );
    assert!(refused.texts("Message")[0].contains(&words), "{}", refused.1);
}

#[tokio::test]
async fn a_fleets_json_says_accounts_denials_and_latency() {
    let sim = Sim::start().await;
    let fleet = r#"{
        "machines": [
            { "name": "web", "count": 2, "account": "111122223333" },
            { "name": "web", "count": 3, "account": "111122223333", "region": "eu-west-1" },
            { "name": "db" }
        ],
        "faults": [{ "account": "444455556666", "then": { "refuse": { "code": "Nope", "message": "no" } } }],
        "settings": { "denied_accounts": ["777788889999"], "latency_ms": 1 }
    }"#;
    let put = reqwest::Client::new().put(format!("{}/_sim/fleet", sim.url())).body(fleet).send().await;
    assert_eq!(put.expect("an answer").status(), 204);

    let keys = Keys::for_account(OTHER, &sim).await;

    let ids = keys.ask_in("eu-west-1", &sim, "DescribeInstances").await;
    assert_eq!(ids.texts("instanceId"), ["i-0ec20000000000003", "i-0ec20000000000004", "i-0ec20000000000005"]);
    assert_eq!(sim.machine("db").account, OWN);
    assert_eq!(ask(&sim, &assume("444455556666")).await.code(), "Nope");
    assert_eq!(ask(&sim, &assume("777788889999")).await.code(), "AccessDenied");
    sim.settings(|settings| assert_eq!(settings.latency, Duration::from_millis(1)));
    let listed = reqwest::get(format!("{}/_sim/instances", sim.url())).await.expect("an answer");
    let listed: serde_json::Value = listed.json().await.expect("JSON");
    assert_eq!((&listed[0]["account"], &listed[5]["name"]), (&OTHER.into(), &"db".into()));
}
