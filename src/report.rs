//! Pure: what happened, as data and in one sentence.
//!
//! Must not know how it came about, or where it goes. Its fields and names are a contract.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::instance::{State, rfc3339};
use crate::outcome::{Outcome, Reason, Run, SecondLook, Settled, Skip, TargetRun, Trouble};
use crate::plan::Step;
use crate::request::{Action, Mode, Request};
use crate::wording::{clip, duration as duration_in_words};

mod snapshots;

/// Bytes of the answer and of its log line: a CloudWatch event and a Step Functions state hold 256 KB, and the
/// caller's own wrapping needs room.
const MAX_BYTES: usize = 195_000;
/// Bytes of a tick's report beyond which targets without news are only counted: there are 288 ticks a day.
const QUIET_BYTES: usize = 850;
/// Entries in a target's list: more than would ever fit.
const MAX_LISTED: usize = 4000;
/// Instances that the sentence names; the lists have the rest.
const NAMED: usize = 3;
/// Characters of EC2's words about a whole target that the sentence quotes.
const MAX_QUOTED_ERROR: usize = 200;
/// Characters of a selection that the sentence quotes.
const MAX_QUOTED_SELECTION: usize = 300;

/// The report: what a run that left nothing undone returns, and what every run logs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "infra/README.md, \"The report\", describes every field")]
pub struct Report {
    pub message: String,
    pub outcome: Verdict,
    pub name: String,
    pub action: &'static str,
    pub dry_run: bool,
    pub scheduled_time: Option<String>,
    pub duration_ms: u64,
    pub version: &'static str,
    pub summary: Summary,
    pub skipped_by: BTreeMap<&'static str, usize>,
    pub targets: Vec<Target>,
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_targets: usize,
    /// Nothing matched, which may be a typo.
    #[serde(skip)]
    pub suspicious: bool,
    /// It tells what a run would do, and there was none.
    #[serde(skip)]
    preview: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing that should have changed is left.
    Complete,
    /// EC2 refused something.
    Incomplete,
    /// Something is left that a retry may do, whatever else EC2 refused.
    Unfinished,
    /// Too late to begin: nothing was changed.
    Stale,
    /// The plan was larger than `max_changes`: nothing was changed.
    TooManyChanges,
}

/// How many instances had which outcome; the first field is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Summary {
    pub matched: usize,
    pub changed: usize,
    pub would_change: usize,
    pub skipped: usize,
    pub failed: usize,
    pub unfinished: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<Storage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Storage>,
}

/// What some snapshots cost at most: EC2 bills what changed since the previous snapshot, and doesn't say how much that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Storage {
    pub snapshots: usize,
    pub up_to_bytes: u64,
    /// A month, at the list price of most regions.
    #[serde(rename = "up_to_usd_a_month", serialize_with = "snapshots::dollars")]
    pub up_to_micro_dollars: u64,
}

/// One account and region.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "infra/README.md, \"The report\", describes every field")]
pub struct Target {
    pub account: String,
    pub region: String,
    pub error: Option<TargetError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub failed: Vec<Failed>,
    pub unfinished: Vec<Unfinished>,
    pub changed: Vec<Changed>,
    pub would_change: Vec<Changed>,
    pub skipped: Vec<Skipped>,
    pub truncated: usize,
}

/// Why a whole account and region failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "EC2's words")]
pub struct TargetError {
    pub code: String,
    pub message: String,
}

/// An instance, or a snapshot, that EC2 refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "EC2's words")]
pub struct Failed {
    pub id: Box<str>,
    pub name: Option<String>,
    pub code: String,
    pub message: String,
}

/// An instance that a retry may switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Unfinished {
    pub id: Box<str>,
    pub name: Option<String>,
    pub reason: String,
}

