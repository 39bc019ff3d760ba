//! Curfew switches EC2 instances off when nobody needs them, and on again before people come to work.
//!
//! An event takes one way through: [`event`] → [`request`] → [`plan`] → [`engine`] → [`report`], the middle part of it once
//! per account and region ([`targets`]).
//!
//! - **The middle is pure.** [`request`], [`select`], [`instance`], [`hours`], [`plan`], [`outcome`] and [`report`] know no SDK,
//!   no environment and no clock; what they need of these is passed as an argument. A test below enforces it.
//! - **The engine** is one loop that awaits, around a state machine that doesn't. The state machine's files import no SDK,
//!   environment or clock either. The engine asks `plan` to decide again about an instance that it has looked at again, and never
//!   sees the request.
//! - **Snapshots** that nobody needs take their own way from the request on: [`snapshots`], whose rule is in `snapshots/rule.rs`.
//! - **Running hours** are in [`hours`]: what people write, and when it is open. `plan/reconcile.rs` is the rule that acts on them.
//! - **EC2** is behind [`ec2`], a port of five verbs in our own types. Its adapter, `ec2/aws.rs`, is the only file that names the
//!   AWS SDK; `ec2/refusal.rs` is the only table of what EC2's codes mean.
//! - **What happened** is an [`outcome`], which the engine and the report share; [`telemetry`] turns it into log lines and metrics.
//!
//! The tool `curfew` (`bin/curfew/`) goes the same way as far as the plan, by [`targets::preview`], and says it to a terminal.
//!
//! # Where do I add …
//!
//! - **a field of the request?** `FIELDS` and the parsing in `request.rs`, the table in README.md, a malformed example in
//!   `tests/it/refusals.rs`.
//! - **a reason to leave an instance alone?** `Reason` in `outcome.rs` names it, `plan.rs` or `plan/reconcile.rs` decides it,
//!   README.md, "Why didn't mine stop?", says when.
//! - **a code of EC2's?** The table in `ec2/refusal.rs`, and infra/README.md, "When EC2 says no".
//! - **a call to EC2?** The port in `ec2.rs`, its adapter `ec2/aws.rs`, the permission in `policy/`.
//! - **something to running hours?** The language in `hours/`, the rule in `plan/reconcile.rs`, infra/hours.md.
//! - **a field of the report?** `report.rs`, and infra/README.md, "The report". Of a log line or a metric: `telemetry.rs`, and
//!   "The log" there.
//! - **an action?** `Action` in `request.rs`; the compiler then names every `match` that must know it.
//! - **a reason to keep a snapshot?** `Reason` in `outcome.rs`, `snapshots/rule.rs`, infra/README.md, "Snapshots".
//! - **a command of the tool?** A module of `bin/curfew/`, with its `Args` and `run`; `main.rs` there lists them.
//! - **a test, a fault, a seed?** tests/README.md.

pub mod deadline;
pub mod ec2;
pub mod engine;
pub mod event;
pub mod hours;
pub mod instance;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod request;
pub mod select;
pub mod snapshots;
pub mod targets;
pub mod telemetry;
pub mod wording;

use std::future::Future;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use lambda_runtime::{Context, Diagnostic, LambdaEvent};

use crate::deadline::Deadline;
use crate::ec2::Aws;
use crate::event::{Event, Unwrapped, unwrap};
use crate::instance::Run;
use crate::outcome::TargetRun;
use crate::report::{Report, Verdict};
use crate::request::{Refused, Regions, Request};
use crate::targets::{Home, Moment};

/// A tick ends before the next one comes, five minutes later.
const LONGEST_TICK: Duration = Duration::from_secs(270);

/// An invocation that did not do all that it should: Lambda retries it, the dead-letter queue and the alarms hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable word: `InvalidRequest`, `Incomplete`, `Unfinished`, `TooManyChanges` or `Internal`.
    pub error_type: &'static str,
    /// The report's sentence, or the refusal's.
    pub message: String,
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self { error_type: failure.error_type.to_owned(), error_message: failure.message }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        tracing::error!(error_type = "InvalidRequest", "{message}");
        Self { error_type: "InvalidRequest", message }
    }
}

/// Handles one event: the single handler.
///
/// # Errors
/// The event was refused, or something that should have changed is left.
pub async fn handle(event: LambdaEvent<Event>, aws: Aws) -> Result<Report, Failure> {
    contain(pipeline(event.payload, event.context, aws)).await
}

