//! Carries out a plan in one account and region, until the deadline.
//!
//! One loop that awaits ([`carry_out`]), and a state machine that doesn't ([`Engine`]): the loop asks it what is due, makes
//! that one call, and tells it the answer. The machine does no I/O and reads no clock, so whole nights run in tests in
//! microseconds. It has no say in which instances to switch, and never sees the request: new decisions are made
//! by a function that the plan provides.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::deadline::Deadline;
use crate::ec2::{Change, Class, Ec2, Error, ErrorKind, Limits, classify};
use crate::instance::{Instance, InstanceId, Mark, Run, State};
use crate::outcome::{Outcome, Reason, Settled, cut};
use crate::plan::{Decision, LONGEST_STOP, Plan, Step, Task, absent};
use crate::request::Mode;
use crate::select::Filters;

mod answers;
mod backoff;
mod due;
mod ledger;
mod looks;
mod marks;
pub(crate) mod pace;
mod queue;

use backoff::{Backoff, Ladder};
use ledger::{Ledger, Marked, Phase, Slot};
use queue::{Group, Queues};

/// The first look at a start comes after a second: no instance is running sooner, most need 10 to 60 seconds.
const LOOKS: Ladder = Ladder { first: Duration::from_secs(1), longest: Duration::from_secs(10), growth: 150 };
/// Pauses before repeating a look that got no answer, after the SDK's own retries.
const FAILED_LOOKS: Ladder =
    Ladder { first: Duration::from_millis(500), longest: Duration::from_secs(10), growth: 150 };
/// Pauses before retrying a single instance that EC2 refused for now, or gave no clear answer about.
const WAITS: Ladder = Ladder { first: Duration::from_secs(1), longest: Duration::from_secs(20), growth: 200 };
/// Pause before hibernation is tried a second time: the agent in the instance takes a while to be ready.
const HIBERNATION_PAUSE: Duration = Duration::from_secs(15);
/// How long a look may be acted on: after a pause, people may have exempted an instance or switched it themselves.
pub(crate) const LOOK_LASTS: Duration = Duration::from_secs(10);
/// How long DescribeInstances may lag behind: an instance that still shows as stopped after that has fallen back, even if
/// nothing else about it has changed, as when it fails twice in a second for the same reason.
const LAG_LASTS: Duration = Duration::from_secs(20);
/// How long after a call a look may still show the state before it; also how long a refusal may wait for others, so that one
/// look covers them all.
const DOUBT_LASTS: Duration = Duration::from_secs(2);
/// A run with at least this much time reserves some for each of its last calls: EC2 may be slow, and DescribeInstances may
/// lag.
const AMPLE: Duration = Duration::from_secs(10);
/// The most it reserves for each call; it never reserves more than a tenth of its time.
const SPARE: Duration = Duration::from_secs(3);
/// How long a mark that has to be deleted may wait for others, so that one call covers them all.
const WRONG_LASTS: Duration = Duration::from_secs(10);
/// How many places the head of the line moves from minute to minute: a prime, so that everyone comes first at some point.
const FIRST_IN_TURN: u64 = 7919;
/// How many calls that delete or renew marks may fail one after the other: later runs repair what is left.
const FAILED_TAGGINGS: usize = 24;
/// How often a mark's correction is tried by itself once EC2 has carried out others.
const LONE_TRIES: u8 = 4;

/// What the engine has to know about a run.
#[derive(Clone, Copy)]
pub struct Orders<'a> {
    /// Live, or a dry run.
    pub mode: Mode,
    /// The run, which its marks carry.
    pub run: Run,
    /// The mark for what this run stops.
    pub mark: &'a Mark,
    /// Decides about an instance as EC2 shows it now.
    pub decide: &'a (dyn Fn(&Instance) -> Decision + Sync),
    /// The request's tag filters: looks that lead to a decision carry them, because an answer is only certain to show
    /// tags if a filter names one.
    pub tags: &'a Filters,
    /// The next run comes in minutes: nothing waits for capacity or for EC2 to recover, and a mark stays whatever EC2
    /// answers, because it records the attempt.
    pub in_ticks: bool,
    /// EC2's token buckets.
    pub limits: Limits,
    /// The role that acts, as messages name it.
    pub role: &'a str,
    /// One moment by both clocks: the engine reads neither.
    pub clock: (Instant, DateTime<Utc>),
    /// When the run has to end.
    pub deadline: Deadline,
}

