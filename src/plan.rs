//! Pure: a decision, and its reason, for each instance.
//!
//! Knows the request and what EC2 told; must not act, ask, or look at the clock.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::instance::{Exemption, HOURS_TAG, Instance, InstanceId, RootDevice, State};
use crate::request::{Action, Mode, Request};

/// How long what was marked may have been stopped for a void mark to still say that it was ours.
const LONGEST_ABSENCE: TimeDelta = TimeDelta::days(31);

/// What each selected instance is to expect: every one exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The instances EC2 knows, with what to do about each.
    pub decided: Vec<(Instance, Decision)>,
    /// The instances named by id that EC2 doesn't know.
    pub absent: Vec<InstanceId>,
}

impl Plan {
    /// Counts the instances that it selects.
    #[must_use]
    pub fn matched(&self) -> usize {
        self.decided.len() + self.absent.len()
    }

    /// Gives the names of those that have one.
    #[must_use]
    pub fn names(&self) -> BTreeMap<&InstanceId, &str> {
        self.decided.iter().filter_map(|(instance, _)| Some((&instance.id, instance.name()?))).collect()
    }

    /// Counts the instances that it would change.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.decided.iter().filter(|(_, decision)| decision.changes()).count()
    }
}

/// What to do about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Stop or start it.
    Switch,
    /// It is on its way to where it can be switched: wait, then decide anew.
    WaitThenSwitch,
    /// It is being started already: see whether it arrives.
    Follow,
    /// Leave it alone.
    Skip(Box<Skip>),
    /// It was named, and can't be switched.
    Fail {
        /// The code that EC2 would answer.
        code: &'static str,
        /// The sentence for people.
        message: Box<str>,
    },
}

impl Decision {
    fn skip(reason: Reason) -> Self {
        Self::Skip(Skip::because(reason).into())
    }

    fn changes(&self) -> bool {
        match self {
            Self::Switch | Self::WaitThenSwitch => true,
            Self::Follow | Self::Skip(_) | Self::Fail { .. } => false,
        }
    }
}

/// Why an instance is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The reason, from a fixed list.
    pub reason: Reason,
    /// Up to when, if it ends.
    pub until: Option<DateTime<Utc>>,
    /// What the reason alone doesn't say.
    pub message: Option<String>,
    /// A tag can't be read: somebody should correct it.
    pub wants_attention: bool,
}

impl Skip {
    /// Skips for a reason that says it all.
    #[must_use]
    pub fn because(reason: Reason) -> Self {
        Self { reason, until: None, message: None, wants_attention: false }
    }

    fn saying(reason: Reason, message: String) -> Self {
        Self { message: Some(message), ..Self::because(reason) }
    }
}

/// The reasons for which Curfew leaves an instance alone; their names are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table in README.md says when each applies")]
pub enum Reason {
    AlreadyDone,
    AutoscalingMember,
    Exempt,
    HasHours,
    InstanceStoreRoot,
    NotMarked,
    ServiceManaged,
    SpotOneTime,
    StartedSince,
    StopProtected,
    UnknownState,
}

impl Reason {
    /// Gives its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyDone => "already_done",
            Self::AutoscalingMember => "autoscaling_member",
            Self::Exempt => "exempt",
            Self::HasHours => "has_hours",
            Self::InstanceStoreRoot => "instance_store_root",
            Self::NotMarked => "not_marked",
            Self::ServiceManaged => "service_managed",
            Self::SpotOneTime => "spot_one_time",
            Self::StartedSince => "started_since",
            Self::StopProtected => "stop_protected",
            Self::UnknownState => "unknown_state",
        }
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Gives the states in which the action's work begins; EC2 is asked for these.
///
/// Those on the move are selected too: an instance that is just starting must not escape the stop.
#[must_use]
pub fn states(action: Action) -> &'static [State] {
    match action {
        Action::Stop { .. } => &[State::Pending, State::Running],
        Action::Start => &[State::Stopped, State::Stopping, State::Pending],
    }
}

/// Decides about every instance that the request selects.
///
/// `as_of` is the moment the run stands for: its scheduled time, or when it began.
#[must_use]
pub fn plan(request: &Request, instances: Vec<Instance>, as_of: DateTime<Utc>) -> Plan {
    plan_of(request, instances.into_iter().filter_map(|instance| consider(request, instance, as_of)).collect())
}

/// Decides about an instance that EC2 showed, if the request selects it.
#[must_use]
pub fn consider(request: &Request, instance: Instance, as_of: DateTime<Utc>) -> Option<(Instance, Decision)> {
    // EC2 has filtered already. Once more here, so that nothing between us and EC2 can widen a selection.
    let selected = is_selected(request, &instance)
        && (request.selection.ids_alone()
            || states(request.action).contains(&instance.state)
            || matches!(instance.state, State::Unknown(_)));
    selected.then(|| {
        let decision = decide(request, &instance, as_of);
        (instance, decision)
    })
}

/// Makes a plan of what was decided, each instance once.
#[must_use]
pub fn plan_of(request: &Request, mut decided: Vec<(Instance, Decision)>) -> Plan {
    let mut seen = BTreeSet::new();
    // A page may repeat what the one before showed.
    decided.retain(|(instance, _)| seen.insert(instance.id));
    let absent = match request.selection.ids_alone() {
        true => request.selection.ids.difference(&seen).cloned().collect(),
        false => Vec::new(),
    };
    Plan { decided, absent }
}

