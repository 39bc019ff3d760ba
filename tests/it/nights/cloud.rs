//! A double of EC2 in this process: keeps state and answers as EC2 does, by tokio's clock, and records who did what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use ec2_curfew::deadline::{Deadline, TooLate};
use ec2_curfew::ec2::{Change, Ec2, Error, ErrorKind, MAX_IDS, Rate, TIMEOUT};
use ec2_curfew::instance::{Instance, InstanceId, Mark, RootDevice, STOPPED_AT_TAG, State, StateReason};
use ec2_curfew::plan::Step;
use ec2_curfew::request::Mode;
use ec2_curfew::select::{Filters, MAX_FILTER_VALUES, Pattern};
use tokio::time::{Instant, sleep};

/// After this many calls a run counts as endless.
const TOO_MANY_CALLS: usize = 20_000;

/// Random numbers (SplitMix64), reproducible from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Returns true in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Look,
    Stop,
    Start,
    Mark,
    Unmark,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// An invocation, by its number.
    Run(usize),
    Person,
    /// EC2 itself.
    Ec2,
}

/// How EC2 refuses or fails.
#[derive(Clone, Debug)]
pub(crate) enum No {
    /// With this code and message; `{id}` becomes the instance's id.
    Refused { code: &'static str, message: &'static str, status: u16 },
    /// 500, carried out or not.
    Sick { done: bool },
}

/// Makes EC2 refuse, while it lasts, every call of this kind that contains the instance.
#[derive(Clone, Debug)]
pub(crate) struct Poison {
    pub(crate) verb: Verb,
    pub(crate) no: No,
    /// When it ends, after the beginning of the night; none: never.
    pub(crate) until: Option<Duration>,
}

/// A failure that hits whole calls, whatever instances they name.
#[derive(Clone, Debug)]
pub(crate) enum Plague {
    /// 500, not carried out.
    Sick,
    /// 500, carried out.
    SickAndDone,
    Throttled,
    /// The answer never comes; carried out.
    LostAnswer,
    /// The connection breaks; not carried out.
    Cut,
    /// The answer comes very late.
    Slow,
    Denied,
}

/// A failure of calls: which kind of calls, when, and one in how many of them.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) verb: Option<Verb>,
    pub(crate) plague: Plague,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) one_in: u64,
}

/// Something that was done to an instance, or happened to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Did {
    Stop {
        from: State,
    },
    Start {
        from: State,
    },
    Mark(String),
    Unmark(String),
    Exempt(bool),
    /// A tag was written, or deleted.
    Tagged {
        key: &'static str,
        value: Option<String>,
    },
    /// EC2 refused a call that contained it; clearly, if it was alone in the call or named by EC2.
    Refused {
        verb: Verb,
        clearly: bool,
    },
    /// EC2 gave no clear answer to a call that contained it.
    Unclear(Verb),
    Arrived(State),
    Fell(String),
}

/// An instance.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) id: InstanceId,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) state: State,
    pub(crate) reason: Option<StateReason>,
    pub(crate) launched: DateTime<Utc>,
    pub(crate) zone: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) spot: bool,
    pub(crate) hibernation: bool,
    /// Its memory is saved: the next start resumes it.
    pub(crate) hibernated: bool,
    /// A resume leaves its LaunchTime as it is.
    pub(crate) keeps_launch_time: bool,
    pub(crate) poisons: Vec<Poison>,
    /// The reasons, code and message, for which its next starts fall back.
    pub(crate) falls: Vec<(&'static str, &'static str)>,
    /// How long it takes to stop, and to start.
    pub(crate) moves: (Duration, Duration),
    pub(crate) until: Option<Instant>,
    pub(crate) log: Vec<(Instant, Option<Who>, Did)>,
    shown: Vec<(Instant, Instance)>,
    gone_at: Option<Instant>,
}

