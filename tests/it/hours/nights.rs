//! Whole nights of trouble: EC2 refuses stops, tags or deletions, or a machine stops and wakes by itself.

use ec2_sim::Fault;

use super::*;

const DENIED: &str = "You are not authorized to perform this operation.";

fn refuses(action: &'static str) -> Fault {
    Fault::refuse(action, "UnauthorizedOperation", DENIED).status(403)
}

#[tokio::test]
async fn a_stop_refused_all_night_is_tried_nine_times_with_at_most_ten_tag_writes() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office")]).await;
    world.sim.fault(refuses("StopInstances").on(["db"]));
    let night = ticks(&mut world, &reconcile(), "Mo 19:00", "Tu 08:20").await;
    let of_db = |action: &str| {
        let id = world.sim.machine("db").id;
        night.calls.iter().filter(|call| call.action == action && call.ids == [id.as_str()]).count()
    };
    // The first try was in one call with web.
    let tries = night.listed("failed", "db");
    let evening = ["Mon 19:00", "Mon 19:05", "Mon 19:10", "Mon 19:20", "Mon 19:40", "Mon 20:20", "Mon 21:40"];
    assert_eq!(tries, [&evening[..], &["Tue 00:20", "Tue 05:40"]].concat());
    assert!(of_db("StopInstances") <= 9, "{} tries", of_db("StopInstances"));
    let writes = night.count("CreateTags") + night.count("DeleteTags");
    assert_eq!((writes, night.count("DeleteTags")), (10 + 1, 2), "nine and one of db, one and one of web");
    assert!(runs(&world, "db") && world.sim.tag("db", MARK).is_none(), "by day no mark is left");
    // Between tries it is reported only near the edge; the alarm's metric counts it at each try.
    assert_eq!(night.listed("skipped", "db"), ["Mon 19:15"]);
    assert_eq!(night.metric("left").iter().filter(|left| **left == 1).count(), 9);
    let said = night.told[3].1.entry("skipped", "db");
    let (tried, next) = (rfc3339(at("Mo 19:10")), rfc3339(at("Mo 19:20")));
    assert_eq!(said["reason"], "tried");
    assert_eq!(said["message"], format!("EC2 did not stop it at {tried}; next try at {next}"));
}

#[tokio::test]
async fn two_refused_without_a_name_are_failed_at_each_try_and_cost_no_other_its_night() {
    let mut world =
        cloud([with_hours("db-1", "office"), with_hours("db-2", "office"), with_hours("web", "office")]).await;
    world.sim.fault(refuses("StopInstances").on(["db-1", "db-2"]));
    // The tick of the closing is missed, so the marks of the first try are later than the closing.
    let night = ticks(&mut world, &reconcile(), "Mo 19:05", "Mo 19:20").await;
    assert!(!runs(&world, "web"));
    assert_eq!(night.listed("failed", "db-1"), ["Mon 19:05", "Mon 19:10", "Mon 19:20"]);
    assert_eq!(night.listed("failed", "db-2"), ["Mon 19:05", "Mon 19:10", "Mon 19:20"]);
    assert_eq!(night.metric("left").iter().filter(|left| **left == 2).count(), 3);
}

#[tokio::test]
async fn a_sick_one_costs_the_others_of_its_call_nothing_at_any_tick() {
    let mut world = cloud((0..20).map(|n| with_hours(&format!("web-{n:02}"), "office"))).await;
    let sick = Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500);
    world.sim.fault(sick.on(["web-03", "web-12"]));
    let told = tick(&mut world, &reconcile(), "Mo 19:05").await;
    assert_eq!(told.names("unfinished"), names(["web-03", "web-12"]), "{:#}", told.report);
    assert_eq!(told.names("changed").len(), 18);
}

#[tokio::test]
async fn memory_that_cannot_be_saved_yet_is_no_start_by_a_person() {
    let mut world = cloud([with_hours("web", "office").hibernation()]).await;
    let words = "The instance '{id}' is not ready to hibernate yet. Retry in a few minutes.";
    world.sim.fault(Fault::refuse("StopInstances", "UnsupportedOperation", words).times(1));
    // At the look after the pause, it has this tick's own mark.
    let told = tick(&mut world, &with(reconcile(), json!({"hibernate": true})), "Mo 19:00").await;
    assert_eq!(told.names("changed"), names(["web"]), "{:#}", told.report);
}

