//! Snapshots that nobody needs: what is deleted, what stays and why, and that nothing else is ever deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ec2_sim::{Fault, Sim, Snapshot};
use serde_json::{Value, json};

use crate::world::*;

/// The key of the mark.
pub(crate) const DELETE_AFTER: &str = "curfew:delete-after";
/// The calls that find out what keeps a snapshot.
pub(crate) const QUESTIONS: [&str; 6] = [
    "DescribeSnapshots",
    "DescribeVolumes",
    "DescribeImages",
    "DescribeLockedSnapshots",
    "DescribeFastSnapshotRestores",
    "DescribeSnapshotAttribute",
];

pub(crate) fn event() -> Value {
    json!({"action": "snapshots", "tags": {"curfew": "yes"}})
}

/// A snapshot of ours whose volume is gone: nothing keeps it.
fn orphan(name: &str) -> Snapshot {
    Snapshot::named(name).tag("curfew", "yes")
}

/// An orphan that an earlier run has marked, and whose days of grace are over.
fn due(name: &str) -> Snapshot {
    orphan(name).tag(DELETE_AFTER, &in_minutes(-60))
}

/// Every snapshot as it was before a run, by id.
pub(crate) type Before = BTreeMap<String, Snapshot>;

pub(crate) fn before(sim: &Sim) -> Before {
    sim.snapshots().into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect()
}

/// Compares the report with EC2.
pub(crate) fn audit(world: &World, before: &Before, told: &Told) {
    let report = &told.report;
    let after = self::before(&world.sim);
    let summary = |field: &str| report["summary"][field].as_u64().unwrap();
    let parts = ["changed", "would_change", "skipped", "failed", "unfinished"];
    assert_eq!(summary("matched"), parts.iter().map(|part| summary(part)).sum::<u64>(), "the sum of {report:#}");
    let mut listed = BTreeSet::new();
    for part in parts {
        for entry in told.entries(part) {
            let id = entry["id"].as_str().unwrap().to_owned();
            let exists = after.get(&id);
            match (part, entry["to"].as_str()) {
                ("changed", Some("deleted")) => assert!(exists.is_none(), "said deleted: {entry}"),
                ("changed", _) => {
                    let mark = exists.and_then(|snapshot| snapshot.tags.get(DELETE_AFTER));
                    assert!(mark.is_some() || !world.others_act_on.is_empty(), "said marked: {entry}");
                }
                ("skipped", _) if entry["reason"] == "gone" => {}
                ("unfinished", _) => {}
                _ => assert!(exists.is_some(), "said {part}, is gone: {entry}"),
            }
            assert!(listed.insert(id), "twice in {report:#}: {entry}");
        }
    }
    for (id, snapshot) in before {
        if after.contains_key(id) {
            continue;
        }
        assert!(listed.contains(id), "{} is gone, and not in {report:#}", snapshot.name());
        // An independent, coarser rule, which always has to hold.
        let mark: Option<DateTime<Utc>> = snapshot.tags.get(DELETE_AFTER).and_then(|mark| mark.parse().ok());
        assert!(mark.is_some_and(|after| after < Utc::now()), "{snapshot:?} was not due");
        assert!(!snapshot.tags.contains_key("curfew:exempt"), "{snapshot:?} was exempt");
        assert!(!snapshot.tags.keys().any(|key| key.starts_with("aws:")), "{snapshot:?} was a service's");
        assert_eq!((snapshot.state.as_str(), snapshot.volume.as_str() == "vol-ffffffff"), ("completed", false));
        assert!(Utc::now() - snapshot.started > TimeDelta::days(7), "{snapshot:?} was young");
        assert!(snapshot.shared_with.is_empty(), "{snapshot:?} was shared");
    }
    let policy = include_str!("../../policy/snapshots-role.json");
    for call in world.sim.calls() {
        if call.action == "AssumeRole" {
            continue;
        }
        assert!(policy.contains(&format!("\"ec2:{}\"", call.action)), "the policy doesn't allow {}", call.action);
        if call.action.starts_with("Describe") {
            continue;
        }
        assert!(!report["dry_run"].as_bool().unwrap() || call.dry_run, "a dry run called {}", call.action);
        if call.action.ends_with("Tags") {
            let keys: Vec<_> = call.params.iter().filter(|(name, _)| name.ends_with(".Key")).collect();
            assert!(matches!(keys[..], [(_, key)] if key == DELETE_AFTER), "{}: {keys:?}", call.action);
            assert!(call.params.get("Tag.1.Value").is_some_and(|value| !value.is_empty()), "{:?}", call.params);
        }
        for id in &call.ids {
            assert!(listed.contains(id), "{} of {id}, which the report doesn't list: {report:#}", call.action);
        }
    }
}

/// Runs once with this snapshot, which something must keep, and with another, which nothing keeps; returns the reason.
async fn kept(snapshot: Snapshot, fields: Value, prepare: impl FnOnce(&Sim)) -> String {
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(snapshot);
    world.sim.add_snapshot(due("neighbour"));
    prepare(&world.sim);
    let told = world.invoke(with(event(), fields)).await;
    assert_eq!(told.verdict(), "complete", "{told:?}");
    assert_eq!(told.names("changed"), names(["neighbour"]), "{:#}", told.report);
    assert_eq!(world.sim.snapshot("neighbour"), None);
    assert!(world.sim.snapshot("it").is_some());
    // It was Curfew that kept it, not a refusal by EC2.
    assert!(world.calls("DeleteSnapshot").iter().all(|call| !call.ids.contains(&id)));
    assert_eq!(told.report["skipped_by"].as_object().unwrap().len(), 1, "{:#}", told.report);
    told.reason("it")
}