impl fmt::Debug for Machine {
    /// Writes in a line what is special about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, state, zone, kind, moves, .. } = self;
        write!(f, "{id} {state} {zone} {kind} launched {}, moves {moves:?}", self.launched)?;
        let plain = Self::new(0);
        let tags = || self.tags.iter().filter(|(key, _)| *key != "Name" && *key != "curfew");
        for (said, what) in [
            (self.spot, "spot".to_owned()),
            (self.hibernation, "hibernation".to_owned()),
            (self.keeps_launch_time, "keeps its LaunchTime".to_owned()),
            (self.tags.get("curfew") != plain.tags.get("curfew"), "not ours".to_owned()),
            (tags().next().is_some(), format!("{:?}", tags().collect::<Vec<_>>())),
            (!self.poisons.is_empty(), format!("{:?}", self.poisons)),
            (!self.falls.is_empty(), format!("falls {:?}", self.falls)),
        ] {
            if said {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}

/// Returns the id of the nth machine.
pub(crate) fn id(n: usize) -> InstanceId {
    InstanceId::parse(&format!("i-{n:017x}")).unwrap()
}

impl Machine {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            id: id(n),
            tags: [("curfew".to_owned(), "yes".to_owned()), ("Name".to_owned(), format!("m-{n}"))].into(),
            state: State::Running,
            reason: None,
            launched: midnight() - TimeDelta::days(3),
            zone: "us-east-1a",
            kind: "t3.micro",
            spot: false,
            hibernation: false,
            hibernated: false,
            keeps_launch_time: false,
            poisons: Vec::new(),
            falls: Vec::new(),
            moves: (Duration::from_secs(20), Duration::from_secs(15)),
            until: None,
            log: Vec::new(),
            shown: Vec::new(),
            gone_at: None,
        }
    }

    fn instance(&self) -> Instance {
        Instance {
            id: self.id,
            tags: self.tags.iter().collect(),
            state: self.state.clone(),
            state_reason: self.reason.clone().map(Box::new),
            launch_time: self.launched,
            instance_type: self.kind.into(),
            zone: self.zone.into(),
            root_device: RootDevice::Ebs,
            spot: self.spot,
            hibernation: self.hibernation,
            operator: None,
        }
    }

    fn note(&mut self, at: Instant, who: Option<Who>, did: Did) {
        self.log.push((at, who, did));
        self.show(at);
    }

    fn show(&mut self, at: Instant) {
        let now = self.instance();
        if self.shown.last().is_none_or(|(_, shown)| *shown != now) {
            self.shown.push((at, now));
        }
    }

    /// Finishes a transition whose time has come.
    fn settle(&mut self, now: Instant) {
        let Some(at) = self.until.filter(|at| *at <= now) else { return };
        self.until = None;
        match self.state {
            State::Stopping => {
                self.state = State::Stopped;
                self.note(at, None, Did::Arrived(State::Stopped));
            }
            State::Pending if !self.falls.is_empty() => {
                let (code, message) = self.falls.remove(0);
                self.state = State::Stopped;
                self.reason = Some(StateReason { code: code.to_owned(), message: message.to_owned() });
                self.note(at, None, Did::Fell(code.to_owned()));
            }
            State::Pending => {
                self.state = State::Running;
                self.note(at, None, Did::Arrived(State::Running));
            }
            _ => {}
        }
    }

    /// Returns the instance as it was at a moment.
    pub(crate) fn at(&self, moment: Instant) -> Option<&Instance> {
        let at = self.shown.partition_point(|(at, _)| *at <= moment);
        self.shown.get(at.saturating_sub(1)).map(|(_, shown)| shown)
    }

    /// Returns all its versions between two moments.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Instance> {
        let first = self.shown.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        self.shown[first..].iter().take_while(move |(at, _)| *at <= to).map(|(_, shown)| shown)
    }

    pub(crate) fn mark(&self) -> Option<Mark> {
        Mark::parse(self.tags.get(STOPPED_AT_TAG)?)
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.mark().is_some_and(|mark| mark.at() > self.launched)
    }

    pub(crate) fn is_poisoned(&self, verb: Verb) -> bool {
        self.poisons.iter().any(|poison| poison.verb == verb && poison.until.is_none())
    }
}

/// A call that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Called {
    pub(crate) at: Instant,
    pub(crate) by: usize,
    pub(crate) verb: Verb,
    pub(crate) ids: Vec<InstanceId>,
    pub(crate) said: String,
}