#[tokio::test]
async fn a_protected_instance_is_tried_nine_times_a_night_too() {
    let mut world = cloud([with_hours("vault", "office").stop_protected()]).await;
    let night = ticks(&mut world, &reconcile(), "Mo 19:00", "Tu 08:20").await;
    assert_eq!((night.count("StopInstances"), night.count("CreateTags"), night.count("DeleteTags")), (9, 9, 1));
    assert!(night.metric("left").iter().all(|left| *left == 0), "somebody wants it so");
    assert!(
        night.sentences().contains(&"Mon 19:25 office: nothing to switch, 1 left alone".to_owned()),
        "{:?}",
        night.sentences()
    );
    // Protection ends in the evening: the next try stops it, and the mark of that try counts.
    ticks(&mut world, &reconcile(), "Tu 19:00", "Tu 19:10").await;
    world.sim.edit("vault", |machine| machine.stop_protected = false);
    let evening = ticks(&mut world, &reconcile(), "Tu 19:15", "Tu 19:30").await;
    assert_eq!(evening.listed("changed", "vault"), ["Tue 19:20"]);
    tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(runs(&world, "vault"));
}

#[tokio::test]
async fn a_tick_that_is_delivered_twice_asks_once_and_lambdas_own_retry_goes_on() {
    let mut world = cloud([with_hours("vault", "office").stop_protected()]).await;
    let asked = |world: &World| (world.count("CreateTags"), world.count("StopInstances"));
    tick(&mut world, &reconcile(), "Mo 19:05").await;
    assert_eq!(asked(&world), (1, 1));
    let again = tick(&mut world, &reconcile(), "Mo 19:05").await;
    assert_eq!((asked(&world), again.reason("vault").as_str()), ((0, 0), "tried"), "another run of the same tick");
    let said = again.entry("skipped", "vault");
    let (tried, next) = (rfc3339(at("Mo 19:05")), rfc3339(at("Mo 19:10")));
    assert_eq!(said["message"], format!("EC2 did not stop it at {tried}; next try at {next}"));
    assert_eq!(again.message(), "office: left 1 alone (1 tried)");
    // The retry has the run's own id, and its mark is there already.
    tick(&mut world, &reconcile(), "Tu 19:05").await;
    world.sim.edit("vault", |machine| machine.stop_protected = false);
    let retried = world.retry(due(&reconcile(), "Tu 19:05")).await;
    assert_eq!((retried.names("changed"), world.count("StopInstances")), (names(["vault"]), 1), "{:#}", retried.report);
    arrived(&world).await;
    tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(runs(&world, "vault"));
}

#[tokio::test]
async fn refused_unmark_fails_next_day_a_person_stops() {
    let mut world = cloud([with_hours("web", "office")]).await;
    world.sim.fault(refuses("StopInstances"));
    ticks_every(&mut world, &reconcile(), 5, "Mo 19:00", "Mo 20:00").await;
    world.sim.clear_faults();
    world.sim.fault(refuses("DeleteTags").times(3));
    let morning = ticks(&mut world, &reconcile(), "Tu 08:00", "Tu 09:00").await;
    assert_eq!(morning.count("DeleteTags"), 4, "three that fail and one that doesn't");
    assert!(morning.told.iter().all(|(_, told)| told.verdict() == "complete"));
    person_stops(&world, "web", "Tu 10:00").await;
    ticks_every(&mut world, &reconcile(), 15, "Tu 10:00", "Tu 18:45").await;
    assert!(!runs(&world, "web"), "a person's stop stays one");
}

#[tokio::test]
async fn started_with_a_mark_that_ec2_keeps_and_stopped_by_a_person() {
    for event in [reconcile(), forgetful()] {
        let mut world = cloud([with_hours("web", "office")]).await;
        tick(&mut world, &event, "Mo 19:00").await;
        world.sim.fault(refuses("DeleteTags"));
        tick(&mut world, &event, "Tu 08:00").await;
        assert!(runs(&world, "web") && world.sim.tag("web", MARK).is_some(), "the start has voided it");
        person_stops(&world, "web", "Tu 10:00").await;
        ticks_every(&mut world, &event, 30, "Tu 10:00", "Tu 18:30").await;
        assert!(!runs(&world, "web"), "{event}");
    }
}

