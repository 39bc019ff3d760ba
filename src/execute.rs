//! Carrying a plan out in one account and region, until the deadline.
//!
//! Knows EC2's ways; has no opinion on who should be switched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::ec2::{Ec2, Error};
use crate::instance::{Instance, InstanceId, State, StateReason};
use crate::plan::{Decision, Plan, Reason, Skip};
use crate::request::{Action, Mode, Request};

mod batch;
mod pace;
mod refusal;
mod verify;

pub use refusal::{Class, classify, may_pass};

use batch::{Group, Next, Work};
use pace::Pace;

/// Pause before a call is repeated that was throttled or got no answer; it grows each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// The first look at what was started: no instance is there sooner.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Looks grow apart up to this; most instances need 10 to 60 seconds.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// First pause before a group is tried again for which EC2 had no room; it grows each time.
const FIRST_SHORTAGE_PAUSE: Duration = Duration::from_secs(10);
/// The longest such pause.
const LONGEST_SHORTAGE_PAUSE: Duration = Duration::from_secs(120);

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "from and to are states")]
pub enum Outcome {
    /// EC2 said that it did.
    Changed { from: State, to: State },
    /// EC2 said that it would.
    WouldChange { from: State, to: State },
    /// Left alone.
    Skipped(Box<Skip>),
    /// EC2 said no.
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
        Self::Skipped(Skip::because(reason).into())
    }

    fn refused(error: &Error) -> Self {
        Self::Failed { code: error.code.clone(), message: error.message.clone() }
    }
}

/// What became of each instance of a plan: every one exactly once.
pub type Outcomes = BTreeMap<InstanceId, Outcome>;

/// Carries a plan out, and tells what became of every instance in it.
///
/// `seen` is when EC2 was asked for what the plan is of. The error is one of the whole account or region that stood in the
/// way.
pub async fn execute(
    ec2: &Ec2,
    request: &Request,
    as_of: DateTime<Utc>,
    plan: &Plan,
    seen: Instant,
) -> (Outcomes, Option<Error>) {
    let mut execution = Execution {
        ec2,
        request,
        as_of,
        known: BTreeMap::new(),
        outcomes: decided_already(plan),
        last_error: BTreeMap::new(),
        limited: BTreeMap::new(),
        doubted: BTreeSet::new(),
        wrongly_marked: Vec::new(),
        watched: BTreeMap::new(),
        set_aside: Vec::new(),
        pace: Pace::new(ec2.limits.of(request.action), Instant::now()),
        target_error: None,
    };
    let mut ready = Vec::new();
    for (instance, decision) in &plan.decided {
        let id = instance.id;
        execution.known.insert(id, Known::Planned(instance));
        match decision {
            Decision::Switch => ready.push(id),
            // What it is waiting for will not come in a dry run; the permission is the same.
            Decision::WaitThenSwitch if request.mode == Mode::DryRun => ready.push(id),
            Decision::WaitThenSwitch => execution.watch(&id, Why::ToSwitch),
            Decision::Follow => execution.watch(&id, Why::Followed),
            Decision::Skip(_) | Decision::Fail { .. } => {}
        }
    }
    let groups = execution.groups(ready, seen);
    execution.carry_out(groups).await;
    execution.finish()
}

/// Books what a plan settles by itself: what is left alone, and what can't be switched.
#[must_use]
pub fn decided_already(plan: &Plan) -> Outcomes {
    let decided = plan.decided.iter().filter_map(|(instance, decision)| {
        let outcome = match decision {
            Decision::Switch | Decision::WaitThenSwitch | Decision::Follow => return None,
            Decision::Skip(skip) => Outcome::Skipped(skip.clone()),
            Decision::Fail { code, message } => {
                Outcome::Failed { code: (*code).to_owned(), message: message.to_string() }
            }
        };
        Some((instance.id, outcome))
    });
    let absent = plan.absent.iter().map(|id| {
        let message = format!("EC2 knows no instance {id} here; is it another region's, or gone?");
        (*id, Outcome::Failed { code: "InvalidInstanceID.NotFound".to_owned(), message })
    });
    decided.chain(absent).collect()
}

/// A plan being carried out.
struct Execution<'a> {
    ec2: &'a Ec2,
    request: &'a Request,
    as_of: DateTime<Utc>,
    /// Each instance as EC2 showed it last, before it was switched.
    known: BTreeMap<InstanceId, Known<'a>>,
    outcomes: Outcomes,
    /// The code that stood in an instance's way last.
    last_error: BTreeMap<InstanceId, String>,
    /// Kinds of which the account may run no more, with EC2's words.
    limited: BTreeMap<(Arc<str>, bool), Error>,
    /// Refused, but perhaps carried out before.
    doubted: BTreeSet<InstanceId>,
    /// Refused, and carrying this run's mark.
    wrongly_marked: Vec<InstanceId>,
    watched: BTreeMap<InstanceId, Watched>,
    /// Groups for which EC2 had no room, to be tried again.
    set_aside: Vec<Group>,
    pace: Pace,
    /// What EC2 refuses to the account or in the region as a whole.
    target_error: Option<Error>,
}

