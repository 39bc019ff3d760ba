//! What EC2's answer to a stop or a start means for each instance in the call.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::ledger::{Marked, Phase, Slot};
use super::queue::{Group, Shortage};
use super::{Engine, HIBERNATION_PAUSE, WAITS};
use crate::ec2::{Change, Class, Error, classify};
use crate::instance::{InstanceId, State};
use crate::outcome::{Outcome, Reason, cut};
use crate::plan::Step;
use crate::request::Mode;

impl Engine<'_> {
    /// Remembers the last error about an instance.
    pub(super) fn note(&mut self, slot: Slot, error: &Error) {
        if classify(error) != Class::TooLate && !matches!(self.ledger.get(slot).phase(), Phase::Done(_)) {
            let message = cut(&error.message);
            self.ledger.get_mut(slot).refusal = Some(Box::new(Error { message, ..error.clone() }));
        }
    }

    /// Records an instance's outcome. An instance that this run did not stop must not keep this run's mark, unless it has
    /// replaced the mark of the run that did.
    pub(super) fn settle(&mut self, slot: Slot, outcome: Outcome) {
        let entry = self.ledger.get(slot);
        let is_off = matches!(&outcome, Outcome::Skipped(skip) if skip.reason == Reason::AlreadyDone);
        let stays = matches!(outcome, Outcome::Changed { .. }) || (is_off && entry.is_contested);
        if self.marking && entry.marked != Marked::No && !stays {
            self.wrong.insert(slot);
        }
        self.ledger.settle(slot, outcome);
    }

    pub(super) fn settle_refused(&mut self, slot: Slot, error: &Error) {
        let message = cut(&error.message).into();
        self.settle(slot, Outcome::Failed { code: error.code.as_str().into(), message });
    }

    /// Records a change that EC2 reported.
    pub(super) fn changed(&mut self, slot: Slot, to: State) {
        let entry = self.ledger.get(slot);
        let message = (entry.hibernation_refused && entry.task.step == Step::Stop { hibernate: false })
            .then(|| "its memory was not saved: EC2 would not hibernate it, so it was stopped".into());
        let (from, launched) = (entry.instance.state.clone(), entry.instance.launch_time);
        self.settle(slot, Outcome::Changed { from, to, launched, message });
    }

    /// EC2 accepted a group: what it says about each instance counts.
    pub(super) fn accepted(&mut self, group: Group, changes: Vec<Change>, now: Instant) {
        let step = group.step();
        self.queues.of(step).accept(&group, now);
        if self.orders.mode == Mode::DryRun {
            for slot in group.slots {
                let from = self.ledger.get(slot).instance.state.clone();
                let to = if step == Step::Start { State::Running } else { State::Stopping };
                self.settle(slot, Outcome::WouldChange { from, to });
            }
            return;
        }
        let answers: BTreeMap<InstanceId, Change> = changes.into_iter().map(|change| (change.id, change)).collect();
        let was_off = |slot: &Slot| {
            let entry = self.ledger.get(*slot);
            let from = answers.get(&entry.instance.id).map(|change| &change.from);
            !entry.sent && matches!(from, Some(State::Stopping | State::Stopped))
        };
        // If a person stopped it between look and call, it stays off and loses the mark, provided that a look shows it off
        // too: if not, the earlier look was out of date as well, and this run stopped it in an attempt that died. If all of
        // several were off, another run of the same evening is at work and this mark has replaced its own: it stays.
        let another_run = group.slots.len() > 1 && group.slots.iter().all(was_off);
        let mut unanswered = Vec::new();
        for slot in &group.slots {
            let entry = self.ledger.get(*slot);
            let sent = entry.sent;
            match (step, answers.get(&entry.instance.id)) {
                (Step::Stop { .. }, Some(Change { from: State::Stopping | State::Stopped, .. })) if !sent => {
                    if another_run {
                        self.ledger.get_mut(*slot).marked = Marked::No;
                    }
                    match self.ledger.get(*slot).marked {
                        Marked::No => self.settle(*slot, Outcome::skipped(Reason::AlreadyDone)),
                        Marked::Perhaps | Marked::Yes => self.ledger.find_off(*slot),
                    }
                }
                (Step::Stop { .. }, Some(Change { to: to @ (State::Stopping | State::Stopped), .. })) => {
                    self.changed(*slot, to.clone());
                }
                (Step::Start, Some(Change { from: State::Running, .. })) if !sent => {
                    self.settle(*slot, Outcome::skipped(Reason::AlreadyDone));
                }
                (Step::Start, Some(change)) => {
                    let ours = sent || change.from != State::Pending;
                    if ours {
                        self.ledger.get_mut(*slot).may_be_switched(now);
                    }
                    // A look may not show yet what this answer says.
                    self.on_its_way(*slot, ours, false, now);
                }
                // EC2 accepted the call, but reports no stop, or nothing at all: a look has to tell.
                _ => unanswered.push(*slot),
            }
        }
        if !unanswered.is_empty() {
            self.lose(group.of(unanswered), false, now);
        }
    }

    /// The instance is being started.
    pub(super) fn on_its_way(&mut self, slot: Slot, ours: bool, seen_pending: bool, now: Instant) {
        self.begin_rounds(slot, now);
        self.ledger.get_mut(slot).seen = now;
        self.ledger.start(slot, ours, seen_pending);
    }

    /// The first instance to change state restarts the rounds of looks.
    pub(super) fn begin_rounds(&mut self, slot: Slot, now: Instant) {
        if self.ledger.watched().is_empty() {
            self.looks.reset(now);
            self.looks.back_off(now);
        }
        self.ledger.get_mut(slot).looked = now;
    }

    /// A group got no clear answer: a look will tell.
    pub(super) fn lose(&mut self, group: Group, marking: bool, now: Instant) {
        for slot in &group.slots {
            let entry = self.ledger.get_mut(*slot);
            match marking {
                // A mark doesn't switch anything.
                true => entry.marked = Marked::Perhaps,
                false => entry.may_be_switched(now),
            }
            self.ledger.lose(*slot);
        }
        self.lost.push(group);
    }

    /// EC2 refused a group, or nobody answered.
    pub(super) fn refused(&mut self, group: Group, error: Error, marking: bool, now: Instant) {
        let live = self.orders.mode == Mode::Live;
        let step = group.step();
        let class = self.class_of(&error, &group, marking);
        for slot in &group.slots {
            self.note(*slot, &error);
            // A CreateTags call that was refused may have tagged some of its instances all the same.
            let entry = self.ledger.get_mut(*slot);
            if marking && live && entry.marked == Marked::No {
                entry.marked = Marked::Perhaps;
            }
        }
        let queue = self.queues.of(step);
        match class {
            Class::Throttled => queue.throttle(group, now),
            Class::TooLate | Class::Transient if live => {
                queue.lose(now);
                self.lose(group, marking, now);
            }
            Class::TooLate => {}
            Class::Transient => {
                queue.lose(now);
                match group.slots[..] {
                    [slot] => self.wait(slot, now),
                    _ => {
                        let slots = group.slots.clone();
                        queue.add_unanswered(group, slots, now);
                    }
                }
            }
            Class::Fatal => self.end(error, &group.slots),
            Class::Capacity | Class::Limit => {
                let several = group.slots.len() > 1;
                for slot in group.slots.iter().filter(|_| live && several) {
                    self.ledger.get_mut(*slot).may_be_switched(now);
                }
                let shortage = if class == Class::Limit { Shortage::Limit } else { Shortage::Capacity };
                for slot in queue.run_short(group, shortage, &self.ledger, now) {
                    self.settle_refused(slot, &error);
                }
            }
            Class::Instance | Class::NotYet | Class::Hibernation | Class::Permission | Class::Unknown => {
                self.isolate(group, class, &error, marking, now);
            }
        }
    }

    /// Returns the class of a refusal, which may depend on the call.
    pub(super) fn class_of(&self, error: &Error, group: &Group, marking: bool) -> Class {
        let hibernating = group.step() == Step::Stop { hibernate: true };
        match classify(error) {
            Class::Capacity | Class::Limit if marking || group.step() != Step::Start => Class::Instance,
            Class::Hibernation if !hibernating => Class::Instance,
            Class::NotYet if !self.is_for_now(group.slots[0], error) => Class::Instance,
            class => class,
        }
    }

    /// Whether EC2 refuses an instance only for now. Only a Spot Instance has a request whose state can lag.
    pub(super) fn is_for_now(&self, slot: Slot, error: &Error) -> bool {
        let spot = self.ledger.get(slot).instance.spot;
        classify(error) == Class::NotYet && (spot || error.code != "IncorrectSpotRequestState")
    }

    /// Settles the instances of a refused group that EC2 named, or the one that was asked for alone; the others are retried.
    pub(super) fn isolate(&mut self, group: Group, class: Class, error: &Error, marking: bool, now: Instant) {
        let step = group.step();
        let several = group.slots.len() > 1;
        let named = InstanceId::all_in(&error.message);
        let is_bad = |slot: &Slot| !several || named.contains(&self.ledger.get(*slot).instance.id);
        let (bad, rest): (Vec<Slot>, Vec<Slot>) = group.slots.iter().partition(|slot| is_bad(slot));
        let before = |slot: &Slot| (self.ledger.get(*slot).sent, self.ledger.get(*slot).unseen);
        let earlier: Vec<(bool, Option<Instant>)> = bad.iter().map(before).collect();
        // A call refused because of one instance may have been carried out for others, in another zone.
        let live = self.orders.mode == Mode::Live;
        for slot in group.slots.iter().filter(|_| several && live && !marking) {
            self.ledger.get_mut(*slot).may_be_switched(now);
        }
        let queue = self.queues.of(step);
        match bad.is_empty() {
            true => queue.refuse_whole(group, now),
            false => queue.refuse_some(group, rest, now),
        }
        for (slot, earlier) in bad.iter().zip(earlier) {
            let entry = self.ledger.get_mut(*slot);
            (entry.sent, entry.unseen) = earlier;
            self.refuse_one(*slot, class, error, now);
        }
        if matches!(class, Class::Permission | Class::Unknown) {
            let queue = self.queues.of(step);
            // However many EC2 names in one answer: it isn't a sample of the others.
            if let Some((rest, asked)) = queue.may_hold_for_all(bad.len().min(1), class == Class::Permission) {
                let message = format!("{} ({asked} others got this error, so this one was not tried)", error.message);
                let error = Error { message, ..error.clone() };
                for slot in rest {
                    self.note(slot, &error);
                    self.fail(slot, &error, now);
                }
            }
        }
    }

    /// Takes in EC2's refusal of one instance.
    pub(super) fn refuse_one(&mut self, slot: Slot, class: Class, error: &Error, now: Instant) {
        let entry = self.ledger.get(slot);
        let stop = entry.task.step != Step::Start;
        let says = |words: &str| error.message.contains(words);
        let one_time = entry.instance.spot && (says("one-time") || says("is a spot instance and may not be stopped"));
        if stop && error.code == "OperationNotPermitted" && says("disableApiStop") {
            return self.settle(slot, Outcome::skipped(Reason::StopProtected));
        }
        if stop && one_time {
            return self.settle(slot, Outcome::skipped(Reason::SpotOneTime));
        }
        match class {
            Class::Hibernation if self.orders.mode == Mode::Live => {
                let supported = error.code != "UnsupportedHibernationConfiguration";
                if supported && !entry.hibernation_refused {
                    self.ledger.get_mut(slot).hibernation_refused = true;
                    return self.ledger.wait(slot, now + HIBERNATION_PAUSE);
                }
                let entry = self.ledger.get_mut(slot);
                entry.hibernation_refused = true;
                entry.task.step = Step::Stop { hibernate: false };
                self.queues.of(entry.task.step).add_retry(&self.ledger, slot, now);
            }
            _ => self.fail(slot, error, now),
        }
    }

    /// Records EC2's refusal; after a look, if something may have changed before it, or if EC2 says that the state isn't
    /// what it showed before.
    pub(super) fn fail(&mut self, slot: Slot, error: &Error, now: Instant) {
        let may_have_changed = self.is_for_now(slot, error) || error.code.starts_with("InvalidInstanceID");
        if self.orders.mode == Mode::DryRun || !(self.ledger.get(slot).sent || may_have_changed) {
            return self.settle_refused(slot, error);
        }
        if self.ledger.doubted().is_empty() {
            self.doubted_since = Some(now);
        }
        self.ledger.get_mut(slot).looked = now;
        self.ledger.doubt(slot);
    }

    /// EC2 refuses it for now: it is retried after a pause.
    pub(super) fn wait(&mut self, slot: Slot, now: Instant) {
        let entry = self.ledger.get_mut(slot);
        if self.orders.in_ticks {
            let reason = entry.refusal.as_ref().map_or("deadline".into(), |error| error.code.as_str().into());
            return self.settle(slot, Outcome::Unfinished { reason });
        }
        let pause = WAITS.first * (WAITS.growth / 100).pow(u32::from(entry.waits).min(8));
        entry.waits = entry.waits.saturating_add(1);
        self.ledger.wait(slot, now + pause.min(WAITS.longest));
    }

    /// Leaves what waits for capacity, or for EC2 to recover, to the next tick.
    pub(super) fn leave_to_the_next_tick(&mut self, now: Instant) {
        for group in self.queues.paused(now) {
            // Instances that weren't in a call themselves were waiting for the same thing.
            let refusal = group.iter().find_map(|slot| self.ledger.get(*slot).refusal.clone());
            for slot in group {
                let own = self.ledger.get(slot).refusal.as_ref().or(refusal.as_ref());
                let reason = own.map_or("deadline".into(), |error| error.code.as_str().into());
                self.settle(slot, Outcome::Unfinished { reason });
            }
        }
    }

    /// Ends the run: EC2 has carried out a dry run on these instances, so no more calls may be made. The target's error
    /// lists them.
    pub(super) fn end(&mut self, error: Error, hit: &[Slot]) {
        for slot in self.ledger.slots() {
            let message = match hit.contains(&slot) {
                true => "EC2 carried out the dry run of this call",
                false => "not tried: EC2 carried out a dry run",
            };
            if !matches!(self.ledger.get(slot).phase(), Phase::Done(_)) {
                self.settle_refused(slot, &Error { message: message.to_owned(), ..error.clone() });
            }
        }
        self.fatal = Some(error);
    }

    /// Queues what is left of the groups whose instances have all been looked at.
    pub(super) fn line_up_what_was_lost(&mut self, now: Instant) {
        let is_lost = |slot: &Slot| matches!(self.ledger.get(*slot).phase(), Phase::Lost);
        let (lost, seen): (Vec<Group>, Vec<Group>) =
            std::mem::take(&mut self.lost).into_iter().partition(|group| group.slots.iter().any(is_lost));
        self.lost = lost;
        for group in seen {
            let wanted: Vec<Slot> = (group.slots.iter())
                .copied()
                .filter(|slot| matches!(self.ledger.get(*slot).phase(), Phase::Queued))
                .collect();
            match (wanted[..].as_ref(), group.slots.len()) {
                ([], _) => {}
                ([slot], 1) => self.wait(*slot, now),
                _ => self.queues.of(group.step()).add_unanswered(group, wanted, now),
            }
        }
    }
}
