//! The snapshots of one account and region: look, decide by the rule, and carry it out, until the deadline.
//!
//! Nothing is deleted by an old look. Right before its deletion a snapshot is looked at again, with everything that may
//! keep it; if EC2 doesn't answer one of these questions, it is kept. One that then has to wait too long for EC2's rate
//! limit is looked at once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::future::{join, join_all, join3};
use tokio::time::Instant;
use tracing::info;

use super::rule::{
    DELETE_AFTER_TAG, Keep, Snapshot, SnapshotId, Stage, Surroundings, kept_by_itself, kept_by_others, kept_by_sharing,
    stage,
};
use super::{Change, Outcome, Settled};
use crate::deadline::{Deadline, TooLate};
use crate::ec2::{AwsEc2, Class, DELETE_SNAPSHOT_BUCKETS, DRY_RUN_IGNORED, Error, LOOK_BUCKETS, classify, may_pass};
use crate::engine::LOOK_LASTS;
use crate::engine::pace::Pace;
use crate::instance::{EXEMPT_TAG, rfc3339};
use crate::outcome::{Kept, Reason, Skip, Trouble, cut};
use crate::request::Mode;
use crate::request::snapshots::Request;
use crate::select::{MAX_FILTER_VALUES, Selection};
use crate::targets::{patiently, trouble};

/// Snapshots in one CreateTags call: fewer than the 1,000 that EC2 takes, because one bad id fails them all.
const MARKED_AT_ONCE: usize = 100;
/// Snapshots in one look before deletion. At EC2's 5 deletions a second they take 5 s, less than a look lasts
/// ([`LOOK_LASTS`]).
const LOOKED_AT_ONCE: usize = 25;
/// Calls about single snapshots that are in flight at a time.
const AT_ONCE: usize = 5;
/// Attempts to delete a snapshot that EC2 gives no clear answer about.
const TRIES: u32 = 4;
/// After this many refusals for lack of permission nothing more is tried, unless a call was accepted: as many deletions
/// as EC2 allows at once ([`DELETE_SNAPSHOT_BUCKETS`]). Fewer may all be due to single snapshots' own tags.
const REFUSALS: usize = 100;
/// Our code where EC2 wasn't asked, because it has refused so many others.
const NOT_TRIED: &str = "NotTried";
/// A value that no mark has, since it isn't a time: EC2 is asked with it, with DryRun, whether marks may be deleted. Even
/// an EC2 that ignores DryRun has nothing to delete then.
const NO_MARK: &str = "dry run";

/// What this module has to know about a run.
#[derive(Clone, Copy)]
pub(super) struct Work {
    /// The moment that the run stands for.
    pub(super) as_of: DateTime<Utc>,
    /// The moment at which it began; a mark counts from here.
    pub(super) now: DateTime<Utc>,
    /// When it has to be done.
    pub(super) deadline: Deadline,
}

impl Work {
    /// Returns when the days of grace are over that begin now.
    fn grace_ends(&self, request: &Request) -> DateTime<Utc> {
        self.now.checked_add_signed(request.grace).unwrap_or(DateTime::<Utc>::MAX_UTC).trunc_subsecs(0)
    }
}

/// The plan for the selected snapshots: each is in it exactly once.
#[derive(Debug, Default)]
pub(super) struct Plan {
    kept: Vec<Settled>,
    mark: Vec<Snapshot>,
    delete: Vec<Snapshot>,
    /// Those that are kept and lose their mark.
    unmark: Vec<(Snapshot, Keep)>,
}

impl Plan {
    /// Counts the snapshots that it would change.
    pub(super) fn changes(&self) -> usize {
        self.mark.len() + self.delete.len()
    }

    /// Returns the plan with nothing to mark or delete: what it would have changed gets this outcome. Marks still come
    /// off what something keeps; otherwise the next run would delete it as soon as nothing does.
    pub(super) fn held_back(mut self, end: &Outcome) -> Self {
        let changes = self.mark.drain(..).chain(self.delete.drain(..));
        self.kept.extend(changes.map(|snapshot| Settled::of(&snapshot, end.clone())));
        self
    }

    /// Keeps a snapshot.
    fn keep(&mut self, snapshot: Snapshot, keep: Keep, grace: DateTime<Utc>) {
        match (&keep, snapshot.void_mark(grace)) {
            (Keep::Because(_), Some(_)) => self.unmark.push((snapshot, keep)),
            _ => self.kept.push(Settled::of(&snapshot, ended(keep))),
        }
    }
}