async fn kept_as_it_is(change: impl FnOnce(&mut Snapshot)) -> String {
    let mut snapshot = due("it");
    change(&mut snapshot);
    kept(snapshot, json!({}), |_| {}).await
}

#[tokio::test]
async fn volume_gone_is_marked_tonight_and_deleted_when_its_days_of_grace_are_over() {
    let mut world = World::new().await;
    world.sim.add_snapshot(orphan("old"));
    let told = world.invoke(event()).await;
    let entry = told.entry("changed", "old");
    assert_eq!(
        (told.verdict().as_str(), &entry["from"], &entry["to"], &entry["reason"]),
        ("complete", &json!("completed"), &json!("marked"), &json!("volume_gone"))
    );
    let mark = world.sim.snapshot("old").unwrap().tags[DELETE_AFTER].clone();
    assert_eq!(entry["until"], *mark);
    let days = mark.parse::<DateTime<Utc>>().unwrap() - Utc::now();
    assert!((TimeDelta::days(13)..TimeDelta::days(15)).contains(&days), "{days}");

    let told = world.invoke(event()).await;
    let entry = told.entry("skipped", "old");
    assert_eq!((&entry["reason"], &entry["until"]), (&json!("marked"), &json!(mark)));
    assert_eq!(world.sim.snapshot("old").unwrap().tags[DELETE_AFTER], mark, "and its days don't begin anew");

    world.sim.edit_snapshot("old", |it| drop(it.tags.insert(DELETE_AFTER.into(), in_minutes(-1))));
    let told = world.invoke(event()).await;
    let entry = told.entry("changed", "old");
    assert_eq!((&entry["to"], &entry["reason"]), (&json!("deleted"), &json!("volume_gone")));
    assert_eq!(told.line("old")["message"], "old: deleted, volume_gone");
    assert_eq!(world.sim.snapshot("old"), None);
    let told = world.invoke(event()).await;
    assert_eq!(
        told.message(),
        "curfew: nothing to delete, no snapshot in us-east-1 has curfew=yes; is that what was meant?"
    );
}

#[tokio::test]
async fn grace_days_says_how_long_a_mark_lasts() {
    let mut world = World::new().await;
    world.sim.add_snapshot(orphan("old"));
    let told = world.invoke(with(event(), json!({"grace_days": 30}))).await;
    let until: DateTime<Utc> = told.entry("changed", "old")["until"].as_str().unwrap().parse().unwrap();
    assert_eq!((until - Utc::now()).num_days(), 29);
}

#[tokio::test]
async fn too_young() {
    let aged = |days| move |it: &mut Snapshot| it.started = Utc::now() - TimeDelta::days(days);
    assert_eq!(kept_as_it_is(aged(179)).await, "too_young");
    let mut young = due("it");
    aged(8)(&mut young);
    assert_eq!(kept(young, json!({"min_age_days": 9}), |_| {}).await, "too_young");
}

#[tokio::test]
async fn volume_exists() {
    assert_eq!(kept(due("it"), json!({}), |sim| sim.add_volume_of("it")).await, "volume_exists");
}

#[tokio::test]
async fn image_even_if_it_is_deprecated_or_disabled() {
    for (deprecated, disabled) in [(false, false), (true, false), (false, true)] {
        let reason = kept(due("it"), json!({}), |sim| drop(sim.add_image_of("it", deprecated, disabled))).await;
        assert_eq!(reason, "image", "deprecated {deprecated}, disabled {disabled}");
    }
}

#[tokio::test]
async fn backup_by_tag_or_description() {
    for tag in ["aws:backup:source-resource", "aws:dlm:lifecycle-policy-id", "aws:datasync:task"] {
        assert_eq!(kept_as_it_is(|it| drop(it.tags.insert(tag.into(), "x".into()))).await, "backup", "{tag}");
    }
    let description = "This snapshot is created by the AWS Backup service.";
    assert_eq!(kept_as_it_is(|it| it.description = description.into()).await, "backup");
    let description = "Created for policy: policy-0123456789abcdef0 schedule: Daily";
    assert_eq!(kept_as_it_is(|it| it.description = description.into()).await, "backup");
    for tag in ["velero.io/backup", "CSIVolumeSnapshotName", "ebs.csi.aws.com/cluster", "cpm backup", "cpm_backup"] {
        assert_eq!(kept_as_it_is(|it| drop(it.tags.insert(tag.into(), "x".into()))).await, "backup", "{tag}");
    }
}

#[tokio::test]
async fn copied() {
    assert_eq!(kept_as_it_is(|it| it.volume = "vol-ffffffff".into()).await, "copied");
    assert_eq!(kept_as_it_is(|it| it.transfer = Some("standard".into())).await, "copied");
}

#[tokio::test]
async fn shared_with_an_account_or_with_everybody() {
    for who in ["111122223333", "all"] {
        assert_eq!(kept_as_it_is(|it| it.shared_with.push(who.into())).await, "shared", "{who}");
    }
}

#[tokio::test]
async fn locked_unless_the_lock_has_expired() {
    for lock in ["governance", "compliance", "compliance-cooloff", "of-the-future"] {
        assert_eq!(kept_as_it_is(|it| it.lock = Some(lock.into())).await, "locked", "{lock}");
    }
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(due("it"));
    world.sim.edit_snapshot(&id, |it| it.lock = Some("expired".into()));
    assert_eq!(world.invoke(event()).await.names("changed"), names(["it"]));
}

