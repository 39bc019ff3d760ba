//! The life of a mark: with `remember`, a start starts what a stop has stopped, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ec2_sim::{Fault, StateReason};
use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn what_was_stopped_is_started_again_and_its_mark_is_gone() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("off-since-march").state("stopped"));

    let at = in_minutes(-1);
    let told = world.invoke(with(stop_7pm(), json!({"scheduled_time": at}))).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!(world.sim.tag("web", MARK), Some(format!("{at} {}", told.run())), "the scheduled time, and the run");
    world.settled("web", "stopped").await;

    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!(told.reason("off-since-march"), "not_marked");
    assert_eq!(world.sim.tag("web", MARK), None);
    assert_eq!(world.sim.state("off-since-march"), "stopped");
}

#[tokio::test]
async fn a_stop_without_a_scheduled_time_marks_with_now() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let before = Utc::now() - TimeDelta::seconds(1); // a mark has whole seconds
    world.invoke(remembering(stop())).await;
    let mark = moment(&world.sim.tag("web", MARK).unwrap()).unwrap();
    assert!(before <= mark && mark <= Utc::now(), "{mark}");
}

#[tokio::test]
async fn the_mark_is_written_before_the_stop() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(remembering(stop())).await;
    let actions: Vec<String> = world.sim.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(actions, ["DescribeInstances", "CreateTags", "StopInstances"]);
}

#[tokio::test]
async fn switched_on_by_hand_at_night_and_off_again_it_is_not_started() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("touched"));
    world.invoke(remembering(stop())).await;
    world.settled("touched", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // LaunchTime has whole seconds
    world.sim.switch_on("touched");
    world.settled("touched", "running").await;
    world.sim.switch_off("touched");
    world.settled("touched", "stopped").await;
    assert!(world.sim.tag("touched", MARK).is_some(), "the mark is still there, and void");

    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!(told.reason("touched"), "not_marked");
    assert_eq!(world.sim.state("touched"), "stopped");
}

#[tokio::test]
async fn a_refused_mark_means_no_stop() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("untaggable"));
    world.sim.fault(
        Fault::refuse("CreateTags", "TagLimitExceeded", "You have reached the maximum number of tags for {ids}")
            .on(["untaggable"]),
    );
    let told = world.invoke(remembering(stop())).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.names("changed"), names(["web"]));
    let failed = told.entry("failed", "untaggable");
    assert_eq!(failed["code"], "TagLimitExceeded");
    assert!(failed["message"].as_str().unwrap().starts_with("it could not be marked"), "{failed}");
    assert_eq!(world.sim.state("untaggable"), "running");
}

/// Ten that are protected lose the mark that this run wrote, but for the one about which EC2 fails; and the log says so.
#[tokio::test]
async fn one_sick_instance_keeps_no_other_from_losing_its_mark() {
    let sick = [
        Fault::refuse("DeleteTags", "InternalError", "An internal error has occurred").status(500),
        Fault::refuse("DeleteTags", "IncorrectInstanceState", "not in a state for this").status(400),
        Fault::answer("DeleteTags", 403, "<html>Who are you?</html>"),
    ];
    for sick in sick {
        let mut world = World::new().await;
        world.sim.add_many(10, |n| ours(&format!("vault-{n}")).stop_protected());
        world.sim.add_many(5, |n| ours(&format!("web-{n}")));
        world.sim.fault(sick.on(["vault-4"]));
        // Without the audit, which no sick instance passes.
        let told = Told::of(world.host.invoke(remembering(stop()).to_string(), AMPLE).await);
        assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 5));
        let marked: Vec<String> =
            (1..=10).map(|n| format!("vault-{n}")).filter(|name| world.sim.tag(name, MARK).is_some()).collect();
        assert_eq!(marked, ["vault-4"]);
        assert!(world.count("DeleteTags") <= 16, "{} calls", world.count("DeleteTags"));
        let said = |line: &&Value| {
            line["level"] == "WARN" && line["message"].as_str().unwrap().starts_with("1 instance may keep a mark")
        };
        assert_eq!(told.logs.iter().filter(said).count(), 1, "{:#?}", told.logs);
    }
}