/// An instance that changed, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "states")]
pub struct Changed {
    pub id: Box<str>,
    pub name: Option<String>,
    pub from: Box<str>,
    pub to: Box<str>,
    /// Why, where it could be for more than one reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An instance left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Skipped {
    pub id: Box<str>,
    pub name: Option<String>,
    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Summary {
    /// Returns how a run ended that counted this, where these targets failed as a whole.
    fn verdict(&self, too_many_changes: bool, errors: &[&Trouble]) -> Verdict {
        if too_many_changes {
            Verdict::TooManyChanges
        } else if self.unfinished > 0 || errors.iter().any(|error| error.may_pass) {
            Verdict::Unfinished
        } else if self.failed > 0 || !errors.is_empty() {
            Verdict::Incomplete
        } else {
            Verdict::Complete
        }
    }
}

impl Target {
    fn empty(account: &str, region: &str, error: Option<&Trouble>, note: Option<&String>) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            error: error.map(|error| TargetError { code: error.code.clone(), message: error.message.clone() }),
            note: note.cloned(),
            failed: Vec::new(),
            unfinished: Vec::new(),
            changed: Vec::new(),
            would_change: Vec::new(),
            skipped: Vec::new(),
            truncated: 0,
        }
    }

    /// Sorts the outcomes of a target's instances into its lists, at most `max_listed` into each.
    #[must_use]
    pub fn new(worked: &TargetRun, max_listed: usize) -> Self {
        let mut target = Self::empty(&worked.account, &worked.region, worked.error.as_ref(), worked.note.as_ref());
        let change = |settled: &Settled, from: &State, to: &State, message: Option<Box<str>>| Changed {
            id: settled.id.as_str().into(),
            name: settled.name.as_deref().map(str::to_owned),
            from: from.as_str().into(),
            to: to.as_str().into(),
            reason: None,
            until: None,
            message: message.map(Into::into),
        };
        for settled in worked.settled.iter().filter(|settled| !settled.is_quiet()) {
            let (id, name) = (settled.id.as_str().into(), settled.name.as_deref().map(str::to_owned));
            let listed = match settled.outcome.clone() {
                Outcome::Changed { from, to, message, .. } => {
                    list(max_listed, &mut target.changed, change(settled, &from, &to, message))
                }
                Outcome::WouldChange { from, to } => {
                    list(max_listed, &mut target.would_change, change(settled, &from, &to, None))
                }
                Outcome::Skipped(skip) => {
                    let Skip { reason, until, message, .. } = *skip;
                    list(
                        max_listed,
                        &mut target.skipped,
                        Skipped { id, name, reason, until: until.map(rfc3339), message },
                    )
                }
                Outcome::Failed { code, message } => list(
                    max_listed,
                    &mut target.failed,
                    Failed { id, name, code: code.into(), message: message.into() },
                ),
                Outcome::Unfinished { reason } => {
                    list(max_listed, &mut target.unfinished, Unfinished { id, name, reason: reason.into() })
                }
            };
            target.truncated += usize::from(!listed);
        }
        target
    }

    fn is_clean(&self) -> bool {
        self.error.is_none() && self.failed.is_empty() && self.unfinished.is_empty()
    }

    fn is_quiet(&self) -> bool {
        let switched = self.changed.len() + self.would_change.len() + self.skipped.len() + self.truncated;
        self.is_clean() && switched == 0
    }
}

impl Report {
    /// Reports a run.
    #[must_use]
    pub fn of_run(request: &Request, run: &Run, duration: Duration) -> Self {
        let mut report = Self::whole(request, run, Self::empty(request, duration), MAX_LISTED);
        if request.is_about_hours() {
            let mut excess = json_len(&report).saturating_sub(QUIET_BYTES);
            report.drop_targets(Target::is_quiet, &mut excess);
        }
        report.truncate();
        report
    }

    /// Reports what a run would do, as a dry run does, and at any length.
    #[must_use]
    pub fn of_preview(request: &Request, run: &Run, duration: Duration) -> Self {
        let empty = Self { dry_run: true, preview: true, ..Self::empty(request, duration) };
        Self::whole(request, run, empty, usize::MAX)
    }

