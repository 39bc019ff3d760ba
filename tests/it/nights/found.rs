//! Failures that random nights have found, shrunk and kept as tests.

use std::time::Duration;

use ec2_curfew::instance::State;
use ec2_curfew::outcome::{Outcome, Reason};

use super::case::*;
use super::cloud::*;

/// Builds a night with an evening and a morning.
fn night(fleet: Vec<Machine>, manner: Manner) -> Case {
    Case { seed: 1, fleet, manner, events: vec![Event::evening(), Event::morning()], acts: Vec::new() }
}

fn fleet(n: usize) -> Vec<Machine> {
    (0..n).map(Machine::new).collect()
}

/// Builds an EC2 in which each half of each call takes this many milliseconds.
fn taking(milliseconds: u64) -> Manner {
    Manner { latency: (milliseconds, milliseconds), ..Manner::default() }
}

fn refuses(verb: Verb, code: &'static str, message: &'static str) -> Poison {
    Poison { verb, no: No::Refused { code, message, status: 400 }, until: None }
}

fn after(milliseconds: u64) -> Duration {
    EVENING + Duration::from_millis(milliseconds)
}

fn switched(machine: &Machine) -> Vec<&Did> {
    let switched = |did: &&Did| matches!(did, Did::Stop { .. } | Did::Start { .. });
    machine.log.iter().map(|(_, _, did)| did).filter(switched).collect()
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_is_refused_stops_nobody_so_what_a_person_stops_then_stays_off() {
    let mut case = night(fleet(2), taking(500));
    case.fleet[0].poisons.push(refuses(Verb::Mark, "TagLimitExceeded", "The instance '{id}' has 50 tags."));
    // The mark is refused at 3.5 s, the one left is marked at 4.5 s and stopped at 5.5 s.
    case.acts.push((after(3_700), 1, Act::Stop));
    let (cloud, rans) = live(&case).await;
    assert_eq!(rans[0].outcome(id(1)), Some(&Outcome::skipped(Reason::AlreadyDone)));
    assert_eq!(cloud.machine(1).state, State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn marks_come_off_at_the_deadline_whatever_call_has_no_answer() {
    let mut case = night(fleet(2), taking(1_000));
    case.fleet[0].poisons.push(refuses(Verb::Stop, "OperationNotPermitted", "'{id}' has disableApiStop."));
    case.fleet[1].spot = true;
    case.fleet[1].poisons.push(Poison { verb: Verb::Stop, no: No::Sick { done: false }, until: None });
    let (from, until) = (after(8_000), after(60_000));
    case.manner.troubles.push(Trouble { verb: Some(Verb::Look), plague: Plague::Sick, from, until, one_in: 1 });
    case.events[0].lives[0] = (20, None);
    let (cloud, rans) = live(&case).await;
    let protected = cloud.machine(0);
    let shown = protected.at(rans[0].ended + Duration::from_secs(2)).unwrap();
    assert_eq!((shown.state.clone(), shown.mark()), (State::Running, None));
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_call_may_have_stopped_keeps_its_mark_where_the_deadline_comes_before_a_look() {
    let mut case = night(fleet(2), Manner { partial_success: true, ..taking(1_000) });
    case.fleet[0].zone = "us-east-1b";
    case.fleet[0].poisons.push(refuses(Verb::Stop, "UnsupportedOperation", "The instance can't be stopped."));
    case.events[0].lives[0] = (11, None);
    let (cloud, _) = live(&case).await;
    assert_eq!(cloud.machine(1).state, State::Running, "{:?}", cloud.machine(1).log);
    assert_eq!(switched(&cloud.machine(1)).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_lags_behind_a_stop_without_an_answer_does_not_take_its_mark_off() {
    let mut case = night(fleet(1), Manner { lag: Duration::from_secs(1), ..taking(20) });
    let (from, until) = (after(0), after(20_000));
    case.manner.troubles.push(Trouble { verb: Some(Verb::Stop), plague: Plague::SickAndDone, from, until, one_in: 1 });
    case.events[0].lives[0] = (20, None);
    let (cloud, _) = live(&case).await;
    assert_eq!(cloud.machine(0).state, State::Running, "{:?}", cloud.machine(0).log);
}

#[tokio::test(start_paused = true)]
async fn what_carries_another_runs_mark_by_now_is_marked_again_before_it_is_stopped() {
    let mut case = night(fleet(1), taking(30));
    let until = Some(after(120_000));
    let no =
        refuses(Verb::Stop, "IncorrectInstanceState", "The instance '{id}' has never reached the 'running' state.");
    case.fleet[0].poisons.push(Poison { until, ..no });
    let delay = Duration::from_secs(4);
    case.events.push(Event { id: "bbbbbbbb-2222", delay, lives: [(20, None), (20, None)], ..Event::evening() });
    let (cloud, _) = live(&case).await;
    assert_eq!(cloud.machine(0).state, State::Running, "{:?}", cloud.machine(0).log);
}

#[tokio::test(start_paused = true)]
async fn what_fell_back_after_a_start_without_an_answer_is_asked_for_once_at_a_time() {
    let mut case = night(fleet(3), taking(20));
    case.fleet[0].moves.1 = Duration::from_millis(5);
    case.fleet[0].falls = vec![("Server.InsufficientInstanceCapacity", "no room"), ("Server.InternalError", "oh")];
    case.fleet[2].poisons.push(Poison { verb: Verb::Start, no: No::Sick { done: true }, until: None });
    let (cloud, _) = live(&case).await;
    let machine = cloud.machine(0);
    assert_eq!(machine.state, State::Running);
    assert!(
        switched(&machine)[1..].iter().all(|did| **did == Did::Start { from: State::Stopped }),
        "{:?}",
        machine.log
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_only_the_answer_tells_of_has_not_fallen_back_because_a_look_lags() {
    let mut case = night(fleet(1), Manner { lag: Duration::from_secs(4), ..taking(20) });
    case.fleet[0].state = State::Stopped;
    case.events.remove(0);
    case.events[0].remember = false;
    case.acts.push((MORNING + Duration::from_millis(1_900), 0, Act::Start));
    let (_, rans) = live(&case).await;
    assert_eq!(rans[0].outcome(id(0)), Some(&Outcome::skipped(Reason::AlreadyDone)));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fell_back_for_now_is_tried_again_where_ec2_leaves_tags_out() {
    let mut case = night(fleet(1), Manner { hides_tags: true, ..taking(20) });
    case.fleet[0].falls = vec![("Server.InternalError", "Server.InternalError: Internal error on launch")];
    let (cloud, rans) = live(&case).await;
    assert_eq!(cloud.machine(0).state, State::Running);
    assert_eq!(rans.len(), 2, "{:?}", cloud.machine(0).log);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_stops_right_after_our_start_has_not_failed() {
    let mut case = night(fleet(1), taking(20));
    case.fleet[0].moves = (Duration::from_millis(100), Duration::from_millis(300));
    case.acts.push((MORNING + Duration::from_millis(2_600), 0, Act::Stop));
    let (cloud, rans) = live(&case).await;
    let outcome = rans[1].outcome(id(0)).unwrap();
    assert!(matches!(outcome, Outcome::Skipped(skip) if skip.reason == Reason::StoppedSince), "{outcome:?}");
    assert_eq!((rans.len(), cloud.machine(0).is_marked()), (2, false));
}

#[tokio::test(start_paused = true)]
async fn what_joins_those_that_wait_for_room_does_not_end_the_run() {
    let mut case = night(fleet(2), taking(20));
    case.fleet[0].state = State::Stopped;
    case.fleet[0].poisons.push(refuses(Verb::Start, "InsufficientInstanceCapacity", "No room."));
    // It is still stopping when the run begins, and has stopped by the time its zone is known to lack capacity.
    case.fleet[1].moves.0 = Duration::from_secs(8);
    case.acts.push((MORNING - Duration::from_secs(2), 1, Act::Stop));
    case.events.remove(0);
    case.events[0].remember = false;
    let (_, rans) = live(&case).await;
    assert!(matches!(rans[0].outcome(id(1)), Some(Outcome::Changed { .. })), "{:?}", rans[0].outcome(id(1)));
}
