//! Pure: which snapshots nobody needs, and why every other one is kept.
//!
//! Knows the request and what EC2 showed; must not act, make calls or look at the clock. A snapshot may be the last
//! copy of something: if anything is uncertain, it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Serialize, Serializer};

use crate::instance::{EXEMPT_TAG, NAME_TAG, Tags, rfc3339};
use crate::outcome::{Kept, Reason, Skip, Trouble};
use crate::plan::exempted;
use crate::request::snapshots::Request;

/// The key of the mark. Its value is the moment, in RFC 3339, after which a run may delete the snapshot that carries
/// it.
pub const DELETE_AFTER_TAG: &str = "curfew:delete-after";
/// How long a mark is good for once it is due. A schedule that runs once a month still finds one in time; after that,
/// nobody knows what has kept the snapshot meanwhile, and its days of grace begin anew.
pub const GOOD_FOR: TimeDelta = TimeDelta::days(35);
/// The name of the rule by which snapshots are deleted, in reports and the log.
pub const VOLUME_GONE: &str = "volume_gone";
/// The volume that EC2 names for a copied snapshot (API reference, Snapshot: "an arbitrary volume ID that you should
/// not use for any purpose"). That it doesn't exist means nothing.
const VOLUME_OF_A_COPY: &str = "vol-ffffffff";
/// Tags of services and programs that manage their snapshots themselves: what the key begins with, in lower case and in
/// whatever case it is written, and their names. Keys that begin with `aws:`, which only AWS can write (AWS Backup, Data
/// Lifecycle Manager, DataSync), count as well.
const BACKUP_TAGS: [(&str, &str); 7] = [
    ("dlm:", "Data Lifecycle Manager"),
    ("awselasticdisasterrecovery", "Elastic Disaster Recovery"),
    ("awsapplicationmigrationservice", "Application Migration Service"),
    // "cpm backup" and "cpm_backup" (N2WS's user guide, "Tag-based Backup Management").
    ("cpm", "N2WS"),
    // "velero.io/backup" and others; velero-plugin-for-aws also copies all tags of the volume, the managed tag included.
    ("velero.io/", "Velero"),
    // Both are the EBS CSI driver's, which makes Kubernetes's VolumeSnapshots ("docs/tagging.md").
    ("csivolumesnapshot", "Kubernetes"),
    ("ebs.csi.aws.com/", "Kubernetes"),
];
/// What services write into descriptions, in lower case, and the service's name.
const BACKUP_DESCRIPTIONS: [(&str, &str); 6] = [
    ("aws backup", "AWS Backup"),
    ("created for policy: policy-", "Data Lifecycle Manager"),
    ("datasync", "DataSync"),
    ("data sync", "DataSync"),
    ("elastic disaster recovery", "Elastic Disaster Recovery"),
    ("sgw-", "Storage Gateway"),
];
/// Bytes in a GiB, the unit of EC2's volume sizes.
pub const GIB: u64 = 1 << 30;

/// A snapshot's id: `snap-` and 8 or 17 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(Box<str>);

impl SnapshotId {
    /// Reads an id; none if the text hasn't the shape of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_id(text, "snap-").then(|| Self(text.into()))
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text has the shape of an EC2 id: the prefix, and 8 or 17 hexadecimal digits in lower case.
fn is_id(text: &str, prefix: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix(prefix).is_some_and(|digits| matches!(digits.len(), 8 | 17) && digits.bytes().all(hex))
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The parts of a snapshot's description (DescribeSnapshots) that Curfew uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The account that owns it.
    pub owner: Box<str>,
    /// All its tags.
    pub tags: Tags,
    /// EC2's name of its state, like `completed`.
    pub state: Box<str>,
    /// When it was begun.
    pub started: DateTime<Utc>,
    /// The id of the volume that it was made of; empty if EC2 gives none.
    pub volume: Box<str>,
    /// What people or services wrote about it.
    pub description: Box<str>,
    /// EC2's name of its storage tier, like `standard`; empty if EC2 gives none.
    pub tier: Box<str>,
    /// Whether it is archived, and restored for some days only.
    pub restored: bool,
    /// Whether EC2 gives a transfer type, as it does only for copies.
    pub copied: bool,
    /// The most bytes that it can occupy: its full size, or its volume's where EC2 doesn't give it. It may share blocks
    /// with other snapshots.
    pub bytes: u64,
}

impl Snapshot {
    /// Returns the value of its `Name` tag, unless it has none or an empty one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.tags.get(NAME_TAG).filter(|name| !name.is_empty())
    }