    fn whole(request: &Request, run: &Run, mut report: Self, max_listed: usize) -> Self {
        let targets: Vec<Target> = run.targets.iter().map(|target| Target::new(target, max_listed)).collect();
        for settled in all(run) {
            report.summary.matched += 1;
            let count = match &settled.outcome {
                Outcome::Changed { .. } => &mut report.summary.changed,
                Outcome::WouldChange { .. } => &mut report.summary.would_change,
                Outcome::Skipped(skip) => {
                    *report.skipped_by.entry(skip.reason.as_str()).or_default() += 1;
                    &mut report.summary.skipped
                }
                Outcome::Failed { .. } => &mut report.summary.failed,
                Outcome::Unfinished { .. } => &mut report.summary.unfinished,
            };
            *count += 1;
        }
        let errors: Vec<&Trouble> = run.targets.iter().filter_map(|worked| worked.error.as_ref()).collect();
        report.outcome = report.summary.verdict(run.too_many_changes.is_some(), &errors);
        report.suspicious = match &run.second_look {
            Some(Ok(look)) => look.done == 0,
            Some(Err(_)) => true,
            None => false,
        };
        report.targets = targets;
        report.message = report.sentence(request, run);
        report
    }

    /// Reports that a run came too late to begin.
    #[must_use]
    pub fn of_stale(request: &Request, late: Duration, duration: Duration) -> Self {
        let Request { scheduled_by, max_delay, .. } = request;
        Self::empty(request, duration).stale(request.action.past(), scheduled_by, late, *max_delay)
    }

    fn empty(request: &Request, duration: Duration) -> Self {
        let Request { name, action, mode, scheduled_time, .. } = request;
        Self::of_nothing(name, action.as_str(), *mode, *scheduled_time, duration)
    }

    /// Turns an empty report into that of a run which came too late to begin.
    fn stale(mut self, past: &str, scheduled_by: &str, late: Duration, max_delay: Duration) -> Self {
        self.outcome = Verdict::Stale;
        self.message = format!(
            "{}: nothing {past}, this run was due at {} ({scheduled_by}), {} ago; max_delay_minutes allows {}",
            self.name,
            self.scheduled_time.as_deref().unwrap_or_default(),
            // So that a longer delay never reads as an equal one.
            duration_in_words(late.max(max_delay + Duration::from_secs(60))),
            duration_in_words(max_delay),
        );
        self
    }

    fn of_nothing(
        name: &str,
        action: &'static str,
        mode: Mode,
        scheduled_time: Option<DateTime<Utc>>,
        duration: Duration,
    ) -> Self {
        Self {
            message: String::new(),
            outcome: Verdict::Complete,
            name: name.to_owned(),
            action,
            dry_run: mode == Mode::DryRun,
            scheduled_time: scheduled_time.map(rfc3339),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION"),
            summary: Summary::default(),
            skipped_by: BTreeMap::new(),
            targets: Vec::new(),
            truncated_targets: 0,
            suspicious: false,
            preview: false,
        }
    }

