//! Snapshots, and what may keep them: volumes, images, locks, fast restores, other accounts. What EC2 shows of them
//! lags behind their real state, as with instances.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::{Action, Answer, Request, Tag};
use crate::cloud::Cloud;
use crate::describe::{Describe, read_token, write_token};
use crate::fault::Refusal;
use crate::filter::matches;
use crate::place::{OWN_ACCOUNT, Place};

/// With `guards_snapshots`, the caller may delete only snapshots with the mark and without the exemption, and mark only
/// those without a mark.
const MARK: &str = "curfew:delete-after";
const EXEMPT: &str = "curfew:exempt";
/// EC2's limit of filter values in one call.
const FILTER_VALUES_PER_CALL: usize = 200;

/// A snapshot: completed, 400 days old, in the standard tier, of a volume that doesn't exist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "EC2's own names, but for what is said")]
pub struct Snapshot {
    /// Assigned when it is added.
    pub id: String,
    /// By default the function's own.
    pub account: String,
    /// By default `us-east-1`.
    pub region: String,
    pub tags: BTreeMap<String, String>,
    pub state: String,
    pub started: DateTime<Utc>,
    /// Assigned when it is added, if it is blank.
    pub volume: String,
    pub description: String,
    pub tier: String,
    /// Until when it is restored from the archive.
    pub restored: Option<DateTime<Utc>>,
    /// The transfer type, which only copies have.
    pub transfer: Option<String>,
    /// The volume's size.
    pub gib: u32,
    /// The full size in bytes, where EC2 shows it.
    pub bytes: Option<u64>,
    /// Accounts that may create volumes from it, or `all`.
    pub shared_with: Vec<String>,
    /// The lock's state.
    pub lock: Option<String>,
    /// The state of its fast restores.
    pub fast: Option<String>,
}

impl Snapshot {
    /// Builds one with this `Name`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            id: String::new(),
            account: OWN_ACCOUNT.into(),
            region: "us-east-1".into(),
            tags: [("Name".into(), name.into())].into(),
            state: "completed".into(),
            started: Utc::now() - TimeDelta::days(400),
            volume: String::new(),
            description: String::new(),
            tier: "standard".into(),
            restored: None,
            transfer: None,
            gib: 8,
            bytes: None,
            shared_with: Vec::new(),
            lock: None,
            fast: None,
        }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Returns the tag `Name`, or nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tags.get("Name").map_or("", String::as_str)
    }

    fn is_in(&self, place: &Place) -> bool {
        self.account == place.account && self.region == place.region
    }

    /// Returns its values for a filter of this name; none for a name that EC2 doesn't know.
    fn found(&self, filter: &str) -> Option<Vec<&str>> {
        if let Some(key) = filter.strip_prefix("tag:") {
            return Some(self.tags.get(key).map(String::as_str).into_iter().collect());
        }
        Some(match filter {
            "tag-key" => self.tags.keys().map(String::as_str).collect(),
            "snapshot-id" => vec![&self.id],
            "status" => vec![&self.state],
            "volume-id" => vec![&self.volume],
            "owner-id" => vec![&self.account],
            "storage-tier" => vec![&self.tier],
            "description" => vec![&self.description],
            _ => return None,
        })
    }
}

/// A volume that exists.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) id: String,
    place: Place,
}

/// An image, of one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) snapshot: String,
    /// Shown only if the call includes deprecated images.
    deprecated: bool,
    disabled: bool,
    place: Place,
    since: DateTime<Utc>,
}

/// A snapshot as it is from a moment on; none if it is gone.
type Version = (DateTime<Utc>, Option<Snapshot>);

#[derive(Default)]
pub(crate) struct Storage {
    /// By id, the oldest version first.
    snapshots: BTreeMap<String, Vec<Version>>,
    volumes: Vec<Volume>,
    images: Vec<Image>,
    made: u32,
}