/// An instance as it was planned, or as it was seen since.
enum Known<'a> {
    Planned(&'a Instance),
    Seen(Box<Instance>),
}

impl Deref for Known<'_> {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        match self {
            Self::Planned(instance) => instance,
            Self::Seen(instance) => instance,
        }
    }
}

/// Why an instance is looked at until it settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is on its way to where it can be switched.
    ToSwitch,
    /// EC2 accepted our start.
    Started,
    /// Somebody else's start was on its way, or an earlier attempt's.
    Followed,
}

struct Watched {
    why: Why,
    seen_pending: bool,
}

/// A moment that comes again and again, later each time.
struct Again {
    at: Instant,
    step: Duration,
    first: Duration,
    longest: Duration,
}

impl Again {
    fn after(first: Duration, longest: Duration) -> Self {
        Self { at: Instant::now(), step: first, first, longest }
    }

    /// Begins anew: after the first step.
    fn reset(&mut self) {
        (self.at, self.step) = (Instant::now() + self.first, self.first);
        self.grow();
    }

    fn again(&mut self) {
        self.at = Instant::now() + self.step;
        self.grow();
    }

    fn grow(&mut self) {
        self.step = (self.step * 3 / 2).min(self.longest);
    }
}

impl Execution<'_> {
    /// Does what is due next — a call, a look, another try where there was no room — until nothing is left, or the time
    /// is over. What waits for EC2's buckets keeps nobody from looking after what was started.
    async fn carry_out(&mut self, groups: Vec<Group>) {
        let mut work = Work::default();
        work.add(groups);
        let mut calls = Again::after(FIRST_PAUSE, LONGEST_PAUSE);
        let mut looks = Again::after(FIRST_LOOK, LONGEST_LOOK);
        let mut rooms = Again::after(FIRST_SHORTAGE_PAUSE, LONGEST_SHORTAGE_PAUSE);
        looks.reset();
        loop {
            let now = Instant::now();
            if self.request.mode == Mode::Live && self.pace.lacks(work.instances(), now) {
                work.let_others_go_first();
            }
            let call = work.next().map(|group| calls.at.max(now + self.pace.wait(self.touched(group), now)));
            let look = (!self.watched.is_empty()).then_some(looks.at);
            let room = (!self.set_aside.is_empty()).then_some(rooms.at);
            let Some(due) = [call, look, room].into_iter().flatten().min() else { break };
            if self.ec2.deadline.pause(due.saturating_duration_since(now)).await.is_err() {
                break;
            }
            if Instant::now() < due {
                // The time is over before it is due: one last look.
                work.add(self.look().await);
                break;
            }
            if look == Some(due) {
                work.add(self.look().await);
                looks.again();
            } else if room == Some(due) {
                work.add(std::mem::take(&mut self.set_aside));
            } else {
                let (watched, set_aside) = (self.watched.len(), self.set_aside.len());
                match self.step(&mut work).await {
                    Next::On => calls = Again::after(FIRST_PAUSE, LONGEST_PAUSE),
                    Next::Slowly => calls.again(),
                    Next::End => break,
                }
                if watched == 0 && !self.watched.is_empty() {
                    looks.reset();
                }
                if set_aside == 0 && !self.set_aside.is_empty() {
                    rooms.again();
                }
            }
            if work.next().is_none() {
                self.tidy().await;
            }
        }
        self.tidy().await;
    }

    fn settle(&mut self, id: InstanceId, outcome: Outcome) {
        self.outcomes.insert(id, outcome);
    }

    fn watch(&mut self, id: &InstanceId, why: Why) {
        // What stood in its way no longer does.
        self.last_error.remove(id);
        self.watched.insert(*id, Watched { why, seen_pending: why == Why::Followed });
    }

    /// Gives the state in which the action ends well.
    fn goal(&self) -> State {
        match self.request.action {
            Action::Stop { .. } => State::Stopping,
            Action::Start => State::Running,
        }
    }

    /// Closes the account: what has no outcome by now was not finished.
    fn finish(mut self) -> (Outcomes, Option<Error>) {
        for id in self.known.keys() {
            if !self.outcomes.contains_key(id) {
                let reason = self.last_error.get(id).map_or("deadline", String::as_str).to_owned();
                self.outcomes.insert(*id, Outcome::Unfinished { reason });
            }
        }
        (self.outcomes, self.target_error)
    }
}

/// Says why a start did not come to run, with what helps against the commonest cause.
fn failed_start(reason: Option<&StateReason>) -> Outcome {
    let Some(reason) = reason else {
        return Outcome::Failed {
            code: "NoStateReason".to_owned(),
            message: "EC2 accepted the start, but it did not come to run, and EC2 doesn't say why".to_owned(),
        };
    };
    let hint = match reason.code.as_str() {
        "Client.InternalError" => {
            ". Is its volume encrypted? Then the function's role needs kms:CreateGrant on the key"
        }
        _ => "",
    };
    Outcome::Failed {
        code: reason.code.clone(),
        message: format!("{}; EC2 accepted the start, but it did not come to run{hint}", reason.message),
    }
}