#[tokio::test]
async fn a_refused_deletion_of_the_mark_spoils_no_start() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(remembering(stop())).await;
    world.settled("web", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.sim.fault(Fault::refuse("DeleteTags", "UnauthorizedOperation", "You are not authorized").status(403));
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert!(world.sim.tag("web", MARK).is_some());
    assert!(
        told.logs.iter().any(|line| line["level"] == "WARN" && line["code"] == "UnauthorizedOperation"),
        "{:#?}",
        told.logs
    );

    // The start has renewed LaunchTime: the mark that stayed is void, and what is stopped by hand then stays off.
    world.sim.switch_off("web");
    world.settled("web", "stopped").await;
    let told = world.invoke(start_8am()).await;
    assert_eq!(told.reason("web"), "not_marked");
}

#[tokio::test]
async fn after_a_resume_that_leaves_the_launch_time_alone_the_mark_is_deleted_all_the_same() {
    let mut world = World::new().await;
    world.sim.add(ours("sleeper").hibernation().resume_keeps_launch_time());
    world.invoke(remembering(with(stop(), json!({"hibernate": true})))).await;
    world.settled("sleeper", "stopped").await;
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["sleeper"])));
    assert_eq!(world.sim.tag("sleeper", MARK), None);
    world.sim.switch_off("sleeper");
    world.settled("sleeper", "stopped").await;
    assert_eq!(world.invoke(start_8am()).await.reason("sleeper"), "not_marked");
}

#[tokio::test]
async fn a_start_that_falls_back_is_marked_again_so_that_a_retry_starts_it() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("crypt").falls_back("Client.InternalError", "Client.InternalError: Client error on launch"));
    world.invoke(remembering(stop())).await;
    world.settled("crypt", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // LaunchTime has whole seconds: the start shall void the mark

    let event = with(start_8am(), json!({"scheduled_time": in_minutes(0)}));
    let told = world.invoke(event.clone()).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.names("changed"), names(["web"]));
    let failed = told.entry("failed", "crypt");
    assert_eq!(failed["code"], "Client.InternalError");
    assert!(failed["message"].as_str().unwrap().contains("kms:CreateGrant"), "{failed}");
    let machine = world.sim.machine("crypt");
    assert_eq!(machine.state, "stopped");
    assert!(counts(&machine), "the new mark counts: {:?}", machine.tags[MARK]);

    // Somebody grants the key; Lambda retries.
    world.sim.edit("crypt", |machine| machine.falls_back = None);
    let told = world.invoke(event).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["crypt"])));
}

#[tokio::test]
async fn a_start_that_fell_back_unseen_after_the_function_died_is_not_forgotten_by_the_retry() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(5));
    world.sim.add(ours("crypt").falls_back("Client.InternalError", "Client.InternalError: Client error on launch"));
    world.invoke(remembering(stop())).await;
    world.settled("crypt", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // LaunchTime has whole seconds: the start shall void the mark

    let event = with(start_8am(), json!({"scheduled_time": in_minutes(0)}));
    let told = world.within(Duration::from_secs(3), event.clone()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(world.sim.state("crypt"), "pending");
    world.sim.advance(Duration::from_secs(10)); // it falls back while nobody looks: the mark is void
    world.settled("crypt", "stopped").await;

    world.sim.settings(|settings| settings.start_takes = Duration::from_millis(100));
    let told = world.invoke(event).await;
    assert_eq!(told.verdict(), "Incomplete", "{:#}", told.report);
    assert_eq!(told.entry("failed", "crypt")["code"], "Client.InternalError");
}

#[tokio::test]
async fn a_void_mark_of_another_season_makes_no_failed_start_ours() {
    for (days, expected) in [(3, "Incomplete"), (40, "complete")] {
        let mut world = World::new().await;
        let failed = ours("crypt").state("stopped").tag(MARK, &in_minutes(-days * 24 * 60)).launched(Utc::now());
        world.sim.add(failed.falls_back("Client.InternalError", "Client.InternalError: Client error on launch"));
        world.sim.edit("crypt", |machine| {
            machine.state_reason = Some(StateReason { code: "Client.InternalError".into(), message: "No key.".into() });
        });
        let told = world.invoke(with(start_8am(), json!({"scheduled_time": in_minutes(-1)}))).await;
        assert_eq!(told.verdict(), expected, "{days} days: {:#}", told.report);
    }
}

#[tokio::test]
async fn what_ec2_refused_to_stop_does_not_keep_a_mark() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("vault").stop_protected());
    world.sim.add(ours("spot").spot_one_time());
    world.sim.add(ours("db"));
    world.sim.fault(
        Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized").on(["db"]).status(403),
    );
    let told = world.invoke(remembering(stop())).await;
    assert_eq!(told.names("changed"), names(["web"]));
    for name in ["vault", "spot", "db"] {
        assert_eq!(world.sim.tag(name, MARK), None, "{name}: a stop by hand tomorrow must stay a stop");
    }
}

