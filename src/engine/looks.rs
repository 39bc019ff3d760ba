//! What a look means for the instances that EC2 shows: it is believed, whatever was asked before.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::ledger::{Marked, Phase, Slot};
use super::{Engine, LAG_LASTS};
use crate::ec2::{Error, ErrorKind, Fall, fall};
use crate::instance::{Instance, InstanceId, State, StateReason};
use crate::outcome::{Outcome, Reason, Skip, cut};
use crate::plan::{Decision, Step, Task};

/// Starts that fell back and need a new mark, each with its LaunchTime.
type Fallen = Vec<(Slot, DateTime<Utc>)>;

impl Engine<'_> {
    /// Takes in what EC2 shows; `whole` if it shows tags too, and if EC2 doesn't know an instance that is missing.
    pub(super) fn shown(&mut self, asked: &[InstanceId], shown: Vec<Instance>, whole: bool, now: Instant) {
        let (mut fallen, mut doubtful) = (Vec::new(), false);
        let mut missing: BTreeSet<InstanceId> = asked.iter().copied().collect();
        for instance in shown {
            let Some(slot) = self.ledger.slot(instance.id) else { continue };
            if !missing.remove(&instance.id) {
                continue;
            }
            self.ledger.get_mut(slot).looked = now;
            // It had tags before: an answer without any is not believed.
            if whole && instance.tags.is_empty() && !self.ledger.get(slot).instance.tags.is_empty() {
                doubtful = true;
                continue;
            }
            match self.ledger.get(slot).phase() {
                Phase::Starting { ours, seen_pending } => {
                    let (ours, seen_pending) = (*ours, *seen_pending);
                    self.follow(slot, instance, ours, seen_pending, &mut fallen, now);
                }
                Phase::Settling => self.decide(slot, instance, now),
                Phase::Lost | Phase::Doubted | Phase::FoundOff | Phase::Queued | Phase::Waiting(_) if !whole => {
                    self.see_at_last(slot, instance, &mut fallen, now);
                }
                Phase::FoundOff => {
                    if !matches!(instance.state, State::Stopping | State::Stopped) {
                        self.ledger.get_mut(slot).marked = Marked::No;
                    }
                    self.settle(slot, Outcome::skipped(Reason::AlreadyDone));
                }
                Phase::Queued if !self.queues.holds(slot) && !self.queues.is_empty() => {
                    // Its turn comes later; it needs no look of its own only if nothing has changed.
                    if let Decision::Do(_) = (self.orders.decide)(&instance) {
                        self.ledger.get_mut(slot).show(instance, self.orders, now);
                    }
                }
                Phase::Lost | Phase::Doubted | Phase::Queued | Phase::Waiting(_) => {
                    self.believe(slot, instance, &mut fallen, now);
                }
                Phase::ToMark | Phase::Done(_) => {}
            }
        }
        let missing: Vec<Slot> = missing.into_iter().filter_map(|id| self.ledger.slot(id)).collect();
        for slot in missing {
            self.ledger.get_mut(slot).looked = now;
            match self.ledger.get(slot).phase() {
                Phase::Lost | Phase::Doubted | Phase::FoundOff if whole => {
                    let gone = Skip::saying(Reason::Gone, "EC2 no longer knows it".to_owned());
                    self.settle(slot, Outcome::Skipped(gone.into()));
                    self.queues.let_go(slot);
                }
                // EC2's answer to the call will show it.
                Phase::Queued => self.ledger.get_mut(slot).seen = now,
                _ => {}
            }
        }
        if whole {
            self.doubted_since = Some(now);
        }
        match doubtful {
            true => self.unclear.back_off(now),
            false => self.unclear.reset(now),
        }
        self.mark_anew(&fallen, now);
    }

    /// Records what the very last look shows, by the state alone: there is no time for anything else.
    fn see_at_last(&mut self, slot: Slot, seen: Instance, fallen: &mut Fallen, now: Instant) {
        self.ledger.get_mut(slot).unseen = None;
        let entry = self.ledger.get(slot);
        let refusal = entry.refusal.clone().filter(|_| matches!(entry.phase(), Phase::Doubted));
        let found_off = matches!(entry.phase(), Phase::FoundOff);
        match (entry.task.step, &seen.state) {
            (_, state) if state.is_gone() => self.gone(slot, &seen),
            (Step::Stop { .. }, to @ (State::Stopping | State::Stopped)) if entry.sent => {
                self.changed(slot, to.clone())
            }
            (Step::Stop { .. }, State::Stopping | State::Stopped) => {
                self.settle(slot, Outcome::skipped(Reason::AlreadyDone));
            }
            (Step::Start, State::Running) if entry.sent => self.runs(slot, &seen, true),
            (Step::Start, State::Pending) if entry.sent => self.ledger.start(slot, true, true),
            (Step::Start, State::Stopped) if entry.sent && self.is_news(slot, &seen) => {
                self.fell_back(slot, seen, true, fallen, now);
            }
            _ if found_off => {
                self.ledger.get_mut(slot).marked = Marked::No;
                self.settle(slot, Outcome::skipped(Reason::AlreadyDone));
            }
            _ => match refusal {
                Some(error) if !self.is_for_now(slot, &error) => self.settle_refused(slot, &error),
                _ => self.ledger.queue(slot),
            },
        }
    }

    /// Follows a start: that EC2 accepted it doesn't mean that it runs.
    pub(super) fn follow(
        &mut self,
        slot: Slot,
        seen: Instance,
        ours: bool,
        seen_pending: bool,
        fallen: &mut Fallen,
        now: Instant,
    ) {
        match &seen.state {
            State::Running => self.runs(slot, &seen, ours),
            State::Pending => self.ledger.start(slot, ours, true),
            State::Stopped | State::ShuttingDown | State::Terminated
                if seen_pending
                    || self.is_news(slot, &seen)
                    || seen.state.is_gone()
                    || now.saturating_duration_since(self.ledger.get(slot).seen) >= LAG_LASTS =>
            {
                self.fell_back(slot, seen, ours, fallen, now);
            }
            // DescribeInstances lags: "stopped" may still be the state from before the start.
            State::Stopped | State::Stopping | State::ShuttingDown | State::Terminated | State::Unknown(_) => {}
        }
    }

    /// Whether EC2 shows anything but the state changed since before the start.
    pub(super) fn is_news(&self, slot: Slot, seen: &Instance) -> bool {
        let before = &self.ledger.get(slot).instance;
        seen.launch_time != before.launch_time || seen.state_reason != before.state_reason
    }

    /// A start has succeeded, so its mark has done its job. It is deleted by its value, and so never another run's.
    pub(super) fn runs(&mut self, slot: Slot, seen: &Instance, ours: bool) {
        let served = self.ledger.get(slot).instance.mark().filter(|mark| ours || mark.at() <= seen.launch_time);
        if let Some(mark) = served {
            self.tidy(false, mark, seen.id);
        }
        match ours {
            true => self.changed(slot, State::Running),
            false => self.settle(slot, Outcome::skipped(Reason::AlreadyDone)),
        }
    }

    /// A start fell back.
    pub(super) fn fell_back(&mut self, slot: Slot, seen: Instance, ours: bool, fallen: &mut Fallen, now: Instant) {
        if seen.state.is_gone() {
            return self.gone(slot, &seen);
        }
        let reason = seen.state_reason.as_deref();
        let cause = fall(reason);
        if cause == Fall::Stopped {
            let served = self.ledger.get(slot).instance.mark().filter(|_| ours);
            if let Some(mark) = served {
                self.tidy(false, mark, seen.id);
            }
            let why = "somebody stopped it after it was started".to_owned();
            return self.settle(slot, Outcome::Skipped(Skip::saying(Reason::StoppedSince, why).into()));
        }
        let for_now = matches!(cause, Fall::Capacity | Fall::Transient);
        if for_now && seen.tags.is_empty() && !self.ledger.get(slot).instance.tags.is_empty() {
            // Starts are followed by id, and such an answer may leave out the tags, which the decision needs.
            let entry = self.ledger.get_mut(slot);
            entry.has_fallen_back(now);
            entry.refusal = reason.map(|reason| Box::new(refusal_of(reason)));
            return self.ledger.settling(slot);
        }
        let again = match (self.orders.decide)(&seen) {
            Decision::Do(task) => Some(task),
            _ => None,
        };
        if let Some(task) = again.filter(|_| for_now) {
            let entry = self.ledger.get_mut(slot);
            let remembered = task.remembered || entry.task.remembered;
            (entry.task, entry.seen) = (Task { remembered, ..task }, now);
            entry.has_fallen_back(now);
            entry.refusal = reason.map(|reason| Box::new(refusal_of(reason)));
            entry.instance = seen.without_other_tags();
            match cause {
                Fall::Capacity => {
                    // It waits in its pool's line, and no longer with the instances of an unanswered call.
                    self.lost.iter_mut().for_each(|group| group.slots.retain(|it| *it != slot));
                    self.ledger.queue(slot);
                    self.queues.of(Step::Start).fell_short(slot, &self.ledger, now);
                }
                _ => self.wait(slot, now),
            }
            return;
        }
        let failed = reason.is_none_or(StateReason::is_failed_start);
        let remembered =
            if ours { self.ledger.get(slot).task.remembered } else { again.is_some_and(|it| it.remembered) };
        if failed && remembered {
            fallen.push((slot, seen.launch_time));
        }
        self.settle(slot, failed_start(reason, cause, self.orders.role));
    }

    pub(super) fn gone(&mut self, slot: Slot, seen: &Instance) {
        let gone = Skip::saying(Reason::Gone, format!("it is {}", seen.state));
        self.settle(slot, Outcome::Skipped(gone.into()));
    }

    /// Decides again about an instance that hasn't been in a call yet.
    pub(super) fn decide(&mut self, slot: Slot, seen: Instance, now: Instant) {
        match (self.orders.decide)(&seen) {
            Decision::Await(_) => {}
            Decision::Do(task) => {
                let entry = self.ledger.get_mut(slot);
                (entry.task, entry.seen, entry.instance) = (task, now, seen.without_other_tags());
                self.ledger.queue(slot);
                self.queues.of(task.step).add(&self.ledger, slot, now);
            }
            Decision::Follow => self.on_its_way(slot, false, true, now),
            Decision::Leave(_) | Decision::Refuse { .. } if seen.state.is_gone() => self.gone(slot, &seen),
            other => self.let_be(slot, other),
        }
    }

    /// Nothing to switch: records the reason, and corrects the mark if that is all there is to do.
    fn let_be(&mut self, slot: Slot, decision: Decision) {
        let id = self.ledger.get(slot).instance.id;
        match &decision {
            Decision::Mark => {
                self.tidy(true, self.orders.mark.clone(), id);
                return self.ledger.mark_only(slot);
            }
            Decision::Unmark(mark) => self.tidy(false, mark.clone(), id),
            _ => {}
        }
        if let Some(outcome) = decision.settled() {
            self.settle(slot, outcome);
        }
    }

    /// Believes what EC2 shows of an instance that was in a call, or is about to be: if it has arrived, this run did it only
    /// if a call of this run may have done it; if not, it is decided again, as if it had never been in a call.
    pub(super) fn believe(&mut self, slot: Slot, seen: Instance, fallen: &mut Fallen, now: Instant) {
        let entry = self.ledger.get(slot);
        let (step, sent, doubted) = (entry.task.step, entry.sent, matches!(entry.phase(), Phase::Doubted));
        let waits = matches!(entry.phase(), Phase::Waiting(_));
        let held = matches!(entry.phase(), Phase::Queued);
        let refusal = entry.refusal.clone().filter(|_| doubted);
        match (step, &seen.state) {
            (_, state) if state.is_gone() => self.gone(slot, &seen),
            (Step::Stop { .. }, to @ (State::Stopping | State::Stopped)) if sent => self.changed(slot, to.clone()),
            (Step::Start, State::Running) if sent => self.runs(slot, &seen, true),
            (Step::Start, State::Pending) => self.on_its_way(slot, sent, true, now),
            (Step::Start, State::Stopped) if sent && self.is_news(slot, &seen) => {
                self.fell_back(slot, seen, true, fallen, now);
            }
            _ => match (self.orders.decide)(&seen) {
                Decision::Do(task) => {
                    let entry = self.ledger.get_mut(slot);
                    // If it can't hibernate, it remains a plain stop.
                    let step = if entry.hibernation_refused { entry.task.step } else { task.step };
                    entry.task = Task { step, ..task };
                    entry.show(seen, self.orders, now);
                    match refusal {
                        Some(error) if self.is_for_now(slot, &error) => self.wait(slot, now),
                        Some(error) => self.settle_refused(slot, &error),
                        None if waits => {}
                        None => self.ledger.queue(slot),
                    }
                    return;
                }
                Decision::Await(_) => {
                    self.begin_rounds(slot, now);
                    self.ledger.settling(slot);
                }
                Decision::Follow => self.on_its_way(slot, false, true, now),
                other => self.let_be(slot, other),
            },
        }
        if held {
            self.queues.let_go(slot);
        }
    }
}

fn refusal_of(reason: &StateReason) -> Error {
    let kind = ErrorKind::NoAnswer;
    Error { code: reason.code.clone(), message: cut(&reason.message), kind }
}

/// Says why a start failed, with a hint for the most common cause.
fn failed_start(reason: Option<&StateReason>, cause: Fall, role: &str) -> Outcome {
    let Some(reason) = reason else {
        return Outcome::Failed {
            code: "NoStateReason".into(),
            message: "EC2 accepted the start, but the instance never ran, and EC2 doesn't say why".into(),
        };
    };
    let hint = match cause {
        Fall::Failed { key: true } => {
            format!(". Is its volume encrypted? Then {role} needs kms:CreateGrant on the key")
        }
        _ => String::new(),
    };
    let said = cut(&reason.message);
    Outcome::Failed {
        code: reason.code.as_str().into(),
        message: format!("{said}; EC2 accepted the start, but the instance never ran{hint}").into(),
    }
}
