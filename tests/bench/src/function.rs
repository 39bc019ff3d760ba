//! One function, ours or the rival's, and what one invocation of it takes.

use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use ec2_sim::{Host, Outcome, Sim};
use serde_json::Value;
use tokio::time::sleep;

use crate::process;

/// Lambda's longest.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often the open files are counted.
const COUNT_EVERY: Duration = Duration::from_millis(10);
const RIVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rival.py");

/// A program that a Lambda function consists of.
pub(crate) struct Function {
    pub(crate) name: String,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

/// What the first invocation of a new process took.
pub(crate) struct Taken {
    /// The function's answer.
    pub(crate) answer: Value,
    /// From starting the process until it has answered and asks for the next event.
    pub(crate) since_start: Duration,
    /// From handing over the event to the answer.
    pub(crate) event: Duration,
    /// User and system time of the process, its start included.
    pub(crate) cpu: Duration,
    /// The most memory it had, in bytes.
    pub(crate) memory: u64,
    /// The most files it had open whenever they were counted.
    pub(crate) files: usize,
    /// Bytes that it wrote to its log, line ends included.
    pub(crate) log: usize,
}

impl Function {
    /// Our function, or a build of it.
    pub(crate) fn ours(name: &str, binary: &Path) -> Self {
        Self { name: name.to_owned(), binary: binary.to_owned(), environment: Vec::new() }
    }

    /// The same, writing only errors to its log.
    pub(crate) fn silent(&self) -> Self {
        let level = ("AWS_LAMBDA_LOG_LEVEL".to_owned(), "ERROR".to_owned());
        let environment = self.environment.iter().cloned().chain([level]).collect();
        Self { name: format!("{}, silent", self.name), binary: self.binary.clone(), environment }
    }

    /// The boto3 handler, run by this Python.
    pub(crate) fn rival(python: &Path) -> Self {
        // Not resolved: a venv's Python is a link, and knows the venv by where the link is.
        let python = absolute(python).unwrap_or_else(|_| python.to_owned());
        let folder = python.parent().unwrap_or(&python).display();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let environment = vec![("PATH".to_owned(), path)];
        Self { name: "boto3".to_owned(), binary: RIVAL.into(), environment }
    }

    /// Its name and its size.
    pub(crate) fn described(&self) -> String {
        let bytes = std::fs::metadata(&self.binary).map_or(0, |file| file.len());
        format!("`{}` ({:.1} MB)", self.name, bytes as f64 / 1e6)
    }

    /// Hands one event to a new process of it.
    ///
    /// # Errors
    /// The function failed, or the kernel could not be asked.
    pub(crate) async fn run(&self, sim: &Sim, limits: &Value, event: &Value) -> Result<Taken, String> {
        let (url, limits) = (sim.url(), limits.to_string());
        let mut environment = vec![
            ("AWS_ENDPOINT_URL_EC2", url.as_str()),
            ("AWS_ENDPOINT_URL_STS", url.as_str()),
            // Lambda sets it beside AWS_REGION, and boto3 reads only this one.
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
                // At first it still has what the runner has open.
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
            // EC2 refused some, as the row wants it: the report is the log's last line.
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

/// The end of a log.
fn last(logs: &[String]) -> String {
    let from = logs.len().saturating_sub(5);
    logs[from..].iter().map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join("\n")
}