impl fmt::Debug for Orders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("mode", &self.mode).field("mark", &self.mark).finish_non_exhaustive()
    }
}

/// Carries out a plan; `seen` is when EC2 was asked for the instances in it. Returns the outcome of every instance,
/// and the error that ended the run early, if any.
pub async fn carry_out<E: Ec2>(
    ec2: &E,
    orders: Orders<'_>,
    plan: Plan,
    seen: Instant,
) -> (Vec<Settled>, Option<Error>) {
    let mut engine = Engine::new(orders, plan, seen, Instant::now());
    while let Some(Due { at, call, until }) = engine.next(Instant::now()) {
        if at > Instant::now() {
            // By then, something else may be more urgent.
            sleep_until(at).await;
            continue;
        }
        let Some(call) = call else { continue };
        let answer = make(ec2, &call, orders, until).await;
        engine.tell(&call, answer, Instant::now());
    }
    engine.finish()
}

/// Makes a call.
async fn make<E: Ec2>(ec2: &E, call: &Call, orders: Orders<'_>, until: Deadline) -> Answer {
    match call {
        Call::Follow { ids } => Answer::Shown(known_by_id(ec2, ids, until).await),
        Call::Look { ids } => Answer::Shown(look(ec2, ids, orders.tags, until).await),
        Call::Switch { step, ids } => {
            let answer = ec2.switch(*step, ids, orders.mode, until).await;
            if let Err(Error { code, message, .. }) = &answer {
                debug!(code, message, instances = ids.len(), "EC2 refused {step:?}");
            }
            Answer::Switched(answer)
        }
        Call::Mark { ids } => Answer::Tagged(ec2.mark(orders.mark, ids, orders.mode, until).await),
        Call::Tidy(Tidy { write, mark, ids, .. }) => {
            let answer = match write {
                true => ec2.mark(mark, ids, orders.mode, until).await,
                false => ec2.unmark(mark, ids, until).await,
            };
            if let Err(Error { code, message, .. }) = &answer {
                let doing = if *write { "writing" } else { "deleting" };
                debug!(instances = ids.len(), code, error = cut(message), "EC2 refused {doing} a mark");
            }
            Answer::Tagged(answer)
        }
    }
}

/// Looks at instances in a way that shows their tags: by a filter that names one of the tags; those not shown that way, by
/// id; and those shown without tags, by a filter that any tag matches.
///
/// Cloud Custodian still works around DescribeInstances leaving tags out unless a filter names one (cloud-custodian #252,
/// #10909). That must not stop an exempt instance. The extra call is made only where something is missing.
async fn look<E: Ec2>(ec2: &E, ids: &[InstanceId], tags: &Filters, until: Deadline) -> Result<Vec<Instance>, Error> {
    let by = |ids: &[InstanceId]| ("instance-id".to_owned(), ids.iter().map(ToString::to_string).collect());
    let mut shown = Vec::new();
    if !tags.is_empty() {
        let filters = tags.iter().cloned().chain([by(ids)]).collect();
        shown = ec2.matching(&filters, Some, until).await?;
    }
    let seen: BTreeSet<InstanceId> = shown.iter().map(|instance| instance.id).collect();
    let rest: Vec<InstanceId> = ids.iter().filter(|id| !seen.contains(id)).copied().collect();
    if rest.is_empty() {
        return Ok(shown);
    }
    let mut others = known_by_id(ec2, &rest, until).await?;
    let bare: Vec<InstanceId> = others.iter().filter(|it| it.tags.is_empty()).map(|it| it.id).collect();
    if !bare.is_empty() {
        let filters = vec![by(&bare), ("tag-key".to_owned(), vec!["*".to_owned()])];
        let tagged = ec2.matching(&filters, Some, until).await?;
        let again: BTreeSet<InstanceId> = tagged.iter().map(|instance| instance.id).collect();
        others.retain(|instance| !again.contains(&instance.id));
        shown.extend(tagged);
    }
    shown.extend(others);
    Ok(shown)
}

