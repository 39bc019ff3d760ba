//! The story of a seed, and smaller ones.

use std::time::Duration;

use chrono::TimeDelta;
use ec2_curfew::instance::{STOPPED_AT_TAG, State, rfc3339};

use super::hours::{EXEMPT, HOURS, UNREADABLE, edges, moment, readable};
use super::story::*;
use crate::nights::case::KEY_FALL;
use crate::nights::cloud::*;

/// Ticks without trouble at the end.
const QUIET: usize = 4;

/// Minutes from tick to tick, when they begin and for how long: nights in small steps, or days in large ones, about as many
/// ticks in each. What hours mean is costly to find out and kept by moment, so that windows overlap.
const WINDOWS: &[(i64, i64, i64)] = &[
    // Friday evening, and Monday from six to ten.
    (5, 0, 180),
    (5, 3_600, 240),
    // A whole night, in the steps that are shipped; rarely, because it costs as much as four others.
    (5, 0, 900),
    (15, 0, 840),
    (15, 0, 840),
    (15, 3_300, 840),
    (30, 0, 1_500),
    (30, 0, 1_500),
    (60, 0, 2_400),
    (60, 2_400, 2_400),
    (60, 0, 5_400),
];

const CAPACITY_FALL: (&str, &str) = ("Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: no.");
const STOP_NOS: &[(&str, &str, u16)] = &[
    ("OperationNotPermitted", "'{id}' may not be stopped. Modify its 'disableApiStop' instance attribute.", 400),
    ("UnsupportedOperation", "The instance can't be stopped.", 400),
    ("IncorrectInstanceState", "The instance '{id}' can't.", 400),
    ("UnauthorizedOperation", "You are not authorized.", 403),
    ("FutureError", "Not today.", 418),
];
const START_NOS: &[(&str, &str, u16)] = &[
    ("InsufficientInstanceCapacity", "We currently do not have sufficient capacity.", 500),
    ("UnsupportedOperation", "The instance '{id}' can't be started.", 400),
    ("UnauthorizedOperation", "You are not authorized.", 403),
];
const TAG_NOS: &[(&str, &str, u16)] =
    &[("TagLimitExceeded", "The instance '{id}' has 50 tags.", 400), ("UnauthorizedOperation", "No.", 403)];

/// Nothing but trouble, or nothing but people, now and then both.
struct Plot {
    dice: Dice,
    /// Minutes around which something happens: edges of the hours at hand.
    edges: Vec<i64>,
    /// The last minute in which anything may.
    until: i64,
}

impl Plot {
    /// A moment, rather near an edge than not.
    fn moment(&mut self) -> Duration {
        let dice = &mut self.dice;
        let seconds = match self.edges.is_empty() || dice.one_in(3) {
            true => dice.below(self.until as u64 * 60) as i64,
            false => {
                let edge = dice.pick(&self.edges) * 60;
                let near = dice.pick(&[3, 30, 400, 4_000, 20_000]);
                edge + dice.below(2 * near) as i64 - near as i64
            }
        };
        Duration::from_secs(seconds.clamp(1, self.until * 60) as u64) + Duration::from_millis(self.dice.below(1_000))
    }

