//! Random stories of running hours, and how they are run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::{Change, Ec2, Error, Limits};
use ec2_curfew::engine::{Orders, carry_out};
use ec2_curfew::instance::{Instance, InstanceId, Mark, Run, STOPPED_AT_TAG};
use ec2_curfew::outcome::Outcome;
use ec2_curfew::plan::{AsOf, Step, decide_again};
use ec2_curfew::request::{Action, Mode, Request};
use ec2_curfew::select::Filters;
use ec2_curfew::targets::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::hours::{EXEMPT, HOURS, moment, request};
use crate::nights::case::End;
use crate::nights::cloud::*;

/// How long a tick may take, as in the function: it ends before the next one comes.
const LONGEST_TICK: Duration = Duration::from_secs(270);

/// What happens to an instance other than by a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Stop,
    Start,
    /// The hours tag gets this value; none deletes it.
    Retag(Option<&'static str>),
    /// The exemption gets this value; none deletes it.
    Exempt(Option<String>),
    Terminate,
    /// A person's tool deletes tags that it doesn't know, such as the mark.
    Strip,
    /// EC2 stops it, with this code.
    Ec2Stops(&'static str),
}

impl Act {
    /// Whether it counts as a fault, rather than as something that people may do.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self, Self::Strip | Self::Ec2Stops(_))
    }
}

/// A tick, and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Tick {
    /// The minute at which it is due.
    pub(crate) due: i64,
    pub(crate) delay: Duration,
    /// Seconds that the function may live.
    pub(crate) life: u64,
    /// The call, counted from 0, at which it dies, and whether that call still arrives.
    pub(crate) death: Option<(usize, bool)>,
}

impl Tick {
    pub(crate) fn at(due: i64) -> Self {
        Self { due, delay: Duration::from_millis(900), life: 900, death: None }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.delay < Duration::from_secs(60) && self.life == 900 && self.death.is_none()
    }
}

/// Some days of ticks.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) fleet: Vec<Machine>,
    pub(crate) manner: Manner,
    pub(crate) remember: bool,
    pub(crate) hibernate: bool,
    /// Minutes from one tick to the next.
    pub(crate) step: i64,
    /// In the order in which they are due.
    pub(crate) ticks: Vec<Tick>,
    pub(crate) acts: Vec<(Duration, usize, Act)>,
}

/// Returns the number of the machine with this id.
pub(crate) fn number(id: InstanceId) -> usize {
    usize::from_str_radix(&id.as_str()[2..], 16).unwrap()
}

impl Story {
    /// Counts what went wrong with an instance by a moment: each gap of missed ticks, each late, repeated or dying
    /// tick, each refusal and outage of EC2, each mark that was stripped.
    pub(crate) fn faults(&self, id: InstanceId, by: Duration) -> usize {
        let n = number(id);
        let minute = |tick: &&Tick| Duration::from_secs(tick.due as u64 * 60) <= by;
        let ticks: Vec<&Tick> = self.ticks.iter().take_while(minute).collect();
        // A gap is counted at the tick after it, or at the end.
        let apart = |pair: &[&Tick]| pair[1].due - pair[0].due != self.step;
        let missing = |tick: &&Tick| by > Duration::from_secs((tick.due + self.step) as u64 * 60 + 60);
        let missed_at_last = ticks.last().is_some_and(missing);
        let of_ticks = ticks.windows(2).filter(|pair| apart(pair)).count()
            + ticks.iter().filter(|tick| !tick.is_plain()).count()
            + usize::from(missed_at_last);
        let of_acts = self.acts.iter().filter(|(at, of, act)| *at <= by && *of == n && act.is_fault()).count();
        let manner = &self.manner;
        let of_ec2 = [
            manner.lag > Duration::ZERO,
            !manner.skew.is_zero(),
            !manner.room.is_empty(),
            manner.hides_tags,
            manner.latency.1 > 900,
        ];
        let machine = self.fleet.iter().find(|it| it.id == id);
        let of_machine = machine.map_or(0, |it| {
            it.poisons.len() + usize::from(!it.falls.is_empty()) + usize::from(it.keeps_launch_time && self.hibernate)
        });
        let troubles = manner.troubles.iter().filter(|it| it.from <= by).count();
        of_ticks + of_acts + of_ec2.iter().filter(|it| **it).count() + of_machine + troubles
    }
}