    /// Says it in one sentence: what changed, what was left alone and why, what went wrong.
    fn sentence(&self, request: &Request, run: &Run) -> String {
        let summary = &self.summary;
        let dry = if self.dry_run && !self.preview { "dry run, " } else { "" };
        let mut parts = Vec::new();
        if let Some(planned) = run.too_many_changes {
            let max = request.max_changes.unwrap_or_default();
            let (verb, past) = match request.action {
                Action::Reconcile { .. } => ("switch", "switched"),
                action => (action.as_str(), action.past()),
            };
            parts.push(format!("{dry}nothing {past}: would {verb} {planned}, more than max_changes ({max})"));
        } else if let Some(look) = &run.second_look {
            parts.push(format!("{dry}nothing to {}, {}", self.action, nothing_matched(request, run, look)));
        } else if self.saw_nothing() {
            parts.extend(dry.strip_suffix(", ").map(str::to_owned));
        } else if request.is_about_hours() {
            match self.switched(run) {
                Some(switched) => parts.push(format!("{dry}{switched}")),
                None if dry.is_empty() => {}
                None => parts.push("dry run".to_owned()),
            }
        } else if self.dry_run {
            parts.push(format!("{dry}would {} {} of {}", self.action, summary.would_change, summary.matched));
        } else {
            parts.push(format!("{} {} of {}", request.action.past(), summary.changed, summary.matched));
        }
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        let mut bad_tags = Vec::new();
        for settled in all(run).filter(|settled| !settled.is_quiet()) {
            match &settled.outcome {
                Outcome::Skipped(skip) if skip.reason == Reason::BadTag => bad_tags.push((settled, skip)),
                Outcome::Skipped(skip) => *told.entry(skip.reason.as_str()).or_default() += 1,
                _ => {}
            }
        }
        if !told.is_empty() {
            let count: usize = told.values().sum();
            let mut reasons: Vec<_> = told.into_iter().collect();
            reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.push(format!("left {count} alone ({})", reasons.join(", ")));
        }
        if !bad_tags.is_empty() {
            let count = bad_tags.len();
            let named = bad_tags.into_iter().map(|(settled, skip)| match &skip.bad_tag {
                Some(bad) => format!("{} ({})", settled.label(), bad.in_short()),
                None => format!("{} (none)", settled.label()),
            });
            let tags = if count == 1 { "tag" } else { "tags" };
            parts.push(format!("{count} bad {tags}: {}", some(named, count)));
        }
        parts.extend(self.troubles(accounts(run), run.too_many_changes.is_none()));
        if parts.is_empty() {
            parts.push(format!("nothing to switch, {} left alone", summary.matched));
        }
        format!("{}: {}", self.name, parts.join("; "))
    }

    /// Says what went wrong: with single instances or snapshots, then with whole targets.
    fn troubles(&self, accounts: usize, tells_unfinished: bool) -> Vec<String> {
        let (summary, mut parts) = (&self.summary, Vec::new());
        let label = |id: &str, name: &Option<String>| name.clone().unwrap_or_else(|| id.to_owned());
        if summary.failed > 0 {
            let failed = self.targets.iter().flat_map(|target| &target.failed);
            let named = failed.map(|failed| format!("{} ({})", label(&failed.id, &failed.name), failed.code));
            parts.push(format!("{} failed: {}", summary.failed, some(named, summary.failed)));
        }
        if summary.unfinished > 0 && tells_unfinished {
            let unfinished = self.targets.iter().flat_map(|target| &target.unfinished);
            let named = unfinished.map(|left| format!("{} ({})", label(&left.id, &left.name), left.reason));
            parts.push(format!("{} unfinished: {}", summary.unfinished, some(named, summary.unfinished)));
        }
        let place = |target: &Target| match accounts {
            1 => target.region.clone(),
            _ => format!("{} {}", target.account, target.region),
        };
        // Targets that failed alike are named together.
        let mut errors: Vec<(&TargetError, Vec<&Target>)> = Vec::new();
        for target in &self.targets {
            let Some(error) = &target.error else { continue };
            match errors.iter_mut().find(|(other, _)| *other == error) {
                Some((_, targets)) => targets.push(target),
                None => errors.push((error, vec![target])),
            }
        }
        let count = errors.len();
        let told = errors.into_iter().map(|(error, targets)| {
            let places = some(targets.iter().map(|target| place(target)), targets.len());
            let said = clip(error.message.trim_end_matches('.'), MAX_QUOTED_ERROR);
            format!("{places} failed as a whole: {}, {said}{}", error.code, self.hint(error, &targets))
        });
        match count {
            0 => {}
            _ => parts.push(some(told, count)),
        }
        parts
    }

