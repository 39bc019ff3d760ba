//! A function, ours or the rival's, and what one invocation of it costs.

use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use ec2_sim::{Host, Outcome, Sim};
use serde_json::Value;
use tokio::time::sleep;

use crate::process;

/// Lambda's longest timeout.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often the open files are counted.
const COUNT_EVERY: Duration = Duration::from_millis(10);
const RIVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rival.py");

/// The program of a Lambda function, and its environment.
pub(crate) struct Function {
    pub(crate) name: String,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

/// What the first invocation of a new process cost.
pub(crate) struct Taken {
    /// The function's answer.
    pub(crate) answer: Value,
    /// The time from starting the process until it has answered and asks for the next event.
    pub(crate) since_start: Duration,
    /// The time from handing over the event to the answer.
    pub(crate) event: Duration,
    /// User and system time of the process, including its start.
    pub(crate) cpu: Duration,
    /// Peak memory, in bytes.
    pub(crate) memory: u64,
    /// The most files that were open at any count.
    pub(crate) files: usize,
    /// Bytes written to the log, including line ends.
    pub(crate) log: usize,
}

impl Function {
    /// Builds our function from one of its binaries.
    pub(crate) fn ours(name: &str, binary: &Path) -> Self {
        Self { name: name.to_owned(), binary: binary.to_owned(), environment: Vec::new() }
    }

    /// Returns the same function with a log of errors only.
    pub(crate) fn silent(&self) -> Self {
        let level = ("AWS_LAMBDA_LOG_LEVEL".to_owned(), "ERROR".to_owned());
        let environment = self.environment.iter().cloned().chain([level]).collect();
        Self { name: format!("{}, silent", self.name), binary: self.binary.clone(), environment }
    }

    /// Builds the boto3 handler, run by this Python.
    pub(crate) fn rival(python: &Path) -> Self {
        // Links aren't resolved: a venv's Python is a link, and finds its packages by where the link is.
        let python = absolute(python).unwrap_or_else(|_| python.to_owned());
        let folder = python.parent().unwrap_or(&python).display();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let environment = vec![("PATH".to_owned(), path)];
        Self { name: "boto3".to_owned(), binary: RIVAL.into(), environment }
    }

    /// Returns its name and the size of its binary.
    pub(crate) fn described(&self) -> String {
        let bytes = std::fs::metadata(&self.binary).map_or(0, |file| file.len());
        format!("`{}` ({:.1} MB)", self.name, bytes as f64 / 1e6)
    }

    /// Hands one event to a new process.
    ///
    /// # Errors
    /// The function failed, or `/proc` can't be read.
    pub(crate) async fn run(&self, sim: &Sim, limits: &Value, event: &Value) -> Result<Taken, String> {
        let (url, limits) = (sim.url(), limits.to_string());
        let mut environment = vec![
            ("AWS_ENDPOINT_URL_EC2", url.as_str()),
            ("AWS_ENDPOINT_URL_STS", url.as_str()),
            // Lambda sets both this and AWS_REGION, and boto3 reads only this one.
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("CURFEW_EC2_LIMITS", limits.as_str()),
        ];
        environment.extend(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));

        let begun = Instant::now();
        let mut host = Host::start(&self.binary, &environment).await;
        let pid = host.pid().ok_or("the process has no number")?;
        let mut files = 0;
        let count = async {
            loop {
                // Not before the first pause: a new process still has the runner's files open.
                sleep(COUNT_EVERY).await;
                files = files.max(process::open_files(pid));
            }
        };
        let invocation = tokio::select! {
            invocation = host.invoke(event.to_string(), LIMIT) => invocation,
            () = count => unreachable!("it counts for ever"),
        };
        let since_start = begun.elapsed();
        let log = invocation.logs.iter().map(|line| line.len() + 1).sum();
        let report = invocation.json_logs().pop().unwrap_or_default();
        let answer = match invocation.outcome {
            Outcome::Answered(answer) => answer,
            // EC2 refused some instances, as in the row `poison`: the report is the log's last line.
            Outcome::Failed { error_type, .. } if error_type == "Incomplete" => report,
            other => return Err(format!("{} did not succeed: {other:?}\n{}", self.name, last(&invocation.logs))),
        };
        let unreadable = |error| format!("/proc/{pid}: {error}");
        let cpu = process::cpu(pid).map_err(unreadable)?;
        let memory = process::peak_memory(pid).map_err(unreadable)?;
        host.kill().await;
        Ok(Taken { answer, since_start, event: invocation.took, cpu, memory, files, log })
    }
}

/// Returns the last five lines of a log, each cut to 300 characters.
fn last(logs: &[String]) -> String {
    let from = logs.len().saturating_sub(5);
    logs[from..].iter().map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join("\n")
}
