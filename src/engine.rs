//! Carrying a plan out in one account and region, until the deadline.
//!
//! One loop that awaits ([`carry_out`]), and a state machine that doesn't ([`Engine`]): the loop asks it what is due, makes
//! that one call, and tells it the answer. The machine does no I/O and reads no clock, so whole nights run in tests in
//! microseconds. It has no opinion on who should be switched, and never sees the request: what is decided anew is decided
//! by a function of the plan's.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::deadline::Deadline;
use crate::ec2::{Change, Class, Ec2, Error, ErrorKind, Limits, classify};
use crate::instance::{Instance, InstanceId, Mark, Run, State};
use crate::outcome::{Outcome, Reason, Settled, cut};
use crate::plan::{Decision, Plan, Step, Task, absent};
use crate::request::Mode;
use crate::select::Filters;

mod answers;
mod backoff;
mod due;
mod ledger;
mod looks;
mod marks;
mod pace;
mod queue;

use backoff::{Backoff, Ladder};
use ledger::{Ledger, Marked, Phase, Slot};
use queue::{Group, Queues};

/// The first look at what was started comes after a second: no instance is there sooner. Most need 10 to 60.
const LOOKS: Ladder = Ladder { first: Duration::from_secs(1), longest: Duration::from_secs(10), growth: 150 };
/// Pauses before a look is repeated that got no answer; the SDK has repeated it before.
const FAILED_LOOKS: Ladder =
    Ladder { first: Duration::from_millis(500), longest: Duration::from_secs(10), growth: 150 };
/// Pauses before an instance is asked for again that EC2 refused for now, or of which it alone says nothing.
const WAITS: Ladder = Ladder { first: Duration::from_secs(1), longest: Duration::from_secs(20), growth: 200 };
/// Pause before memory is tried to be saved a second time: the agent in the instance takes a while to be ready.
const HIBERNATION_PAUSE: Duration = Duration::from_secs(15);
/// How long a look may be acted on: after pauses people may have exempted an instance, or switched it themselves.
const LOOK_LASTS: Duration = Duration::from_secs(10);
/// How long DescribeInstances may lag behind: what then still shows as stopped has fallen back, though nothing else about it
/// is news, as where it failed twice in a second for the same reason.
const LAG_LASTS: Duration = Duration::from_secs(20);
/// How long after a call a look may still show what was before it; and how long a refusal may wait for others, so that one
/// look tells of all of them.
const DOUBT_LASTS: Duration = Duration::from_secs(2);
/// A run that has this much time keeps some of it for each of its last calls: EC2 may be slow, and DescribeInstances late.
const AMPLE: Duration = Duration::from_secs(10);
/// So much for each at most, and a tenth of its time.
const SPARE: Duration = Duration::from_secs(3);
/// How long a mark that has to come off may wait for others, so that one call does for all of them.
const WRONG_LASTS: Duration = Duration::from_secs(10);
/// By how many places the first in line moves on from minute to minute: a prime, so that every one is the first at times.
const FIRST_IN_TURN: u64 = 7919;
/// DeleteTags and renewing CreateTags calls that may fail in a run: what they fail to do later runs repair.
const FAILED_TAGGINGS: usize = 24;

/// What a run is, as far as the engine has to know.
#[derive(Clone, Copy)]
pub struct Orders<'a> {
    /// For real, or only asked.
    pub mode: Mode,
    /// Whose marks are this run's.
    pub run: Run,
    /// What this run stops is marked with this.
    pub mark: &'a Mark,
    /// Decides about an instance as EC2 shows it now.
    pub decide: &'a (dyn Fn(&Instance) -> Decision + Sync),
    /// The request's tag filters: looks on which a decision hangs carry them, because an answer is only known to show
    /// tags where a filter names one.
    pub tags: &'a Filters,
    /// The next run comes in minutes: nothing waits for room or for EC2's mood, and a mark stays whatever EC2 answers,
    /// because it is the memory of the try.
    pub in_ticks: bool,
    /// EC2's token buckets.
    pub limits: Limits,
    /// The role that acts, as people know it.
    pub role: &'a str,
    /// The time by both clocks, at one moment: the engine reads neither.
    pub clock: (Instant, DateTime<Utc>),
    /// When to be done.
    pub deadline: Deadline,
}

impl fmt::Debug for Orders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("mode", &self.mode).field("mark", &self.mark).finish_non_exhaustive()
    }
}

/// Carries a plan out; `seen` is when EC2 was asked for what the plan is of. Returns what became of every instance in it,
/// and what ended the run before its time.
pub async fn carry_out<E: Ec2>(
    ec2: &E,
    orders: Orders<'_>,
    plan: Plan,
    seen: Instant,
) -> (Vec<Settled>, Option<Error>) {
    let mut engine = Engine::new(orders, plan, seen, Instant::now());
    while let Some(Due { at, call, until }) = engine.next(Instant::now()) {
        if at > Instant::now() {
            // What is best then may be something else.
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
                debug!(code, message, instances = ids.len(), "EC2 said no to {step:?}");
            }
            Answer::Switched(answer)
        }
        Call::Mark { ids } => Answer::Tagged(ec2.mark(orders.mark, ids, orders.mode, until).await),
        Call::Tidy(Tidy { write, mark, ids }) => {
            let (answer, regret) = match write {
                true => (
                    ec2.mark(mark, ids, orders.mode, until).await,
                    "could not write the mark; a later start may leave it off",
                ),
                false => (ec2.unmark(mark, ids, until).await, "could not delete the mark; the next start voids it"),
            };
            if let Err(Error { code, message, .. }) = &answer {
                warn!(instances = ids.len(), code, error = cut(message), "{regret}");
            }
            Answer::Tagged(answer)
        }
    }
}

