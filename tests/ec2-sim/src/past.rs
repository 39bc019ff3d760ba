//! What machines were before they changed: EC2's descriptions lag behind its writes.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::machine::Machine;

/// Earlier versions of each machine, by its id, oldest first, with the moment until which each was current.
#[derive(Default)]
pub(crate) struct Past(BTreeMap<String, Vec<(DateTime<Utc>, Machine)>>);

impl Past {
    /// Keeps a machine's version that is current until now, for as long as descriptions with this lag may show it.
    pub(crate) fn keep(&mut self, machine: &Machine, until: DateTime<Utc>, lag: Duration) {
        if lag.is_zero() {
            return;
        }
        let kept = self.0.entry(machine.id.clone()).or_default();
        kept.retain(|(ended, _)| *ended > until - lag);
        kept.push((until, machine.clone()));
    }

    /// Returns the version of a machine that was current then.
    pub(crate) fn of<'a>(&'a self, machine: &'a Machine, then: DateTime<Utc>) -> &'a Machine {
        let kept = self.0.get(&machine.id).into_iter().flatten();
        let mut later = kept.filter(|(until, _)| *until > then);
        later.next().map_or(machine, |(_, was)| was)
    }
}
