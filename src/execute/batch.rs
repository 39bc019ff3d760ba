//! Stopping and starting in batches, and isolating the bad one of a batch that EC2 refused.
//!
//! EC2 carries a batch out as a whole or, as documented, not at all. After a refusal nothing is taken for
//! granted all the same: whatever is left of the batch is asked for again, and EC2's answer counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Class, Execution, Known, Outcome, Why, classify};
use crate::ec2::{Change, Error, MAX_IDS, Verb};
use crate::instance::{Instance, InstanceId, STOPPED_AT_TAG, State};
use crate::plan::{Decision, Reason, decide_again};
use crate::request::{Action, Mode};

/// Instances in one StopInstances or StartInstances call.
///
/// Small enough that a bad one is found by halving in 12 calls (2 × log2 64), large enough that a thousand
/// instances are 16: StartInstances has a bucket of 5 calls, refilled by 2 a second (EC2 developer guide,
/// "Request throttling").
const BATCH: usize = 64;
/// Instances refused by themselves, none accepted, after which a few others are asked before going on.
const ENOUGH_REFUSED: usize = 2;
/// How many others: if a tenth of what is left would go through, one of them is accepted in half of all cases;
/// if half of it would, in 98 of 100.
const PROBES: usize = 6;
/// How long a look at an instance may be acted on: after pauses people may have exempted it, or switched it themselves.
const LOOK_LASTS: Duration = Duration::from_secs(10);

/// Instances to switch in one call.
pub(super) struct Group {
    ids: Vec<InstanceId>,
    verb: Verb,
    /// When EC2 was last asked about them.
    seen: Instant,
    /// They carry this run's mark.
    marked: bool,
    /// They were in a call before: what EC2 finds already done may be our doing.
    asked_before: bool,
    /// A call about them got no answer, or was refused for the sake of others: what EC2 refuses now it may have done.
    doubtful: bool,
}

impl Group {
    fn part(&self, ids: Vec<InstanceId>) -> Self {
        Self { ids, ..*self }
    }
}

/// What is left to do.
#[derive(Default)]
pub(super) struct Work {
    /// The one in hand first.
    batches: VecDeque<Batch>,
    /// EC2 accepted a call: what it refuses it does not refuse to all.
    any_accepted: bool,
}

/// Instances that were to be switched in one call, as far as they are left.
struct Batch {
    /// The call's group, or what it was taken apart into.
    parts: VecDeque<Group>,
    /// EC2 accepted a part of it.
    accepted: bool,
    /// Instances of it that EC2 refused each by itself, for a reason that may hold for all.
    refused: usize,
}

impl Batch {
    fn of(group: Group) -> Self {
        Self { parts: [group].into(), accepted: false, refused: 0 }
    }
}

impl Work {
    pub(super) fn add(&mut self, groups: Vec<Group>) {
        self.batches.extend(groups.into_iter().map(Batch::of));
    }

    /// Shows what comes next.
    pub(super) fn next(&mut self) -> Option<&Group> {
        while self.batches.front().is_some_and(|batch| batch.parts.is_empty()) {
            self.batches.pop_front();
        }
        self.batches.front()?.parts.front()
    }

    /// Counts the instances that are left.
    pub(super) fn instances(&self) -> usize {
        self.batches.iter().flat_map(|batch| &batch.parts).map(|part| part.ids.len()).sum()
    }

    /// Lets what was not begun go before a batch that has to be taken apart, where EC2's tokens don't suffice for all.
    pub(super) fn let_others_go_first(&mut self) {
        let begun = |batch: &Batch| batch.parts.front().is_some_and(|part| part.asked_before);
        if self.any_accepted
            && let Some(at) = self.batches.iter().position(|batch| !begun(batch))
        {
            self.batches.rotate_left(at);
        }
    }

    /// Takes whatever is left.
    fn take_all(&mut self) -> impl Iterator<Item = Group> {
        std::mem::take(&mut self.batches).into_iter().flat_map(|batch| batch.parts)
    }
}

/// Takes one instance out of its group.
fn take<'a>(mut groups: impl Iterator<Item = &'a mut Group>, id: InstanceId) -> Option<Group> {
    let group = groups.find(|group| group.ids.contains(&id))?;
    group.ids.retain(|other| *other != id);
    Some(group.part(vec![id]))
}

/// How to go on after a call.
pub(super) enum Next {
    /// At once.
    On,
    /// After a pause.
    Slowly,
    /// Not at all: the time is over.
    End,
}