    /// Whether it is in the archive tier, where storage is cheaper.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        &*self.tier == "archive"
    }

    /// Returns the mark's value as it is written on the snapshot, readable or not.
    #[must_use]
    pub fn mark(&self) -> Option<&str> {
        self.tags.get(DELETE_AFTER_TAG)
    }

    /// Returns the moment after which it may be deleted; none if its mark isn't a time, or it has none.
    fn delete_after(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(self.mark()?.trim()).ok().map(|after| after.to_utc())
    }

    /// Returns its mark, if it must be deleted because something keeps the snapshot: once nothing does any more, its
    /// days of grace begin anew. `until` is when these would be over if they began now. A later mark stays, as does one
    /// that is not a time: a person wrote it, and the snapshot is kept at least as long as that person wants.
    #[must_use]
    pub fn void_mark(&self, until: DateTime<Utc>) -> Option<&str> {
        self.mark().filter(|_| self.delete_after().is_some_and(|after| after <= until))
    }

    /// Returns its tags with the key of an exemption as Curfew writes it: IAM compares keys without regard to case, so
    /// EC2 would refuse to delete a snapshot that carries `Curfew:Exempt`, too.
    fn tags_with_exemption(&self) -> Tags {
        let key = |key| if is_exemption(key) { EXEMPT_TAG } else { key };
        self.tags.iter().map(|(it, value)| (key(it), value)).collect()
    }

    /// Whether it carries an exemption, even one that is over.
    #[must_use]
    pub fn has_exemption(&self) -> bool {
        self.tags.iter().any(|(key, _)| is_exemption(key))
    }

    fn is_copy(&self) -> bool {
        self.copied || &*self.volume == VOLUME_OF_A_COPY || self.description.starts_with("[Copied ")
    }

    /// Returns how it is known that a service manages it, and which service.
    fn service(&self) -> Option<(String, &'static str)> {
        let by_tag = self.tags.iter().find_map(|(key, _)| {
            let lower = key.to_ascii_lowercase();
            let known = BACKUP_TAGS.iter().find(|(prefix, _)| lower.starts_with(prefix)).map(|(_, who)| *who);
            let who = known.or_else(|| lower.starts_with("aws:").then_some("an AWS service"));
            who.map(|who| (format!("its tag {key}"), who))
        });
        let description = self.description.to_ascii_lowercase();
        let by_description = || {
            let found = BACKUP_DESCRIPTIONS.iter().find(|(words, _)| description.contains(words));
            found.map(|(_, who)| ("its description".to_owned(), *who))
        };
        by_tag.or_else(by_description)
    }
}

fn is_exemption(key: &str) -> bool {
    key.eq_ignore_ascii_case(EXEMPT_TAG)
}

/// What else EC2 showed that may need some snapshots; an error where EC2 could not be asked.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The ids of their volumes that still exist.
    pub volumes: Result<BTreeSet<Box<str>>, Trouble>,
    /// The snapshots that an image uses, with its id.
    pub images: Result<BTreeMap<SnapshotId, Box<str>>, Trouble>,
    /// All locked snapshots of the region.
    pub locked: Result<BTreeSet<SnapshotId>, Trouble>,
    /// All snapshots of the region that are enabled for fast restores.
    pub fast: Result<BTreeSet<SnapshotId>, Trouble>,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is needed, or may be.
    Because(Skip),
    /// EC2 could not be asked whether it is.
    Unasked {
        /// What was to be asked, like `whether it is locked`.
        what: &'static str,
        /// The error in place of an answer.
        trouble: Trouble,
    },
}

impl Keep {
    fn because(reason: impl Into<Reason>) -> Self {
        Self::Because(Skip::because(reason))
    }

    fn saying(reason: impl Into<Reason>, message: String) -> Self {
        Self::Because(Skip::saying(reason, message))
    }
}

/// What to do with a snapshot that nothing keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has no mark, or one that is long overdue: mark it.
    First,
    /// Its mark's moment has passed: delete it.
    Due,
}

