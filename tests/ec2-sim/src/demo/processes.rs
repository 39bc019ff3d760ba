//! The programs that the demo runs: the function, and `cargo lambda` in Lambda's place. None outlives the demo.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::report::Report;

/// How long `cargo lambda watch` may take to listen: it asks cargo about the workspace first, which may wait for a
/// build.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
const INVOKE_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for the report after the answer: it was written before, but the pipe may take a moment.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// How many ports are tried: a free one may be taken before `cargo lambda watch` binds it.
const PORTS: usize = 5;
/// If its port is taken, `cargo lambda watch` exits within this time.
const BIND_GRACE: Duration = Duration::from_millis(150);
const POLL: Duration = Duration::from_millis(20);
/// How many of a program's last lines are shown if it fails.
const TAIL: usize = 12;

#[derive(Default)]
pub(crate) struct Processes {
    invoker: Option<Invoker>,
    running: Vec<Process>,
    /// How many of the function's lines have been searched for a report.
    read: usize,
}

/// How `cargo lambda invoke` reaches the function.
struct Invoker {
    cargo_lambda: Box<OsStr>,
    port: u16,
}

/// The event that `cargo lambda invoke` hands over.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    File(&'a Path),
    Text(&'a str),
}

/// How `cargo lambda invoke` ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    /// The function failed, with this error type.
    Failed(String),
}

struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Failed(error_type) => write!(f, "failed with {error_type}"),
        }
    }
}

impl Ended {
    /// Returns a sentence if it contradicts the report: a run may only succeed if it left nothing undone.
    pub(crate) fn disagreement(&self, report: &Report) -> Option<String> {
        let is_clean = matches!(report.outcome.as_str(), "complete" | "stale");
        (is_clean != (*self == Self::Answered))
            .then(|| format!("the outcome is {}, the invocation {self}", report.outcome))
    }
}

impl Processes {
    /// Starts `cargo lambda watch` on a free port, and the function behind it.
    pub(crate) async fn start(&mut self, binary: &Path, cargo_lambda: &Path, ec2: &str) -> Result<(), String> {
        if !binary.is_file() {
            return Err(format!("there is no {}: build it with `cargo build`", binary.display()));
        }
        let port = self.watch(cargo_lambda).await?;
        let mut function = Command::new(binary);
        function
            .env_clear()
            .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("AWS_LAMBDA_RUNTIME_API", format!("http://127.0.0.1:{port}/.rt"))
            .env("AWS_LAMBDA_FUNCTION_NAME", "_")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_ENDPOINT_URL_EC2", ec2);
        self.running.push(Process::start("the function", function)?);
        self.invoker = Some(Invoker { cargo_lambda: cargo_lambda.as_os_str().into(), port });
        Ok(())
    }

    async fn watch(&mut self, cargo_lambda: &Path) -> Result<u16, String> {
        let mut failure = String::new();
        for _ in 0..PORTS {
            let port = free_port().await.map_err(|error| format!("no free port: {error}"))?;
            let mut command = lambda(cargo_lambda.as_os_str(), "watch", port);
            command.arg("--only-lambda-apis");
            let watch = Process::start("cargo lambda watch", command)
                .map_err(|problem| format!("{problem}; where is it? Say so with --cargo-lambda"))?;
            // Added before anything is awaited, so that `end` finds it.
            self.running.push(watch);
            let Some(watch) = self.running.last_mut() else { unreachable!("it was just pushed") };
            match watch.listens(port).await {
                Ok(()) => return Ok(port),
                Err(problem) => failure = problem,
            }
            self.end().await;
        }
        Err(failure)
    }

