//! What the simulated EC2 promises about snapshots, asked over HTTP as a program would.

mod ask;

use std::time::Duration;

use ask::{ask, ask_in, call, later};
use ec2_sim::{Sim, Snapshot};

const LIST: &str = "DescribeSnapshots&Owner.1=self";

async fn ids(sim: &Sim, call: &str) -> Vec<String> {
    ask(sim, call).await.texts("snapshotId").into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_snapshot_goes_unless_it_is_unknown_in_use_or_locked() {
    let sim = Sim::start().await;
    let [free, used, locked] = ["free", "used", "locked"].map(|name| sim.add_snapshot(Snapshot::named(name)));
    let image = sim.add_image_of("used", false, false).expect("an image");
    sim.edit_snapshot("locked", |it| it.lock = Some("governance".into()));
    let delete = |id: &str| format!("DeleteSnapshot&SnapshotId={id}");
    let answer = ask(&sim, &delete(&used)).await;
    let message = format!("The snapshot {used} is currently in use by {image}");
    assert_eq!((answer.code(), answer.texts("Message")[0]), ("InvalidSnapshot.InUse", message.as_str()));
    assert_eq!(ask(&sim, &delete(&locked)).await.code(), "SnapshotLocked");
    assert_eq!(ask(&sim, &(delete(&free) + "&DryRun=true")).await.code(), "DryRunOperation");
    assert_eq!(ask_in("eu-west-1", &sim, &delete(&free)).await.expect("an answer").code(), "InvalidSnapshot.NotFound");
    assert_eq!(ask(&sim, &delete(&free)).await.code(), "ok");
    assert_eq!(ask(&sim, &delete(&free)).await.code(), "InvalidSnapshot.NotFound");
    sim.edit_snapshot("locked", |it| it.lock = Some("expired".into()));
    assert_eq!(ask(&sim, &delete(&locked)).await.code(), "ok");
    assert_eq!(sim.snapshots().iter().map(Snapshot::name).collect::<Vec<_>>(), ["used"]);
}

#[tokio::test]
async fn who_names_no_owner_is_shown_what_is_public_too_and_who_names_self_is_not() {
    let sim = Sim::start().await;
    let own = sim.add_snapshot(Snapshot::named("own"));
    let mut other = Snapshot::named("public");
    (other.account, other.shared_with) = ("999988887777".into(), vec!["all".into()]);
    let public = sim.add_snapshot(other);
    assert_eq!(ids(&sim, "DescribeSnapshots").await, [own.clone(), public]);
    assert_eq!(ids(&sim, LIST).await, [own]);
    assert_eq!(ask(&sim, &call("DescribeInstances", &sim, &[])).await.texts("instanceId"), [""; 0]);
}

#[tokio::test]
async fn pages_may_be_short_or_empty_and_go_on() {
    let sim = Sim::start().await;
    sim.settings(|settings| (settings.page_size, settings.empty_pages) = (2, 1));
    let all: Vec<String> = (0..5).map(|n| sim.add_snapshot(Snapshot::named(&format!("s-{n}")))).collect();
    let (mut shown, mut sizes, mut next) = (Vec::new(), Vec::new(), String::new());
    loop {
        let answer = ask(&sim, &format!("{LIST}&MaxResults=1000{next}")).await;
        let page: Vec<String> = answer.texts("snapshotId").into_iter().map(str::to_owned).collect();
        sizes.push(page.len());
        shown.extend(page);
        match answer.texts("nextToken").first() {
            Some(token) => next = format!("&NextToken={token}"),
            None => break,
        }
    }
    assert_eq!((shown, sizes), (all, vec![0, 2, 0, 2, 0, 1]));
}

#[tokio::test]
async fn what_is_shown_lags_behind_what_is_done() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.describe_lag = Duration::from_secs(5));
    let id = sim.add_snapshot(Snapshot::named("s"));
    let images = format!("DescribeImages&Filter.1.Name=block-device-mapping.snapshot-id&Filter.1.Value.1={id}");
    let tag = format!("CreateTags&ResourceId.1={id}&Tag.1.Key=k&Tag.1.Value=v");
    assert_eq!(ask(&sim, &tag).await.code(), "ok");
    sim.add_image_of("s", false, false);
    assert_eq!(ask(&sim, LIST).await.texts("key"), ["Name"]);
    assert_eq!(ids(&sim, &images).await, [""; 0]);
    assert_eq!(ask(&sim, &format!("DeleteSnapshot&SnapshotId={id}")).await.code(), "InvalidSnapshot.InUse");
    later(&sim);
    assert_eq!(ask(&sim, LIST).await.texts("key"), ["Name", "k"]);
    assert_eq!(ids(&sim, &images).await, [id]);
}

#[tokio::test]
async fn deprecated_and_disabled_images_are_shown_to_who_asks_for_them() {
    let sim = Sim::start().await;
    let old = sim.add_snapshot(Snapshot::named("old"));
    let off = sim.add_snapshot(Snapshot::named("off"));
    sim.add_image_of("old", true, false);
    sim.add_image_of("off", false, true);
    assert_eq!(ids(&sim, "DescribeImages").await, [""; 0]);
    assert_eq!(ids(&sim, "DescribeImages&IncludeDeprecated=true").await, std::slice::from_ref(&old));
    assert_eq!(ids(&sim, "DescribeImages&IncludeDeprecated=true&IncludeDisabled=true").await, [old, off]);
}

#[tokio::test]
async fn a_guarded_role_deletes_only_what_is_marked_and_not_exempt_at_that_moment() {
    let sim = Sim::start().await;
    sim.settings(|settings| settings.guards_snapshots = true);
    let id = sim.add_snapshot(Snapshot::named("s").tag("curfew:exempt", ""));
    let delete = format!("DeleteSnapshot&SnapshotId={id}");
    assert_eq!(ask(&sim, &delete).await.code(), "UnauthorizedOperation");
    sim.edit_snapshot("s", |it| drop(it.tags.insert("curfew:delete-after".into(), "x".into())));
    assert_eq!(ask(&sim, &delete).await.code(), "UnauthorizedOperation");
    let mark = format!("CreateTags&ResourceId.1={id}&Tag.1.Key=curfew:delete-after&Tag.1.Value=y");
    assert_eq!(ask(&sim, &mark).await.code(), "UnauthorizedOperation");
    sim.edit_snapshot("s", |it| {
        it.tags.remove("curfew:exempt");
        it.tags.insert("Curfew:Exempt".into(), "".into());
    });
    assert_eq!(ask(&sim, &delete).await.code(), "UnauthorizedOperation", "IAM compares keys without regard to case");
    sim.edit_snapshot("s", |it| drop(it.tags.remove("Curfew:Exempt")));
    assert_eq!(ask(&sim, &delete).await.code(), "ok");
}