/// Returns the outcome of the rest when EC2 has ignored DryRun.
pub(super) fn not_asked() -> Outcome {
    let message = "not tried: EC2 carried out a dry run".to_owned();
    Outcome::Failed { code: DRY_RUN_IGNORED.to_owned(), message }
}

/// Returns the outcome of a snapshot that is kept.
fn ended(keep: Keep) -> Outcome {
    match keep {
        Keep::Because(skip) => Outcome::Skipped(skip),
        Keep::Unasked { trouble, .. } if trouble.may_pass => left(&trouble.code),
        Keep::Unasked { trouble, .. } if is_gone(&trouble.code) => Outcome::Skipped(Skip::because(Reason::Gone)),
        Keep::Unasked { what, trouble } => {
            let message = format!("kept, because EC2 did not answer {what}: {}", trouble.message);
            Outcome::Failed { code: trouble.code, message }
        }
    }
}

/// Returns the outcome of a snapshot that a retry may handle.
fn left(code: &str) -> Outcome {
    let reason = if code == too_late().code { "deadline" } else { code };
    Outcome::Unfinished { reason: reason.to_owned() }
}

fn too_late() -> Error {
    TooLate.into()
}

fn failed(error: &Error) -> Outcome {
    Outcome::Failed { code: error.code.clone(), message: said(error) }
}

/// Returns EC2's sentence, and a hint where we have one.
fn said(error: &Error) -> String {
    let hint = match classify(error) {
        Class::Permission => {
            "; this needs the role of the function for snapshots, policy/snapshots-role.json; if this is that role, a tag or \
             another policy forbids it"
        }
        _ => "",
    };
    format!("{}{hint}", cut(&error.message).trim_end_matches('.'))
}

fn is_gone(code: &str) -> bool {
    code.starts_with("InvalidSnapshot") && code.ends_with("NotFound")
}

/// Looks at an account's snapshots in a region, and plans.
///
/// # Errors
/// EC2 did not list them.
pub(super) async fn plan(
    ec2: &AwsEc2,
    request: &Request,
    account: &str,
    work: Work,
    asking: &mut Asking,
) -> Result<Plan, Error> {
    let filters = Selection { tags: request.tags.clone(), ..Selection::default() }.tag_filters();
    let until = work.deadline;
    let found = patiently(until, || ec2.snapshots(&filters, until)).await?;
    let grace = work.grace_ends(request);
    let (mut plan, mut rest) = (Plan::default(), Vec::new());
    // Every run has its own order, so that it isn't always the same ones that have to wait for their turn.
    let lot = |snapshot: &Snapshot| {
        let mut hasher = DefaultHasher::new();
        (&snapshot.id, work.now).hash(&mut hasher);
        hasher.finish()
    };
    let mut found = found;
    found.sort_by_cached_key(lot);
    // Only the account's own, whatever EC2 shows. Where the host gives the function no ARN, its account is unknown.
    for snapshot in found.into_iter().filter(|it| &*it.owner == account || account == "unknown") {
        match kept_by_itself(request, &snapshot, work.as_of) {
            Some(skip) => plan.keep(snapshot, Keep::Because(skip), grace),
            None => rest.push(snapshot),
        }
    }
    if rest.is_empty() {
        return Ok(plan);
    }
    let mut staged = Vec::new();
    for group in around(ec2, rest, until).await {
        for (snapshot, around) in group {
            if let Some(keep) = around {
                plan.keep(snapshot, keep, grace);
                continue;
            }
            match stage(&snapshot, work.as_of) {
                Ok(stage) => staged.push((snapshot, stage)),
                // It is kept because of its mark, so the mark stays.
                Err(skip) => plan.kept.push(Settled::of(&snapshot, Outcome::Skipped(skip))),
            }
        }
    }
    let ids: Vec<SnapshotId> = staged.iter().map(|(snapshot, _)| snapshot.id.clone()).collect();
    let shared = asking.shared(ec2, &ids, until).await;
    for ((snapshot, stage), shared) in staged.into_iter().zip(shared) {
        match (kept_by_sharing(shared), stage) {
            (Some(keep), _) => plan.keep(snapshot, keep, grace),
            (None, Stage::First) => plan.mark.push(snapshot),
            (None, Stage::Due) => plan.delete.push(snapshot),
        }
    }
    Ok(plan)
}

