//! Which instances a reconcile selects: by the hours tag, ids, regions and accounts.

use super::*;

const OTHER: &str = "111111111111";

/// A fleet from Instance Scheduler: the tag `Schedule` holds a name.
fn scheduled(name: &str) -> Machine {
    ours(name).tag("Schedule", "office").launched(at("Mo 08:00:05"))
}

#[tokio::test]
async fn hours_tag_takes_over_a_fleet_as_it_is_tagged() {
    let mut world = cloud([scheduled("web"), with_hours("default", "office"), ours("plain")]).await;
    let event = with(reconcile(), json!({"hours_tag": "Schedule"}));
    let told = tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!((told.names("changed"), &told.report["summary"]["matched"]), (names(["web"]), &json!(1)));
    tick(&mut world, &event, "We 08:00").await;
    assert!(runs(&world, "web"));

    // A plain stop with the same `hours_tag` leaves them alone.
    let told = world.invoke(with(stop(), json!({"hours_tag": "Schedule"}))).await;
    assert_eq!((told.names("changed"), told.reason("web").as_str()), (names(["default", "plain"]), "has_hours"));
    arrived(&world).await;
    // One without it doesn't.
    let told = world.invoke(stop()).await;
    assert_eq!(told.names("changed"), names(["web"]));
}

#[tokio::test]
async fn a_plain_stop_and_start_leave_alone_what_has_hours() {
    let mut world = cloud([with_hours("web", "office"), ours("plain")]).await;
    let told = world.invoke(stop()).await;
    assert_eq!((told.names("changed"), told.reason("web").as_str()), (names(["plain"]), "has_hours"));
    arrived(&world).await;
    let off = with_hours("off", "office").state("stopped").tag(MARK, &mark("Mo 19:00"));
    world.sim.add(off);
    let told = world.invoke(start()).await;
    assert_eq!((told.names("changed"), told.reason("off").as_str()), (names(["plain"]), "has_hours"));
    // Reconcile selects none of the others.
    let told = tick(&mut world, &reconcile(), "Tu 12:00").await;
    assert_eq!((told.names("changed"), &told.report["summary"]["matched"]), (names(["off"]), &json!(2)));
    // An instance named by its id is stopped in spite of its hours.
    let id = world.sim.machine("web").id;
    let told = world.invoke(json!({"action": "stop", "instance_ids": [id]})).await;
    assert_eq!(told.names("changed"), names(["web"]));
}

#[tokio::test]
async fn a_plain_run_leaves_reconciles_marks_alone() {
    let tried = with_hours("web", "office").tag(MARK, &mark("Mo 21:00"));
    let mut world = cloud([tried, ours("plain")]).await;
    set_clock(&world, "Mo 23:00");
    world.invoke(remembering(stop())).await;
    arrived(&world).await;
    world.invoke(remembering(start())).await;
    assert_eq!(world.sim.tag("web", MARK), Some(mark("Mo 21:00")), "its memory of the try");
}

#[tokio::test]
async fn instance_ids_alone_are_heard_of_each() {
    let mut world = cloud([
        Machine::named("web").tag(HOURS, "office").launched(at("Mo 08:00:05")),
        Machine::named("bare"),
        Machine::named("gone").tag(HOURS, "office").state("terminated"),
        with_hours("not-named", "office"),
    ])
    .await;
    let mut ids: Vec<String> = ["web", "bare", "gone"].map(|name| world.sim.machine(name).id).into();
    ids.push("i-0aaaaaaaaaaaaaaaa".into());
    let mut event = with(reconcile(), json!({ "instance_ids": ids }));
    event.as_object_mut().unwrap().remove("tags");
    let told = tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!((told.names("changed"), &told.report["summary"]["matched"]), (names(["web"]), &json!(4)));
    assert_eq!(told.entry("failed", "gone")["code"], "IncorrectInstanceState");
    assert!(told.entries("failed").iter().any(|it| it["code"] == "InvalidInstanceID.NotFound"), "{:#}", told.report);
    let bare = told.entry("skipped", "bare");
    assert_eq!(bare["reason"], "bad_tag");
    assert_eq!(bare["message"], "it has no tag curfew:hours, so its hours are not known");
    let line = other_lines(&told).into_iter().find(|line| line["name"] == "bare").unwrap();
    assert_eq!(line["message"], "bare: left alone, it has no tag curfew:hours, so its hours are not known");
    assert!(told.message().contains("1 bad tag: bare (none)"), "{}", told.message());
    assert!(runs(&world, "not-named"));
    tick(&mut world, &event, "We 08:00").await;
    assert!(runs(&world, "web"));
}

#[tokio::test]
async fn instance_ids_with_tags_narrow_the_selection() {
    let mut world = cloud([with_hours("web", "office"), with_hours("db", "office"), ours("bare")]).await;
    let ids: Vec<String> = ["web", "bare"].map(|name| world.sim.machine(name).id).into();
    let told = tick(&mut world, &with(reconcile(), json!({ "instance_ids": ids })), "Tu 19:00").await;
    assert_eq!((told.names("changed"), &told.report["summary"]["matched"]), (names(["web"]), &json!(1)));
}

#[tokio::test]
async fn over_two_regions_and_two_accounts() {
    let mut world = cloud([]).await;
    for account in ["123456789012", OTHER] {
        for region in ["us-east-1", "eu-west-1"] {
            world.sim.add(with_hours(&format!("{account}-{region}"), "office").account(account).region(region));
        }
    }
    let where_to = json!({"accounts": ["self", OTHER], "role": "curfew-member", "regions": ["us-east-1", "eu-west-1"]});
    let event = with(reconcile(), where_to);
    let told = tick(&mut world, &event, "Tu 19:00").await;
    assert_eq!((told.message().as_str(), told.names("changed").len()), ("office: stopped 4 of 4", 4));
    // Trouble in one region doesn't affect the others.
    world
        .sim
        .fault(ec2_sim::Fault::refuse("DescribeInstances", "AuthFailure", "No.").account(OTHER).region("eu-west-1"));
    let told = tick(&mut world, &event, "We 08:00").await;
    assert_eq!(told.names("changed").len(), 3);
    assert_eq!((told.verdict().as_str(), metrics(&told)["left"]), ("incomplete", 1));
    assert_eq!(
        told.message(),
        format!(
            "office: started 3 of 3; {OTHER} eu-west-1 failed as a whole: AuthFailure, No; is the region enabled for this account?"
        )
    );
    world.sim.clear_faults();
    assert_eq!(tick(&mut world, &event, "We 08:05").await.names("changed").len(), 1);
}

#[tokio::test]
async fn nothing_to_reconcile_is_told_apart_from_a_quiet_night() {
    let mut world = cloud([ours("plain")]).await;
    let told = tick(&mut world, &reconcile(), "Tu 19:00").await;
    assert_eq!(
        told.message(),
        "office: nothing to reconcile, no instance in us-east-1 has curfew=yes and a tag curfew:hours; is that what was meant?"
    );
    assert_eq!(told.logs.iter().find(|line| line.get("targets").is_some()).unwrap()["level"], "WARN");
}
