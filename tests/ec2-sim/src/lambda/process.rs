//! One process of a function, with a Runtime API that only it talks to: an answer can't be taken for that of another
//! process.

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::runtime_api::{Event, Happening, runtime_api};

pub(super) struct Process {
    child: Child,
    server: JoinHandle<io::Result<()>>,
    events: mpsc::UnboundedSender<Event>,
    happenings: mpsc::UnboundedReceiver<Happening>,
    log: File,
}

impl Process {
    /// Starts the binary with this environment, the Runtime API's address, and nothing else of ours but `PATH`.
    pub(super) async fn spawn(binary: &Path, environment: &[(String, String)]) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (log, written) = log_file(address.port())?;
        let child = Command::new(binary)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(written.try_clone()?)
            .stderr(written)
            .kill_on_drop(true)
            .spawn()?;
        let (events, waiting) = mpsc::unbounded_channel();
        let (told, happenings) = mpsc::unbounded_channel();
        let router = runtime_api(waiting, told);
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { child, server, events, happenings, log })
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Leaves an event for when the process asks.
    pub(super) fn hand_over(&self, event: Event) {
        self.events.send(event).expect("the server holds the other end until this is dropped");
    }

    /// Waits for the next thing to happen, until the deadline.
    pub(super) async fn next(&mut self, deadline: Instant) -> Happening {
        let exited = tokio::select! {
            biased;
            Some(happening) = self.happenings.recv() => return happening,
            exited = self.child.wait() => exited,
            () = tokio::time::sleep_until(deadline) => return Happening::TimedOut,
        };
        // What it said before it ended comes first; the end can be asked for again.
        self.happenings
            .try_recv()
            .unwrap_or_else(|_| Happening::Exited(exited.map_or_else(|error| error.to_string(), |how| how.to_string())))
    }

    pub(super) async fn kill(&mut self) {
        // The only error is that it has ended already.
        let _ = self.child.kill().await;
    }

    /// The lines written since the last time.
    pub(super) fn new_lines(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        self.log.read_to_end(&mut text).expect("the log is a plain file");
        String::from_utf8_lossy(&text).lines().map(String::from).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Opens a file without a name, to read and to write. A pipe could still hold lines when the answer has come; what is
/// written to a file before the answer can be read after it.
fn log_file(port: u16) -> io::Result<(File, File)> {
    let path = std::env::temp_dir().join(format!("ec2-sim-{}-{port}.log", std::process::id()));
    let write = File::options().append(true).create_new(true).open(&path)?;
    let read = File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok((read, write))
}