/// An action about snapshots.
pub(crate) enum Verb {
    Snapshots { describe: Describe, own: bool },
    Volumes(Describe),
    Images { describe: Describe, deprecated: bool, disabled: bool },
    Attribute,
    Locked,
    Fast,
    Delete,
}

/// What EC2 answers.
pub(crate) enum Told {
    Snapshots(Vec<Snapshot>, Option<String>),
    Volumes(Vec<Volume>),
    Images(Vec<Image>),
    Attribute(Box<Snapshot>),
    Locked(Vec<Snapshot>),
    Fast(Vec<Snapshot>),
    Deleted,
}

impl Storage {
    /// Returns a snapshot as it is now.
    fn get(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.get(id)?.last()?.1.as_ref()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().filter_map(|versions| versions.last()?.1.as_ref())
    }

    /// Returns all snapshots as they were then, which is what Describe calls show.
    fn seen(&self, then: DateTime<Utc>) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().filter_map(move |versions| {
            let known = versions.iter().rev().find(|(since, _)| *since <= then).or(versions.first());
            known?.1.as_ref()
        })
    }

    pub(crate) fn change(&mut self, id: &str, now: DateTime<Utc>, new: Option<Snapshot>) {
        self.snapshots.entry(id.to_owned()).or_default().push((now, new));
    }

    /// Forgets the images of a snapshot, and the volume that it was made of.
    pub(crate) fn forsake(&mut self, snapshot: &Snapshot) {
        self.images.retain(|it| it.snapshot != snapshot.id);
        self.volumes.retain(|it| it.id != snapshot.volume);
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Snapshot> {
        self.all().find(|it| it.id == name || it.name() == name)
    }
}

impl Cloud {
    pub(crate) fn add_snapshot(&mut self, mut snapshot: Snapshot) -> String {
        self.storage.made += 1;
        let made = self.storage.made;
        snapshot.id = format!("snap-{made:017x}");
        if snapshot.volume.is_empty() {
            snapshot.volume = format!("vol-{made:017x}");
        }
        let (id, now) = (snapshot.id.clone(), self.clock.now());
        self.storage.change(&id, now, Some(snapshot));
        id
    }

    /// Adds the volume that a snapshot was made of.
    pub(crate) fn add_volume_of(&mut self, snapshot: &Snapshot) {
        let place = Place { account: snapshot.account.clone(), region: snapshot.region.clone() };
        self.storage.volumes.push(Volume { id: snapshot.volume.clone(), place });
    }

    pub(crate) fn add_image_of(&mut self, snapshot: &Snapshot, deprecated: bool, disabled: bool) -> String {
        self.storage.made += 1;
        let id = format!("ami-{:017x}", self.storage.made);
        let place = Place { account: snapshot.account.clone(), region: snapshot.region.clone() };
        let (snapshot, since) = (snapshot.id.clone(), self.clock.now());
        self.storage.images.push(Image { id: id.clone(), snapshot, deprecated, disabled, place, since });
        id
    }

    /// Carries out a call, if it is about snapshots.
    pub(crate) fn about_storage(&mut self, request: &Request, ids: &[String]) -> Option<Result<Answer, Refusal>> {
        let is_ours = |id: &String| id.starts_with("snap-");
        match &request.action {
            Action::Storage(verb) => Some(self.storage_told(request, verb, ids)),
            Action::CreateTags(tags) if ids.iter().any(is_ours) => Some(self.tag_snapshots(request, ids, tags, true)),
            Action::DeleteTags(tags) if ids.iter().any(is_ours) => Some(self.tag_snapshots(request, ids, tags, false)),
            _ => None,
        }
    }

