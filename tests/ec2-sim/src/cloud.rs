//! The accounts: their instances in all regions, the clock, the bad days and the log of calls. No HTTP, no XML, no
//! waiting; a transition is finished when somebody next looks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clock::Clock;
use crate::fault::{Fault, Then};
use crate::fleet::{Fleet, Settings};
use crate::hold::Gate;
use crate::machine::Machine;
use crate::past::Past;
use crate::place::Place;
use crate::roster::Roster;
use crate::storage::Storage;
use crate::sts::Sessions;
use crate::throttle::Bucket;

#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) faults: Vec<Fault>,
    /// Where calls are to be held up, each once.
    pub(crate) gates: Vec<Gate>,
    pub(crate) calls: Vec<Call>,
    pub(crate) sessions: Sessions,
    /// EC2's token buckets that somebody has drawn from, by name.
    pub(crate) buckets: HashMap<(Place, String), Bucket>,
    pub(crate) storage: Storage,
    past: Past,
    roster: Roster,
    joined: u32,
}

/// One call that EC2 or STS received.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When it was decided on, by the cloud's clock.
    pub at: DateTime<Utc>,
    /// The API action.
    pub action: String,
    /// The account that it was signed for; of AssumeRole, the role's; blank where that can't be told.
    pub account: String,
    /// The region that it was signed for.
    pub region: String,
    /// It asked for permission only.
    pub dry_run: bool,
    /// The instances that it named, in its order.
    pub ids: Vec<String>,
    /// Every parameter as it was sent.
    pub params: BTreeMap<String, String>,
    /// `ok`, the error code, or the fault that took the answer: `hang`, `hang_after`, `lost`, `cut`, `garbled`,
    /// `scripted`.
    pub code: String,
}

impl Cloud {
    /// Replaces everything but the clock, and the sessions of roles: a function that lives on still uses them.
    pub(crate) fn load(&mut self, fleet: Fleet) {
        let (clock, sessions) = (self.clock, std::mem::take(&mut self.sessions));
        *self = Self { clock, sessions, settings: fleet.settings, faults: fleet.faults, ..Self::default() };
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
        self.roster.insert(machine);
        id
    }

    /// All machines as they are now, in the order of their ids.
    pub(crate) fn machines(&mut self) -> impl Iterator<Item = &Machine> {
        self.settle();
        self.roster.all()
    }

    /// A place's machines as they are now, in the order of their ids.
    pub(crate) fn machines_in(&mut self, place: &Place) -> impl Iterator<Item = &Machine> {
        self.settle();
        self.roster.after("", place)
    }

    /// A place's machines as DescribeInstances shows them, in the order of their ids, from behind this id.
    pub(crate) fn seen_after(&mut self, id: &str, place: &Place) -> impl Iterator<Item = &Machine> {
        self.settle();
        let (now, past) = (self.clock.now(), &self.past);
        let then = now - self.settings.describe_lag;
        let known = self.roster.after(id, place).filter(move |machine| machine.known_from <= now);
        known.map(move |machine| past.of(machine, then))
    }

    /// The machines with these ids as DescribeInstances shows them, in the order of their ids.
    pub(crate) fn seen(&mut self, ids: &[String]) -> impl Iterator<Item = &Machine> {
        self.settle();
        let (past, then) = (&self.past, self.clock.now() - self.settings.describe_lag);
        in_order(ids).filter_map(|id| self.roster.get(id)).map(move |machine| past.of(machine, then))
    }

    /// Finishes the transitions whose time has come.
    fn settle(&mut self) {
        let (now, lag) = (self.clock.now(), self.settings.describe_lag);
        while let Some((at, id)) = self.roster.next_to_settle().filter(|(at, _)| *at <= now).cloned() {
            if let Some(machine) = self.roster.get(&id) {
                self.past.keep(machine, at, lag);
            }
            self.roster.change(&id, |machine| machine.settle(now));
        }
    }

    /// Changes the machines with these ids, in the order of their ids.
    pub(crate) fn change<T>(&mut self, ids: &[String], change: impl Fn(&mut Machine) -> T) -> Vec<T> {
        self.settle();
        in_order(ids).filter_map(|id| self.change_one(id, &change)).collect()
    }

    /// Changes a machine, and remembers what it was.
    fn change_one<T>(&mut self, id: &str, change: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let (now, lag) = (self.clock.now(), self.settings.describe_lag);
        self.past.keep(self.roster.get(id)?, now, lag);
        self.roster.change(id, change)
    }

    /// The machines with these ids, as they are now, in the order of their ids.
    pub(crate) fn named(&mut self, ids: &[String]) -> impl Iterator<Item = &Machine> {
        self.settle();
        in_order(ids).filter_map(|id| self.roster.get(id))
    }

    /// The machine with this id; its state may be out of date.
    pub(crate) fn machine(&self, id: &str) -> Option<&Machine> {
        self.roster.get(id)
    }

    /// Tells whether a place has a machine with this id, and EC2 has heard of it everywhere.
    pub(crate) fn knows(&self, place: &Place, id: &str) -> bool {
        let now = self.clock.now();
        self.machine(id).is_some_and(|machine| machine.is_in(place) && machine.known_from <= now)
    }

    /// Changes the one machine that answers to a name; see [`Machine::answers_to`].
    pub(crate) fn edit<T>(&mut self, name: &str, change: impl FnOnce(&mut Machine) -> T) -> Result<T, String> {
        let id = self.find(name)?.id.clone();
        Ok(self.change_one(&id, change).expect("it was just found"))
    }

    /// Finds the one machine that answers to a name; see [`Machine::answers_to`].
    pub(crate) fn find(&mut self, name: &str) -> Result<&Machine, String> {
        self.settle();
        if let Some(machine) = self.roster.get(name) {
            return Ok(machine);
        }
        let mut found = self.roster.all().filter(|machine| machine.answers_to(name));
        match (found.next(), found.count()) {
            (Some(machine), 0) => Ok(machine),
            (None, _) => Err(format!("no machine is called {name:?}")),
            (Some(_), more) => Err(format!(
                "{} machines are called {name:?}: say \"region/name\", \"account/region/name\" or an id",
                more + 1
            )),
        }
    }

    /// What goes wrong with a call, and because of which of the machines that it names; in this order: any number
    /// of stalls, then at most one other thing.
    pub(crate) fn strike(&mut self, action: &str, place: &Place, ids: &[String]) -> Vec<(Then, Vec<String>)> {
        let (now, mut struck) = (self.clock.now(), Vec::new());
        for fault in self.faults.iter_mut().filter(|fault| fault.covers(action, place)) {
            let mut ids = ids.to_vec();
            ids.retain(|id| fault.concerns(id, self.roster.get(id)));
            if (fault.is_general() || !ids.is_empty()) && fault.strikes(now) {
                struck.push((fault.then.about(&ids), ids));
                if !matches!(fault.then, Then::Stall { .. }) {
                    break;
                }
            }
        }
        struck
    }
}

/// Sorts ids, each once.
fn in_order(ids: &[String]) -> impl Iterator<Item = &String> {
    ids.iter().collect::<BTreeSet<_>>().into_iter()
}