/// Returns why a snapshot is kept, going by its own description alone; none if that doesn't keep it.
#[must_use]
pub fn kept_by_itself(request: &Request, snapshot: &Snapshot, as_of: DateTime<Utc>) -> Option<Skip> {
    let saying = |reason: Kept, message: String| Some(Skip::saying(reason, message));
    if let Some(skip) = exempted(&snapshot.tags_with_exemption(), &request.except_tags, request.timezone, as_of) {
        return Some(skip);
    }
    if !request.tags.all_match(&snapshot.tags) {
        return Some(Skip::saying(Reason::Exempt, "its tags no longer match the request".to_owned()));
    }
    if &*snapshot.state != "completed" {
        return saying(Kept::NotCompleted, format!("EC2 calls its state {:?}", snapshot.state));
    }
    if let Some((by, who)) = snapshot.service() {
        return saying(Kept::Backup, format!("{who} created it, going by {by}"));
    }
    if snapshot.is_copy() {
        return saying(Kept::Copied, "EC2 doesn't say which volume it came from, as with copies".to_owned());
    }
    if !is_id(&snapshot.volume, "vol-") {
        let message = format!("{:?} is not a volume id that this version knows", snapshot.volume);
        return saying(Kept::Unknown, message);
    }
    match &*snapshot.tier {
        "standard" if snapshot.restored && !request.archived => {
            return saying(Kept::Archived, "it is restored from the archive for some days only".to_owned());
        }
        "standard" => {}
        "archive" if request.archived => {}
        "archive" => return Some(Skip::because(Kept::Archived)),
        other => {
            return saying(Kept::Unknown, format!("its storage tier is {other:?}, which this version doesn't know"));
        }
    }
    let old_enough = snapshot.started.checked_add_signed(request.min_age);
    match old_enough {
        Some(old_enough) if old_enough < as_of => None,
        Some(until) => Some(Skip { until: Some(until), ..Skip::because(Kept::TooYoung) }),
        None => Some(Skip::because(Kept::TooYoung)),
    }
}

/// Returns why a snapshot is kept, going by what else may need it. A known reason comes before a missing answer.
#[must_use]
pub fn kept_by_others(snapshot: &Snapshot, around: &Surroundings) -> Option<Keep> {
    if around.volumes.as_ref().is_ok_and(|volumes| volumes.contains(&snapshot.volume)) {
        return Some(Keep::because(Kept::VolumeExists));
    }
    if let Some(image) = around.images.as_ref().ok().and_then(|images| images.get(&snapshot.id)) {
        return Some(Keep::saying(Kept::Image, format!("{image} uses it")));
    }
    if around.locked.as_ref().is_ok_and(|locked| locked.contains(&snapshot.id)) {
        return Some(Keep::because(Kept::Locked));
    }
    if around.fast.as_ref().is_ok_and(|fast| fast.contains(&snapshot.id)) {
        return Some(Keep::because(Kept::FastRestore));
    }
    let unasked = |what, trouble: Option<&Trouble>| Some(Keep::Unasked { what, trouble: trouble?.clone() });
    unasked("whether its volume exists", around.volumes.as_ref().err())
        .or_else(|| unasked("whether an image uses it", around.images.as_ref().err()))
        .or_else(|| unasked("whether it is locked", around.locked.as_ref().err()))
        .or_else(|| unasked("whether it is enabled for fast restores", around.fast.as_ref().err()))
}

/// Returns why a snapshot is kept, going by whether other accounts may use it.
#[must_use]
pub fn kept_by_sharing(shared: Result<bool, Trouble>) -> Option<Keep> {
    match shared {
        Ok(false) => None,
        Ok(true) => Some(Keep::saying(Kept::Shared, "other accounts may create volumes from it".to_owned())),
        Err(trouble) => Some(Keep::Unasked { what: "whether it is shared", trouble }),
    }
}

