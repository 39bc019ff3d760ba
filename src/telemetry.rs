//! Logs and metrics of a run: flat JSON lines on standard output, which Lambda passes on to CloudWatch.
//!
//! A line has `timestamp` (RFC 3339), `level` and `message`, as Lambda's own log levels require, and its fields.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, enabled, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::instance::rfc3339;
use crate::outcome::{Kept, Outcome, Reason, Run, Settled, TargetRun};
use crate::plan::Step;
use crate::report::{Report, Verdict};
use crate::request::{self, Action, Request};
use crate::snapshots::rule::VOLUME_GONE;
use crate::snapshots::{self, Change, Outcome as Done};

/// Begins logging at the level that Lambda's `AWS_LAMBDA_LOG_LEVEL` names: INFO if it names none.
///
/// The SDK and the runtime are logged from WARN up, and at TRACE.
pub fn init(level: Option<&str>) {
    let level = match level.unwrap_or_default().to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "WARN" => LevelFilter::WARN,
        // FATAL: Lambda has one level more than we do.
        "ERROR" | "FATAL" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    // The runtime repeats every error that we return, in an unreadable form.
    let runtime = if level == LevelFilter::TRACE { level } else { LevelFilter::OFF };
    let targets =
        Targets::new().with_default(others).with_target("lambda_runtime", runtime).with_target("ec2_curfew", level);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        error!(place = panic.location().map(ToString::to_string), "{}", panic.to_string().replace('\n', " "))
    }));
}

/// Logs the outcome of each instance of a target: switched, failed, unfinished, or skipped for a reason worth reading.
pub fn log_target(request: &Request, target: &TargetRun) {
    let (account, region) = (target.account.as_str(), target.region.as_str());
    let (schedule, action) = (request.name.as_str(), request.action.as_str());
    for settled in target.settled.iter().filter(|settled| !settled.is_quiet()) {
        let (name, id, label) = (settled.name.as_deref(), settled.id.as_str(), settled.label());
        let (verb, done) = match (request.action, settled.task.map(|task| task.step)) {
            (Action::Reconcile { .. }, Some(Step::Stop { .. })) => ("stop", "stopped"),
            (Action::Reconcile { .. }, Some(Step::Start)) => ("start", "started"),
            (Action::Reconcile { .. }, None) => ("switch", "switched"),
            (action, _) => (action.as_str(), action.past()),
        };
        macro_rules! tell {
            ($level:ident, [$($fields:tt)*], $($message:tt)*) => {
                $level!(id, name, account, region, schedule, action, $($fields)*, "{label}: {}", format_args!($($message)*))
            };
        }
        match &settled.outcome {
            Outcome::Changed { from, to, launched, message } => {
                // The end of what an earlier stop saved, where a person has started it since (`curfew saved`).
                let is_stop = matches!(settled.task.map(|task| task.step), Some(Step::Stop { .. }));
                let launched = is_stop.then(|| rfc3339(*launched));
                let detail = message.as_ref().map(|message| format!("; {message}")).unwrap_or_default();
                tell!(info, [from = from.as_str(), to = to.as_str(), launched], "{done}, {from} → {to}{detail}");
            }
            Outcome::WouldChange { from, to } => {
                tell!(info, [from = from.as_str(), to = to.as_str(), dry_run = true], "would {verb}, {from} → {to}");
            }
            Outcome::Failed { code, message } => {
                tell!(error, [code = &**code, error = &**message], "failed to {verb}, {code}");
            }
            Outcome::Unfinished { reason } => tell!(warn, [reason = &**reason], "unfinished, {reason}"),
            Outcome::Skipped(skip) if matches!(skip.reason, Reason::AlreadyDone | Reason::BadTag) => {}
            Outcome::Skipped(skip) => {
                let (reason, moment) = (skip.reason.as_str(), skip.until.map(rfc3339));
                let until = moment.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
                let detail = skip.message.as_ref().map(|message| format!(", {message}")).unwrap_or_default();
                if skip.wants_attention {
                    tell!(warn, [reason], "left alone, {reason}{until}{detail}");
                } else {
                    tell!(info, [reason, until = moment], "left alone, {reason}{until}{detail}");
                }
            }
        }
    }
    if let Some(problem) = &target.error {
        let code = problem.code.as_str();
        error!(
            account,
            region,
            schedule,
            action,
            code,
            error = problem.message,
            "{account} {region}: failed as a whole, {code}"
        );
    }
    if let Some(note) = &target.note {
        // What is the same at every tick isn't news.
        if request.is_about_hours() {
            debug!(account, region, schedule, action, "{account} {region}: {note}");
        } else {
            warn!(account, region, schedule, action, "{account} {region}: {note}");
        }
    }
}