/// A stop, a start or a mark that a tick asked for, and what EC2 had shown it last about each instance.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) verb: Verb,
    pub(crate) shown: Vec<(Instance, Instant)>,
}

/// A tick that ran, and its result.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) as_of: DateTime<Utc>,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    /// What the first look showed.
    pub(crate) found: Vec<Instance>,
    pub(crate) planned: BTreeSet<InstanceId>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) end: End,
}

impl Ran {
    pub(crate) fn outcome(&self, id: InstanceId) -> Option<&Outcome> {
        let End::Done { settled, .. } = &self.end else { return None };
        settled.iter().find(|settled| settled.id == id).map(|settled| &settled.outcome)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.end, End::Done { error: None, .. })
    }
}

/// A tick's client of EC2: records what it was shown and what it asked for, and dies when the story says so.
struct Eye {
    client: Client,
    shown: Mutex<BTreeMap<InstanceId, (Instance, Instant)>>,
    asked: Mutex<Vec<Asked>>,
    calls: AtomicUsize,
    death: Option<(usize, bool)>,
    first: AtomicBool,
    found: Mutex<Vec<Instance>>,
    died: Notify,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Eye {
    fn new(client: Client, death: Option<(usize, bool)>) -> Self {
        Self {
            client,
            shown: Mutex::default(),
            asked: Mutex::default(),
            calls: AtomicUsize::new(0),
            death,
            first: AtomicBool::new(true),
            found: Mutex::default(),
            died: Notify::new(),
        }
    }

    /// Makes a call, or dies before it arrives or right after.
    async fn live<T>(&self, call: impl Future<Output = T>) -> T {
        let mine = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.death.filter(|(at, _)| *at == mine) {
            None => return call.await,
            Some((_, true)) => drop(call.await),
            Some((_, false)) => {}
        }
        self.died.notify_one();
        std::future::pending().await
    }

    fn see(&self, instances: &[Instance], asked: Instant) {
        open(&self.shown).extend(instances.iter().map(|it| (it.id, (it.clone(), asked))));
    }

    fn ask(&self, verb: Verb, ids: &[InstanceId]) {
        let shown = open(&self.shown);
        let shown = ids.iter().filter_map(|id| shown.get(id).cloned()).collect();
        open(&self.asked).push(Asked { at: Instant::now(), verb, shown });
    }
}

impl Ec2 for Eye {
    async fn matching<T: Send>(
        &self,
        filters: &Filters,
        keep: impl Fn(Instance) -> Option<T> + Send,
        until: Deadline,
    ) -> Result<Vec<T>, Error> {
        let asked = Instant::now();
        let shown = self.live(self.client.matching(filters, Some, until)).await?;
        self.see(&shown, asked);
        if self.first.swap(false, Ordering::Relaxed) {
            *open(&self.found) = shown.clone();
        }
        Ok(shown.into_iter().filter_map(keep).collect())
    }

    async fn by_id(&self, ids: &[InstanceId], until: Deadline) -> Result<Vec<Instance>, Error> {
        let asked = Instant::now();
        let shown = self.live(self.client.by_id(ids, until)).await?;
        // Such a look may leave tags out.
        if shown.iter().all(|it| !it.tags.is_empty()) {
            self.see(&shown, asked);
        }
        Ok(shown)
    }