/// Returns each snapshot with what keeps it, going by volumes, images, locks and fast restores; one group for each
/// call.
async fn around(ec2: &AwsEc2, snapshots: Vec<Snapshot>, until: Deadline) -> Vec<Vec<(Snapshot, Option<Keep>)>> {
    fn or_trouble<T>(answer: Result<T, Error>) -> Result<T, Trouble> {
        answer.map_err(|error| trouble(&error))
    }
    // Listed without ids, since a region has few of these: if the call named ids, a snapshot that is gone would fail
    // it.
    let locked = patiently(until, || ec2.locked_snapshots(until));
    let fast = patiently(until, || ec2.fast_restores(until));
    let by_group = async {
        let mut answers = Vec::new();
        for group in snapshots.chunks(MAX_FILTER_VALUES) {
            let volumes: BTreeSet<&str> = group.iter().map(|snapshot| &*snapshot.volume).collect();
            let volumes: Vec<String> = volumes.into_iter().map(str::to_owned).collect();
            let ids: Vec<String> = group.iter().map(|snapshot| snapshot.id.to_string()).collect();
            let volumes = patiently(until, || ec2.volumes(volumes.clone(), until));
            let images = patiently(until, || ec2.images(ids.clone(), until));
            answers.push(join(volumes, images).await);
        }
        answers
    };
    let (locked, fast, answers) = join3(locked, fast, by_group).await;
    let mut around = Surroundings {
        volumes: Ok(BTreeSet::new()),
        images: Ok(BTreeMap::new()),
        locked: or_trouble(locked),
        fast: or_trouble(fast),
    };
    let groups = snapshots.chunks(MAX_FILTER_VALUES).zip(answers).map(|(group, (volumes, images))| {
        (around.volumes, around.images) = (or_trouble(volumes), or_trouble(images));
        group.iter().map(|it| (it.clone(), kept_by_others(it, &around))).collect()
    });
    groups.collect()
}

/// Asks about snapshots one by one, at EC2's pace.
pub(super) struct Asking {
    pace: Pace,
    refusals: Refusals,
}

/// Counts refusals for lack of permission. Each may be due to its snapshot's tags and costs no other its turn; but after
/// [`REFUSALS`] of them, and no success, the call isn't tried any more.
#[derive(Default)]
struct Refusals {
    count: usize,
    accepted: bool,
    last: Option<(SnapshotId, String)>,
}

impl Refusals {
    fn count<T>(&mut self, id: &SnapshotId, answer: &Result<T, Error>) {
        match answer {
            Err(error) if classify(error) == Class::Permission => {
                self.count += 1;
                self.last = Some((id.clone(), error.code.clone()));
            }
            Err(_) => {}
            Ok(_) => self.accepted = true,
        }
    }

    /// Returns why the rest isn't tried.
    fn of_all(&self) -> Option<Trouble> {
        let (id, code) = self.last.as_ref().filter(|_| self.count >= REFUSALS && !self.accepted)?;
        let count = self.count;
        let message =
            format!("not tried: EC2 has refused {count} others and accepted none; the last was {id}, with {code}");
        Some(Trouble { code: NOT_TRIED.to_owned(), message, may_pass: false })
    }

    /// Returns the outcome of the rest that isn't tried.
    fn end(&self) -> Option<Outcome> {
        self.of_all().map(|Trouble { code, message, .. }| Outcome::Failed { code, message })
    }
}

impl Asking {
    pub(super) fn new() -> Self {
        Self { pace: Pace::new(LOOK_BUCKETS, Instant::now()), refusals: Refusals::default() }
    }

    /// Returns whether each snapshot is shared, in the order of the ids.
    async fn shared(&mut self, ec2: &AwsEc2, ids: &[SnapshotId], until: Deadline) -> Vec<Result<bool, Trouble>> {
        let mut all = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            if let Some(trouble) = self.refusals.of_all() {
                all.extend(some.iter().map(|_| Err(trouble.clone())));
                continue;
            }
            if wait_for_tokens(&mut self.pace, some.len(), until).await.is_err() {
                all.extend(some.iter().map(|_| Err(trouble(&too_late()))));
                continue;
            }
            let asked = some.iter().map(|id| patiently(until, move || ec2.is_shared(id, until)));
            for (id, answer) in some.iter().zip(join_all(asked).await) {
                self.refusals.count(id, &answer);
                heard(&mut self.pace, &answer);
                all.push(answer.map_err(|error| trouble(&error)));
            }
        }
        all
    }
}