#[tokio::test]
async fn fast_restore_unless_it_is_disabled() {
    for state in ["enabled", "enabling", "optimizing", "disabling", "of-the-future"] {
        assert_eq!(kept_as_it_is(|it| it.fast = Some(state.into())).await, "fast_restore", "{state}");
    }
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(due("it"));
    world.sim.edit_snapshot(&id, |it| it.fast = Some("disabled".into()));
    assert_eq!(world.invoke(event()).await.names("changed"), names(["it"]));
}

#[tokio::test]
async fn archived_unless_the_request_says_so() {
    assert_eq!(kept_as_it_is(|it| it.tier = "archive".into()).await, "archived");
    // EC2 calls the tier of one that is restored for some days "standard".
    let restored = |it: &mut Snapshot| it.restored = Some(Utc::now() + TimeDelta::days(3));
    assert_eq!(kept_as_it_is(restored).await, "archived");
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(due("it"));
    world.sim.edit_snapshot(&id, |it| it.tier = "archive".into());
    let told = world.invoke(with(event(), json!({"archived": true}))).await;
    assert_eq!(told.names("changed"), names(["it"]));
    assert_eq!(told.report["summary"]["deleted"]["up_to_usd_a_month"], json!(0.1), "8 GiB at $0.0125");
}

#[tokio::test]
async fn exempt_always_until_a_moment_or_by_except_tags() {
    for value in ["", "true", "2999-01-01", "tomorrow"] {
        let exempt = |it: &mut Snapshot| drop(it.tags.insert("curfew:exempt".into(), value.into()));
        assert_eq!(kept_as_it_is(exempt).await, "exempt", "{value:?}");
    }
    let exempt = |it: &mut Snapshot| drop(it.tags.insert("Curfew:Exempt".into(), "true".into()));
    assert_eq!(kept_as_it_is(exempt).await, "exempt", "IAM compares keys without regard to case");
    let kept_by_tag = kept(due("it").tag("Keep", "legal"), json!({"except_tags": {"Keep": "*"}}), |_| {}).await;
    assert_eq!(kept_by_tag, "exempt");
}

#[tokio::test]
async fn not_completed() {
    for state in ["pending", "error", "recoverable", "recovering", "of-the-future"] {
        assert_eq!(kept_as_it_is(|it| it.state = state.into()).await, "not_completed", "{state}");
    }
}

#[tokio::test]
async fn unknown_storage_tiers_volumes_and_marks() {
    assert_eq!(kept_as_it_is(|it| it.tier = "glacier".into()).await, "unknown");
    assert_eq!(kept_as_it_is(|it| it.volume = "vol-0ABC12345678DEF00".into()).await, "unknown");
    for mark in ["never", "2026-01-01", ""] {
        assert_eq!(kept_as_it_is(|it| drop(it.tags.insert(DELETE_AFTER.into(), mark.into()))).await, "unknown");
    }
}

#[tokio::test]
async fn marked_by_hand_for_later_it_stays_until_then() {
    let later = in_minutes(60);
    assert_eq!(kept_as_it_is(|it| drop(it.tags.insert(DELETE_AFTER.into(), later.clone()))).await, "marked");
}

#[tokio::test]
async fn what_the_event_does_not_select_or_the_account_does_not_own_is_not_touched() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("ours"));
    world.sim.add_snapshot(Snapshot::named("untagged").tag(DELETE_AFTER, &in_minutes(-60)));
    world.sim.add_snapshot(Snapshot::named("other").tag("curfew", "Yes").tag(DELETE_AFTER, &in_minutes(-60)));
    let mut public = due("public");
    (public.account, public.shared_with) = ("999988887777".into(), vec!["all".into()]);
    world.sim.add_snapshot(public);
    let mut abroad = due("abroad");
    abroad.region = "eu-west-1".into();
    world.sim.add_snapshot(abroad);
    let told = world.invoke(event()).await;
    assert_eq!((told.names("changed"), &told.report["summary"]["matched"]), (names(["ours"]), &json!(1)));
    assert_eq!(world.sim.snapshots().len(), 4);
    let asked = world.calls("DescribeSnapshots");
    assert!(asked.iter().all(|call| call.params["Owner.1"] == "self"), "{asked:?}");
    let told = world.invoke(with(event(), json!({"regions": "all"}))).await;
    assert_eq!(told.names("changed"), names(["abroad"]));
}

#[tokio::test]
async fn every_account_and_region_named_is_worked_on() {
    let mut world = World::new().await;
    for (account, region) in
        [("123456789012", "us-east-1"), ("111122223333", "us-east-1"), ("111122223333", "eu-west-1")]
    {
        let mut snapshot = due(&format!("{account} {region}"));
        (snapshot.account, snapshot.region) = (account.into(), region.into());
        world.sim.add_snapshot(snapshot);
    }
    let fields = json!({"accounts": ["self", "111122223333"], "role": "curfew-snapshots", "regions": ["us-east-1", "eu-west-1"]});
    let told = world.invoke(with(event(), fields)).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(3)));
    assert_eq!(world.sim.snapshots(), []);
}

