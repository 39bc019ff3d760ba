//! The snapshots of one account and region: look, decide by the rule, and carry it out, until the deadline.
//!
//! Nothing is deleted by an old look. Right before its deletion a snapshot is looked at again, with everything that may
//! keep it; if EC2 doesn't answer one of these questions, it is kept. One that then has to wait too long for EC2's rate
//! limit is looked at once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::future::{join, join_all};
use tokio::time::Instant;
use tracing::warn;

use super::rule::{
    DELETE_AFTER_TAG, Keep, Snapshot, SnapshotId, Stage, Surroundings, kept_by_itself, kept_by_others, kept_by_sharing,
    stage,
};
use super::{Change, Outcome, Settled};
use crate::deadline::{Deadline, TooLate};
use crate::ec2::{AwsEc2, Class, DELETE_SNAPSHOT_BUCKETS, DRY_RUN_IGNORED, Error, LOOK_BUCKETS, classify, may_pass};
use crate::engine::LOOK_LASTS;
use crate::engine::pace::Pace;
use crate::instance::rfc3339;
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
/// After this many refusals for lack of permission nothing more is tried, unless a call was accepted.
const REFUSALS: usize = 6;
/// The bound on twice the pause before a retry of what got no clear answer; within [`TRIES`] it isn't reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

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

/// The plan for the selected snapshots: each is in it exactly once.
#[derive(Debug, Default)]
pub(super) struct Plan {
    kept: Vec<Settled>,
    mark: Vec<Snapshot>,
    delete: Vec<Snapshot>,
    /// Marks to delete, with their values: once nothing keeps the snapshot any more, its days of grace begin anew.
    unmark: Vec<(SnapshotId, Box<str>)>,
}

impl Plan {
    /// Counts the snapshots that it would change.
    pub(super) fn changes(&self) -> usize {
        self.mark.len() + self.delete.len()
    }

    /// Settles a plan that is not carried out: what it would have changed gets this outcome.
    pub(super) fn not_carried_out(self, end: &Outcome) -> Vec<Settled> {
        let changes = self.mark.iter().chain(&self.delete).map(|snapshot| Settled::of(snapshot, end.clone()));
        let changes: Vec<_> = changes.collect();
        self.kept.into_iter().chain(changes).collect()
    }

