//! All machines, with indexes by place and by the end of their transitions. Knows neither clock nor calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use chrono::{DateTime, Utc};

use crate::machine::Machine;
use crate::place::Place;

/// Machines in the order of their ids.
#[derive(Default)]
pub(crate) struct Roster {
    machines: BTreeMap<String, Machine>,
    /// The ids of the machines in each place.
    places: HashMap<Place, BTreeSet<String>>,
    /// The ids of the machines in transition, by when it ends.
    moving: BTreeSet<(DateTime<Utc>, String)>,
}

impl Roster {
    /// Adds a machine, or replaces the one with the same id.
    pub(crate) fn insert(&mut self, machine: Machine) {
        self.remove(&machine.id);
        let id = || machine.id.clone();
        self.places.entry(machine.place()).or_default().insert(id());
        self.moving.extend(machine.settles_at().map(|at| (at, id())));
        self.machines.insert(id(), machine);
    }

    fn remove(&mut self, id: &str) {
        let Some(machine) = self.machines.remove(id) else {
            return;
        };
        if let Some(here) = self.places.get_mut(&machine.place()) {
            here.remove(id);
        }
        if let Some(at) = machine.settles_at() {
            self.moving.remove(&(at, machine.id));
        }
    }

    /// Changes anything about a machine, even its place and its id.
    pub(crate) fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        // On a copy, because a change that comes from a test may panic.
        let mut machine = self.get(id)?.clone();
        let result = change(&mut machine);
        self.remove(id);
        self.insert(machine);
        Some(result)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Machine> {
        self.machines.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// Returns the machines in a place whose ids come after this one.
    pub(crate) fn after(&self, id: &str, place: &Place) -> impl Iterator<Item = &Machine> {
        let later = (Bound::Excluded(id), Bound::Unbounded);
        let ids = self.places.get(place).into_iter().flat_map(move |here| here.range::<str, _>(later));
        ids.filter_map(|id| self.get(id))
    }

    /// Returns the id of the machine whose transition ends next, and when.
    pub(crate) fn next_to_settle(&self) -> Option<&(DateTime<Utc>, String)> {
        self.moving.first()
    }
}
