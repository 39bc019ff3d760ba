//! Two runs at once: a duplicate delivery, and a start during a stop.

use std::time::Duration;

use ec2_sim::{Fault, Host, Outcome};
use serde_json::{Value, json};

use crate::world::*;

/// Runs two functions at the same time in one cloud, and returns their reports.
async fn both(world: &mut World, one: Value, other: Value) -> [Value; 2] {
    let url = world.sim.url();
    let mut second = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url)]).await;
    let (one, other) = tokio::join!(world.host.invoke(one.to_string(), AMPLE), second.invoke(other.to_string(), AMPLE));
    [one, other].map(|invocation| match invocation.outcome {
        Outcome::Answered(report) => report,
        outcome => panic!("{outcome:?}: {:#?}", invocation.logs),
    })
}

#[tokio::test]
async fn two_stops_at_once_end_stopped_and_neither_report_hides_one() {
    let mut world = World::new().await;
    world.sim.add_many(250, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::stall("StopInstances", Duration::from_millis(30)));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1), "max_changes": 500}));
    let reports = both(&mut world, event.clone(), event).await;
    for n in 1..=250 {
        assert!(["stopping", "stopped"].contains(&world.sim.state(&format!("web-{n}")).as_str()));
        assert!(world.sim.tag(&format!("web-{n}"), "curfew:stopped-at").is_some());
    }
    for report in &reports {
        let summary = &report["summary"];
        assert_eq!(
            summary["matched"].as_u64().unwrap(),
            summary["changed"].as_u64().unwrap() + summary["skipped"].as_u64().unwrap()
        );
    }
    assert!(reports.iter().map(|report| report["summary"]["changed"].as_u64().unwrap()).sum::<u64>() >= 250);
}

#[tokio::test]
async fn a_stop_and_a_start_at_once_end_in_a_state_that_the_reports_explain() {
    let mut world = World::new().await;
    world.sim.add_many(20, |n| ours(&format!("on-{n}")));
    world.sim.add_many(20, |n| ours(&format!("off-{n}")).state("stopped"));
    let [stopped, started] = both(&mut world, stop(), start()).await;
    let ids = |report: &Value| -> Vec<String> {
        report["targets"][0]["changed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect()
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    for machine in world.sim.machines() {
        let was_on = machine.name().starts_with("on-");
        let changes = (ids(&stopped).contains(&machine.id), ids(&started).contains(&machine.id));
        match (was_on, machine.state.as_str()) {
            (true, "stopped") => assert!(changes.0, "{} is off, and nobody said so", machine.name()),
            (false, "running") => assert!(changes.1, "{} is on, and nobody said so", machine.name()),
            (true, "running") => assert!(!changes.0 || changes.1, "{} is on again, and nobody said so", machine.name()),
            (false, "stopped") => {
                assert!(!changes.1 || changes.0, "{} is off again, and nobody said so", machine.name())
            }
            (_, state) => panic!("{} is {state}", machine.name()),
        }
    }
}

/// Waits until every mark written from now on is later than LaunchTime, which is in whole seconds.
async fn a_second_later() {
    tokio::time::sleep(Duration::from_millis(2100)).await;
}

fn mark_of(world: &World, name: &str) -> String {
    world.sim.tag(name, MARK).unwrap_or_else(|| panic!("{name} has no mark"))
}

#[tokio::test]
async fn a_mark_written_while_a_start_deletes_its_own_stays() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(remembering(stop())).await;
    world.settled("web", "stopped").await;
    world.others_act_on = names(["web"]);
    let mut held = world.sim.hold("DeleteTags");
    let mut second = world.second_host().await;
    let stopping_again = async {
        held.arrived().await;
        a_second_later().await;
        let invocation = second.invoke(remembering(stop()).to_string(), AMPLE).await;
        held.release();
        Told::of(invocation)
    };
    let (started, stopped) = tokio::join!(world.host.invoke(start_8am().to_string(), AMPLE), stopping_again);
    assert_eq!(Told::of(started).names("changed"), names(["web"]));
    assert_eq!((stopped.verdict().as_str(), stopped.names("changed")), ("complete", names(["web"])));
    assert!(mark_of(&world, "web").ends_with(stopped.run()), "{}", mark_of(&world, "web"));

    world.settled("web", "stopped").await;
    let told = world.invoke(start_8am()).await;
    assert_eq!(told.names("changed"), names(["web"]), "the next morning");
}

#[tokio::test]
async fn a_duplicate_that_tidies_up_after_a_refusal_leaves_the_mark_of_the_run_that_did_the_stop() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized").status(403));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1)}));
    let mut held = world.sim.hold("DeleteTags");
    let mut second = world.second_host().await;
    let duplicate = async {
        held.arrived().await;
        world.sim.clear_faults();
        let invocation = second.invoke(event.to_string(), AMPLE).await;
        held.release();
        Told::of(invocation)
    };
    let (first, duplicate) = tokio::join!(world.host.invoke(event.to_string(), AMPLE), duplicate);
    let first = Told::of(first);
    assert_eq!((duplicate.verdict().as_str(), duplicate.names("changed")), ("complete", names(["web"])));
    assert_ne!(first.run(), duplicate.run());
    assert!(mark_of(&world, "web").ends_with(duplicate.run()), "{}", mark_of(&world, "web"));

    world.settled("web", "stopped").await;
    assert_eq!(world.invoke(start_8am()).await.names("changed"), names(["web"]), "the next morning");
}

