//! Openings at which not everything starts.

use ec2_sim::Shortage;

use super::*;

const NO_KEY: (&str, &str) = ("Client.InternalError", "Client.InternalError: Client error on launch");

#[tokio::test]
async fn a_start_that_always_falls_back_is_tried_nine_times_a_day_at_most_and_left_at_every_tick() {
    let mut world = cloud([with_hours("crypt", "office").falls_back(NO_KEY.0, NO_KEY.1)]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    let mut day = ticks(&mut world, &reconcile(), "We 08:00", "We 09:20").await;
    for (from, to) in [("We 09:40", "We 10:20"), ("We 10:35", "We 13:15")] {
        let more = ticks_every(&mut world, &reconcile(), 20, from, to).await;
        day.told.extend(more.told);
        day.calls.extend(more.calls);
    }
    let is_start = |call: &&Call| call.action == "StartInstances";
    let started: Vec<String> =
        day.calls.iter().filter(is_start).map(|call| call.at.format("%H:%M").to_string()).collect();
    // Each wait is twice as long as the one before; the eighth and last start of the day comes at 18:30.
    assert_eq!(started, ["08:00", "08:05", "08:15", "08:35", "09:15", "10:35", "13:15"]);
    assert!(day.metric("left").iter().all(|left| *left == 1), "told at every tick: {:?}", day.metric("left"));
    let (_, first) = &day.told[0];
    assert_eq!((first.verdict().as_str(), first.names("failed")), ("incomplete", names(["crypt"])));
    assert!(first.entry("failed", "crypt")["message"].as_str().unwrap().contains("kms:CreateGrant"));
    let waiting =
        day.told.iter().map(|(_, told)| told.entry("failed", "crypt")["message"].as_str().unwrap().to_owned());
    let waiting: Vec<String> = waiting.filter(|message| message.contains("next try at")).collect();
    assert_eq!(waiting.len(), day.told.len() - started.len(), "a tick tries, or says when the next one does");
    assert!(waiting.iter().all(|message| message.starts_with(NO_KEY.1)), "{waiting:#?}");
    let told = tick(&mut world, &reconcile(), "We 18:00").await;
    let message = told.entry("failed", "crypt")["message"].as_str().unwrap().to_owned();
    let date = at("We 00:00").date_naive();
    assert!(message.contains(&format!("next try at {date}T18:30:")), "{message}");
    // In the evening it is off and marked as ours, so in the morning it is tried at once.
    ticks_every(&mut world, &reconcile(), 60, "We 19:00", "Th 07:00").await;
    assert!(counts(&world.sim.machine("crypt")));
    world.sim.edit("crypt", |machine| machine.falls_back = None);
    assert_eq!(tick(&mut world, &reconcile(), "Th 08:00").await.names("changed"), names(["crypt"]));
    assert_eq!(world.sim.tag("crypt", MARK), None);
}

#[tokio::test]
async fn falls_back_while_the_run_dies() {
    let mut world = cloud([with_hours("crypt", "office").falls_back(NO_KEY.0, NO_KEY.1).falls_back_times(1)]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    set_clock(&world, "We 08:00");
    world.dies_after_the("StartInstances", &due(&reconcile(), "We 08:00")).await;
    arrived(&world).await;
    let machine = world.sim.machine("crypt");
    assert!(machine.state == "stopped" && !counts(&machine), "its mark is void, and nobody has renewed it");
    let told = tick(&mut world, &reconcile(), "We 08:05").await;
    assert_eq!((told.names("changed"), world.sim.tag("crypt", MARK)), (names(["crypt"]), None));
}

#[tokio::test]
async fn no_room_at_8() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office").zone("us-east-1b")]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    world.sim.settings(|settings| settings.shortages = vec![Shortage::new("us-east-1b", "t3.micro")]);
    let told = tick(&mut world, &reconcile(), "We 08:00").await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("unfinished", names(["web"])));
    assert_eq!(told.entry("unfinished", "db")["reason"], "InsufficientInstanceCapacity");
    assert!(told.took < Duration::from_secs(8), "the next tick waits, not this one: {:?}", told.took);
    assert!(counts(&world.sim.machine("db")), "it is still ours");
    tick(&mut world, &reconcile(), "We 08:05").await;
    world.sim.settings(|settings| settings.shortages.clear());
    assert_eq!(tick(&mut world, &reconcile(), "We 08:10").await.names("changed"), names(["db"]));
}

