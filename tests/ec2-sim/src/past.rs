//! What machines were before they changed: EC2's descriptions lag behind its writes.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::machine::Machine;

/// By machine, in the order of time, each as it was until it changed.
#[derive(Default)]
pub(crate) struct Past(BTreeMap<String, Vec<(DateTime<Utc>, Machine)>>);

impl Past {
    /// Keeps what a machine has been until now, for as long as a description this late may show it.
    pub(crate) fn keep(&mut self, machine: &Machine, until: DateTime<Utc>, lag: Duration) {
        if lag.is_zero() {
            return;
        }
        let kept = self.0.entry(machine.id.clone()).or_default();
        kept.retain(|(ended, _)| *ended > until - lag);
        kept.push((until, machine.clone()));
    }

    /// What a machine was then.
    pub(crate) fn of<'a>(&'a self, machine: &'a Machine, then: DateTime<Utc>) -> &'a Machine {
        let kept = self.0.get(&machine.id).into_iter().flatten();
        let mut later = kept.filter(|(until, _)| *until > then);
        later.next().map_or(machine, |(_, was)| was)
    }
}
