//! Pure: a decision, with its reason, for each instance.
//!
//! Knows the request and what EC2 showed; must not act, call EC2, or read the clock.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::instance::{EXEMPT_TAG, Exemption, Instance, InstanceId, Mark, RootDevice, Run, State, Tags};
use crate::outcome::{Outcome, Reason, Settled, Skip};
use crate::request::{Action, Mode, Request};
use crate::select::TagPatterns;

mod reconcile;

/// How old a mark may be for an instance whose start has failed since to still be ours.
const LONGEST_ABSENCE: TimeDelta = TimeDelta::days(31);
/// If a running instance carries a valid mark older than this, no stop is under way: a stop may come an hour late, and
/// runs for up to a quarter of an hour.
pub const LONGEST_STOP: TimeDelta = TimeDelta::hours(2);

/// The moment that a run stands for, its scheduled time or when it began, and the run, if one decides: it goes on with what
/// it has begun itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The moment.
    pub at: DateTime<Utc>,
    /// The run.
    pub run: Option<Run>,
}

impl From<DateTime<Utc>> for AsOf {
    fn from(at: DateTime<Utc>) -> Self {
        Self { at, run: None }
    }
}

/// The decision about each selected instance, each exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The instances that EC2 knows, with the decision about each.
    pub decided: Vec<(Instance, Decision)>,
    /// The instances named by id that EC2 doesn't know.
    pub absent: Vec<InstanceId>,
    /// Marks to delete from running instances, whatever else is decided about them.
    pub stale: Vec<(InstanceId, Mark)>,
}

impl Plan {
    /// Returns how many instances it matches.
    #[must_use]
    pub fn matched(&self) -> usize {
        self.decided.len() + self.absent.len()
    }

    /// Returns how many instances it would change.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.decided.iter().filter(|(_, decision)| decision.changes()).count()
    }

    /// Settles a plan that is only shown: with what it would change, or with `end` in its place.
    #[must_use]
    pub fn previewed(self, end: Option<&Outcome>) -> Vec<Settled> {
        let decided = self.decided.into_iter().map(|(instance, decision)| {
            let task = decision.task();
            let would_change = |task: Task| {
                let to = if task.step == Step::Start { State::Running } else { State::Stopping };
                end.cloned().unwrap_or_else(|| Outcome::WouldChange { from: instance.state.clone(), to })
            };
            let on_its_way = || Outcome::skipped(Reason::AlreadyDone);
            let settled = decision.settled().or_else(|| task.map(would_change)).unwrap_or_else(on_its_way);
            Settled::of(&instance, task, settled)
        });
        decided.chain(self.absent.into_iter().map(absent)).collect()
    }

    /// Returns the plan as if no earlier tick had reported anything.
    #[must_use]
    pub fn told_anew(mut self) -> Self {
        for (_, decision) in &mut self.decided {
            match decision {
                Decision::Do(task) | Decision::Await(task) => task.quiet = false,
                Decision::Leave(skip) => skip.quiet = false,
                Decision::Follow | Decision::Mark | Decision::Unmark(_) | Decision::Refuse { .. } => {}
            }
        }
        self
    }

    /// Settles a plan that is not carried out: this is the outcome of what it would have changed.
    #[must_use]
    pub fn not_carried_out(self, end: &Outcome) -> Vec<Settled> {
        let decided = self.decided.into_iter().map(|(instance, decision)| {
            let task = decision.task();
            Settled::of(&instance, task, decision.settled().unwrap_or_else(|| end.clone()))
        });
        decided.chain(self.absent.into_iter().map(absent)).collect()
    }
}

/// Settles an instance that was named by its id and that EC2 doesn't know.
#[must_use]
pub fn absent(id: InstanceId) -> Settled {
    let message = format!("EC2 knows no instance {id} here; is it in another region, or gone?");
    let outcome = Outcome::Failed { code: "InvalidInstanceID.NotFound".into(), message: message.into() };
    Settled { id, name: None, task: None, outcome }
}

/// What to do to one instance, whatever the request's action is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Stop it.
    Stop {
        /// Save its memory to the root volume first.
        hibernate: bool,
    },
    /// Start it.
    Start,
}

/// A step, and whether it is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What to do.
    pub step: Step,
    /// For a stop: mark it first; without a mark, no stop. For a start: its mark says that it is ours, and is renewed if the
    /// start fails.
    pub remembered: bool,
    /// An earlier dry run has reported it, and nothing has happened since.
    pub quiet: bool,
}

/// What to do about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Stop or start it.
    Do(Task),
    /// It is changing to a state in which that is possible: wait, then decide again.
    Await(Task),
    /// It is being started already: see whether it runs.
    Follow,
    /// It is in the right state; mark it, so that it is started when its hours open.
    Mark,
    /// It is in the right state; delete this mark.
    Unmark(Mark),
    /// Leave it alone.
    Leave(Box<Skip>),
    /// It can't be switched, or not yet again.
    Refuse {
        /// EC2's code, or the one that it would return.
        code: Box<str>,
        /// The sentence for people.
        message: Box<str>,
    },
}

