//! Whatever people switch or retag between two edges stays as they left it.

use super::*;

#[tokio::test]
async fn a_new_instance_launched_at_night_runs_to_the_next_closing() {
    let mut world = cloud([]).await;
    world.sim.add(with_hours("new", "office").launched(at("Th 23:00")));
    let night = ticks_every(&mut world, &reconcile(), 30, "Th 23:05", "Fr 18:35").await;
    assert_eq!(night.told[0].1.reason("new"), "started_since");
    assert!(runs(&world, "new") && night.count("CreateTags") == 0);
    assert_eq!(tick(&mut world, &reconcile(), "Fr 19:00").await.names("changed"), names(["new"]));
    assert!(!runs(&world, "new"));
}

#[tokio::test]
async fn made_stopped_tagged_later() {
    for (event, started) in [(reconcile(), false), (forgetful(), true)] {
        let mut world = cloud([ours("made").state("stopped").launched(at("Mo 10:00"))]).await;
        let told = tick(&mut world, &event, "Mo 12:00").await;
        assert_eq!(told.report["summary"]["matched"], 0, "without hours it is not ours");
        retag(&world, "made", "office");
        tick(&mut world, &event, "Mo 12:05").await;
        assert!(!runs(&world, "made"), "in the middle of open hours nothing is started that nobody has stopped");
        ticks_every(&mut world, &event, 60, "Mo 19:00", "Tu 07:00").await;
        let told = tick(&mut world, &event, "Tu 08:00").await;
        assert_eq!(runs(&world, "made"), started, "{event}");
        assert!(started || told.reason("made") == "stopped_since");
    }
}

#[tokio::test]
async fn stopped_by_hand_at_10() {
    for (event, started) in [(reconcile(), false), (forgetful(), true)] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Tu 08:00").await;
        person_stops(&world, "web", "Tu 10:00").await;
        let day = ticks_every(&mut world, &event, 15, "Tu 10:00", "Tu 18:45").await;
        assert!(day.count("StartInstances") == 0 && !runs(&world, "web"), "it stays off for the rest of the day");
        let night = ticks_every(&mut world, &event, 60, "Tu 19:00", "We 07:00").await;
        assert_eq!(night.count("CreateTags"), usize::from(started), "{event}");
        tick(&mut world, &event, "We 08:00").await;
        assert_eq!(runs(&world, "web"), started, "{event}");
    }
}

#[tokio::test]
async fn stopped_at_18_30_with_remember_stays_off() {
    let mut world = cloud([with_hours("web", "office")]).await;
    person_stops(&world, "web", "Tu 18:30").await;
    let night = ticks(&mut world, &reconcile(), "Tu 18:30", "We 08:20").await;
    assert!(night.count("CreateTags") == 0 && night.count("StartInstances") == 0 && !runs(&world, "web"));
    assert_eq!(night.listed("skipped", "web")[..1], ["Wed 08:00"], "an opening is when it is told of");
}

#[tokio::test]
async fn stopped_at_18_30_without_remember_is_started_at_the_opening() {
    let mut world = cloud([with_hours("web", "office")]).await;
    person_stops(&world, "web", "Tu 18:30").await;
    let night = ticks(&mut world, &forgetful(), "Tu 18:30", "We 07:55").await;
    assert_eq!((night.count("CreateTags"), night.count("StartInstances")), (1, 0));
    assert!(world.sim.tag("web", MARK).unwrap().starts_with(&rfc3339(at("Tu 19:00"))));
    assert_eq!(tick(&mut world, &forgetful(), "We 08:00").await.names("changed"), names(["web"]));
    assert_eq!(world.sim.tag("web", MARK), None);
}

#[tokio::test]
async fn started_at_22_runs_to_the_next_closing() {
    let mut world = cloud([with_hours("web", "office")]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert!(!runs(&world, "web"));
    person_starts(&world, "web", "Tu 22:00").await;
    let night = ticks(&mut world, &reconcile(), "Tu 22:00", "We 08:15").await;
    assert!(runs(&world, "web"));
    assert_eq!(night.count("StopInstances") + night.count("StartInstances") + night.count("CreateTags"), 0);
    assert_eq!(
        night.listed("skipped", "web"),
        ["Tue 22:00", "Tue 22:05", "Tue 22:10", "Tue 22:15"],
        "told, then quiet"
    );
    tick(&mut world, &reconcile(), "We 19:00").await;
    assert!(!runs(&world, "web"));
}

#[tokio::test]
async fn started_at_22_stopped_at_23() {
    for (event, started) in [(reconcile(), false), (forgetful(), true)] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Tu 19:00").await;
        person_starts(&world, "web", "Tu 22:00").await;
        ticks(&mut world, &event, "Tu 22:00", "Tu 22:55").await;
        person_stops(&world, "web", "Tu 23:00").await;
        let night = ticks_every(&mut world, &event, 15, "Tu 23:00", "We 07:45").await;
        assert_eq!(night.count("CreateTags"), usize::from(started), "the mark of 19:00 is void: {event}");
        tick(&mut world, &event, "We 08:00").await;
        assert_eq!(runs(&world, "web"), started, "{event}");
    }
}