async fn pipeline(event: Event, context: Context, aws: Aws) -> Result<Report, Failure> {
    let (begun, now) = (Instant::now(), Utc::now());
    let deadline = Deadline::of(context.deadline());
    let unwrapped = unwrap(event)?;
    if request::snapshots::is_meant(&unwrapped.request) {
        return delete_snapshots(unwrapped, &context, aws.for_execution(&context.request_id), (begun, now), deadline)
            .await;
    }
    let request = Request::parse(unwrapped.request, unwrapped.time, now)?;
    let aws = aws.for_execution(&context.request_id);
    let deadline = if request.is_about_hours() { deadline.at_most(LONGEST_TICK) } else { deadline };
    check_regions(&request.regions, &aws)?;
    let (as_of, late) = as_of(request.scheduled_time, now);
    let report = if late > request.max_delay {
        Report::of_stale(&request, late, begun.elapsed())
    } else {
        let home = Home::of(&context.invoked_function_arn);
        // What a tick writes is of its own moment, which the next one is compared with.
        let utc = if request.is_about_hours() { as_of } else { now };
        let moment = Moment { as_of, run: Run::of(&context.request_id), clock: (begun.into(), utc) };
        let tell = |worked: &TargetRun| telemetry::log_target(&request, worked);
        let run = targets::run(&request, &aws, &home, deadline, moment, tell).await;
        telemetry::log_bad_tags(&request, &run);
        Report::of_run(&request, &run, begun.elapsed())
    };
    telemetry::log_metrics(&report, &context.env_config.function_name);
    telemetry::log_report(&report);
    // The next tick is the retry.
    if request.is_about_hours() { Ok(report) } else { verdict(report) }
}

/// Handles a request about snapshots.
async fn delete_snapshots(
    unwrapped: Unwrapped,
    context: &Context,
    aws: Aws,
    (begun, now): (Instant, DateTime<Utc>),
    deadline: Deadline,
) -> Result<Report, Failure> {
    let request = request::snapshots::Request::parse(unwrapped.request, unwrapped.time, now)?;
    check_regions(&request.regions, &aws)?;
    let (as_of, late) = as_of(request.scheduled_time, now);
    let report = if late > request.max_delay {
        Report::of_stale_snapshots(&request, late, begun.elapsed())
    } else {
        let home = Home::of(&context.invoked_function_arn);
        let tell = |worked: &snapshots::TargetRun| telemetry::log_snapshots(&request, worked);
        let run = snapshots::run(&request, &aws, &home, deadline, as_of, now, tell).await;
        Report::of_snapshots(&request, &run, begun.elapsed())
    };
    telemetry::log_metrics(&report, &context.env_config.function_name);
    telemetry::log_report(&report);
    verdict(report)
}

fn check_regions(regions: &Regions, aws: &Aws) -> Result<(), Refused> {
    match regions {
        Regions::Own | Regions::All if aws.own_region().is_none() => Err(Refused::one(
            "regions: missing, and the environment names no AWS_REGION; write one like \"us-east-1\"".to_owned(),
        )),
        Regions::Own | Regions::All | Regions::Named(_) => Ok(()),
    }
}