#[tokio::test]
async fn one_in_use_costs_no_other_its_turn() {
    let mut world = World::new().await;
    let ids: Vec<String> = (1..=40).map(|n| world.sim.add_snapshot(due(&format!("snap-{n}")))).collect();
    let message = "The snapshot {id} is currently in use by ami-0123456789abcdef0";
    world.sim.fault(Fault::refuse("DeleteSnapshot", "InvalidSnapshot.InUse", message).on([ids[3].clone()]));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(39)));
    assert_eq!(told.reason("snap-4"), "image");
    assert!(told.entry("skipped", "snap-4")["message"].as_str().unwrap().contains("ami-0123456789abcdef0"));
    let left: Vec<String> = world.sim.snapshots().into_iter().map(|it| it.id).collect();
    assert_eq!(left, [ids[3].clone()]);
    assert!(!world.sim.snapshots()[0].tags.contains_key(DELETE_AFTER), "its days of grace begin anew");
}

#[tokio::test]
async fn one_that_ec2_refuses_or_never_answers_for_costs_no_other_its_turn() {
    for (fault, verdict, list) in [
        (Fault::refuse("DeleteSnapshot", "FutureError", "Not today.").status(418), "Incomplete", "failed"),
        (Fault::refuse("DeleteSnapshot", "UnauthorizedOperation", "No.").status(403), "Incomplete", "failed"),
        (Fault::refuse("DeleteSnapshot", "InternalError", "Oh.").status(500), "Unfinished", "unfinished"),
    ] {
        let mut world = World::new().await;
        let bad = world.sim.add_snapshot(due("bad"));
        for n in 1..=9 {
            world.sim.add_snapshot(due(&format!("snap-{n}")));
        }
        world.sim.fault(fault.on([bad]));
        let told = world.invoke(event()).await;
        assert_eq!((told.verdict().as_str(), told.names(list)), (verdict, names(["bad"])), "{:#}", told.report);
        assert_eq!(world.sim.snapshots().len(), 1);
    }
}

/// Returns a refusal, which names its snapshot, of what an action would do to these.
fn refused(action: &str, ids: &[String]) -> Fault {
    let message = "You are not authorized to perform this operation on resource: {id}";
    Fault::refuse(action, "UnauthorizedOperation", message).status(403).on(ids.to_vec())
}

#[tokio::test]
async fn those_that_are_refused_cost_no_other_its_turn_however_many_come_first() {
    for refusals in [12, 90] {
        let mut world = World::new().await;
        let mut ids = BTreeMap::new();
        for (action, new) in [("DeleteSnapshot", due as fn(&str) -> Snapshot), ("CreateTags", orphan)] {
            let made = (0..refusals + 5).map(|n| world.sim.add_snapshot(new(&format!("{action} {n}"))));
            let made: Vec<String> = made.collect();
            world.sim.fault(refused(action, &made[..refusals]));
            ids.extend(made.into_iter().enumerate().map(|(n, id)| (id, n)));
        }
        let told = world.invoke(event()).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Incomplete", &json!(10)));
        let failed = told.entries("failed");
        for entry in &failed {
            let (id, message) = (entry["id"].as_str().unwrap(), entry["message"].as_str().unwrap());
            assert!(ids[id] < refusals && message.contains(id), "{entry}");
        }
        assert_eq!((failed.len(), world.sim.snapshots().len()), (2 * refusals, 2 * refusals + 5));
    }
}

#[tokio::test]
async fn many_that_are_refused_cost_no_other_its_turn_once_one_was_accepted() {
    let mut world = World::new().await;
    let ids: Vec<String> = (1..=20).map(|n| world.sim.add_snapshot(due(&format!("snap-{n}")))).collect();
    world
        .sim
        .fault(Fault::refuse("DeleteSnapshot", "UnauthorizedOperation", "No.").status(403).on(ids[2..12].to_vec()));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("Incomplete", &json!(10)));
    assert_eq!(told.report["summary"]["failed"], 10);
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_deleted() {
    for question in QUESTIONS {
        let mut world = World::new().await;
        world.sim.add_snapshot(due("due"));
        world.sim.add_snapshot(orphan("orphan"));
        world.sim.fault(Fault::refuse(question, "UnauthorizedOperation", "You are not authorized.").status(403));
        let told = world.invoke(event()).await;
        assert_eq!(told.verdict(), "Incomplete", "{question}: {told:?}");
        assert_eq!(world.sim.snapshots().len(), 2, "{question}");
        assert_eq!(world.sim.snapshot("orphan").unwrap().tags.get(DELETE_AFTER), None, "{question}");
        assert_eq!(world.calls("DeleteSnapshot").len() + world.calls("CreateTags").len(), 0, "{question}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_right_before_it_is_not_deleted_either() {
    // The first look's calls succeed; those of the look before the deletion don't.
    for question in QUESTIONS {
        for (code, status, verdict) in [
            ("UnauthorizedOperation", 403, "Incomplete"),
            ("RequestLimitExceeded", 503, "Unfinished"),
            ("InternalError", 500, "Unfinished"),
        ] {
            let mut world = World::new().await;
            world.sim.add_snapshot(due("due"));
            world.sim.fault(Fault::refuse(question, code, "Not now.").status(status).after(1));
            let told = world.within(Duration::from_secs(5), event()).await;
            assert_eq!(told.verdict(), verdict, "{question} {code}: {told:?}");
            assert_eq!(world.sim.snapshots().len(), 1, "{question} {code}");
            assert_eq!(world.calls("DeleteSnapshot").len(), 0, "{question} {code}");
        }
    }
}

#[tokio::test]
async fn what_a_person_does_between_the_look_and_the_deletion_counts() {
    type Act = fn(&Sim);
    let acts: [(Act, &str); 5] = [
        (|sim| sim.edit_snapshot("it", |it| drop(it.tags.insert("curfew:exempt".into(), "".into()))), "exempt"),
        (|sim| sim.edit_snapshot("it", |it| drop(it.tags.remove(DELETE_AFTER))), "not_marked"),
        (|sim| sim.edit_snapshot("it", |it| drop(it.tags.insert("curfew".into(), "no".into()))), "exempt"),
        (|sim| drop(sim.add_image_of("it", false, false)), "image"),
        (|sim| sim.edit_snapshot("it", |it| it.shared_with.push("all".into())), "shared"),
    ];
    for (act, reason) in acts {
        let mut world = World::new().await;
        world.sim.add_snapshot(due("it"));
        world.sim.add_snapshot(due("other"));
        world.others_act_on.insert("it".into());
        // The last question of the first look: it is about to be planned.
        let told = world.at_the_call("DescribeSnapshotAttribute", event(), act).await;
        assert_eq!(
            (told.reason("it").as_str(), told.names("changed")),
            (reason, names(["other"])),
            "{:#}",
            told.report
        );
        assert!(world.sim.snapshot("it").is_some());
    }
}

#[tokio::test]
async fn an_image_made_after_the_last_look_keeps_it() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("it"));
    let told = world.at_the_call("DeleteSnapshot", event(), |sim| drop(sim.add_image_of("it", false, false))).await;
    assert_eq!((told.verdict().as_str(), told.reason("it").as_str()), ("complete", "image"));
    assert!(world.sim.snapshot("it").is_some());
}

