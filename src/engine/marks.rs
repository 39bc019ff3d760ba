//! Marks that have to be corrected: deleted by their value, or renewed.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::warn;

use super::ledger::{Marked, Phase, Slot};
use super::{Call, Due, Engine, FAILED_TAGGINGS, LONE_TRIES, Tidy, WRONG_LASTS};
use crate::ec2::{Class, Error, MAX_IDS, classify, is_denied_by_organization, may_pass};
use crate::instance::{InstanceId, Mark, STOPPED_AT_TAG};
use crate::outcome::{Outcome, Reason, cut};

impl Engine<'_> {
    /// Returns the next mark to correct; this run's own marks come last, when no other calls are left.
    pub(super) fn next_tidying(&mut self, now: Instant) -> Option<Due> {
        let idle = self.queues.is_empty() && self.ledger.lost().is_empty();
        let since = if self.wrong.is_empty() { None } else { Some(*self.wrong_since.get_or_insert(now)) };
        let long = since.is_some_and(|since| now.saturating_duration_since(since) >= WRONG_LASTS);
        if idle || long || self.wrong.len() >= MAX_IDS {
            self.tidy_wrong();
        }
        let job = self.tidying.last()?.clone();
        // One that has failed holds up no other, least of all when time is short.
        let at = if job.tries == 0 { now } else { self.tidy_backoff.at };
        Some(Due { at, call: Some(Call::Tidy(job)), until: self.orders.deadline })
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
        let same =
            |job: &&mut Tidy| job.tries == 0 && job.write == write && job.mark == mark && job.ids.len() < MAX_IDS;
        match self.tidying.iter_mut().find(same) {
            Some(job) => job.ids.push(id),
            None => self.tidying.push(Tidy { write, mark, ids: vec![id], tries: 0 }),
        }
    }

    /// Takes in EC2's answer to a correction. One instance keeps no other from its correction: what failed goes to the back,
    /// and after a second failure in halves.
    pub(super) fn tidied(&mut self, job: &Tidy, result: Result<(), Error>, now: Instant) {
        self.tidying.retain(|other| other.write != job.write || other.mark != job.mark || other.ids != job.ids);
        let marks_only = job.write && job.mark == *self.orders.mark;
        let slots = |engine: &Self, ids: &[InstanceId]| -> Vec<Slot> {
            let slots = ids.iter().filter(|_| marks_only).filter_map(|id| engine.ledger.slot(*id));
            slots.filter(|slot| engine.ledger.to_mark().contains(slot)).collect()
        };
        let Err(error) = result else {
            (self.may_tidy, self.failed_taggings) = (true, 0);
            for slot in slots(self, &job.ids) {
                self.ledger.settle(slot, Outcome::skipped(Reason::AsScheduled));
            }
            return self.tidy_backoff.reset(now);
        };
        let all_denied = classify(&error) == Class::Permission && !self.may_tidy;
        self.tidy_error = Some(error.clone());
        for slot in slots(self, &job.ids) {
            self.note(slot, &error);
        }
        // In ticks nothing waits for EC2 to recover.
        let counts_more = all_denied || (self.orders.in_ticks && may_pass(&error));
        self.failed_taggings += if counts_more { FAILED_TAGGINGS / 4 } else { 1 };
        if self.failed_taggings > FAILED_TAGGINGS {
            for slot in self.ledger.to_mark().clone() {
                self.not_marked(slot, &error);
            }
            self.give_up(job.clone());
            return std::mem::take(&mut self.tidying).into_iter().for_each(|job| self.give_up(job));
        }
        let part = |ids: &[InstanceId], tries| Tidy { ids: ids.to_vec(), tries, ..job.clone() };
        if may_pass(&error) {
            self.tidy_backoff.back_off(now);
            let (tries, half) = (job.tries.saturating_add(1), job.ids.len() / 2);
            // The next tick finds what this one leaves: a mark to write, or one to delete.
            let enough = if self.orders.in_ticks { 1 } else { 2 };
            match classify(&error) {
                Class::Throttled | Class::TooLate => self.tidying.insert(0, part(&job.ids, job.tries.max(1))),
                _ if half > 0 && tries >= enough => {
                    self.tidying.splice(0..0, [part(&job.ids[half..], 1), part(&job.ids[..half], 1)]);
                }
                _ if half == 0 && (self.orders.in_ticks || (self.may_tidy && tries >= LONE_TRIES)) => {
                    for slot in slots(self, &job.ids) {
                        self.not_marked(slot, &error);
                    }
                    self.give_up(job.clone());
                }
                _ => self.tidying.insert(0, part(&job.ids, tries)),
            }
            return;
        }
        let named = InstanceId::all_in(&error.message);
        let (rest, bad): (Vec<InstanceId>, Vec<InstanceId>) = job.ids.iter().partition(|id| !named.contains(id));
        let bad = if rest.len() == 1 && bad.is_empty() { &rest } else { &bad };
        for slot in slots(self, bad) {
            self.not_marked(slot, &error);
        }
        self.give_up(part(bad, 0));
        match rest.len() {
            0 => {}
            n if n < job.ids.len() => self.tidying.insert(0, part(&rest, 0)),
            1 => {}
            n => {
                self.tidying.splice(0..0, [part(&rest[n / 2..], 0), part(&rest[..n / 2], 0)]);
            }
        }
    }

    /// Records that an instance could not be marked.
    fn not_marked(&mut self, slot: Slot, error: &Error) {
        if may_pass(error) {
            return self.settle(slot, Outcome::Unfinished { reason: error.code.as_str().into() });
        }
        let error = not_written(error.clone(), self.orders.role);
        self.settle_refused(slot, &error);
    }

    /// Leaves a correction to later runs.
    fn give_up(&mut self, job: Tidy) {
        if !job.ids.is_empty() {
            self.given_up.push(job);
        }
    }

    /// Says which marks are not as they should be when the run ends.
    pub(super) fn tell_what_is_left(&self) {
        let jobs = || self.tidying.iter().chain(&self.given_up);
        let count = |write: bool| jobs().filter(|job| job.write == write).map(|job| job.ids.len()).sum::<usize>();
        // Those whose stop may have been carried out keep their mark: it is all that brings them back.
        let unclear = self.ledger.slots().map(|slot| self.ledger.get(slot));
        let unclear = unclear.filter(|entry| entry.marked != Marked::No && !matches!(entry.phase(), Phase::Done(_)));
        let code = self.tidy_error.as_ref().map(|error| error.code.as_str());
        let error = self.tidy_error.as_ref().map(|error| cut(&error.message));
        let (writes, deletions) = (count(true), count(false) + if self.marking { unclear.count() } else { 0 });
        let who = |n: usize| if n == 1 { ("1 instance".to_owned(), "it") } else { (format!("{n} instances"), "one") };
        if deletions > 0 {
            let (who, one) = who(deletions);
            let then = format!("if somebody stops {one}, the next start may start it");
            warn!(instances = deletions, code, error, "{who} may keep a mark that should be gone; {then}");
        }
        if writes > 0 {
            let (who, _) = who(writes);
            warn!(
                instances = writes,
                code, error, "{who} could not be marked again; the next start may leave them off"
            );
        }
    }
}

/// Says of a refusal that it was a mark's, with what helps where an organization forbids all tagging. EC2's own words
/// come last: they end in a code that may be cut.
pub(super) fn not_written(error: Error, role: &str) -> Error {
    let hint = match is_denied_by_organization(&error) {
        true => format!("; an organization's policy must leave ec2:CreateTags on instances open to {role}"),
        false => String::new(),
    };
    let message = format!("it could not be marked with {STOPPED_AT_TAG}{hint}: {}", error.message);
    Error { message, ..error }
}