/// Returns the moment that a run stands for, and how late it is.
///
/// Clocks differ: a run never stands for a moment that is still to come, nor does its mark.
fn as_of(scheduled_time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> (DateTime<Utc>, Duration) {
    let as_of = scheduled_time.map_or(now, |due| due.min(now));
    (as_of, (now - as_of).to_std().unwrap_or(Duration::ZERO))
}

/// Succeeds only if nothing that should have changed is left.
fn verdict(report: Report) -> Result<Report, Failure> {
    let error_type = match report.outcome {
        Verdict::Complete | Verdict::Stale => return Ok(report),
        Verdict::Incomplete => "Incomplete",
        Verdict::Unfinished => "Unfinished",
        Verdict::TooManyChanges => "TooManyChanges",
    };
    Err(Failure { error_type, message: report.message })
}

/// Runs apart, so that a panic ends this event and not the function.
async fn contain<F>(pipeline: F) -> Result<Report, Failure>
where
    F: Future<Output = Result<Report, Failure>> + Send + 'static,
{
    tokio::spawn(pipeline).await.unwrap_or_else(|error| {
        Err(Failure { error_type: "Internal", message: format!("a bug in Curfew, please report it: {error}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_as_internal_and_the_next_event_works() {
        let failure = contain(async { panic!("boom") }).await.expect_err("it panicked");
        assert_eq!(failure.error_type, "Internal");
        assert!(failure.message.contains("boom"), "{}", failure.message);
        let next = contain(async { Err(Refused::one("next".to_owned()).into()) }).await;
        assert_eq!(next.expect_err("refused").error_type, "InvalidRequest");
    }

    /// Words that have no place in the pure middle: the adapter, who acts, the environment, clocks.
    const FOREIGN: [&str; 11] = [
        "aws_",
        "lambda_runtime",
        "crate::targets",
        "crate::telemetry",
        "ec2::Aws",
        "std::env",
        "SystemTime",
        "Utc::now",
        "Local::now",
        "Instant::now",
        "tokio::time::sleep",
    ];

    /// The files that nothing foreign may be in, and what else each may not know.
    const PURE: [(&str, &[&str]); 28] = [
        ("event.rs", &["crate::ec2", "crate::engine"]),
        ("event/foreign.rs", &["crate::request", "crate::ec2", "crate::engine"]),
        ("request.rs", &["crate::ec2", "crate::engine"]),
        ("request/shapes.rs", &["crate::ec2", "crate::engine"]),
        ("request/snapshots.rs", &["crate::ec2", "crate::engine"]),
        ("select.rs", &["crate::ec2", "crate::engine"]),
        ("instance.rs", &["crate::ec2", "crate::engine", "crate::request"]),
        ("hours.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan", "opening_hours"]),
        ("hours/osm.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan"]),
        ("hours/read.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan", "opening_hours"]),
        ("hours/refusal.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan", "opening_hours"]),
        ("hours/repair.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan", "opening_hours"]),
        ("hours/words.rs", &["crate::ec2", "crate::engine", "crate::request", "crate::plan", "opening_hours"]),
        ("plan.rs", &["crate::ec2", "crate::engine"]),
        ("plan/reconcile.rs", &["crate::ec2", "crate::engine"]),
        ("outcome.rs", &["crate::ec2", "crate::engine", "crate::request"]),
        ("report.rs", &["crate::ec2", "crate::engine"]),
        ("report/snapshots.rs", &["crate::ec2", "crate::engine"]),
        ("snapshots/rule.rs", &["crate::ec2", "crate::engine"]),
        ("wording.rs", &["crate::"]),
        ("ec2/refusal.rs", &["crate::engine", "crate::request"]),
        ("engine/answers.rs", &["Request"]),
        ("engine/backoff.rs", &["crate::"]),
        ("engine/due.rs", &["Request"]),
        ("engine/ledger.rs", &["Request"]),
        ("engine/looks.rs", &["Request"]),
        ("engine/marks.rs", &["Request"]),
        ("engine/queue.rs", &["Request"]),
    ];

    #[test]
    fn the_pure_middle_knows_no_adapter_no_environment_and_no_clock() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let source = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).expect(name);
            // What tests need is theirs.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
        };
        for (name, others) in PURE {
            let source = source(name);
            for word in FOREIGN.iter().chain(others) {
                // A type's name alone is looked for as a word: EC2's codes have "Request" in them.
                let known = match word.contains(|c: char| !c.is_ascii_alphanumeric()) {
                    true => source.contains(word),
                    false => source.split(|c: char| !c.is_ascii_alphanumeric()).any(|it| it == *word),
                };
                assert!(!known, "{name} knows {word}");
            }
        }
        for part in ["engine", "event", "hours", "plan", "report", "request", "snapshots"] {
            let files = std::fs::read_dir(folder.join(part)).expect(part);
            for file in files.map(|file| file.expect("a file").file_name()) {
                let name = format!("{part}/{}", file.to_string_lossy());
                assert!(
                    ["engine/pace.rs", "hours/tests", "hours/tests.rs", "snapshots/act.rs"].contains(&name.as_str())
                        || PURE.iter().any(|(pure, _)| *pure == name),
                    "{name} is held to nothing"
                );
            }
        }
        let adapter =
            std::fs::read_dir(folder.join("ec2")).expect("src/ec2").map(|file| file.expect("a file").file_name());
        let names_the_sdk: Vec<String> = adapter
            .map(|file| format!("ec2/{}", file.to_string_lossy()))
            // Only tests are compiled with the comparison of our reader with the SDK's.
            .filter(|name| name != "ec2/differential.rs" && source(name).contains("aws_sdk"))
            .collect();
        assert_eq!(names_the_sdk, ["ec2/aws.rs"]);
        assert!(source("engine.rs").contains("Instant::now") && !source("engine.rs").contains("request::Request"));
    }

    #[test]
    fn account_and_partition_come_from_the_arn() {
        let home = Home::of("arn:aws-cn:lambda:cn-north-1:123456789012:function:curfew:live");
        assert_eq!((home.account.as_str(), home.partition.as_str()), ("123456789012", "aws-cn"));
        let home = Home::of("No header lambda-runtime-invoked-function-arn found.");
        assert_eq!((home.account.as_str(), home.partition.as_str()), ("unknown", "aws"));
    }
}