impl Decision {
    fn leave(reason: Reason) -> Self {
        Self::Leave(Skip::because(reason).into())
    }

    /// Returns the outcome of an instance, if nothing is left to do.
    #[must_use]
    pub fn settled(&self) -> Option<Outcome> {
        match self {
            Self::Do(_) | Self::Await(_) | Self::Follow => None,
            Self::Mark | Self::Unmark(_) => Some(Outcome::skipped(Reason::AsScheduled)),
            Self::Leave(skip) => Some(Outcome::Skipped(skip.clone())),
            Self::Refuse { code, message } => Some(Outcome::Failed { code: code.clone(), message: message.clone() }),
        }
    }

    /// Returns what to do to an instance, now or later.
    #[must_use]
    pub fn task(&self) -> Option<Task> {
        match self {
            Self::Do(task) | Self::Await(task) => Some(*task),
            Self::Follow | Self::Mark | Self::Unmark(_) | Self::Leave(_) | Self::Refuse { .. } => None,
        }
    }

    fn changes(&self) -> bool {
        self.task().is_some()
    }
}

/// Returns the states in which the action's work begins; EC2 is asked for these.
///
/// Changing states are included: an instance that is just starting must not escape the stop.
#[must_use]
pub fn states(action: Action) -> &'static [State] {
    match action {
        Action::Stop { .. } => &[State::Pending, State::Running],
        Action::Start => &[State::Stopped, State::Stopping, State::Pending],
        Action::Reconcile { .. } => &[State::Pending, State::Running, State::Stopping, State::Stopped],
    }
}

/// Decides about every instance that the request selects.
#[must_use]
pub fn plan(request: &Request, instances: Vec<Instance>, as_of: impl Into<AsOf>) -> Plan {
    let as_of = as_of.into();
    plan_of(request, instances.into_iter().filter_map(|instance| consider(request, instance, as_of)).collect())
}

/// Decides about an instance that EC2 showed, if the request selects it.
#[must_use]
pub fn consider(request: &Request, instance: Instance, as_of: impl Into<AsOf>) -> Option<(Instance, Decision)> {
    // EC2 has filtered already. It is done again here, so that nothing between us and EC2 can widen a selection.
    let selected = is_selected(request, &instance)
        && (request.selection.ids_alone()
            || states(request.action).contains(&instance.state)
            || matches!(instance.state, State::Unknown(_)));
    selected.then(|| {
        let decision = decide(request, &instance, as_of);
        (instance, decision)
    })
}

/// Builds a plan of the decisions, each instance once.
#[must_use]
pub fn plan_of(request: &Request, mut decided: Vec<(Instance, Decision)>) -> Plan {
    let mut seen = BTreeSet::new();
    // A page may repeat instances of the previous one.
    decided.retain(|(instance, _)| seen.insert(instance.id));
    let absent = match request.selection.ids_alone() {
        true => request.selection.ids.difference(&seen).cloned().collect(),
        false => Vec::new(),
    };
    Plan { decided, absent, stale: Vec::new() }
}

/// Whether the request selects an instance, by its tags and its id; only EC2 can judge other filters.
#[must_use]
pub fn is_selected(request: &Request, instance: &Instance) -> bool {
    let selection = &request.selection;
    // A request that selects by ids alone hears about each of them.
    let has_hours =
        || !request.is_about_hours() || selection.ids_alone() || instance.tags.contains_key(&request.hours_tag);
    selection.tags.all_match(&instance.tags)
        && (selection.ids.is_empty() || selection.ids.contains(&instance.id))
        && has_hours()
}

/// Decides again about a selected instance, as EC2 shows it now.
#[must_use]
pub fn decide_again(request: &Request, instance: &Instance, as_of: impl Into<AsOf>) -> Decision {
    match is_selected(request, instance) {
        true => decide(request, instance, as_of),
        false => {
            Decision::Leave(Skip::saying(Reason::Exempt, "its tags no longer match the request".to_owned()).into())
        }
    }
}

/// Decides about one instance, as EC2 last showed it.
#[must_use]
pub fn decide(request: &Request, instance: &Instance, as_of: impl Into<AsOf>) -> Decision {
    let AsOf { at: as_of, run } = as_of.into();
    if request.is_about_hours() {
        return reconcile::decide(request, instance, as_of, run);
    }
    if let Some(decision) = nothing_to_do(request.action, &instance.state) {
        return decision;
    }
    if let Some(skip) = leave_alone(request, instance, as_of) {
        return Decision::Leave(skip.into());
    }
    match request.action {
        Action::Stop { .. } if has_started_since(request, instance, as_of) => Decision::leave(Reason::StartedSince),
        Action::Stop { hibernate } => {
            let step = Step::Stop { hibernate: hibernate && instance.hibernation };
            let task = Task { step, remembered: request.remember, quiet: false };
            if instance.state == State::Pending { Decision::Await(task) } else { Decision::Do(task) }
        }
        Action::Start | Action::Reconcile { .. } => {
            let task = Task { step: Step::Start, remembered: is_remembered(instance, as_of), quiet: false };
            match instance.state {
                // A dry run follows nothing, and it needs no start.
                State::Pending if request.mode == Mode::DryRun => Decision::leave(Reason::AlreadyDone),
                State::Pending => Decision::Follow,
                _ if request.remember && !task.remembered => Decision::leave(Reason::NotMarked),
                State::Stopping => Decision::Await(task),
                _ => Decision::Do(task),
            }
        }
    }
}