    /// Keeps a snapshot; its mark, if it has one, is to be deleted.
    fn keep(&mut self, snapshot: &Snapshot, keep: Keep) {
        if let (Keep::Because(_), Some(mark)) = (&keep, snapshot.mark()) {
            self.unmark.push((snapshot.id.clone(), mark.into()));
        }
        self.kept.push(Settled::of(snapshot, ended(keep)));
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
    let hint = match classify(error) {
        Class::Permission => "; this needs the role of the function for snapshots, policy/snapshots-role.json",
        _ => "",
    };
    let said = cut(&error.message);
    Outcome::Failed { code: error.code.clone(), message: format!("{}{hint}", said.trim_end_matches('.')) }
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
    let (mut plan, mut rest) = (Plan::default(), Vec::new());
    // Only the account's own, whatever EC2 shows. Where the host gives the function no ARN, its account is unknown.
    for snapshot in found.into_iter().filter(|it| &*it.owner == account || account == "unknown") {
        match kept_by_itself(request, &snapshot, work.as_of) {
            Some(skip) => plan.keep(&snapshot, Keep::Because(skip)),
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
                plan.keep(&snapshot, keep);
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
            (Some(keep), _) => plan.keep(&snapshot, keep),
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
    let (locked, fast) = join(locked, fast).await;
    let mut around = Surroundings {
        volumes: Ok(BTreeSet::new()),
        images: Ok(BTreeMap::new()),
        locked: or_trouble(locked),
        fast: or_trouble(fast),
    };
    let mut groups = Vec::new();
    for group in snapshots.chunks(MAX_FILTER_VALUES) {
        let volumes: BTreeSet<&str> = group.iter().map(|snapshot| &*snapshot.volume).collect();
        let volumes: Vec<String> = volumes.into_iter().map(str::to_owned).collect();
        let ids: Vec<String> = group.iter().map(|snapshot| snapshot.id.to_string()).collect();
        let volumes = patiently(until, || ec2.volumes(volumes.clone(), until));
        let images = patiently(until, || ec2.images(ids.clone(), until));
        let (volumes, images) = join(volumes, images).await;
        (around.volumes, around.images) = (or_trouble(volumes), or_trouble(images));
        groups.push(group.iter().map(|it| (it.clone(), kept_by_others(it, &around))).collect());
    }
    groups
}

/// Asks about snapshots one by one, at EC2's pace.
pub(super) struct Asking {
    pace: Pace,
    refusals: Refusals,
}

/// Counts refusals for lack of permission: after [`REFUSALS`] of them, the call isn't tried any more.
#[derive(Default)]
struct Refusals {
    count: usize,
    accepted: bool,
    last: Option<Error>,
}

impl Refusals {
    fn count<T>(&mut self, answer: &Result<T, Error>) {
        match answer {
            Err(error) if classify(error) == Class::Permission => {
                self.count += 1;
                self.last = Some(error.clone());
            }
            Err(_) => {}
            Ok(_) => self.accepted = true,
        }
    }

    /// Returns the refusal that all further calls would get, too.
    fn of_all(&self) -> Option<&Error> {
        self.last.as_ref().filter(|_| self.count >= REFUSALS && !self.accepted)
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
            if let Some(error) = self.refusals.of_all() {
                all.extend(some.iter().map(|_| Err(trouble(error))));
                continue;
            }
            if wait_for_tokens(&mut self.pace, some.len(), until).await.is_err() {
                all.extend(some.iter().map(|_| Err(trouble(&too_late()))));
                continue;
            }
            let asked = some.iter().map(|id| patiently(until, move || ec2.is_shared(id, until)));
            for answer in join_all(asked).await {
                self.refusals.count(&answer);
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
    let mut hand = Hand { ec2, request, work, asking, settled: plan.kept, fatal: None };
    hand.mark(plan.mark).await;
    hand.unmark(plan.unmark).await;
    hand.delete(plan.delete).await;
    (hand.settled, hand.fatal)
}

/// A plan being carried out.
struct Hand<'a> {
    ec2: &'a AwsEc2,
    request: &'a Request,
    work: Work,
    asking: &'a mut Asking,
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
        let after = self.work.now.checked_add_signed(self.request.grace).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let after = after.trunc_subsecs(0);
        let (value, until, mode) = (rfc3339(after), self.work.deadline, self.request.mode);
        let mut groups: Vec<Vec<Snapshot>> = snapshots.chunks(MARKED_AT_ONCE).rev().map(<[_]>::to_vec).collect();
        let mut refusals = Refusals::default();
        while let Some(mut group) = groups.pop() {
            if self.fatal.is_some() {
                self.settle_all(&group, &not_asked());
                continue;
            }
            if let Some(error) = refusals.of_all() {
                self.settle_all(&group, &failed(error));
                continue;
            }
            let ids: Vec<SnapshotId> = group.iter().map(|snapshot| snapshot.id.clone()).collect();
            let ec2 = self.ec2;
            let answer = patiently(until, || ec2.mark_snapshots(&value, &ids, mode, until)).await;
            let Err(error) = &answer else {
                refusals.count(&answer);
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
                refusals.count(&answer);
                self.settle_all(&group, &failed(error));
            }
        }
    }

    /// Deletes marks. The next run retries what fails; until then the rule still keeps the snapshot.
    async fn unmark(&mut self, marks: Vec<(SnapshotId, Box<str>)>) {
        if self.request.mode == Mode::DryRun {
            return;
        }
        let mut failures = 0;
        for (id, value) in marks {
            if failures == REFUSALS {
                break;
            }
            if let Err(error) = self.ec2.unmark_snapshot(&id, &value, self.work.deadline).await {
                failures += 1;
                let said = cut(&error.message);
                warn!(id = id.as_str(), code = error.code, error = said, "{id}: could not delete {DELETE_AFTER_TAG}");
            }
        }
    }

    /// Deletes what is due. Snapshots not tried yet come before those that got no clear answer.
    async fn delete(&mut self, snapshots: Vec<Snapshot>) {
        let until = self.work.deadline;
        if let (Mode::DryRun, Some(first)) = (self.request.mode, snapshots.first().filter(|_| self.fatal.is_none())) {
            // Whether EC2 ignores DryRun is tried where it does no harm: by writing a mark that is already there.
            let mark = first.mark().unwrap_or_default().to_owned();
            let answer = self.ec2.mark_snapshots(&mark, std::slice::from_ref(&first.id), Mode::DryRun, until).await;
            self.fatal = answer.err().filter(|error| classify(error) == Class::Fatal);
        }
        let mut waiting: VecDeque<Due> = snapshots.into_iter().map(|snapshot| Due { snapshot, tries: 0 }).collect();
        let mut refusals = Refusals::default();
        let mut pace = Pace::new(DELETE_SNAPSHOT_BUCKETS, Instant::now());
        let mut at_once = LOOKED_AT_ONCE;
        while let Some(tries) = waiting.front().map(|due| due.tries) {
            let end = match (&self.fatal, refusals.of_all()) {
                (Some(_), _) => Some(not_asked()),
                (None, Some(error)) => Some(failed(error)),
                (None, None) if !until.allows_a_call() => Some(left(&too_late().code)),
                (None, None) => None,
            };
            if let Some(end) = end {
                self.settle_all(waiting.iter().map(|due| &due.snapshot), &end);
                return;
            }
            if tries > 0 {
                // If it is too late, the next look and deletion find out.
                let _ = until.pause(Duration::from_secs(1 << tries.min(10)).min(LONGEST_PAUSE) / 2).await;
            }
            let mut group = Vec::new();
            while group.len() < at_once && waiting.front().is_some_and(|due| due.tries == tries) {
                group.extend(waiting.pop_front());
            }
            let seen = Instant::now();
            let looked = self.look(&group).await;
            let mut going = VecDeque::new();
            for (due, looked) in group.into_iter().zip(looked) {
                match looked {
                    Looked::Go => going.push_back(due),
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
                    // If a look has become too old before its turn, the next one is at a single snapshot.
                    at_once = if is_old { 1 } else { LOOKED_AT_ONCE };
                    for due in some.into_iter().chain(going.drain(..)).rev() {
                        waiting.push_front(due);
                    }
                    break;
                }
                let (ec2, mode) = (self.ec2, self.request.mode);
                let answers = join_all(some.iter().map(|due| ec2.delete_snapshot(&due.snapshot.id, mode, until))).await;
                for (due, answer) in some.into_iter().zip(answers) {
                    refusals.count(&answer);
                    heard(&mut pace, &answer);
                    if let Some(again) = self.answered(due, answer).await {
                        let at = waiting.iter().position(|due| due.tries > again.tries).unwrap_or(waiting.len());
                        waiting.insert(at, again);
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
            _ if error.code.contains("Lock") => {
                self.keep(&snapshot, Keep::Because(Skip::saying(Kept::Locked, words()))).await;
                return None;
            }
            _ => failed(&error),
        };
        self.settle(&snapshot, outcome);
        None
    }

    /// Keeps one that was due. Its mark is deleted, unless the mark is what keeps it or EC2 couldn't be asked.
    async fn keep(&mut self, snapshot: &Snapshot, keep: Keep) {
        let stays = match &keep {
            Keep::Because(skip) => {
                matches!(skip.reason, Reason::Kept(Kept::Marked | Kept::Unknown) | Reason::NotMarked)
            }
            Keep::Unasked { .. } => true,
        };
        if let (false, Some(mark)) = (stays, snapshot.mark()) {
            self.unmark(vec![(snapshot.id.clone(), mark.into())]).await;
        }
        self.settle(snapshot, ended(keep));
    }

    /// Looks at what is due, and at everything that may keep it.
    async fn look(&mut self, group: &[Due]) -> Vec<Looked> {
        let until = self.work.deadline;
        let ids = || group.iter().map(|due| due.snapshot.id.to_string()).collect::<Vec<_>>();
        // The filter by tag leaves out those without a mark, and makes EC2 show all tags.
        let filters =
            vec![("snapshot-id".to_owned(), ids()), ("tag-key".to_owned(), vec![DELETE_AFTER_TAG.to_owned()])];
        let shown = patiently(until, || self.ec2.snapshots(&filters, until)).await;
        let mut shown: BTreeMap<SnapshotId, Snapshot> = match shown {
            Ok(shown) => shown.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect(),
            Err(error) => return group.iter().map(|_| unseen(&error)).collect(),
        };
        // Those not shown are gone, or somebody has deleted their mark.
        let mut others = Ok(BTreeSet::new());
        if group.iter().any(|due| !shown.contains_key(&due.snapshot.id)) {
            let filters = vec![("snapshot-id".to_owned(), ids())];
            let all = patiently(until, || self.ec2.snapshots(&filters, until)).await;
            others = all.map(|all| all.into_iter().map(|snapshot| snapshot.id).collect());
        }
        let mut looked: BTreeMap<SnapshotId, Looked> = BTreeMap::new();
        let mut rest = Vec::new();
        for due in group {
            let id = &due.snapshot.id;
            let found = match (shown.remove(id), &others) {
                (Some(snapshot), _) => {
                    match kept_by_itself(self.request, &snapshot, self.work.as_of)
                        .or_else(|| stage(&snapshot, self.work.as_of).err())
                    {
                        Some(skip) => Looked::Kept(Keep::Because(skip)),
                        None => {
                            rest.push(snapshot);
                            continue;
                        }
                    }
                }
                (None, Err(error)) => unseen(error),
                (None, Ok(others)) if others.contains(id) => {
                    let message = format!("its {DELETE_AFTER_TAG} was deleted");
                    Looked::Kept(Keep::Because(Skip::saying(Reason::NotMarked, message)))
                }
                (None, Ok(_)) => Looked::Gone,
            };
            looked.insert(id.clone(), found);
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

/// Returns the result for one that could not be looked at: it is kept.
fn unseen(error: &Error) -> Looked {
    Looked::Kept(Keep::Unasked { what: "what state it is in", trouble: trouble(error) })
}