#[tokio::test]
async fn dead_wood_of_weeks_ago_when_reconcile_arrives() {
    for (event, started) in [(reconcile(), false), (forgetful(), true)] {
        // Whenever the first tick comes, nothing is started at once.
        for first in ["Tu 12:00", "Tu 23:00"] {
            let dead = with_hours("dead", "office").launched(at("Mo-20 09:00")).state("stopped");
            let forgotten = with_hours("forgotten", "office").launched(at("Mo-20 09:00"));
            let mut world = cloud([dead, forgotten]).await;
            let told = tick(&mut world, &event, first).await;
            assert_eq!(told.names("changed").contains("forgotten"), first == "Tu 23:00", "its hours closed since");
            assert!(!runs(&world, "dead"));
            ticks_every(&mut world, &event, 60, "Tu 23:05", "We 07:05").await;
            assert!(!runs(&world, "dead") && !runs(&world, "forgotten"));
            tick(&mut world, &event, "We 08:00").await;
            assert_eq!((runs(&world, "dead"), runs(&world, "forgotten")), (started, true), "{first} {event}");
        }
    }
}

#[tokio::test]
async fn retagged_while_running_to_hours_closed_since_before_its_launch() {
    let mut world = cloud([with_hours("web", "24/7").launched(at("Tu 20:00"))]).await;
    tick(&mut world, &reconcile(), "Tu 20:55").await;
    retag(&world, "web", "office");
    let night = ticks_every(&mut world, &reconcile(), 60, "Tu 21:00", "We 07:00").await;
    assert!(runs(&world, "web") && night.count("StopInstances") == 0);
    tick(&mut world, &reconcile(), "We 19:00").await;
    assert!(!runs(&world, "web"));
}

#[tokio::test]
async fn retagged_while_running_to_hours_closed_since_after_its_launch() {
    let mut world = cloud([with_hours("web", "24/7")]).await;
    tick(&mut world, &reconcile(), "Tu 20:55").await;
    retag(&world, "web", "office");
    assert_eq!(tick(&mut world, &reconcile(), "Tu 21:00").await.names("changed"), names(["web"]));
    tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(runs(&world, "web"));
}

#[tokio::test]
async fn retagged_at_night_to_24_7() {
    let mut world = cloud([with_hours("web", "office"), with_hours("theirs", "office")]).await;
    person_stops(&world, "theirs", "Tu 18:00").await;
    ticks_every(&mut world, &reconcile(), 30, "Tu 19:00", "Tu 21:30").await;
    assert!(!runs(&world, "web"));
    ["web", "theirs"].into_iter().for_each(|name| retag(&world, name, "24/7"));
    let told = tick(&mut world, &reconcile(), "Tu 22:00").await;
    assert_eq!(told.names("changed"), names(["web"]), "what Curfew stopped; a person's stop stays one");
    assert_eq!(world.sim.tag("web", MARK), None);
}

