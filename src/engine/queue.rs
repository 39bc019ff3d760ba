//! Pure: which instances go into the next call, and together with which.
//!
//! EC2 carries out a call for all of its instances or for none, so one bad instance costs its group a call. No other
//! instance may wait because of that: instances that haven't been in a call go first, and refused groups go to the back, in
//! halves. A half that must hold the bad one, because the other half went through, is halved again without a call for the
//! whole. The size of a call is learned from EC2's answers to earlier ones.
//!
//! In a shortage (of capacity in a zone, or at a limit of the account), halving finds nothing: what fits depends on how many
//! are asked for. There the first in line are asked for in ever smaller groups, and an instance refused alone goes to
//! the back of its own line.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Backoff, Ladder};
use super::ledger::{Ledger, Slot};
use super::pace::Pace;
use crate::ec2::{Buckets, Limits};
use crate::plan::Step;

/// Instances in one StopInstances or StartInstances call.
///
/// Small enough that a bad one is found by halving in 12 calls (2 × log2 64), large enough that a thousand
/// instances are 16: StartInstances has a bucket of 5 calls, refilled by 2 a second (EC2 developer guide,
/// "Request throttling").
const LARGEST: usize = 64;
/// A refused group counts as much as this many accepted ones. With groups halved after each refusal but the first,
/// and a quarter larger after each success, groups settle at eight where one instance in 33 is bad (`make bench`, row
/// `poison`: there, the tokens that refused calls cost and the number of calls are in balance).
const REFUSAL: u32 = 4;
/// Instances refused one by one, with none ever accepted, before a permission counts as missing for all: if a tenth of
/// the rest would go through, one of them is accepted in half of all cases; if half would, in 98 of 100.
const PROBES: usize = 6;
/// The same for a code that this version doesn't know, or once something was accepted: as many as are cheap.
const PATIENT_PROBES: usize = 64;
/// Fewer than this are always asked for one by one.
const FEW: usize = 2 * PROBES;
/// Instances of one type refused one by one before the account's limit counts as reached.
const LIMIT_PROBES: usize = 3;
/// Instances refused one by one for lack of capacity before the whole pool waits; twice as many each time, up to the second
/// figure.
const CAPACITY_PROBES: (usize, usize) = (24, 64);
/// Pauses before a pool without capacity is tried again.
const CAPACITY_PAUSES: Ladder =
    Ladder { first: Duration::from_secs(10), longest: Duration::from_secs(120), growth: 150 };
/// Pauses while EC2 fails as a whole, or throttles.
const CALL_PAUSES: Ladder = Ladder { first: Duration::from_millis(250), longest: Duration::from_secs(20), growth: 150 };
/// Calls in a row without a clear answer before instances are asked for one by one: is it an instance, or EC2?
const SUSPICIOUS: u32 = 2;

/// What instances in one call have in common, because EC2 treats the kinds differently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pool: Option<Pool>,
    spot: bool,
    step: Step,
}

/// What is short: a capacity pool (EC2's word for an instance type in a zone), or a limit of the account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pool {
    /// The capacity for an instance type in a zone.
    Zone { zone: Arc<str>, instance_type: Arc<str> },
    /// The account's limit for an instance type.
    Account { instance_type: Arc<str> },
}

/// What EC2 says is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    Capacity,
    Limit,
}

/// The instances of one call.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) slots: Vec<Slot>,
    kind: Kind,
    origin: Origin,
}

impl Group {
    pub(super) fn step(&self) -> Step {
        self.kind.step
    }

    /// Returns a part of it.
    pub(super) fn of(&self, slots: Vec<Slot>) -> Self {
        Self { slots, ..self.clone() }
    }
}

/// Why a group has the size it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// As many as the line's size allows.
    Sized,
    /// One of two halves of a refused group.
    Half(u32),
    /// A single instance, to hear what EC2 says about it.
    Alone,
}

/// Instances to be retried together.
#[derive(Debug)]
struct Part {
    slots: Vec<Slot>,
    suspicion: Suspicion,
    /// The call got no answer, so EC2 itself may have been the reason.
    unanswered: bool,
}

