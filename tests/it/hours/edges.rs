//! Edges: what counts as an edge, that it acts only once, and ticks that come too early, too late or twice.

use ec2_sim::Outcome;

use super::*;

#[tokio::test]
async fn a_weekend_of_missed_ticks() {
    let mut world = cloud([with_hours("web", "office"), with_hours("late", "office").launched(at("Sa 10:00"))]).await;
    tick(&mut world, &reconcile(), "Fr 18:55").await;
    // When the ticks resume, they catch up on the closing.
    let told = tick(&mut world, &reconcile(), "Su 03:00").await;
    assert_eq!(told.names("changed"), names(["web"]));
    assert!(runs(&world, "late"), "started since the closing");
    // Ticks are missing again, over the opening.
    let told = tick(&mut world, &reconcile(), "Mo+1 10:00").await;
    assert_eq!(told.names("changed"), names(["web"]));

    // From Friday evening to Monday morning: closing and opening are both missed, so nothing has to change.
    tick(&mut world, &reconcile(), "Fr+1 18:55").await;
    let told = tick(&mut world, &reconcile(), "Mo+2 08:00").await;
    assert_eq!(told.message(), "office: 2 of 2 as scheduled");
}

#[tokio::test]
async fn launched_in_the_edges_second() {
    let before = with_hours("before", "office").launched(at("Tu 18:59:59"));
    let mut world = cloud([before, with_hours("in", "office").launched(at("Tu 19:00:00"))]).await;
    let told = tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert_eq!((told.names("changed"), told.reason("in").as_str()), (names(["before"]), "started_since"));
    ticks(&mut world, &reconcile(), "Tu 19:05", "Tu 19:20").await;
    assert!(runs(&world, "in"));
}

#[tokio::test]
async fn an_exemption_that_ends_in_closed_hours_is_an_edge() {
    let exempt = |name: &str| with_hours(name, "office").tag("curfew:exempt", &rfc3339(at("Tu 22:00")));
    // A start in closed hours, during the exemption, doesn't keep it running beyond the exemption.
    let started = exempt("started").launched(at("Tu 20:00"));
    let mut world = cloud([exempt("demo"), exempt("restarted"), started]).await;
    let evening = ticks_every(&mut world, &reconcile(), 15, "Tu 19:00", "Tu 21:45").await;
    assert!(runs(&world, "demo") && runs(&world, "restarted"));
    let (reason, until) = ("exempt", rfc3339(at("Tu 22:00")));
    let told = evening.told[0].1.entry("skipped", "demo");
    assert_eq!((told["reason"].as_str(), told["until"].as_str()), (Some(reason), Some(until.as_str())));
    let told = ["Tue 19:00", "Tue 19:15", "Tue 21:45"];
    assert_eq!(evening.listed("skipped", "demo"), told, "told near its edge and its end");
    let told = tick(&mut world, &reconcile(), "Tu 22:00").await;
    assert_eq!(told.names("changed"), names(["demo", "restarted", "started"]));
    // It is an edge, not a state: an instance that is started afterwards is left alone.
    person_starts(&world, "restarted", "Tu 22:30").await;
    ticks_every(&mut world, &reconcile(), 15, "Tu 22:30", "We 08:00").await;
    assert!(runs(&world, "demo") && runs(&world, "restarted"));
}

#[tokio::test]
async fn an_exemption_that_ends_in_open_hours_is_none() {
    let exempt = with_hours("demo", "office").tag("curfew:exempt", &rfc3339(at("We 12:00")));
    let off = exempt.clone().tag("Name", "off").state("stopped").tag(MARK, &mark("Mo 19:00"));
    let mut world = cloud([exempt, off]).await;
    ticks_every(&mut world, &reconcile(), 30, "Tu 19:00", "We 11:30").await;
    assert!(runs(&world, "demo") && !runs(&world, "off"));
    let told = tick(&mut world, &reconcile(), "We 12:00").await;
    assert_eq!(told.names("changed"), names(["off"]), "it is open, and it is ours");
    assert_eq!(tick(&mut world, &reconcile(), "We 19:00").await.names("changed"), names(["demo", "off"]));
}

#[tokio::test]
async fn hours_of_24_7_stop_nothing_and_start_nothing() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "24/7"), with_hours("off", "24/7").state("stopped")]).await;
        let week = ticks_every(&mut world, &event, 180, "Fr 00:00", "Tu+1 00:00").await;
        assert!(week.calls.iter().all(|call| call.action == "DescribeInstances"));
        assert!(runs(&world, "web") && !runs(&world, "off"));
    }
}

#[tokio::test]
async fn hours_that_begin_next_year_stop_nothing() {
    let next_year = format!("{} Mo-Fr 08:00-19:00", at("Mo 00:00").date_naive().year() + 1);
    let mut world = cloud([with_hours("web", &next_year)]).await;
    let week = ticks_every(&mut world, &reconcile(), 180, "Fr 00:00", "Tu+1 00:00").await;
    assert!(week.calls.iter().all(|call| call.action == "DescribeInstances"));
    assert!(runs(&world, "web") && week.told.iter().all(|(_, told)| told.verdict() == "complete"));
    assert_eq!(week.told[0].1.report["skipped_by"], json!({"started_since": 1}));
}