#[tokio::test]
async fn an_exemption_or_a_mark_deleted_after_the_last_look_keeps_it_by_the_roles_policy() {
    let exempt: fn(&Sim) =
        |sim| sim.edit_snapshot("it", |it| drop(it.tags.insert("curfew:exempt".into(), "true".into())));
    let unmark: fn(&Sim) = |sim| sim.edit_snapshot("it", |it| drop(it.tags.remove(DELETE_AFTER)));
    for act in [exempt, unmark] {
        let mut world = World::new().await;
        world.sim.settings(|settings| settings.guards_snapshots = true);
        world.sim.add_snapshot(due("it"));
        let told = world.at_the_call("DeleteSnapshot", event(), act).await;
        assert_eq!(told.verdict(), "Incomplete");
        assert!(world.sim.snapshot("it").is_some());
        assert_eq!(world.invoke(event()).await.verdict(), "complete");
        assert!(world.sim.snapshot("it").is_some());
    }
}

#[tokio::test]
async fn a_mark_comes_off_what_no_longer_qualifies_so_that_its_days_begin_anew() {
    let mut world = World::new().await;
    world.sim.add_snapshot(orphan("it"));
    world.invoke(event()).await;
    world.sim.edit_snapshot("it", |it| it.shared_with.push("111122223333".into()));
    world.sim.edit_snapshot("it", |it| drop(it.tags.insert(DELETE_AFTER.into(), in_minutes(-1))));
    let told = world.invoke(event()).await;
    assert_eq!(told.reason("it"), "shared");
    assert_eq!(world.sim.snapshot("it").unwrap().tags.get(DELETE_AFTER), None);
    world.sim.edit_snapshot("it", |it| it.shared_with.clear());
    let told = world.invoke(event()).await;
    assert_eq!(told.entry("changed", "it")["to"], "marked");
}

#[tokio::test]
async fn a_later_mark_outlives_whatever_keeps_the_snapshot_meanwhile() {
    let far = "2035-01-01T00:00:00Z";
    for (mark, then) in [(far, "marked"), ("never", "unknown")] {
        let mut world = World::new().await;
        let ours = |name: &str| orphan(name).tag(DELETE_AFTER, mark);
        for name in ["used", "attached"] {
            world.sim.add_snapshot(ours(name));
        }
        world.sim.add_image_of("used", false, false);
        world.sim.add_volume_of("attached");
        let mut young = ours("young");
        young.started = Utc::now() - TimeDelta::days(179);
        world.sim.add_snapshot(young);
        let names = ["used", "attached", "young"];
        let told = world.invoke(event()).await;
        assert_eq!(names.map(|name| told.reason(name)), ["image", "volume_exists", "too_young"]);
        for name in names {
            world.sim.forsake(name);
            world.sim.edit_snapshot(name, |it| it.started -= TimeDelta::days(2));
        }
        let told = world.invoke(event()).await;
        assert_eq!(names.map(|name| told.reason(name)), [then; 3]);
        assert!(world.sim.snapshots().iter().all(|it| it.tags[DELETE_AFTER] == mark));
        assert_eq!(world.calls("DeleteTags").len(), 0);
    }
}

#[tokio::test]
async fn a_mark_that_the_days_of_grace_outlast_comes_off_and_the_log_says_so() {
    let mut world = World::new().await;
    let soon = in_minutes(600);
    world.sim.add_snapshot(orphan("it").tag(DELETE_AFTER, &soon));
    world.sim.add_volume_of("it");
    let told = world.invoke(event()).await;
    assert_eq!(told.reason("it"), "volume_exists");
    let line = told.logs.iter().find(|line| line["mark"] == *soon).expect("a line about the mark");
    let message = line["message"].as_str().unwrap();
    assert!(message.ends_with(&format!("deleted curfew:delete-after {soon}, kept, volume_exists")), "{message}");
    world.sim.forsake("it");
    let until = world.invoke(event()).await.entry("changed", "it")["until"].as_str().unwrap().to_owned();
    assert!(until > soon, "no earlier than it was written");
}