/// What is known about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    /// Nothing: it may be cut, and join others.
    None,
    /// Its other half is in a call.
    Half(u32),
    /// It holds an instance that EC2 refuses.
    Bad,
}

/// The instances of one kind, in line.
#[derive(Debug)]
struct Line {
    fresh: VecDeque<Slot>,
    retries: VecDeque<Part>,
    /// The size of the next group.
    size: usize,
    /// The turn at which it was last served.
    served: u64,
    /// How often its groups were recently refused: a refusal adds [`REFUSAL`], an accepted group takes off one.
    refused: u32,
    /// Only in a shortage: accepted groups in a row, instances refused one by one, and how many of these are enough.
    in_a_row: usize,
    alone: usize,
    enough: usize,
    pause: Backoff,
}

impl Line {
    fn new(size: usize, now: Instant) -> Self {
        Self {
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
            size,
            served: 0,
            refused: 0,
            in_a_row: 0,
            alone: 0,
            enough: CAPACITY_PROBES.0,
            pause: Backoff::new(CAPACITY_PAUSES, now),
        }
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.retries.is_empty()
    }

    fn len(&self) -> usize {
        self.fresh.len() + self.retries.iter().map(|part| part.slots.len()).sum::<usize>()
    }

    fn push(&mut self, slots: Vec<Slot>, suspicion: Suspicion, unanswered: bool) {
        if !slots.is_empty() {
            self.retries.push_back(Part { slots, suspicion, unanswered });
        }
    }

    /// A group was not accepted.
    fn learn(&mut self, origin: Origin) {
        if origin == Origin::Sized {
            self.refused += REFUSAL;
            // One bad instance doesn't call for smaller groups; one in each of several does.
            if self.refused > REFUSAL {
                self.size = (self.size / 2).max(1);
            }
        }
    }

    /// Takes a single instance.
    fn take_one(&mut self, nth: usize) -> Option<Slot> {
        // Neighbours are often alike: samples are taken from all over the line, at multiples of the golden ratio, which leave
        // no wide gap however many are taken.
        let nth = (nth as u32).wrapping_mul(0x9e37_79b9);
        let at = |len: usize| ((u64::from(nth) * len as u64) >> 32) as usize;
        if !self.fresh.is_empty() {
            return self.fresh.remove(at(self.fresh.len()));
        }
        let mut place = at(self.len());
        let index = self.retries.iter().position(|part| match part.slots.len() {
            len if place < len => true,
            len => {
                place -= len;
                false
            }
        })?;
        let part = &mut self.retries[index];
        let slot = part.slots.remove(place);
        if part.suspicion != Suspicion::Bad {
            part.suspicion = Suspicion::None;
        }
        if part.slots.is_empty() {
            self.retries.remove(index);
        }
        Some(slot)
    }

    /// Takes the next group, and says whether it is a half of another.
    fn take(&mut self, pair: u32) -> Option<(Vec<Slot>, Origin)> {
        if !self.fresh.is_empty() {
            let size = self.size.min(self.fresh.len());
            return Some((self.fresh.drain(..size).collect(), Origin::Sized));
        }
        let part = self.retries.front_mut()?;
        if part.suspicion == Suspicion::Bad && part.slots.len() == 1 {
            return Some((self.retries.pop_front()?.slots, Origin::Alone));
        }
        if part.suspicion == Suspicion::Bad {
            let other = part.slots.split_off(part.slots.len() / 2);
            let half = std::mem::replace(&mut part.slots, other);
            part.suspicion = Suspicion::Half(pair);
            return Some((half, Origin::Half(pair)));
        }
        let mut slots = Vec::new();
        let mut at = 0;
        while slots.len() < self.size
            && let Some(part) = self.retries.get_mut(at)
        {
            if part.suspicion == Suspicion::Bad {
                at += 1;
                continue;
            }
            let some = part.slots.len().min(self.size - slots.len());
            slots.extend(part.slots.drain(..some));
            part.suspicion = Suspicion::None;
            if part.slots.is_empty() {
                self.retries.remove(at);
            }
        }
        Some((slots, Origin::Sized))
    }

