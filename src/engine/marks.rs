//! Marks that have to be corrected: deleted by their value, or renewed.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::ledger::{Marked, Slot};
use super::{Call, Due, Engine, FAILED_TAGGINGS, Tidy, WRONG_LASTS};
use crate::ec2::{Class, Error, MAX_IDS, classify, may_pass};
use crate::instance::{InstanceId, Mark, STOPPED_AT_TAG};
use crate::outcome::{Outcome, Reason};

impl Engine<'_> {
    /// Returns the next mark to correct; this run's own marks come last, when no other calls are left.
    pub(super) fn next_tidying(&mut self, now: Instant) -> Option<Due> {
        let idle = self.queues.is_empty() && self.ledger.lost().is_empty();
        let since = if self.wrong.is_empty() { None } else { Some(*self.wrong_since.get_or_insert(now)) };
        let long = since.is_some_and(|since| now.saturating_duration_since(since) >= WRONG_LASTS);
        if idle || long || self.wrong.len() >= MAX_IDS {
            self.tidy_wrong();
        }
        let call = Call::Tidy(self.tidying.last()?.clone());
        Some(Due { at: self.tidy_backoff.at, call: Some(call), until: self.orders.deadline })
    }

    /// Queues the deletion of this run's mark from instances that must not carry it.
    pub(super) fn tidy_wrong(&mut self) {
        self.wrong_since = None;
        for slot in std::mem::take(&mut self.wrong) {
            self.ledger.get_mut(slot).marked = Marked::No;
            self.tidy(false, self.orders.mark.clone(), self.ledger.get(slot).instance.id);
        }
    }

    /// Renews the mark of an instance whose start failed, so that a later start still knows that it is ours. EC2's clock
    /// counts, which may be ahead of ours.
    pub(super) fn mark_anew(&mut self, fallen: &[(Slot, DateTime<Utc>)], now: Instant) {
        let (instant, utc) = self.orders.clock;
        let passed = TimeDelta::from_std(now.saturating_duration_since(instant)).unwrap_or_default();
        let counts = fallen.iter().map(|(_, launched)| *launched + TimeDelta::seconds(1)).max();
        let Some(at) = counts.map(|counts| counts.max(utc + passed)) else { return };
        let mark = Mark::new(at, self.orders.run);
        for (slot, _) in fallen {
            self.tidy(true, mark.clone(), self.ledger.get(*slot).instance.id);
        }
    }

    /// Queues a correction, together with others in one call.
    pub(super) fn tidy(&mut self, write: bool, mark: Mark, id: InstanceId) {
        let same = |job: &&mut Tidy| job.write == write && job.mark == mark && job.ids.len() < MAX_IDS;
        match self.tidying.iter_mut().find(same) {
            Some(job) => job.ids.push(id),
            None => self.tidying.push(Tidy { write, mark, ids: vec![id] }),
        }
    }

    /// A refused instance holds up no other here either, but it isn't worth many calls.
    pub(super) fn tidied(&mut self, job: &Tidy, result: Result<(), Error>, now: Instant) {
        self.tidying.retain(|other| other.write != job.write || other.mark != job.mark || other.ids != job.ids);
        let marks_only = job.write && job.mark == *self.orders.mark;
        let slots = |engine: &Self, ids: &[InstanceId]| -> Vec<Slot> {
            let slots = ids.iter().filter(|_| marks_only).filter_map(|id| engine.ledger.slot(*id));
            slots.filter(|slot| engine.ledger.to_mark().contains(slot)).collect()
        };
        let Err(error) = result else {
            self.may_tidy = true;
            for slot in slots(self, &job.ids) {
                self.ledger.settle(slot, Outcome::skipped(Reason::AsScheduled));
            }
            return self.tidy_backoff.reset(now);
        };
        let all_denied = classify(&error) == Class::Permission && !self.may_tidy;
        for slot in slots(self, &job.ids) {
            self.note(slot, &error);
        }
        self.failed_taggings += if all_denied { FAILED_TAGGINGS / 4 } else { 1 };
        if self.failed_taggings > FAILED_TAGGINGS {
            for slot in self.ledger.to_mark().clone() {
                self.not_marked(slot, &error);
            }
            return self.tidying.clear();
        }
        let part = |ids: &[InstanceId]| Tidy { ids: ids.to_vec(), ..job.clone() };
        if may_pass(&error) && self.orders.in_ticks {
            // The next tick finds what this one leaves: a mark to write, or one to delete.
            for slot in slots(self, &job.ids) {
                self.settle(slot, Outcome::Unfinished { reason: error.code.as_str().into() });
            }
            return;
        }
        if may_pass(&error) {
            self.tidy_backoff.back_off(now);
            return self.tidying.insert(0, part(&job.ids));
        }
        let named = InstanceId::all_in(&error.message);
        let (rest, bad): (Vec<InstanceId>, Vec<InstanceId>) = job.ids.iter().partition(|id| !named.contains(id));
        let bad = if rest.len() == 1 && bad.is_empty() { &rest } else { &bad };
        for slot in slots(self, bad) {
            self.not_marked(slot, &error);
        }
        match rest.len() {
            0 => {}
            n if n < job.ids.len() => self.tidying.push(part(&rest)),
            1 => {}
            n => self.tidying.extend([part(&rest[n / 2..]), part(&rest[..n / 2])]),
        }
    }

    /// Records that an instance could not be marked.
    fn not_marked(&mut self, slot: Slot, error: &Error) {
        let message = format!("it could not be marked with {STOPPED_AT_TAG}: {}", error.message);
        self.settle_refused(slot, &Error { message, ..error.clone() });
    }
}