#[tokio::test]
async fn an_unreadable_mark_is_none() {
    let mut world = World::new().await;
    for (name, mark) in [("a", ""), ("b", "yesterday"), ("c", "2026-11-20")] {
        world.sim.add(ours(name).state("stopped").tag(MARK, mark));
    }
    let told = world.invoke(start_8am()).await;
    assert_eq!(told.report["skipped_by"], json!({"not_marked": 3}));
}

#[tokio::test]
async fn without_remember_nothing_is_marked_and_everything_is_started() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(ours("off").state("stopped"));
    world.invoke(stop()).await;
    assert_eq!(world.count("CreateTags"), 0);
    world.settled("web", "stopped").await;
    let told = world.invoke(start()).await;
    assert_eq!(told.names("changed"), names(["web", "off"]));
}

#[tokio::test]
async fn one_that_was_launched_in_the_very_second_of_the_stop_is_left_running_because_its_mark_would_not_count() {
    let mut world = World::new().await;
    let at = Utc::now() - TimeDelta::seconds(90);
    world.sim.add(ours("web").launched(at));
    let told = world.invoke(remembering(with(stop(), json!({"scheduled_time": rfc3339(at)})))).await;
    assert_eq!(told.reason("web"), "started_since");
    assert_eq!(world.sim.state("web"), "running");
}

#[tokio::test]
async fn a_mark_that_a_lagging_describe_still_shows_is_written_again() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.settings(|settings| settings.describe_lag = Duration::from_millis(600));
    world.sim.fault(Fault::stall("DeleteTags", Duration::from_millis(1000)));
    world
        .sim
        .fault(Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized").status(403).times(1));
    let event = with(stop_7pm(), json!({"scheduled_time": in_minutes(-1)}));
    let told = world.invoke(event.clone()).await;
    assert_eq!((told.verdict().as_str(), world.sim.tag("web", MARK)), ("Incomplete", None), "its mark was taken back");
    // The retry comes while DescribeInstances still shows the mark that was deleted.
    let told = world.invoke(event).await;
    assert_eq!(told.names("changed"), names(["web"]));
    assert!(world.sim.tag("web", MARK).is_some(), "stopped, and could not be started again");
}

#[tokio::test]
async fn what_a_person_stops_on_its_way_up_is_not_marked_for_the_next_start() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(remembering(stop())).await;
    world.settled("web", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(30));
    let World { sim, host, .. } = &mut world;
    let by_hand = async {
        tokio::time::sleep(Duration::from_millis(1800)).await; // one look has seen it pending
        sim.switch_off("web");
    };
    let (invocation, ()) = tokio::join!(host.invoke(start_8am().to_string(), AMPLE), by_hand);
    let told = Told::of(invocation);
    assert_eq!(told.reason("web"), "stopped_since");
    assert_eq!(world.invoke(start_8am()).await.reason("web"), "not_marked");
}

#[tokio::test]
async fn a_run_ahead_of_its_time_marks_with_now_so_that_a_start_after_it_counts() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.invoke(remembering(with(stop(), json!({"scheduled_time": in_minutes(4)})))).await;
    let mark = moment(&world.sim.tag("web", MARK).unwrap()).unwrap();
    assert!(mark <= Utc::now(), "{mark}");
}

#[tokio::test]
async fn a_mark_is_a_moment_in_whole_seconds_and_the_run_that_wrote_it() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    // A fraction that is no whole number of milliseconds.
    let at = in_minutes(-1).replace('Z', ".000500Z");
    let told = world.invoke(remembering(with(stop(), json!({"scheduled_time": at})))).await;
    assert_eq!(told.names("changed"), names(["web"]));
    let second = at.replace(".000500Z", "Z");
    assert_eq!(world.sim.tag("web", MARK), Some(format!("{second} {}", told.run())));
    assert!(told.run().len() == 8 && told.run().bytes().all(|digit| digit.is_ascii_hexdigit()));
    world.settled("web", "stopped").await;
    assert_eq!(world.invoke(start_8am()).await.names("changed"), names(["web"]), "it counts");
}

