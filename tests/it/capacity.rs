//! Too little capacity, and the account's limits: as many start as fit, and the others wait without delaying them.

use std::time::Duration;

use ec2_sim::{Fault, Shortage};
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn capacity_in_one_zone_delays_no_other_and_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("a").state("stopped").zone("us-east-1a"));
    world.sim.add(ours("b").state("stopped").zone("us-east-1b"));
    let message =
        "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested (us-east-1a).";
    world.sim.fault(Fault::refuse("StartInstances", "InsufficientInstanceCapacity", message).on(["a"]).status(500));
    let told = world.within(Duration::from_secs(12), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.names("changed"), names(["b"]));
    assert_eq!(told.entry("unfinished", "a")["reason"], "InsufficientInstanceCapacity");
}

#[tokio::test]
async fn the_accounts_limit_lets_through_what_fits_and_is_not_hammered() {
    let mut world = World::new().await;
    world.sim.add_many(100, |n| ours(&format!("web-{n:03}")).state("stopped").kind("m5.large"));
    world.sim.add(ours("small").state("stopped"));
    let over: Vec<String> = (31..=100).map(|n| format!("web-{n:03}")).collect();
    world.sim.fault(
        Fault::refuse(
            "StartInstances",
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit allows.",
        )
        .on(over),
    );
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!((&told.report["summary"]["changed"], &told.report["summary"]["failed"]), (&json!(31), &json!(70)));
    assert!(told.names("changed").contains("small"), "another instance type has its own limit");
    assert!(world.count("StartInstances") <= 16, "{} calls", world.count("StartInstances"));
}

#[tokio::test]
async fn a_limit_of_on_demand_instances_is_none_of_spot_instances() {
    let mut world = World::new().await;
    world.sim.add(ours("on-demand").state("stopped"));
    world.sim.add(ours("spot").state("stopped").spot_persistent());
    world.sim.fault(Fault::refuse("StartInstances", "VcpuLimitExceeded", "No more.").on(["on-demand"]));
    let told = world.invoke(start()).await;
    assert_eq!((told.names("changed"), told.names("failed")), (names(["spot"]), names(["on-demand"])));
}

#[tokio::test]
async fn a_shortage_that_ends_is_waited_for_and_delays_no_other() {
    let mut world = World::new().await;
    for (name, zone, kind) in
        [("a", "us-east-1a", "t3.micro"), ("b", "us-east-1b", "t3.micro"), ("c", "us-east-1a", "m5.large")]
    {
        world.sim.add(ours(name).state("stopped").zone(zone).kind(kind));
    }
    // The batch is refused, then the group of that zone and type; the third try finds capacity.
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").times(2)]);
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["a", "b", "c"])));
    let started = |name: &str| world.sim.machine(name).launch_time;
    assert!(started("b") < started("a") && started("c") < started("a"), "the others went through at once");
}

#[tokio::test]
async fn no_host_capacity_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("a").state("stopped"));
    world.sim.fault(Fault::refuse("StartInstances", "InsufficientHostCapacity", "Insufficient capacity.").status(500));
    let told = world.within(Duration::from_secs(8), start()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "a")["reason"], "InsufficientHostCapacity");
    assert_eq!(world.sim.state("a"), "stopped");
}

