//! The port: the few verbs of EC2 that Curfew needs, in its own types.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::instance::{InstanceId, State};
use crate::request::Action;

mod aws;
mod page;

pub use aws::{Aws, Ec2};

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

    /// Gives those of the action.
    #[must_use]
    pub fn of(&self, action: Action) -> Buckets {
        match action {
            Action::Stop { .. } => self.stop_instances,
            Action::Start => self.start_instances,
        }
    }
}

/// Our code where no answer came in time.
pub const TIMEOUT: &str = "Timeout";

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// CreateTags with the mark.
    Mark(DateTime<Utc>),
    /// DeleteTags of the mark.
    Unmark,
    /// StopInstances.
    Stop {
        /// Save the memory to the root volume first.
        hibernate: bool,
    },
    /// StartInstances.
    Start,
}

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
    /// EC2's code, or ours where EC2 gave none: `Timeout`, `NoConnection`, `BrokenAnswer`, `NotSent`,
    /// `Deadline`.
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
