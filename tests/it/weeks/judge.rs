//! What must be true of every story, whatever goes wrong in it. Knows hours only from the reference, and judges by what
//! happened: who switched which machine, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use ec2_curfew::instance::{Instance, InstanceId, STOPPED_AT_TAG, State, rfc3339};
use ec2_curfew::outcome::{Outcome, Reason};
use tokio::time::Instant;

use super::hours::{HOURS, Said, moment, said};
use super::story::*;
use crate::nights::case::End;
use crate::nights::cloud::*;

/// Only if this many things go wrong with a machine, it may be switched against what a person did.
const AGAINST_A_PERSON: usize = 3;
/// A stop takes at most this long.
const LONGEST_STOP: TimeDelta = TimeDelta::minutes(15);
/// A tick that no call makes wait is over after this: what it has started runs, or has fallen back, by then.
const LONGEST_TICK: Duration = Duration::from_secs(120);
/// The longest time from a call to its arrival, even a slow one.
const LONGEST_CALL: Duration = Duration::from_secs(30);

type Broken = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

/// Judges a story after its run.
pub(crate) fn judge(story: &Story, cloud: &Cloud, rans: &[Ran]) -> Broken {
    let (machines, calls) = {
        let world = cloud.world();
        (world.machines.clone(), world.calls.clone())
    };
    let judge = Judge { story, begun: cloud.begun, rans };
    let mut calls_of = vec![Vec::new(); rans.len()];
    for call in &calls {
        calls_of[call.by].push(call);
    }
    for (by, ran) in rans.iter().enumerate() {
        judge.each_has_one_outcome(by, ran)?;
        judge.never_against_the_hours(by, ran, &machines)?;
        judge.what_is_said_is_true(by, ran, &machines)?;
        judge.a_quiet_tick_only_looks(by, ran, &calls_of[by])?;
        judge.nothing_waits_in_a_tick(by, ran)?;
    }
    for machine in machines.values() {
        judge.against_a_person_only_with_many_faults(machine)?;
        judge.no_stop_without_a_mark(machine)?;
        judge.tries_are_few(machine)?;
        judge.failing_starts_are_few(machine)?;
        judge.ends_on_the_right_side(machine)?;
    }
    Ok(())
}

struct Judge<'a> {
    story: &'a Story,
    begun: Instant,
    rans: &'a [Ran],
}

fn switches_off(did: &Did) -> bool {
    *did == Did::Stop { from: State::Running }
}

fn switches_on(did: &Did) -> bool {
    *did == Did::Start { from: State::Stopped }
}

fn is_off_by_spot(instance: &Instance) -> bool {
    instance.state_reason.as_ref().is_some_and(|reason| reason.code.starts_with("Server.Spot"))
}

fn has_failed(instance: &Instance) -> bool {
    instance.state_reason.as_ref().is_some_and(|reason| reason.is_failed_start())
}

/// Returns the most tries in this many minutes: at once, a step later, and then after waits that double.
fn most_tries(minutes: i64, step: i64) -> usize {
    2 + (minutes / step).max(1).ilog2() as usize
}