#[tokio::test]
async fn no_room_after_all_as_the_state_reason_says() {
    let reason = ("Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: Insufficient capacity");
    let mut world = cloud([with_hours("web", "office").falls_back(reason.0, reason.1).falls_back_times(2)]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    let told = tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(told.names("changed").is_empty() && metrics(&told)["left"] == 1, "{:#}", told.report);
    let morning = ticks(&mut world, &reconcile(), "We 08:05", "We 08:20").await;
    assert!(runs(&world, "web"), "{:?}", morning.sentences());
}

#[tokio::test]
async fn more_starts_than_the_bucket_gives() {
    let lowered = r#"{"StartInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 10, "refill": 1}}}"#;
    let mut world =
        cloud_with_env(&[("CURFEW_EC2_LIMITS", lowered)], (1..=30).map(|n| with_hours(&format!("web-{n}"), "office")))
            .await;
    assert_eq!(tick(&mut world, &reconcile(), "Tu 19:00").await.names("changed").len(), 30);
    world.sim.settings(|settings| (settings.throttle, settings.throttle_size) = (true, 0.01));
    set_clock(&world, "We 08:00");
    let told = world.within(Duration::from_secs(6), due(&reconcile(), "We 08:00")).await;
    let first = told.names("changed").len();
    assert!((10..=16).contains(&first), "{first} started");
    assert_eq!((told.verdict().as_str(), told.names("unfinished").len()), ("unfinished", 30 - first));
    assert!(told.entries("unfinished").iter().all(|left| left["reason"] == "deadline"), "{:#}", told.report);
    assert_eq!(metrics(&told)["left"] as usize, 30 - first);
    // The next tick continues where this one ended.
    set_clock(&world, "We 08:05");
    let told = world.within(Duration::from_secs(6), due(&reconcile(), "We 08:05")).await;
    let second = told.names("changed").len();
    assert!((10..=16).contains(&second), "{second} started");
    let running = world.sim.machines().iter().filter(|machine| machine.state == "running").count();
    assert_eq!(running, first + second, "none of them twice");
}

#[tokio::test]
async fn max_changes_at_8() {
    let event = with(reconcile(), json!({"max_changes": 2}));
    let mut world = cloud(["a", "b", "c"].map(|name| with_hours(name, "office"))).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    let told = tick(&mut world, &event, "We 08:00").await;
    assert_eq!(told.verdict(), "too_many_changes", "an answer, not an error");
    assert_eq!(told.message(), "office: nothing switched: would switch 3, more than max_changes (2)");
    assert_eq!((world.count("StartInstances"), metrics(&told)["left"]), (0, 3));
    assert_eq!(told.report["summary"]["unfinished"], 3);
    // A person starts one of them.
    person_starts(&world, "a", "We 08:03").await;
    let told = tick(&mut world, &event, "We 08:05").await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["b", "c"])));
}

#[tokio::test]
async fn a_refused_start_is_an_answer_and_no_error_and_is_tried_at_the_next_tick() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office")]).await;
    tick(&mut world, &reconcile(), "Tu 19:00").await;
    let denied = "You are not authorized to perform this operation.";
    let fault = ec2_sim::Fault::refuse("StartInstances", "UnauthorizedOperation", denied).status(403).on(["db"]);
    world.sim.fault(fault);
    let told = tick(&mut world, &reconcile(), "We 08:00").await;
    assert!(matches!(told.outcome, ec2_sim::Outcome::Answered(_)), "{:?}", told.outcome);
    assert_eq!(told.message(), "office: started 1 of 2; 1 failed: db (UnauthorizedOperation)");
    assert_eq!((told.verdict().as_str(), metrics(&told)["left"]), ("incomplete", 1));
    let report = told.logs.iter().find(|line| line.get("targets").is_some()).unwrap();
    assert_eq!(report["level"], "ERROR", "the outcome tells the truth all the same");
    world.sim.clear_faults();
    assert_eq!(tick(&mut world, &reconcile(), "We 08:05").await.names("changed"), names(["db"]));
}

#[tokio::test]
async fn what_is_off_is_marked_a_thousand_at_a_call_and_one_that_cannot_be_keeps_no_other_from_its_opening() {
    let mut world = cloud([]).await;
    world.sim.add_many(1200, |n| with_hours(&format!("web-{n}"), "office").state("stopped"));
    tick(&mut world, &forgetful(), "Tu 19:00").await;
    assert_eq!(world.count("CreateTags"), 2);
    tick(&mut world, &forgetful(), "Tu 19:05").await;
    assert_eq!(world.sim.calls().len(), 2, "nothing is written twice");

    // One has fifty tags already.
    let mut world = cloud((1..=40).map(|n| with_hours(&format!("web-{n}"), "office").state("stopped"))).await;
    world.sim.edit("web-7", |machine| machine.tags.extend((1..=47).map(|n| (format!("tag-{n}"), "x".to_owned()))));
    ticks(&mut world, &forgetful(), "Tu 19:00", "Tu 19:15").await;
    let told = tick(&mut world, &forgetful(), "We 08:00").await;
    assert_eq!((told.names("changed").len(), runs(&world, "web-7")), (39, false));
    assert_eq!(told.reason("web-7"), "stopped_since");
}