#[tokio::test]
async fn a_mark_of_the_old_form_counts_and_goes_when_it_has_served() {
    let mut world = World::new().await;
    world.sim.add(ours("web").state("stopped").tag(MARK, &in_minutes(-600)));
    world.sim.add(ours("touched").state("stopped").tag(MARK, &in_minutes(-600)).launched(Utc::now()));
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])));
    assert_eq!((told.reason("touched").as_str(), world.sim.tag("web", MARK)), ("not_marked", None));
}

#[tokio::test]
async fn what_a_person_stops_between_our_look_and_our_mark_or_stop_stays_off() {
    for call in ["CreateTags", "StopInstances"] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.add(ours("theirs"));
        let told = world.at_the_call(call, remembering(stop()), |sim| sim.switch_off("theirs")).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["web"])), "{call}");
        assert_eq!(told.reason("theirs"), "already_done", "{call}");
        assert_eq!(world.sim.tag("theirs", MARK), None, "{call}");
        world.settled("web", "stopped").await;
        let told = world.invoke(start_8am()).await;
        assert_eq!((told.names("changed"), told.reason("theirs").as_str()), (names(["web"]), "not_marked"), "{call}");
    }
}

#[tokio::test]
async fn what_a_person_stops_between_our_look_and_our_stop_stays_off_where_it_is_the_only_one() {
    let mut world = World::new().await;
    world.sim.add(ours("theirs"));
    let told = world.at_the_call("StopInstances", remembering(stop()), |sim| sim.switch_off("theirs")).await;
    assert_eq!((told.verdict().as_str(), told.reason("theirs").as_str()), ("complete", "already_done"));
    assert_eq!(world.sim.tag("theirs", MARK), None);
}

/// A world in which a machine has been stopped with a mark, and whose next start falls back; EC2's clock is `ahead`.
async fn a_morning_that_falls_back(ahead: Duration) -> World {
    let mut world = World::new().await;
    world.sim.advance(ahead);
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(5));
    let words = "Client.InternalError: Client error on launch";
    world.sim.add(ours("crypt").falls_back("Client.InternalError", words).falls_back_times(1));
    world.invoke(remembering(with(stop(), json!({"scheduled_time": in_minutes(-1)})))).await;
    world.settled("crypt", "stopped").await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // LaunchTime has whole seconds: the start shall void the mark
    world
}

/// Lets the current start fall back between two runs, and makes the next start quick.
async fn it_falls_back_unseen(world: &World) {
    assert_eq!(world.sim.state("crypt"), "pending");
    let now = world.sim.clock();
    world.sim.advance(Duration::from_secs(10));
    world.settled("crypt", "stopped").await;
    world.sim.set_clock(now);
    tokio::time::sleep(Duration::from_millis(1100)).await; // the next start shall have a LaunchTime of its own
    world.sim.settings(|settings| settings.start_takes = Duration::from_millis(100));
}

#[tokio::test]
async fn a_start_by_hand_that_falls_back_unseen_is_tried_again_by_the_retry() {
    for ahead in [0, 5] {
        let mut world = a_morning_that_falls_back(Duration::from_secs(ahead)).await;
        let told = world.within(Duration::from_secs(3), remembering(start())).await;
        assert_eq!((told.verdict().as_str(), &told.report["scheduled_time"]), ("Unfinished", &json!(null)));
        it_falls_back_unseen(&world).await;
        let told = world.retry(remembering(start())).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["crypt"])), "{ahead} s ahead");
        assert_eq!(world.sim.tag("crypt", MARK), None);
    }
}

#[tokio::test]
async fn a_start_that_falls_back_unseen_is_tried_again_by_every_later_morning() {
    for ahead in [0, 5] {
        let mut world = a_morning_that_falls_back(Duration::from_secs(ahead)).await;
        world.dies_after_the("StartInstances", &remembering(start())).await;
        it_falls_back_unseen(&world).await;
        // It falls back once more: the new mark has to count even though EC2's clock is ahead.
        world.sim.edit("crypt", |machine| machine.falls_back_times = Some(1));
        let told = world.invoke(with(start_8am(), json!({"scheduled_time": in_minutes(0)}))).await;
        assert_eq!(told.verdict(), "Incomplete", "{ahead} s ahead: {:#}", told.report);
        assert_eq!(told.entry("failed", "crypt")["code"], "Client.InternalError");
        assert!(counts(&world.sim.machine("crypt")), "{:?}", world.sim.machine("crypt"));
        let told = world.invoke(with(start_8am(), json!({"scheduled_time": in_minutes(0)}))).await;
        assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["crypt"])), "{ahead} s ahead");
    }
}

