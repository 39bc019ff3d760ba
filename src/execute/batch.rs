//! Stopping and starting in batches, and isolating the bad one of a batch that EC2 refused.
//!
//! EC2 carries a batch out as a whole or, as documented, not at all. After a refusal nothing is taken for
//! granted all the same: whatever is left of the batch is asked for again, and EC2's answer counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tracing::{debug, warn};

use super::{Class, Execution, Outcome, Why, classify};
use crate::ec2::{Answer, Change, Error, MAX_IDS, Verb};
use crate::instance::{InstanceId, STOPPED_AT_TAG, State};
use crate::plan::{Reason, Skip};
use crate::request::{Action, Mode};

/// Instances in one StopInstances or StartInstances call.
///
/// Small enough that a bad one is found by halving in 14 calls (2 × log2 100), large enough that a thousand
/// instances are ten calls: StartInstances has a bucket of 5, refilled by 2 a second (EC2 developer guide,
/// "Request throttling").
const BATCH: usize = 100;
/// Pause before a call is repeated that was throttled or got no answer; doubled each time, after the SDK's own.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Refusals of single instances, none accepted, after which a batch may be refused as a whole.
const ENOUGH_REFUSED: usize = 2;

/// Instances to switch in one call.
pub(super) struct Group {
    ids: Vec<InstanceId>,
    verb: Verb,
    /// They carry this run's mark.
    marked: bool,
    /// They were in a call before: what EC2 finds already done may be our doing.
    asked_before: bool,
    /// A call was out and got no answer: what EC2 refuses now it may have done before.
    unanswered: bool,
}

impl Group {
    fn part(&self, ids: Vec<InstanceId>) -> Self {
        let Self { verb, marked, asked_before, unanswered, .. } = *self;
        Self { ids, verb, marked, asked_before, unanswered }
    }
}

/// A batch being taken apart.
struct Isolation {
    /// What is still to be asked for, next first.
    parts: VecDeque<Group>,
    /// EC2 accepted a part.
    accepted: bool,
    /// Instances that EC2 refused each by itself.
    refused_alone: usize,
}

/// What to do next, after an error.
enum Next {
    /// This batch is settled or split; go on.
    On,
    /// Later, after a pause.
    Again(Group),
    /// Nothing more can be done here.
    End,
}