/// Looks at instances by id. EC2 refuses the whole call for one unknown id, so unknown ones are left out.
async fn known_by_id<E: Ec2>(ec2: &E, ids: &[InstanceId], until: Deadline) -> Result<Vec<Instance>, Error> {
    match ec2.by_id(ids, until).await {
        Err(error) => {
            let named = InstanceId::all_in(&error.message);
            let rest: Vec<InstanceId> = ids.iter().filter(|id| !named.contains(id)).copied().collect();
            match error.code.starts_with("InvalidInstanceID") && rest.len() < ids.len() {
                true if rest.is_empty() => Ok(Vec::new()),
                true => ec2.by_id(&rest, until).await,
                false => Err(error),
            }
        }
        answer => answer,
    }
}

/// Whether an instance carries the mark of another run that may be stopping it at this moment.
fn is_anothers(instance: &Instance, orders: Orders<'_>) -> bool {
    let is_near = |mark: &Mark| (orders.mark.at() - mark.at()).abs() <= LONGEST_STOP;
    instance.valid_mark().is_some_and(|mark| !mark.is_of(orders.run) && is_near(&mark))
}

/// What to do next.
#[derive(Debug)]
struct Due {
    /// Not before.
    at: Instant,
    /// None, if there is nothing to do but wait.
    call: Option<Call>,
    /// When to give up on the call.
    until: Deadline,
}

/// A call to EC2.
#[derive(Debug)]
enum Call {
    /// How far have these starts come?
    Follow { ids: Vec<InstanceId> },
    /// What state are these in, tags included?
    Look { ids: Vec<InstanceId> },
    /// Mark these with this run's mark.
    Mark { ids: Vec<InstanceId> },
    /// Stop or start these.
    Switch { step: Step, ids: Vec<InstanceId> },
    /// Correct a mark.
    Tidy(Tidy),
}

/// A mark to write, or to delete where the tag has this value.
#[derive(Clone, Debug)]
struct Tidy {
    write: bool,
    mark: Mark,
    ids: Vec<InstanceId>,
    /// How often EC2 has failed to do it.
    tries: u8,
}

/// EC2's answer to a call.
#[derive(Debug)]
enum Answer {
    Shown(Result<Vec<Instance>, Error>),
    Switched(Result<Vec<Change>, Error>),
    Tagged(Result<(), Error>),
}

/// A plan being carried out.
#[derive(Debug)]
struct Engine<'a> {
    orders: Orders<'a>,
    /// This run writes marks, so it reserves time to look at them once more, and to delete them.
    marking: bool,
    ledger: Ledger,
    queues: Queues,
    /// Groups that got no clear answer: they return to the queue when a look has shown each of their instances.
    lost: Vec<Group>,
    /// When to look next at instances that are changing state.
    looks: Backoff,
    /// When to look next at instances whose state is unclear.
    unclear: Backoff,
    /// Since when EC2's refusals have been waiting for a look.
    doubted_since: Option<Instant>,
    /// Instances that carry this run's mark and must lose it.
    wrong: BTreeSet<Slot>,
    /// Since when the first of them has been waiting.
    wrong_since: Option<Instant>,
    tidying: Vec<Tidy>,
    /// Corrections that are left to later runs.
    given_up: Vec<Tidy>,
    /// Why the last correction failed.
    tidy_error: Option<Error>,
    failed_taggings: usize,
    /// EC2 has let this run correct a mark, so the permission is there.
    may_tidy: bool,
    tidy_backoff: Backoff,
    /// Time reserved for each of the last calls, on top of the least that a call needs.
    spare: Duration,
    /// When to take the very last look, once there is no time for anything else.
    last_look: Option<Instant>,
    absent: Vec<InstanceId>,
    fatal: Option<Error>,
}

