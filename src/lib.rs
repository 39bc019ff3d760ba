//! Curfew switches EC2 instances off when nobody needs them, and on again before people come to work.
//!
//! One way in, one way out: [`event`] → [`request`] → [`plan`] → [`execute`] → [`report`], once per account and
//! region ([`targets`]). The middle ([`request`], [`select`], [`instance`], [`plan`], [`report`]) is pure: no SDK,
//! no environment, no clock. [`ec2`] is the port, and its adapter the only file that names the SDK.

pub mod deadline;
pub mod ec2;
pub mod event;
pub mod execute;
pub mod instance;
pub mod plan;
pub mod report;
pub mod request;
pub mod select;
pub mod targets;
pub mod telemetry;

use std::future::Future;
use std::time::{Duration, Instant};

use chrono::Utc;
use lambda_runtime::{Context, Diagnostic, LambdaEvent};

use crate::deadline::Deadline;
use crate::ec2::Aws;
use crate::event::{Event, unwrap};
use crate::report::{Report, Verdict};
use crate::request::{Refused, Regions, Request};
use crate::targets::{Home, Worked};

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
    let request = Request::parse(unwrapped.request, unwrapped.time, now)?;
    if !matches!(request.regions, Regions::Named(_)) && aws.own_region().is_none() {
        return Err(Refused::one(
            "regions: missing, and the environment names no AWS_REGION; write one like \"us-east-1\"".to_owned(),
        )
        .into());
    }
    // Clocks differ: a run never stands for a moment that is still to come, nor does its mark.
    let as_of = request.scheduled_time.map_or(now, |due| due.min(now));
    let late = (now - as_of).to_std().unwrap_or(Duration::ZERO);
    let report = if late > request.max_delay {
        Report::of_stale(&request, late, begun.elapsed())
    } else {
        let home = Home::of(&context.invoked_function_arn);
        let tell = |worked: &Worked| telemetry::tell_target(&request, worked);
        let run = targets::run(&request, &aws, &home, deadline, as_of, tell).await;
        Report::of_run(&request, &run, begun.elapsed())
    };
    telemetry::tell_metrics(&report);
    telemetry::tell(&report);
    verdict(report)
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
        Err(Failure { error_type: "Internal", message: format!("a defect in Curfew, please report it: {error}") })
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

    #[test]
    fn account_and_partition_come_from_the_arn() {
        let home = Home::of("arn:aws-cn:lambda:cn-north-1:123456789012:function:curfew:live");
        assert_eq!((home.account.as_str(), home.partition.as_str()), ("123456789012", "aws-cn"));
        let home = Home::of("No header lambda-runtime-invoked-function-arn found.");
        assert_eq!((home.account.as_str(), home.partition.as_str()), ("unknown", "aws"));
    }
}
