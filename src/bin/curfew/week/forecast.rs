//! A week of one instance that nobody switches by hand: the function's own decision, at every moment at which it may change.

use chrono::{DateTime, TimeDelta, Utc};
use ec2_curfew::hours::{Edge, Hours};
use ec2_curfew::instance::{
    EXEMPT_TAG, Exemption, Instance, InstanceId, Mark, RootDevice, Run, STOPPED_AT_TAG, State, StateReason,
};
use ec2_curfew::outcome::{Reason, Skip};
use ec2_curfew::plan::{Decision, Step, decide};
use ec2_curfew::request::{Action, Request};
use serde::Serialize;

use super::cron::Cron;

/// How long before the week its crons are followed: a weekly pair has then switched everything once.
const BEFORE: TimeDelta = TimeDelta::days(8);

/// What an instance is to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// It runs.
    On,
    /// It is stopped.
    Off,
    /// It is stopped, and would run if the day were no public holiday.
    Holiday,
    /// It is exempt, and stays as it is.
    Exempt,
    /// Somebody else switches it, and Curfew leaves it as it is.
    LeftAlone,
    /// Its hours can't be read, and it stays as it is.
    BadTag,
}

/// A time in which nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Segment {
    /// Its first moment.
    pub(crate) from: DateTime<Utc>,
    /// The moment after its last.
    pub(crate) to: DateTime<Utc>,
    /// What it is.
    pub(crate) state: Kind,
    /// Whether the instance runs, and is paid for.
    pub(crate) runs: bool,
}

/// A week: segments that meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In their order.
    pub(crate) segments: Vec<Segment>,
    /// Why it is left alone, where it is.
    pub(crate) why: Option<Skip>,
}

impl Line {
    /// Returns how long it runs.
    pub(crate) fn on(&self) -> TimeDelta {
        self.segments.iter().filter(|segment| segment.runs).map(|segment| segment.to - segment.from).sum()
    }
}

