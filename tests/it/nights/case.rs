//! Random nights, and how they are lived through.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::{Error, Limits, Rate};
use ec2_curfew::engine::{Orders, carry_out};
use ec2_curfew::instance::{Instance, InstanceId, Mark, Run, State, rfc3339};
use ec2_curfew::outcome::{Outcome, Settled};
use ec2_curfew::plan::decide_again;
use ec2_curfew::request::Request;
use ec2_curfew::targets::select;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};

use super::cloud::*;

/// The evening is due an hour after the clock begins, the morning at eight.
pub(crate) const EVENING: Duration = Duration::from_secs(3600);
pub(crate) const MORNING: Duration = Duration::from_secs(14 * 3600);

/// What a person does to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Stop,
    Start,
    Exempt,
    EndExemption,
    Terminate,
}

/// An event, and how its attempts fare.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) stop: bool,
    pub(crate) remember: bool,
    pub(crate) due: Duration,
    /// The first attempt begins so much later.
    pub(crate) delay: Duration,
    /// The request id: a duplicate has another.
    pub(crate) id: &'static str,
    /// How long the first two attempts may live, and when they are killed.
    pub(crate) lives: [(u64, Option<Duration>); 2],
}

impl Event {
    pub(crate) fn evening() -> Self {
        Self {
            stop: true,
            remember: true,
            due: EVENING,
            delay: Duration::from_secs(2),
            id: "aaaaaaaa-1111",
            lives: [(900, None); 2],
        }
    }

    pub(crate) fn morning() -> Self {
        Self { stop: false, due: MORNING, id: "cccccccc-3333", ..Self::evening() }
    }

    pub(crate) fn request(&self) -> (Request, DateTime<Utc>) {
        let due = midnight() + TimeDelta::from_std(self.due).unwrap();
        let action = if self.stop { "stop" } else { "start" };
        let request = json!({"action": action, "tags": {"curfew": "yes"}, "remember": self.remember, "scheduled_time": rfc3339(due)});
        let request = Request::parse(request.as_object().unwrap().clone(), None, due + TimeDelta::seconds(1)).unwrap();
        (request, due)
    }
}

/// One evening and one morning.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) fleet: Vec<Machine>,
    pub(crate) manner: Manner,
    pub(crate) events: Vec<Event>,
    pub(crate) acts: Vec<(Duration, usize, Act)>,
}

/// An invocation, and what came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) event: Event,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) planned: BTreeSet<InstanceId>,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Running,
    Died,
    NoPlan(Error),
    Done { settled: Vec<Settled>, error: Option<Error> },
}

impl Ran {
    pub(crate) fn outcome(&self, id: InstanceId) -> Option<&Outcome> {
        let End::Done { settled, .. } = &self.end else { return None };
        settled.iter().find(|settled| settled.id == id).map(|settled| &settled.outcome)
    }

    /// Lambda repeats whatever is not.
    pub(crate) fn is_complete(&self) -> bool {
        let bad = |it: &Settled| matches!(it.outcome, Outcome::Failed { .. } | Outcome::Unfinished { .. });
        matches!(&self.end, End::Done { settled, error: None } if !settled.iter().any(bad))
    }
}

/// Every invocation of a case so far.
pub(crate) type Rans = Arc<std::sync::Mutex<Vec<Ran>>>;

/// Lives through one invocation; returns its number.
pub(crate) async fn invoke(
    cloud: &Arc<Cloud>,
    rans: &Rans,
    event: &Event,
    life: u64,
    death: Option<Duration>,
) -> usize {
    let (request, due) = event.request();
    let begun = Instant::now();
    let by = {
        let mut rans = rans.lock().unwrap();
        let event = event.clone();
        rans.push(Ran { event, begun, ended: begun, planned: BTreeSet::new(), end: End::Running });
        rans.len() - 1
    };
    let client = Client { cloud: Arc::clone(cloud), by };
    let life = Duration::from_secs(life);
    let deadline = Deadline::within(life);
    let clock = (begun, cloud.utc());
    let as_of = due.min(clock.1);
    let run = Run::of(event.id);
    let work = async {
        let seen = Instant::now();
        let plan = match select(&client, &request, deadline.first_half(), as_of).await {
            Ok(plan) => plan,
            Err(error) => return End::NoPlan(error),
        };
        let ids = plan.decided.iter().map(|(instance, _)| instance.id).chain(plan.absent.iter().copied());
        rans.lock().unwrap()[by].planned = ids.collect();
        let decide = |instance: &Instance| decide_again(&request, instance, as_of);
        let (mark, tags) = (Mark::new(as_of, run), request.tags_in_looks());
        let orders = Orders {
            mode: request.mode,
            run,
            mark: &mark,
            decide: &decide,
            tags: &tags,
            in_ticks: request.is_about_hours(),
            limits: Limits::default(),
            role: "the function's role",
            clock,
            deadline,
        };
        let (settled, error) = carry_out(&client, orders, plan, seen).await;
        End::Done { settled, error }
    };
    let end = timeout(death.unwrap_or(life), work).await.unwrap_or(End::Died);
    let ended = Instant::now();
    assert!(death.is_some() || !matches!(end, End::Died), "invocation {by} is not done in time");
    let mut rans = rans.lock().unwrap();
    (rans[by].ended, rans[by].end) = (ended, end);
    by
}

