//! The port: the few verbs of EC2 that Curfew needs, in its own types.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::instance::{InstanceId, State};

mod aws;

pub use aws::{Aws, Ec2};

/// Instances on a page of DescribeInstances: the most that EC2 gives.
pub const PAGE: i32 = 1000;
/// Ids that one DescribeInstances, CreateTags or DeleteTags call takes.
pub const MAX_IDS: usize = 1000;
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

/// What EC2 answered to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it said about each instance.
    pub changes: Vec<Change>,
    /// An earlier attempt of the same call got no answer: what EC2 found done may have been that.
    pub repeated: bool,
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
    /// An earlier attempt of the same call got no answer, and may have been carried out.
    pub repeated: bool,
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