impl Judge<'_> {
    fn utc(&self, at: Instant) -> DateTime<Utc> {
        moment(0) + TimeDelta::from_std(at - self.begun).unwrap()
    }

    fn instant(&self, at: DateTime<Utc>) -> Instant {
        self.begun + (at - moment(0)).to_std().unwrap_or_default()
    }

    fn told(&self, machine: &Machine) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for (at, who, did) in &machine.log {
            let who = match who {
                Some(Who::Run(by)) => format!("tick {by} of {}", rfc3339(self.rans[*by].as_of)),
                Some(who) => format!("{who:?}"),
                None => String::new(),
            };
            lines.push((*at, format!("{who} {did:?}")));
        }
        for (by, ran) in self.rans.iter().enumerate() {
            let quiet = matches!(ran.outcome(machine.id), Some(Outcome::Skipped(skip)) if skip.reason != Reason::Tried);
            if quiet {
                continue;
            }
            let end = match (ran.outcome(machine.id), &ran.end) {
                (Some(outcome), _) => format!("{outcome:?}"),
                (None, End::Done { .. }) => "not planned".to_owned(),
                (None, end) => format!("{end:?}"),
            };
            lines.push((ran.ended, format!("tick {by} of {} ends: {end}", rfc3339(ran.as_of))));
        }
        lines.sort_by_key(|(at, _)| *at);
        let text: String = lines.iter().map(|(at, line)| format!("\n  {} {line}", rfc3339(self.utc(*at)))).collect();
        format!("{machine:?}:{text}")
    }

    fn each_has_one_outcome(&self, by: usize, ran: &Ran) -> Broken {
        let End::Done { settled, .. } = &ran.end else { return Ok(()) };
        let ids: Vec<InstanceId> = settled.iter().map(|it| it.id).collect();
        let planned: Vec<InstanceId> = ran.planned.iter().copied().collect();
        must!(ids == planned, "tick {by} planned {planned:?} and told of {ids:?}");
        let with_hours = |it: &&Instance| it.tags.contains_key(HOURS) && !it.state.is_gone();
        let found: BTreeSet<InstanceId> = ran.found.iter().filter(with_hours).map(|it| it.id).collect();
        must!(
            self.story.manner.hides_tags || found == ran.planned,
            "tick {by} found {found:?} and planned {planned:?}"
        );
        Ok(())
    }

    /// Whatever a tick asks for must be allowed by the hours and LaunchTime, as EC2 showed them last.
    fn never_against_the_hours(&self, by: usize, ran: &Ran, machines: &BTreeMap<InstanceId, Machine>) -> Broken {
        for asked in &ran.asked {
            for (shown, _) in &asked.shown {
                let said = said(&shown.tags, ran.as_of);
                let told = || self.told(&machines[&shown.id]);
                match asked.verb {
                    Verb::Stop => {
                        let Some(said) = said else {
                            return Err(format!("tick {by} stops what it is to leave alone: {}", told()));
                        };
                        must!(!said.open, "tick {by} stops against the hours: {}", told());
                        let before = said.edge.is_some_and(|edge| shown.launch_time < edge);
                        must!(before, "tick {by} stops what EC2 shows as started since the edge: {}", told());
                    }
                    Verb::Start => {
                        let Some(said) = said else {
                            return Err(format!("tick {by} starts what it is to leave alone: {}", told()));
                        };
                        must!(said.open && said.start, "tick {by} starts against the hours: {}", told());
                        let mark = shown.mark();
                        must!(mark.is_some(), "tick {by} starts what carries no mark: {}", told());
                        must!(!is_off_by_spot(shown), "tick {by} starts what only EC2 may: {}", told());
                        let newer = mark.is_some_and(|mark| mark.at() > ran.as_of);
                        must!(!newer, "tick {by} starts what a newer one has stopped: {}", told());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Returns what a tick knew about a machine, and since when, at its last call of this kind before a moment.
    fn call_of(&self, by: usize, verb: Verb, id: InstanceId, arrived: Instant) -> Option<&(Instance, Instant)> {
        let calls = self.rans[by].asked.iter().filter(|it| it.verb == verb && it.at <= arrived);
        calls.filter_map(|it| it.shown.iter().find(|(shown, _)| shown.id == id)).next_back()
    }

    fn against_a_person_only_with_many_faults(&self, machine: &Machine) -> Broken {
        let mut last: Option<(Instant, Who, bool)> = None;
        let mut retagged = self.begun;
        for (at, who, did) in &machine.log {
            if matches!(did, Did::Tagged { key, .. } if *key == HOURS) {
                retagged = *at;
            }
            if !switches_off(did) && !switches_on(did) {
                continue;
            }
            let on = switches_on(did);
            if let (Some(Who::Run(by)), Some((then, Who::Person, was_on))) = (who, last)
                && was_on != on
                && let verb = if on { Verb::Start } else { Verb::Stop }
                && let Some((shown, looked)) = self.call_of(*by, verb, machine.id, *at)
                // What happens between its look and its call can't be known.
                && then < *looked
            {
                let edge = said(&shown.tags, self.rans[*by].as_of).and_then(|said| said.edge);
                // New hours are an edge, too.
                let since = edge.map_or(retagged, |edge| self.instant(edge).max(retagged));
                // EC2's clock says when it was started.
                let by_ec2 = (self.utc(then) + self.story.manner.skew).trunc_subsecs(0);
                let faults = self.story.faults(machine.id, *at - self.begun);
                if self.may_switch_back(machine, shown, then, since, on) {
                    last = Some((*at, Who::Run(*by), on));
                    continue;
                }
                let way = if on { "starts what a person stopped" } else { "stops what a person started" };
                let told = || self.told(machine);
                must!(
                    by_ec2 < self.utc(since) || faults >= AGAINST_A_PERSON,
                    "a tick {way} since the edge: tick {by}, {faults} faults: {}",
                    told()
                );
                let by_day = || {
                    let then = machine.at(then).and_then(|it| said(&it.tags, self.utc(then)));
                    then.is_some_and(|said| said.open)
                };
                must!(
                    !(on && self.story.remember && by_day()) || faults >= AGAINST_A_PERSON,
                    "a tick {way} in open hours: tick {by}, {faults} faults: {}",
                    told()
                );
            }
            last = who.map(|who| (*at, who, on));
        }
        Ok(())
    }

    /// Whether a tick had no way to know what a person did at a moment.
    fn may_switch_back(&self, machine: &Machine, shown: &Instance, then: Instant, since: Instant, on: bool) -> bool {
        let mark = shown.valid_mark().map(|mark| mark.at());
        if !on {
            // A resume left LaunchTime as it was, and there is no mark of a stop since this closing.
            return shown.launch_time + TimeDelta::seconds(1) <= self.utc(then) - TimeDelta::seconds(10)
                && machine.keeps_launch_time
                && mark.is_none_or(|mark| mark < self.utc(since));
        }
        // It was running with the mark of a refused stop, and no tick in open hours could delete it before.
        let refused = machine.poisons.iter().any(|it| it.verb == Verb::Unmark)
            || self.story.manner.troubles.iter().any(|it| it.verb.is_none_or(|of| of == Verb::Unmark));
        let could = |ran: &Ran| {
            let open = machine.at(ran.begun).and_then(|it| said(&it.tags, ran.as_of)).is_some_and(|said| said.open);
            let old = mark.is_some_and(|mark| ran.as_of - mark > LONGEST_STOP);
            ran.is_done() && ran.ended < then && self.instant(ran.as_of) >= since && open && old
        };
        let ran_with_it = mark.is_some_and(|mark| self.utc(then) > mark + TimeDelta::seconds(30));
        ran_with_it && (refused || !self.rans.iter().any(could))
    }

    fn no_stop_without_a_mark(&self, machine: &Machine) -> Broken {
        for (at, who, did) in &machine.log {
            let (Some(Who::Run(by)), true) = (who, switches_off(did)) else { continue };
            let from = at.checked_sub(LONGEST_CALL).unwrap();
            let marked = machine.between(from, *at).any(|it| it.mark().is_some());
            must!(marked, "a stop without a mark: tick {by}: {}", self.told(machine));
        }
        Ok(())
    }

    fn what_is_said_is_true(&self, by: usize, ran: &Ran, machines: &BTreeMap<InstanceId, Machine>) -> Broken {
        for found in &ran.found {
            let Some(outcome) = ran.outcome(found.id) else { continue };
            let told = || self.told(&machines[&found.id]);
            if let Outcome::Changed { .. } = outcome {
                let asked = ran.asked.iter().any(|asked| {
                    matches!(asked.verb, Verb::Stop | Verb::Start)
                        && asked.shown.iter().any(|(shown, _)| shown.id == found.id)
                });
                must!(asked, "tick {by} says changed, and never asked for it: {}", told());
            }
            let Some(said) = said(&found.tags, ran.as_of) else { continue };
            let failing = found.state == State::Stopped
                && said.open
                && said.start
                && has_failed(found)
                && !is_off_by_spot(found)
                && found.mark().is_some_and(|mark| mark.at() <= ran.as_of)
                && said.edge.is_some_and(|edge| found.launch_time >= edge);
            let left = !matches!(outcome, Outcome::Skipped(skip) if skip.reason == Reason::AsScheduled);
            must!(!failing || left, "tick {by} doesn't say that a start fails: {outcome:?}: {}", told());
        }
        Ok(())
    }

    /// Whether there is nothing to do about an instance that EC2 shows like this.
    fn is_at_rest(&self, it: &Instance, as_of: DateTime<Utc>) -> bool {
        let Some(Said { open, edge, start }) = said(&it.tags, as_of) else { return true };
        let mark = it.valid_mark().map(|mark| mark.at());
        match (&it.state, open) {
            (State::Running, true) => mark.is_none_or(|mark| as_of - mark <= LONGEST_STOP),
            (State::Running, false) => {
                let waits = |edge| mark.is_some_and(|mark| mark >= edge && as_of - mark < mark - edge);
                edge.is_none_or(|edge| it.launch_time >= edge || waits(edge))
            }
            (State::Stopped, true) => !start || it.mark().is_none_or(|mark| mark.at() > as_of),
            (State::Stopped, false) => self.story.remember || !start || mark.is_some() || is_off_by_spot(it),
            _ => true,
        }
    }

    fn a_quiet_tick_only_looks(&self, by: usize, ran: &Ran, calls: &[&Called]) -> Broken {
        let quiet = ran.found.iter().all(|it| self.is_at_rest(it, ran.as_of));
        if !quiet || !ran.is_done() {
            return Ok(());
        }
        let writes: Vec<Verb> = calls.iter().map(|call| call.verb).filter(|verb| *verb != Verb::Look).collect();
        must!(writes.is_empty(), "a quiet tick writes: tick {by} of {}: {writes:?}", rfc3339(ran.as_of));
        let plain = calls.iter().all(|call| call.said == "yes");
        must!(
            !plain || calls.len() == 1,
            "a quiet tick looks more than once: tick {by} of {}: {}",
            rfc3339(ran.as_of),
            calls.len()
        );
        Ok(())
    }

    /// No tick waits for long: the next one does what this one can't.
    fn nothing_waits_in_a_tick(&self, by: usize, ran: &Ran) -> Broken {
        let took = ran.ended - ran.begun;
        must!(
            took < LONGEST_TICK || !self.story.manner.troubles.is_empty(),
            "a tick waits: tick {by} of {} took {took:?}: {:?}",
            rfc3339(ran.as_of),
            ran.end
        );
        Ok(())
    }

    /// Returns the ticks that asked for this, by the last edge at the time.
    fn asked(&self, machine: &Machine, verb: Verb) -> BTreeMap<DateTime<Utc>, BTreeSet<DateTime<Utc>>> {
        let mut by_edge: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ran in self.rans {
            for (shown, _) in ran.asked.iter().filter(|asked| asked.verb == verb).flat_map(|asked| &asked.shown) {
                if shown.id == machine.id
                    && let Some(Said { edge: Some(edge), .. }) = said(&shown.tags, ran.as_of)
                {
                    by_edge.entry(edge).or_default().insert(ran.as_of);
                }
            }
        }
        by_edge
    }

    fn is_stripped(&self, machine: &Machine, since: Instant) -> bool {
        machine.log.iter().any(|(at, _, did)| {
            *at >= since && matches!(did, Did::Tagged { key, value: None } if *key == STOPPED_AT_TAG)
        })
    }

    fn tries_are_few(&self, machine: &Machine) -> Broken {
        for (verb, more) in [(Verb::Stop, 0), (Verb::Mark, 1)] {
            // Without a mark, a try isn't remembered.
            if verb == Verb::Mark && machine.poisons.iter().any(|it| it.verb == Verb::Mark)
                || self.story.manner.troubles.iter().any(|it| it.verb.is_none_or(|of| of == Verb::Mark))
                || self.is_stripped(machine, self.begun)
            {
                continue;
            }
            for (edge, ticks) in self.asked(machine, verb) {
                // A start in between begins a new count of tries.
                let starts = machine.log.iter().filter(|(at, _, did)| *at >= self.instant(edge) && switches_on(did));
                let minutes = ticks.last().map_or(0, |last| (*last - edge).num_minutes());
                // A tick out of order doesn't count a newer tick's mark.
                let late = self.story.ticks.iter().filter(|tick| !tick.is_plain()).count();
                let most = most_tries(minutes, self.story.step) + more + late;
                must!(
                    ticks.len() <= most || starts.count() > 0,
                    "too many tries of {verb:?}: {} since {}, at most {most}: {}",
                    ticks.len(),
                    rfc3339(edge),
                    self.told(machine)
                );
            }
        }
        Ok(())
    }

    fn failing_starts_are_few(&self, machine: &Machine) -> Broken {
        let fell: Vec<Instant> =
            machine.log.iter().filter(|(_, _, did)| matches!(did, Did::Fell(_))).map(|(at, ..)| *at).collect();
        let others = machine.log.iter().any(|(_, who, did)| {
            who.is_some_and(|who| !matches!(who, Who::Run(_))) && (switches_on(did) || switches_off(did))
        });
        if fell.len() < 3 || others || !self.story.manner.skew.is_zero() {
            return Ok(());
        }
        for (edge, ticks) in self.asked(machine, Verb::Start) {
            let minutes = ticks.last().map_or(0, |last| (*last - edge).num_minutes());
            let most = most_tries(minutes, self.story.step) + 1;
            // A refused start leaves LaunchTime as it is, so the next try doesn't wait.
            let refused = machine
                .log
                .iter()
                .any(|(_, _, did)| matches!(did, Did::Refused { verb: Verb::Start, .. } | Did::Unclear(Verb::Start)));
            must!(
                ticks.len() <= most || refused,
                "too many failing starts: {} since {}, at most {most}: {}",
                ticks.len(),
                rfc3339(edge),
                self.told(machine)
            );
        }
        Ok(())
    }

    /// Returns when the quiet time at the end begins, if there is any.
    fn quiet_since(&self) -> Option<Duration> {
        let story = self.story;
        let at = |minute: i64| Duration::from_secs(minute as u64 * 60);
        let (before, tail) = story.ticks.split_at(story.ticks.len().checked_sub(3)?);
        let since = at(tail[0].due);
        let in_step = tail.windows(2).all(|pair| pair[1].due - pair[0].due == story.step);
        let quiet = in_step
            && tail.iter().all(Tick::is_plain)
            && before.iter().all(|it| at(it.due) + it.delay + Duration::from_secs(270) <= since || it.is_plain())
            && story.acts.iter().all(|(at, ..)| *at <= since)
            && story.manner.troubles.iter().all(|it| it.until <= since);
        quiet.then_some(since)
    }

    fn ends_on_the_right_side(&self, machine: &Machine) -> Broken {
        let (Some(since), Some(last)) = (self.quiet_since(), self.rans.last()) else { return Ok(()) };
        let Some(now) = machine.at(Instant::now()).filter(|it| !it.state.is_gone()) else { return Ok(()) };
        let Some(said) = said(&now.tags, last.as_of) else { return Ok(()) };
        let told = || self.told(machine);
        must!(last.is_done(), "the last tick of quiet hours is not done: {}", told());
        let mark = now.valid_mark().map(|mark| mark.at());
        let refused =
            |verb: Verb| machine.poisons.iter().any(|it| it.verb == verb && it.until.is_none_or(|until| until > since));
        match (said.open, now.state == State::Running) {
            (true, true) => {
                let old = mark.is_some_and(|mark| last.as_of - mark > LONGEST_STOP);
                must!(!old || refused(Verb::Unmark), "a mark stays on what runs in its hours: {}", told());
                Ok(())
            }
            (false, true) => {
                let excused =
                    refused(Verb::Stop) || refused(Verb::Mark) || self.may_run(machine, now, said, last.as_of);
                must!(excused, "it runs in closed hours: {}", told());
                Ok(())
            }
            (true, false) => {
                let excused = refused(Verb::Start)
                    || !machine.falls.is_empty()
                    || self.may_be_off(machine, now, said, last.as_of);
                must!(excused, "it is off in open hours: {}", told());
                Ok(())
            }
            (false, false) => Ok(()),
        }
    }

    fn last(&self, machine: &Machine, of: fn(&Did) -> bool) -> Option<(Instant, Option<Who>)> {
        machine.log.iter().rev().find(|(_, _, did)| of(did)).map(|(at, who, _)| (*at, *who))
    }

    /// Whether the rule lets it run in closed hours.
    fn may_run(&self, machine: &Machine, now: &Instance, said: Said, as_of: DateTime<Utc>) -> bool {
        // Its hours have never closed.
        let Some(edge) = said.edge else { return true };
        let started = self.last(machine, switches_on);
        let retagged = |at: Instant| {
            machine
                .log
                .iter()
                .any(|(then, _, did)| *then >= at && matches!(did, Did::Tagged { key, .. } if *key == HOURS))
        };
        match started {
            // A person has started it since by EC2's clock, even if LaunchTime doesn't say so.
            Some((at, Some(Who::Person))) if self.utc(at) + self.story.manner.skew >= edge => return true,
            // It was launched after the edge.
            None if now.launch_time >= edge => return true,
            // A tick due before the edge started it after the edge, or its hours are different from those that EC2
            // showed that tick.
            Some((at, Some(Who::Run(by)))) if now.launch_time >= edge => {
                let looked = self.call_of(by, Verb::Start, machine.id, at).map_or(at, |(_, looked)| *looked);
                let shown = looked.checked_sub(self.story.manner.lag).unwrap_or(looked);
                return self.rans[by].as_of < edge || retagged(shown);
            }
            _ => {}
        }
        let tried = now.valid_mark().map(|mark| mark.at()).filter(|tried| *tried >= edge);
        // A stop was tried, and the next try isn't due; after a hibernation, there is none before the next closing.
        tried.is_some_and(|tried| as_of - tried < tried - edge || self.story.hibernate && machine.hibernation)
    }

    /// Whether the rule lets it be off in open hours.
    fn may_be_off(&self, machine: &Machine, now: &Instance, said: Said, as_of: DateTime<Utc>) -> bool {
        if !said.start || is_off_by_spot(now) {
            return true;
        }
        if let Some(edge) = said.edge.filter(|edge| now.launch_time >= *edge)
            && has_failed(now)
            && as_of - now.launch_time < now.launch_time - edge
        {
            return true;
        }
        // Without an edge, or once its hours have closed and opened again, only a mark tells a failed start of ours
        // apart from an instance that a person switched off.
        let of_this_opening = said.edge.is_some_and(|edge| now.launch_time >= edge);
        if !of_this_opening && has_failed(now) && now.valid_mark().is_none() {
            return true;
        }
        let is_off = |did: &Did| switches_off(did) || matches!(did, Did::Fell(_));
        let off = machine.log.iter().rev().find(|(_, _, did)| is_off(did));
        let (at, who) = match off {
            None => (self.begun, None),
            // A start that fell back counts as done by whoever started it.
            Some((at, _, Did::Fell(_))) => (*at, self.last(machine, switches_on).and_then(|(_, who)| who)),
            Some((at, who, _)) => (*at, *who),
        };
        if let Some(Who::Run(_)) = who {
            let stopped = self.last(machine, switches_off).map_or(self.begun, |(at, _)| at);
            return self.is_stripped(machine, stopped.checked_sub(LONGEST_CALL).unwrap_or(self.begun));
        }
        if self.story.remember {
            return true;
        }
        // Without `remember` a tick in closed hours takes it over.
        let took_over = |ran: &Ran| {
            let found = ran.found.iter().find(|it| it.id == machine.id && it.state == State::Stopped);
            let closed =
                found.and_then(|it| super::hours::said(&it.tags, ran.as_of)).is_some_and(|it| !it.open && it.start);
            let as_scheduled = ran.outcome(machine.id) == Some(&Outcome::skipped(Reason::AsScheduled));
            ran.begun > at
                && closed
                && as_scheduled
                && ran.as_of > now.launch_time
                && found.is_some_and(|it| !is_off_by_spot(it))
        };
        !self.rans.iter().any(took_over) || self.is_stripped(machine, at)
    }
}
