//! Snapshots that nobody needs: every account × region, look → mark or delete.
//!
//! Two nights: the first run that finds a snapshot of a volume that is gone marks it, and a later one deletes what still
//! carries its mark, still qualifies and is due. [`rule`] decides which qualify; `act.rs` carries it out.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use crate::deadline::Deadline;
use crate::ec2::{Aws, AwsEc2, DRY_RUN_IGNORED, is_denied_by_organization};
use crate::outcome::{Reason, Skip, Trouble};
use crate::request::Mode;
use crate::request::snapshots::Request;
use crate::targets::{Home, accounts_once, all_passed_over, passed_over, trouble, ways};

mod act;
pub mod rule;

use act::{Asking, Plan, Work};
use rule::{Snapshot, SnapshotId};

/// What a run did, target by target.
#[derive(Debug)]
pub struct Run {
    /// Every account and region.
    pub targets: Vec<TargetRun>,
    /// The plan would have changed so many, more than `max_changes`, and was not carried out.
    pub too_many_changes: Option<usize>,
}

/// What became of one account and region.
#[derive(Debug)]
pub struct TargetRun {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// What became of each snapshot that matched: every one exactly once.
    pub settled: Vec<Settled>,
    /// Why the whole target could not be worked on.
    pub error: Option<Trouble>,
    /// Why it was skipped, if that is no error.
    pub note: Option<String>,
}

/// A snapshot, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which snapshot.
    pub id: SnapshotId,
    /// Its tag `Name`.
    pub name: Option<Box<str>>,
    /// The most bytes it can take up.
    pub bytes: u64,
    /// Whether it is in the archive.
    pub archived: bool,
    /// What became of it.
    pub outcome: Outcome,
}

impl Settled {
    fn of(snapshot: &Snapshot, outcome: Outcome) -> Self {
        Self {
            id: snapshot.id.clone(),
            name: snapshot.name().map(Into::into),
            bytes: snapshot.bytes,
            archived: snapshot.is_archived(),
            outcome,
        }
    }

    /// Returns its name, or its id if it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// EC2 did it.
    Changed(Change),
    /// EC2 would do it.
    WouldChange(Change),
    /// Kept.
    Skipped(Skip),
    /// EC2 refused the change, or a question that it depends on.
    Failed {
        /// EC2's code.
        code: String,
        /// EC2's sentence, and a hint where we have one.
        message: String,
    },
    /// Not done, or not known to be done; a retry may do it.
    Unfinished {
        /// `deadline`, or the code that stood in the way.
        reason: String,
    },
}

impl Outcome {
    fn skipped(reason: Reason) -> Self {
        Self::Skipped(Skip::because(reason))
    }
}

/// What is done to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is marked.
    Mark {
        /// The moment after which it may be deleted.
        until: DateTime<Utc>,
    },
    /// It is deleted.
    Delete,
}

/// An account and region, and how far the work in it has come.
struct Target {
    way: Option<AwsEc2>,
    plan: Plan,
    /// All questions about single snapshots draw from one bucket of EC2's.
    asking: Asking,
    denied: Option<crate::ec2::Error>,
    worked: TargetRun,
}

impl Target {
    /// Looks, and decides what to do.
    async fn planned(&mut self, request: &Request, work: Work, every_region: bool) {
        let Some(ec2) = &self.way else { return };
        match act::plan(ec2, request, &self.worked.account, work, &mut self.asking).await {
            Ok(plan) => self.plan = plan,
            // Whoever asks for every region means those that the organization allows.
            Err(error) if every_region && is_denied_by_organization(&error) => {
                self.worked.note = Some(passed_over(&error));
                self.denied = Some(error);
            }
            Err(error) => self.worked.error = Some(trouble(&error)),
        }
    }

    /// Does what is planned.
    async fn carried_out(&mut self, request: &Request, work: Work) {
        let plan = std::mem::take(&mut self.plan);
        let Some(ec2) = &self.way else { return };
        let (settled, error) = act::carry_out(ec2, request, plan, work, &mut self.asking).await;
        self.worked.settled = settled;
        self.worked.error = self.worked.error.take().or_else(|| error.as_ref().map(trouble));
    }

    fn has_ignored_dry_run(&self) -> bool {
        self.worked.error.as_ref().is_some_and(|error| error.code == DRY_RUN_IGNORED)
    }
}

/// Works on every target of the request; `tell` hears of each as soon as it is done.
pub async fn run(
    request: &Request,
    aws: &Aws,
    home: &Home,
    deadline: Deadline,
    as_of: DateTime<Utc>,
    now: DateTime<Utc>,
    tell: impl Fn(&TargetRun),
) -> Run {
    let planning = deadline.first_half();
    let accounts = accounts_once(&request.accounts, home);
    let opened = accounts.iter().map(|account| async {
        let id = account.id(home).to_owned();
        let ways = ways(account, &request.regions, &request.name, aws, home, planning).await;
        let target = |(region, way): (String, Result<AwsEc2, _>)| {
            let error = way.as_ref().err().map(trouble);
            let worked = TargetRun { account: id.clone(), region, settled: Vec::new(), error, note: None };
            Target { way: way.ok(), plan: Plan::default(), asking: Asking::new(), denied: None, worked }
        };
        ways.into_iter().map(target).collect::<Vec<_>>()
    });
    let mut targets: Vec<Target> = join_all(opened).await.into_iter().flatten().collect();
    let every_region = request.regions == crate::request::Regions::All;
    let work = Work { as_of, now, deadline: planning };
    join_all(targets.iter_mut().map(|target| target.planned(request, work, every_region))).await;
    if all_passed_over(targets.iter().map(|target| target.denied.as_ref())) {
        for target in &mut targets {
            target.worked.note = None;
            target.worked.error = target.denied.take().as_ref().map(trouble);
        }
    }

    let changes: usize = targets.iter().map(|target| target.plan.changes()).sum();
    let too_many_changes = request.max_changes.filter(|max| changes as u64 > *max).map(|_| changes);
    let work = Work { deadline, ..work };
    // An EC2 that ignores DryRun shows itself in one target, before the others are asked.
    let first = match request.mode {
        Mode::Live => 0,
        Mode::DryRun => targets.iter().position(|target| target.plan.changes() > 0).map_or(0, |first| first + 1),
    };
    let (one_by_one, at_once) = targets.split_at_mut(if too_many_changes.is_some() { 0 } else { first });
    let mut halted = false;
    for target in one_by_one {
        target.carried_out(request, work).await;
        halted |= target.has_ignored_dry_run();
        tell(&target.worked);
    }
    join_all(at_once.iter_mut().map(|target| {
        let tell = &tell;
        async move {
            if too_many_changes.is_some() {
                let end = Outcome::Unfinished { reason: "too_many_changes".to_owned() };
                target.plan = std::mem::take(&mut target.plan).held_back(&end);
            } else if halted {
                target.plan = std::mem::take(&mut target.plan).held_back(&act::not_asked());
            }
            target.carried_out(request, work).await;
            tell(&target.worked);
        }
    }))
    .await;
    Run { targets: targets.into_iter().map(|target| target.worked).collect(), too_many_changes }
}