impl Execution<'_> {
    /// Stops or starts instances, whichever the request says.
    pub(super) async fn switch(&mut self, ids: Vec<InstanceId>) {
        let groups = self.groups(ids);
        self.switch_groups(groups).await;
    }

    pub(super) async fn switch_groups(&mut self, groups: Vec<Group>) {
        let mut queue: VecDeque<Group> = groups.into();
        let mut pause = FIRST_PAUSE;
        while let Some(group) = queue.pop_front() {
            match self.batch(group).await {
                Next::On => pause = FIRST_PAUSE,
                Next::Again(group) => {
                    queue.push_back(group);
                    if self.ec2.deadline.pause(pause).await.is_err() {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Next::End => break,
            }
        }
        if !self.doubted.is_empty() {
            self.settle_doubts().await;
        }
    }

    /// Cuts a list into batches; Spot Instances and hibernation, which EC2 refuses for reasons of their own, apart.
    fn groups(&self, ids: Vec<InstanceId>) -> Vec<Group> {
        let mut kinds: BTreeMap<(bool, bool), Vec<InstanceId>> = BTreeMap::new();
        for id in ids {
            let instance = &self.known[&id];
            let hibernate = matches!(self.request.action, Action::Stop { hibernate: true }) && instance.hibernation;
            kinds.entry((instance.spot, hibernate)).or_default().push(id);
        }
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
                    marked: false,
                    asked_before: false,
                    unanswered: false,
                };
                ids.chunks(BATCH).map(group).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Takes one batch to its end: accepted, or isolated down to those that EC2 refuses.
    async fn batch(&mut self, batch: Group) -> Next {
        let mut isolation = Isolation { parts: VecDeque::from([batch]), accepted: false, refused_alone: 0 };
        let mut again: Option<Group> = None;
        while let Some(part) = isolation.parts.pop_front() {
            let Some(mut part) = self.without_limited(part).await else { continue };
            let error = match self.attempt(&mut part).await {
                Ok(answer) => {
                    isolation.accepted = true;
                    self.hopeless = false;
                    part.asked_before |= answer.repeated;
                    let unsaid = self.accept(&part, answer.changes);
                    if !unsaid.is_empty() {
                        merge(&mut again, Group { asked_before: true, unanswered: true, ..part.part(unsaid) });
                    }
                    continue;
                }
                Err(error) => error,
            };
            debug!(code = error.code, instances = part.ids.len(), message = error.message);
            // Whatever EC2 answered: what it finds done from now on may have been this call.
            part.asked_before = true;
            let class = classify(&error);
            part.unanswered |= error.repeated || class == Class::Unwell;
            match class {
                Class::TooLate => return Next::End,
                Class::Throttled | Class::Unwell => {
                    self.note(&part, &error);
                    merge(&mut again, part);
                }
                Class::Target => {
                    isolation.parts.push_front(part);
                    self.refuse_all(&mut isolation.parts, &error).await;
                }
                Class::Capacity => {
                    self.note(&part, &error);
                    self.by_place(part, &mut isolation.parts);
                }
                Class::Instance | Class::Limit | Class::OneOrAll => {
                    self.isolate(&mut isolation, part, class, &error).await;
                }
            }
        }
        again.map_or(Next::On, Next::Again)
    }

    /// Takes out of a refused part the ones that EC2 names, or halves it.
    async fn isolate(&mut self, isolation: &mut Isolation, part: Group, class: Class, error: &Error) {
        let named = InstanceId::all_in(&error.message);
        let (bad, rest): (Vec<_>, Vec<_>) = match part.ids.len() {
            1 => (part.ids.clone(), Vec::new()),
            _ => part.ids.iter().cloned().partition(|id| named.contains(id)),
        };
        if !bad.is_empty() {
            isolation.refused_alone += usize::from(part.ids.len() == 1);
            if class == Class::Limit {
                self.limited.extend(bad.iter().map(|id| (self.known[id].instance_type.clone(), error.clone())));
            }
            self.refuse(&part, &bad, error).await;
            if !rest.is_empty() {
                isolation.parts.push_front(part.part(rest));
            }
            if class == Class::OneOrAll && isolation.refused_alone == ENOUGH_REFUSED && !isolation.accepted {
                // Next the largest part left: if that is refused as well, all of them are.
                isolation.parts.rotate_right(isolation.parts.len().min(1));
            }
        } else if class == Class::OneOrAll
            && !isolation.accepted
            && (self.hopeless || isolation.refused_alone >= ENOUGH_REFUSED)
        {
            self.hopeless = true;
            isolation.parts.push_front(part);
            self.refuse_all(&mut isolation.parts, error).await;
        } else {
            let (left, right) = rest.split_at(rest.len() / 2);
            isolation.parts.push_front(part.part(right.to_vec()));
            isolation.parts.push_front(part.part(left.to_vec()));
        }
    }

    async fn refuse_all(&mut self, parts: &mut VecDeque<Group>, error: &Error) {
        for part in parts.drain(..) {
            self.refuse(&part, &part.ids, error).await;
        }
    }

    /// Refuses without a call what is of an instance type whose limit a single instance has met already.
    async fn without_limited(&mut self, mut part: Group) -> Option<Group> {
        for (kind, error) in self.limited.clone() {
            let (over, rest): (Vec<_>, Vec<_>) =
                part.ids.iter().cloned().partition(|id| self.known[id].instance_type == kind);
            self.refuse(&part, &over, &error).await;
            part.ids = rest;
        }
        (!part.ids.is_empty()).then_some(part)
    }

    /// Remembers what stands in the way of those that are to be asked for again.
    fn note(&mut self, part: &Group, error: &Error) {
        for id in &part.ids {
            self.last_error.insert(id.clone(), error.code.clone());
        }
    }

    /// Makes the call; before a stop that is to be remembered, the mark. No mark, no stop.
    async fn attempt(&self, group: &mut Group) -> Result<Answer, Error> {
        let mode = self.request.mode;
        let stops = matches!(self.request.action, Action::Stop { .. });
        if stops && self.request.remember && !group.marked {
            // Even where EC2 shows the mark: a describe that lags may show one that was taken back.
            self.ec2.call(Verb::Mark(self.as_of), &group.ids, mode).await.map_err(|error| Error {
                message: format!("it could not be marked with {STOPPED_AT_TAG}: {}", error.message),
                ..error
            })?;
            group.marked = true;
        }
        self.ec2.call(group.verb, &group.ids, mode).await
    }

    /// Books what EC2 answered; gives the instances of which it said nothing.
    fn accept(&mut self, group: &Group, changes: Vec<Change>) -> Vec<InstanceId> {
        if self.request.mode == Mode::DryRun {
            for id in &group.ids {
                let from = self.known[id].state.clone();
                self.settle(id.clone(), Outcome::WouldChange { from, to: self.goal() });
            }
            return Vec::new();
        }
        let answers: BTreeMap<InstanceId, Change> =
            changes.into_iter().map(|change| (change.id.clone(), change)).collect();
        let mut unanswered = Vec::new();
        for id in &group.ids {
            let Some(change) = answers.get(id) else {
                unanswered.push(id.clone());
                continue;
            };
            match (group.verb, &change.from, &change.to) {
                // Somebody was faster; unless it was an earlier call of ours.
                (Verb::Stop { .. }, State::Stopped, _) | (Verb::Start, State::Running, _) if !group.asked_before => {
                    self.settle(id.clone(), Outcome::Skipped(Skip::because(Reason::AlreadyDone)));
                }
                (Verb::Start, ..) => self.watch(id, Why::Started),
                (_, _, State::Stopping | State::Stopped) => {
                    let from = self.known[id].state.clone();
                    self.settle(id.clone(), Outcome::Changed { from, to: change.to.clone() });
                }
                // Said yes, and shows a state that is no stop: it has to be asked again.
                _ => unanswered.push(id.clone()),
            }
        }
        unanswered
    }

    /// Books what EC2 refused, and takes the mark back: what was not stopped must not look as if it had been.
    async fn refuse(&mut self, group: &Group, ids: &[InstanceId], error: &Error) {
        for id in ids {
            let spot = self.known[id].spot;
            let skip = match (error.code.as_str(), group.verb) {
                ("UnsupportedOperation", Verb::Stop { .. }) if spot => Some(Reason::SpotOneTime),
                ("OperationNotPermitted", Verb::Stop { .. }) if error.message.contains("disableApiStop") => {
                    Some(Reason::StopProtected)
                }
                _ => None,
            };
            let outcome =
                skip.map_or_else(|| Outcome::refused(error), |reason| Outcome::Skipped(Skip::because(reason)));
            self.settle(id.clone(), outcome);
        }
        if self.request.mode == Mode::DryRun || ids.is_empty() {
            return;
        }
        if group.unanswered {
            self.doubted.extend(ids.iter().map(|id| (id.clone(), group.marked)));
        } else if group.marked {
            self.unmark(ids).await;
        }
    }

    /// Looks at those that EC2 refused after a call of ours had got no answer: it may have been carried out.
    async fn settle_doubts(&mut self) {
        let doubted = std::mem::take(&mut self.doubted);
        let ids: Vec<InstanceId> = doubted.keys().cloned().collect();
        let mut shown: BTreeMap<InstanceId, State> =
            self.show(&ids).await.into_iter().map(|instance| (instance.id, instance.state)).collect();
        let mut still_marked = Vec::new();
        for (id, marked) in doubted {
            let from = self.known[&id].state.clone();
            match (self.request.action, shown.remove(&id)) {
                (Action::Stop { .. }, Some(to @ (State::Stopping | State::Stopped))) => {
                    self.settle(id, Outcome::Changed { from, to });
                }
                (Action::Start, Some(State::Pending | State::Running)) => {
                    self.outcomes.remove(&id);
                    self.watch(&id, Why::Started);
                }
                (_, Some(_)) if marked => still_marked.push(id),
                (_, Some(_)) => {}
                // Not even this was answered: what became of it is unknown.
                (_, None) => {
                    self.outcomes.remove(&id);
                }
            }
        }
        self.unmark(&still_marked).await;
    }

    /// Deletes the mark, as well as it can be done.
    pub(super) async fn unmark(&self, ids: &[InstanceId]) {
        for ids in ids.chunks(MAX_IDS) {
            if let Err(error) = self.ec2.call(Verb::Unmark, ids, Mode::Live).await {
                warn!(
                    instances = ids.len(),
                    code = error.code,
                    error = error.message,
                    "could not delete the mark; it is void at the next start"
                );
            }
        }
    }

    /// Marks anew, as of now, what was to run and does not.
    pub(super) async fn mark_again(&self, ids: &[InstanceId]) {
        for ids in ids.chunks(MAX_IDS) {
            if let Err(error) = self.ec2.call(Verb::Mark(chrono::Utc::now()), ids, Mode::Live).await {
                warn!(
                    instances = ids.len(),
                    code = error.code,
                    error = error.message,
                    "could not mark anew what did not start; a later start may call it not_marked"
                );
            }
        }
    }

    /// Sorts by zone and instance type what met a shortage; a group that is of one place already waits.
    fn by_place(&mut self, group: Group, parts: &mut VecDeque<Group>) {
        let mut places: BTreeMap<(&str, &str), Vec<InstanceId>> = BTreeMap::new();
        for id in &group.ids {
            let instance = &self.known[id];
            places.entry((&instance.zone, &instance.instance_type)).or_default().push(id.clone());
        }
        if places.len() == 1 {
            self.set_aside.push(group);
        } else {
            parts.extend(places.into_values().map(|ids| group.part(ids)));
        }
    }
}

/// Adds to what is to be repeated; the parts of one batch become one call again.
fn merge(again: &mut Option<Group>, group: Group) {
    match again {
        Some(first) => {
            first.marked &= group.marked;
            first.asked_before |= group.asked_before;
            first.unanswered |= group.unanswered;
            first.ids.extend(group.ids);
        }
        None => *again = Some(group),
    }
}
