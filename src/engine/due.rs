//! Pure: what is due next, read from the phases of the instances.

use tokio::time::Instant;

use super::ledger::{Marked, Phase, Slot};
use super::{Call, DOUBT_LASTS, Due, Engine, LOOK_LASTS};
use crate::deadline::Deadline;
use crate::ec2::MAX_IDS;
use crate::plan::{Step, Task};
use crate::request::Mode;
use crate::select::MAX_FILTER_VALUES;

impl Engine<'_> {
    /// Returns how long a call may take, if there has to be time for this many calls after it.
    pub(super) fn until(&self, calls: u32) -> Deadline {
        if self.marking { self.orders.deadline.earlier(calls).sooner(self.spare * calls) } else { self.orders.deadline }
    }

    /// How many instances fit into a look that carries the request's tag filters.
    pub(super) fn most_in_a_look(&self) -> usize {
        let values: usize = self.orders.tags.iter().map(|(_, values)| values.len()).sum();
        MAX_FILTER_VALUES.saturating_sub(values).max(1)
    }

    /// Returns the next stop or start; before it comes a look, if the last one is too old to act on, and the mark.
    pub(super) fn next_call(&mut self, direction: Step, now: Instant) -> Option<Due> {
        // A look at the marked instances, and deleting their marks, may have to follow.
        let until = self.until(2);
        let most = self.most_in_a_look();
        let queue = self.queues.of(direction);
        let ready_at = queue.ready_at()?;
        if ready_at > now {
            return Some(Due { at: ready_at, call: None, until });
        }
        if queue.hold(&self.ledger, now).is_none() {
            // The instances that were ready have joined those that wait for capacity.
            return queue.ready_at().map(|at| Due { at, call: None, until });
        }
        let group = queue.hold(&self.ledger, now)?;
        let (slots, step) = (group.slots.clone(), group.step());
        let live = self.orders.mode == Mode::Live;
        let wait = queue.pace.wait(if live { slots.len() } else { 0 }, now);
        if !wait.is_zero() {
            return Some(Due { at: now + wait, call: None, until });
        }
        let is_old = |slot: &Slot| live && now.saturating_duration_since(self.ledger.get(*slot).seen) >= LOOK_LASTS;
        if slots.iter().any(is_old) {
            // The look includes some of the next ones: otherwise each small group would need a look of its own.
            let others = queue.next_in_line(most.saturating_sub(slots.len()));
            let old: Vec<Slot> = slots.into_iter().chain(others).filter(is_old).take(most).collect();
            return Some(Due { at: self.unclear.at, call: Some(Call::Look { ids: self.ledger.ids(&old) }), until });
        }
        let those = |wanted: &dyn Fn(Slot) -> bool| -> Vec<Slot> {
            slots.iter().copied().filter(|slot| wanted(*slot)).collect()
        };
        let unmarked = those(&|slot| {
            let entry = self.ledger.get(slot);
            matches!(entry.task, Task { step: Step::Stop { .. }, remembered: true, .. }) && entry.marked != Marked::Yes
        });
        let call = match unmarked.is_empty() {
            false => Call::Mark { ids: self.ledger.ids(&unmarked) },
            true => Call::Switch { step, ids: self.ledger.ids(&slots) },
        };
        Some(Due { at: now, call: Some(call), until })
    }

    /// Returns a look, at once, at what EC2 found off: only this tells whether EC2's view lags, and only for a short time.
    pub(super) fn next_found_off(&self, now: Instant) -> Option<Due> {
        let slots: Vec<Slot> = self.ledger.found_off().iter().copied().take(self.most_in_a_look()).collect();
        let call = (!slots.is_empty()).then(|| Call::Look { ids: self.ledger.ids(&slots) })?;
        Some(Due { at: now.max(self.unclear.at), call: Some(call), until: self.until(2) })
    }

    /// Returns the next look at unclear instances: those of unanswered calls at once; refused ones when several have
    /// gathered, and when EC2 has had time to show what one of our calls may have changed.
    pub(super) fn next_unclear(&self, now: Instant) -> Option<Due> {
        let most = self.most_in_a_look();
        let (lost, doubted) = (self.ledger.lost(), self.ledger.doubted());
        let ripe_at = |slot: &Slot| {
            let entry = self.ledger.get(*slot);
            if entry.unseen.is_some() { entry.looked + DOUBT_LASTS } else { entry.looked }
        };
        let first = doubted.iter().map(ripe_at).min().unwrap_or(now);
        let at = if !lost.is_empty() {
            now
        } else if self.queues.is_empty() || doubted.len() >= most {
            first
        } else {
            first.max(self.doubted_since.map_or(now, |since| since + DOUBT_LASTS))
        };
        let at = at.max(self.unclear.at);
        let ripe = doubted.iter().filter(|slot| ripe_at(slot) <= at.max(now));
        let slots: Vec<Slot> = lost.iter().chain(ripe).copied().take(most).collect();
        (!slots.is_empty()).then(|| Due {
            at,
            call: Some(Call::Look { ids: self.ledger.ids(&slots) }),
            until: self.until(2),
        })
    }

    /// Returns the next look at instances that are changing state: in rounds, in which each is looked at once.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Due> {
        if self.ledger.watched().is_empty() {
            return None;
        }
        let until = self.until(2);
        if self.looks.at <= now {
            if let Some(call) = self.look_on_the_way(self.looks.at) {
                return Some(Due { at: self.looks.at, call: Some(call), until });
            }
            self.looks.back_off(now);
        }
        Some(Due { at: self.looks.at, call: None, until })
    }

    /// Returns a look at instances that are changing state and haven't been looked at since a moment: starts by id, because
    /// only their state counts.
    pub(super) fn look_on_the_way(&self, since: Instant) -> Option<Call> {
        let waits = |slot: &&Slot| self.ledger.get(**slot).looked < since;
        let starting = |slot: &&Slot| matches!(self.ledger.get(**slot).phase(), Phase::Starting { .. });
        let watched = || self.ledger.watched().iter().filter(waits);
        let starts: Vec<Slot> = watched().filter(starting).take(MAX_IDS).copied().collect();
        if !starts.is_empty() {
            return Some(Call::Follow { ids: self.ledger.ids(&starts) });
        }
        let settling: Vec<Slot> = watched().take(self.most_in_a_look()).copied().collect();
        (!settling.is_empty()).then(|| Call::Look { ids: self.ledger.ids(&settling) })
    }

    /// Returns the next mark to correct, as long as that leaves time for the last look at unclear instances: those that it
    /// shows running must lose their marks too.
    pub(super) fn next_tidying_in_time(&mut self, now: Instant) -> Option<Due> {
        let due = self.next_tidying(now)?;
        let until = if self.marking && self.unclear(None).next().is_some() { self.until(2) } else { due.until };
        Some(Due { until, ..due })
    }

    /// Returns the instances that may or may not have been switched, and haven't been looked at since a moment.
    fn unclear(&self, since: Option<Instant>) -> impl Iterator<Item = Slot> {
        let unclear = move |slot: &Slot| {
            let entry = self.ledger.get(*slot);
            let asked = matches!(entry.phase(), Phase::Queued | Phase::Waiting(_)) && entry.sent;
            let too_early = entry.unseen.is_some_and(|called| entry.looked < called + DOUBT_LASTS);
            (matches!(entry.phase(), Phase::Lost | Phase::Doubted | Phase::FoundOff) || asked)
                && since.is_none_or(|since| entry.looked < since || (asked && too_early))
        };
        self.ledger.slots().filter(unclear)
    }

    /// Returns when the next instance that EC2 refused for now is to be retried.
    pub(super) fn next_awake(&self) -> Option<Due> {
        Some(Due { at: self.ledger.next_waiting()?, call: None, until: self.until(2) })
    }

    /// Returns what to do when there is no time for anything else: a last look at what is changing or unclear, so that no
    /// mark of this run stays on an instance that still runs.
    pub(super) fn last_things(&mut self, now: Instant) -> Option<Due> {
        let until = self.until(1);
        self.queues.clear();
        // As late as possible, if that tells more.
        let looks = self.ledger.watched().len().div_ceil(self.most_in_a_look());
        let late = self.orders.deadline.earlier(looks.saturating_sub(1) as u32).last_call().min(until.last_call());
        // Unanswered calls too: EC2 may show their effect a little late.
        let unseen = self.unclear(None).filter_map(|slot| self.ledger.get(slot).unseen).max();
        let shown_at = unseen.map(|since| since + DOUBT_LASTS);
        let at = if looks > 0 { late } else { shown_at.unwrap_or(now).min(late) };
        let at = *self.last_look.get_or_insert(at.max(now));
        // By id: no more decisions, so only the state counts.
        let look = || match self.unclear(Some(at)).take(MAX_IDS).collect::<Vec<Slot>>() {
            slots if slots.is_empty() => self.look_on_the_way(at),
            slots => Some(Call::Follow { ids: self.ledger.ids(&slots) }),
        };
        if until.allows_a_call_at(now)
            && let Some(call) = look()
        {
            return Some(Due { at, call: (at <= now).then_some(call), until });
        }
        for slot in self.ledger.slots().filter(|_| self.marking) {
            let entry = self.ledger.get(slot);
            // If no look has told since, a stop may have been carried out, and the mark is all that brings the instance
            // back.
            let done = matches!(entry.phase(), Phase::FoundOff | Phase::Done(_));
            let perhaps_off = entry.unseen.is_some() || done;
            if entry.marked != Marked::No && !perhaps_off {
                self.wrong.insert(slot);
            }
        }
        self.tidy_wrong();
        self.next_tidying(now).filter(|due| due.until.allows_a_call_at(due.at.max(now)))
    }
}
