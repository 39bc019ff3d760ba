//! The port: the few verbs of EC2 that Curfew needs, in its own types.
//!
//! The calls about snapshots have no double in this process, and so no trait: they are [`AwsEc2`]'s own.
//!
//! Behind it stand the AWS SDK ([`AwsEc2`], the adapter) and, in the engine's tests, a double in this process.

use std::fmt;
use std::future::Future;

use serde::Deserialize;

use crate::deadline::Deadline;
use crate::instance::{Instance, InstanceId, Mark, State};
use crate::plan::Step;
use crate::request::Mode;
use crate::select::Filters;

mod aws;
#[cfg(test)]
mod differential;
mod page;
mod refusal;

pub use aws::{Aws, AwsEc2, Billing};
pub use refusal::{Class, Fall, classify, fall, is_denied_by_organization, may_pass};

/// EC2 in one account and region.
///
/// Every verb is given up at its deadline; what it did is then unknown.
pub trait Ec2: Sync {
    /// Reads the instances that match, over all pages, and keeps of each what `keep` returns.
    ///
    /// # Errors
    /// EC2 refused a page, did not answer in time, or answered what can't be read.
    fn matching<T: Send>(
        &self,
        filters: &Filters,
        keep: impl Fn(Instance) -> Option<T> + Send,
        until: Deadline,
    ) -> impl Future<Output = Result<Vec<T>, Error>> + Send;

    /// Looks at instances by id: at most [`MAX_IDS`].
    ///
    /// # Errors
    /// EC2 refused, as it does if it doesn't know one of them, or did not answer in time.
    fn by_id(&self, ids: &[InstanceId], until: Deadline) -> impl Future<Output = Result<Vec<Instance>, Error>> + Send;

    /// Stops or starts instances, once: the pacer must see every throttled answer, so the engine does the repeating. With
    /// [`Mode::DryRun`] it asks whether that would be allowed, and a yes answers nothing about any instance.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    fn switch(
        &self,
        step: Step,
        ids: &[InstanceId],
        mode: Mode,
        until: Deadline,
    ) -> impl Future<Output = Result<Vec<Change>, Error>> + Send;

    /// Writes a mark, over any other.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    fn mark(
        &self,
        mark: &Mark,
        ids: &[InstanceId],
        mode: Mode,
        until: Deadline,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes a mark where it has just this value.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    fn unmark(
        &self,
        mark: &Mark,
        ids: &[InstanceId],
        until: Deadline,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Instances on a page of DescribeInstances: the most that EC2 gives.
pub const PAGE: i32 = 1000;
/// Ids that one DescribeInstances, CreateTags or DeleteTags call takes.
pub const MAX_IDS: usize = 1000;

/// What a token bucket of EC2's holds, and how many tokens come back a second.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Rate {
    /// Tokens in a full bucket: what can be asked for at once.
    pub size: f64,
    /// Tokens a second.
    pub refill: f64,
}

/// What EC2 allows an account in a region of one action: calls, and instances in them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Buckets {
    /// One token a call.
    pub calls: Rate,
    /// One token an instance.
    pub instances: Rate,
}

/// What EC2 documents for StartInstances (EC2 developer guide, "Request throttling for the Amazon EC2 API").
pub const START_BUCKETS: Buckets =
    Buckets { calls: Rate { size: 5.0, refill: 2.0 }, instances: Rate { size: 1000.0, refill: 2.0 } };
/// What EC2 documents for StopInstances, a plain mutating action.
pub const STOP_BUCKETS: Buckets =
    Buckets { calls: Rate { size: 50.0, refill: 5.0 }, instances: Rate { size: 1000.0, refill: 20.0 } };

/// EC2's documented limits for DeleteSnapshot; it has no bucket of resources.
pub const DELETE_SNAPSHOT_BUCKETS: Buckets =
    Buckets { calls: Rate { size: 100.0, refill: 5.0 }, instances: Rate { size: 1.0, refill: 1.0 } };
/// EC2's documented limits for a call without filter or pages, such as DescribeSnapshotAttribute, less five tokens: calls in
/// such quick succession reach EC2 unevenly.
pub const LOOK_BUCKETS: Buckets =
    Buckets { calls: Rate { size: 45.0, refill: 10.0 }, instances: Rate { size: 1.0, refill: 1.0 } };

/// EC2's limits for this account: the documented ones, unless AWS has raised them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase", expecting = "an object")]
pub struct Limits {
    /// Of StartInstances.
    pub start_instances: Buckets,
    /// Of StopInstances.
    pub stop_instances: Buckets,
}

impl Default for Limits {
    fn default() -> Self {
        Self { start_instances: START_BUCKETS, stop_instances: STOP_BUCKETS }
    }
}

impl Limits {
    /// Reads them as an administrator writes them, as JSON; those left out are the documented ones.
    ///
    /// # Errors
    /// What is wrong with it, and how it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str =
            r#"{"StartInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 1000, "refill": 2}}}"#;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let limits: Self =
            serde_json::from_str(text).map_err(|error| format!("{error}; leave it out, or write it like {EXAMPLE}"))?;
        let rates = [limits.start_instances, limits.stop_instances].map(|buckets| [buckets.calls, buckets.instances]);
        match rates.as_flattened().iter().find(|rate| !(rate.size >= 1.0 && rate.refill > 0.0)) {
            None => Ok(limits),
            Some(rate) => Err(format!(
                "size {} and refill {}; a bucket holds 1 at least, and fills by more than 0 a second",
                rate.size, rate.refill
            )),
        }
    }

    /// Returns those of a step.
    #[must_use]
    pub fn of(&self, step: Step) -> Buckets {
        match step {
            Step::Stop { .. } => self.stop_instances,
            Step::Start => self.start_instances,
        }
    }
}

/// Our code where no answer came in time.
pub const TIMEOUT: &str = "Timeout";
/// Our code where EC2 answers a dry run as if it had been carried out.
pub const DRY_RUN_IGNORED: &str = "DryRunIgnored";

/// What EC2 answered about one instance of a Stop or a Start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which instance.
    pub id: InstanceId,
    /// Its state before the call.
    pub from: State,
    /// Its state after the call.
    pub to: State,
}

/// A call that EC2 did not carry out, or whose answer never came.
#[derive(Clone, Debug)]
pub struct Error {
    /// EC2's code, or ours where EC2 gave none: `Timeout`, `NoConnection`, `BrokenAnswer`, `NotSent`, `Deadline`,
    /// `DryRunIgnored`, `Http302` and the like.
    pub code: String,
    /// EC2's sentence, or what went wrong on the way.
    pub message: String,
    /// Who said no.
    pub kind: ErrorKind,
}

/// Who said no to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// EC2, with this HTTP status.
    Refused {
        /// The answer's HTTP status.
        status: u16,
    },
    /// Nobody: no answer, or none that could be read. What happened is unknown.
    NoAnswer,
    /// We: the answer could not have come before the deadline. What happened is unknown if the call was out.
    TooLate,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}