    /// Whether every target failed before it showed anything: there is nothing to count then.
    fn saw_nothing(&self) -> bool {
        self.summary.matched == 0 && !self.targets.is_empty() && self.targets.iter().all(|it| it.error.is_some())
    }

    /// Drops targets from the end until the excess is gone; they are counted.
    fn drop_targets(&mut self, may_go: fn(&Target) -> bool, excess: &mut usize) {
        let mut kept = Vec::with_capacity(self.targets.len());
        while let Some(target) = self.targets.pop() {
            if *excess > 0 && may_go(&target) {
                *excess = excess.saturating_sub(json_len(&target) + 1);
                self.truncated_targets += 1;
            } else {
                kept.push(target);
            }
        }
        kept.reverse();
        self.targets = kept;
    }

    /// Returns a hint for whole targets that failed, where one can be guessed.
    fn hint(&self, error: &TargetError, targets: &[&Target]) -> &'static str {
        let others_worked = self.targets.iter().any(|other| {
            other.error.is_none()
                && other.note.is_none()
                && targets.iter().any(|target| target.account == other.account)
        });
        match error.code.as_str() {
            "AuthFailure" | "OptInRequired" if others_worked => "; is the region enabled for this account?",
            "UnauthorizedOperation" if self.action == snapshots::ACTION => {
                "; only the function for snapshots has the role for this: send the event to that one"
            }
            // A function's session is called as the function is.
            "UnauthorizedOperation" if error.message.contains("-snapshots is not authorized") => {
                "; this is the function for snapshots: send the event to the one for instances"
            }
            "NoConnection" if others_worked => "; is there such a region?",
            "NoConnection" | "Timeout" if targets.len() == self.targets.len() => {
                "; a function in a VPC needs a NAT gateway or a VPC endpoint for ec2"
            }
            _ => "",
        }
    }

    /// Says what a tick switched, or that all is as it should be; what it would have switched at the ticks before, too, is
    /// still to be switched.
    fn switched(&self, run: &Run) -> Option<String> {
        let went = |step: fn(Step) -> bool| {
            let counts = |settled: &&Settled| match settled.outcome {
                Outcome::Changed { .. } => true,
                Outcome::WouldChange { .. } => !settled.is_quiet(),
                _ => false,
            };
            all(run).filter(counts).filter(|settled| settled.task.is_some_and(|task| step(task.step))).count()
        };
        let (stopped, started) = (went(|step| step != Step::Start), went(|step| step == Step::Start));
        let (stop, start) = if self.dry_run { ("would stop", "would start") } else { ("stopped", "started") };
        let switched = match (stopped, started) {
            (0, 0) => String::new(),
            (stopped, 0) => format!("{stop} {stopped}"),
            (0, started) => format!("{start} {started}"),
            (stopped, started) => format!("{stop} {stopped}, {start} {started}"),
        };
        let (as_scheduled, left) = (self.skipped_by.get("as_scheduled").copied(), self.summary.would_change);
        match (switched.is_empty(), as_scheduled) {
            (false, _) => Some(format!("{switched} of {}", self.summary.matched)),
            (true, _) if left > 0 => Some(format!("{left} of {} still to be switched", self.summary.matched)),
            (true, as_scheduled) => {
                as_scheduled.map(|count| format!("{count} of {} as scheduled", self.summary.matched))
            }
        }
    }

    /// Cuts the lists until the report fits, what matters least first; the counts stay exact.
    fn truncate(&mut self) {
        let mut excess = json_len(self).saturating_sub(MAX_BYTES);
        if excess == 0 {
            return;
        }
        for target in &mut self.targets {
            cut(&mut target.skipped, &mut target.truncated, &mut excess);
        }
        for target in &mut self.targets {
            cut(&mut target.changed, &mut target.truncated, &mut excess);
            cut(&mut target.would_change, &mut target.truncated, &mut excess);
        }
        self.drop_targets(Target::is_clean, &mut excess);
        for target in &mut self.targets {
            cut(&mut target.failed, &mut target.truncated, &mut excess);
            cut(&mut target.unfinished, &mut target.truncated, &mut excess);
        }
        cut(&mut self.targets, &mut self.truncated_targets, &mut excess);
    }
}