/// Waits until EC2's token bucket allows this many calls, and takes their tokens.
async fn wait_for_tokens(pace: &mut Pace, calls: usize, until: Deadline) -> Result<(), TooLate> {
    for _ in 0..calls {
        loop {
            let wait = pace.wait(0, Instant::now());
            if wait.is_zero() {
                break;
            }
            until.pause(wait).await?;
        }
        pace.take(0, Instant::now());
    }
    Ok(())
}

/// Adjusts the pace to an answer.
fn heard<T>(pace: &mut Pace, answer: &Result<T, Error>) {
    match answer {
        Err(error) if classify(error) == Class::Throttled => pace.throttled(0, Instant::now()),
        _ => pace.accepted(),
    }
}

/// Carries out a plan. Returns what became of every snapshot in it, and the error that ended the run early, if any.
pub(super) async fn carry_out(
    ec2: &AwsEc2,
    request: &Request,
    plan: Plan,
    work: Work,
    asking: &mut Asking,
) -> (Vec<Settled>, Option<Error>) {
    let unmarking = Refusals::default();
    let mut hand = Hand { ec2, request, work, asking, unmarking, settled: plan.kept, fatal: None };
    for (snapshot, keep) in plan.unmark {
        hand.keep(&snapshot, keep).await;
    }
    hand.mark(plan.mark).await;
    hand.delete(plan.delete).await;
    hand.settled.sort_by(|one, other| one.id.cmp(&other.id));
    (hand.settled, hand.fatal)
}

/// A plan being carried out.
struct Hand<'a> {
    ec2: &'a AwsEc2,
    request: &'a Request,
    work: Work,
    asking: &'a mut Asking,
    /// Of DeleteTags.
    unmarking: Refusals,
    settled: Vec<Settled>,
    /// The error that ended the run: EC2 has ignored DryRun, so no more calls are made.
    fatal: Option<Error>,
}

/// A snapshot that is due for deletion.
struct Due {
    snapshot: Snapshot,
    /// Attempts that got no clear answer: EC2 may have deleted it.
    tries: u32,
}

/// What a look at a snapshot that is due has shown.
enum Looked {
    /// It may be deleted.
    Go,
    /// It stays.
    Kept(Keep),
    /// It stays because of its mark, or because that was deleted.
    Spared(Skip),
    /// EC2 doesn't show it any more.
    Gone,
}