/// Looks at instances in a way that shows their tags: by a filter that names one of them; those that this doesn't show, by
/// id; and those that then show none, by a filter that any tag matches.
///
/// A public tool still works around DescribeInstances leaving tags out unless a filter names one (cloud-custodian #252,
/// #10909). An exempt instance must not be stopped for it. It costs a call more only where something is missing.
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

/// Looks at instances by id; EC2 refuses the whole look for one that it doesn't know, so that one is left out.
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

/// What is to be done next.
#[derive(Debug)]
struct Due {
    /// Not before.
    at: Instant,
    /// Nothing, if only the time is to be waited for.
    call: Option<Call>,
    /// When the call is given up.
    until: Deadline,
}

/// A call to EC2.
#[derive(Debug)]
enum Call {
    /// Where is what was started?
    Follow { ids: Vec<InstanceId> },
    /// How do these stand, tags and all?
    Look { ids: Vec<InstanceId> },
    /// Mark these with this run's mark.
    Mark { ids: Vec<InstanceId> },
    /// Stop or start these.
    Switch { step: Step, ids: Vec<InstanceId> },
    /// Put a mark right.
    Tidy(Tidy),
}

/// A mark to be written, or to be deleted where it has this value.
#[derive(Clone, Debug)]
struct Tidy {
    write: bool,
    mark: Mark,
    ids: Vec<InstanceId>,
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
    /// This run writes marks: time for a last look at them, and for deleting them, is kept.
    marking: bool,
    ledger: Ledger,
    queues: Queues,
    /// Groups that got no clear answer: in the queue again when a look has told of each of them.
    lost: Vec<Group>,
    /// Rounds of looks at what is on its way.
    looks: Backoff,
    /// Looks at what is unclear.
    unclear: Backoff,
    /// Since when EC2's refusals wait for a look.
    doubted_since: Option<Instant>,
    /// Those whose mark of this run has to come off.
    wrong: BTreeSet<Slot>,
    /// Since when the first of them waits.
    wrong_since: Option<Instant>,
    tidying: Vec<Tidy>,
    failed_taggings: usize,
    /// EC2 has let this run put a mark right: it does not refuse that as such.
    may_tidy: bool,
    tidy_again: Backoff,
    /// Kept free for each of the last calls, besides the least that a call needs.
    spare: Duration,
    /// When the last look of all is, once nothing else can be done in time.
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
            // What it is waiting for will not come in a dry run; the permission is the same.
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
            failed_taggings: 0,
            may_tidy: false,
            tidy_again: Backoff::new(FAILED_LOOKS, now),
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
        engine.looks.again(now);
        let mut in_turn: Vec<Slot> = engine.ledger.slots().collect();
        if orders.in_ticks && !in_turn.is_empty() {
            // Who is given up for want of room or of answers is another one at each tick.
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
            // An earlier attempt of this run died between mark and stop.
            for slot in engine.ledger.slots() {
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

    /// Returns what is due, and when; nothing, when all is done or the time is over. Asked again without an answer between,
    /// it says the same.
    fn next(&mut self, now: Instant) -> Option<Due> {
        if self.fatal.is_some() {
            return None;
        }
        for slot in self.ledger.wake(now) {
            self.queues.of(self.ledger.get(slot).task.step).add_again(&self.ledger, slot, now);
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
        // A stop that is cut off leaves a mark of which nobody knows whether it has to come off.
        let spare = if self.marking { self.spare } else { Duration::ZERO };
        let in_time = |due: &Due| {
            let until = if matches!(due.call, Some(Call::Switch { .. })) { due.until.sooner(spare) } else { due.until };
            until.allows_a_call_at(due.at.max(now))
        };
        // The first of those that are due at the same time.
        let due = candidates.into_iter().flatten().filter(in_time).min_by_key(|due| due.at.max(now));
        due.or_else(|| self.last_things(now))
    }

    /// Takes in what EC2 answered: the only thing that changes where an instance stands.
    fn tell(&mut self, call: &Call, answer: Answer, now: Instant) {
        match (call, answer) {
            (Call::Follow { ids }, Answer::Shown(Ok(shown))) => self.shown(ids, shown, false, now),
            (Call::Look { ids }, Answer::Shown(Ok(shown))) => self.shown(ids, shown, true, now),
            (Call::Follow { ids } | Call::Look { ids }, Answer::Shown(Err(error))) => {
                debug!(code = error.code, message = error.message, "a look got no answer");
                if matches!(call, Call::Look { .. }) {
                    self.unclear.again(now);
                }
                for slot in ids.iter().filter_map(|id| self.ledger.slot(*id)).collect::<Vec<_>>() {
                    // What we gave up was no look.
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
        let mut settled = self.ledger.close();
        settled.extend(self.absent.into_iter().map(absent));
        settled.sort_unstable_by_key(|settled| settled.id);
        (settled, self.fatal)
    }
}