    fn tag(&mut self) -> &'static str {
        let all: Vec<&str> = readable().collect();
        if self.dice.one_in(12) { self.dice.pick(UNREADABLE) } else { self.dice.pick(&all) }
    }

    fn machine(&mut self, n: usize) -> Machine {
        let mut machine = Machine::new(n);
        let tag = self.tag();
        machine.tags.insert(HOURS.to_owned(), tag.to_owned());
        let dice = &mut self.dice;
        if dice.one_in(3) {
            machine.state = State::Stopped;
            if dice.one_in(2) {
                let mark = rfc3339(moment(-(dice.below(2_000) as i64)));
                machine.tags.insert(STOPPED_AT_TAG.to_owned(), mark);
            }
        }
        if dice.one_in(10) {
            // Started a moment ago.
            machine.launched = moment(0) - TimeDelta::seconds(dice.below(3_600) as i64);
        }
        if dice.one_in(20) {
            machine.tags.insert(EXEMPT.to_owned(), "true".to_owned());
        }
        machine.zone = dice.pick(&["us-east-1a", "us-east-1b"]);
        machine.hibernation = dice.one_in(2);
        machine.moves =
            (Duration::from_millis(dice.between(500, 70_000)), Duration::from_millis(dice.between(1_500, 40_000)));
        machine
    }

    fn act(&mut self) -> Act {
        let until = rfc3339(moment(self.moment().as_secs() as i64 / 300 * 5));
        let tag = self.tag();
        let dice = &mut self.dice;
        match dice.below(10) {
            0..3 => Act::Stop,
            3..6 => Act::Start,
            6 | 7 => Act::Retag((!dice.one_in(6)).then_some(tag)),
            8 if dice.one_in(10) => Act::Terminate,
            _ => Act::Exempt(dice.pick(&[None, Some("true".to_owned()), Some(until.clone()), Some(until)])),
        }
    }

    fn poison(&mut self) -> Poison {
        let until = self.dice.one_in(2).then(|| self.moment());
        let dice = &mut self.dice;
        let verb = dice.pick(&[Verb::Stop, Verb::Stop, Verb::Start, Verb::Start, Verb::Mark, Verb::Unmark]);
        let refusals = match verb {
            Verb::Stop => STOP_NOS,
            Verb::Start => START_NOS,
            _ => TAG_NOS,
        };
        let (code, message, status) = dice.pick(refusals);
        let no = if dice.one_in(4) { No::Sick { done: dice.one_in(3) } } else { No::Refused { code, message, status } };
        Poison { verb, no, until }
    }

    fn trouble(&mut self) -> Trouble {
        let from = self.moment();
        let dice = &mut self.dice;
        let plague = dice.pick(&[
            Plague::Sick,
            Plague::SickAndDone,
            Plague::Throttled,
            Plague::LostAnswer,
            Plague::Cut,
            Plague::Slow,
            Plague::Denied,
        ]);
        let verbs = [None, Some(Verb::Look), Some(Verb::Stop), Some(Verb::Start), Some(Verb::Mark), Some(Verb::Unmark)];
        let verb = dice.pick(&verbs);
        let until = from + Duration::from_secs(dice.pick(&[10, 300, 1_200, 20_000]));
        let until = until.min(Duration::from_secs(self.until as u64 * 60));
        Trouble { verb, plague, from, until, one_in: dice.pick(&[1, 2]) }
    }

    /// One thing more that goes wrong.
    fn fault(&mut self, story: &mut Story) {
        let n = self.dice.below(story.fleet.len() as u64) as usize;
        // Of the ticks that may have trouble, one near something.
        let at = self.moment().as_secs() as i64 / 60;
        let Some(tick) = story.ticks.iter().position(|tick| tick.due >= at) else { return };
        if story.ticks[tick].due > self.until {
            return;
        }
        match self.dice.below(15) {
            0..3 => {
                let many = self.dice.pick(&[1, 1, 2, 5, 40]);
                let is_missed = |(n, it): (usize, &Tick)| n >= tick && n < tick + many && it.due <= self.until;
                let missed: Vec<bool> = story.ticks.iter().enumerate().map(is_missed).collect();
                let mut missed = missed.into_iter();
                story.ticks.retain(|_| !missed.next().unwrap_or_default());
            }
            3 => {
                // So late that the next ones come before it, as a `max_delay_minutes` of more than 5 allows.
                let step = story.step as u64 * 60_000;
                let late = self.dice.pick(&[(60_000, 290_000), (step, step + 20_000), (step, 2 * step)]);
                story.ticks[tick].delay = Duration::from_millis(self.dice.between(late.0, late.1));
            }
            4 => {
                let mut again = story.ticks[tick].clone();
                again.delay += Duration::from_millis(self.dice.pick(&[0, 40, 700, 5_000, 90_000]));
                again.death = None;
                story.ticks.insert(tick + 1, again);
            }
            5 | 6 => story.ticks[tick].death = Some((self.dice.below(6) as usize, self.dice.one_in(2))),
            7 => story.ticks[tick].life = self.dice.pick(&[5, 12, 30]),
            8 | 9 => {
                let poison = self.poison();
                story.fleet[n].poisons.push(poison);
            }
            10 => {
                let many = self.dice.pick(&[1, 2, 60]);
                if self.dice.one_in(3) {
                    story.ticks[tick].death = Some((self.dice.between(2, 4) as usize, true));
                }
                story.fleet[n].falls = vec![if self.dice.one_in(2) { KEY_FALL } else { CAPACITY_FALL }; many];
            }
            11 => {
                let trouble = self.trouble();
                story.manner.troubles.push(trouble);
            }
            12 => {
                let act = match self.dice.one_in(3) {
                    true => Act::Ec2Stops(self.dice.pick(&["Server.ScheduledStop", "Server.SpotInstanceStop"])),
                    false => Act::Strip,
                };
                story.acts.push((self.moment(), n, act));
            }
            13 => match self.dice.below(4) {
                0 => story.manner.skew = TimeDelta::seconds(self.dice.below(11) as i64 - 5),
                1 => story.manner.lag = Duration::from_millis(self.dice.between(100, 3_000)),
                2 => story.manner.hides_tags = true,
                _ => story.manner.latency = (300, 1_500),
            },
            _ => {
                for zone in ["us-east-1a", "us-east-1b"] {
                    story.manner.room.insert((zone, "t3.micro"), 0);
                }
                story.manner.more_room = Some((self.moment(), 9));
            }
        }
    }
}

