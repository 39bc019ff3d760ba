//! The cloud in a test's hands: a server on loopback, and a way past HTTP to look and meddle.

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

/// A simulated EC2 at an address of its own; it listens until it is dropped.
///
/// A machine is looked up by its id, its name, `region/name` or `account/region/name`. Where none or several answer to
/// that, the call panics: that is a mistake in the test.
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
    /// If the port is taken.
    pub async fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let router = router(shared.clone());
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { shared, address, server })
    }

    /// The address to give to a program as `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL_STS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces everything but the clock, and the credentials that somebody has got.
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

    /// A copy of a machine as it is now.
    #[track_caller]
    pub fn machine(&self, name: &str) -> Machine {
        match self.shared.lock().find(name) {
            Ok(machine) => machine.clone(),
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Copies of all machines as they are now, in the order of their ids.
    pub fn machines(&self) -> Vec<Machine> {
        self.shared.lock().machines().cloned().collect()
    }

    /// A machine's state as it is now.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.machine(name).state
    }

    /// The value of one of a machine's tags.
    #[track_caller]
    pub fn tag(&self, name: &str, key: &str) -> Option<String> {
        self.machine(name).tags.remove(key)
    }

    /// Changes anything about a machine behind EC2's back, and returns what the change returns.
    #[track_caller]
    pub fn edit<T>(&self, name: &str, change: impl FnOnce(&mut Machine) -> T) -> T {
        match self.shared.lock().edit(name, change) {
            Ok(result) => result,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Switches a machine on as a person at the console would, with all the time it takes.
    #[track_caller]
    pub fn switch_on(&self, name: &str) {
        let now = self.clock();
        self.edit(name, |machine| machine.switch_by_hand(true, now));
    }

    /// Switches a machine off as a person at the console would, with all the time it takes.
    #[track_caller]
    pub fn switch_off(&self, name: &str) {
        let now = self.clock();
        self.edit(name, |machine| machine.switch_by_hand(false, now));
    }

    /// Makes something go wrong from now on.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Holds up the next call of an action before EC2 begins to work on it; other faults still apply to it.
    pub fn hold(&self, action: &str) -> Held {
        let (gate, held) = Gate::new(action);
        self.shared.lock().gates.push(gate);
        held
    }

    /// Ends all bad days.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Changes how the cloud behaves.
    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.lock().settings);
    }

    /// The calls that EC2 and STS have decided on, in that order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Empties the log of calls.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// The secret access keys and session tokens that somebody has got, which belong in no log.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.lock().sessions.secrets().cloned().collect()
    }

    /// The time in the cloud.
    pub fn clock(&self) -> DateTime<Utc> {
        self.shared.lock().clock.now()
    }

    /// Moves the cloud's time on; it keeps flowing from there.
    pub fn advance(&self, time: Duration) {
        self.set_clock(self.clock() + time);
    }

    /// Sets the cloud's time; it keeps flowing from there.
    pub fn set_clock(&self, now: DateTime<Utc>) {
        self.shared.lock().clock.set(now);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.abort();
    }
}