/// How EC2 behaves as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// How far EC2's clock is ahead of ours.
    pub(crate) skew: TimeDelta,
    /// How far DescribeInstances lags behind.
    pub(crate) lag: Duration,
    /// Milliseconds that each half of a call takes, at least and at most.
    pub(crate) latency: (u64, u64),
    /// Whether a refused call is carried out in the zones without a refused instance.
    pub(crate) partial_success: bool,
    /// Whether a refusal names all bad instances, or only the first.
    pub(crate) names_all: bool,
    /// Whether tags are left out of answers to looks without a filter that names one.
    pub(crate) hides_tags: bool,
    pub(crate) troubles: Vec<Trouble>,
    /// Capacity for starts, by zone and type; unlimited where there is no number.
    pub(crate) room: BTreeMap<(&'static str, &'static str), usize>,
    /// More capacity, from a time after the beginning of the night.
    pub(crate) more_room: Option<(Duration, usize)>,
    /// The token buckets of calls and of instances; stops and starts have the same.
    pub(crate) buckets: Option<(Rate, Rate)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            skew: TimeDelta::zero(),
            lag: Duration::ZERO,
            latency: (20, 120),
            partial_success: false,
            names_all: false,
            hides_tags: false,
            troubles: Vec::new(),
            room: BTreeMap::new(),
            more_room: None,
            buckets: None,
        }
    }
}

/// EC2's whole state.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) machines: BTreeMap<InstanceId, Machine>,
    pub(crate) calls: Vec<Called>,
    pub(crate) manner: Manner,
    pub(crate) tokens: usize,
    dice: Dice,
    /// Whether the current call asks for hibernation.
    hibernating: bool,
    /// When the next transition of a machine ends.
    due: Option<Instant>,
    levels: BTreeMap<Verb, (f64, f64, Instant)>,
}

/// Returns when the clock of a case begins: at 18:00, an hour before the evening.
pub(crate) fn midnight() -> DateTime<Utc> {
    "2026-11-20T18:00:00Z".parse().unwrap()
}

/// EC2 in one account and region.
#[derive(Debug)]
pub(crate) struct Cloud {
    world: Mutex<World>,
    pub(crate) begun: Instant,
}

impl Cloud {
    pub(crate) fn new(machines: Vec<Machine>, manner: Manner, seed: u64) -> Arc<Self> {
        let now = Instant::now();
        let mut machines: BTreeMap<_, _> = machines.into_iter().map(|machine| (machine.id, machine)).collect();
        machines.values_mut().for_each(|machine| machine.show(now));
        let world = World {
            machines,
            calls: Vec::new(),
            manner,
            tokens: 0,
            dice: Dice(seed),
            hibernating: false,
            due: None,
            levels: BTreeMap::new(),
        };
        Arc::new(Self { world: Mutex::new(world), begun: now })
    }