fn all(run: &Run) -> impl Iterator<Item = &Settled> {
    run.targets.iter().flat_map(|worked| &worked.settled)
}

fn accounts(run: &Run) -> usize {
    run.targets.iter().map(|worked| worked.account.as_str()).collect::<BTreeSet<_>>().len()
}

/// Names the first few, and counts the others.
fn some(items: impl Iterator<Item = String>, count: usize) -> String {
    let mut named: Vec<String> = items.take(NAMED).collect();
    if count > named.len() {
        named.push(format!("and {} more", count - named.len()));
    }
    named.join(", ")
}

/// Says why nothing matched: a quiet night and a typo must read differently.
fn nothing_matched(request: &Request, run: &Run, look: &Result<SecondLook, Trouble>) -> String {
    let look = match look {
        Ok(look) => look,
        Err(error) => return format!("and EC2 would not say what is there whatever its state ({})", error.code),
    };
    let done = match request.action {
        Action::Stop { .. } => "stopped",
        Action::Start => "running",
        Action::Reconcile { .. } => "as scheduled",
    };
    let others: Vec<String> = look.others.iter().map(|(state, count)| format!("{count} {state}")).collect();
    match (look.done, others.is_empty()) {
        (0, true) => {
            let regions: Vec<&str> =
                run.targets.iter().filter(|it| it.note.is_none()).map(|it| it.region.as_str()).collect();
            let place = match (accounts(run), regions.as_slice()) {
                (1, [one]) => (*one).to_owned(),
                (1, many) => format!("{} regions", many.len()),
                (accounts, _) => format!("{accounts} accounts"),
            };
            let selection = clip(&request.selection.to_string(), MAX_QUOTED_SELECTION);
            let hours =
                if request.is_about_hours() { format!(" and a tag {}", request.hours_tag) } else { String::new() };
            match near(look) {
                Some(near) => format!("no instance in {place} has {selection}{hours}, but {near}"),
                None => format!("no instance in {place} has {selection}{hours}; is that what was meant?"),
            }
        }
        (0, false) => format!("what is selected can't be {}: {}", request.action.past(), others.join(", ")),
        (1, true) => format!("the one selected is already {done}"),
        (n, true) => format!("all {n} are already {done}"),
        (n, false) => format!("{n} already {done}, {}", others.join(", ")),
    }
}

/// Says which values the tags have instead, the most common first.
fn near(look: &SecondLook) -> Option<String> {
    let mut values: Vec<(&String, &usize)> = look.near.iter().collect();
    values.sort_by_key(|(tags, count)| (std::cmp::Reverse(**count), *tags));
    let count = values.len();
    let said = values.into_iter().enumerate().map(|(nth, (tags, count))| match (nth, count) {
        (0, 1) => format!("1 instance has {tags}"),
        (_, 1) => format!("1 has {tags}"),
        (_, n) => format!("{n} have {tags}"),
    });
    (count > 0).then(|| some(said, count))
}

/// Adds to a list, unless it is long enough.
fn list<T>(max: usize, list: &mut Vec<T>, item: T) -> bool {
    let room = list.len() < max;
    if room {
        list.push(item);
    }
    room
}

/// Drops items from the end until the excess is gone.
fn cut<T: Serialize>(list: &mut Vec<T>, truncated: &mut usize, excess: &mut usize) {
    while *excess > 0 {
        let Some(item) = list.pop() else { return };
        *excess = excess.saturating_sub(json_len(&item) + 1);
        *truncated += 1;
    }
}

fn json_len(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}
