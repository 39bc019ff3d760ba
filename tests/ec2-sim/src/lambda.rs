//! A simulated Lambda: runs a real binary, hands it events, and kills it at the deadline. Knows nothing about EC2.

mod process;
mod runtime_api;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use process::Process;
use runtime_api::{Event, Happening};

/// Lambda gives a function this long to start and ask for its first event (Lambda developer guide, "Understanding the
/// Lambda execution environment lifecycle").
const INIT_LIMIT: Duration = Duration::from_secs(10);
/// How long a function may take to ask for the next event after an answer; if it doesn't ask, the answer still counts.
const LINGER_LIMIT: Duration = Duration::from_secs(1);

/// The environment that Lambda sets, except for the Runtime API's address.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "curfew"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

/// A Lambda function: one binary, its environment, and one process of it at a time.
pub struct Host {
    binary: PathBuf,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    /// The last invocation's request id.
    request_id: String,
}

/// The result of handing over one event.
#[derive(Debug)]
pub struct Invocation {
    /// How it ended.
    pub outcome: Outcome,
    /// The lines written to stdout and stderr, as CloudWatch would show them; from the start of the process if it is
    /// new.
    pub logs: Vec<String>,
    /// The time from handing over the event to the outcome, not counting the start of a new process.
    pub took: Duration,
    /// The request id that the function was given.
    pub request_id: String,
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The function answered.
    Answered(Value),
    /// The function reported an error, at its start or for this event.
    Failed {
        /// For example `Unfinished`.
        error_type: String,
        /// The error's text.
        message: String,
    },
    /// The deadline passed, and the process was killed.
    Killed,
    /// The process ended by itself, with this exit status.
    Exited(String),
}

impl Invocation {
    /// Returns the log lines that are JSON objects.
    pub fn json_logs(&self) -> Vec<Value> {
        let parsed = self.logs.iter().filter_map(|line| serde_json::from_str(line).ok());
        parsed.filter(Value::is_object).collect()
    }
}

impl Host {
    /// Starts the binary with Lambda's environment and `environment`, and of this process's own only `PATH`: a
    /// developer's `AWS_*` must not leak in.
    ///
    /// # Panics
    /// If the binary cannot be run.
    pub async fn start(binary: &Path, environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let environment = ENVIRONMENT.iter().chain(environment).map(own).collect();
        let mut host = Self { binary: binary.to_owned(), environment, process: None, request_id: request_id() };
        host.process = Some(host.spawn().await);
        host
    }

    /// Hands over one event under a new request id, to a new process if the last one is gone; dropping the future kills
    /// the process.
    ///
    /// # Panics
    /// If the binary cannot be run any more.
    pub async fn invoke(&mut self, event: impl Into<Vec<u8>>, timeout: Duration) -> Invocation {
        self.request_id = request_id();
        self.retry(event, timeout).await
    }

    /// Hands over an event as [`Host::invoke`] does, but under the request id of the last one, as Lambda does when it
    /// retries an asynchronous invocation.
    ///
    /// # Panics
    /// If the binary cannot be run any more.
    pub async fn retry(&mut self, event: impl Into<Vec<u8>>, timeout: Duration) -> Invocation {
        let request_id = self.request_id.clone();
        let mut process = match self.process.take().take_if(Process::is_alive) {
            Some(process) => process,
            None => self.spawn().await,
        };
        process.hand_over(Event { body: event.into(), timeout, request_id: request_id.clone() });

        let mut begun = Instant::now();
        let mut deadline = begun + INIT_LIMIT;
        let mut ended: Option<(Outcome, Duration)> = None;
        let goes_on = loop {
            match process.next(deadline).await {
                Happening::HandedOver => {
                    begun = Instant::now();
                    deadline = begun + timeout;
                }
                Happening::Ended(outcome) => {
                    ended = Some((outcome, begun.elapsed()));
                    deadline = Instant::now() + LINGER_LIMIT;
                }
                // Only when the function asks again is it certain that all its log lines are written.
                Happening::Asked if ended.is_some() => break true,
                Happening::Asked => {}
                Happening::Exited(status) => {
                    ended.get_or_insert((Outcome::Exited(status), begun.elapsed()));
                    break false;
                }
                Happening::TimedOut => {
                    process.kill().await;
                    ended.get_or_insert((Outcome::Killed, begun.elapsed()));
                    break false;
                }
            }
        };
        let (outcome, took) = ended.expect("the loop ends only after an end was noted");
        let logs = process.new_lines();
        if goes_on {
            self.process = Some(process);
        }
        Invocation { outcome, logs, took, request_id }
    }

    /// Returns the id of the process between two invocations; none if it is gone.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Kills the process between two invocations; the next invocation starts a new one.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    async fn spawn(&self) -> Process {
        Process::spawn(&self.binary, &self.environment)
            .await
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()))
    }
}

/// Builds a random UUID (version 4); the random seeds of the standard library's hash tables are random enough.
fn request_id() -> String {
    let noise = || RandomState::new().build_hasher().finish();
    let (high, low) = (noise(), noise());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}