    /// Returns EC2's state, brought up to now.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap();
        let now = Instant::now();
        if world.due.is_some_and(|due| due <= now) {
            let World { machines, manner, .. } = &mut *world;
            for machine in machines.values_mut() {
                let started = machine.state == State::Pending;
                machine.settle(now);
                if started
                    && machine.state == State::Stopped
                    && let Some(room) = manner.room.get_mut(&(machine.zone, machine.kind))
                {
                    *room += 1;
                }
            }
            world.due = world.machines.values().filter_map(|machine| machine.until).min();
        }
        world
    }

    pub(crate) fn utc(&self) -> DateTime<Utc> {
        midnight() + TimeDelta::from_std(self.begun.elapsed()).unwrap()
    }

    pub(crate) fn machine(&self, n: usize) -> Machine {
        self.world().machines[&id(n)].clone()
    }

    /// Ends all failures of whole calls.
    pub(crate) fn recover(&self) {
        self.world().manner.troubles.clear();
    }

    /// Lets a person switch an instance on or off, as in the console.
    pub(crate) fn person(&self, n: usize, verb: Verb) {
        let skewed = self.utc() + self.world().manner.skew;
        self.world().switch(verb, id(n), Who::Person, skewed);
    }

    /// Lets a person exempt an instance, or end its exemption.
    pub(crate) fn exempt(&self, n: usize, exempt: bool) {
        let mut world = self.world();
        let Some(machine) = world.machines.get_mut(&id(n)) else { return };
        match exempt {
            true => drop(machine.tags.insert("curfew:exempt".to_owned(), "true".to_owned())),
            false => drop(machine.tags.remove("curfew:exempt")),
        }
        machine.note(Instant::now(), Some(Who::Person), Did::Exempt(exempt));
    }

    /// Lets a person, or a person's tool, write a tag or delete it.
    pub(crate) fn tag(&self, n: usize, key: &'static str, value: Option<&str>) {
        let mut world = self.world();
        let Some(machine) = world.machines.get_mut(&id(n)) else { return };
        match value {
            Some(value) => drop(machine.tags.insert(key.to_owned(), value.to_owned())),
            None => drop(machine.tags.remove(key)),
        }
        machine.note(Instant::now(), Some(Who::Person), Did::Tagged { key, value: value.map(ToOwned::to_owned) });
    }

    /// Lets EC2 stop an instance: for lack of Spot capacity, or because its host is retired.
    pub(crate) fn ec2_stops(&self, n: usize, code: &'static str) {
        let utc = self.utc();
        let mut world = self.world();
        if world.machines.get(&id(n)).is_some_and(|it| it.state == State::Running) {
            world.switch(Verb::Stop, id(n), Who::Ec2, utc);
            let Some(machine) = world.machines.get_mut(&id(n)) else { return };
            machine.reason = Some(StateReason { code: code.to_owned(), message: format!("{code}: by EC2") });
            machine.show(Instant::now());
        }
    }

    /// Lets a person terminate an instance.
    pub(crate) fn terminate(&self, n: usize) {
        let mut world = self.world();
        let Some(machine) = world.machines.get_mut(&id(n)) else { return };
        (machine.state, machine.until) = (State::Terminated, None);
        let now = Instant::now();
        machine.gone_at = Some(now + Duration::from_secs(40));
        machine.note(now, Some(Who::Person), Did::Arrived(State::Terminated));
    }
}

fn said(code: &str, message: String, status: u16) -> Error {
    Error { code: code.to_owned(), message, kind: ErrorKind::Refused { status } }
}

fn silence(code: &str) -> Error {
    Error { code: code.to_owned(), message: "no answer".to_owned(), kind: ErrorKind::NoAnswer }
}

impl World {
    fn is_known(&self, id: InstanceId) -> bool {
        self.machines.get(&id).is_some_and(|machine| machine.gone_at.is_none_or(|at| at > Instant::now()))
    }

    /// Refuses a call that names ids that EC2 doesn't know.
    fn all_known(&self, ids: &[InstanceId]) -> Result<(), Error> {
        let unknown: Vec<String> = ids.iter().filter(|id| !self.is_known(**id)).map(ToString::to_string).collect();
        match unknown.len() {
            0 => Ok(()),
            1 => {
                Err(said("InvalidInstanceID.NotFound", format!("The instance ID '{}' does not exist", unknown[0]), 400))
            }
            _ => Err(said(
                "InvalidInstanceID.NotFound",
                format!("The instance IDs '{}' do not exist", unknown.join(", ")),
                400,
            )),
        }
    }

    fn has_room(&mut self, place: (&'static str, &'static str), from_begin: Duration) -> Option<&mut usize> {
        if let Some((_, more)) = self.manner.more_room.take_if(|(at, _)| *at <= from_begin) {
            self.manner.room.values_mut().for_each(|room| *room += more);
        }
        self.manner.room.get_mut(&place)
    }

