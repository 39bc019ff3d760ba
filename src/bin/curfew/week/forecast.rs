//! A week of one instance: the function's own decision, at every moment at which it may change, from what EC2 shows now.
//!
//! What people will switch by hand is not foreseen; what they have switched is known by the state and the mark. What is over
//! EC2 doesn't tell: there it is as the schedule says.

use std::collections::BTreeSet;

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
/// How long before a week to come an instance is followed: a month's schedule has then switched it once.
const AHEAD: TimeDelta = TimeDelta::days(40);

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
    /// Why it is left as it is, where it is.
    pub(crate) why: Option<Why>,
}

impl Line {
    /// Returns how long it runs.
    pub(crate) fn on(&self) -> TimeDelta {
        self.segments.iter().filter(|segment| segment.runs).map(|segment| segment.to - segment.from).sum()
    }

    /// Whether it is drawn as another is.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        self.segments == other.segments
    }
}

/// Why an instance is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The function leaves it alone.
    Skip(Skip),
    /// Its hours start nothing: only people do.
    StartedByPeople,
    /// It has not come to run, and it is not yet time to try again: EC2's words.
    NotYetAgain(String),
    /// Nothing here starts it.
    NoStart,
    /// Nothing here stops it.
    NoStop,
}

impl Why {
    /// Returns the reason that the function would give.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Skip(skip) => Some(skip.reason.as_str()),
            Self::StartedByPeople => Some(Reason::AsScheduled.as_str()),
            Self::NotYetAgain(_) | Self::NoStart | Self::NoStop => None,
        }
    }
}

/// The schedules of a week: what they do to an instance that all of them select.
pub(crate) enum Rule<'a> {
    /// Each instance's own hours.
    Hours(&'a Request),
    /// Stops and starts, each by its cron.
    Crons(Vec<(&'a Request, Cron)>),
}

/// From when to when, and when EC2 was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Period {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    pub(crate) now: DateTime<Utc>,
}

impl Period {
    /// Returns when instances are first followed: before it, if it is yet to come.
    fn begin(&self) -> DateTime<Utc> {
        if self.now < self.from { self.now.max(self.from - AHEAD) } else { self.from }
    }

    /// Returns from when on they are what EC2 shows; not at all, if it is over.
    fn shown_from(&self) -> Option<DateTime<Utc>> {
        (self.now < self.to).then(|| self.now.max(self.begin()))
    }

    /// Returns since when in what is over of it an instance has been off, if its mark tells.
    fn off_since(&self, instance: &Instance) -> Option<DateTime<Utc>> {
        let mark = instance.valid_mark().filter(|_| !runs(instance) && (self.from..self.to).contains(&self.now))?;
        Some(mark.at().max(self.from)).filter(|since| *since < self.now)
    }
}

impl Rule<'_> {
    /// Follows an instance through a period.
    pub(crate) fn line(&self, instance: &Instance, period: Period) -> Line {
        match self {
            Self::Hours(request) => by_hours(request, instance, period),
            Self::Crons(crons) => by_crons(crons, instance, period),
        }
    }

    /// Returns what they say themselves, of whatever they select; of hours, those that a tag with this value means.
    pub(crate) fn plain_line(&self, tag: &str, period: Period) -> Option<Line> {
        match self {
            Self::Hours(request) => match request.schedules.find(tag, period.from) {
                Ok(schedule) => Some(of_hours(&schedule.hours, period)),
                Err(_) => Some(by_hours(request, &any_instance(Some((&request.hours_tag, tag)))?, period)),
            },
            Self::Crons(crons) => {
                let line = by_crons(crons, &any_instance(None)?, Period { now: period.to, ..period });
                Some(Line { why: None, ..line })
            }
        }
    }

    /// Returns a text for each instance, the same for those of the same line.
    pub(crate) fn classes(&self, instances: &[Instance], period: Period) -> Vec<String> {
        let requests: Vec<&Request> = match self {
            Self::Hours(request) => vec![request],
            Self::Crons(crons) => crons.iter().map(|(request, _)| *request).collect(),
        };
        let of = |it: &Instance| {
            let code = it.state_reason.as_ref().filter(|_| !runs(it)).map(|reason| &reason.code);
            format!("{} {} {code:?} {:?}", runs(it), it.is_marked(), it.tags.get(EXEMPT_TAG))
        };
        let mut classes: Vec<String> =
            instances.iter().map(|it| format!("{}{:?}", of(it), period.off_since(it))).collect();
        for request in requests {
            // Moment by moment: schedules know what they have said of the last one.
            for moment in [period.from, period.to] {
                for (instance, class) in instances.iter().zip(&mut classes) {
                    let tag = instance.tags.get(&request.hours_tag);
                    class.push_str(&format!("{tag:?}{:?}", skip_at(request, instance, moment)));
                }
            }
            // What it was switched by is in the first decision; the later ones follow from that.
            if let Some(moment) = period.shown_from() {
                for (instance, class) in instances.iter().zip(&mut classes) {
                    class.push_str(&format!("{:?}", decide(request, &arrived(instance), moment)));
                }
            }
        }
        classes
    }
}