/// Logs the outcome of each snapshot of a target; at DEBUG where that is no news, because the report counts it.
pub fn log_snapshots(request: &request::snapshots::Request, target: &snapshots::TargetRun) {
    let (account, region) = (target.account.as_str(), target.region.as_str());
    let (schedule, action) = (request.name.as_str(), request::snapshots::ACTION);
    for settled in &target.settled {
        let (name, id, label) = (settled.name.as_deref(), settled.id.as_str(), settled.label());
        macro_rules! tell {
            ($level:ident, [$($fields:tt)*], $($message:tt)*) => {
                $level!(id, name, account, region, schedule, action, $($fields)*, "{label}: {}", format_args!($($message)*))
            };
        }
        let bytes = settled.bytes;
        match &settled.outcome {
            Done::Changed(Change::Delete) => tell!(info, [bytes, reason = VOLUME_GONE], "deleted, {VOLUME_GONE}"),
            Done::Changed(Change::Mark { until }) => {
                let until = rfc3339(*until);
                tell!(info, [bytes, reason = VOLUME_GONE, until], "marked, {VOLUME_GONE}, to be deleted after {until}");
            }
            Done::WouldChange(Change::Delete) => {
                tell!(info, [bytes, reason = VOLUME_GONE, dry_run = true], "would delete, {VOLUME_GONE}");
            }
            Done::WouldChange(Change::Mark { .. }) => {
                tell!(info, [bytes, reason = VOLUME_GONE, dry_run = true], "would mark, {VOLUME_GONE}");
            }
            Done::Failed { code, message } => tell!(error, [code, error = message], "kept, {code}"),
            Done::Unfinished { reason } => tell!(warn, [reason], "unfinished, {reason}"),
            Done::Skipped(skip) => {
                let (reason, moment) = (skip.reason.as_str(), skip.until.map(rfc3339));
                let until = moment.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
                let detail = skip.message.as_ref().map(|message| format!(", {message}")).unwrap_or_default();
                match skip.reason {
                    _ if skip.wants_attention => tell!(warn, [reason], "kept, {reason}{until}{detail}"),
                    Reason::Kept(Kept::TooYoung | Kept::VolumeExists | Kept::Marked) => {
                        tell!(debug, [reason, until = moment], "kept, {reason}{until}{detail}");
                    }
                    _ => tell!(info, [reason, until = moment], "kept, {reason}{until}{detail}"),
                }
            }
        }
    }
    if let Some(problem) = &target.error {
        let code = problem.code.as_str();
        let words = problem.message.as_str();
        error!(account, region, schedule, action, code, error = words, "{account} {region}: failed as a whole, {code}");
    }
    if let Some(note) = &target.note {
        warn!(account, region, schedule, action, "{account} {region}: {note}");
    }
}

/// Logs hours tags that can't be read: once of each value, however many instances carry it.
pub fn log_bad_tags(request: &Request, run: &Run) {
    /// Values that are logged; the report lists the instances.
    const MOST: usize = 50;
    let mut by_value: BTreeMap<&str, (&TargetRun, &Settled, usize)> = BTreeMap::new();
    for (target, settled) in run.targets.iter().flat_map(|target| target.settled.iter().map(move |it| (target, it))) {
        let Outcome::Skipped(skip) = &settled.outcome else { continue };
        if skip.reason == Reason::BadTag {
            by_value.entry(skip.message.as_deref().unwrap_or_default()).or_insert((target, settled, 0)).2 += 1;
        }
    }
    let (schedule, action) = (request.name.as_str(), request.action.as_str());
    let tag = request.hours_tag.as_str();
    let more = by_value.len().saturating_sub(MOST);
    for (problem, (target, settled, instances)) in by_value.into_iter().take(MOST) {
        let (name, id, label) = (settled.name.as_deref(), settled.id.as_str(), settled.label());
        let (account, region) = (target.account.as_str(), target.region.as_str());
        let others = if instances > 1 { format!(" and {} more", instances - 1) } else { String::new() };
        // An instance named by its id may have no such tag.
        let has_tag = matches!(&settled.outcome, Outcome::Skipped(skip) if skip.bad_tag.is_some());
        let what = if has_tag { format!("{tag} is ") } else { String::new() };
        warn!(
            id,
            name,
            account,
            region,
            schedule,
            action,
            reason = "bad_tag",
            tag,
            instances,
            "{label}{others}: left alone, {what}{problem}"
        );
    }
    if more > 0 {
        warn!(schedule, action, reason = "bad_tag", tag, "{more} other values of {tag} can't be read either");
    }
}

