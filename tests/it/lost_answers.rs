//! Calls whose effect is unknown: Curfew looks at EC2, and goes by what it shows.

use ec2_sim::Fault;
use serde_json::json;

use crate::world::*;

const DENIED: &str = "You are not authorized to perform this operation.";

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_counted_as_our_change() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::lose_answer("StopInstances").times(1));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!((world.count("StopInstances"), world.count("DescribeInstances")), (1, 2), "a look, and no second stop");
}

#[tokio::test]
async fn what_a_refused_call_has_done_in_part_is_counted_right() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.partial_success = true);
    for zone in ["us-east-1a", "us-east-1b"] {
        world.sim.add_many(5, |n| ours(&format!("{zone}-{n}")).zone(zone));
    }
    world.sim.add(ours("vault").zone("us-east-1a").stop_protected());
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!(
        (told.verdict().as_str(), &told.report["summary"]["changed"]),
        ("complete", &json!(10)),
        "{:#}",
        told.report
    );
    assert_eq!(told.reason("vault"), "stop_protected");
    assert!(world.sim.tag("us-east-1b-1", "curfew:stopped-at").is_some(), "it will be started again");
}

#[tokio::test]
async fn a_lost_answer_followed_by_a_refusal_is_looked_into() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::lose_answer("StopInstances").times(1));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!(
        (told.verdict().as_str(), &told.report["summary"]["changed"]),
        ("complete", &json!(3)),
        "EC2 had done it"
    );
    assert!(world.sim.tag("web-1", "curfew:stopped-at").is_some());
}

#[tokio::test]
async fn a_lost_answer_of_a_start_followed_by_a_refusal_is_looked_into() {
    let mut world = World::new().await;
    world.sim.add(ours("web").state("stopped"));
    world.sim.fault(Fault::lose_answer("StartInstances").times(1));
    world.sim.fault(Fault::refuse("StartInstances", "UnauthorizedOperation", DENIED).status(403));
    let told = world.invoke(start()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
}

#[tokio::test]
async fn what_a_refused_call_has_done_in_part_and_ec2_then_refuses_is_looked_into() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.partial_success = true);
    world.sim.add(ours("web").zone("us-east-1b"));
    world.sim.add(ours("vault").zone("us-east-1a").stop_protected());
    let fault = Fault::refuse("StopInstances", "IncorrectInstanceState", "The instance '{ids}' can't.");
    world.sim.fault(fault.on(["web"]).after(1));
    let told = world.invoke(with(stop(), json!({"remember": true}))).await;
    assert_eq!((told.names("changed"), told.reason("vault").as_str()), (names(["web"]), "stop_protected"));
    assert!(world.sim.tag("web", "curfew:stopped-at").is_some(), "it will be started again");
}

#[tokio::test]
async fn a_stop_that_was_carried_out_and_never_answered_is_a_change() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::hang_after("StopInstances").times(1));
    let told = world.invoke(remembering(stop())).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3), "{:#}", told.report);
    assert_eq!(world.count("StopInstances"), 1);
    assert!(world.sim.machines().iter().all(counts), "they will be started again");
}

#[tokio::test]
async fn a_switch_that_ec2_carries_out_and_answers_500_is_a_change_at_the_first_look() {
    for (action, state, event) in [("StopInstances", "running", stop()), ("StartInstances", "stopped", start())] {
        let mut world = World::new().await;
        world.sim.add_many(70, |n| ours(&format!("web-{n}")).state(state));
        world.sim.fault(Fault::refuse_after(action, "InternalError", "An internal error has occurred").status(500));
        let told = world.invoke(event).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(70)), "{action}");
        let asked: Vec<String> = world.calls(action).into_iter().flat_map(|call| call.ids).collect();
        assert_eq!(asked.len(), 70, "{action}: each once");
    }
}

#[tokio::test]
async fn of_a_lost_answer_only_what_was_not_done_is_asked_for_again() {
    let mut world = World::new().await;
    world.sim.add_many(10, |n| ours(&format!("web-{n}")));
    world.sim.settings(|settings| settings.partial_success = true);
    world.sim.edit("web-3", |machine| machine.zone = "us-east-1b".into());
    // Refused because of web-3, but carried out in the other zone without the answer saying so.
    world.sim.fault(Fault::refuse("StopInstances", "InternalError", "No.").status(500).on(["web-3"]).times(1));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 10), "{:#}", told.report);
    let web_3 = world.sim.machine("web-3").id;
    assert!(world.calls("StopInstances")[1..].iter().all(|call| call.ids == [web_3.clone()]));
}
