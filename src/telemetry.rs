//! How a run is told: flat JSON lines on standard output, which Lambda passes on to CloudWatch.
//!
//! A line has `timestamp` (RFC 3339), `level` and `message`, as Lambda's own log levels want them, and its fields.

use std::collections::BTreeSet;
use std::io::Write;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::{Level, enabled, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::instance::rfc3339;
use crate::outcome::{Outcome, Reason, Settled, Worked};
use crate::report::{Report, Verdict};
use crate::request::Request;

/// Begins logging at the level that Lambda's `AWS_LAMBDA_LOG_LEVEL` names: INFO if it names none.
///
/// The SDK and the runtime are heard from WARN on, and at TRACE.
pub fn init(level: Option<&str>) {
    let level = match level.unwrap_or_default().to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "WARN" => LevelFilter::WARN,
        // FATAL: Lambda knows one level more than we do.
        "ERROR" | "FATAL" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    // The runtime repeats every error that we return, in a form that nobody can read.
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

/// Tells what became of each instance of a target: switched, failed, unfinished, or skipped for a reason worth reading.
pub fn tell_target(request: &Request, target: &Worked) {
    let (account, region) = (target.account.as_str(), target.region.as_str());
    let (schedule, action, done) = (request.name.as_str(), request.action.as_str(), request.action.past());
    for Settled { id, name, outcome } in &target.settled {
        let (name, id) = (name.as_deref(), id.as_str());
        let label = name.unwrap_or(id);
        macro_rules! tell {
            ($level:ident, [$($fields:tt)*], $($message:tt)*) => {
                $level!(id, name, account, region, schedule, action, $($fields)*, "{label}: {}", format_args!($($message)*))
            };
        }
        match outcome {
            Outcome::Changed { from, to, message } => {
                let detail = message.as_ref().map(|message| format!("; {message}")).unwrap_or_default();
                tell!(info, [from = from.as_str(), to = to.as_str()], "{done}, {from} → {to}{detail}");
            }
            Outcome::WouldChange { from, to } => {
                tell!(info, [from = from.as_str(), to = to.as_str(), dry_run = true], "would {action}, {from} → {to}");
            }
            Outcome::Failed { code, message } => {
                tell!(error, [code = &**code, error = &**message], "failed to {action}, {code}");
            }
            Outcome::Unfinished { reason } => tell!(warn, [reason = &**reason], "unfinished, {reason}"),
            Outcome::Skipped(skip) if skip.reason == Reason::AlreadyDone => {}
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
            "{account} {region}: could not be worked on, {code}"
        );
    }
    if let Some(note) = &target.note {
        warn!(account, region, schedule, action, "{account} {region}: {note}");
    }
}

/// Tells the run's metrics, as one line in CloudWatch's embedded metric format: at INFO, for above that Lambda drops it.
///
/// Dimensions are the schedule's name and the action alone: each further one would multiply what the metrics cost.
/// (CloudWatch user guide, "Specification: Embedded metric format")
pub fn tell_metrics(report: &Report) {
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
    write_line(&json!({
        "_aws": {
            "Timestamp": Utc::now().timestamp_millis(),
            "CloudWatchMetrics": [{
                "Namespace": "Curfew",
                "Dimensions": [["name", "action"]],
                "Metrics": NAMES.map(|(name, unit)| json!({ "Name": name, "Unit": unit })),
            }],
        },
        "timestamp": now(),
        "level": "INFO",
        "message": format!("{}: metrics of a {}", report.name, report.action),
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

/// Tells the whole report, as one line: the last of a run.
pub fn tell(report: &Report) {
    let (level, wanted) = match report.outcome {
        Verdict::Complete if !report.suspicious => ("INFO", enabled!(Level::INFO)),
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
        // Where standard output is gone there is nobody to tell.
        let _ = std::io::stdout().lock().write_all(&line);
    }
}
