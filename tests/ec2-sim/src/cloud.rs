//! The account: its instances in all regions, its clock, its bad days and the log of calls. No HTTP, no XML, no
//! waiting; a transition is finished when somebody next looks.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clock::Clock;
use crate::fault::{Fault, Then};
use crate::fleet::{Fleet, Settings};
use crate::machine::Machine;
use crate::past::Past;
use crate::throttle::Bucket;

#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) faults: Vec<Fault>,
    pub(crate) calls: Vec<Call>,
    /// EC2's token buckets that somebody has drawn from, by region and name.
    pub(crate) buckets: HashMap<(String, String), Bucket>,
    past: Past,
    machines: BTreeMap<String, Machine>,
    joined: u32,
}

/// One call that EC2 received.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When EC2 decided on it, by the cloud's clock.
    pub at: DateTime<Utc>,
    /// The API action.
    pub action: String,
    /// The region that it was signed for.
    pub region: String,
    /// It asked for permission only.
    pub dry_run: bool,
    /// The instances that it named, in its order.
    pub ids: Vec<String>,
    /// Every parameter as it was sent.
    pub params: BTreeMap<String, String>,
    /// `ok`, EC2's error code, or the fault that took the answer: `hang`, `hang_after`, `lost`, `cut`, `garbled`,
    /// `scripted`.
    pub code: String,
}

impl Cloud {
    /// Replaces everything but the clock.
    pub(crate) fn load(&mut self, fleet: Fleet) {
        let clock = self.clock;
        *self = Self { clock, settings: fleet.settings, faults: fleet.faults, ..Self::default() };
        for machine in fleet.machines.into_iter().flat_map(Machine::copies) {
            self.join(machine);
        }
    }

    pub(crate) fn add(&mut self, mut machine: Machine) -> String {
        // Else it would vanish when a test sets the clock back.
        if !self.settings.not_found_for.is_zero() {
            machine.known_from = self.clock.now() + self.settings.not_found_for;
        }
        self.join(machine)
    }

    fn join(&mut self, mut machine: Machine) -> String {
        self.joined += 1;
        machine.join(self.joined, self.clock.now());
        let id = machine.id.clone();
        self.machines.insert(id.clone(), machine);
        id
    }

    /// All machines as they are now, in the order of their ids.
    pub(crate) fn machines(&mut self) -> impl Iterator<Item = &mut Machine> {
        self.settle();
        self.machines.values_mut()
    }

    /// The machines as DescribeInstances shows them, in the order of their ids.
    pub(crate) fn seen(&mut self) -> impl Iterator<Item = &Machine> {
        self.settle();
        let (now, past) = (self.clock.now(), &self.past);
        let then = now - self.settings.describe_lag;
        let known = self.machines.values().filter(move |machine| machine.known_from <= now);
        known.map(move |machine| past.of(machine, then))
    }

    /// Finishes the transitions whose time has come.
    fn settle(&mut self) {
        let (now, lag) = (self.clock.now(), self.settings.describe_lag);
        for machine in self.machines.values_mut() {
            if let Some(at) = machine.settles_at().filter(|at| *at <= now) {
                self.past.keep(machine, at, lag);
                machine.settle(now);
            }
        }
    }

    /// Remembers what these machines are, because they are about to change.
    pub(crate) fn keep(&mut self, ids: &[String]) {
        let (now, lag) = (self.clock.now(), self.settings.describe_lag);
        for machine in ids.iter().filter_map(|id| self.machines.get(id)) {
            self.past.keep(machine, now, lag);
        }
    }

    /// The machines with these ids, as they are now, in the order of their ids.
    pub(crate) fn named<'a>(&'a mut self, ids: &'a [String]) -> impl Iterator<Item = &'a mut Machine> {
        let ids: HashSet<&String> = ids.iter().collect();
        self.machines().filter(move |machine| ids.contains(&machine.id))
    }

    /// The machine with this id; its state may be out of date.
    pub(crate) fn machine(&self, id: &str) -> Option<&Machine> {
        self.machines.get(id)
    }

    /// Tells whether a region has a machine with this id, and EC2 has heard of it everywhere.
    pub(crate) fn knows(&self, region: &str, id: &str) -> bool {
        let now = self.clock.now();
        self.machine(id).is_some_and(|machine| machine.region == region && machine.known_from <= now)
    }

    /// Changes the one machine that answers to an id, a name or `region/name`.
    pub(crate) fn edit<T>(&mut self, name: &str, change: impl FnOnce(&mut Machine) -> T) -> Result<T, String> {
        let id = self.find(name)?.id.clone();
        self.keep(&[id]);
        self.find(name).map(change)
    }

    /// Finds the one machine that answers to an id, a name or `region/name`.
    pub(crate) fn find(&mut self, name: &str) -> Result<&mut Machine, String> {
        let mut found: Vec<_> = self.machines().filter(|m| m.answers_to(name)).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(format!("no machine is called {name:?}")),
            n => Err(format!("{n} machines are called {name:?}: say \"region/name\" or an id")),
        }
    }

    /// What goes wrong with a call, and because of which of the machines that it names; in this order: any number
    /// of stalls, then at most one other thing.
    pub(crate) fn strike(&mut self, action: &str, region: &str, ids: &[String]) -> Vec<(Then, Vec<String>)> {
        let mut struck = Vec::new();
        for fault in self.faults.iter_mut().filter(|fault| fault.covers(action, region)) {
            let mut ids = ids.to_vec();
            ids.retain(|id| fault.concerns(id, self.machines.get(id)));
            if (fault.is_general() || !ids.is_empty()) && fault.strikes() {
                struck.push((fault.then.about(&ids), ids));
                if !matches!(fault.then, Then::Stall { .. }) {
                    break;
                }
            }
        }
        struck
    }
}