    async fn switch(&self, step: Step, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<Vec<Change>, Error> {
        self.ask(if step == Step::Start { Verb::Start } else { Verb::Stop }, ids);
        self.live(self.client.switch(step, ids, mode, until)).await
    }

    async fn mark(&self, mark: &Mark, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<(), Error> {
        self.ask(Verb::Mark, ids);
        self.live(self.client.mark(mark, ids, mode, until)).await
    }

    async fn unmark(&self, mark: &Mark, ids: &[InstanceId], until: Deadline) -> Result<(), Error> {
        self.ask(Verb::Unmark, ids);
        self.live(self.client.unmark(mark, ids, until)).await
    }
}

thread_local! {
    /// A request for each moment, shared by all stories of a thread, so that its hours are evaluated once.
    static REQUESTS: RefCell<HashMap<i64, Arc<Request>>> = RefCell::default();
}

/// Returns the request of a tick. No other story may run in this thread at the same time.
fn request_of(story: &Story, due: i64) -> Arc<Request> {
    const ANY: i64 = i64::MIN;
    REQUESTS.with_borrow_mut(|requests| {
        let plain = requests
            .entry(ANY)
            .or_insert_with(|| Request::parse(request().as_object().unwrap().clone(), None, moment(1)).unwrap().into());
        let plain = Arc::clone(plain);
        let mine = requests.entry(due).or_insert_with(|| Request::clone(&plain).into());
        if let Some(request) = Arc::get_mut(mine) {
            (request.remember, request.action) = (story.remember, Action::Reconcile { hibernate: story.hibernate });
            request.scheduled_time = Some(moment(due));
        }
        assert_eq!((mine.remember, mine.action), (story.remember, Action::Reconcile { hibernate: story.hibernate }));
        Arc::clone(mine)
    })
}

/// Runs one tick.
async fn invoke(cloud: Arc<Cloud>, request: Arc<Request>, tick: Tick, by: usize) -> Ran {
    let (begun, as_of) = (Instant::now(), moment(tick.due));
    let eye = Eye::new(Client { cloud: Arc::clone(&cloud), by }, tick.death);
    let deadline = Deadline::within(Duration::from_secs(tick.life)).at_most(LONGEST_TICK);
    let run = Run::of(&format!("{:08x}-1111", 0xc0de_0000 + by));
    let mut planned = BTreeSet::new();
    let work = async {
        let seen = Instant::now();
        let moment = AsOf { at: as_of, run: Some(run) };
        let plan = match select(&eye, &request, deadline.first_half(), moment).await {
            Ok(plan) => plan,
            Err(error) => return End::NoPlan(error),
        };
        planned = plan.decided.iter().map(|(it, _)| it.id).chain(plan.absent.iter().copied()).collect();
        let decide = |instance: &Instance| decide_again(&request, instance, moment);
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
            clock: (begun, as_of),
            deadline,
        };
        let (settled, error) = carry_out(&eye, orders, plan, seen).await;
        End::Done { settled, error }
    };
    let end = tokio::select! {
        biased;
        end = work => end,
        () = eye.died.notified() => End::Died,
    };
    let ended = Instant::now();
    let longest = LONGEST_TICK.min(Duration::from_secs(tick.life));
    assert!(ended - begun <= longest, "tick {by} took {:?}", ended - begun);
    let Eye { asked, found, .. } = eye;
    Ran { as_of, begun, ended, found: found.into_inner().unwrap(), planned, asked: asked.into_inner().unwrap(), end }
}

/// Runs a story; returns its runs in the order of their ticks.
pub(crate) async fn live(story: &Story) -> (Arc<Cloud>, Vec<Ran>) {
    let cloud = Cloud::new(story.fleet.clone(), story.manner.clone(), story.seed);
    // Ticks and acts, in the order in which they begin.
    let mut agenda: Vec<(Duration, usize, bool)> = Vec::new();
    for (n, tick) in story.ticks.iter().enumerate() {
        agenda.push((Duration::from_secs(tick.due as u64 * 60) + tick.delay, n, true));
    }
    agenda.extend(story.acts.iter().enumerate().map(|(n, (at, ..))| (*at, n, false)));
    agenda.sort();
    let mut ticks = tokio::task::JoinSet::new();
    for (at, n, is_tick) in agenda {
        sleep_until(cloud.begun + at).await;
        if is_tick {
            let tick = story.ticks[n].clone();
            let (cloud, request) = (Arc::clone(&cloud), request_of(story, tick.due));
            ticks.spawn(async move { (n, invoke(cloud, request, tick, n).await) });
            continue;
        }
        let (_, n, act) = &story.acts[n];
        match act {
            Act::Stop => cloud.person(*n, Verb::Stop),
            Act::Start => cloud.person(*n, Verb::Start),
            Act::Retag(value) => cloud.tag(*n, HOURS, *value),
            Act::Exempt(value) => cloud.tag(*n, EXEMPT, value.as_deref()),
            Act::Terminate => cloud.terminate(*n),
            Act::Strip => cloud.tag(*n, STOPPED_AT_TAG, None),
            Act::Ec2Stops(code) => cloud.ec2_stops(*n, code),
        }
    }
    let mut rans = BTreeMap::new();
    while let Some(done) = ticks.join_next().await {
        let (n, ran) = done.unwrap();
        rans.insert(n, ran);
    }
    // Time for all transitions to end.
    tokio::time::sleep(Duration::from_secs(120)).await;
    drop(cloud.world());
    (cloud, rans.into_values().collect())
}