/// The one set of dimensions that each metric has.
const DIMENSIONS: [[&str; 3]; 1] = [["function", "name", "action"]];

/// Logs the run's metrics, as one line in CloudWatch's embedded metric format: at INFO, so that a higher log level drops it.
///
/// The dimensions are the function's name, which keeps apart two stacks whose schedules are called the same, the schedule's name
/// and the action: any that takes more values in one stack would multiply what the metrics cost.
/// (CloudWatch user guide, "Specification: Embedded metric format")
pub fn log_metrics(report: &Report, function: &str) {
    const NAMES: [(&str, &str); 7] = [
        ("matched", "Count"),
        ("changed", "Count"),
        ("skipped", "Count"),
        ("failed", "Count"),
        ("unfinished", "Count"),
        ("stale", "Count"),
        ("duration", "Milliseconds"),
    ];
    if !enabled!(Level::INFO) {
        return;
    }
    let summary = report.summary;
    if report.action == "reconcile" {
        return log_tick(report, function);
    }
    write_line(&json!({
        "_aws": {
            "Timestamp": Utc::now().timestamp_millis(),
            "CloudWatchMetrics": [{
                "Namespace": "Curfew",
                "Dimensions": DIMENSIONS,
                "Metrics": NAMES.map(|(name, unit)| json!({ "Name": name, "Unit": unit })),
            }],
        },
        "timestamp": now(),
        "level": "INFO",
        "message": format!("{}: metrics of a {}", report.name, report.action),
        "function": function,
        "name": report.name,
        "action": report.action,
        "matched": summary.matched,
        "changed": summary.changed,
        "skipped": summary.skipped,
        "failed": summary.failed,
        "unfinished": summary.unfinished,
        "stale": usize::from(report.outcome == Verdict::Stale),
        "duration": report.duration_ms,
        "dry_run": report.dry_run,
        "accounts": report.targets.iter().map(|it| it.account.as_str()).collect::<BTreeSet<_>>(),
        "regions": report.targets.iter().map(|it| it.region.as_str()).collect::<BTreeSet<_>>(),
        "skipped_by": report.skipped_by,
    }));
}

/// Logs a tick's metrics, without those that are zero: they are at nearly all of 288 ticks a day.
fn log_tick(report: &Report, function: &str) {
    // A tick that came too late kept no hours: if all do, the alarm has to notice.
    if report.outcome == Verdict::Stale {
        return;
    }
    let summary = report.summary;
    let errors = report.targets.iter().filter(|target| target.error.is_some()).count();
    let values = [
        ("duration", "Milliseconds", report.duration_ms),
        ("changed", "Count", summary.changed as u64),
        ("bad_tag", "Count", report.skipped_by.get("bad_tag").copied().unwrap_or(0) as u64),
        ("left", "Count", (summary.failed + summary.unfinished + errors) as u64),
    ];
    let told = values.iter().filter(|(name, _, value)| *name == "duration" || *value > 0);
    let metrics: Vec<_> = told.clone().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": Utc::now().timestamp_millis(),
            "CloudWatchMetrics": [{ "Namespace": "Curfew", "Dimensions": DIMENSIONS, "Metrics": metrics }],
        },
        "timestamp": now(),
        "level": "INFO",
        "message": format!("{}: metrics of a {}", report.name, report.action),
        "function": function,
        "name": report.name,
        "action": report.action,
    });
    for (name, _, value) in told {
        line[name] = json!(value);
    }
    write_line(&line);
}

/// Logs the whole report, as one line: the last of a run.
pub fn log_report(report: &Report) {
    let (level, wanted) = match report.outcome {
        Verdict::Complete if !report.suspicious => ("INFO", enabled!(Level::INFO)),
        // The next tick has already come.
        Verdict::Stale if report.action == "reconcile" => ("INFO", enabled!(Level::INFO)),
        Verdict::Complete | Verdict::Stale => ("WARN", enabled!(Level::WARN)),
        Verdict::Incomplete | Verdict::Unfinished | Verdict::TooManyChanges => ("ERROR", enabled!(Level::ERROR)),
    };
    #[derive(Serialize)]
    struct Line<'a> {
        timestamp: String,
        level: &'static str,
        #[serde(flatten)]
        report: &'a Report,
    }
    if wanted {
        write_line(&Line { timestamp: now(), level, report });
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn write_line(line: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(line) {
        line.push(b'\n');
        // Without standard output there is nobody to tell.
        let _ = std::io::stdout().lock().write_all(&line);
    }
}