#[tokio::test]
async fn a_mark_that_a_person_writes_before_ours_is_not_written_over() {
    let far = "2035-01-01T00:00:00Z";
    let writes: fn(&Sim) = |sim| {
        sim.edit_snapshot("it", |it| drop(it.tags.insert(DELETE_AFTER.into(), "2035-01-01T00:00:00Z".into())));
    };
    // Before the call that marks it, our look shows it; at that call, the role's policy makes EC2 refuse.
    for (at, guards) in [("DescribeSnapshotAttribute", false), ("CreateTags", true)] {
        let mut world = World::new().await;
        world.sim.settings(|settings| settings.guards_snapshots = guards);
        world.sim.add_snapshot(orphan("it"));
        world.sim.add_snapshot(orphan("other"));
        world.others_act_on.insert("it".into());
        let told = world.at_the_call(at, event(), writes).await;
        assert_eq!((told.verdict().as_str(), told.reason("it").as_str()), ("complete", "marked"), "{at}");
        assert_eq!(told.names("changed"), names(["other"]));
        assert_eq!(world.sim.snapshot("it").unwrap().tags[DELETE_AFTER], far);
    }
}

#[tokio::test]
async fn a_mark_whose_answer_is_lost_is_ours() {
    for fleet in [&["a"][..], &["a", "b", "c"]] {
        let mut world = World::new().await;
        world.sim.settings(|settings| settings.guards_snapshots = true);
        for name in fleet {
            world.sim.add_snapshot(orphan(name));
        }
        world.sim.fault(Fault::lose_answer("CreateTags").times(1));
        let told = world.invoke(event()).await;
        assert_eq!((told.verdict().as_str(), told.names("changed").len()), ("complete", fleet.len()));
    }
}

#[tokio::test]
async fn a_mark_that_cannot_come_off_fails_the_run_and_is_never_gone_by() {
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(due("it"));
    world.sim.add_image_of("it", false, false);
    world.sim.fault(refused("DeleteTags", std::slice::from_ref(&id)));
    world.sim.add_snapshot(due("other"));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("Incomplete", names(["other"])));
    let message = told.entry("failed", "it")["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("kept, image, and its curfew:delete-after could not be deleted: "), "{message}");
    // The image is gone: but it was kept for a reason after its mark, and only we know.
    world.sim.forsake("it");
    for dry_run in [true, false] {
        let told = world.invoke(with(event(), json!({"dry_run": dry_run}))).await;
        assert_eq!((told.verdict().as_str(), told.names("failed")), ("Incomplete", names(["it"])), "dry run {dry_run}");
        assert!(world.sim.snapshot("it").is_some());
    }
    world.sim.clear_faults();
    world.sim.fault(Fault::refuse("DeleteTags", "InternalError", "Oh.").status(500));
    world.sim.add_image_of("it", false, false);
    let told = world.within(Duration::from_secs(5), event()).await;
    assert_eq!(told.verdict(), "Unfinished", "a retry may do it");
    world.sim.clear_faults();
    assert_eq!(world.invoke(event()).await.verdict(), "complete");
    assert_eq!(world.sim.snapshot("it").unwrap().tags.get(DELETE_AFTER), None);
}

#[tokio::test]
async fn a_mark_that_is_long_overdue_begins_anew() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.guards_snapshots = true);
    let days = |days: i64| in_minutes(-60 * 24 * days);
    world.sim.add_snapshot(orphan("a year").tag(DELETE_AFTER, &days(365)));
    world.sim.add_snapshot(orphan("a month").tag(DELETE_AFTER, &days(31)));
    let told = world.invoke(with(event(), json!({"dry_run": true}))).await;
    assert_eq!(told.names("would_change"), names(["a year", "a month"]));
    let told = world.invoke(event()).await;
    assert_eq!(told.verdict(), "complete", "{:#}", told.report);
    assert_eq!(told.entry("changed", "a year")["to"], "marked");
    assert_eq!(told.entry("changed", "a month")["to"], "deleted");
    assert!(world.sim.snapshot("a year").unwrap().tags[DELETE_AFTER] > in_minutes(60 * 24 * 13));
}

#[tokio::test]
async fn a_mark_comes_off_even_if_too_many_changes_stop_the_rest() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("it"));
    world.sim.add_image_of("it", false, false);
    world.sim.add_snapshot(due("other"));
    let told = world.invoke(with(event(), json!({"max_changes": 0}))).await;
    assert_eq!(told.verdict(), "TooManyChanges");
    assert_eq!(world.sim.snapshot("it").unwrap().tags.get(DELETE_AFTER), None);
    assert!(world.sim.snapshot("other").unwrap().tags.contains_key(DELETE_AFTER));
}

#[tokio::test]
async fn locked_whatever_code_ec2_gives_for_it() {
    for (code, message) in
        [("SnapshotLocked", "No."), ("OperationNotPermitted", "The snapshot is locked."), ("X", "Lock: no.")]
    {
        let mut world = World::new().await;
        world.sim.add_snapshot(due("it"));
        world.sim.fault(Fault::refuse("DeleteSnapshot", code, message));
        let told = world.invoke(event()).await;
        assert_eq!((told.verdict().as_str(), told.reason("it").as_str()), ("complete", "locked"), "{code}");
    }
    let mut world = World::new().await;
    world.sim.add_snapshot(due("it"));
    world.sim.fault(Fault::refuse("DeleteSnapshot", "OperationNotPermitted", "It is blocked."));
    assert_eq!(world.invoke(event()).await.names("failed"), names(["it"]));
}