    /// Switches an instance without any checks.
    fn switch(&mut self, verb: Verb, id: InstanceId, who: Who, utc: DateTime<Utc>) -> Option<Change> {
        let now = Instant::now();
        let machine = self.machines.get_mut(&id)?;
        let from = machine.state.clone();
        match (verb, &from) {
            (Verb::Stop, State::Running) => {
                machine.state = State::Stopping;
                machine.until = Some(now + machine.moves.0);
                machine.hibernated = self.hibernating && machine.hibernation;
                let code =
                    if machine.hibernated { "Client.UserInitiatedHibernate" } else { "Client.UserInitiatedShutdown" };
                let message = format!("{code}: User initiated shutdown");
                machine.reason = Some(StateReason { code: code.to_owned(), message });
                let place = (machine.zone, machine.kind);
                if let Some(room) = self.manner.room.get_mut(&place) {
                    *room += 1;
                }
            }
            (Verb::Start, State::Stopped) => {
                machine.state = State::Pending;
                machine.until = Some(now + machine.moves.1);
                machine.reason = None;
                if !(std::mem::take(&mut machine.hibernated) && machine.keeps_launch_time) {
                    machine.launched = utc.trunc_subsecs(0);
                }
                let place = (machine.zone, machine.kind);
                if let Some(room) = self.manner.room.get_mut(&place) {
                    *room = room.saturating_sub(1);
                }
            }
            (Verb::Stop, State::Stopping | State::Stopped) | (Verb::Start, State::Running | State::Pending) => {}
            _ => return None,
        }
        let machine = self.machines.get_mut(&id)?;
        self.due = [self.due, machine.until].into_iter().flatten().min();
        let did = if verb == Verb::Stop { Did::Stop { from: from.clone() } } else { Did::Start { from: from.clone() } };
        machine.note(now, Some(who), did);
        Some(Change { id, from, to: machine.state.clone() })
    }

    /// Returns the instances because of which EC2 refuses a call, and how it does.
    fn bad_ones(&self, verb: Verb, ids: &[InstanceId], from_begin: Duration) -> Option<(No, Vec<InstanceId>)> {
        let poison = |id: &InstanceId| {
            let poisons = self.machines.get(id)?.poisons.iter();
            poisons.into_iter().find(|it| it.verb == verb && it.until.is_none_or(|until| until > from_begin))
        };
        let wrong_state = |id: &InstanceId| {
            let bad = match (verb, &self.machines.get(id)?.state) {
                (Verb::Stop, State::Pending) | (Verb::Start, State::Stopping) => true,
                (Verb::Stop | Verb::Start, state) => state.is_gone(),
                _ => false,
            };
            let message = "The instance '{id}' is not in a state from which it can be switched.";
            bad.then_some(No::Refused { code: "IncorrectInstanceState", message, status: 400 })
        };
        let no = |id: &InstanceId| poison(id).map(|it| it.no.clone()).or_else(|| wrong_state(id));
        let first = ids.iter().find_map(&no)?;
        let alike = |id: &&InstanceId| match (no(id), &first) {
            (Some(No::Refused { message, .. }), No::Refused { message: first, .. }) => message == *first,
            (Some(No::Sick { .. }), No::Sick { .. }) => true,
            _ => false,
        };
        let bad: Vec<InstanceId> = ids.iter().filter(alike).copied().collect();
        Some((first, bad))
    }

    fn note(&mut self, ids: &[InstanceId], by: usize, did: &Did) {
        let now = Instant::now();
        for id in ids {
            if let Some(machine) = self.machines.get_mut(id) {
                machine.note(now, Some(Who::Run(by)), did.clone());
            }
        }
    }

    /// Takes the tokens of a call; returns whether there were enough.
    fn take_tokens(&mut self, verb: Verb, instances: usize) -> bool {
        let Some((calls, stock)) = self.manner.buckets else { return true };
        let now = Instant::now();
        let (has_calls, has_stock, at) = self.levels.get(&verb).copied().unwrap_or((calls.size, stock.size, now));
        let passed = (now - at).as_secs_f64();
        let mut level =
            ((has_calls + passed * calls.refill).min(calls.size), (has_stock + passed * stock.refill).min(stock.size));
        let enough = level.0 >= 1.0 && level.1 >= instances as f64;
        if enough {
            level = (level.0 - 1.0, level.1 - instances as f64);
        }
        self.levels.insert(verb, (level.0, level.1, now));
        enough
    }