    fn storage_told(&mut self, request: &Request, verb: &Verb, ids: &[String]) -> Result<Answer, Refusal> {
        let now = self.clock.now();
        let then = now - self.settings.describe_lag;
        let place = &request.place;
        let here = || self.storage.seen(then).filter(|it| it.is_in(place)).cloned();
        let told = match verb {
            Verb::Snapshots { describe, own } => {
                check(describe, |name| Snapshot::named("").found(name).is_some())?;
                let shown = |it: &Snapshot| {
                    describe.filters.iter().all(|filter| {
                        let found = it.found(&filter.name).unwrap_or_default();
                        filter.values.iter().any(|pattern| found.iter().any(|text| matches(pattern, text)))
                    })
                };
                // Without an owner in the call, other accounts' public snapshots are shown, too.
                let others = self.storage.seen(then).filter(|it| {
                    !own && it.region == place.region
                        && !it.is_in(place)
                        && it.shared_with.iter().any(|who| who == "all")
                });
                let all: Vec<_> = here().chain(others.cloned()).filter(shown).collect();
                let (page, next) = self.page_of(all, describe)?;
                Told::Snapshots(page, next)
            }
            Verb::Volumes(describe) => {
                check(describe, |name| name == "volume-id")?;
                let volumes = self.storage.volumes.iter().filter(|it| it.place == *place);
                Told::Volumes(volumes.filter(|it| has(describe, "volume-id", &it.id)).cloned().collect())
            }
            Verb::Images { describe, deprecated, disabled } => {
                check(describe, |name| name == "block-device-mapping.snapshot-id")?;
                let images = self.storage.images.iter().filter(|it| it.place == *place && it.since <= then);
                let images = images.filter(|it| (*deprecated || !it.deprecated) && (*disabled || !it.disabled));
                let images = images.filter(|it| has(describe, "block-device-mapping.snapshot-id", &it.snapshot));
                Told::Images(images.cloned().collect())
            }
            Verb::Attribute => Told::Attribute(self.known(place, ids.first())?.clone().into()),
            Verb::Locked => Told::Locked(here().filter(|it| it.lock.is_some()).collect()),
            Verb::Fast => Told::Fast(here().filter(|it| it.fast.is_some()).collect()),
            Verb::Delete => {
                let snapshot = self.known(place, ids.first())?.clone();
                self.authorize_on(request, "ec2:DeleteSnapshot", &snapshot)?;
                self.dry_run(request)?;
                if let Some(image) = self.storage.images.iter().find(|it| it.snapshot == snapshot.id) {
                    let message = format!("The snapshot {} is currently in use by {}", snapshot.id, image.id);
                    return Err(Refusal::new("InvalidSnapshot.InUse", message));
                }
                if snapshot.lock.as_deref().is_some_and(|lock| lock != "expired") {
                    // The user guide says that this fails, but not with which code: this one is a guess.
                    let message = format!("The snapshot {} is locked and can't be deleted.", snapshot.id);
                    return Err(Refusal::new("SnapshotLocked", message));
                }
                self.storage.change(&snapshot.id, now, None);
                Told::Deleted
            }
        };
        Ok(Answer::Storage(told))
    }

    fn tag_snapshots(
        &mut self,
        request: &Request,
        ids: &[String],
        tags: &[Tag],
        create: bool,
    ) -> Result<Answer, Refusal> {
        let action = if create { "ec2:CreateTags" } else { "ec2:DeleteTags" };
        let mut named = Vec::new();
        for id in ids {
            let snapshot = self.known(&request.place, Some(id))?.clone();
            self.authorize_on(request, action, &snapshot)?;
            named.push(snapshot);
        }
        self.dry_run(request)?;
        let now = self.clock.now();
        for mut snapshot in named {
            for Tag { key, value } in tags {
                match create {
                    true => drop(snapshot.tags.insert(key.clone(), value.clone().unwrap_or_default())),
                    false => {
                        snapshot.tags.retain(|it, has| it != key || value.as_ref().is_some_and(|only| only != has))
                    }
                }
            }
            let id = snapshot.id.clone();
            self.storage.change(&id, now, Some(snapshot));
        }
        Ok(Answer::Tagged)
    }