fn nothing_to_do(action: Action, state: &State) -> Option<Decision> {
    match (action, state) {
        (_, State::Unknown(name)) => {
            let message = format!("EC2 calls its state {name:?}, which this version doesn't know");
            Some(Decision::Leave(Skip::saying(Reason::UnknownState, message).into()))
        }
        (_, State::ShuttingDown | State::Terminated) => Some(Decision::Refuse {
            code: "IncorrectInstanceState".into(),
            message: format!("it is {state}: gone for good").into(),
        }),
        (Action::Stop { .. }, State::Stopping | State::Stopped) | (Action::Start, State::Running) => {
            Some(Decision::leave(Reason::AlreadyDone))
        }
        (Action::Stop { .. }, State::Pending | State::Running)
        | (Action::Start, State::Pending | State::Stopping | State::Stopped)
        | (Action::Reconcile { .. }, _) => None,
    }
}

/// Returns why tags exempt what carries them.
#[must_use]
pub fn exempted(tags: &Tags, except_tags: &TagPatterns, timezone: Tz, as_of: DateTime<Utc>) -> Option<Skip> {
    if let Some(key) = except_tags.any_match(tags) {
        return Some(Skip::saying(Reason::Exempt, format!("its tag {key} is in except_tags")));
    }
    match tags.get(EXEMPT_TAG).map(|value| Exemption::parse(value, timezone)) {
        Some(Exemption::Always) => Some(Skip::because(Reason::Exempt)),
        Some(Exemption::Until(until)) if until > as_of => {
            Some(Skip { until: Some(until), ..Skip::because(Reason::Exempt) })
        }
        Some(Exemption::Unclear(value)) => {
            let message = format!(
                "curfew:exempt is {value:?}, which is neither \"true\", nor a time like \"2026-11-20T22:00:00Z\", nor a date like \
                 \"2026-11-20\": left alone to be safe; correct it, or delete the tag"
            );
            Some(Skip { wants_attention: true, ..Skip::saying(Reason::Exempt, message) })
        }
        Some(Exemption::Until(_)) | None => None,
    }
}

/// Returns why an instance isn't ours to switch, whatever the action.
fn leave_alone(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> Option<Skip> {
    if let Some(skip) = exempted(&instance.tags, &request.except_tags, request.timezone, as_of) {
        return Some(skip);
    }
    let named = || request.selection.ids.contains(&instance.id);
    if !request.is_about_hours() && instance.tags.contains_key(&request.hours_tag) && !named() {
        return Some(Skip::because(Reason::HasHours));
    }
    if let Some(group) = instance.tags.get("aws:autoscaling:groupName") {
        return Some(Skip::saying(Reason::AutoscalingMember, format!("its group {group} would replace it")));
    }
    if let Some(who) = instance.controller() {
        return Some(Skip::saying(Reason::ServiceManaged, format!("{who} runs it")));
    }
    match instance.root_device {
        RootDevice::InstanceStore => Some(Skip::because(Reason::InstanceStoreRoot)),
        RootDevice::Ebs => None,
    }
}

/// Whether somebody has started it since the run was due.
///
/// LaunchTime is truncated to whole seconds, and so is a mark: one equal to `as_of` may well be later, and a mark of
/// `as_of` would not count. So an instance that is to be remembered is not stopped in that second.
fn has_started_since(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> bool {
    let second = as_of.trunc_subsecs(0);
    instance.launch_time > as_of || (request.remember && instance.launch_time >= second)
}

/// Whether its mark allows Curfew to start it.
///
/// A valid mark does. So does a void one, if EC2 says that the start that voided it has failed: a failed start stays
/// ours, whichever run made it. A mark older than any holiday belongs to an earlier life of the instance, and says
/// nothing about today.
fn is_remembered(instance: &Instance, as_of: DateTime<Utc>) -> bool {
    let ours_and_failed = || {
        instance.mark().is_some_and(|mark| as_of - mark.at() <= LONGEST_ABSENCE)
            && instance.state_reason.as_ref().is_some_and(|reason| reason.is_failed_start())
    };
    instance.is_marked() || ours_and_failed()
}

/// Returns the mark to delete from a running instance, whatever else is decided about it: left there by a run that died, it
/// would make the next start undo what a person stopped.
///
/// Not from instances with running hours: for them, the mark is reconcile's memory.
#[must_use]
pub fn stale_mark(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> Option<Mark> {
    let stale = |mark: &Mark| as_of - mark.at() > LONGEST_STOP;
    (instance.state == State::Running && !instance.tags.contains_key(&request.hours_tag))
        .then(|| instance.valid_mark())
        .flatten()
        .filter(stale)
}