    /// Carries out a call that switches or tags, for all its instances or none, and returns the answer.
    fn answer(
        &mut self,
        verb: Verb,
        mark: Option<&Mark>,
        ids: &[InstanceId],
        by: usize,
        begun: Instant,
    ) -> Result<Vec<Change>, Error> {
        let from_begin = begun.elapsed();
        if matches!(verb, Verb::Stop | Verb::Start) {
            self.tokens += ids.len();
            if !self.take_tokens(verb, ids.len()) {
                return Err(said("RequestLimitExceeded", "Request limit exceeded.".to_owned(), 503));
            }
        }
        self.all_known(ids)?;
        let utc = midnight() + TimeDelta::from_std(from_begin).unwrap() + self.manner.skew;
        if let Some((no, bad)) = self.bad_ones(verb, ids, from_begin) {
            let zones: BTreeSet<&str> = bad.iter().map(|id| self.machines[id].zone).collect();
            match no {
                No::Sick { done } => {
                    if done {
                        let refused = |id: &&InstanceId| {
                            matches!(self.bad_ones(verb, &[**id], from_begin), Some((No::Refused { .. }, _)))
                        };
                        let others: Vec<InstanceId> = ids.iter().filter(|id| !refused(id)).copied().collect();
                        self.carry_out(verb, mark, &others, by, utc);
                    }
                    self.note(ids, by, &Did::Unclear(verb));
                    return Err(said("InternalError", "An internal error has occurred".to_owned(), 500));
                }
                No::Refused { code, message, status } => {
                    if self.manner.partial_success && verb == Verb::Stop {
                        let well = |id: &&InstanceId| {
                            !zones.contains(self.machines[id].zone)
                                && self.bad_ones(verb, &[**id], from_begin).is_none()
                        };
                        let others: Vec<InstanceId> = ids.iter().filter(well).copied().collect();
                        self.carry_out(verb, mark, &others, by, utc);
                    }
                    let named = match (message.contains("{id}"), self.manner.names_all) {
                        (false, _) => Vec::new(),
                        (true, true) => bad.clone(),
                        (true, false) => vec![bad[0]],
                    };
                    let clearly: Vec<InstanceId> = if ids.len() == 1 { ids.to_vec() } else { named.clone() };
                    let rest: Vec<InstanceId> = ids.iter().filter(|id| !clearly.contains(id)).copied().collect();
                    self.note(&clearly, by, &Did::Refused { verb, clearly: true });
                    self.note(&rest, by, &Did::Refused { verb, clearly: false });
                    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                    return Err(said(code, message.replace("{id}", &named.join(", ")), status));
                }
            }
        }
        if verb == Verb::Start {
            let mut wanted: BTreeMap<(&'static str, &'static str), usize> = BTreeMap::new();
            for id in ids.iter().filter(|id| self.machines[id].state == State::Stopped) {
                *wanted.entry((self.machines[id].zone, self.machines[id].kind)).or_default() += 1;
            }
            for (place, wanted) in wanted {
                if self.has_room(place, from_begin).is_some_and(|room| *room < wanted) {
                    self.note(ids, by, &Did::Refused { verb, clearly: false });
                    let message = format!("We currently do not have sufficient {} capacity in {}.", place.1, place.0);
                    return Err(said("InsufficientInstanceCapacity", message, 500));
                }
            }
        }
        Ok(self.carry_out(verb, mark, ids, by, utc))
    }

    fn carry_out(
        &mut self,
        verb: Verb,
        mark: Option<&Mark>,
        ids: &[InstanceId],
        by: usize,
        utc: DateTime<Utc>,
    ) -> Vec<Change> {
        let now = Instant::now();
        let mut changes = Vec::new();
        for id in ids {
            match (verb, mark) {
                (Verb::Stop | Verb::Start, _) => changes.extend(self.switch(verb, *id, Who::Run(by), utc)),
                (Verb::Mark, Some(mark)) => {
                    let machine = self.machines.get_mut(id).unwrap();
                    machine.tags.insert(STOPPED_AT_TAG.to_owned(), mark.as_str().to_owned());
                    machine.note(now, Some(Who::Run(by)), Did::Mark(mark.as_str().to_owned()));
                }
                (Verb::Unmark, Some(mark)) => {
                    let machine = self.machines.get_mut(id).unwrap();
                    if machine.tags.get(STOPPED_AT_TAG).is_some_and(|value| value == mark.as_str()) {
                        machine.tags.remove(STOPPED_AT_TAG);
                        machine.note(now, Some(Who::Run(by)), Did::Unmark(mark.as_str().to_owned()));
                    }
                }
                _ => panic!("{verb:?} with {mark:?}"),
            }
        }
        changes
    }