#[tokio::test]
async fn retagged_at_night_to_hours_that_opened_before_its_launch() {
    let mut world = cloud([with_hours("web", "office").launched(at("Tu 15:00"))]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert!(!runs(&world, "web"));
    retag(&world, "web", "Mo-Fr 06:00-22:00");
    // That it is off doesn't mean that its start failed: Curfew itself has stopped it.
    assert_eq!(tick(&mut world, &reconcile(), "Tu 20:00").await.names("changed"), names(["web"]));
}

#[tokio::test]
async fn an_unreadable_tag_by_day_and_by_night() {
    let off = with_hours("off", "Mon-Fri 8-19").state("stopped").tag(MARK, &mark("Mo 19:00"));
    let mut world = cloud([with_hours("web", "Mon-Fri 8-19"), off]).await;
    let day = ticks_every(&mut world, &reconcile(), 60, "Tu 06:00", "We 10:00").await;
    let written: Vec<_> = day.calls.iter().filter(|call| call.action != "DescribeInstances").collect();
    assert!(written.is_empty(), "nothing is touched: {written:?}");
    assert!(runs(&world, "web") && !runs(&world, "off"));
    assert!(day.metric("bad_tag").iter().all(|count| *count == 2));
    // Somebody corrects it.
    ["web", "off"].into_iter().for_each(|name| retag(&world, name, OFFICE));
    let told = tick(&mut world, &reconcile(), "We 10:05").await;
    assert_eq!(told.names("changed"), names(["off"]));
}

#[tokio::test]
async fn marks_stripped_at_noon_do_no_harm() {
    let mut world = cloud([with_hours("web", "office")]).await;
    // A mark on a running instance, as if EC2 had refused its stop.
    world.sim.edit("web", |machine| drop(machine.tags.insert(MARK.into(), mark("Tu 07:00"))));
    strip_mark(&world, "web");
    let all = ticks_every(&mut world, &reconcile(), 15, "Tu 12:00", "We 08:00").await;
    assert!(runs(&world, "web"));
    assert_eq!((all.count("StopInstances"), all.count("StartInstances")), (1, 1));
}

#[tokio::test]
async fn marks_stripped_at_night() {
    for (event, started) in [(reconcile(), false), (forgetful(), true)] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Tu 19:00").await;
        strip_mark(&world, "web");
        let night = ticks_every(&mut world, &event, 15, "Tu 23:00", "We 07:45").await;
        assert_eq!(night.count("CreateTags"), usize::from(started), "marked again, once: {event}");
        let told = tick(&mut world, &event, "We 08:00").await;
        assert_eq!(runs(&world, "web"), started, "{event}");
        if !started {
            let said = told.entry("skipped", "web");
            assert_eq!(said["reason"], "stopped_since", "it is told of, for it may be missed");
            assert_eq!(said["message"], "Client.UserInitiatedShutdown: User initiated shutdown");
        }
    }
}

#[tokio::test]
async fn marks_stripped_in_the_last_five_minutes() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        ticks_every(&mut world, &event, 60, "Tu 19:00", "We 07:00").await;
        tick(&mut world, &event, "We 07:55").await;
        strip_mark(&world, "web");
        let told = tick(&mut world, &event, "We 08:00").await;
        // By now it can't be told apart from a person's stop.
        assert_eq!((told.reason("web").as_str(), runs(&world, "web")), ("stopped_since", false), "{event}");
        assert_eq!(told.line("web")["level"], "INFO");
    }
}

#[tokio::test]
async fn a_reboot_changes_nothing() {
    let mut world = cloud([with_hours("web", "office"), with_hours("late", "office").launched(at("Tu 20:00"))]).await;
    // A reboot leaves LaunchTime alone, and EC2 shows the instance as running throughout.
    let reboot = |world: &World, name: &str| world.sim.edit(name, |machine| machine.state_reason = None);
    reboot(&world, "web");
    tick(&mut world, &reconcile(), "Tu 18:55").await;
    assert_eq!(tick(&mut world, &reconcile(), "Tu 19:00").await.names("changed"), names(["web"]));
    reboot(&world, "late");
    ticks_every(&mut world, &reconcile(), 30, "Tu 20:00", "We 08:00").await;
    assert!(runs(&world, "late") && runs(&world, "web"));
}

#[tokio::test]
async fn describe_lags_behind_a_persons_start() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        world.lags = true;
        tick(&mut world, &event, "Tu 19:00").await;
        world.sim.settings(|settings| settings.describe_lag = Duration::from_secs(20));
        // EC2 still shows it as stopped, with a mark that counts.
        person_starts(&world, "web", "Tu 21:59:55").await;
        world.others_act_on = names(["web"]);
        let night = ticks_every(&mut world, &event, 5, "Tu 22:00", "Tu 22:30").await;
        assert!(runs(&world, "web"));
        assert_eq!(night.count("StopInstances") + night.count("CreateTags") + night.count("StartInstances"), 0);
        // And at the opening, when it is about to be started anyway.
        person_stops(&world, "web", "Tu 23:00").await;
        world.sim.edit("web", |machine| drop(machine.tags.insert(MARK.into(), mark("Tu 23:05"))));
        tick(&mut world, &event, "We 07:55").await;
        person_starts(&world, "web", "We 07:59:58").await;
        ticks(&mut world, &event, "We 08:00", "We 08:20").await;
        assert!(runs(&world, "web"), "{event}");
        person_stops(&world, "web", "We 10:00").await;
        ticks(&mut world, &event, "We 10:00", "We 10:30").await;
        assert!(!runs(&world, "web"), "no mark is left that would undo a person's stop: {event}");
    }
}