/// Lives through an event and its retries, as Lambda makes them; before the last, EC2 is well again.
pub(crate) async fn happen(cloud: &Arc<Cloud>, rans: &Rans, event: &Event) {
    sleep_until(cloud.begun + event.due + event.delay).await;
    for (life, death) in event.lives {
        let by = invoke(cloud, rans, event, life, death).await;
        if rans.lock().unwrap()[by].is_complete() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(75)).await;
    }
    cloud.recover();
    invoke(cloud, rans, event, 900, None).await;
}

/// Lives through a case.
pub(crate) async fn live(case: &Case) -> (Arc<Cloud>, Vec<Ran>) {
    let cloud = Cloud::new(case.fleet.clone(), case.manner.clone(), case.seed);
    let rans = Rans::default();
    let mut tasks = tokio::task::JoinSet::new();
    for event in case.events.clone() {
        let (cloud, rans) = (Arc::clone(&cloud), Arc::clone(&rans));
        tasks.spawn(async move { happen(&cloud, &rans, &event).await });
    }
    for (at, n, act) in case.acts.clone() {
        let cloud = Arc::clone(&cloud);
        tasks.spawn(async move {
            sleep_until(cloud.begun + at).await;
            match act {
                Act::Stop => cloud.person(n, Verb::Stop),
                Act::Start => cloud.person(n, Verb::Start),
                Act::Exempt => cloud.exempt(n, true),
                Act::EndExemption => cloud.exempt(n, false),
                Act::Terminate => cloud.terminate(n),
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let rans = std::mem::take(&mut *rans.lock().unwrap());
    (cloud, rans)
}

const STOP_NOS: &[(&str, &str, u16)] = &[
    (
        "OperationNotPermitted",
        "The instance '{id}' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.",
        400,
    ),
    (
        "UnsupportedOperation",
        "You can't stop the Spot Instance '{id}' because it is associated with a one-time Spot Instance request.",
        400,
    ),
    ("IncorrectInstanceState", "The instance '{id}' can't.", 400),
    ("IncorrectInstanceState", "The instance '{id}' has never reached the 'running' state.", 400),
    ("UnsupportedOperation", "The instance can't be stopped.", 400),
    ("UnauthorizedOperation", "You are not authorized.", 403),
    ("OptInRequired", "A product has to be accepted.", 401),
    ("FutureError", "Not today.", 418),
];
const START_NOS: &[(&str, &str, u16)] = &[
    ("IncorrectSpotRequestState", "The Spot request of '{id}' is not in a state from which it can be started.", 400),
    ("InsufficientCapacityOnHost", "The host is not ready.", 400),
    ("InsufficientInstanceCapacity", "We currently do not have sufficient capacity.", 500),
    ("InsufficientFreeAddressesInSubnet", "No address is left.", 400),
    ("SpotMaxPriceTooLow", "Your price is too low.", 400),
    ("UnauthorizedOperation", "You are not authorized.", 403),
    ("OptInRequired", "A product has to be accepted.", 401),
    ("FutureError", "Not today.", 418),
    ("UnsupportedOperation", "The instance '{id}' can't be started.", 400),
];
const MARK_NOS: &[(&str, &str, u16)] = &[
    ("TagLimitExceeded", "The instance '{id}' has 50 tags.", 400),
    ("UnauthorizedOperation", "You are not authorized.", 403),
    ("InvalidParameterValue", "No.", 400),
];
const FALLS: &[(&str, &str)] = &[
    ("Server.InsufficientInstanceCapacity", "Server.InsufficientInstanceCapacity: Insufficient capacity."),
    ("Server.InternalError", "Server.InternalError: Internal error on launch"),
];
pub(crate) const KEY_FALL: (&str, &str) = ("Client.InternalError", "Client.InternalError: Client error on launch");

fn poison(dice: &mut Dice) -> Poison {
    let verb = dice.pick(&[Verb::Stop, Verb::Stop, Verb::Start, Verb::Start, Verb::Mark]);
    let refusals = match verb {
        Verb::Stop => STOP_NOS,
        Verb::Start => START_NOS,
        _ => MARK_NOS,
    };
    let (code, message, status) = dice.pick(refusals);
    let no = if dice.one_in(3) { No::Sick { done: dice.one_in(3) } } else { No::Refused { code, message, status } };
    let begin = if verb == Verb::Start { MORNING } else { EVENING };
    // At most until the last attempt, which comes after two and a half minutes at least.
    let for_good =
        matches!(no, No::Refused { message, .. } if message.contains("disableApiStop") || message.contains("one-time"));
    let until = (!for_good && !dice.one_in(3)).then(|| begin + Duration::from_millis(dice.between(1_000, 140_000)));
    Poison { verb, no, until }
}

fn machine(n: usize, dice: &mut Dice, bad: u64) -> Machine {
    let mut machine = Machine::new(n);
    if dice.one_in(8) {
        machine.state = State::Stopped;
    }
    if dice.one_in(20) {
        machine.tags.insert("curfew:exempt".to_owned(), "true".to_owned());
    }
    if dice.one_in(30) {
        machine.tags.remove("curfew");
    }
    if dice.one_in(25) {
        machine.launched =
            midnight() + TimeDelta::from_std(EVENING).unwrap() + TimeDelta::seconds(dice.below(3) as i64);
    }
    machine.zone = dice.pick(&["us-east-1a", "us-east-1b"]);
    machine.kind = dice.pick(&["t3.micro", "t3.micro", "m5.large"]);
    machine.spot = dice.one_in(6);
    machine.moves =
        (Duration::from_millis(dice.between(500, 70_000)), Duration::from_millis(dice.between(1_500, 40_000)));
    if dice.one_in(bad) {
        machine.poisons.push(poison(dice));
    }
    if dice.one_in(bad * 2) {
        let times = dice.between(1, 2);
        machine.falls = (0..times).map(|_| dice.pick(FALLS)).collect();
    } else if dice.one_in(30) {
        machine.falls = vec![KEY_FALL; 8];
    }
    machine
}

fn trouble(dice: &mut Dice, begin: Duration) -> Trouble {
    let plague = dice.pick(&[
        Plague::Sick,
        Plague::Sick,
        Plague::SickAndDone,
        Plague::Throttled,
        Plague::LostAnswer,
        Plague::Cut,
        Plague::Slow,
        Plague::Denied,
    ]);
    let verbs = [None, Some(Verb::Look), Some(Verb::Stop), Some(Verb::Start), Some(Verb::Mark), Some(Verb::Unmark)];
    let from = begin + Duration::from_millis(dice.below(20_000));
    Trouble {
        verb: dice.pick(&verbs),
        plague,
        from,
        until: from + Duration::from_millis(dice.pick(&[500, 4_000, 15_000, 60_000, 400_000])),
        one_in: dice.pick(&[1, 2, 5]),
    }
}

fn event(mut event: Event, dice: &mut Dice) -> Event {
    event.delay = Duration::from_millis(dice.between(0, 5_000));
    for (life, death) in &mut event.lives {
        *life = dice.pick(&[30, 40, 60, 300, 900]);
        *death = dice.one_in(5).then(|| Duration::from_millis(dice.between(10, 30_000)));
    }
    event
}

/// Makes the case of a seed.
pub(crate) fn case_of(seed: u64) -> Case {
    let mut dice = Dice(seed);
    let size = dice.pick(&[3, 8, 8, 20, 70, 130]);
    let bad = dice.pick(&[3, 6, 12, 1_000]);
    let mut fleet: Vec<Machine> = (0..dice.between(1, size)).map(|n| machine(n as usize, &mut dice, bad)).collect();
    let mut manner = Manner {
        skew: TimeDelta::seconds(if dice.one_in(4) { dice.below(11) as i64 - 5 } else { 0 }),
        lag: Duration::from_millis(if dice.one_in(5) { dice.between(100, 2_000) } else { 0 }),
        latency: dice.pick(&[(20, 120), (20, 120), (100, 900), (300, 1_500)]),
        partial_success: dice.one_in(2),
        names_all: dice.one_in(2),
        hides_tags: dice.one_in(4),
        ..Manner::default()
    };
    if dice.one_in(4) {
        for zone in ["us-east-1a", "us-east-1b"] {
            manner.room.insert((zone, "t3.micro"), 0);
        }
        // What runs now has freed its room by the morning; somebody else takes some of it, for a time.
        manner.more_room = Some((MORNING + Duration::from_secs(dice.between(1, 130)), fleet.len()));
        let taken = dice.below(fleet.len() as u64 + 1);
        for room in manner.room.values_mut() {
            *room = taken as usize / 2;
        }
    }
    if dice.one_in(5) {
        let calls = Rate { size: dice.between(2, 50) as f64, refill: dice.between(1, 5) as f64 };
        manner.buckets =
            Some((calls, Rate { size: dice.between(64, 1000) as f64, refill: dice.between(2, 20) as f64 }));
    }
    let mut events = vec![event(Event::evening(), &mut dice), event(Event::morning(), &mut dice)];
    if dice.one_in(4) {
        let mut second = event(Event { id: "bbbbbbbb-2222", ..Event::evening() }, &mut dice);
        second.lives[0].1 = None;
        events.push(second);
    }
    if dice.one_in(6) {
        events.push(event(Event { id: "dddddddd-4444", ..Event::morning() }, &mut dice));
    }
    for _ in 0..dice.pick(&[0, 0, 1, 2]) {
        let begin = dice.pick(&[EVENING, EVENING, MORNING]);
        manner.troubles.push(trouble(&mut dice, begin));
    }
    let mut acts = Vec::new();
    for _ in 0..dice.pick(&[0, 0, 1, 4]) {
        let begin = dice.pick(&[EVENING, EVENING, MORNING]);
        let span = dice.pick(&[8_000, 40_000, 300_000]);
        let at = begin + Duration::from_millis(dice.below(span)) - Duration::from_secs(2);
        let act = dice.pick(&[Act::Stop, Act::Stop, Act::Start, Act::Exempt, Act::EndExemption, Act::Terminate]);
        acts.push((at, dice.below(fleet.len() as u64) as usize, act));
    }
    if dice.one_in(10) {
        fleet.truncate(1);
        acts.retain(|(_, n, _)| *n == 0);
    }
    Case { seed, fleet, manner, events, acts }
}

/// Gives smaller cases, one thing less in each.
pub(crate) fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let n = case.fleet.len();
    let used: BTreeSet<InstanceId> = case.acts.iter().map(|(_, n, _)| id(*n)).collect();
    let mut without = |gone: &dyn Fn(usize) -> bool| {
        let fleet: Vec<Machine> = case
            .fleet
            .iter()
            .enumerate()
            .filter(|(n, it)| used.contains(&it.id) || !gone(*n))
            .map(|(_, it)| it.clone())
            .collect();
        if !fleet.is_empty() && fleet.len() < n {
            all.push(Case { fleet, ..case.clone() });
        }
    };
    // Ids stay: machines keep their numbers.
    if n > 8 {
        for part in 0..4 {
            without(&|it| it * 4 / n == part);
        }
    }
    if n <= 30 {
        (0..n).for_each(|one| without(&|it| it == one));
    }
    for at in 0..case.acts.len() {
        let mut less = case.clone();
        less.acts.remove(at);
        all.push(less);
    }
    for at in (0..case.events.len()).rev().filter(|_| case.events.len() > 1) {
        let mut less = case.clone();
        less.events.remove(at);
        all.push(less);
    }
    for at in 0..case.manner.troubles.len() {
        let mut less = case.clone();
        less.manner.troubles.remove(at);
        all.push(less);
    }
    let mut plainer = |change: &dyn Fn(&mut Case) -> bool| {
        let mut less = case.clone();
        if change(&mut less) {
            all.push(less);
        }
    };
    plainer(&|it| std::mem::take(&mut it.manner.skew) != TimeDelta::zero());
    plainer(&|it| std::mem::take(&mut it.manner.lag) != Duration::ZERO);
    plainer(&|it| std::mem::take(&mut it.manner.partial_success));
    plainer(&|it| std::mem::take(&mut it.manner.names_all));
    plainer(&|it| std::mem::take(&mut it.manner.hides_tags));
    plainer(&|it| it.manner.buckets.take().is_some());
    plainer(&|it| !std::mem::take(&mut it.manner.room).is_empty());
    plainer(&|it| std::mem::replace(&mut it.manner.latency, (20, 120)) != (20, 120));
    for at in 0..case.fleet.len().min(30) {
        plainer(&|it| it.fleet[at].poisons.pop().is_some());
        plainer(&|it| !std::mem::take(&mut it.fleet[at].falls).is_empty());
        plainer(&|it| std::mem::take(&mut it.fleet[at].spot));
    }
    for at in 0..case.events.len() {
        for life in 0..2 {
            plainer(&|it| std::mem::replace(&mut it.events[at].lives[life], (900, None)) != (900, None));
        }
    }
    all
}
