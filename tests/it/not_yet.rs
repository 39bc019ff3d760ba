//! What EC2 refuses for now, because parts of it lag behind: it is retried.

use std::time::Duration;

use ec2_sim::Fault;
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn a_spot_request_that_lags_behind_its_instance_is_waited_for() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.spot_lag = Duration::from_secs(5));
    world.sim.add_many(3, |n| ours(&format!("web-{n}")).state("stopped"));
    world.sim.add(ours("spot").spot_persistent());
    world.sim.switch_off("spot");
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 4), "{:#}", told.report);
    assert!(world.count("StartInstances") <= 8, "{} calls", world.count("StartInstances"));
}

#[tokio::test]
async fn a_spot_request_that_never_comes_round_is_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.spot_lag = Duration::from_secs(3600));
    world.sim.add(ours("spot").spot_persistent());
    world.sim.switch_off("spot");
    let told = world.within(Duration::from_secs(8), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "spot")["reason"], "IncorrectSpotRequestState");
}

#[tokio::test]
async fn what_ec2_says_has_never_run_although_it_does_is_stopped_a_little_later() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.running_lag = Duration::from_secs(5));
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("young").state("stopped"));
    world.sim.switch_on("young");
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 4), "{:#}", told.report);
    assert!(world.count("StopInstances") <= 8, "{} calls", world.count("StopInstances"));
}

#[tokio::test]
async fn what_ec2_says_has_never_run_until_the_end_is_unfinished() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.running_lag = Duration::from_secs(3600));
    world.sim.add(ours("young").state("stopped"));
    world.sim.switch_on("young");
    let told = world.within(Duration::from_secs(8), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "young")["reason"], "IncorrectInstanceState");
}

#[tokio::test]
async fn what_is_not_ready_to_hibernate_yet_is_asked_again_and_hibernates() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.hibernation_lag = Duration::from_millis(1500));
    world.sim.add(ours("old").hibernation());
    world.sim.add(ours("young").hibernation().state("stopped"));
    world.sim.switch_on("young");
    let told = world.invoke(with(stop(), json!({"hibernate": true}))).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["old", "young"])),
        "{:#}",
        told.report
    );
    for name in ["old", "young"] {
        assert_eq!(world.sim.machine(name).state_reason.unwrap().code, "Client.UserInitiatedHibernate", "{name}");
    }
}

#[tokio::test]
async fn what_cannot_hibernate_although_it_is_configured_is_stopped_plainly_and_the_report_says_so() {
    let mut world = World::new().await;
    world.sim.add(ours("good").hibernation());
    world.sim.add(ours("bad").hibernation().never_hibernates());
    let told = world.invoke(remembering(with(stop(), json!({"hibernate": true})))).await;
    assert_eq!(
        (told.verdict().as_str(), told.names("changed")),
        ("complete", names(["bad", "good"])),
        "{:#}",
        told.report
    );
    let reason = |name: &str| world.sim.machine(name).state_reason.unwrap().code;
    assert_eq!(reason("good"), "Client.UserInitiatedHibernate");
    assert_eq!(reason("bad"), "Client.UserInitiatedShutdown");
    let plain: Vec<_> =
        world.calls("StopInstances").into_iter().filter(|call| !call.params.contains_key("Hibernate")).collect();
    assert_eq!(plain.len(), 1, "one plain stop");
    let said = told.entry("changed", "bad").to_string() + &told.line("bad").to_string();
    assert!(said.contains("hibernat"), "that it did not hibernate: {said}");
    assert!(!told.entry("changed", "good").to_string().contains("hibernat"));
}

#[tokio::test]
async fn a_refusal_because_of_the_state_that_the_look_bears_out_is_no_lag() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.add(ours("odd"));
    let words = "The instance '{id}' is being replaced.";
    world.sim.fault(Fault::refuse("StopInstances", "IncorrectInstanceState", words).on(["odd"]));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("Incomplete", 3));
    assert_eq!(told.entry("failed", "odd")["code"], "IncorrectInstanceState");
    assert!(told.took < Duration::from_secs(5), "{:?}", told.took);
}