/// The schedules of a week: what they do to an instance.
pub(crate) enum Rule<'a> {
    /// Each instance's own hours.
    Hours(&'a Request),
    /// Stops and starts, each by its cron.
    Crons(Vec<(&'a Request, Cron)>),
}

/// From when to when.
pub(crate) type Period = (DateTime<Utc>, DateTime<Utc>);

impl Rule<'_> {
    /// Follows an instance through a period.
    pub(crate) fn line(&self, instance: &Instance, period: Period) -> Line {
        match self {
            Self::Hours(request) => by_hours(request, instance, period),
            Self::Crons(crons) => by_crons(crons, instance, period),
        }
    }

    /// Returns a text for each instance, the same for those of the same line.
    pub(crate) fn classes(&self, instances: &[Instance], (from, to): Period) -> Vec<String> {
        let requests: Vec<&Request> = match self {
            Self::Hours(request) => vec![request],
            Self::Crons(crons) => crons.iter().map(|(request, _)| *request).collect(),
        };
        let of = |it: &Instance| format!("{} {:?}", runs(it), it.tags.get(EXEMPT_TAG));
        let mut classes: Vec<String> = instances.iter().map(of).collect();
        for request in requests {
            // Moment by moment: schedules know what they have said of the last one.
            for moment in [from, to] {
                for (instance, class) in instances.iter().zip(&mut classes) {
                    let tag = instance.tags.get(&request.hours_tag);
                    class.push_str(&format!("{tag:?}{:?}", skip_at(request, instance, moment)));
                }
            }
        }
        classes
    }
}

fn by_hours(request: &Request, instance: &Instance, (from, to): Period) -> Line {
    let mut line = Draft::new(instance, from);
    let found = instance.tags.get(&request.hours_tag).map(|text| request.schedules.find(text, from));
    let hours = found.and_then(Result::ok).map(|schedule| schedule.hours.clone());
    let but_for_holidays = hours.as_ref().map(Hours::without_holidays);
    if let Some(hours) = hours.as_ref().filter(|_| skip_at(request, instance, from).is_none()) {
        let state = hours.state_at(from);
        match state.edge {
            _ if state.open => line.instance = running(instance, state.edge.unwrap_or(DateTime::UNIX_EPOCH)),
            Some(edge) => line.instance = stopped(&running(instance, DateTime::UNIX_EPOCH), edge, true),
            // Nobody stops it either.
            None => {}
        }
    }
    let ends = exempt_until(request, instance);
    let mut at = from;
    while at < to {
        line.decide(request, at);
        let skip = skip_at(request, instance, at);
        let is_holiday = || {
            let open = |hours: &Option<Hours>| hours.as_ref().is_some_and(|hours| hours.state_at(at).open);
            open(&but_for_holidays) && !open(&hours)
        };
        let edges = [&hours, &but_for_holidays].into_iter().flatten().filter_map(|hours| hours.next_edge(at));
        let next = edges.map(|Edge { at, .. }| at).chain(ends.filter(|end| *end > at)).min().unwrap_or(to).min(to);
        line.push(next, skip, is_holiday);
        at = next;
    }
    line.line
}

fn by_crons(crons: &[(&Request, Cron)], instance: &Instance, (from, to): Period) -> Line {
    let mut line = Draft::new(instance, from);
    let mut firings: Vec<(DateTime<Utc>, &Request)> = Vec::new();
    for (request, cron) in crons {
        firings.extend(cron.firings(from - BEFORE, to).into_iter().map(|at| (at, *request)));
    }
    // Of two at once the stop goes first, as it is written first.
    firings.sort_by_key(|(at, _)| *at);
    let skip = |at| crons.first().and_then(|(request, _)| skip_at(request, instance, at));
    if skip(from).is_none() {
        line.instance = running(instance, DateTime::UNIX_EPOCH);
        for (at, request) in firings.iter().filter(|(at, _)| *at <= from) {
            line.decide(request, *at);
        }
    }
    firings.retain(|(at, _)| *at > from);
    let ends = crons.iter().filter_map(|(request, _)| exempt_until(request, instance));
    let ends = ends.filter(|end| (from..to).contains(end));
    let mut moments: Vec<DateTime<Utc>> = firings.iter().map(|(at, _)| *at).chain(ends).chain([from, to]).collect();
    moments.sort_unstable();
    moments.dedup();
    for both in moments.windows(2) {
        for (at, request) in firings.iter().filter(|(at, _)| *at == both[0]) {
            line.decide(request, *at);
        }
        line.push(both[1], skip(both[0]), || false);
    }
    line.line
}

/// A line up to some moment, and the instance as it is then.
struct Draft {
    instance: Instance,
    from: DateTime<Utc>,
    line: Line,
}

impl Draft {
    fn new(instance: &Instance, from: DateTime<Utc>) -> Self {
        // Whoever started it since the last edge is not foreseen again and again.
        let instance = match runs(instance) {
            true => running(instance, DateTime::UNIX_EPOCH),
            false => Instance { state: State::Stopped, ..instance.clone() },
        };
        Self { instance, from, line: Line { segments: Vec::new(), why: None } }
    }

    /// Does what the function would do at a moment.
    fn decide(&mut self, request: &Request, at: DateTime<Utc>) {
        let instance = &self.instance;
        self.instance = match decide(request, instance, at) {
            Decision::Do(task) | Decision::Await(task) => match task.step {
                Step::Start => running(instance, at),
                Step::Stop { .. } => stopped(instance, at, task.remembered),
            },
            Decision::Mark => stopped(instance, at, true),
            Decision::Unmark(_) => without_mark(instance),
            Decision::Follow | Decision::Leave(_) | Decision::Refuse { .. } => return,
        };
    }

    /// Goes on to a moment at which something may change.
    fn push(&mut self, to: DateTime<Utc>, skip: Option<Skip>, is_holiday: impl Fn() -> bool) {
        let runs = runs(&self.instance);
        let state = match skip.as_ref().map(|skip| skip.reason) {
            Some(Reason::Exempt) => Kind::Exempt,
            Some(Reason::BadTag) => Kind::BadTag,
            Some(_) => Kind::LeftAlone,
            None if runs => Kind::On,
            None if is_holiday() => Kind::Holiday,
            None => Kind::Off,
        };
        let from = std::mem::replace(&mut self.from, to);
        match self.line.segments.last_mut() {
            Some(last) if last.state == state && last.runs == runs => last.to = to,
            _ => self.line.segments.push(Segment { from, to, state, runs }),
        }
        if self.line.why.is_none() {
            self.line.why = skip;
        }
    }
}

/// Returns why the function would leave an instance alone at a moment whatever its state.
fn skip_at(request: &Request, instance: &Instance, at: DateTime<Utc>) -> Option<Skip> {
    // As it is in whatever state it has: one in which there is something to do is asked about.
    let instance = match request.action {
        Action::Start => stopped(&running(instance, DateTime::UNIX_EPOCH), DateTime::UNIX_EPOCH, false),
        _ => running(instance, DateTime::UNIX_EPOCH),
    };
    let Decision::Leave(skip) = decide(request, &instance, at) else { return None };
    match skip.reason {
        Reason::AutoscalingMember
        | Reason::BadTag
        | Reason::Exempt
        | Reason::HasHours
        | Reason::InstanceStoreRoot
        | Reason::ServiceManaged
        | Reason::UnknownState => Some(Skip { quiet: false, ..*skip }),
        Reason::AlreadyDone
        | Reason::AsScheduled
        | Reason::Gone
        | Reason::Moving
        | Reason::NotMarked
        | Reason::SpotOneTime
        | Reason::StartedSince
        | Reason::StopProtected
        | Reason::StoppedSince
        | Reason::Tried => None,
        // Only snapshots have these reasons.
        Reason::Kept(_) => None,
    }
}

fn exempt_until(request: &Request, instance: &Instance) -> Option<DateTime<Utc>> {
    match instance.exemption(request.timezone) {
        Some(Exemption::Until(until)) => Some(until),
        Some(Exemption::Always | Exemption::Unclear(_)) | None => None,
    }
}

fn runs(instance: &Instance) -> bool {
    matches!(instance.state, State::Pending | State::Running)
}

fn running(instance: &Instance, launch_time: DateTime<Utc>) -> Instance {
    Instance { state: State::Running, launch_time, state_reason: None, ..without_mark(instance) }
}

fn stopped(instance: &Instance, at: DateTime<Utc>, marked: bool) -> Instance {
    let mut instance = without_mark(instance);
    if marked {
        let mark = Mark::new(at, Run::of("00000000"));
        instance.tags = instance.tags.iter().chain([(STOPPED_AT_TAG, mark.as_str())]).collect();
    }
    let code = "Client.UserInitiatedShutdown".to_owned();
    let reason = StateReason { code, message: String::new() };
    Instance { state: State::Stopped, state_reason: Some(reason.into()), ..instance }
}

fn without_mark(instance: &Instance) -> Instance {
    let tags = instance.tags.iter().filter(|(key, _)| *key != STOPPED_AT_TAG).collect();
    Instance { tags, ..instance.clone() }
}

/// Builds an instance that a schedule would switch, and that nothing else is known of.
pub(crate) fn any_instance(hours: Option<(&str, &str)>) -> Option<Instance> {
    Some(Instance {
        id: InstanceId::parse("i-00000000")?,
        tags: hours.into_iter().collect(),
        state: State::Running,
        state_reason: None,
        launch_time: DateTime::UNIX_EPOCH,
        instance_type: "".into(),
        zone: "".into(),
        root_device: RootDevice::Ebs,
        spot: false,
        hibernation: false,
        operator: None,
    })
}