impl<'a> Engine<'a> {
    fn new(orders: Orders<'a>, plan: Plan, seen: Instant, now: Instant) -> Self {
        let dry_run = orders.mode == Mode::DryRun;
        let mut stale = plan.stale;
        let first = plan.decided.into_iter().map(|(instance, decision)| match decision {
            Decision::Do(task) => (instance, Some(task), Phase::Queued),
            // In a dry run its state won't change, and the permission needed is the same.
            Decision::Await(task) if dry_run => (instance, Some(task), Phase::Queued),
            Decision::Await(task) => (instance, Some(task), Phase::Settling),
            Decision::Follow => (instance, None, Phase::Starting { ours: false, seen_pending: true }),
            Decision::Mark if !dry_run => (instance, None, Phase::ToMark),
            Decision::Unmark(mark) if !dry_run => {
                stale.push((instance.id, mark));
                (instance, None, Phase::Done(Outcome::skipped(Reason::AsScheduled).into()))
            }
            Decision::Mark | Decision::Unmark(_) => {
                (instance, None, Phase::Done(Outcome::skipped(Reason::AsScheduled).into()))
            }
            Decision::Leave(skip) => (instance, None, Phase::Done(Outcome::Skipped(skip).into())),
            Decision::Refuse { code, message } => {
                (instance, None, Phase::Done(Outcome::Failed { code, message }.into()))
            }
        });
        let first: Vec<_> = first.collect();
        let marked = |task: &Option<Task>| matches!(task, Some(Task { step: Step::Stop { .. }, remembered: true, .. }));
        let marking = !dry_run && !orders.in_ticks && first.iter().any(|(_, task, _)| marked(task));
        let ledger = Ledger::open(first, seen);
        let mut engine = Self {
            queues: Queues::new(&orders.limits, now),
            lost: Vec::new(),
            looks: Backoff::new(LOOKS, now),
            unclear: Backoff::new(FAILED_LOOKS, now),
            doubted_since: None,
            wrong: BTreeSet::new(),
            wrong_since: None,
            tidying: Vec::new(),
            given_up: Vec::new(),
            tidy_error: None,
            failed_taggings: 0,
            may_tidy: false,
            tidy_backoff: Backoff::new(FAILED_LOOKS, now),
            spare: match orders.deadline.last_call().saturating_duration_since(now) {
                left if left > AMPLE => SPARE.min(left / 10),
                _ => Duration::ZERO,
            },
            last_look: None,
            absent: plan.absent,
            fatal: None,
            orders,
            marking,
            ledger,
        };
        engine.looks.back_off(now);
        let mut in_turn: Vec<Slot> = engine.ledger.slots().collect();
        if orders.in_ticks && !in_turn.is_empty() {
            // So that lack of capacity or of answers hits different instances at each tick.
            let ticks = orders.mark.at().timestamp().unsigned_abs() / 60;
            let first = ticks.wrapping_mul(FIRST_IN_TURN) % in_turn.len() as u64;
            in_turn.rotate_left(first as usize);
        }
        for slot in in_turn {
            if matches!(engine.ledger.get(slot).phase(), Phase::Queued) {
                let queue = engine.queues.of(engine.ledger.get(slot).task.step);
                queue.add(&engine.ledger, slot, now);
            }
        }
        if !dry_run {
            // An earlier attempt of this run died between the mark and the stop.
            for slot in engine.ledger.slots() {
                engine.ledger.get_mut(slot).is_contested |= is_anothers(&engine.ledger.get(slot).instance, orders);
                let entry = engine.ledger.get(slot);
                if entry.instance.state != State::Running || entry.instance.mark().as_ref() != Some(orders.mark) {
                    continue;
                }
                match entry.phase() {
                    Phase::Done(_) if orders.in_ticks => {}
                    Phase::Done(_) => engine.tidy(false, orders.mark.clone(), entry.instance.id),
                    _ => engine.ledger.get_mut(slot).marked = Marked::Perhaps,
                }
            }
            for (id, mark) in stale {
                engine.tidy(false, mark, id);
            }
            for slot in engine.ledger.to_mark().clone() {
                engine.tidy(true, orders.mark.clone(), engine.ledger.get(slot).instance.id);
            }
        }
        engine
    }

