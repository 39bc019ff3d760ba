//! Where each instance of a run stands: the only place that knows it, and the only writer of outcomes.
//!
//! Must not know how EC2 is asked, nor who is asked next.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::DOUBT_LASTS;
use crate::ec2::Error;
use crate::instance::{Instance, InstanceId, Mark};
use crate::outcome::{Outcome, Reason, Settled};
use crate::plan::{Step, Task};

/// An instance's place in the ledger.
pub(super) type Slot = u32;

/// Where an instance stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// On its way to where it can be switched: decided again when it has arrived.
    Settling,
    /// To be asked for, alone or with others.
    Queued,
    /// A call is out whose answer never came, or said nothing of it: EC2 may have done it, a look will tell.
    Lost,
    /// EC2 refused it, but something may have changed before: a look comes before `failed`.
    Doubted,
    /// EC2 answered that it was off before; whether its mark stays, a look tells.
    FoundOff,
    /// EC2 refused it for now: to be asked again at that moment.
    Waiting(Instant),
    /// As it should be, once it is marked.
    ToMark,
    /// Being started.
    Starting {
        /// By a call of ours.
        ours: bool,
        /// It was seen on its way.
        seen_pending: bool,
    },
    /// Final: there is no way out of it.
    Done(Box<Outcome>),
}

/// Whether an instance carries this run's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    No,
    /// Nobody answered whether it was written.
    Perhaps,
    Yes,
}

/// An instance, and all that this run knows of it.
#[derive(Debug)]
pub(super) struct Entry {
    /// As EC2 showed it last, before it was switched.
    pub(super) instance: Instance,
    /// When EC2 was asked for that.
    pub(super) seen: Instant,
    /// When it was looked at last, whatever came of it.
    pub(super) looked: Instant,
    pub(super) task: Task,
    /// The plan had nothing to switch about it.
    idle: bool,
    pub(super) marked: Marked,
    /// A call of ours may have switched it: what EC2 finds done from now on is this run's doing.
    pub(super) sent: bool,
    /// And since when EC2 has not shown it: a look soon after may still show what was before.
    pub(super) unseen: Option<Instant>,
    /// Its memory can't be saved: EC2 has said so once.
    pub(super) hibernation_refused: bool,
    /// How often EC2 refused it for now.
    pub(super) waits: u8,
    /// What stood in its way last.
    pub(super) refusal: Option<Box<Error>>,
    phase: Phase,
}

impl Entry {
    /// EC2 shows it, still to be switched.
    pub(super) fn show(&mut self, seen: Instance, mark: &Mark, now: Instant) {
        // Another run has written its own mark over this run's, and perhaps taken that off.
        if self.marked == Marked::Yes && seen.mark().as_ref() != Some(mark) {
            self.marked = Marked::Perhaps;
        }
        self.unseen = self.unseen.filter(|since| now.saturating_duration_since(*since) < DOUBT_LASTS);
        (self.seen, self.instance) = (now, seen.without_other_tags());
    }

    /// A call that may have switched it had no clear answer.
    pub(super) fn may_be_switched(&mut self, now: Instant) {
        (self.sent, self.unseen) = (true, Some(now));
    }

    /// EC2 shows that its start has fallen back. A look soon after a call may still show what became of the start before.
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
                // What is only followed was started.
                task: task.unwrap_or(Task { step: Step::Start, remembered: false, quiet: false }),
                idle: task.is_none(),
                marked: Marked::No,
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

    /// Finds an instance; one that EC2 shows without being asked has no place here.
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

    /// Those that EC2 refused, and that wait for a look.
    pub(super) fn doubted(&self) -> &BTreeSet<Slot> {
        &self.doubted
    }

    /// Those that EC2 found off, and that wait for a look.
    pub(super) fn found_off(&self) -> &BTreeSet<Slot> {
        &self.found_off
    }

    /// Those that are only to be marked.
    pub(super) fn to_mark(&self) -> &BTreeSet<Slot> {
        &self.to_mark
    }

    /// What is on its way somewhere, ours or not.
    pub(super) fn watched(&self) -> &BTreeSet<Slot> {
        &self.watched
    }

    /// Those of a call without a clear answer.
    pub(super) fn lost(&self) -> &BTreeSet<Slot> {
        &self.lost
    }

    /// The first moment at which something that waits is to be asked for again.
    pub(super) fn next_waiting(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Lets what has waited long enough be asked for again.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Slot> {
        let mut awake = Vec::new();
        while let Some((_, slot)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.put(slot, Phase::Queued);
            awake.push(slot);
        }
        awake
    }

    /// It is to be asked for.
    pub(super) fn queue(&mut self, slot: Slot) {
        self.put(slot, Phase::Queued);
    }

    /// It is on its way to where it can be switched.
    pub(super) fn settling(&mut self, slot: Slot) {
        self.put(slot, Phase::Settling);
    }

    /// A call about it had no clear answer.
    pub(super) fn lose(&mut self, slot: Slot) {
        self.put(slot, Phase::Lost);
    }

    /// EC2 refused it, and a look has to come before that is told.
    pub(super) fn doubt(&mut self, slot: Slot) {
        self.put(slot, Phase::Doubted);
    }

    /// EC2 answered that somebody else has stopped it.
    pub(super) fn find_off(&mut self, slot: Slot) {
        self.put(slot, Phase::FoundOff);
    }

    /// It is as it should be, and has to be marked.
    pub(super) fn mark_only(&mut self, slot: Slot) {
        self.put(slot, Phase::ToMark);
    }

    /// EC2 refused it for now.
    pub(super) fn wait(&mut self, slot: Slot, until: Instant) {
        self.put(slot, Phase::Waiting(until));
    }

    /// It is being started. What stood in its way no longer does.
    pub(super) fn start(&mut self, slot: Slot, ours: bool, seen_pending: bool) {
        self.get_mut(slot).refusal = None;
        self.put(slot, Phase::Starting { ours, seen_pending });
    }

    /// Books what became of it, for good.
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

    /// Closes the ledger: what has no outcome by now was not finished.
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