impl Hand<'_> {
    fn settle(&mut self, snapshot: &Snapshot, outcome: Outcome) {
        self.settled.push(Settled::of(snapshot, outcome));
    }

    fn settle_all<'s>(&mut self, snapshots: impl IntoIterator<Item = &'s Snapshot>, outcome: &Outcome) {
        for snapshot in snapshots {
            self.settle(snapshot, outcome.clone());
        }
    }

    fn done(&self, change: Change) -> Outcome {
        match self.request.mode {
            Mode::Live => Outcome::Changed(change),
            Mode::DryRun => Outcome::WouldChange(change),
        }
    }

    /// Marks snapshots. A call that is refused because of some of them is retried in halves.
    async fn mark(&mut self, snapshots: Vec<Snapshot>) {
        let after = self.work.grace_ends(self.request);
        let (value, until, mode) = (rfc3339(after), self.work.deadline, self.request.mode);
        let mut groups: Vec<Vec<Snapshot>> = snapshots.chunks(MARKED_AT_ONCE).rev().map(<[_]>::to_vec).collect();
        let mut refusals = Refusals::default();
        while let Some(group) = groups.pop() {
            let end = if self.fatal.is_some() { Some(not_asked()) } else { refusals.end() };
            if let Some(end) = end {
                self.settle_all(&group, &end);
                continue;
            }
            let mut group = self.unmarked(group, &value).await;
            let ids: Vec<SnapshotId> = group.iter().map(|snapshot| snapshot.id.clone()).collect();
            let Some(first) = ids.first() else { continue };
            let ec2 = self.ec2;
            let answer = patiently(until, || ec2.mark_snapshots(&value, &ids, mode, until)).await;
            let Err(error) = &answer else {
                refusals.count(first, &answer);
                self.settle_all(&group, &self.done(Change::Mark { until: after }));
                continue;
            };
            if classify(error) == Class::Fatal {
                self.settle_all(&group, &failed(error));
                self.fatal = Some(error.clone());
            } else if may_pass(error) {
                self.settle_all(&group, &left(&error.code));
            } else if group.len() > 1 {
                let half = group.split_off(group.len() / 2);
                groups.extend([half, group]);
            } else if is_gone(&error.code) {
                self.settle_all(&group, &Outcome::skipped(Reason::Gone));
            } else {
                // The role's policy refuses what carries a mark: a person's, or ours if the first answer was lost.
                let group = self.unmarked(group, &value).await;
                if !group.is_empty() {
                    refusals.count(first, &answer);
                }
                self.settle_all(&group, &failed(error));
            }
        }
    }

    /// Looks at snapshots again, right before they are marked, so that nothing is written over a person's mark. Returns
    /// those that still have none, and settles the others.
    async fn unmarked(&mut self, group: Vec<Snapshot>, value: &str) -> Vec<Snapshot> {
        let (until, as_of) = (self.work.deadline, self.work.as_of);
        let ids = group.iter().map(|snapshot| snapshot.id.to_string()).collect();
        let filters = vec![("snapshot-id".to_owned(), ids)];
        let answer = patiently(until, || self.ec2.snapshots(&filters, until)).await;
        let mut shown: BTreeMap<SnapshotId, Snapshot> = match answer {
            Ok(shown) => shown.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect(),
            Err(error) => {
                self.settle_all(&group, &ended(unseen(&error)));
                return Vec::new();
            }
        };
        let marked = self.done(Change::Mark { until: self.work.grace_ends(self.request) });
        let mut free = Vec::new();
        for snapshot in group {
            let Some(snapshot) = shown.remove(&snapshot.id) else {
                self.settle(&snapshot, Outcome::skipped(Reason::Gone));
                continue;
            };
            if snapshot.mark() == Some(value) {
                self.settle(&snapshot, marked.clone());
                continue;
            }
            if let Some(skip) = kept_by_itself(self.request, &snapshot, as_of) {
                self.keep(&snapshot, Keep::Because(skip)).await;
                continue;
            }
            let overdue = match (stage(&snapshot, as_of), snapshot.mark()) {
                (Ok(Stage::First), None) => {
                    free.push(snapshot);
                    continue;
                }
                (Ok(Stage::First), Some(mark)) => mark.to_owned(),
                (Ok(Stage::Due), _) => {
                    let message = format!("{DELETE_AFTER_TAG} was written meanwhile; the next run goes by it");
                    self.settle(&snapshot, Outcome::Skipped(Skip::saying(Kept::Marked, message)));
                    continue;
                }
                (Err(skip), _) => {
                    self.settle(&snapshot, Outcome::Skipped(skip));
                    continue;
                }
            };
            match (self.take_off(&snapshot, &overdue, "not marked anew").await, self.request.mode) {
                (Ok(()), Mode::Live) => free.push(snapshot),
                // EC2 would refuse even to rehearse another mark where there is one.
                (Ok(()), Mode::DryRun) => self.settle(&snapshot, marked.clone()),
                (Err(end), _) => self.settle(&snapshot, end),
            }
        }
        free
    }

    /// Deletes a snapshot's mark where it still has this value; a dry run only asks whether EC2 would let it.
    ///
    /// # Errors
    /// What becomes of the snapshot instead; `what` says what else is known of it.
    async fn take_off(&mut self, snapshot: &Snapshot, mark: &str, what: &str) -> Result<(), Outcome> {
        let but = |why: &str| format!("{what}, and its {DELETE_AFTER_TAG} could not be deleted: {why}");
        if let Some(Trouble { code, message, .. }) = self.unmarking.of_all() {
            return Err(Outcome::Failed { code, message: but(&message) });
        }
        let (ec2, id, mode, until) = (self.ec2, &snapshot.id, self.request.mode, self.work.deadline);
        let value = if mode == Mode::DryRun { NO_MARK } else { mark };
        let ids = std::slice::from_ref(id);
        let answer = patiently(until, || ec2.unmark_snapshots(value, ids, mode, until)).await;
        self.unmarking.count(id, &answer);
        let Err(error) = answer else {
            if mode == Mode::Live {
                info!(id = id.as_str(), mark, "{id}: deleted {DELETE_AFTER_TAG} {mark}, {what}");
            }
            return Ok(());
        };
        if classify(&error) == Class::Fatal {
            self.fatal = Some(error.clone());
        }
        Err(match error {
            error if may_pass(&error) => left(&error.code),
            error if is_gone(&error.code) => Outcome::skipped(Reason::Gone),
            error => Outcome::Failed { message: but(&said(&error)), code: error.code },
        })
    }

    /// Keeps a snapshot. If something other than its mark keeps it, the mark is void and is deleted.
    async fn keep(&mut self, snapshot: &Snapshot, keep: Keep) {
        let mut outcome = ended(keep.clone());
        let void = snapshot.void_mark(self.work.grace_ends(self.request));
        if let (Keep::Because(skip), Some(mark), Mode::Live) = (&keep, void, self.request.mode) {
            // The role may not untag what has lost the managed tag.
            let is_ours = self.request.tags.all_match(&snapshot.tags);
            match self.take_off(snapshot, mark, &format!("kept, {}", skip.reason.as_str())).await {
                Err(end) if is_ours => outcome = end,
                Err(_) | Ok(()) => {}
            }
        }
        self.settle(snapshot, outcome);
    }

    /// Asks EC2, with DryRun, whether the marks of these could be deleted, and returns its refusals. If a mark can't be
    /// deleted, a snapshot that something has kept since it was marked still carries it, and nobody can tell.
    async fn stuck(&mut self, group: &[Due]) -> BTreeMap<SnapshotId, Outcome> {
        let (ec2, until) = (self.ec2, self.work.deadline);
        let mut stuck = BTreeMap::new();
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            let ids: Vec<SnapshotId> = group.iter().map(|due| due.snapshot.id.clone()).collect();
            let Some(first) = ids.first() else { continue };
            if let Some(end) = self.unmarking.end() {
                stuck.extend(ids.into_iter().map(|id| (id, end.clone())));
                continue;
            }
            let answer = patiently(until, || ec2.unmark_snapshots(NO_MARK, &ids, Mode::DryRun, until)).await;
            let Err(error) = &answer else {
                self.unmarking.count(first, &answer);
                continue;
            };
            match classify(error) {
                // Without a rehearsal to break, it was as good as allowed: no mark has this value.
                Class::Fatal if self.request.mode == Mode::Live => {}
                Class::Fatal => self.fatal = Some(error.clone()),
                _ if may_pass(error) => {
                    stuck.extend(ids.into_iter().map(|id| (id, left(&error.code))));
                }
                _ if group.len() > 1 => {
                    let (one, other) = group.split_at(group.len() / 2);
                    groups.extend([other, one]);
                }
                // The look tells.
                _ if is_gone(&error.code) => {}
                _ => {
                    self.unmarking.count(first, &answer);
                    let message = format!(
                        "kept, because its {DELETE_AFTER_TAG} could not be deleted if something came to keep it: {}",
                        said(error)
                    );
                    stuck.insert(first.clone(), Outcome::Failed { code: error.code.clone(), message });
                }
            }
        }
        stuck
    }

    /// Deletes what is due. Snapshots not tried yet come before those that got no clear answer.
    async fn delete(&mut self, snapshots: Vec<Snapshot>) {
        let until = self.work.deadline;
        let mut waiting: VecDeque<Due> = snapshots.into_iter().map(|snapshot| Due { snapshot, tries: 0 }).collect();
        let mut refusals = Refusals::default();
        let mut pace = Pace::new(DELETE_SNAPSHOT_BUCKETS, Instant::now());
        let mut at_once = LOOKED_AT_ONCE;
        while let Some(tries) = waiting.front().map(|due| due.tries) {
            let end = match (&self.fatal, refusals.end()) {
                (Some(_), _) => Some(not_asked()),
                (None, Some(end)) => Some(end),
                (None, None) if !until.allows_a_call() => Some(left(&too_late().code)),
                (None, None) => None,
            };
            if let Some(end) = end {
                self.settle_all(waiting.iter().map(|due| &due.snapshot), &end);
                return;
            }
            if tries > 0 {
                // If it is too late, the next look and deletion find out.
                let _ = until.pause(Duration::from_secs(1 << tries) / 2).await;
            }
            let mut group = Vec::new();
            while group.len() < at_once && waiting.front().is_some_and(|due| due.tries == tries) {
                group.extend(waiting.pop_front());
            }
            let mut stuck = self.stuck(&group).await;
            if self.fatal.is_some() {
                waiting.extend(group);
                continue;
            }
            let seen = Instant::now();
            let looked = self.look(&mut group).await;
            let mut going = VecDeque::new();
            for (due, looked) in group.into_iter().zip(looked) {
                match looked {
                    Looked::Go => match stuck.remove(&due.snapshot.id) {
                        Some(end) => self.settle(&due.snapshot, end),
                        None => going.push_back(due),
                    },
                    Looked::Spared(skip) => self.settle(&due.snapshot, Outcome::Skipped(skip)),
                    Looked::Kept(keep) => self.keep(&due.snapshot, keep).await,
                    // We have tried to delete it, and it is gone.
                    Looked::Gone if due.tries > 0 => self.settle(&due.snapshot, self.done(Change::Delete)),
                    Looked::Gone => self.settle(&due.snapshot, Outcome::skipped(Reason::Gone)),
                }
            }
            at_once = LOOKED_AT_ONCE;
            while !going.is_empty() {
                let some: Vec<Due> = going.drain(..going.len().min(AT_ONCE)).collect();
                let in_time = wait_for_tokens(&mut pace, some.len(), until).await;
                let is_old = seen.elapsed() > LOOK_LASTS;
                if in_time.is_err() || is_old || self.fatal.is_some() || refusals.of_all().is_some() {
                    // If a look has become too old before its turn, the next one is at a single snapshot, and at
                    // another.
                    at_once = if is_old { 1 } else { LOOKED_AT_ONCE };
                    for due in some.into_iter().chain(going.drain(..)) {
                        wait_again(&mut waiting, due);
                    }
                    break;
                }
                let (ec2, mode) = (self.ec2, self.request.mode);
                let answers = join_all(some.iter().map(|due| ec2.delete_snapshot(&due.snapshot.id, mode, until))).await;
                for (due, answer) in some.into_iter().zip(answers) {
                    refusals.count(&due.snapshot.id, &answer);
                    heard(&mut pace, &answer);
                    if let Some(again) = self.answered(due, answer).await {
                        wait_again(&mut waiting, again);
                    }
                }
            }
        }
    }

    /// Takes EC2's answer to a deletion; returns the snapshot if it is to be tried again.
    async fn answered(&mut self, due: Due, answer: Result<(), Error>) -> Option<Due> {
        let Due { snapshot, tries } = due;
        let Err(error) = answer else {
            self.settle(&snapshot, self.done(Change::Delete));
            return None;
        };
        let words = || cut(&error.message);
        let outcome = match classify(&error) {
            Class::Throttled => return Some(Due { snapshot, tries }),
            Class::Transient if tries + 1 < TRIES => return Some(Due { snapshot, tries: tries + 1 }),
            Class::Transient | Class::TooLate => left(&error.code),
            Class::Fatal => {
                self.fatal = Some(error.clone());
                failed(&error)
            }
            // An earlier attempt of ours, whose answer was lost, may have deleted it.
            _ if is_gone(&error.code) && tries > 0 => self.done(Change::Delete),
            _ if is_gone(&error.code) => Outcome::skipped(Reason::Gone),
            // "The snapshot … is currently in use by ami-…": an image made since the look, or one that EC2 doesn't
            // show.
            _ if error.code == "InvalidSnapshot.InUse" => {
                self.keep(&snapshot, Keep::Because(Skip::saying(Kept::Image, words()))).await;
                return None;
            }
            class if class != Class::Permission && is_about_a_lock(&error) => {
                self.keep(&snapshot, Keep::Because(Skip::saying(Kept::Locked, words()))).await;
                return None;
            }
            // The role's policy can't tell the time: it spares what carries an exemption, even one that is over.
            Class::Permission if snapshot.has_exemption() => {
                let message =
                    format!("{EXEMPT_TAG} is over, but EC2 refuses to delete what carries it; delete the tag");
                let skip = Skip { wants_attention: true, ..Skip::saying(Reason::Exempt, message) };
                self.keep(&snapshot, Keep::Because(skip)).await;
                return None;
            }
            _ => failed(&error),
        };
        self.settle(&snapshot, outcome);
        None
    }

    /// Looks at what is due, and at everything that may keep it; each is then known as the look has shown it.
    async fn look(&mut self, group: &mut [Due]) -> Vec<Looked> {
        let until = self.work.deadline;
        let ids: Vec<String> = group.iter().map(|due| due.snapshot.id.to_string()).collect();
        let by_id = ("snapshot-id".to_owned(), ids);
        // The filter by tag leaves out those without a mark, and makes EC2 show all tags.
        let filters = vec![by_id.clone(), ("tag-key".to_owned(), vec![DELETE_AFTER_TAG.to_owned()])];
        let shown = patiently(until, || self.ec2.snapshots(&filters, until)).await;
        let mut shown: BTreeMap<SnapshotId, Snapshot> = match shown {
            Ok(shown) => shown.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect(),
            Err(error) => return group.iter().map(|_| Looked::Kept(unseen(&error))).collect(),
        };
        // Those not shown are gone, or somebody has deleted their mark.
        let mut others = Ok(BTreeSet::new());
        if group.iter().any(|due| !shown.contains_key(&due.snapshot.id)) {
            let filters = vec![by_id];
            let all = patiently(until, || self.ec2.snapshots(&filters, until)).await;
            others = all.map(|all| all.into_iter().map(|snapshot| snapshot.id).collect());
        }
        let mut looked: BTreeMap<SnapshotId, Looked> = BTreeMap::new();
        let mut rest = Vec::new();
        for due in &mut *group {
            let id = due.snapshot.id.clone();
            let found = match (shown.remove(&id), &others) {
                (Some(snapshot), _) => {
                    due.snapshot = snapshot.clone();
                    match (kept_by_itself(self.request, &snapshot, self.work.as_of), stage(&snapshot, self.work.as_of))
                    {
                        (Some(skip), _) => Looked::Kept(Keep::Because(skip)),
                        (None, Err(skip)) => Looked::Spared(skip),
                        (None, Ok(Stage::First)) => Looked::Spared(Skip::saying(
                            Kept::Marked,
                            format!("{DELETE_AFTER_TAG} was written meanwhile; the next run goes by it"),
                        )),
                        (None, Ok(Stage::Due)) => {
                            rest.push(snapshot);
                            continue;
                        }
                    }
                }
                (None, Err(error)) => Looked::Kept(unseen(error)),
                (None, Ok(others)) if others.contains(&id) => {
                    let message = format!("its {DELETE_AFTER_TAG} was deleted");
                    Looked::Spared(Skip::saying(Reason::NotMarked, message))
                }
                (None, Ok(_)) => Looked::Gone,
            };
            looked.insert(id, found);
        }
        if !rest.is_empty() {
            let found: Vec<_> = around(self.ec2, rest, until).await.into_iter().flatten().collect();
            let free = found.iter().filter(|(_, keep)| keep.is_none()).map(|(it, _)| it.id.clone());
            let free: Vec<SnapshotId> = free.collect();
            let shared = self.asking.shared(self.ec2, &free, until).await;
            looked.extend(found.into_iter().filter_map(|(snapshot, keep)| Some((snapshot.id, Looked::Kept(keep?)))));
            let free = free.into_iter().zip(shared);
            looked.extend(free.map(|(id, shared)| (id, kept_by_sharing(shared).map_or(Looked::Go, Looked::Kept))));
        }
        let unknown = || Looked::Kept(Keep::Because(Skip::because(Kept::Unknown)));
        group.iter().map(|due| looked.remove(&due.snapshot.id).unwrap_or_else(unknown)).collect()
    }
}

/// Returns why one that could not be looked at is kept.
fn unseen(error: &Error) -> Keep {
    Keep::Unasked { what: "what state it is in", trouble: trouble(error) }
}

/// Puts a snapshot behind those that have been tried no more often.
fn wait_again(waiting: &mut VecDeque<Due>, again: Due) {
    let at = waiting.iter().position(|due| due.tries > again.tries).unwrap_or(waiting.len());
    waiting.insert(at, again);
}

/// Whether a refusal says that the snapshot is locked; EC2's code for that is undocumented.
fn is_about_a_lock(error: &Error) -> bool {
    let words = error.message.split(|c: char| !c.is_ascii_alphabetic());
    error.code.contains("Lock")
        || words.into_iter().any(|word| ["lock", "locked"].contains(&word.to_ascii_lowercase().as_str()))
}
