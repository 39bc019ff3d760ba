//! The handle that a test has on the cloud: a server on loopback, and direct access to its state, bypassing HTTP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cloud::Call;
use crate::fault::Fault;
use crate::fleet::{Fleet, Settings};
use crate::hold::{Gate, Held};
use crate::machine::Machine;
use crate::server::{Shared, router};
use crate::storage::Snapshot;

/// A simulated EC2 at its own address; it listens until it is dropped.
///
/// A machine is looked up by its id, its name, `region/name` or `account/region/name`. If that fits none or several,
/// the call panics: it is a mistake in the test.
pub struct Sim {
    shared: Shared,
    address: SocketAddr,
    server: JoinHandle<io::Result<()>>,
}

impl Sim {
    /// Starts an empty cloud on a free port.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn start() -> Self {
        Self::listen(0).await.expect("loopback has a free port")
    }

    /// Starts an empty cloud on this port of 127.0.0.1; 0 means a free one.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let router = router(shared.clone());
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { shared, address, server })
    }

    /// Returns the URL to give to a program as `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL_STS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces everything but the clock and the credentials handed out so far.
    pub fn load(&self, fleet: Fleet) {
        self.shared.lock().load(fleet);
    }

    /// Adds a machine, and returns its id.
    pub fn add(&self, machine: Machine) -> String {
        self.shared.lock().add(machine)
    }

    /// Adds machines made from the numbers 1 to `count`, and returns their ids in that order.
    pub fn add_many(&self, count: usize, machine: impl Fn(usize) -> Machine) -> Vec<String> {
        let mut cloud = self.shared.lock();
        (1..=count).map(|n| cloud.add(machine(n))).collect()
    }

    /// Returns a copy of a machine as it is now.
    #[track_caller]
    pub fn machine(&self, name: &str) -> Machine {
        match self.shared.lock().find(name) {
            Ok(machine) => machine.clone(),
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Returns copies of all machines as they are now, in the order of their ids.
    pub fn machines(&self) -> Vec<Machine> {
        self.shared.lock().machines().cloned().collect()
    }

    /// Returns a machine's state as it is now.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.machine(name).state
    }

    /// Returns the value of one of a machine's tags.
    #[track_caller]
    pub fn tag(&self, name: &str, key: &str) -> Option<String> {
        self.machine(name).tags.remove(key)
    }

    /// Changes anything about a machine without a call to EC2, and returns what the change returns.
    #[track_caller]
    pub fn edit<T>(&self, name: &str, change: impl FnOnce(&mut Machine) -> T) -> T {
        match self.shared.lock().edit(name, change) {
            Ok(result) => result,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Starts a machine as a person at the console would; the transition is over at once.
    #[track_caller]
    pub fn switch_on(&self, name: &str) {
        let now = self.clock();
        self.edit(name, |machine| machine.switch_by_hand(true, now));
    }

    /// Stops a machine as a person at the console would; the transition is over at once.
    #[track_caller]
    pub fn switch_off(&self, name: &str) {
        let now = self.clock();
        self.edit(name, |machine| machine.switch_by_hand(false, now));
    }

    /// Adds a snapshot, and returns its id.
    pub fn add_snapshot(&self, snapshot: Snapshot) -> String {
        self.shared.lock().add_snapshot(snapshot)
    }

    /// Returns copies of all snapshots as they are now, in the order of their ids.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.shared.lock().storage.all().cloned().collect()
    }

    /// Returns a copy of the snapshot with this id or name as it is now; none if it is gone.
    pub fn snapshot(&self, name: &str) -> Option<Snapshot> {
        self.shared.lock().storage.find(name).cloned()
    }

    /// Changes anything about a snapshot, if it is still there.
    pub fn edit_snapshot(&self, name: &str, change: impl FnOnce(&mut Snapshot)) {
        let mut cloud = self.shared.lock();
        let now = cloud.clock.now();
        if let Some(mut snapshot) = cloud.storage.find(name).cloned() {
            change(&mut snapshot);
            cloud.storage.change(&snapshot.id.clone(), now, Some(snapshot));
        }
    }

    /// Adds the volume that a snapshot was made of.
    pub fn add_volume_of(&self, name: &str) {
        let mut cloud = self.shared.lock();
        if let Some(snapshot) = cloud.storage.find(name).cloned() {
            cloud.add_volume_of(&snapshot);
        }
    }

    /// Adds an image of a snapshot, and returns the image's id; none if the snapshot is gone.
    pub fn add_image_of(&self, name: &str, deprecated: bool, disabled: bool) -> Option<String> {
        let mut cloud = self.shared.lock();
        let snapshot = cloud.storage.find(name).cloned()?;
        Some(cloud.add_image_of(&snapshot, deprecated, disabled))
    }

    /// Deletes the images of a snapshot, and the volume that it was made of.
    pub fn forsake(&self, name: &str) {
        let mut cloud = self.shared.lock();
        if let Some(snapshot) = cloud.storage.find(name).cloned() {
            cloud.storage.forsake(&snapshot);
        }
    }

    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Holds up the next call of an action before EC2 begins to work on it; faults still apply to it afterwards.
    pub fn hold(&self, action: &str) -> Held {
        let (gate, held) = Gate::new(action);
        self.shared.lock().gates.push(gate);
        held
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Changes how the cloud behaves.
    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.lock().settings);
    }

    /// Returns the calls that EC2 and STS have decided on, in the order of the decisions.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Empties the log of calls.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Returns the secret access keys and session tokens handed out so far, which must not appear in any log.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.lock().sessions.secrets().cloned().collect()
    }

    /// Returns the cloud's time.
    pub fn clock(&self) -> DateTime<Utc> {
        self.shared.lock().clock.now()
    }

    /// Moves the cloud's clock forward; it keeps running from there.
    pub fn advance(&self, time: Duration) {
        self.set_clock(self.clock() + time);
    }

    /// Sets the cloud's clock; it keeps running from there.
    pub fn set_clock(&self, now: DateTime<Utc>) {
        self.shared.lock().clock.set(now);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.abort();
    }
}