    /// Returns what is due, and when; `None` when everything is done or the time is up. Asked twice without an answer in
    /// between, it returns the same.
    fn next(&mut self, now: Instant) -> Option<Due> {
        if self.fatal.is_some() {
            return None;
        }
        for slot in self.ledger.wake(now) {
            self.queues.of(self.ledger.get(slot).task.step).add_retry(&self.ledger, slot, now);
        }
        if self.last_look.is_some_and(|at| at <= now) {
            return self.last_things(now);
        }
        let candidates = [
            self.next_found_off(now),
            self.next_call(Step::Stop { hibernate: false }, now),
            self.next_call(Step::Start, now),
            self.next_unclear(now),
            self.next_round(now),
            self.next_tidying_in_time(now),
            self.next_awake(),
        ];
        // A stop that is cut off leaves a mark that may or may not have to be deleted.
        let spare = if self.marking { self.spare } else { Duration::ZERO };
        let in_time = |due: &Due| {
            let until = if matches!(due.call, Some(Call::Switch { .. })) { due.until.sooner(spare) } else { due.until };
            until.allows_a_call_at(due.at.max(now))
        };
        // The first one wins if several are due at the same time.
        let due = candidates.into_iter().flatten().filter(in_time).min_by_key(|due| due.at.max(now));
        due.or_else(|| self.last_things(now))
    }

    /// Takes in EC2's answer: nothing else changes the phase of an instance.
    fn tell(&mut self, call: &Call, answer: Answer, now: Instant) {
        match (call, answer) {
            (Call::Follow { ids }, Answer::Shown(Ok(shown))) => self.shown(ids, shown, false, now),
            (Call::Look { ids }, Answer::Shown(Ok(shown))) => self.shown(ids, shown, true, now),
            (Call::Follow { ids } | Call::Look { ids }, Answer::Shown(Err(error))) => {
                debug!(code = error.code, message = error.message, "a look got no answer");
                if matches!(call, Call::Look { .. }) {
                    self.unclear.back_off(now);
                }
                for slot in ids.iter().filter_map(|id| self.ledger.slot(*id)).collect::<Vec<_>>() {
                    // A call that we cut off shows nothing.
                    if error.kind != ErrorKind::TooLate {
                        self.ledger.get_mut(slot).looked = now;
                    }
                    if matches!(call, Call::Look { .. }) {
                        self.note(slot, &error);
                    }
                }
            }
            (Call::Mark { ids }, Answer::Tagged(Ok(()))) => {
                for slot in ids.iter().filter_map(|id| self.ledger.slot(*id)).collect::<Vec<_>>() {
                    self.ledger.get_mut(slot).marked = Marked::Yes;
                }
            }
            (Call::Mark { .. }, Answer::Tagged(Err(error))) => {
                let Some(group) = self.queues.of(Step::Stop { hibernate: false }).take_held() else { return };
                let error = marks::not_written(error, self.orders.role);
                self.refused(group, error, true, now);
            }
            (Call::Switch { step, .. }, Answer::Switched(result)) => {
                let touched = |group: &Group| if self.orders.mode == Mode::Live { group.slots.len() } else { 0 };
                let queue = self.queues.of(*step);
                let Some(group) = queue.take_held() else { return };
                queue.pace.take(touched(&group), now);
                match result {
                    Ok(changes) => self.accepted(group, changes, now),
                    Err(error) if classify(&error) == Class::Throttled => {
                        queue.pace.throttled(touched(&group), now);
                        self.refused(group, error, false, now);
                    }
                    Err(error) => self.refused(group, error, false, now),
                }
            }
            (Call::Tidy(job), Answer::Tagged(result)) => self.tidied(job, result, now),
            (call, answer) => debug_assert!(false, "{answer:?} answers no {call:?}"),
        }
        self.line_up_what_was_lost(now);
        if self.orders.in_ticks {
            self.leave_to_the_next_tick(now);
        }
    }

    /// Closes the ledger.
    fn finish(self) -> (Vec<Settled>, Option<Error>) {
        self.tell_what_is_left();
        let mut settled = self.ledger.close();
        settled.extend(self.absent.into_iter().map(absent));
        settled.sort_unstable_by_key(|settled| settled.id);
        (settled, self.fatal)
    }
}
