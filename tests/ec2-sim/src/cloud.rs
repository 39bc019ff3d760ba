//! The account: its instances in all regions, its clock, its bad days and the log of calls. No HTTP, no XML, no
//! waiting; a transition is finished when somebody next looks.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clock::Clock;
use crate::fault::{Fault, Then};
use crate::fleet::{Fleet, Settings};
use crate::machine::Machine;

#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) faults: Vec<Fault>,
    pub(crate) calls: Vec<Call>,
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
    /// `ok`, EC2's error code, or the fault that took the answer: `hang`, `lost`, `cut`, `garbled`.
    pub code: String,
}

impl Cloud {
    /// Replaces everything but the clock.
    pub(crate) fn load(&mut self, fleet: Fleet) {
        let clock = self.clock;
        *self = Self { clock, settings: fleet.settings, faults: fleet.faults, ..Self::default() };
        for machine in fleet.machines.into_iter().flat_map(Machine::copies) {
            self.add(machine);
        }
    }

    pub(crate) fn add(&mut self, mut machine: Machine) -> String {
        self.joined += 1;
        machine.join(self.joined, self.clock.now());
        let id = machine.id.clone();
        self.machines.insert(id.clone(), machine);
        id
    }

    /// All machines as they are now, in the order of their ids.
    pub(crate) fn machines(&mut self) -> impl Iterator<Item = &mut Machine> {
        let now = self.clock.now();
        self.machines.values_mut().for_each(|machine| machine.settle(now));
        self.machines.values_mut()
    }

    /// The machines with these ids, as they are now, in the order of their ids.
    pub(crate) fn named<'a>(&'a mut self, ids: &'a [String]) -> impl Iterator<Item = &'a mut Machine> {
        let ids: HashSet<&String> = ids.iter().collect();
        self.machines().filter(move |machine| ids.contains(&machine.id))
    }

    /// Tells whether a region has a machine with this id.
    pub(crate) fn knows(&self, region: &str, id: &str) -> bool {
        self.machines.get(id).is_some_and(|machine| machine.region == region)
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

    /// What goes wrong with a call, in this order: any number of stalls, then at most one other thing.
    pub(crate) fn strike(&mut self, action: &str, region: &str, ids: &[String]) -> Vec<Then> {
        let mut struck = Vec::new();
        for fault in self.faults.iter_mut().filter(|fault| fault.covers(action, region)) {
            let called =
                |id: &str, name: &String| id == name || self.machines.get(id).is_some_and(|m| m.answers_to(name));
            let concerns = |id: &String| fault.names.iter().any(|name| called(id, name));
            let (any, mut ids) = (fault.names.is_empty(), ids.to_vec());
            ids.retain(|id| any || concerns(id));
            if (any || !ids.is_empty()) && fault.strikes() {
                struck.push(fault.then.about(&ids));
                if !matches!(fault.then, Then::Stall { .. }) {
                    break;
                }
            }
        }
        struck
    }
}