    fn describe(&self, filters: &Filters, ids: Option<&[InstanceId]>) -> Vec<Instance> {
        let at = Instant::now().checked_sub(self.manner.lag).unwrap_or_else(Instant::now);
        let names_a_tag = filters.iter().any(|(name, _)| name.starts_with("tag"));
        let matches = |instance: &Instance| {
            filters.iter().all(|(name, values)| {
                let any = |text: &str| values.iter().any(|value| Pattern(value.clone()).matches(text));
                match name.as_str() {
                    "instance-id" => any(instance.id.as_str()),
                    "instance-state-name" => any(instance.state.as_str()),
                    "tag-key" => instance.tags.iter().any(|(key, _)| any(key)),
                    name => match name.strip_prefix("tag:") {
                        Some(key) => instance.tags.get(key).is_some_and(any),
                        None => panic!("this EC2 knows no filter {name}"),
                    },
                }
            })
        };
        let one = |machine: &Machine| {
            let shown = machine.at(at)?.clone();
            let asked = ids.is_none_or(|ids| ids.contains(&machine.id));
            (asked && self.is_known(machine.id) && matches(&shown)).then(|| {
                match self.manner.hides_tags && !names_a_tag {
                    true => Instance { tags: Default::default(), ..shown },
                    false => shown,
                }
            })
        };
        self.machines.values().filter_map(one).collect()
    }
}

/// An invocation's client of EC2.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) by: usize,
}

impl Client {
    /// Makes a call: what EC2 has received it carries out, even if the caller has stopped waiting.
    async fn call<T: Send + 'static>(
        &self,
        verb: Verb,
        ids: Vec<InstanceId>,
        until: Deadline,
        act: impl FnOnce(&mut World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (cloud, by) = (Arc::clone(&self.cloud), self.by);
        let call = async move {
            let (there, back, plague) = {
                let mut world = cloud.world();
                let (low, high) = world.manner.latency;
                let from_begin = cloud.begun.elapsed();
                let open = |it: &&Trouble| {
                    it.verb.is_none_or(|of| of == verb) && it.from <= from_begin && from_begin < it.until
                };
                let trouble = world.manner.troubles.iter().find(open).cloned();
                let plague = trouble.filter(|it| world.dice.one_in(it.one_in)).map(|it| it.plague);
                (world.dice.between(low, high), world.dice.between(low, high), plague)
            };
            sleep(Duration::from_millis(there)).await;
            let answer = {
                let mut world = cloud.world();
                assert!(world.calls.len() < TOO_MANY_CALLS, "no end of calls");
                let answer = match plague {
                    Some(Plague::Sick) => {
                        world.note(&ids, by, &Did::Unclear(verb));
                        Err(said("InternalError", "An internal error has occurred".to_owned(), 500))
                    }
                    Some(Plague::Throttled) => {
                        Err(said("RequestLimitExceeded", "Request limit exceeded.".to_owned(), 503))
                    }
                    Some(Plague::Denied) => {
                        world.note(&ids, by, &Did::Refused { verb, clearly: true });
                        Err(said("UnauthorizedOperation", "You are not authorized.".to_owned(), 403))
                    }
                    Some(Plague::Cut) => {
                        world.note(&ids, by, &Did::Unclear(verb));
                        Err(silence("NoConnection"))
                    }
                    Some(Plague::SickAndDone) => {
                        let done = act(&mut world);
                        world.note(&ids, by, &Did::Unclear(verb));
                        done.and(Err(said("InternalError", "An internal error has occurred".to_owned(), 500)))
                    }
                    Some(Plague::LostAnswer) => {
                        let _ = act(&mut world);
                        world.note(&ids, by, &Did::Unclear(verb));
                        Err(silence(TIMEOUT))
                    }
                    Some(Plague::Slow) | None => act(&mut world),
                };
                let said = answer.as_ref().err().map_or_else(|| "yes".to_owned(), |error| error.code.clone());
                world.calls.push(Called { at: Instant::now(), by, verb, ids, said });
                answer
            };
            match plague {
                Some(Plague::LostAnswer) => sleep(Duration::from_secs(20)).await,
                Some(Plague::Slow) => sleep(Duration::from_secs(9)).await,
                _ => {}
            }
            sleep(Duration::from_millis(back)).await;
            answer
        };
        // In its own task, so that EC2 carries it out even if the caller has stopped waiting.
        let call = tokio::spawn(call);
        match until.call(call).await {
            Ok(answer) => answer.unwrap(),
            Err(TooLate) => {
                let message = "the invocation ran out of time".to_owned();
                Err(Error { code: "Deadline".to_owned(), message, kind: ErrorKind::TooLate })
            }
        }
    }
}