    fn known(&self, place: &Place, id: Option<&String>) -> Result<&Snapshot, Refusal> {
        let id =
            id.ok_or_else(|| Refusal::new("MissingParameter", "The request must contain the parameter snapshotId"))?;
        let found = self.storage.get(id).filter(|it| it.is_in(place));
        found.ok_or_else(|| Refusal::new("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist.")))
    }

    fn dry_run(&self, request: &Request) -> Result<(), Refusal> {
        if request.dry_run && !self.settings.ignores_dry_run {
            let message = "Request would have succeeded, but DryRun flag is set.";
            return Err(Refusal::new("DryRunOperation", message).with_status(412));
        }
        Ok(())
    }

    /// Refuses what the caller's policy doesn't allow, going by the tags that the snapshot has at this moment.
    fn authorize_on(&self, request: &Request, action: &str, snapshot: &Snapshot) -> Result<(), Refusal> {
        // IAM compares keys without regard to case.
        let has = |key: &str| snapshot.tags.keys().any(|it| it.eq_ignore_ascii_case(key));
        let tagged =
            self.settings.only_tagged.as_ref().is_none_or(|(key, value)| snapshot.tags.get(key) == Some(value));
        let guarded = match action {
            _ if !self.settings.guards_snapshots => true,
            "ec2:DeleteSnapshot" => has(MARK) && !has(EXEMPT),
            "ec2:CreateTags" => !has(MARK),
            _ => true,
        };
        if tagged && guarded {
            return Ok(());
        }
        let message = format!(
            "You are not authorized to perform this operation. User: {} is not authorized to perform: {action} on resource: \
             arn:aws:ec2:{}::snapshot/{} because no identity-based policy allows the {action} action",
            request.caller, request.place.region, snapshot.id
        );
        Err(Refusal::new("UnauthorizedOperation", message).with_status(403))
    }

    /// Returns the page that a call asks for, cut as DescribeInstances' pages are.
    fn page_of(&self, all: Vec<Snapshot>, describe: &Describe) -> Result<(Vec<Snapshot>, Option<String>), Refusal> {
        let (after, empties) = match &describe.next_token {
            None => (String::new(), 0),
            Some(token) if self.settings.token_stuck => return Ok((Vec::new(), Some(token.clone()))),
            Some(token) => read_token(token)?,
        };
        if empties < self.settings.empty_pages {
            return Ok((Vec::new(), Some(write_token(&after, empties + 1))));
        }
        let size = describe.max_results.unwrap_or(1000).min(self.settings.page_size).max(1);
        let mut rest = all.into_iter().filter(|it| it.id > after);
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let last = rest.next().and(page.last());
        let next = last.map(|last| write_token(&last.id, 0));
        let stuck = self.settings.token_stuck.then(|| write_token(&after, 0));
        Ok((page, stuck.or(next)))
    }
}

/// Refuses filters that EC2 doesn't know, and too many filter values.
fn check(describe: &Describe, is_known: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    let values: usize = describe.filters.iter().map(|filter| filter.values.len()).sum();
    if values > FILTER_VALUES_PER_CALL {
        let message =
            format!("The maximum number of filter values specified on a single call is {FILTER_VALUES_PER_CALL}");
        return Err(Refusal::new("FilterLimitExceeded", message));
    }
    match describe.filters.iter().find(|filter| !is_known(&filter.name)) {
        Some(filter) => Err(Refusal::new("InvalidParameterValue", format!("The filter '{}' is invalid", filter.name))),
        None => Ok(()),
    }
}

/// Whether a text matches all filters of this name.
fn has(describe: &Describe, name: &str, text: &str) -> bool {
    let mut named = describe.filters.iter().filter(|filter| filter.name == name);
    named.all(|filter| filter.values.iter().any(|pattern| matches(pattern, text)))
}