impl Execution<'_> {
    /// Looks into what was refused, and takes back the marks that were not earned.
    pub(super) async fn tidy(&mut self) {
        if !self.doubted.is_empty() {
            self.settle_doubts().await;
        }
        // What was not stopped must not look as if it had been.
        let wrongly_marked = std::mem::take(&mut self.wrongly_marked);
        self.unmark(&wrongly_marked).await;
    }

    /// Cuts a list into batches; Spot Instances and hibernation, which EC2 refuses for reasons of their own, apart.
    pub(super) fn groups(&self, ids: Vec<InstanceId>, seen: Instant) -> Vec<Group> {
        let mut kinds: BTreeMap<(bool, bool), Vec<InstanceId>> = BTreeMap::new();
        for id in ids {
            let instance = &self.known[&id];
            let hibernate = matches!(self.request.action, Action::Stop { hibernate: true }) && instance.hibernation;
            kinds.entry((instance.spot, hibernate)).or_default().push(id);
        }
        // More than its bucket holds EC2 would never take.
        let most = BATCH.min(self.ec2.limits.of(self.request.action).instances.size as usize);
        kinds
            .into_iter()
            .flat_map(|((_, hibernate), ids)| {
                let verb = match self.request.action {
                    Action::Stop { .. } => Verb::Stop { hibernate },
                    Action::Start => Verb::Start,
                };
                let group = move |ids: &[InstanceId]| Group {
                    ids: ids.to_vec(),
                    verb,
                    seen,
                    marked: false,
                    asked_before: false,
                    doubtful: false,
                };
                ids.chunks(most).map(group).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Makes the next call: accepted, put back, or taken apart down to those that EC2 refuses.
    pub(super) async fn step(&mut self, work: &mut Work) -> Next {
        let Some(mut batch) = work.batches.pop_front() else { return Next::On };
        let (next, last) = self.step_of(work, &mut batch).await;
        match last {
            true => work.batches.push_back(batch),
            false => work.batches.push_front(batch),
        }
        next
    }

    /// The same, with the batch in hand; tells too whether the others are next.
    async fn step_of(&mut self, work: &mut Work, batch: &mut Batch) -> (Next, bool) {
        let Some(part) = batch.parts.pop_front() else { return (Next::On, false) };
        let Some(part) = self.without_limited(part) else { return (Next::On, false) };
        let mut part = match self.still_wanted(part).await {
            Ok(Some(part)) => part,
            Ok(None) => return (Next::On, false),
            Err(part) => {
                batch.parts.push_front(part);
                return (Next::Slowly, true);
            }
        };
        let error = match self.attempt(&mut part).await {
            Ok(changes) => {
                (batch.accepted, work.any_accepted) = (true, true);
                let unsaid = self.accept(&part, changes);
                if unsaid.is_empty() {
                    return (Next::On, false);
                }
                batch.parts.push_front(Group { asked_before: true, doubtful: true, ..part.part(unsaid) });
                return (Next::Slowly, true);
            }
            Err(error) => error,
        };
        let class = self.note(&mut part, &error);
        match class {
            Class::TooLate => return (Next::End, false),
            // The others would be throttled as well.
            Class::Throttled => {
                batch.parts.push_front(part);
                return (Next::Slowly, false);
            }
            Class::Unwell => {
                batch.parts.push_front(part);
                return (Next::Slowly, true);
            }
            Class::Target => {
                batch.parts.push_front(part);
                for part in batch.parts.drain(..).chain(work.take_all()) {
                    self.refuse(&part, &part.ids, &error);
                }
                self.target_error = Some(error);
            }
            Class::Capacity => self.by_place(part, &mut batch.parts),
            Class::Instance | Class::Limit | Class::OneOrAll => {
                self.isolate(batch, part, class, &error);
                if batch.refused >= ENOUGH_REFUSED && !batch.accepted {
                    self.probe(work, batch, &error).await;
                }
            }
        }
        (Next::On, false)
    }

    /// Takes out of a refused part the ones that EC2 names, or halves it.
    fn isolate(&mut self, batch: &mut Batch, part: Group, class: Class, error: &Error) {
        let named = InstanceId::all_in(&error.message);
        let (bad, rest): (Vec<_>, Vec<_>) = match part.ids.len() {
            1 => (part.ids.clone(), Vec::new()),
            _ => part.ids.iter().cloned().partition(|id| named.contains(id)),
        };
        // A stop refused for the sake of one may have stopped the others, in another zone.
        let left_over = |ids: &[InstanceId]| Group { doubtful: true, ..part.part(ids.to_vec()) };
        if bad.is_empty() {
            let (left, right) = rest.split_at(rest.len() / 2);
            batch.parts.push_front(left_over(right));
            batch.parts.push_front(left_over(left));
            return;
        }
        match class {
            Class::OneOrAll => batch.refused += bad.len(),
            Class::Limit => self.limited.extend(bad.iter().map(|id| (self.known[id].kind(), error.clone()))),
            _ => {}
        }
        self.refuse(&part, &bad, error);
        if !rest.is_empty() {
            batch.parts.push_front(left_over(&rest));
        }
    }

    /// Asks for a few single instances, spread over all that is left: if none is accepted, the rest isn't asked.
    ///
    /// A missing permission refuses a thousand as it refuses one; a refused group alone proves nothing.
    async fn probe(&mut self, work: &mut Work, batch: &mut Batch, error: &Error) {
        let groups = batch.parts.iter().chain(work.batches.iter().flat_map(|batch| &batch.parts));
        let left: Vec<InstanceId> = groups.flat_map(|group| group.ids.iter().copied()).collect();
        // So few are asked one by one anyway.
        if left.len() <= 2 * PROBES {
            return;
        }
        let mut probes = Vec::new();
        for id in (0..PROBES).map(|n| left[n * left.len() / PROBES]) {
            let groups = batch.parts.iter_mut().chain(work.batches.iter_mut().flat_map(|batch| &mut batch.parts));
            let Some(probe) = take(groups, id) else { continue };
            match self.still_wanted(probe).await {
                Ok(probe) => probes.extend(probe),
                Err(probe) => batch.parts.push_back(probe),
            }
        }
        let unmarked: Vec<InstanceId> =
            probes.iter().filter(|probe| !probe.marked).flat_map(|probe| probe.ids.iter().copied()).collect();
        // One mark for all of them, where one is due; if that fails, each meets the reason by itself.
        if self.marks() && !unmarked.is_empty() && self.mark(&unmarked).await.is_ok() {
            probes.iter_mut().for_each(|probe| probe.marked = true);
        }
        let asked = probes.len() + batch.refused;
        // Without probes, or if they meet another trouble, nothing is known of the rest.
        let mut all_refused = !probes.is_empty();
        for mut probe in probes {
            if !all_refused {
                batch.parts.push_back(probe);
                continue;
            }
            match self.attempt(&mut probe).await {
                Ok(changes) => {
                    all_refused = false;
                    (batch.accepted, work.any_accepted) = (true, true);
                    let unsaid = self.accept(&probe, changes);
                    if !unsaid.is_empty() {
                        batch.parts.push_back(Group { asked_before: true, doubtful: true, ..probe });
                    }
                }
                Err(error) if self.note(&mut probe, &error) == Class::OneOrAll => {
                    self.refuse(&probe, &probe.ids, &error);
                }
                // To be met on the usual way, which knows what to do about it; the next refusal asks others again.
                Err(_) => {
                    all_refused = false;
                    batch.parts.push_back(probe);
                }
            }
        }
        if !all_refused {
            return;
        }
        let error = Error {
            message: format!("{} (said of each of {asked} others; not asked for this one)", error.message),
            ..error.clone()
        };
        for group in batch.parts.drain(..).chain(work.take_all()) {
            self.refuse(&group, &group.ids, &error);
        }
    }

    /// Remembers what stands in the way of a part, and what it means for the next attempt.
    fn note(&mut self, part: &mut Group, error: &Error) -> Class {
        let class = classify(error);
        debug!(code = error.code, instances = part.ids.len(), message = error.message);
        // Whatever EC2 answered to a stop or a start: what it finds done from now on may have been this call.
        let was_out = !self.marks() || part.marked;
        part.asked_before |= was_out && class != Class::Throttled;
        part.doubtful |= class == Class::Unwell;
        self.note_waiting(part, error);
        class
    }

    /// Remembers what keeps a group waiting, for the report.
    fn note_waiting(&mut self, group: &Group, error: &Error) {
        if classify(error) != Class::TooLate {
            self.last_error.extend(group.ids.iter().map(|id| (*id, error.code.clone())));
        }
    }

    /// Leaves out what is no longer to be switched, where the last look is too old to act on; without an answer to
    /// another one the group has to wait.
    async fn still_wanted(&mut self, mut group: Group) -> Result<Option<Group>, Group> {
        if self.request.mode == Mode::DryRun || group.seen.elapsed() < LOOK_LASTS {
            return Ok(Some(group));
        }
        let now = Instant::now();
        let shown = match self.show_some(&group.ids).await {
            Ok(shown) => shown,
            Err(error) => {
                self.note_waiting(&group, &error);
                return Err(group);
            }
        };
        group.seen = now;
        let mut shown: BTreeMap<InstanceId, Instance> =
            shown.into_iter().map(|instance| (instance.id, instance)).collect();
        let mut wanted = Vec::new();
        for id in std::mem::take(&mut group.ids) {
            // One that EC2 doesn't know at the moment: its answer to the call will tell.
            let Some(instance) = shown.remove(&id) else {
                wanted.push(id);
                continue;
            };
            if group.asked_before && self.may_be_our_doing(&instance) {
                wanted.push(id);
                continue;
            }
            let outcome = match decide_again(self.request, &instance, self.as_of) {
                Decision::Switch => {
                    wanted.push(id);
                    if !group.asked_before {
                        self.known.insert(id, Known::Seen(instance.into()));
                    }
                    continue;
                }
                Decision::WaitThenSwitch => {
                    self.watch(&id, Why::ToSwitch);
                    continue;
                }
                Decision::Follow => {
                    self.watch(&id, Why::Followed);
                    continue;
                }
                Decision::Skip(skip) => Outcome::Skipped(skip),
                Decision::Fail { code, message } => Outcome::Failed { code: code.to_owned(), message: message.into() },
            };
            // What is off, whoever switched it, keeps the mark: another run's, of the same moment, may be its stop.
            if group.marked && !matches!(instance.state, State::Stopping | State::Stopped) {
                self.wrongly_marked.push(id);
            }
            self.settle(id, outcome);
        }
        group.ids = wanted;
        Ok((!group.ids.is_empty()).then_some(group))
    }

    /// Tells whether an instance that was in a call before looks as if the call had been carried out.
    fn may_be_our_doing(&self, now: &Instance) -> bool {
        match self.request.action {
            Action::Stop { .. } => matches!(now.state, State::Stopping | State::Stopped),
            Action::Start => {
                matches!(now.state, State::Pending | State::Running)
                    || now.launch_time != self.known[&now.id].launch_time
            }
        }
    }

    /// Refuses without a call what is of a kind whose limit a single instance has met already.
    fn without_limited(&mut self, mut part: Group) -> Option<Group> {
        for (kind, error) in self.limited.clone() {
            let (over, rest): (Vec<_>, Vec<_>) = part.ids.iter().cloned().partition(|id| self.known[id].kind() == kind);
            self.refuse(&part, &over, &error);
            part.ids = rest;
        }
        (!part.ids.is_empty()).then_some(part)
    }

    /// Tells whether what is stopped is to be remembered.
    fn marks(&self) -> bool {
        self.request.remember && matches!(self.request.action, Action::Stop { .. })
    }

    /// Writes the mark, even where EC2 shows it: a describe that lags may show one that was taken back.
    async fn mark(&self, ids: &[InstanceId]) -> Result<(), Error> {
        let marked = self.ec2.call(Verb::Mark(self.as_of), ids, self.request.mode).await;
        marked.map(drop).map_err(|error| Error {
            message: format!("it could not be marked with {STOPPED_AT_TAG}: {}", error.message),
            ..error
        })
    }

    /// Counts the instances that a call takes out of EC2's bucket; a dry run touches none.
    pub(super) fn touched(&self, group: &Group) -> usize {
        if self.request.mode == Mode::DryRun { 0 } else { group.ids.len() }
    }

    /// Makes the call, as soon as EC2's buckets hold enough for it; before a stop that is to be remembered, the mark. No
    /// mark, no stop.
    async fn attempt(&mut self, group: &mut Group) -> Result<Vec<Change>, Error> {
        let instances = self.touched(group);
        let wait = self.pace.wait(instances, Instant::now());
        if !wait.is_zero() {
            self.ec2.deadline.pause(wait).await?;
        }
        if self.marks() && !group.marked {
            self.mark(&group.ids).await?;
            group.marked = true;
        }
        self.pace.take(instances, Instant::now());
        let answer = self.ec2.call(group.verb, &group.ids, self.request.mode).await;
        match &answer {
            Err(error) if classify(error) == Class::Throttled => self.pace.throttled(instances, Instant::now()),
            _ => self.pace.accepted(),
        }
        answer
    }

    /// Books what EC2 answered; gives the instances of which it said nothing.
    fn accept(&mut self, group: &Group, changes: Vec<Change>) -> Vec<InstanceId> {
        if self.request.mode == Mode::DryRun {
            for id in &group.ids {
                let from = self.known[id].state.clone();
                self.settle(*id, Outcome::WouldChange { from, to: self.goal() });
            }
            return Vec::new();
        }
        let answers: BTreeMap<InstanceId, Change> = changes.into_iter().map(|change| (change.id, change)).collect();
        let mut unanswered = Vec::new();
        for id in &group.ids {
            let Some(change) = answers.get(id) else {
                unanswered.push(*id);
                continue;
            };
            match (group.verb, &change.from, &change.to) {
                // Somebody was faster; unless it was an earlier call of ours.
                (Verb::Stop { .. }, State::Stopping | State::Stopped, _) | (Verb::Start, State::Running, _)
                    if !group.asked_before =>
                {
                    self.settle(*id, Outcome::skipped(Reason::AlreadyDone));
                }
                (Verb::Start, State::Pending, _) if !group.asked_before => self.watch(id, Why::Followed),
                (Verb::Start, ..) => self.watch(id, Why::Started),
                (_, _, State::Stopping | State::Stopped) => {
                    let from = self.known[id].state.clone();
                    self.settle(*id, Outcome::Changed { from, to: change.to.clone() });
                }
                // Said yes, and shows a state that is no stop: it has to be asked again.
                _ => unanswered.push(*id),
            }
        }
        unanswered
    }

    /// Books what EC2 refused; whether it carries a mark, or was done all the same, is looked into at the end.
    fn refuse(&mut self, group: &Group, ids: &[InstanceId], error: &Error) {
        for id in ids {
            let says = |words: &str| error.message.contains(words);
            let skip = match (error.code.as_str(), group.verb) {
                ("UnsupportedOperation", Verb::Stop { .. }) if self.known[id].spot && says("one-time") => {
                    Some(Reason::SpotOneTime)
                }
                ("OperationNotPermitted", Verb::Stop { .. }) if says("disableApiStop") => Some(Reason::StopProtected),
                _ => None,
            };
            let outcome = skip.map_or_else(|| Outcome::refused(error), Outcome::skipped);
            self.settle(*id, outcome);
        }
        if self.request.mode == Mode::Live {
            if group.doubtful {
                self.doubted.extend(ids.iter().cloned());
            } else if group.marked {
                self.wrongly_marked.extend(ids.iter().cloned());
            }
        }
    }

    /// Looks at those that EC2 refused though an earlier call of ours may have been carried out.
    async fn settle_doubts(&mut self) {
        let doubted: Vec<InstanceId> = std::mem::take(&mut self.doubted).into_iter().collect();
        let mut shown: BTreeMap<InstanceId, State> =
            self.show(&doubted).await.into_iter().map(|instance| (instance.id, instance.state)).collect();
        for id in doubted {
            let from = self.known[&id].state.clone();
            match (self.request.action, shown.remove(&id)) {
                (Action::Stop { .. }, Some(to @ (State::Stopping | State::Stopped))) => {
                    self.settle(id, Outcome::Changed { from, to });
                }
                (Action::Start, Some(State::Pending | State::Running)) => {
                    self.outcomes.remove(&id);
                    self.watch(&id, Why::Started);
                }
                (_, Some(_)) if self.marks() => self.wrongly_marked.push(id),
                (_, Some(_)) => {}
                // Not even this was answered: what became of it is unknown.
                (_, None) => {
                    self.outcomes.remove(&id);
                }
            }
        }
    }

    /// Deletes the mark, as well as it can be done.
    pub(super) async fn unmark(&self, ids: &[InstanceId]) {
        self.tag(Verb::Unmark, ids, "could not delete the mark; the next start voids it").await;
    }

    /// Marks anew, as of now, what was to run and does not.
    pub(super) async fn mark_again(&self, ids: &[InstanceId]) {
        let regret = "could not mark anew what did not start; a later start may call it not_marked";
        self.tag(Verb::Mark(chrono::Utc::now()), ids, regret).await;
    }

    async fn tag(&self, verb: Verb, ids: &[InstanceId], regret: &str) {
        for ids in ids.chunks(MAX_IDS) {
            if let Err(error) = self.ec2.call(verb, ids, Mode::Live).await {
                warn!(instances = ids.len(), code = error.code, error = error.message, "{regret}");
            }
        }
    }

    /// Sorts by zone and instance type what met a shortage; a group that is of one place already waits.
    fn by_place(&mut self, group: Group, parts: &mut VecDeque<Group>) {
        let mut places: BTreeMap<(&str, &str), Vec<InstanceId>> = BTreeMap::new();
        for id in &group.ids {
            let instance = &self.known[id];
            places.entry((&instance.zone, &instance.instance_type)).or_default().push(*id);
        }
        if places.len() == 1 {
            self.set_aside.push(group);
        } else {
            parts.extend(places.into_values().map(|ids| group.part(ids)));
        }
    }
}