    /// Finds the other one of two halves.
    fn other_half(&mut self, origin: Origin) -> Option<&mut Part> {
        let Origin::Half(pair) = origin else { return None };
        self.retries.iter_mut().find(|part| part.suspicion == Suspicion::Half(pair))
    }
}

/// Everything that a run is to stop, and everything that it is to start.
#[derive(Debug)]
pub(super) struct Queues {
    stops: Queue,
    starts: Queue,
}

impl Queues {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let queue = |step| Queue::new(limits.of(step), now);
        Self { stops: queue(Step::Stop { hibernate: false }), starts: queue(Step::Start) }
    }

    /// Returns the queue that a step belongs to.
    pub(super) fn of(&mut self, step: Step) -> &mut Queue {
        match step {
            Step::Stop { .. } => &mut self.stops,
            Step::Start => &mut self.starts,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.starts.is_empty()
    }

    /// Takes an instance out of the current groups: it needs no call any more.
    pub(super) fn let_go(&mut self, slot: Slot) {
        self.stops.let_go(slot);
        self.starts.let_go(slot);
    }

    /// Whether it is in a current group.
    pub(super) fn holds(&self, slot: Slot) -> bool {
        let held = |queue: &Queue| queue.held.as_ref().is_some_and(|group| group.slots.contains(&slot));
        held(&self.stops) || held(&self.starts)
    }

    /// Takes out what waits for capacity in its pool, or for EC2 to answer again, each with those that wait for the same.
    pub(super) fn paused(&mut self, now: Instant) -> Vec<Vec<Slot>> {
        [&mut self.stops, &mut self.starts].into_iter().flat_map(|queue| queue.take_paused(now)).collect()
    }

    /// Empties the queues: no more calls are to be made.
    pub(super) fn clear(&mut self) {
        self.stops.take_all();
        self.starts.take_all();
    }
}

/// Everything that a run is to switch in one direction.
#[derive(Debug)]
pub(super) struct Queue {
    lines: BTreeMap<Kind, Line>,
    /// The current group, until its call is answered.
    held: Option<Group>,
    pub(super) pace: Pace,
    largest: usize,
    turn: u64,
    pairs: u32,
    /// EC2 has accepted a group.
    accepted: bool,
    /// Something was refused for a reason that may apply to all: one at a time, until something is accepted.
    probing: bool,
    /// Instances refused one by one since something was accepted, for a reason that may apply to all.
    refused_alone: usize,
    /// Calls in a row without a clear answer.
    unanswered: u32,
    /// When the next call may be made: EC2 throttles, or fails as a whole.
    pause: Backoff,
}

impl Queue {
    fn new(buckets: Buckets, now: Instant) -> Self {
        Self {
            lines: BTreeMap::new(),
            held: None,
            pace: Pace::new(buckets, now),
            // EC2 would never accept more than the bucket holds.
            largest: LARGEST.min(buckets.instances.size as usize).max(1),
            turn: 0,
            pairs: 0,
            accepted: false,
            probing: false,
            refused_alone: 0,
            unanswered: 0,
            pause: Backoff::new(CALL_PAUSES, now),
        }
    }

    fn kind(ledger: &Ledger, slot: Slot) -> Kind {
        let entry = ledger.get(slot);
        Kind { pool: None, spot: entry.instance.spot, step: entry.task.step }
    }

    fn line(&mut self, kind: &Kind, now: Instant) -> &mut Line {
        let size = self.largest;
        self.lines.entry(kind.clone()).or_insert_with(|| Line::new(size, now))
    }

    /// Queues an instance that hasn't been in a call.
    pub(super) fn add(&mut self, ledger: &Ledger, slot: Slot, now: Instant) {
        self.line(&Self::kind(ledger, slot), now).fresh.push_back(slot);
    }