/// A stop whose marks are more than two hours old from the start.
fn a_late_stop() -> Value {
    remembering(with(stop(), json!({"scheduled_time": in_minutes(-150), "max_delay_minutes": 240})))
}

/// A world in which the function has died between mark and stop, and a person has then exempted the instance.
async fn exempted_after_a_death() -> World {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.dies_before("StopInstances", &a_late_stop()).await;
    let web = world.sim.machine("web");
    assert!(web.state == "running" && counts(&web), "{web:?}");
    exempt(&world.sim, "web");
    world
}

/// Ends the exemption and stops the instance by hand: in the morning it must stay off.
async fn stays_off_by_hand(mut world: World) {
    world.sim.edit("web", |machine| drop(machine.tags.remove("curfew:exempt")));
    world.sim.switch_off("web");
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.reason("web").as_str()), ("complete", "not_marked"));
    assert_eq!(world.sim.state("web"), "stopped");
}

#[tokio::test]
async fn a_start_takes_the_mark_of_a_stop_that_never_came_off_what_runs() {
    let mut world = exempted_after_a_death().await;
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), world.sim.tag("web", MARK)), ("complete", None), "{:#}", told.report);
    assert_eq!(told.reason("web"), "already_done");
    stays_off_by_hand(world).await;
}

#[tokio::test]
async fn a_stop_takes_the_mark_of_a_stop_that_never_came_off_what_it_leaves_alone() {
    let mut world = exempted_after_a_death().await;
    let told = world.invoke(remembering(stop())).await;
    assert_eq!((told.reason("web").as_str(), world.sim.tag("web", MARK)), ("exempt", None));
    stays_off_by_hand(world).await;
}

#[tokio::test]
async fn the_retry_of_a_run_that_died_takes_its_own_mark_off_what_is_exempt_by_now() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let event = remembering(with(stop(), json!({"scheduled_time": in_minutes(-1)})));
    world.dies_before("StopInstances", &event).await;
    exempt(&world.sim, "web");
    let told = world.retry(event).await;
    assert_eq!((told.reason("web").as_str(), world.sim.tag("web", MARK)), ("exempt", None));
    stays_off_by_hand(world).await;
}

#[tokio::test]
async fn the_mark_of_a_stop_that_may_be_under_way_is_left_alone() {
    let mut world = World::new().await;
    let mark = format!("{} 0123abcd", in_minutes(-60));
    world.sim.add(ours("web").tag(MARK, &mark).tag("curfew:exempt", ""));
    for event in [start_8am(), remembering(stop())] {
        world.invoke(event).await;
        assert_eq!(world.sim.tag("web", MARK).as_deref(), Some(mark.as_str()));
    }
}

#[tokio::test]
async fn a_mark_that_was_written_although_ec2_said_500_comes_off_what_is_not_stopped() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::refuse_after("CreateTags", "InternalError", "An internal error has occurred").status(500));
    world.sim.fault(Fault::refuse("StopInstances", "UnauthorizedOperation", "You are not authorized").status(403));
    let told = world.within(Duration::from_secs(10), remembering(stop())).await;
    assert_ne!(told.verdict(), "complete");
    for machine in world.sim.machines() {
        assert_eq!((machine.state.as_str(), machine.tags.get(MARK)), ("running", None), "{}", machine.name());
    }
}

#[tokio::test]
async fn marks_are_deleted_by_their_value_a_thousand_to_a_call() {
    let mut world = World::new().await;
    let marks = [in_minutes(-600), format!("{} 7f3a9c12", in_minutes(-600))];
    world.sim.add_many(40, |n| ours(&format!("web-{n}")).state("stopped").tag(MARK, &marks[n % 2]));
    let told = world.invoke(start_8am()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", 40));
    let values: BTreeSet<String> =
        world.calls("DeleteTags").iter().map(|call| call.params["Tag.1.Value"].clone()).collect();
    assert_eq!((values, world.count("DeleteTags")), (marks.into(), 2));
    assert!(world.sim.machines().iter().all(|machine| !machine.tags.contains_key(MARK)));
}