#[tokio::test]
async fn an_exemption_that_is_over_fails_no_run_although_the_roles_policy_still_spares_it() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.guards_snapshots = true);
    world.sim.add_snapshot(due("it").tag("curfew:exempt", "2026-01-01"));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), told.reason("it").as_str()), ("complete", "exempt"));
    let message = told.entry("skipped", "it")["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "curfew:exempt is over, but EC2 refuses to delete what carries it; delete the tag");
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_is_looked_after() {
    let mut world = World::new().await;
    for name in ["a", "b", "c"] {
        world.sim.add_snapshot(due(name));
    }
    world.sim.fault(Fault::lose_answer("DeleteSnapshot").times(2));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["a", "b", "c"])));
    assert_eq!(world.sim.snapshots(), []);
}

#[tokio::test]
async fn what_somebody_else_deletes_meanwhile_is_gone() {
    let mut world = World::new().await;
    let id = world.sim.add_snapshot(due("it"));
    let message = "The snapshot '{id}' does not exist.";
    world.sim.fault(Fault::refuse("DeleteSnapshot", "InvalidSnapshot.NotFound", message).on([id]));
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), told.reason("it").as_str()), ("complete", "gone"));
}

#[tokio::test]
async fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("due"));
    world.sim.add_snapshot(orphan("orphan"));
    let before = world.sim.snapshots();
    let told = world.invoke(with(event(), json!({"dry_run": true}))).await;
    assert_eq!((told.names("changed"), told.names("would_change")), (names([]), names(["due", "orphan"])));
    assert_eq!(told.entry("would_change", "due")["to"], "deleted");
    assert_eq!(
        told.message(),
        "curfew: dry run, would delete 1 (up to 8.0 GiB, $0.40 a month), would mark 1 (up to 8.0 GiB, $0.40 a month) of 2 snapshots"
    );
    assert_eq!(world.sim.snapshots(), before);
}

#[tokio::test]
async fn where_ec2_ignores_dry_run_a_rehearsal_deletes_nothing() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.ignores_dry_run = true);
    let mut abroad = due("abroad");
    abroad.region = "eu-west-1".into();
    world.sim.add_snapshot(abroad);
    for n in 1..=3 {
        world.sim.add_snapshot(due(&format!("due-{n}")));
    }
    let told = world.invoke(with(event(), json!({"dry_run": true, "regions": ["us-east-1", "eu-west-1"]}))).await;
    assert_eq!(told.verdict(), "Incomplete");
    assert_eq!(told.entry("failed", "abroad")["code"], "DryRunIgnored");
    assert_eq!((world.sim.snapshots().len(), world.calls("DeleteSnapshot").len()), (4, 0));
}

#[tokio::test]
async fn a_plan_larger_than_max_changes_changes_nothing_and_fails() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("due"));
    world.sim.add_snapshot(orphan("orphan"));
    let told = world.invoke(with(event(), json!({"max_changes": 1}))).await;
    assert_eq!(told.verdict(), "TooManyChanges");
    assert_eq!(
        told.message(),
        "curfew: nothing marked or deleted: would change 2 snapshots, more than max_changes (1)"
    );
    assert_eq!(told.names("unfinished"), names(["due", "orphan"]));
    assert_eq!(world.sim.snapshots().len(), 2);
    assert_eq!(world.invoke(with(event(), json!({"max_changes": 2}))).await.verdict(), "complete");
}

#[tokio::test]
async fn every_page_is_read_and_large_fleets_are_asked_about_in_groups() {
    let mut world = World::new().await;
    world.sim.settings(|settings| (settings.page_size, settings.empty_pages) = (37, 1));
    for n in 1..=450 {
        world.sim.add_snapshot(orphan(&format!("snap-{n}")));
    }
    for n in 1..=450 {
        if ![1, 37, 38, 200, 201, 400, 401, 450].contains(&n) {
            world.sim.add_volume_of(&format!("snap-{n}"));
        }
    }
    let told = world.invoke(event()).await;
    assert_eq!(told.report["skipped_by"], json!({"volume_exists": 442}));
    assert_eq!(told.report["summary"]["changed"], 8);
    let most = world.calls("DescribeVolumes").iter().map(|call| call.params.len()).max().unwrap();
    assert!(most < 210, "{most} parameters");
}

#[tokio::test]
async fn a_page_that_never_ends_is_an_error_and_deletes_nothing() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.token_stuck = true);
    world.sim.add_snapshot(due("it"));
    let told = world.within(Duration::from_secs(4), event()).await;
    assert_eq!((told.verdict().as_str(), world.sim.snapshots().len()), ("Unfinished", 1));
}

#[tokio::test]
async fn on_an_idle_account_nothing_is_throttled() {
    let mut world = World::new().await;
    world.sim.settings(|settings| settings.throttle = true);
    for n in 1..=130 {
        world.sim.add_snapshot(due(&format!("snap-{n}")));
    }
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(130)));
    let throttled = world.sim.calls().into_iter().filter(|call| call.code == "RequestLimitExceeded");
    assert_eq!(throttled.map(|call| call.action).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn while_somebody_else_uses_ec2s_tokens_it_waits_and_deletes_all() {
    let mut world = World::new().await;
    world.sim.settings(|settings| (settings.throttle, settings.throttle_size) = (true, 0.1));
    for n in 1..=40 {
        world.sim.add_snapshot(due(&format!("snap-{n}")));
    }
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(40)));
}

