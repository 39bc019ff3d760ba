//! One process of a function, with its own Runtime API, so that its answers can't be mistaken for another process's.

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
    /// Starts the binary with this environment, the Runtime API's address, and of this process's own only `PATH`.
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

    /// Queues an event until the process asks for it.
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
        // What it sent before it exited comes first; `wait` returns the exit status again the next time.
        self.happenings
            .try_recv()
            .unwrap_or_else(|_| Happening::Exited(exited.map_or_else(|error| error.to_string(), |how| how.to_string())))
    }

    pub(super) async fn kill(&mut self) {
        // The only error is that it has ended already.
        let _ = self.child.kill().await;
    }

    /// Returns the lines written since the last call.
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

/// Opens an unnamed file, for reading and for writing. Unlike a pipe, which may still hold lines when the answer
/// arrives, a file shows everything that was written before.
fn log_file(port: u16) -> io::Result<(File, File)> {
    let path = std::env::temp_dir().join(format!("ec2-sim-{}-{port}.log", std::process::id()));
    let write = File::options().append(true).create_new(true).open(&path)?;
    let read = File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok((read, write))
}