/// Tells whether the request selects an instance, by its tags and its id; other filters only EC2 can judge.
#[must_use]
pub fn is_selected(request: &Request, instance: &Instance) -> bool {
    let selection = &request.selection;
    selection.tags.all_match(&instance.tags) && (selection.ids.is_empty() || selection.ids.contains(&instance.id))
}

/// Decides anew about one that was selected, as EC2 shows it now.
#[must_use]
pub fn decide_again(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> Decision {
    match is_selected(request, instance) {
        true => decide(request, instance, as_of),
        false => Decision::Skip(Skip::saying(Reason::Exempt, "its tags no longer match the request".to_owned()).into()),
    }
}

/// Decides about one instance, as EC2 showed it last.
#[must_use]
pub fn decide(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> Decision {
    if let Some(decision) = nothing_to_do(request.action, &instance.state) {
        return decision;
    }
    if let Some(skip) = leave_alone(request, instance, as_of) {
        return Decision::Skip(skip.into());
    }
    match (request.action, &instance.state) {
        (Action::Stop { .. }, _) if has_started_since(request, instance, as_of) => Decision::skip(Reason::StartedSince),
        (Action::Stop { .. }, State::Pending) => Decision::WaitThenSwitch,
        // Nothing will be followed in a dry run, and to start it there is nothing to do.
        (Action::Start, State::Pending) if request.mode == Mode::DryRun => Decision::skip(Reason::AlreadyDone),
        (Action::Start, State::Pending) => Decision::Follow,
        (Action::Start, _) if request.remember && !is_remembered(request, instance) => {
            Decision::skip(Reason::NotMarked)
        }
        (Action::Start, State::Stopping) => Decision::WaitThenSwitch,
        (Action::Stop { .. } | Action::Start, _) => Decision::Switch,
    }
}

fn nothing_to_do(action: Action, state: &State) -> Option<Decision> {
    match (action, state) {
        (_, State::Unknown(name)) => {
            let message = format!("EC2 calls its state {name:?}, which this version doesn't know");
            Some(Decision::Skip(Skip::saying(Reason::UnknownState, message).into()))
        }
        (_, State::ShuttingDown | State::Terminated) => Some(Decision::Fail {
            code: "IncorrectInstanceState",
            message: format!("it is {state}: gone for good").into(),
        }),
        (Action::Stop { .. }, State::Stopping | State::Stopped) | (Action::Start, State::Running) => {
            Some(Decision::skip(Reason::AlreadyDone))
        }
        (Action::Stop { .. }, State::Pending | State::Running)
        | (Action::Start, State::Pending | State::Stopping | State::Stopped) => None,
    }
}

/// Finds why an instance isn't ours to switch, whatever the action.
fn leave_alone(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> Option<Skip> {
    if let Some(key) = request.except_tags.any_match(&instance.tags) {
        return Some(Skip::saying(Reason::Exempt, format!("its tag {key} is in except_tags")));
    }
    match instance.exemption(request.timezone) {
        Some(Exemption::Always) => return Some(Skip::because(Reason::Exempt)),
        Some(Exemption::Until(until)) if until > as_of => {
            return Some(Skip { until: Some(until), ..Skip::because(Reason::Exempt) });
        }
        Some(Exemption::Unclear(value)) => {
            let message = format!(
                "curfew:exempt is {value:?}, which is neither \"true\", nor a time like \"2026-11-20T22:00:00Z\", nor a date like \
                 \"2026-11-20\": left alone to be safe; correct it, or delete the tag"
            );
            return Some(Skip { wants_attention: true, ..Skip::saying(Reason::Exempt, message) });
        }
        Some(Exemption::Until(_)) | None => {}
    }
    if instance.tags.contains_key(HOURS_TAG) && !request.selection.ids.contains(&instance.id) {
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

/// Tells whether somebody switched it on since the run was due.
///
/// LaunchTime has whole seconds, cut off: one equal to `as_of` may well lie after it, and a mark of `as_of`
/// would not count. What is to be remembered is therefore not stopped in that second.
fn has_started_since(request: &Request, instance: &Instance, as_of: DateTime<Utc>) -> bool {
    instance.launch_time > as_of || (request.remember && instance.launch_time == as_of)
}

/// Tells whether a start with `remember` may start it.
///
/// A mark that counts says so. So does a void one where the start that voided it came after this run was due
/// and EC2 says that it failed: that was this run's first attempt, whose rest a retry has to do. A mark that is
/// older than any holidays is of another life of the instance, and says nothing of today.
#[must_use]
pub fn is_remembered(request: &Request, instance: &Instance) -> bool {
    let first_attempt_failed = || {
        let (Some(marked), Some(due)) = (instance.stopped_at(), request.scheduled_time) else { return false };
        due - marked <= LONGEST_ABSENCE
            && instance.launch_time >= due
            && instance.state_reason.as_ref().is_some_and(|reason| reason.is_failed_start())
    };
    instance.is_marked() || first_attempt_failed()
}
