//! Starts that EC2 has accepted: they are followed until the instance runs, or is known not to.

use std::time::Duration;

use ec2_sim::Fault;
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn a_start_that_falls_back_is_never_called_started() {
    let mut world = World::new().await;
    // Long enough to be seen pending.
    world.sim.settings(|settings| settings.start_takes = Duration::from_millis(1500));
    world.sim.add(
        ours("crypt")
            .state("stopped")
            .falls_back("Client.InternalError", "Client.InternalError: Client error on launch"),
    );
    world.sim.add(ours("web").state("stopped"));
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.message(), "curfew: started 1 of 2; 1 failed: crypt (Client.InternalError)");
    assert_eq!(told.line("crypt")["level"], "ERROR");
}

#[tokio::test]
async fn twelve_hundred_starts_are_followed_a_thousand_to_a_look_and_looks_grow_apart() {
    let raised =
        r#"{"StartInstances": {"calls": {"size": 50, "refill": 20}, "instances": {"size": 5000, "refill": 20}}}"#;
    let mut world = World::with_env(&[("CURFEW_EC2_LIMITS", raised)]).await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(8));
    world.sim.add_many(1200, |n| ours(&format!("web-{n}")).state("stopped"));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(1200)));
    let calls = world.sim.calls();
    let looks: Vec<usize> = calls
        .iter()
        .filter(|call| call.action == "DescribeInstances" && !call.ids.is_empty())
        .map(|call| call.ids.len())
        .collect();
    assert!(looks.windows(2).any(|pair| pair == [1000, 200]), "{looks:?}");
    assert!(looks.len() <= 2 * 5, "{} looks in 8 seconds", looks.len() / 2);
}

#[tokio::test]
async fn a_describe_that_lags_behind_the_start_is_not_taken_for_a_fall_back() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    world.sim.settings(|settings| settings.describe_lag = Duration::from_millis(2500));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(3)));
}

#[tokio::test]
async fn an_id_not_found_while_starts_are_followed_hides_no_other() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    world.sim.fault(
        Fault::refuse("DescribeInstances", "InvalidInstanceID.NotFound", "The instance ID '{ids}' does not exist")
            .on(["web-2"]),
    );
    let told = world.within(Duration::from_secs(5), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.names("changed"), names(["web-1", "web-3"]));
    assert_eq!(told.names("unfinished"), names(["web-2"]));
}

const NO_CAPACITY: (&str, &str) =
    ("Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: Insufficient capacity.");
const SERVER_ERROR: (&str, &str) = ("Server.InternalError", "Server.InternalError: Internal error on launch");

#[tokio::test]
async fn a_start_that_falls_back_for_want_of_room_or_by_an_error_of_ec2s_is_tried_again() {
    for (code, words) in [NO_CAPACITY, SERVER_ERROR] {
        let mut world = World::new().await;
        world.sim.add(ours("web").state("stopped"));
        world.sim.add(ours("db").state("stopped").falls_back(code, words).falls_back_times(1));
        let told = world.invoke(start()).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["db", "web"])), "{code}");
        assert_eq!(world.count("StartInstances"), 2, "{code}");
    }
}

#[tokio::test]
async fn a_start_that_falls_back_for_want_of_room_until_the_end_is_unfinished_and_stays_ours() {
    for (code, words) in [NO_CAPACITY, SERVER_ERROR] {
        let mut world = World::new().await;
        world.sim.add(ours("db").falls_back(code, words));
        world.invoke(remembering(stop())).await;
        world.settled("db", "stopped").await;
        tokio::time::sleep(Duration::from_millis(1100)).await; // LaunchTime has whole seconds: the start shall void the mark
        let told = world.within(Duration::from_secs(6), start_8am()).await;
        assert_eq!(told.verdict(), "Unfinished", "{code}: {:#}", told.report);
        assert_eq!(told.entry("unfinished", "db")["reason"], code);

        world.sim.edit("db", |machine| machine.falls_back = None);
        let told = world.invoke(start_8am()).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["db"])), "{code}");
    }
}

#[tokio::test]
async fn a_start_that_fails_for_its_key_says_which_permission_is_missing_and_whose() {
    for (code, words) in [
        ("Client.InternalError", "Client.InternalError: Client error on launch"),
        ("Server.InternalError", "Client.InternalError: Client error on launch"),
        ("Client.InvalidKMSKey.InvalidState", "Client.InvalidKMSKey.InvalidState: The KMS key is not enabled."),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("own").state("stopped").falls_back(code, words));
        world.sim.add(ours("member").state("stopped").falls_back(code, words).account("111111111111"));
        let accounts = json!({"accounts": ["self", "111111111111"], "role": "curfew-member"});
        let told = world.invoke(with(start(), accounts)).await;
        assert_eq!(told.verdict(), "Incomplete", "{code}: {:#}", told.report);
        let message = |name: &str| told.entry("failed", name)["message"].as_str().unwrap().to_owned();
        for (name, whose) in [("own", "the function's role"), ("member", "curfew-member")] {
            let message = message(name);
            assert!(message.contains("kms:CreateGrant") && message.contains(whose), "{code}: {message}");
        }
        assert!(!message("own").contains("curfew-member") && !message("member").contains("the function's role"));
    }
}
