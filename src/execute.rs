//! Carrying a plan out in one account and region, until the deadline.
//!
//! Knows EC2's ways; has no opinion on who should be switched.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::ec2::{Ec2, Error};
use crate::instance::{Instance, InstanceId, State, StateReason};
use crate::plan::{Decision, Plan, Skip};
use crate::request::{Action, Mode, Request};

mod batch;
mod refusal;
mod verify;

pub use refusal::{Class, classify, may_pass};

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "from and to are states")]
pub enum Outcome {
    /// EC2 said that it did.
    Changed { from: State, to: State },
    /// EC2 said that it would.
    WouldChange { from: State, to: State },
    /// Left alone.
    Skipped(Skip),
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
    fn refused(error: &Error) -> Self {
        Self::Failed { code: error.code.clone(), message: error.message.clone() }
    }
}

/// What became of each instance of a plan: every one exactly once.
pub type Outcomes = BTreeMap<InstanceId, Outcome>;

/// Carries a plan out, and tells what became of every instance in it.
///
/// The error is one of the whole account or region that stood in the way.
pub async fn execute(ec2: &Ec2, request: &Request, as_of: DateTime<Utc>, plan: &Plan) -> (Outcomes, Option<Error>) {
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
        target_error: None,
    };
    let mut ready = Vec::new();
    for (instance, decision) in &plan.decided {
        let id = instance.id.clone();
        execution.known.insert(id.clone(), instance.clone());
        match decision {
            Decision::Switch => ready.push(id),
            // What it is waiting for will not come in a dry run; the permission is the same.
            Decision::WaitThenSwitch if request.mode == Mode::DryRun => ready.push(id),
            Decision::WaitThenSwitch => execution.watch(&id, Why::ToSwitch),
            Decision::Follow => execution.watch(&id, Why::Followed),
            Decision::Skip(_) | Decision::Fail { .. } => {}
        }
    }
    execution.switch(ready).await;
    execution.verify().await;
    execution.finish()
}

/// Books what a plan settles by itself: what is left alone, and what can't be switched.
#[must_use]
pub fn decided_already(plan: &Plan) -> Outcomes {
    let decided = plan.decided.iter().filter_map(|(instance, decision)| {
        let outcome = match decision {
            Decision::Switch | Decision::WaitThenSwitch | Decision::Follow => return None,
            Decision::Skip(skip) => Outcome::Skipped(skip.clone()),
            Decision::Fail { code, message } => Outcome::Failed { code: (*code).to_owned(), message: message.clone() },
        };
        Some((instance.id.clone(), outcome))
    });
    let absent = plan.absent.iter().map(|id| {
        let message = format!("EC2 knows no instance {id} here; is it another region's, or gone?");
        (id.clone(), Outcome::Failed { code: "InvalidInstanceID.NotFound".to_owned(), message })
    });
    decided.chain(absent).collect()
}

/// A plan being carried out.
struct Execution<'a> {
    ec2: &'a Ec2,
    request: &'a Request,
    as_of: DateTime<Utc>,
    /// Each instance as EC2 showed it last, before it was switched.
    known: BTreeMap<InstanceId, Instance>,
    outcomes: Outcomes,
    /// The code that stood in an instance's way last.
    last_error: BTreeMap<InstanceId, String>,
    /// Kinds of which the account may run no more, with EC2's words.
    limited: BTreeMap<(String, bool), Error>,
    /// Refused, but perhaps carried out before.
    doubted: BTreeSet<InstanceId>,
    /// Refused, and carrying this run's mark.
    wrongly_marked: Vec<InstanceId>,
    watched: BTreeMap<InstanceId, Watched>,
    /// Groups for which EC2 had no room, to be tried again.
    set_aside: Vec<batch::Group>,
    /// What EC2 refuses to the account or in the region as a whole.
    target_error: Option<Error>,
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

impl Execution<'_> {
    fn settle(&mut self, id: InstanceId, outcome: Outcome) {
        self.outcomes.insert(id, outcome);
    }

    fn watch(&mut self, id: &InstanceId, why: Why) {
        // What stood in its way no longer does.
        self.last_error.remove(id);
        self.watched.insert(id.clone(), Watched { why, seen_pending: why == Why::Followed });
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
                self.outcomes.insert(id.clone(), Outcome::Unfinished { reason });
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
