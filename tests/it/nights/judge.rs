//! What must be true of every night, whatever goes wrong in it. Knows nothing about how Curfew works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use ec2_curfew::instance::{InstanceId, State};
use ec2_curfew::outcome::{Outcome, Reason};
use ec2_curfew::plan::{Decision, decide_again};
use tokio::time::Instant;

use super::case::*;
use super::cloud::*;

/// How long a look may be acted on: `LOOK_LASTS` of the engine.
const LOOK_LASTS: Duration = Duration::from_secs(10);

/// Counts instances that stay off in the morning because two runs of the evening met; see `off_by_us_comes_on`.
pub(crate) static LOST_TO_A_DUPLICATE: AtomicUsize = AtomicUsize::new(0);

/// How long DescribeInstances lags behind at most.
const LAG_LASTS: Duration = Duration::from_secs(20);

type Broken = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

/// Judges a case after its run.
pub(crate) fn judge(case: &Case, cloud: &Arc<Cloud>, rans: &[Ran]) -> Broken {
    let machines: BTreeMap<InstanceId, Machine> = cloud.world().machines.clone();
    let night = Night { case, cloud, rans };
    for by in 0..rans.len() {
        night.each_has_one_outcome(by)?;
        for machine in machines.values() {
            night.outcome_is_true(by, machine)?;
            night.only_what_may_be_is_switched(by, machine)?;
            night.no_mark_on_what_runs(by, machine)?;
        }
    }
    for machine in machines.values() {
        night.good_ones_are_off(machine)?;
        night.off_by_a_person_stays_off(machine)?;
        night.off_by_us_comes_on(machine)?;
        night.no_old_mark_on_what_runs(machine)?;
    }
    Ok(())
}

struct Night<'a> {
    case: &'a Case,
    cloud: &'a Cloud,
    rans: &'a [Ran],
}

fn effective(did: &Did, stop: bool) -> bool {
    match did {
        Did::Stop { from } => stop && matches!(from, State::Running | State::Pending),
        Did::Start { from } => !stop && matches!(from, State::Stopped | State::Stopping),
        _ => false,
    }
}

fn attempt(did: &Did, stop: bool) -> bool {
    let of = if stop { Verb::Stop } else { Verb::Start };
    match did {
        Did::Stop { .. } => stop,
        Did::Start { .. } => !stop,
        Did::Unclear(verb) | Did::Refused { verb, .. } => *verb == of,
        _ => false,
    }
}

fn unclear(did: &Did, of: Verb) -> bool {
    matches!(did, Did::Unclear(verb) | Did::Refused { verb, clearly: false } if *verb == of)
}