#[tokio::test]
async fn ec2_stops_it_for_retirement_or_a_broken_host() {
    for (code, words) in [
        ("Server.ScheduledStop", "Server.ScheduledStop: Stopped due to scheduled retirement"),
        ("Server.InternalError", "Server.InternalError: Internal error on host"),
        ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"),
    ] {
        for (event, started) in [(reconcile(), false), (forgetful(), true)] {
            let mut world = cloud([with_hours("web", "office")]).await;
            tick(&mut world, &event, "Tu 12:00").await;
            ec2_stops(&world, "web", code, words);
            tick(&mut world, &event, "Tu 12:05").await;
            assert!(!runs(&world, "web"), "{code}");
            ticks_every(&mut world, &event, 120, "Tu 19:00", "We 07:00").await;
            let told = tick(&mut world, &event, "We 08:00").await;
            assert_eq!(runs(&world, "web"), started, "{code} {event}");
            if !started {
                assert_eq!(told.entry("skipped", "web")["message"], words);
            }
        }
    }
}

#[tokio::test]
async fn ec2_stops_it_at_night_while_it_is_ours() {
    let mut world = cloud([with_hours("web", "office")]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    ec2_stops(&world, "web", "Server.ScheduledStop", "Server.ScheduledStop: Stopped due to scheduled retirement");
    assert_eq!(tick(&mut world, &reconcile(), "We 08:00").await.names("changed"), names(["web"]));
}

#[tokio::test]
async fn spot_interrupted_with_behaviour_stop() {
    for code in ["Server.SpotInstanceShutdown", "Server.SpotInstanceStop"] {
        for event in [reconcile(), forgetful()] {
            let spot = |name: &str| with_hours(name, "office").spot_persistent();
            // "marked" was stopped by Curfew before, and has been interrupted since.
            let mut world = cloud([spot("web"), spot("marked").tag(MARK, &mark("Mo 19:00"))]).await;
            for name in ["web", "marked"] {
                ec2_stops(&world, name, code, &format!("{code}: Stopped for lack of capacity"));
            }
            let night = ticks_every(&mut world, &event, 60, "Tu 12:00", "We 09:00").await;
            let written: Vec<_> = night.calls.iter().filter(|call| call.action != "DescribeInstances").collect();
            assert!(written.is_empty(), "only EC2 may start it: {written:?}");
            let at_8 = &night.told.iter().find(|(moment, _)| *moment == at("We 08:00")).unwrap().1;
            assert_eq!(at_8.reason("web"), "stopped_since", "{code} {event}");
        }
    }
}

#[tokio::test]
async fn a_spot_instance_that_curfew_stopped_is_started_again() {
    let mut world = cloud([with_hours("web", "office").spot_persistent()]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert_eq!(tick(&mut world, &reconcile(), "We 08:00").await.names("changed"), names(["web"]));
}

#[tokio::test]
async fn fifty_tags_already() {
    // 47 tags, with its name, its hours and the tag that selects it: 50.
    let full = (1..=47).fold(with_hours("full", "office"), |it, n| it.tag(&format!("tag-{n}"), "x"));
    let mut world = cloud([full, with_hours("web", "office")]).await;
    let told = tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("incomplete", names(["web"])));
    let failed = told.entry("failed", "full");
    assert_eq!(failed["code"], "TagLimitExceeded");
    assert!(failed["message"].as_str().unwrap().starts_with("it could not be marked"), "{failed}");
    let evening = ticks(&mut world, &reconcile(), "Tu 19:05", "Tu 19:30").await;
    assert!(runs(&world, "full") && evening.count("StopInstances") == 0, "no mark, no stop");
    assert!(evening.metric("left").iter().all(|left| *left == 1));
    // Somebody makes room.
    world.sim.edit("full", |machine| drop(machine.tags.remove("tag-9")));
    assert_eq!(tick(&mut world, &reconcile(), "Tu 19:35").await.names("changed"), names(["full"]));
    tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(runs(&world, "full"));
}

#[tokio::test]
async fn a_rehearsal_all_night() {
    let off = with_hours("off", "office").state("stopped").tag(MARK, &mark("Mo 19:00"));
    let mut world = cloud([with_hours("web", "office"), off]).await;
    let rehearsal = with(reconcile(), json!({"dry_run": true}));
    let night = ticks(&mut world, &rehearsal, "Mo 18:55", "Tu 08:20").await;
    let changing = night.calls.iter().filter(|call| call.action != "DescribeInstances" && !call.dry_run).count();
    assert_eq!((changing, runs(&world, "web"), runs(&world, "off")), (0, true, false));
    let told = ["Mon 19:00", "Mon 19:05", "Mon 19:10", "Mon 19:15"];
    assert_eq!(night.listed("would_change", "web"), told, "near its edge, not 156 times");
    assert_eq!(night.listed("would_change", "off"), ["Tue 08:00", "Tue 08:05", "Tue 08:10", "Tue 08:15"]);
    assert_eq!(
        night.sentences(),
        [
            "Mon 18:55 office: dry run, 2 of 2 as scheduled",
            "Mon 19:00 office: dry run, would stop 1 of 2",
            "Mon 19:20 office: dry run, 1 of 2 still to be switched",
            "Tue 08:00 office: dry run, would start 1 of 2",
            "Tue 08:20 office: dry run, 1 of 2 still to be switched",
        ]
    );
    let at_night = &night.told.iter().find(|(moment, _)| *moment == at("Tu 02:00")).unwrap().1;
    assert_eq!(at_night.report["summary"]["would_change"], 1, "counted always");
    assert!(at_night.report.to_string().len() < 1000 && other_lines(at_night).is_empty());
}

#[tokio::test]
async fn a_resume_that_did_not_renew_launch_time() {
    let event = with(reconcile(), json!({"hibernate": true}));
    let sleeper = || with_hours("sleeper", "office").hibernation().resume_keeps_launch_time();
    let mut world = cloud([sleeper()]).await;
    let told = tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!(world.calls("StopInstances")[0].params["Hibernate"], "true", "{:#}", told.report);
    // A person resumes it at night: that is not a stop that EC2 refused.
    person_starts(&world, "sleeper", "Tu 22:00").await;
    let night = ticks_every(&mut world, &event, 15, "Tu 22:00", "We 07:45").await;
    assert!(runs(&world, "sleeper") && night.count("StopInstances") + night.count("CreateTags") == 0);
    assert_eq!(night.told[0].1.report["skipped_by"], json!({"started_since": 1}));
    // By day the mark comes off, so that a person's stop stays one.
    ticks(&mut world, &event, "We 08:00", "We 08:05").await;
    assert_eq!(world.sim.tag("sleeper", MARK), None);
    person_stops(&world, "sleeper", "We 10:00").await;
    ticks(&mut world, &event, "We 10:00", "We 10:30").await;
    assert!(!runs(&world, "sleeper"));

    // Curfew's own resume at the opening leaves no mark either.
    let mut world = cloud([sleeper()]).await;
    tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!(tick(&mut world, &event, "We 08:00").await.names("changed"), names(["sleeper"]));
    assert_eq!(world.sim.tag("sleeper", MARK), None);
    assert_eq!(tick(&mut world, &event, "We 19:00").await.names("changed"), names(["sleeper"]));
}

#[tokio::test]
async fn hibernate_is_for_what_is_configured_for_it() {
    let event = with(reconcile(), json!({"hibernate": true}));
    let mut world = cloud([with_hours("sleeper", "office").hibernation(), with_hours("web", "office")]).await;
    assert_eq!(tick(&mut world, &event, "Tu 19:00").await.names("changed"), names(["sleeper", "web"]));
    for call in world.calls("StopInstances") {
        let sleeps = call.ids == [world.sim.machine("sleeper").id];
        assert_eq!(call.params.get("Hibernate").is_some_and(|value| value == "true"), sleeps, "{:?}", call.params);
    }
    assert_eq!(tick(&mut world, &event, "We 08:00").await.names("changed"), names(["sleeper", "web"]));
}

#[tokio::test]
async fn a_mark_that_ec2_fails_to_write_is_left_to_the_next_tick() {
    let unavailable = |action: &'static str| Fault::refuse(action, "Unavailable", "Service unavailable.").status(503);
    let tried = with_hours("tried", "Mo-Fr 18:00-24:00").tag(MARK, &mark("Tu 10:00"));
    let mut world = cloud([with_hours("off", "office").state("stopped"), tried]).await;
    world.sim.fault(unavailable("CreateTags"));
    world.sim.fault(unavailable("DeleteTags"));
    let told = tick(&mut world, &forgetful(), "Tu 19:00").await;
    assert!(told.took < Duration::from_secs(8), "{:?}, {} calls", told.took, world.sim.calls().len());
    assert_eq!((told.verdict().as_str(), told.names("unfinished")), ("unfinished", names(["off"])));
    assert_eq!(told.entry("unfinished", "off")["reason"], "Unavailable");
    world.sim.clear_faults();
    tick(&mut world, &forgetful(), "Tu 19:05").await;
    assert!(counts(&world.sim.machine("off")) && world.sim.tag("tried", MARK).is_none());
}