/// Returns when hours are open.
fn of_hours(hours: &Hours, Period { from, to, .. }: Period) -> Line {
    let but_for_holidays = hours.without_holidays();
    let mut draft = Draft::new(from);
    let mut at = from;
    while at < to {
        let next = next_edge([hours, &but_for_holidays], at).unwrap_or(to).min(to);
        let open = hours.state_at(at).open;
        let kind = match open {
            true => Kind::On,
            false if but_for_holidays.state_at(at).open => Kind::Holiday,
            false => Kind::Off,
        };
        draft.push(next, kind, open, None);
        at = next;
    }
    draft.line
}

fn next_edge<'a>(hours: impl IntoIterator<Item = &'a Hours>, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    hours.into_iter().filter_map(|hours| hours.next_edge(at)).map(|Edge { at, .. }| at).min()
}

fn by_hours(request: &Request, instance: &Instance, period: Period) -> Line {
    let Period { from, to, .. } = period;
    let found = instance.tags.get(&request.hours_tag).map(|text| request.schedules.find(text, from));
    let schedule = found.and_then(Result::ok);
    let hours = schedule.as_ref().map(|schedule| schedule.hours.clone());
    let starts = schedule.is_some_and(|schedule| schedule.start);
    let but_for_holidays = hours.as_ref().map(Hours::without_holidays);
    let is_open = |hours: &Option<Hours>, at| hours.as_ref().is_some_and(|hours| hours.state_at(at).open);

    let mut draft = Draft::new(from);
    let mut it = past(instance, skip_at(request, instance, from).as_ref());
    if let Some(hours) = hours.as_ref().filter(|_| runs(&it) && skip_at(request, &it, from).is_none()) {
        let state = hours.state_at(from);
        match state.edge {
            _ if state.open => it = running(&it, state.edge.unwrap_or(DateTime::UNIX_EPOCH)),
            Some(edge) => it = stopped(&it, edge, true),
            // Nobody stops it either.
            None => {}
        }
    }
    let (shown_from, off_since) = (period.shown_from(), period.off_since(instance));
    let is_known_off = |at| off_since.is_some_and(|since| (since..period.now).contains(&at));
    let turns = exempt_until(request, instance).into_iter().chain(shown_from).chain(off_since).chain([from, to]);
    let turns: BTreeSet<DateTime<Utc>> = turns.collect();
    let mut at = period.begin();
    while at < to {
        if shown_from == Some(at) || is_known_off(at) {
            it = arrived(instance);
        }
        let mut why = if is_known_off(at) { None } else { carry_out(&mut it, request, at) };
        if why.is_none() && !runs(&it) && !starts && is_open(&hours, at) {
            why = Some(Why::StartedByPeople);
        }
        let skip = skip_at(request, &it, at);
        let is_holiday = || starts && it.is_marked() && is_open(&but_for_holidays, at) && !is_open(&hours, at);
        let edge = next_edge([&hours, &but_for_holidays].into_iter().flatten(), at);
        let next =
            edge.into_iter().chain(turns.range(at..).copied().filter(|turn| *turn > at)).min().unwrap_or(to).min(to);
        draft.push(next, kind(skip.as_ref(), &it, is_holiday), runs(&it), skip.map(Why::Skip).or(why));
        at = next;
    }
    draft.line
}