#[tokio::test]
async fn two_ticks_at_once() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office")]).await;
    let mut other = world.second_host().await;
    for (moment, on) in [("Tu 19:00", false), ("We 08:00", true), ("We 19:00", false), ("Th 08:00", true)] {
        set_clock(&world, moment);
        let event = due(&reconcile(), moment).to_string();
        let (one, two) = tokio::join!(world.host.invoke(event.clone(), AMPLE), other.invoke(event, AMPLE));
        for told in [Told::of(one), Told::of(two)] {
            assert_eq!((told.verdict().as_str(), told.names("failed")), ("complete", names([])), "{:#}", told.report);
        }
        arrived(&world).await;
        for name in ["web", "db"] {
            assert_eq!(runs(&world, name), on, "{name} at {moment}");
            let machine = world.sim.machine(name);
            assert_eq!(counts(&machine), !on, "{name} at {moment}: {:?}", machine.tags);
        }
    }
}

#[tokio::test]
async fn an_older_tick_after_a_newer_one_over_a_closing_edge() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Tu 19:00").await;
        // By its own time the hours are open, but it leaves alone what a newer tick has stopped.
        let told = late_tick(&mut world, &event, "Tu 18:55", "Tu 19:01").await;
        assert_eq!(told.message(), "office: 1 of 1 as scheduled");
        assert!(!runs(&world, "web") && counts(&world.sim.machine("web")));
        tick(&mut world, &event, "We 08:00").await;
        assert!(runs(&world, "web"));
    }
}

#[tokio::test]
async fn an_older_tick_after_a_newer_one_over_an_opening_edge() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Tu 19:00").await;
        tick(&mut world, &event, "We 08:00").await;
        let told = late_tick(&mut world, &event, "We 07:55", "We 08:01").await;
        assert_eq!(told.reason("web"), "started_since");
        assert!(runs(&world, "web") && world.sim.tag("web", MARK).is_none());
    }
}

#[tokio::test]
async fn a_tick_that_comes_too_late_is_stale_and_told_at_info() {
    let mut world = cloud([with_hours("web", "office")]).await;
    let mut event = reconcile();
    event.as_object_mut().unwrap().remove("max_delay_minutes");
    let due = in_minutes(-7);
    let told = world.invoke(with(event.clone(), json!({"scheduled_time": due}))).await;
    assert!(matches!(told.outcome, Outcome::Answered(_)), "the next tick has come: {:?}", told.outcome);
    assert_eq!((told.verdict().as_str(), world.sim.calls().len()), ("stale", 0));
    assert_eq!(
        told.message(),
        format!(
            "office: nothing reconciled, this run was due at {due} (scheduled_time), 7 minutes ago; max_delay_minutes allows 5 \
             minutes"
        )
    );
    assert!(told.logs.iter().all(|line| line["level"] == "INFO"), "{:#?}", told.logs);
    assert_eq!(told.logs.len(), 1, "no metrics: an alarm has to miss the tick");
    let told = world.invoke(with(event, json!({"scheduled_time": in_minutes(-4)}))).await;
    assert_ne!(told.verdict(), "stale");
}

#[tokio::test]
async fn a_start_longer_than_a_tick() {
    let mut world = cloud([with_hours("web", "office")]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    world.sim.settings(|settings| settings.start_takes = Duration::from_secs(7 * 60));
    set_clock(&world, "We 08:00");
    let told = world.within(Duration::from_secs(3), due(&reconcile(), "We 08:00")).await;
    assert_eq!((told.verdict().as_str(), world.sim.state("web").as_str()), ("unfinished", "pending"));
    assert_eq!(told.entry("unfinished", "web")["reason"], "deadline");
    set_clock(&world, "We 08:05");
    let told = world.invoke(due(&reconcile(), "We 08:05")).await;
    assert_eq!(told.report["skipped_by"], json!({"moving": 1}));
    assert!(told.entries("skipped").is_empty() && told.took < Duration::from_secs(1), "counted, and not waited for");
    let told = tick(&mut world, &reconcile(), "We 08:10").await;
    assert_eq!((told.message().as_str(), runs(&world, "web")), ("office: 1 of 1 as scheduled", true));
    person_stops(&world, "web", "We 10:00").await;
    ticks(&mut world, &reconcile(), "We 10:00", "We 10:30").await;
    assert!(!runs(&world, "web"), "nothing of the start is left that would undo a person's stop");
}

#[tokio::test]
async fn killed_between_mark_and_stop() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        set_clock(&world, "Tu 19:00");
        world.dies_before("StopInstances", &due(&event, "Tu 19:00")).await;
        assert!(runs(&world, "web") && counts(&world.sim.machine("web")));
        let told = tick(&mut world, &event, "Tu 19:05").await;
        assert_eq!(told.names("changed"), names(["web"]));
        tick(&mut world, &event, "We 08:00").await;
        assert!(runs(&world, "web") && world.sim.tag("web", MARK).is_none());
    }
}

#[tokio::test]
async fn killed_between_mark_and_stop_with_no_other_tick_that_night() {
    let mut world = cloud([with_hours("web", "office")]).await;
    set_clock(&world, "Tu 19:00");
    world.dies_before("StopInstances", &due(&reconcile(), "Tu 19:00")).await;
    tick(&mut world, &reconcile(), "We 08:00").await;
    assert_eq!(world.sim.tag("web", MARK), None, "it would undo what a person stops");
    person_stops(&world, "web", "We 10:00").await;
    tick(&mut world, &reconcile(), "We 10:00").await;
    assert!(!runs(&world, "web"));
}
