//! Pure data: the outcome of a run, of each of its targets and of each instance, shared by the engine and the report.

use std::collections::BTreeMap;

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::hours::read::BadTag;
use crate::instance::{Instance, InstanceId, State};
use crate::plan::Task;

/// Bytes of an EC2 message that are passed on: a refusal of a thousand ids, or a page of HTML, helps nobody.
const MAX_MESSAGE: usize = 2000;

/// Cuts an EC2 message to the length that is passed on.
#[must_use]
pub fn cut(message: &str) -> String {
    match message.len() <= MAX_MESSAGE {
        true => message.to_owned(),
        false => format!("{}…", &message[..message.floor_char_boundary(MAX_MESSAGE)]),
    }
}

/// What a run did, target by target.
#[derive(Debug, Default)]
pub struct Run {
    /// Every account and region, in the order in which they were worked on.
    pub targets: Vec<TargetRun>,
    /// How many the plan would have changed, if that is more than `max_changes` and it was not carried out.
    pub too_many_changes: Option<usize>,
    /// What a look at every state found, if nothing matched although every target could be asked.
    pub second_look: Option<Result<SecondLook, Trouble>>,
}

/// What the request selects in any state: "already stopped" and "no such instance" must read differently.
#[derive(Debug, Default)]
pub struct SecondLook {
    /// Instances already in the state that the action aims for.
    pub done: usize,
    /// Instances in other states, by state.
    pub others: BTreeMap<String, usize>,
    /// If there are none at all: how many instances have the tags' keys with other values, by those tags.
    pub near: BTreeMap<String, usize>,
}

/// The outcome of one account and region.
#[derive(Debug)]
pub struct TargetRun {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The outcome of each instance that matched, each exactly once.
    pub settled: Vec<Settled>,
    /// Why the target failed as a whole.
    pub error: Option<Trouble>,
    /// Why it was skipped, if that isn't an error.
    pub note: Option<String>,
}

/// Why a whole account and region failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// EC2's code, or ours where EC2 gave none.
    pub code: String,
    /// The message that comes with it.
    pub message: String,
    /// Whether a retry may succeed.
    pub may_pass: bool,
}

/// An instance and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which instance.
    pub id: InstanceId,
    /// Its tag `Name`.
    pub name: Option<Box<str>>,
    /// What was to be done to it, if anything.
    pub task: Option<Task>,
    /// Its outcome.
    pub outcome: Outcome,
}

impl Settled {
    /// Builds the record of an instance's outcome.
    #[must_use]
    pub fn of(instance: &Instance, task: Option<Task>, outcome: Outcome) -> Self {
        Self { id: instance.id, name: instance.name().map(Into::into), task, outcome }
    }

    /// Returns its name, or its id if it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }

    /// Whether it is only counted in reports, and not listed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.outcome {
            Outcome::WouldChange { .. } => self.task.is_some_and(|task| task.quiet),
            Outcome::Skipped(skip) => skip.quiet || matches!(skip.reason, Reason::AsScheduled | Reason::Moving),
            Outcome::Changed { .. } | Outcome::Failed { .. } | Outcome::Unfinished { .. } => false,
        }
    }
}

/// The outcome of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "from and to are states")]
pub enum Outcome {
    /// EC2 said that it changed.
    Changed {
        from: State,
        to: State,
        /// When it was last started before.
        launched: DateTime<Utc>,
        /// What the states alone don't say.
        message: Option<Box<str>>,
    },
    /// EC2 said that it would change.
    WouldChange { from: State, to: State },
    /// Left alone.
    Skipped(Box<Skip>),
    /// EC2 refused.
    Failed {
        /// EC2's code.
        code: Box<str>,
        /// EC2's sentence, and a hint where we have one.
        message: Box<str>,
    },
    /// Not done, or not known to be done; a retry may do it.
    Unfinished {
        /// `deadline`, or the code that stood in the way.
        reason: Box<str>,
    },
}

impl Outcome {
    /// Skips an instance for a reason that needs no message.
    #[must_use]
    pub fn skipped(reason: Reason) -> Self {
        Self::Skipped(Skip::because(reason).into())
    }
}

/// Why an instance is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The reason, from a fixed list.
    pub reason: Reason,
    /// Up to when, if it ends.
    pub until: Option<DateTime<Utc>>,
    /// What the reason alone doesn't say.
    pub message: Option<String>,
    /// A tag can't be read: somebody should correct it.
    pub wants_attention: bool,
    /// An earlier run has reported it, and nothing has happened since.
    pub quiet: bool,
    /// The hours tag that can't be read.
    pub bad_tag: Option<Arc<BadTag>>,
}

impl Skip {
    /// Skips for a reason that needs no message.
    #[must_use]
    pub fn because(reason: impl Into<Reason>) -> Self {
        Self { reason: reason.into(), until: None, message: None, wants_attention: false, quiet: false, bad_tag: None }
    }

    /// Skips for a reason that needs a message.
    #[must_use]
    pub fn saying(reason: impl Into<Reason>, message: String) -> Self {
        Self { message: Some(message), ..Self::because(reason) }
    }
}

/// The reasons for which Curfew leaves an instance alone, or keeps a snapshot; their names are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "README.md, \"Why didn't mine stop?\", and infra/README.md, \"Snapshots\", say when each applies"
)]
pub enum Reason {
    AlreadyDone,
    AsScheduled,
    AutoscalingMember,
    BadTag,
    Exempt,
    Gone,
    HasHours,
    InstanceStoreRoot,
    Kept(Kept),
    Moving,
    NotMarked,
    ServiceManaged,
    SpotOneTime,
    StartedSince,
    StopProtected,
    StoppedSince,
    Tried,
    UnknownState,
}

/// The reasons that only a snapshot is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "infra/README.md, \"Snapshots\", says when each applies")]
pub enum Kept {
    Archived,
    Backup,
    Copied,
    FastRestore,
    Image,
    Locked,
    Marked,
    NotCompleted,
    Shared,
    TooYoung,
    Unknown,
    VolumeExists,
}

impl From<Kept> for Reason {
    fn from(kept: Kept) -> Self {
        Self::Kept(kept)
    }
}

impl Reason {
    /// Returns its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyDone => "already_done",
            Self::AsScheduled => "as_scheduled",
            Self::AutoscalingMember => "autoscaling_member",
            Self::BadTag => "bad_tag",
            Self::Exempt => "exempt",
            Self::Gone => "gone",
            Self::HasHours => "has_hours",
            Self::InstanceStoreRoot => "instance_store_root",
            Self::Kept(Kept::Archived) => "archived",
            Self::Kept(Kept::Backup) => "backup",
            Self::Kept(Kept::Copied) => "copied",
            Self::Kept(Kept::FastRestore) => "fast_restore",
            Self::Kept(Kept::Image) => "image",
            Self::Kept(Kept::Locked) => "locked",
            Self::Kept(Kept::Marked) => "marked",
            Self::Kept(Kept::NotCompleted) => "not_completed",
            Self::Kept(Kept::Shared) => "shared",
            Self::Kept(Kept::TooYoung) => "too_young",
            Self::Kept(Kept::Unknown) => "unknown",
            Self::Kept(Kept::VolumeExists) => "volume_exists",
            Self::Moving => "moving",
            Self::NotMarked => "not_marked",
            Self::ServiceManaged => "service_managed",
            Self::SpotOneTime => "spot_one_time",
            Self::StartedSince => "started_since",
            Self::StopProtected => "stop_protected",
            Self::StoppedSince => "stopped_since",
            Self::Tried => "tried",
            Self::UnknownState => "unknown_state",
        }
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
