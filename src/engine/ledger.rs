//! The phase of each instance of a run: the only place that knows it, and the only one that writes outcomes.
//!
//! Must not know how EC2 is called, or which instance is next.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{DOUBT_LASTS, Orders, is_anothers};
use crate::ec2::Error;
use crate::instance::{Instance, InstanceId};
use crate::outcome::{Outcome, Reason, Settled};
use crate::plan::{Step, Task};

/// An instance's place in the ledger.
pub(super) type Slot = u32;

/// The phase of an instance.
#[derive(Debug)]
pub(super) enum Phase {
    /// Changing to a state in which it can be switched: decided again when it gets there.
    Settling,
    /// To be switched, alone or with others.
    Queued,
    /// In a call whose answer never came, or didn't mention it: EC2 may have done it, a look will tell.
    Lost,
    /// EC2 refused it, but something may have changed before: it is looked at before it counts as failed.
    Doubted,
    /// EC2 answered that it was already off; a look tells whether its mark stays.
    FoundOff,
    /// EC2 refused it for now: to be retried at that moment.
    Waiting(Instant),
    /// In the right state, but still to be marked.
    ToMark,
    /// Being started.
    Starting {
        /// By one of our calls.
        ours: bool,
        /// It has been seen as pending.
        seen_pending: bool,
    },
    /// Final.
    Done(Box<Outcome>),
}

/// Whether an instance carries this run's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    No,
    /// The call that writes it got no clear answer.
    Perhaps,
    Yes,
}

/// An instance, and everything that this run knows about it.
#[derive(Debug)]
pub(super) struct Entry {
    /// As EC2 last showed it, before it was switched.
    pub(super) instance: Instance,
    /// When EC2 was asked for it.
    pub(super) seen: Instant,
    /// When it was last looked at, whatever the answer.
    pub(super) looked: Instant,
    pub(super) task: Task,
    /// The plan left it alone.
    idle: bool,
    pub(super) marked: Marked,
    /// Another run has marked it, too, and may be stopping it: found off, it keeps its mark.
    pub(super) is_contested: bool,
    /// One of our calls may have switched it: a change that EC2 shows from now on counts as this run's.
    pub(super) sent: bool,
    /// The time of that call, until EC2 shows a change: a look soon after it may still show the state before.
    pub(super) unseen: Option<Instant>,
    /// EC2 has refused once to hibernate it.
    pub(super) hibernation_refused: bool,
    /// How often EC2 has refused it for now.
    pub(super) waits: u8,
    /// The last error about it.
    pub(super) refusal: Option<Box<Error>>,
    phase: Phase,
}

impl Entry {
    /// EC2 shows it, and it is still to be switched.
    pub(super) fn show(&mut self, seen: Instance, orders: Orders<'_>, now: Instant) {
        // Another run has overwritten this run's mark with its own, and perhaps deleted that.
        if self.marked == Marked::Yes && seen.mark().as_ref() != Some(orders.mark) {
            self.marked = Marked::Perhaps;
        }
        self.is_contested |= is_anothers(&seen, orders);
        self.unseen = self.unseen.filter(|since| now.saturating_duration_since(*since) < DOUBT_LASTS);
        (self.seen, self.instance) = (now, seen.without_other_tags());
    }

    /// A call that may have switched it got no clear answer.
    pub(super) fn may_be_switched(&mut self, now: Instant) {
        (self.sent, self.unseen) = (true, Some(now));
    }

    /// EC2 shows that its start has fallen back. A look soon after a call may still show how the previous start ended.
    pub(super) fn has_fallen_back(&mut self, now: Instant) {
        if self.unseen.is_none_or(|called| now.saturating_duration_since(called) >= DOUBT_LASTS) {
            (self.sent, self.unseen) = (false, None);
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }
}

/// All instances of a run, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    watched: BTreeSet<Slot>,
    lost: BTreeSet<Slot>,
    doubted: BTreeSet<Slot>,
    found_off: BTreeSet<Slot>,
    waiting: BTreeSet<(Instant, Slot)>,
    to_mark: BTreeSet<Slot>,
}

impl Ledger {
    /// Opens the ledger; each instance has a phase from the beginning.
    pub(super) fn open(mut first: Vec<(Instance, Option<Task>, Phase)>, seen: Instant) -> Self {
        first.sort_unstable_by_key(|(instance, ..)| instance.id);
        let mut ledger = Self { entries: Vec::with_capacity(first.len()), ..Self::default() };
        for (instance, task, phase) in first {
            let slot = ledger.entries.len() as Slot;
            ledger.entries.push(Entry {
                instance,
                seen,
                looked: seen,
                // An instance that is only followed is being started.
                task: task.unwrap_or(Task { step: Step::Start, remembered: false, quiet: false }),
                idle: task.is_none(),
                marked: Marked::No,
                is_contested: false,
                sent: false,
                unseen: None,
                hibernation_refused: false,
                waits: 0,
                refusal: None,
                phase: Phase::Queued,
            });
            ledger.put(slot, phase);
        }
        ledger
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        0..self.entries.len() as Slot
    }