fn by_crons(crons: &[(&Request, Cron)], instance: &Instance, period: Period) -> Line {
    let Period { from, to, .. } = period;
    let begin = period.begin();
    let mut firings: Vec<(DateTime<Utc>, &Request)> = Vec::new();
    for (request, cron) in crons {
        firings.extend(cron.firings(begin.min(from - BEFORE), to).into_iter().map(|at| (at, *request)));
    }
    // Of two at once the stop goes first, as it is written first.
    firings.sort_by_key(|(at, _)| *at);
    // Left alone is what all of them leave alone.
    let skip = |at| {
        let all: Option<Vec<Skip>> = crons.iter().map(|(request, _)| skip_at(request, instance, at)).collect();
        all?.into_iter().next()
    };
    let mut it = past(instance, skip(from).as_ref());
    if runs(&it) && skip(from).is_none() {
        for (at, request) in firings.iter().filter(|(at, _)| *at <= from) {
            carry_out(&mut it, request, *at);
        }
    }
    firings.retain(|(at, _)| *at > begin);
    let (shown_from, off_since) = (period.shown_from(), period.off_since(instance));
    let is_known_off = |at| off_since.is_some_and(|since| (since..period.now).contains(&at));
    let ends = crons.iter().filter_map(|(request, _)| exempt_until(request, instance));
    let turns =
        firings.iter().map(|(at, _)| *at).chain(ends).chain(shown_from).chain(off_since).chain([begin, from, to]);
    let moments: BTreeSet<DateTime<Utc>> = turns.filter(|at| (begin..=to).contains(at)).collect();
    let moments: Vec<DateTime<Utc>> = moments.into_iter().collect();
    let mut draft = Draft::new(from);
    let mut why = None;
    for both in moments.windows(2) {
        if shown_from == Some(both[0]) || is_known_off(both[0]) {
            (it, why) = (arrived(instance), None);
        }
        for (at, request) in firings.iter().filter(|(at, _)| *at == both[0] && !is_known_off(*at)) {
            why = carry_out(&mut it, request, *at);
        }
        let skip = skip(both[0]);
        let kind = kind(skip.as_ref(), &it, || false);
        draft.push(both[1], kind, runs(&it), skip.map(Why::Skip).or_else(|| why.clone()));
    }
    let mut line = draft.line;
    let has = |wanted: fn(&Action) -> bool| crons.iter().any(|(request, _)| wanted(&request.action));
    let last_runs = line.segments.last().is_some_and(|last| last.runs);
    line.why = line.why.or_else(|| match last_runs {
        false => (!has(|action| matches!(action, Action::Start))).then_some(Why::NoStart),
        true => (!has(|action| matches!(action, Action::Stop { .. }))).then_some(Why::NoStop),
    });
    line
}

/// Does to an instance what the function would do at a moment; or returns why it would leave it as it is.
fn carry_out(instance: &mut Instance, request: &Request, at: DateTime<Utc>) -> Option<Why> {
    match decide(request, instance, at) {
        Decision::Do(task) | Decision::Await(task) => {
            *instance = match task.step {
                Step::Start => running(instance, at),
                Step::Stop { .. } => stopped(instance, at, task.remembered),
            };
        }
        Decision::Mark => *instance = stopped(instance, at, true),
        Decision::Unmark(_) => *instance = without_mark(instance),
        Decision::Follow => {}
        Decision::Leave(skip) => match skip.reason {
            Reason::AlreadyDone | Reason::AsScheduled | Reason::Moving => {}
            _ => return Some(Why::Skip(Skip { quiet: false, ..*skip })),
        },
        Decision::Refuse { code, message } => return Some(Why::NotYetAgain(format!("{code}: {message}"))),
    }
    None
}

/// Returns what a time is to an instance.
fn kind(skip: Option<&Skip>, instance: &Instance, is_holiday: impl Fn() -> bool) -> Kind {
    match skip.map(|skip| skip.reason) {
        Some(Reason::Exempt) => Kind::Exempt,
        Some(Reason::BadTag) => Kind::BadTag,
        Some(_) => Kind::LeftAlone,
        None if runs(instance) => Kind::On,
        None if is_holiday() => Kind::Holiday,
        None => Kind::Off,
    }
}

/// A line up to some moment.
struct Draft {
    from: DateTime<Utc>,
    line: Line,
}

impl Draft {
    fn new(from: DateTime<Utc>) -> Self {
        Self { from, line: Line { segments: Vec::new(), why: None } }
    }

    /// Goes on to a moment at which something may change; what is over before the week is not shown.
    fn push(&mut self, to: DateTime<Utc>, state: Kind, runs: bool, why: Option<Why>) {
        if to <= self.from {
            return;
        }
        let from = std::mem::replace(&mut self.from, to);
        match self.line.segments.last_mut() {
            Some(last) if last.state == state && last.runs == runs => last.to = to,
            _ => self.line.segments.push(Segment { from, to, state, runs }),
        }
        if self.line.why.is_none() {
            self.line.why = why;
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
        // Of snapshots only.
        Reason::Kept(_) => None,
    }
}

fn exempt_until(request: &Request, instance: &Instance) -> Option<DateTime<Utc>> {
    match instance.exemption(request.timezone) {
        Some(Exemption::Until(until)) => Some(until),
        Some(Exemption::Always | Exemption::Unclear(_)) | None => None,
    }
}

/// Returns an instance as it is once it has arrived where it is on its way to.
fn arrived(instance: &Instance) -> Instance {
    let state = if runs(instance) { State::Running } else { State::Stopped };
    Instance { state, ..instance.clone() }
}

/// Returns an instance as it may have been before EC2 was asked: what a schedule switches ran until it was stopped.
fn past(instance: &Instance, skip: Option<&Skip>) -> Instance {
    match runs(instance) || instance.is_marked() {
        _ if skip.is_some() => arrived(instance),
        true => running(instance, DateTime::UNIX_EPOCH),
        false => Instance { launch_time: DateTime::UNIX_EPOCH, ..without_mark(&arrived(instance)) },
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
fn any_instance(hours: Option<(&str, &str)>) -> Option<Instance> {
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