/// Returns what to do with a snapshot that nothing but its mark keeps.
///
/// # Errors
/// Why it is kept for now: its mark's moment hasn't passed, or can't be read.
pub fn stage(snapshot: &Snapshot, as_of: DateTime<Utc>) -> Result<Stage, Skip> {
    let unclear = |message| Err(Skip { wants_attention: true, ..Skip::saying(Kept::Unknown, message) });
    // IAM takes such a key for the mark, but a person wrote it.
    let alike = |key: &str| key != DELETE_AFTER_TAG && key.eq_ignore_ascii_case(DELETE_AFTER_TAG);
    if let Some((key, _)) = snapshot.tags.iter().find(|(key, _)| alike(key)) {
        return unclear(format!(
            "its tag {key} may be meant as {DELETE_AFTER_TAG}: kept to be safe; correct the key, or delete the tag"
        ));
    }
    let Some(mark) = snapshot.mark() else { return Ok(Stage::First) };
    match snapshot.delete_after() {
        Some(after) if after < as_of && as_of - after > GOOD_FOR => Ok(Stage::First),
        Some(after) if after < as_of => Ok(Stage::Due),
        Some(after) => Err(Skip { until: Some(after), ..Skip::because(Kept::Marked) }),
        None => unclear(format!(
            "{DELETE_AFTER_TAG} is {mark:?}, which is not a time like {:?}: kept to be safe; correct it, or delete the tag",
            rfc3339(as_of)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn now() -> DateTime<Utc> {
        "2026-11-20T03:00:00Z".parse().expect("a moment")
    }

    fn request(fields: Value) -> Request {
        let mut all = json!({"action": "snapshots", "tags": {"curfew": "yes"}});
        all.as_object_mut().expect("a map").extend(fields.as_object().expect("a map").clone());
        Request::parse(all.as_object().expect("a map").clone(), None, now()).expect("a request")
    }

    fn orphan() -> Snapshot {
        Snapshot {
            id: SnapshotId::parse("snap-0abc12345678def00").expect("an id"),
            owner: "123456789012".into(),
            tags: [("curfew", "yes")].into_iter().collect(),
            state: "completed".into(),
            started: now() - TimeDelta::days(400),
            volume: "vol-0abc12345678def00".into(),
            description: "".into(),
            tier: "standard".into(),
            restored: false,
            copied: false,
            bytes: GIB,
        }
    }

    fn reason(snapshot: &Snapshot) -> Option<Reason> {
        kept_by_itself(&request(json!({})), snapshot, now()).map(|skip| skip.reason)
    }

    fn tagged(key: &str, value: &str) -> Snapshot {
        Snapshot { tags: [("curfew", "yes"), (key, value)].into_iter().collect(), ..orphan() }
    }

    #[test]
    fn a_services_snapshots_are_recognized_by_tag_or_description() {
        assert_eq!(reason(&orphan()), None);
        for key in [
            "aws:backup:source-resource",
            "aws:dlm:lifecycle-policy-id",
            "aws:datasync:x",
            "dlm:managed",
            "aws:new",
            "AWSElasticDisasterRecoveryManaged",
            "cpm backup",
            "cpm_backup",
            "CPM",
            "velero.io/backup",
            "CSIVolumeSnapshotName",
            "ebs.csi.aws.com/cluster",
        ] {
            assert_eq!(reason(&tagged(key, "x")), Some(Kept::Backup.into()), "{key}");
        }
        for description in [
            "This snapshot is created by the AWS Backup service.",
            "Created for policy: policy-0123456789abcdef0 schedule: Default Schedule",
            "made by AWS DataSync",
        ] {
            let snapshot = Snapshot { description: description.into(), ..orphan() };
            assert_eq!(reason(&snapshot), Some(Kept::Backup.into()), "{description}");
        }
    }

    #[test]
    fn a_missing_volume_says_nothing_about_a_copy() {
        for copy in [
            Snapshot { volume: "vol-ffffffff".into(), ..orphan() },
            Snapshot { copied: true, ..orphan() },
            Snapshot { description: "[Copied snap-0abc12345678def00 from us-east-1]".into(), ..orphan() },
        ] {
            assert_eq!(reason(&copy), Some(Kept::Copied.into()), "{copy:?}");
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_kept() {
        for odd in [
            Snapshot { volume: "".into(), ..orphan() },
            // Storage Gateway's ids are in upper case.
            Snapshot { volume: "vol-0ABC12345678DEF00".into(), ..orphan() },
            Snapshot { tier: "".into(), ..orphan() },
            Snapshot { tier: "glacier".into(), ..orphan() },
        ] {
            assert_eq!(reason(&odd), Some(Kept::Unknown.into()), "{odd:?}");
        }
        assert_eq!(reason(&Snapshot { state: "recoverable".into(), ..orphan() }), Some(Kept::NotCompleted.into()));
    }

    #[test]
    fn one_that_is_restored_from_the_archive_for_some_days_is_archived() {
        let restored = Snapshot { restored: true, ..orphan() };
        assert_eq!(reason(&restored), Some(Kept::Archived.into()));
        assert_eq!(kept_by_itself(&request(json!({"archived": true})), &restored, now()), None);
    }

    #[test]
    fn an_exemption_counts_in_whatever_case_its_key_is_written() {
        for key in ["curfew:exempt", "Curfew:Exempt", "CURFEW:EXEMPT"] {
            assert_eq!(reason(&tagged(key, "")), Some(Reason::Exempt), "{key}");
        }
        assert_eq!(reason(&tagged("Curfew:Exempt", "2026-11-01")), None, "it is over");
    }

    #[test]
    fn it_is_old_enough_one_moment_after_min_age_days() {
        let aged = |age| Snapshot { started: now() - age, ..orphan() };
        assert_eq!(reason(&aged(TimeDelta::days(180))), Some(Kept::TooYoung.into()));
        assert_eq!(reason(&aged(TimeDelta::days(180) + TimeDelta::seconds(1))), None);
        assert_eq!(reason(&Snapshot { started: DateTime::<Utc>::MAX_UTC, ..orphan() }), Some(Kept::TooYoung.into()));
    }

    #[test]
    fn a_mark_is_due_when_its_moment_has_passed_and_what_cannot_be_read_is_never_due() {
        let marked = |value: &str| stage(&tagged(DELETE_AFTER_TAG, value), now()).map_err(|skip| skip.reason);
        assert_eq!(stage(&orphan(), now()), Ok(Stage::First));
        assert_eq!(marked("2026-11-20T02:59:59Z"), Ok(Stage::Due));
        assert_eq!(marked("2026-11-20T03:59:59+01:00"), Ok(Stage::Due));
        assert_eq!(marked("2026-11-20T03:00:00Z"), Err(Kept::Marked.into()));
        assert_eq!(marked("9999-12-31T23:59:59Z"), Err(Kept::Marked.into()));
        for odd in ["", "yes", "never", "2026-11-20", "2026-11-20 03:00"] {
            assert_eq!(marked(odd), Err(Kept::Unknown.into()), "{odd:?}");
        }
        for key in ["Curfew:Delete-After", "curfew:delete-After"] {
            let kept = stage(&tagged(key, "2026-11-01T00:00:00Z"), now()).map_err(|skip| skip.reason);
            assert_eq!(kept, Err(Kept::Unknown.into()), "{key}");
        }
    }

    #[test]
    fn a_mark_that_is_long_overdue_is_written_anew() {
        let overdue = |by: TimeDelta| stage(&tagged(DELETE_AFTER_TAG, &rfc3339(now() - by)), now());
        assert_eq!(overdue(TimeDelta::days(31)), Ok(Stage::Due), "a schedule may run once a month");
        assert_eq!(overdue(TimeDelta::days(35)), Ok(Stage::Due));
        assert_eq!(overdue(TimeDelta::days(35) + TimeDelta::seconds(1)), Ok(Stage::First));
        assert_eq!(overdue(TimeDelta::days(36_500)), Ok(Stage::First));
    }

    #[test]
    fn a_reason_to_keep_it_voids_a_mark_that_the_days_of_grace_from_now_on_outlast_and_no_other() {
        let voided = |mark: &str| tagged(DELETE_AFTER_TAG, mark).void_mark(now()).is_some();
        assert!(voided("2020-01-01T00:00:00Z") && voided("2026-11-20T03:00:00Z"));
        for stays in ["2026-11-20T03:00:01Z", "2035-01-01T00:00:00Z", "never", ""] {
            assert!(!voided(stays), "{stays}");
        }
        assert_eq!(orphan().void_mark(now()), None);
    }

    proptest! {
        /// A missing answer keeps it, and a known reason comes before a missing answer.
        #[test]
        fn it_goes_only_if_everything_was_asked_and_nothing_keeps_it(
            answers in prop::array::uniform4(prop::option::of(any::<bool>())),
        ) {
            let (snapshot, trouble) = (orphan(), Trouble { code: "X".into(), message: "x".into(), may_pass: false });
            let set = |answer: Option<bool>| match answer {
                None => Err(trouble.clone()),
                Some(has) => Ok(has.then(|| snapshot.id.clone()).into_iter().collect::<BTreeSet<_>>()),
            };
            let around = Surroundings {
                volumes: set(answers[0]).map(|ids| ids.into_iter().map(|_| snapshot.volume.clone()).collect()),
                images: set(answers[1]).map(|ids| ids.into_iter().map(|id| (id, "ami-1".into())).collect()),
                locked: set(answers[2]),
                fast: set(answers[3]),
            };
            let kept = kept_by_others(&snapshot, &around);
            prop_assert_eq!(kept.is_none(), answers == [Some(false); 4]);
            prop_assert_eq!(matches!(kept, Some(Keep::Because(_))), answers.contains(&Some(true)));
        }
    }
}