    /// Queues an instance for a retry, at the back.
    pub(super) fn add_retry(&mut self, ledger: &Ledger, slot: Slot, now: Instant) {
        self.line(&Self::kind(ledger, slot), now).push(vec![slot], Suspicion::None, false);
    }

    /// Queues what is left of a group that got no clear answer, in halves.
    pub(super) fn add_unanswered(&mut self, group: Group, slots: Vec<Slot>, now: Instant) {
        let line = self.line(&group.kind, now);
        line.learn(group.origin);
        line.push(slots, Suspicion::Bad, true);
    }

    fn is_empty(&self) -> bool {
        self.held.is_none() && self.lines.values().all(Line::is_empty)
    }

    fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |group| group.slots.len()) + self.lines.values().map(Line::len).sum::<usize>()
    }

    /// Returns when the next call may be made, whatever its size.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        let lines = self.lines.values().filter(|line| !line.is_empty()).map(|line| line.pause.at).min();
        let at = if self.held.is_some() { Some(self.pause.at) } else { lines };
        at.map(|at| at.max(self.pause.at))
    }

    /// Makes the next group the current one; it stays so until its call is answered.
    pub(super) fn hold(&mut self, ledger: &Ledger, now: Instant) -> Option<&Group> {
        if self.held.as_ref().is_none_or(|group| group.slots.is_empty()) {
            self.held = self.form(ledger, now);
        }
        self.held.as_ref()
    }

    fn let_go(&mut self, slot: Slot) {
        if let Some(group) = &mut self.held {
            group.slots.retain(|held| *held != slot);
        }
        if self.held.as_ref().is_some_and(|group| group.slots.is_empty()) {
            self.held = None;
        }
    }

    /// Returns some of the instances after the current group.
    pub(super) fn next_in_line(&self, most: usize) -> Vec<Slot> {
        let fresh = self.lines.values().flat_map(|line| &line.fresh);
        let again = self.lines.values().flat_map(|line| &line.retries).flat_map(|part| &part.slots);
        fresh.chain(again).copied().take(most).collect()
    }

    /// Takes out the current group.
    pub(super) fn take_held(&mut self) -> Option<Group> {
        self.held.take()
    }

    fn form(&mut self, ledger: &Ledger, now: Instant) -> Option<Group> {
        self.send_to_their_pools(ledger);
        let alone = (self.probing && !self.accepted) || self.unanswered >= SUSPICIOUS;
        let open = self.lines.iter_mut().filter(|(_, line)| !line.is_empty() && line.pause.at <= now);
        let (kind, line) = open.min_by_key(|(_, line)| (line.fresh.is_empty(), line.served))?;
        let kind = kind.clone();
        let fresh = !line.fresh.is_empty();
        let (slots, origin) = match alone {
            true => (vec![line.take_one(self.refused_alone)?], Origin::Alone),
            false => line.take(self.pairs)?,
        };
        // Instances that haven't been in a call go first, On-Demand before Spot; the others take turns.
        if !fresh {
            self.turn += 1;
            line.served = self.turn;
        }
        self.pairs += 1;
        Some(Group { slots, kind, origin })
    }

    /// Moves those of a pool that is known to be short into its line.
    fn send_to_their_pools(&mut self, ledger: &Ledger) {
        let pools: Vec<Kind> = self
            .lines
            .iter()
            .filter(|(kind, line)| kind.pool.is_some() && !line.is_empty())
            .map(|(k, _)| k.clone())
            .collect();
        if pools.is_empty() {
            return;
        }
        let mut moved: Vec<(Kind, Slot)> = Vec::new();
        for (kind, line) in self.lines.iter_mut().filter(|(kind, _)| kind.pool.is_none()) {
            line.fresh.retain(|slot| {
                let of = |pool: &&Kind| {
                    let shortage = match &pool.pool {
                        Some(Pool::Zone { .. }) => Shortage::Capacity,
                        _ => Shortage::Limit,
                    };
                    **pool == pool_of(kind, ledger, *slot, shortage)
                };
                let pool = pools.iter().find(of);
                moved.extend(pool.map(|pool| (pool.clone(), *slot)));
                pool.is_none()
            });
        }
        for (kind, slot) in moved {
            if let Some(line) = self.lines.get_mut(&kind) {
                line.push(vec![slot], Suspicion::None, false);
            }
        }
    }

    /// EC2 gave a clear answer of any kind.
    fn answered(&mut self, now: Instant) {
        if self.unanswered > SUSPICIOUS {
            // It was EC2's own failure: no instance is a suspect for that.
            for part in self.lines.values_mut().flat_map(|line| &mut line.retries).filter(|part| part.unanswered) {
                part.suspicion = Suspicion::None;
            }
        }
        self.unanswered = 0;
        self.pause.reset(now);
        self.pace.accepted();
    }

    /// EC2 accepted a group.
    pub(super) fn accept(&mut self, group: &Group, now: Instant) {
        self.answered(now);
        (self.accepted, self.probing, self.refused_alone) = (true, false, 0);
        let largest = self.largest;
        let Some(line) = self.lines.get_mut(&group.kind) else { return };
        if let Some(other) = line.other_half(group.origin) {
            other.suspicion = Suspicion::Bad;
        }
        if group.kind.pool.is_some() {
            line.in_a_row += 1;
            (line.alone, line.enough) = (0, CAPACITY_PROBES.0);
            line.pause.reset(now);
            if group.origin == Origin::Alone {
                // There is capacity again, maybe also for those that were refused alone.
                line.retries.iter_mut().for_each(|part| part.suspicion = Suspicion::None);
            }
            if line.in_a_row > 1 {
                line.size = (line.size * 2).min(largest);
            }
            if line.is_empty() {
                self.lines.remove(&group.kind);
            }
            return;
        }
        if group.origin == Origin::Sized {
            line.refused = line.refused.saturating_sub(1);
            if group.slots.len() * 2 >= line.size {
                line.size = (line.size + (line.size / 4).max(1)).min(largest);
            }
        }
    }

    /// EC2 throttled the call: the same group again, later.
    pub(super) fn throttle(&mut self, group: Group, now: Instant) {
        self.pause.back_off(now);
        self.held = Some(group);
    }

    /// The call got no clear answer.
    pub(super) fn lose(&mut self, now: Instant) {
        self.unanswered += 1;
        if self.unanswered > SUSPICIOUS {
            self.pause.back_off(now);
        }
    }

    /// EC2 refused the group because of some instances; the rest is retried, and nothing is known about it.
    pub(super) fn refuse_some(&mut self, group: Group, rest: Vec<Slot>, now: Instant) {
        self.refuse(&group, rest, Suspicion::None, now);
    }

    /// EC2 refused the group without naming an instance.
    pub(super) fn refuse_whole(&mut self, mut group: Group, now: Instant) {
        let slots = std::mem::take(&mut group.slots);
        self.refuse(&group, slots, Suspicion::Bad, now);
    }

    fn refuse(&mut self, group: &Group, rest: Vec<Slot>, suspicion: Suspicion, now: Instant) {
        self.answered(now);
        let line = self.line(&group.kind, now);
        line.learn(group.origin);
        if let Some(other) = line.other_half(group.origin) {
            other.suspicion = Suspicion::None;
        }
        line.push(rest, suspicion, false);
    }

    /// EC2 refused the group, or a single instance, for a reason that may apply to all. If by now it is taken to apply to
    /// all, returns everything that is left, with the number of instances that EC2 refused.
    pub(super) fn may_hold_for_all(&mut self, alone: usize, known: bool) -> Option<(Vec<Slot>, usize)> {
        self.probing = true;
        self.refused_alone += alone;
        let enough = if known && !self.accepted { PROBES } else { PATIENT_PROBES };
        (self.refused_alone >= enough && self.len() > FEW).then(|| (self.take_all(), self.refused_alone))
    }

    /// EC2 lacks capacity for the group, or the account's limit is reached. Returns every instance of a type whose limit
    /// counts as reached.
    pub(super) fn run_short(&mut self, group: Group, shortage: Shortage, ledger: &Ledger, now: Instant) -> Vec<Slot> {
        self.answered(now);
        let count = group.slots.len();
        let mut pools: BTreeMap<Kind, Vec<Slot>> = BTreeMap::new();
        for slot in group.slots {
            pools.entry(pool_of(&group.kind, ledger, slot, shortage)).or_default().push(slot);
        }
        let only = pools.len() == 1;
        let mut reached = Vec::new();
        for (kind, slots) in pools {
            let line = self.line(&kind, now);
            line.in_a_row = 0;
            if count == 1 {
                line.push(slots, Suspicion::Bad, false);
                reached.extend(self.without_capacity(&kind, shortage, now));
                continue;
            }
            line.size = line.size.min(if only { count / 2 } else { slots.len() });
            // The first in line stay first: smaller groups of them tell how much fits.
            line.retries.push_front(Part { slots, suspicion: Suspicion::None, unanswered: false });
        }
        if !reached.is_empty() {
            // Instances of the same type that haven't been in a call are under the same limit.
            self.send_to_their_pools(ledger);
        }
        reached.iter().filter_map(|kind| self.lines.remove(kind)).flat_map(slots_of).collect()
    }

    /// A start fell back because there was no capacity after all: it waits in its pool's line.
    pub(super) fn fell_short(&mut self, slot: Slot, ledger: &Ledger, now: Instant) {
        let kind = pool_of(&Self::kind(ledger, slot), ledger, slot, Shortage::Capacity);
        let line = self.line(&kind, now);
        line.in_a_row = 0;
        line.push(vec![slot], Suspicion::Bad, false);
        self.without_capacity(&kind, Shortage::Capacity, now);
    }

    /// An instance of a pool was refused alone; after a few of these the whole pool waits, or counts as at its limit.
    fn without_capacity(&mut self, kind: &Kind, shortage: Shortage, now: Instant) -> Option<Kind> {
        let line = self.line(kind, now);
        line.alone += 1;
        line.size = 1;
        match shortage {
            Shortage::Limit => (line.alone >= LIMIT_PROBES.min(line.len())).then(|| kind.clone()),
            Shortage::Capacity => {
                if line.alone >= line.enough.min(line.len()) {
                    line.pause.back_off(now);
                    (line.alone, line.enough) = (0, (line.enough * 2).min(CAPACITY_PROBES.1));
                }
                None
            }
        }
    }

    fn take_paused(&mut self, now: Instant) -> Vec<Vec<Slot>> {
        // Only after several single instances: two that fail don't mean that EC2 fails.
        if self.unanswered as usize > SUSPICIOUS as usize + PROBES && self.pause.at > now {
            return vec![self.take_all()];
        }
        let waits = |(kind, line): (&Kind, &Line)| (line.pause.at > now).then(|| kind.clone());
        let kinds: Vec<Kind> = self.lines.iter().filter_map(waits).collect();
        kinds.iter().filter_map(|kind| self.lines.remove(kind)).map(|line| slots_of(line).collect()).collect()
    }

    /// Takes out everything.
    fn take_all(&mut self) -> Vec<Slot> {
        let held = self.held.take().map(|group| group.slots).unwrap_or_default();
        let lines = std::mem::take(&mut self.lines);
        held.into_iter().chain(lines.into_values().flat_map(slots_of)).collect()
    }
}

fn slots_of(line: Line) -> impl Iterator<Item = Slot> {
    line.fresh.into_iter().chain(line.retries.into_iter().flat_map(|part| part.slots))
}

/// Returns the kind of the line in which an instance waits out a shortage.
fn pool_of(kind: &Kind, ledger: &Ledger, slot: Slot, shortage: Shortage) -> Kind {
    let instance = &ledger.get(slot).instance;
    let instance_type = instance.instance_type.clone();
    let pool = match shortage {
        Shortage::Capacity => Pool::Zone { zone: instance.zone.clone(), instance_type },
        Shortage::Limit => Pool::Account { instance_type },
    };
    Kind { pool: Some(pool), ..kind.clone() }
}