    /// Finds an instance; one that EC2 shows unasked is not in the ledger.
    pub(super) fn slot(&self, id: InstanceId) -> Option<Slot> {
        self.entries.binary_search_by_key(&id, |entry| entry.instance.id).ok().map(|slot| slot as Slot)
    }

    pub(super) fn get(&self, slot: Slot) -> &Entry {
        &self.entries[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    pub(super) fn ids(&self, slots: &[Slot]) -> Vec<InstanceId> {
        slots.iter().map(|slot| self.get(*slot).instance.id).collect()
    }

    /// Returns the instances that EC2 refused and that wait for a look.
    pub(super) fn doubted(&self) -> &BTreeSet<Slot> {
        &self.doubted
    }

    /// Returns the instances that EC2 found off and that wait for a look.
    pub(super) fn found_off(&self) -> &BTreeSet<Slot> {
        &self.found_off
    }

    /// Returns the instances that are only to be marked.
    pub(super) fn to_mark(&self) -> &BTreeSet<Slot> {
        &self.to_mark
    }

    /// Returns the instances that are changing state, by our doing or not.
    pub(super) fn watched(&self) -> &BTreeSet<Slot> {
        &self.watched
    }

    /// Returns the instances of calls without a clear answer.
    pub(super) fn lost(&self) -> &BTreeSet<Slot> {
        &self.lost
    }

    /// Returns the first moment at which a waiting instance is to be retried.
    pub(super) fn next_waiting(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Releases the instances that have waited long enough.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Slot> {
        let mut awake = Vec::new();
        while let Some((_, slot)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.put(slot, Phase::Queued);
            awake.push(slot);
        }
        awake
    }

    /// It is to be switched.
    pub(super) fn queue(&mut self, slot: Slot) {
        self.put(slot, Phase::Queued);
    }

    /// It is changing to a state in which it can be switched.
    pub(super) fn settling(&mut self, slot: Slot) {
        self.put(slot, Phase::Settling);
    }

    /// A call about it got no clear answer.
    pub(super) fn lose(&mut self, slot: Slot) {
        self.put(slot, Phase::Lost);
    }

    /// EC2 refused it, and it has to be looked at before that is reported.
    pub(super) fn doubt(&mut self, slot: Slot) {
        self.put(slot, Phase::Doubted);
    }

    /// EC2 answered that somebody else had stopped it.
    pub(super) fn find_off(&mut self, slot: Slot) {
        self.put(slot, Phase::FoundOff);
    }

    /// It is in the right state, and has to be marked.
    pub(super) fn mark_only(&mut self, slot: Slot) {
        self.put(slot, Phase::ToMark);
    }

    /// EC2 refused it for now.
    pub(super) fn wait(&mut self, slot: Slot, until: Instant) {
        self.put(slot, Phase::Waiting(until));
    }

    /// It is being started: earlier errors no longer matter.
    pub(super) fn start(&mut self, slot: Slot, ours: bool, seen_pending: bool) {
        self.get_mut(slot).refusal = None;
        self.put(slot, Phase::Starting { ours, seen_pending });
    }

    /// Records its outcome, for good.
    pub(super) fn settle(&mut self, slot: Slot, outcome: Outcome) {
        self.put(slot, Phase::Done(outcome.into()));
    }

    fn put(&mut self, slot: Slot, phase: Phase) {
        match self.get(slot).phase {
            Phase::Done(_) => {
                debug_assert!(false, "{} is done: {:?}, and now {phase:?}", self.get(slot).instance.id, self.get(slot));
                return;
            }
            Phase::Settling | Phase::Starting { .. } => drop(self.watched.remove(&slot)),
            Phase::Lost => drop(self.lost.remove(&slot)),
            Phase::Doubted => drop(self.doubted.remove(&slot)),
            Phase::FoundOff => drop(self.found_off.remove(&slot)),
            Phase::Waiting(until) => drop(self.waiting.remove(&(until, slot))),
            Phase::ToMark => drop(self.to_mark.remove(&slot)),
            Phase::Queued => {}
        }
        match phase {
            Phase::Settling | Phase::Starting { .. } => drop(self.watched.insert(slot)),
            Phase::Lost => drop(self.lost.insert(slot)),
            Phase::Doubted => drop(self.doubted.insert(slot)),
            Phase::FoundOff => drop(self.found_off.insert(slot)),
            Phase::Waiting(until) => drop(self.waiting.insert((until, slot))),
            Phase::ToMark => drop(self.to_mark.insert(slot)),
            Phase::Queued | Phase::Done(_) => {}
        }
        self.get_mut(slot).phase = phase;
    }

    /// Closes the ledger: an instance without an outcome by now is unfinished.
    pub(super) fn close(self) -> Vec<Settled> {
        let settled = |entry: Entry| {
            let outcome = match entry.phase {
                Phase::Done(outcome) => *outcome,
                Phase::FoundOff => Outcome::skipped(Reason::AlreadyDone),
                _ => Outcome::Unfinished { reason: entry.refusal.map_or("deadline".into(), |error| error.code.into()) },
            };
            Settled::of(&entry.instance, (!entry.idle).then_some(entry.task), outcome)
        };
        self.entries.into_iter().map(settled).collect()
    }
}