impl Ec2 for Client {
    async fn matching<T: Send>(
        &self,
        filters: &Filters,
        keep: impl Fn(Instance) -> Option<T> + Send,
        until: Deadline,
    ) -> Result<Vec<T>, Error> {
        let values: usize = filters.iter().map(|(_, values)| values.len()).sum();
        assert!(values <= MAX_FILTER_VALUES, "FilterLimitExceeded: {values} values");
        let named = filters.iter().find(|(name, _)| name == "instance-id");
        let ids = named.map(|(_, ids)| ids.iter().filter_map(|id| InstanceId::parse(id)).collect()).unwrap_or_default();
        let filters = filters.clone();
        let shown = self.call(Verb::Look, ids, until, move |world| Ok(world.describe(&filters, None))).await?;
        Ok(shown.into_iter().filter_map(keep).collect())
    }

    async fn by_id(&self, ids: &[InstanceId], until: Deadline) -> Result<Vec<Instance>, Error> {
        assert!((1..=MAX_IDS).contains(&ids.len()), "{} ids", ids.len());
        let ids = ids.to_vec();
        let act = {
            let ids = ids.clone();
            move |world: &mut World| world.all_known(&ids).map(|()| world.describe(&Filters::new(), Some(&ids)))
        };
        self.call(Verb::Look, ids, until, act).await
    }

    async fn switch(&self, step: Step, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<Vec<Change>, Error> {
        assert!(!ids.is_empty() && mode == Mode::Live);
        let verb = if step == Step::Start { Verb::Start } else { Verb::Stop };
        let (those, by, begun) = (ids.to_vec(), self.by, self.cloud.begun);
        let act = move |world: &mut World| {
            world.hibernating = step == Step::Stop { hibernate: true };
            let answer = world.answer(verb, None, &those, by, begun);
            world.hibernating = false;
            answer
        };
        self.call(verb, ids.to_vec(), until, act).await
    }

    async fn mark(&self, mark: &Mark, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<(), Error> {
        assert!((1..=MAX_IDS).contains(&ids.len()) && mode == Mode::Live);
        let (mark, those, by, begun) = (mark.clone(), ids.to_vec(), self.by, self.cloud.begun);
        let act = move |world: &mut World| world.answer(Verb::Mark, Some(&mark), &those, by, begun).map(drop);
        self.call(Verb::Mark, ids.to_vec(), until, act).await
    }

    async fn unmark(&self, mark: &Mark, ids: &[InstanceId], until: Deadline) -> Result<(), Error> {
        assert!((1..=MAX_IDS).contains(&ids.len()), "{} ids", ids.len());
        let (mark, those, by, begun) = (mark.clone(), ids.to_vec(), self.by, self.cloud.begun);
        let act = move |world: &mut World| world.answer(Verb::Unmark, Some(&mark), &those, by, begun).map(drop);
        self.call(Verb::Unmark, ids.to_vec(), until, act).await
    }
}
