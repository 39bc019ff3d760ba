//! How a run is told: flat JSON lines on standard output, which Lambda passes on to CloudWatch.
//!
//! A line has `timestamp` (RFC 3339), `level` and `message`, as Lambda's own log levels want them, and its fields.

use std::io::Write;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tracing::level_filters::LevelFilter;
use tracing::{Level, enabled, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::execute::Outcome;
use crate::plan::{Reason, Skip};
use crate::report::{Report, Verdict};
use crate::request::Request;
use crate::targets::Worked;

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
pub fn tell_target(request: &Request, account: &str, worked: &Worked) {
    let region = worked.region.as_str();
    let (schedule, action) = (request.name.as_str(), request.action.as_str());
    let names = worked.plan.names();
    for (id, outcome) in &worked.outcomes {
        let name = names.get(id).copied();
        let id = id.as_str();
        let label = name.unwrap_or(id);
        match outcome {
            Outcome::Changed { from, to } => {
                let done = request.action.past();
                info!(
                    id,
                    name,
                    account,
                    region,
                    schedule,
                    action,
                    from = from.as_str(),
                    to = to.as_str(),
                    "{label}: {done}, {from} → {to}"
                );
            }
            Outcome::WouldChange { from, to } => {
                info!(
                    id,
                    name,
                    account,
                    region,
                    schedule,
                    action,
                    from = from.as_str(),
                    to = to.as_str(),
                    dry_run = true,
                    "{label}: would {action}, {from} → {to}"
                );
            }
            Outcome::Failed { code, message } => {
                error!(
                    id,
                    name,
                    account,
                    region,
                    schedule,
                    action,
                    code,
                    error = message,
                    "{label}: failed to {action}, {code}"
                );
            }
            Outcome::Unfinished { reason } => {
                warn!(id, name, account, region, schedule, action, reason, "{label}: unfinished, {reason}");
            }
            Outcome::Skipped(Skip { reason: Reason::AlreadyDone, .. }) => {}
            Outcome::Skipped(skip) => {
                let reason = skip.reason.as_str();
                let until = skip.until.map(crate::instance::rfc3339);
                let detail = skip.message.as_deref().map(|message| format!(", {message}")).unwrap_or_default();
                // An exemption that can't be read wants somebody's attention; the other reasons are as they should be.
                if skip.reason == Reason::Exempt && detail.contains("curfew:exempt is") {
                    warn!(id, name, account, region, schedule, action, reason, "{label}: left alone, {reason}{detail}");
                } else {
                    let end = until.as_deref().map(|until| format!(" until {until}")).unwrap_or_default();
                    info!(
                        id,
                        name,
                        account,
                        region,
                        schedule,
                        action,
                        reason,
                        until,
                        "{label}: left alone, {reason}{end}{detail}"
                    );
                }
            }
        }
    }
    if let Some(problem) = &worked.error {
        error!(
            account,
            region,
            schedule,
            action,
            code = problem.code,
            error = problem.message,
            "{region}: could not be worked on, {}",
            problem.code
        );
    }
    if let Some(note) = &worked.note {
        warn!(account, region, schedule, action, "{region}: {note}");
    }
}

/// Tells the whole report, as one line.
pub fn tell(report: &Report) {
    let (level, wanted) = match report.outcome {
        Verdict::Complete if !report.suspicious => ("INFO", enabled!(Level::INFO)),
        Verdict::Complete | Verdict::Stale => ("WARN", enabled!(Level::WARN)),
        Verdict::Incomplete | Verdict::Unfinished | Verdict::TooManyChanges => ("ERROR", enabled!(Level::ERROR)),
    };
    if !wanted {
        return;
    }
    #[derive(Serialize)]
    struct Line<'a> {
        timestamp: String,
        level: &'static str,
        #[serde(flatten)]
        report: &'a Report,
    }
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    if let Ok(mut line) = serde_json::to_vec(&Line { timestamp, level, report }) {
        line.push(b'\n');
        // Where standard output is gone there is nobody to tell.
        let _ = std::io::stdout().lock().write_all(&line);
    }
}