/// Makes the story of a seed.
pub(crate) fn story_of(seed: u64) -> Story {
    let mut dice = Dice(seed ^ 0x5eed);
    let (step, first, length) = dice.pick(WINDOWS);
    let mut plot = Plot { dice, edges: Vec::new(), until: first + length - step * QUIET as i64 - 5 };
    let size = plot.dice.pick(&[1, 1, 2, 3]);
    let fleet: Vec<Machine> = (0..size).map(|n| plot.machine(n)).collect();
    for machine in &fleet {
        plot.edges.extend(edges(&machine.tags[HOURS]).into_iter().filter(|at| (first..plot.until).contains(at)));
    }
    let ticks = (1..=length / step).map(|n| Tick::at(first + n * step)).collect();
    let manner = Manner { names_all: plot.dice.one_in(2), partial_success: plot.dice.one_in(2), ..Manner::default() };
    let (remember, hibernate) = (!plot.dice.one_in(3), plot.dice.one_in(4));
    let mut story = Story { seed, fleet, manner, remember, hibernate, step, ticks, acts: Vec::new() };
    if hibernate && plot.dice.one_in(2) {
        story.fleet.iter_mut().for_each(|machine| machine.keeps_launch_time = true);
    }
    for _ in 0..plot.dice.pick(&[0, 0, 1, 2, 4]) {
        let act = (plot.moment(), plot.dice.below(size as u64) as usize, plot.act());
        story.acts.push(act);
    }
    for _ in 0..plot.dice.pick(&[0, 1, 1, 2, 2, 3, 6]) {
        plot.fault(&mut story);
    }
    let begin = Duration::from_secs(first as u64 * 60);
    story.acts.retain(|(at, ..)| *at >= begin);
    story
}

/// Gives smaller stories, one thing less in each.
pub(crate) fn smaller(story: &Story) -> Vec<Story> {
    let mut all = Vec::new();
    let mut plainer = |change: &dyn Fn(&mut Story) -> bool| {
        let mut less = story.clone();
        if change(&mut less) {
            all.push(less);
        }
    };
    for at in 0..story.fleet.len() {
        plainer(&|it| {
            let n = number(it.fleet[at].id);
            it.acts.retain(|(_, of, _)| *of != n);
            it.fleet.len() > 1 && {
                it.fleet.remove(at);
                true
            }
        });
    }
    for at in 0..story.acts.len() {
        plainer(&|it| {
            it.acts.remove(at);
            true
        });
    }
    for at in 0..story.manner.troubles.len() {
        plainer(&|it| {
            it.manner.troubles.remove(at);
            true
        });
    }
    for at in 0..story.fleet.len() {
        for poison in 0..story.fleet[at].poisons.len() {
            plainer(&|it| {
                it.fleet[at].poisons.remove(poison);
                true
            });
        }
        plainer(&|it| !std::mem::take(&mut it.fleet[at].falls).is_empty());
        plainer(&|it| std::mem::take(&mut it.fleet[at].keeps_launch_time));
        plainer(&|it| std::mem::take(&mut it.fleet[at].hibernation));
        let plain = Machine::new(0);
        plainer(&|it| std::mem::replace(&mut it.fleet[at].moves, plain.moves) != plain.moves);
        plainer(&|it| std::mem::replace(&mut it.fleet[at].launched, plain.launched) != plain.launched);
    }
    plainer(&|it| std::mem::take(&mut it.hibernate));
    plainer(&|it| !std::mem::take(&mut it.manner.skew).is_zero());
    plainer(&|it| std::mem::take(&mut it.manner.lag) != Duration::ZERO);
    plainer(&|it| std::mem::take(&mut it.manner.hides_tags));
    plainer(&|it| std::mem::take(&mut it.manner.partial_success));
    plainer(&|it| std::mem::take(&mut it.manner.names_all));
    plainer(&|it| !std::mem::take(&mut it.manner.room).is_empty());
    plainer(&|it| std::mem::replace(&mut it.manner.latency, (20, 120)) != (20, 120));
    // Ticks that were missed come, those that were repeated don't.
    for at in 1..story.ticks.len() {
        let (one, next) = (story.ticks[at - 1].due, story.ticks[at].due);
        if next - one > story.step {
            plainer(&|it| {
                let more = (1..(next - one) / it.step).map(|n| Tick::at(one + n * it.step));
                it.ticks.splice(at..at, more.collect::<Vec<_>>());
                true
            });
        } else if next == one {
            plainer(&|it| {
                it.ticks.remove(at);
                true
            });
        }
    }
    for at in 0..story.ticks.len() {
        if !story.ticks[at].is_plain() {
            plainer(&|it| {
                it.ticks[at] = Tick::at(it.ticks[at].due);
                true
            });
        }
    }
    // What comes last, or first.
    for many in [40, 10, 3, 1] {
        if story.ticks.len() > many {
            let last = story.ticks[story.ticks.len() - many].due;
            let quiet =
                Duration::from_secs(last as u64 * 60) > story.acts.iter().map(|it| it.0).max().unwrap_or_default();
            plainer(&|it| {
                quiet && {
                    it.ticks.truncate(it.ticks.len() - many);
                    true
                }
            });
        }
    }
    all
}