#[tokio::test]
async fn a_role_that_may_not_costs_few_calls_and_is_named() {
    for (action, new, most) in [
        ("CreateTags", orphan as fn(&str) -> Snapshot, 220),
        ("DeleteTags", due, 220),
        ("DeleteSnapshot", due, 110),
        ("DescribeSnapshotAttribute", orphan, 110),
    ] {
        let mut world = World::new().await;
        let ids: Vec<String> = (1..=130).map(|n| world.sim.add_snapshot(new(&format!("snap-{n}")))).collect();
        world.sim.fault(refused(action, &ids));
        let told = world.invoke(event()).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["failed"]), ("Incomplete", &json!(130)));
        let calls = world.calls(action).len();
        assert!(calls <= most, "{action}: {calls} calls");
        let hint = "; this needs the role of the function for snapshots, policy/snapshots-role.json; if this is that role, a tag or \
            another policy forbids it";
        for entry in told.entries("failed") {
            let (id, message) = (entry["id"].as_str().unwrap(), entry["message"].as_str().unwrap());
            match entry["code"].as_str().unwrap() {
                "NotTried" => {
                    assert!(message.contains("not tried: EC2 has refused 100 others and accepted none"), "{entry}")
                }
                _ => assert!(message.contains(id), "{entry}"),
            }
            let of_it = action == "DescribeSnapshotAttribute" || entry["code"] == "NotTried";
            assert!(of_it || message.ends_with(hint), "{entry}");
        }
    }
}

#[tokio::test]
async fn the_function_for_instances_says_which_one_is_meant() {
    let mut world = World::new().await;
    world.sim.add_snapshot(due("it"));
    let message = "You are not authorized to perform this operation.";
    world.sim.fault(Fault::refuse("DescribeSnapshots", "UnauthorizedOperation", message).status(403));
    let told = world.invoke(event()).await;
    assert_eq!(
        told.message(),
        "curfew: us-east-1 failed as a whole: UnauthorizedOperation, You are not \
         authorized to perform this operation; only the function for snapshots has the role for this: send the event to that one"
    );
}

#[tokio::test]
async fn the_function_for_snapshots_says_that_a_stop_is_not_for_it() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let message = "You are not authorized to perform this operation. User: \
        arn:aws:sts::123456789012:assumed-role/curfew-SnapshotsRole-0A1B/curfew-snapshots is not authorized to perform: \
        ec2:DescribeInstances because no identity-based policy allows the ec2:DescribeInstances action";
    world.sim.fault(Fault::refuse("DescribeInstances", "UnauthorizedOperation", message).status(403));
    let told = world.invoke(stop()).await;
    assert_eq!(told.verdict(), "Incomplete");
    let end = "; this is the function for snapshots: send the event to the one for instances";
    assert!(told.message().ends_with(end), "{}", told.message());
}

#[tokio::test]
async fn bytes_and_the_list_price_are_an_upper_bound_in_the_summary() {
    let mut world = World::new().await;
    let told_by_ec2 = world.sim.add_snapshot(due("told"));
    world.sim.edit_snapshot(&told_by_ec2, |it| it.bytes = Some(3 << 30));
    world.sim.add_snapshot(due("size of its volume"));
    world.sim.add_snapshot(orphan("orphan"));
    let told = world.invoke(event()).await;
    assert_eq!(
        (&told.report["summary"]["deleted"], &told.report["summary"]["marked"]),
        (
            &json!({"snapshots": 2, "up_to_bytes": 11_u64 << 30, "up_to_usd_a_month": 0.55}),
            &json!({"snapshots": 1, "up_to_bytes": 8_u64 << 30, "up_to_usd_a_month": 0.4})
        )
    );
    assert_eq!(
        told.message(),
        "curfew: deleted 2 (up to 11.0 GiB, $0.55 a month), marked 1 (up to 8.0 GiB, $0.40 a month) of 3 snapshots"
    );
}

#[tokio::test]
async fn the_shipped_event_works_in_every_wrapping_and_is_stale_when_it_comes_late() {
    let shipped: Value = serde_json::from_str(include_str!("../../infra/events/snapshots.json")).unwrap();
    let envelope =
        |time: String, detail: Value| json!({"detail-type": "x", "source": "my.app", "time": time, "detail": detail});
    for (event, verdict) in [
        (shipped.clone(), "complete"),
        (envelope(in_minutes(-1), shipped.clone()), "complete"),
        (envelope(in_minutes(-1), json!(shipped.to_string())), "complete"),
        (envelope(in_minutes(-300), shipped.clone()), "stale"),
    ] {
        let mut world = World::new().await;
        world.sim.add_snapshot(due("it"));
        let told = world.invoke(event).await;
        assert_eq!(told.verdict(), verdict);
        assert_eq!(world.sim.snapshots().len(), usize::from(verdict == "stale"));
        assert!(verdict != "stale" || world.sim.calls().is_empty());
    }
}

#[tokio::test]
async fn a_run_that_dies_half_way_is_finished_by_the_next() {
    let mut world = World::new().await;
    for n in 1..=12 {
        world.sim.add_snapshot(due(&format!("due-{n}")));
        world.sim.add_snapshot(orphan(&format!("old-{n}")));
    }
    world.dies_before("DeleteSnapshot", &event()).await;
    let told = world.invoke(event()).await;
    assert_eq!((told.verdict().as_str(), world.sim.snapshots().len()), ("complete", 12));
    assert!(world.sim.snapshots().iter().all(|it| it.tags.contains_key(DELETE_AFTER)));
}