    /// Runs `cargo lambda invoke` with an event.
    pub(crate) async fn invoke(&mut self, event: Data<'_>) -> Result<Ended, String> {
        let invoker = self.invoker.as_ref().expect("start comes first");
        let mut command = lambda(&invoker.cargo_lambda, "invoke", invoker.port);
        match event {
            Data::File(file) => command.arg("--data-file").arg(file),
            Data::Text(text) => command.args(["--data-ascii", text]),
        };
        self.running.push(Process::start("cargo lambda invoke", command)?);
        let [watch, function, invoke] = self.running.as_mut_slice() else { unreachable!("these three were pushed") };
        let status = tokio::select! {
            ended = timeout(INVOKE_LIMIT, invoke.finish()) => match ended {
                Ok(status) => status?,
                Err(_) => {
                    let problem = format!("cargo lambda invoke got no answer within {} s", INVOKE_LIMIT.as_secs());
                    return Err(problem + &function.tail() + &watch.tail());
                }
            },
            gone = function.finish() => return Err(function.gone(gone)),
            gone = watch.finish() => return Err(watch.gone(gone)),
        };
        let ended = match status.success() {
            true => Ended::Answered,
            false => {
                let lines = invoke.lines();
                // Like `Error: Incomplete`; if it did not reach the function, a sentence follows instead of a word.
                let error_type = lines.iter().find_map(|line| line.trim_end().strip_prefix("Error: "));
                match error_type.filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric())) {
                    Some(word) => Ended::Failed(word.to_owned()),
                    None => return Err(invoke.gone(Ok(status)) + &function.tail()),
                }
            }
        };
        self.running.pop();
        Ok(ended)
    }

    /// Reads the report of the last invocation from the function's log.
    pub(crate) async fn report(&mut self, ended: &Ended) -> Result<Report, String> {
        let [_, function] = self.running.as_slice() else { unreachable!("start pushed two, and invoke pops its own") };
        let begun = Instant::now();
        loop {
            let lines = function.lines();
            let found =
                lines.iter().enumerate().skip(self.read).find_map(|(n, line)| Some((n, Report::of_line(line)?)));
            if let Some((n, report)) = found {
                self.read = n + 1;
                return Ok(report);
            }
            if begun.elapsed() > REPORT_LIMIT {
                return Err(format!("the invocation {ended}, but the function logged no report{}", function.tail()));
            }
            sleep(POLL).await;
        }
    }

    /// Ends all processes that are still running.
    pub(crate) async fn end(&mut self) {
        while let Some(mut process) = self.running.pop() {
            process.end().await;
        }
    }
}

impl Process {
    fn start(name: &'static str, mut command: Command) -> Result<Self, String> {
        let program = Path::new(command.as_std().get_program()).display().to_string();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
        let lines = Arc::default();
        let out = child.stdout.take().map(|out| tokio::spawn(collect(out, Arc::clone(&lines))));
        let err = child.stderr.take().map(|err| tokio::spawn(collect(err, Arc::clone(&lines))));
        Ok(Self { name, child, lines, readers: out.into_iter().chain(err).collect() })
    }

    /// Waits until it has ended, and all that it wrote has been read.
    async fn finish(&mut self) -> Result<ExitStatus, String> {
        let status = self.child.wait().await.map_err(|error| format!("{}: {error}", self.name))?;
        for reader in self.readers.drain(..) {
            // A reader can only fail by a panic, and then its missing lines are noticed elsewhere.
            let _ = reader.await;
        }
        Ok(status)
    }

    /// Waits until it accepts connections on this port of 127.0.0.1.
    async fn listens(&mut self, port: u16) -> Result<(), String> {
        let accepts = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                sleep(POLL).await;
            }
            // Another process may have answered: then this one exits soon.
            sleep(BIND_GRACE).await;
        };
        let accepted = tokio::select! {
            biased;
            gone = self.finish() => return Err(self.gone(gone)),
            accepted = timeout(LISTEN_LIMIT, accepts) => accepted,
        };
        accepted.map_err(|_| format!("{} did not listen within {} s{}", self.name, LISTEN_LIMIT.as_secs(), self.tail()))
    }

    async fn end(&mut self) {
        // The only error is that it has ended already.
        let _ = self.child.kill().await;
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn gone(&self, how: Result<ExitStatus, String>) -> String {
        let how = how.map_or_else(|error| error, |status| status.to_string());
        format!("{} ended too early ({how}){}", self.name, self.tail())
    }

    fn tail(&self) -> String {
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        match last.is_empty() {
            true => format!("; {} wrote nothing", self.name),
            false => format!("\n{} wrote last:\n  {}", self.name, last.join("\n  ")),
        }
    }
}

/// Builds a command of cargo lambda, whose executable expects `lambda` as its first argument, as cargo passes it.
fn lambda(cargo_lambda: &OsStr, verb: &str, port: u16) -> Command {
    let mut command = Command::new(cargo_lambda);
    // A proxy could not reach our loopback interface.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("NO_COLOR", "1");
    command.args(["lambda", verb, "-A", "127.0.0.1", "-P"]).arg(port.to_string());
    command
}

async fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}

async fn collect(pipe: impl AsyncRead + Unpin, lines: Arc<Mutex<Vec<String>>>) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while pipe.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        bytes.clear();
    }
}