impl Night<'_> {
    fn at(&self, after: Duration) -> Instant {
        self.cloud.begun + after
    }

    fn since(&self, at: Instant) -> f64 {
        (at - self.cloud.begun).as_secs_f64()
    }

    fn told(&self, machine: &Machine) -> String {
        let mut text = String::new();
        for (at, who, did) in &machine.log {
            text += &format!("\n  {:9.2} {who:?} {did:?}", self.since(*at));
        }
        for (by, ran) in self.rans.iter().enumerate() {
            text += &format!(
                "\n  run {by} ({} {}) {:.2} to {:.2}: {:?}",
                if ran.event.stop { "stop" } else { "start" },
                &ran.event.id[..4],
                self.since(ran.begun),
                self.since(ran.ended),
                ran.outcome(machine.id).map_or_else(|| format!("{:?}", short(&ran.end)), |it| format!("{it:?}"))
            );
        }
        format!(
            "{}, now {} launched {} with mark {:?}:{text}",
            machine.id,
            machine.state,
            machine.launched,
            machine.mark().map(|mark| mark.as_str().to_owned())
        )
    }

    fn each_has_one_outcome(&self, by: usize) -> Broken {
        let End::Done { settled, .. } = &self.rans[by].end else { return Ok(()) };
        let ids: Vec<InstanceId> = settled.iter().map(|it| it.id).collect();
        let planned: Vec<InstanceId> = self.rans[by].planned.iter().copied().collect();
        must!(ids == planned, "run {by} planned {planned:?} and told of {ids:?}");
        Ok(())
    }

    /// Whether a person did something to it, other than exempting it, that a run may mistake for its own work.
    fn touched(&self, machine: &Machine, from: Instant, to: Instant) -> bool {
        machine.log.iter().any(|(at, who, did)| {
            *at >= from && *at <= to && (*who == Some(Who::Person)) && !matches!(did, Did::Exempt(_))
        })
    }

    fn exempted(&self, machine: &Machine, from: Instant, to: Instant) -> bool {
        machine.between(from, to).any(|it| it.tags.contains_key("curfew:exempt"))
    }

    fn outcome_is_true(&self, by: usize, machine: &Machine) -> Broken {
        let ran = &self.rans[by];
        let Some(outcome) = ran.outcome(machine.id) else { return Ok(()) };
        let stop = ran.event.stop;
        let verb = if stop { Verb::Stop } else { Verb::Start };
        let own = || machine.log.iter().filter(|(at, who, _)| *who == Some(Who::Run(by)) && *at <= ran.ended);
        let did = own().any(|(_, _, did)| effective(did, stop));
        let tried = own().any(|(_, _, did)| attempt(did, stop));
        let goal = |state: &State| match stop {
            true => matches!(state, State::Stopping | State::Stopped),
            false => *state == State::Running,
        };
        let was_there = machine.between(ran.begun, ran.ended).any(|it| goal(&it.state));
        let is_there = machine.at(ran.ended).is_some_and(|it| goal(&it.state) || it.state == State::Pending && !stop);
        let touched = self.touched(machine, ran.begun - self.case.manner.lag, ran.ended);
        let others = machine.log.iter().any(|(at, who, did)| {
            matches!(who, Some(Who::Run(other)) if *other != by)
                && (*at >= ran.begun - self.case.manner.lag - Duration::from_secs(80) && *at <= ran.ended)
                && (attempt(did, true) || attempt(did, false))
        });
        let fell = machine.log.iter().any(|(at, _, did)| {
            matches!(did, Did::Fell(_)) && *at >= ran.begun - Duration::from_secs(60) && *at <= ran.ended
        });
        let told = || self.told(machine);
        match outcome {
            Outcome::Changed { .. } => {
                must!(tried, "run {by} says changed, and never asked for it: {}", told());
                must!(was_there, "run {by} says changed, and it never was there: {}", told());
            }
            Outcome::Skipped(skip) if skip.reason == Reason::AlreadyDone => {
                // A start falls back twice within the time that looks lag behind: which of the two they show is
                // unknown.
                let late_look = fell && !stop && self.case.manner.lag > Duration::ZERO;
                must!(
                    !did || touched || others || late_look,
                    "run {by} did it, and says {:?}: {}",
                    skip.reason,
                    told()
                );
                must!(was_there, "run {by} says already_done, and it never was: {}", told());
            }
            Outcome::Skipped(skip) => {
                must!(
                    !(did && is_there) || touched || others || self.exempted(machine, ran.begun, ran.ended),
                    "run {by} did it, and says {:?}: {}",
                    skip.reason,
                    told()
                );
            }
            Outcome::Failed { code, message } => {
                must!(
                    !(did && is_there) || touched || others || fell,
                    "run {by} did it, and says failed {code}: {}",
                    told()
                );
                let refused = own().any(|(_, _, did)| {
                    matches!(did, Did::Refused { verb: of, clearly: true } if *of == verb || *of == Verb::Mark)
                });
                must!(
                    refused || fell || message.contains("was not tried"),
                    "run {by} says failed {code}, and EC2 never said so of it: {}",
                    told()
                );
            }
            Outcome::Unfinished { reason } => {
                let unclear = own().any(|(_, _, did)| unclear(did, verb));
                let looked_in_vain =
                    self.case.manner.troubles.iter().any(|it| it.verb.is_none() || it.verb == Some(Verb::Look));
                let late = own().any(|(at, _, did)| effective(did, stop) && ran.ended - *at < Duration::from_secs(90));
                must!(
                    !(stop && did && is_there) || touched || others || unclear && looked_in_vain || late,
                    "run {by} did it, and says unfinished {reason}: {}",
                    told()
                );
            }
            Outcome::WouldChange { .. } => return Err(format!("run {by} was for real: {}", told())),
        }
        Ok(())
    }

    /// What a run switches must have been right to switch by what was true a moment before.
    fn only_what_may_be_is_switched(&self, by: usize, machine: &Machine) -> Broken {
        let ran = &self.rans[by];
        let (request, due) = ran.event.request();
        let as_of = due.min(midnight() + TimeDelta::from_std(ran.begun - self.cloud.begun).unwrap());
        let manner = &self.case.manner;
        let slow = manner.troubles.iter().any(|it| matches!(it.plague, Plague::Slow));
        let call = Duration::from_millis(2 * manner.latency.1) + Duration::from_secs(if slow { 9 } else { 0 });
        let window = LOOK_LASTS + manner.lag + call * 2 + Duration::from_millis(100);
        for (at, who, did) in &machine.log {
            if *who != Some(Who::Run(by)) || !effective(did, ran.event.stop) {
                continue;
            }
            let from = at.checked_sub(window).unwrap();
            let allowed = |it: &ec2_curfew::instance::Instance| {
                let tagged = it.tags.get("curfew") == Some("yes");
                tagged && matches!(decide_again(&request, it, as_of), Decision::Do(_) | Decision::Await(_))
            };
            let just_before = at.checked_sub(Duration::from_nanos(1)).unwrap();
            must!(
                machine.between(from, just_before).any(allowed),
                "run {by} {did:?} at {:.2}, though it may not: {}",
                self.since(*at),
                self.told(machine)
            );
        }
        Ok(())
    }

    /// At the end of a run, nothing that runs has its mark.
    fn no_mark_on_what_runs(&self, by: usize, machine: &Machine) -> Broken {
        let ran = &self.rans[by];
        if !matches!(ran.end, End::Done { .. }) || !ran.event.stop {
            return Ok(());
        }
        let own = || machine.log.iter().filter(|(at, who, _)| *who == Some(Who::Run(by)) && *at <= ran.ended);
        let Some(mark) = own().rev().find_map(|(_, _, did)| if let Did::Mark(mark) = did { Some(mark) } else { None })
        else {
            return Ok(());
        };
        // The last call may arrive after the end of the run.
        let slow = self.case.manner.troubles.iter().any(|it| matches!(it.plague, Plague::Slow));
        let call = Duration::from_millis(self.case.manner.latency.1) + Duration::from_secs(if slow { 9 } else { 0 });
        let arrived = ran.ended + call;
        let Some(shown) = machine.at(arrived) else { return Ok(()) };
        let carries = shown.valid_mark().is_some_and(|it| it.as_str() == mark);
        // Its own sickness excuses it; that of another only if there was little time.
        let is_sick = |machine: &Machine| machine.poisons.iter().any(|poison| poison.verb == Verb::Unmark);
        let short = ran.event.lives.iter().any(|(life, _)| *life < 120);
        let in_vain = is_sick(machine) || short && self.case.fleet.iter().any(is_sick);
        let unmarking_fails =
            self.case.manner.troubles.iter().any(|it| it.verb.is_none_or(|of| of == Verb::Unmark || of == Verb::Look));
        // A call may have stopped it, and no look since could show that.
        let perhaps = own().any(|(at, _, did)| unclear(did, Verb::Stop) && !self.looked(by, machine, *at + LAG_LASTS));
        // Or the answer came too late for another look.
        let stops = |it: &&Called| it.by == by && it.verb == Verb::Stop && it.ids.contains(&machine.id);
        let late =
            self.cloud.world().calls.iter().filter(stops).any(|it| it.at + call > ran.ended - Duration::from_secs(4));
        // Or a person has started it since.
        let touched = self.touched(machine, ran.begun, arrived);
        // Or another attempt of the same run, whose mark is the same text, has written it.
        let retried = self.rans.iter().enumerate().any(|(other, it)| {
            other != by && it.event.id == ran.event.id && it.begun < arrived && it.ended > ran.begun
        });
        must!(
            !(carries && shown.state == State::Running)
                || in_vain
                || unmarking_fails
                || perhaps
                || late
                || touched
                || retried,
            "run {by} leaves its mark on what runs: {}",
            self.told(machine)
        );
        Ok(())
    }

    /// Whether a run has seen an answer to a look at it since a moment.
    fn looked(&self, by: usize, machine: &Machine, since: Instant) -> bool {
        let slow = self.case.manner.troubles.iter().any(|it| matches!(it.plague, Plague::Slow));
        let call = Duration::from_millis(self.case.manner.latency.1) + Duration::from_secs(if slow { 9 } else { 0 });
        let whole =
            |it: &&Called| it.by == by && it.verb == Verb::Look && it.ids.contains(&machine.id) && it.said == "yes";
        self.cloud
            .world()
            .calls
            .iter()
            .filter(whole)
            .any(|it| it.at > since + call && it.at + call < self.rans[by].ended)
    }

    fn morning(&self) -> Instant {
        self.at(MORNING - Duration::from_secs(60))
    }

    fn has(&self, stop: bool) -> bool {
        self.rans.iter().any(|ran| ran.event.stop == stop)
    }

    fn excused(&self, machine: &Machine, stop: bool) -> bool {
        let not_asked =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed { message, .. } if message.contains("was not tried"));
        self.rans.iter().filter(|ran| ran.event.stop == stop).any(|ran| ran.outcome(machine.id).is_some_and(not_asked))
    }

    /// What EC2 would stop in a call of its own is off in the end.
    fn good_ones_are_off(&self, machine: &Machine) -> Broken {
        if !self.has(true) {
            return Ok(());
        }
        let (begin, end) = (self.at(EVENING - Duration::from_secs(60)), self.morning());
        let (request, due) = self.rans.iter().find(|ran| ran.event.stop).unwrap().event.request();
        let wanted = machine.at(begin).is_some_and(|it| {
            it.tags.get("curfew") == Some("yes") && matches!(decide_again(&request, it, due), Decision::Do(_))
        });
        let poisoned = machine.is_poisoned(Verb::Stop) || machine.is_poisoned(Verb::Mark);
        let touched = machine.log.iter().any(|(at, who, _)| *at >= begin && *at <= end && *who == Some(Who::Person));
        if !wanted || poisoned || touched || self.excused(machine, true) {
            return Ok(());
        }
        let state = &machine.at(end).unwrap().state;
        must!(*state == State::Stopped, "it is left {state} for the night: {}", self.told(machine));
        Ok(())
    }

    fn last_switch(&self, machine: &Machine, before: Instant) -> Option<(Instant, Who)> {
        let mut last = None;
        for (at, who, did) in machine.log.iter().filter(|(at, ..)| *at < before) {
            if effective(did, true) || effective(did, false) {
                last = who.map(|who| (*at, who));
            }
        }
        last
    }

    fn off_by_a_person_stays_off(&self, machine: &Machine) -> Broken {
        let morning = self.morning();
        let off = machine.at(morning).is_some_and(|it| it.state == State::Stopped);
        let Some((at, Who::Person)) = self.last_switch(machine, morning) else { return Ok(()) };
        let started = machine
            .log
            .iter()
            .find(|(then, who, did)| *then > morning && matches!(who, Some(Who::Run(_))) && effective(did, false));
        let Some(_) = started.filter(|_| off) else { return Ok(()) };
        // A run counts as its own work what an unclear call of its may have done.
        let unclear = machine.log.iter().any(|(then, who, did)| {
            matches!(who, Some(Who::Run(_))) && *then <= at + Duration::from_secs(30) && unclear(did, Verb::Stop)
        });
        let unclear_marks = machine.log.iter().any(|(_, _, did)| {
            matches!(did, Did::Unclear(Verb::Mark | Verb::Unmark) | Did::Refused { verb: Verb::Unmark, .. })
        });
        let died = self.rans.iter().enumerate().any(|(by, ran)| {
            let marked = machine.log.iter().any(|(then, who, did)| {
                *who == Some(Who::Run(by))
                    && *then <= ran.ended + Duration::from_secs(10)
                    && matches!(did, Did::Mark(_))
            });
            marked && ran.event.stop && !matches!(ran.end, End::Done { .. })
        });
        let runs: BTreeSet<&str> = self.rans.iter().filter(|ran| ran.event.stop).map(|ran| ran.event.id).collect();
        // EC2 answered that it was off before, and the run ended before a look could confirm that.
        let no_look = machine.log.iter().any(|(then, who, did)| match (who, did) {
            (Some(Who::Run(by)), Did::Stop { from: State::Stopping | State::Stopped }) => {
                !self.looked(*by, machine, *then)
            }
            _ => false,
        });
        // A person stopped it right before this run did, and every look was older than that.
        let lag = self.case.manner.lag;
        let unseen = machine.log.iter().any(|(then, who, did)| {
            let off_before = matches!(did, Did::Stop { from: State::Stopping | State::Stopped });
            let run = matches!(who, Some(Who::Run(_)));
            off_before && run && !lag.is_zero() && *then < at + lag + Duration::from_millis(300)
        });
        // It is started for another reason: EC2 says that a start has failed.
        let fell = machine.log.iter().any(|(_, _, did)| matches!(did, Did::Fell(_)));
        let looks = self.case.manner.troubles.iter().any(|it| it.verb.is_none_or(|of| of != Verb::Start));
        must!(
            unclear || unclear_marks || died || runs.len() > 1 || fell || looks || no_look || unseen,
            "a person's stop is undone in the morning: {}",
            self.told(machine)
        );
        Ok(())
    }

    fn off_by_us_comes_on(&self, machine: &Machine) -> Broken {
        let remembered = self.rans.iter().any(|ran| ran.event.stop && ran.event.remember);
        if !self.has(false) || !remembered {
            return Ok(());
        }
        let morning = self.morning();
        let Some((at, Who::Run(_))) = self.last_switch(machine, morning) else { return Ok(()) };
        let end = Instant::now();
        let touched = machine.log.iter().any(|(then, who, _)| {
            *then >= self.at(EVENING - Duration::from_secs(60)) && *then <= end && *who == Some(Who::Person)
        });
        let for_good = machine.falls.iter().any(|(code, _)| *code == KEY_FALL.0)
            || machine.log.iter().any(|(_, _, did)| matches!(did, Did::Fell(code) if code == KEY_FALL.0));
        let poisoned = machine.is_poisoned(Verb::Start) || for_good;
        // KNOWN: the rules of the mark contradict each other if one run of the evening stops it, and another, which
        // finds it stopped by somebody, perhaps a person, deletes its own mark, which has replaced the first run's.
        let of = |who: &Option<Who>| match who {
            Some(Who::Run(by)) => self.rans[*by].event.id,
            _ => "",
        };
        let stopper = machine
            .log
            .iter()
            .find(|(then, _, did)| *then == at && effective(did, true))
            .map_or("", |(_, who, _)| of(who));
        let taken_off = machine.log.iter().any(|(then, who, did)| {
            *then >= at - Duration::from_secs(60)
                && *then < morning
                && matches!(did, Did::Unmark(_))
                && of(who) != stopper
        });
        if taken_off && machine.state != State::Running {
            LOST_TO_A_DUPLICATE.fetch_add(1, Ordering::Relaxed);
        }
        if touched || poisoned || taken_off || self.excused(machine, false) || self.exempted(machine, at, end) {
            return Ok(());
        }
        must!(
            machine.state == State::Running,
            "what we stopped is {} in the morning: {}",
            machine.state,
            self.told(machine)
        );
        Ok(())
    }

    /// Whatever run died in the evening, by the end of the morning nothing that runs has a mark that counts.
    fn no_old_mark_on_what_runs(&self, machine: &Machine) -> Broken {
        if !self.has(false)
            || machine.tags.get("curfew").is_none_or(|it| it != "yes")
            || machine.state != State::Running
        {
            return Ok(());
        }
        let tried = machine.log.iter().any(|(at, _, did)| {
            *at > self.morning() && matches!(did, Did::Unclear(Verb::Unmark) | Did::Refused { verb: Verb::Unmark, .. })
        });
        let looked_in_vain =
            self.case.manner.troubles.iter().any(|it| it.verb.is_none_or(|of| of == Verb::Look || of == Verb::Unmark));
        let late = self.touched(machine, self.at(MORNING - Duration::from_secs(60)), Instant::now());
        let planned = self.rans.iter().any(|ran| !ran.event.stop && matches!(ran.end, End::Done { .. }));
        must!(
            !machine.is_marked() || tried || looked_in_vain || late || !planned,
            "a mark still counts on what runs: {}",
            self.told(machine)
        );
        Ok(())
    }
}

fn short(end: &End) -> String {
    match end {
        End::Done { .. } => "not planned".to_owned(),
        End::NoPlan(error) => format!("no plan, {}", error.code),
        End::Died => "died".to_owned(),
        End::Running => "runs".to_owned(),
    }
}