#[tokio::test]
async fn within_a_vcpu_limit_as_many_start_as_fit() {
    let mut world = World::new().await;
    world.sim.add_many(60, |n| ours(&format!("web-{n:02}")).state("stopped"));
    world.sim.settings(|settings| settings.vcpu_limit = Some(37));
    let told = world.invoke(start()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!((&told.report["summary"]["changed"], &told.report["summary"]["failed"]), (&json!(37), &json!(23)));
    assert!(told.entries("failed").iter().all(|failed| failed["code"] == "VcpuLimitExceeded"));
    assert!(world.count("StartInstances") <= 14, "{} calls", world.count("StartInstances"));
}

/// Twenty stopped instances of one zone and type, in an account with raised limits, so that the calls that it takes to
/// find the right one don't have to wait for EC2's bucket of five.
async fn twenty() -> World {
    let raised =
        r#"{"StartInstances": {"calls": {"size": 50, "refill": 20}, "instances": {"size": 1000, "refill": 20}}}"#;
    let world = World::with_env(&[("CURFEW_EC2_LIMITS", raised)]).await;
    world.sim.add_many(20, |n| ours(&format!("web-{n}")).state("stopped"));
    world
}

#[tokio::test]
async fn one_without_room_keeps_no_other_of_its_zone_and_type_from_starting() {
    let mut world = twenty().await;
    let words =
        "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested (us-east-1a).";
    world.sim.fault(Fault::refuse("StartInstances", "InsufficientInstanceCapacity", words).status(500).on(["web-7"]));
    let told = world.within(Duration::from_secs(14), start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("Unfinished", 19));
    assert_eq!(told.entry("unfinished", "web-7")["reason"], "InsufficientInstanceCapacity");
    assert!(world.count("StartInstances") <= 20, "{} calls", world.count("StartInstances"));
}

#[tokio::test]
async fn with_room_for_twelve_of_twenty_twelve_start() {
    let mut world = twenty().await;
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").room(12)]);
    let told = world.within(Duration::from_secs(14), start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("Unfinished", 12));
    let left = told.entries("unfinished");
    assert!(left.len() == 8 && left.iter().all(|it| it["reason"] == "InsufficientInstanceCapacity"), "{left:#?}");
    assert!(world.count("StartInstances") <= 50, "{} calls", world.count("StartInstances"));
}

#[tokio::test]
async fn the_rest_starts_as_soon_as_there_is_room() {
    let mut world = twenty().await;
    let room_at = world.sim.clock() + Duration::from_secs(6);
    world.sim.settings(|settings| {
        settings.shortages = vec![Shortage::new("us-east-1a", "t3.micro").room(12).more(room_at, 8)];
    });
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 20));
    let last = world.sim.machines().iter().map(|machine| machine.launch_time).max().unwrap();
    assert!(last <= room_at + Duration::from_secs(15), "there was room at {room_at}, and the last start was at {last}");
}

#[tokio::test]
async fn whatever_ec2_calls_a_lack_of_room_the_one_that_has_room_is_found_and_started() {
    let all: Vec<_> = [
        ("InsufficientCapacityOnHost", 400, "There is not enough capacity on the Dedicated Host."),
        ("InsufficientFreeAddressesInSubnet", 400, "There are not enough free addresses in subnet 'subnet-0ec20001'."),
        ("SpotMaxPriceTooLow", 400, "Your Spot request price of 0.01 is lower than the minimum required."),
        ("InsufficientReservedInstanceCapacity", 400, "Not enough available Reserved Instances."),
        ("InsufficientHostCapacity", 500, "Insufficient capacity."),
        ("ReservationCapacityExceeded", 400, "The requested reservation does not have sufficient capacity."),
    ]
    .map(|(code, status, words)| tokio::spawn(the_one_that_has_room_is_started(code, status, words)))
    .into();
    for one in all {
        one.await.unwrap();
    }
}

async fn the_one_that_has_room_is_started(code: &str, status: u16, words: &str) {
    let mut world = twenty().await;
    let others: Vec<String> = (1..=20).filter(|n| *n != 13).map(|n| format!("web-{n}")).collect();
    world.sim.fault(Fault::refuse("StartInstances", code, words).status(status).on(others));
    let told = world.within(Duration::from_secs(60), start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("Unfinished", names(["web-13"])), "{code}");
    let left = told.entries("unfinished");
    assert!(left.len() == 19 && left.iter().all(|it| it["reason"] == code), "{code}: {left:#?}");
}

#[tokio::test]
async fn one_host_that_becomes_ready_takes_its_instance_and_the_others_go_on_waiting() {
    let mut world = twenty().await;
    let shortage = Shortage::new("us-east-1a", "t3.micro").room(1);
    let words = "There is not enough capacity on the Dedicated Host.";
    world.sim.settings(|settings| settings.shortages = vec![shortage.says("InsufficientCapacityOnHost", words, 400)]);
    let told = world.within(Duration::from_secs(12), start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("Unfinished", 1));
}