#[tokio::test]
async fn a_start_keeps_its_hands_off_what_a_stop_is_just_about_to_stop() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("other"));
    world.invoke(remembering(with(stop(), json!({"tags": {"Name": "other"}})))).await;
    world.settled("other", "stopped").await;
    let mut held = world.sim.hold("StopInstances");
    let mut second = world.second_host().await;
    let start_over_it = async {
        held.arrived().await;
        let invocation = second.invoke(start_8am().to_string(), AMPLE).await;
        held.release();
        Told::of(invocation)
    };
    let stop = remembering(with(stop(), json!({"tags": {"Name": "web"}})));
    let (stopped, started) = tokio::join!(world.host.invoke(stop.to_string(), AMPLE), start_over_it);
    let stopped = Told::of(stopped);
    assert_eq!((started.verdict().as_str(), started.names("changed")), ("complete", names(["other"])));
    assert_eq!(stopped.names("changed"), names(["web"]));
    assert!(mark_of(&world, "web").ends_with(stopped.run()), "{}", mark_of(&world, "web"));

    world.settled("web", "stopped").await;
    assert!(world.invoke(start_8am()).await.names("changed").contains("web"), "the next morning");
}

#[tokio::test]
async fn a_stop_that_meets_its_duplicates_work_leaves_the_marks_and_both_tell_the_truth() {
    let mut world = World::new().await;
    world.sim.add_many(5, |n| ours(&format!("web-{n}")));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1)}));
    let mut held = world.sim.hold("StopInstances");
    let mut second = world.second_host().await;
    let duplicate = async {
        held.arrived().await;
        let invocation = second.invoke(event.to_string(), AMPLE).await;
        held.release();
        Told::of(invocation)
    };
    let (first, duplicate) = tokio::join!(world.host.invoke(event.to_string(), AMPLE), duplicate);
    assert_eq!((duplicate.verdict().as_str(), duplicate.names("changed").len()), ("complete", 5));
    assert_eq!(Told::of(first).report["skipped_by"], json!({"already_done": 5}));
    for machine in world.sim.machines() {
        assert!(counts(&machine), "{} could not be started again", machine.name());
    }
}

#[tokio::test]
async fn a_retry_of_lambdas_own_goes_on_with_the_marks_that_its_first_attempt_wrote() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1)}));
    world.dies_before("StopInstances", &event).await;
    assert!(world.sim.machines().iter().all(|machine| machine.state == "running" && counts(machine)));
    let told = world.retry(event).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 3));
    for name in ["web-1", "web-2", "web-3"] {
        assert!(mark_of(&world, name).ends_with(told.run()), "{}", mark_of(&world, name));
    }
}

/// The second run's look shows the first one's marks. What the first then stops keeps the second's mark.
#[tokio::test]
async fn a_duplicate_whose_look_shows_the_others_marks_takes_none_off_what_the_other_stops() {
    let mut world = World::new().await;
    world.sim.add_many(5, |n| ours(&format!("web-{n}")));
    world
        .sim
        .fault(Fault::refuse("StopInstances", "InternalError", "An internal error").status(500).on(["web-1"]).times(3));
    world.sim.fault(Fault::stall("StopInstances", Duration::from_millis(400)));
    let event = with(remembering(stop()), json!({"scheduled_time": in_minutes(-1)})).to_string();
    let url = world.sim.url();
    let mut second = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url)]).await;
    let later = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        second.invoke(event.clone(), AMPLE).await
    };
    let (first, second) = tokio::join!(world.host.invoke(event.clone(), AMPLE), later);
    for run in [first, second] {
        assert!(matches!(run.outcome, Outcome::Answered(_)), "{:?}", run.outcome);
    }
    for n in 1..=5 {
        let name = format!("web-{n}");
        assert!(world.sim.tag(&name, "curfew:stopped-at").is_some(), "{name} would stay off in the morning");
    }
}
