//! Following what is on its way: a start until it runs or falls back, a moving instance until it can be switched.
//!
//! "EC2 accepted the start" is not "it runs": without a grant on its volume's key, an instance goes from
//! pending back to stopped, and only its StateReason says so.

use tokio::time::Instant;
use tracing::debug;

use super::{Execution, Known, Outcome, Why, batch, failed_start};
use crate::ec2::{Error, MAX_IDS};
use crate::instance::{Instance, InstanceId, STOPPED_AT_TAG, State};
use crate::plan::{Decision, Reason, decide_again, is_remembered};

/// What a look told about an instance.
enum Seen {
    Moving,
    Runs,
    FellBack,
    Decided(Decision),
}

impl Execution<'_> {
    /// Asks EC2 once about everything watched, and acts on what has settled; gives what can be switched now.
    pub(super) async fn look(&mut self) -> Vec<batch::Group> {
        let seen = Instant::now();
        let (mut ready, mut running, mut fallen) = (Vec::new(), Vec::new(), Vec::new());
        let watched: Vec<InstanceId> = self.watched.keys().cloned().collect();
        for instance in self.show(&watched).await {
            let Some(why) = self.watched.get(&instance.id).map(|watched| watched.why) else { continue };
            let id = instance.id;
            let outcome = match self.judge(&instance) {
                Seen::Moving => continue,
                Seen::Runs => {
                    running.push(instance.clone());
                    match why {
                        Why::Followed => Some(Outcome::skipped(Reason::AlreadyDone)),
                        Why::Started | Why::ToSwitch => {
                            Some(Outcome::Changed { from: self.known[&id].state.clone(), to: State::Running })
                        }
                    }
                }
                Seen::FellBack => {
                    if self.wants_new_mark(why, &instance) {
                        fallen.push(id);
                    }
                    Some(failed_start(instance.state_reason.as_deref()))
                }
                Seen::Decided(Decision::Skip(skip)) => Some(Outcome::Skipped(skip)),
                Seen::Decided(Decision::Fail { code, message }) => {
                    Some(Outcome::Failed { code: code.to_owned(), message: message.into() })
                }
                Seen::Decided(Decision::Follow) => {
                    self.watch(&id, Why::Followed);
                    continue;
                }
                Seen::Decided(Decision::Switch | Decision::WaitThenSwitch) => {
                    ready.push(id);
                    None
                }
            };
            self.watched.remove(&id);
            match outcome {
                Some(outcome) => self.settle(id, outcome),
                None => {
                    self.known.insert(id, Known::Seen(instance.into()));
                }
            }
        }
        self.unmark(&marked(&running)).await;
        self.mark_again(&fallen).await;
        self.groups(ready, seen)
    }

    /// Tells whether a start that fell back is to be tried again by a later start with `remember`.
    ///
    /// Not what a person stopped on its way up, nor what somebody else had started.
    fn wants_new_mark(&self, why: Why, fallen: &Instance) -> bool {
        let failed = fallen.state_reason.as_ref().is_none_or(|reason| reason.is_failed_start());
        let was_ours = match why {
            Why::Started => is_remembered(self.request, &self.known[&fallen.id]),
            Why::Followed => self.request.remember && fallen.stopped_at().is_some(),
            Why::ToSwitch => false,
        };
        failed && was_ours && !fallen.state.is_gone()
    }

    /// Judges what EC2 shows of a watched instance, against what it showed before the call.
    fn judge(&mut self, seen: &Instance) -> Seen {
        let before = &self.known[&seen.id];
        let Some(watched) = self.watched.get_mut(&seen.id) else { return Seen::Moving };
        if watched.why == Why::ToSwitch {
            return match decide_again(self.request, seen, self.as_of) {
                Decision::WaitThenSwitch => Seen::Moving,
                decision => Seen::Decided(decision),
            };
        }
        match &seen.state {
            State::Running => Seen::Runs,
            State::Pending => {
                watched.seen_pending = true;
                Seen::Moving
            }
            // DescribeInstances lags: "stopped" may still be the state from before the start. It is news only
            // if something else about it is.
            State::Stopped | State::ShuttingDown | State::Terminated
                if watched.seen_pending
                    || seen.launch_time != before.launch_time
                    || seen.state_reason != before.state_reason
                    || seen.state.is_gone() =>
            {
                Seen::FellBack
            }
            State::Stopped | State::Stopping | State::ShuttingDown | State::Terminated | State::Unknown(_) => {
                Seen::Moving
            }
        }
    }

    /// Asks EC2 for instances; one it doesn't know at the moment is missing from the answer.
    pub(super) async fn show(&self, ids: &[InstanceId]) -> Vec<Instance> {
        let mut shown = Vec::new();
        for ids in ids.chunks(MAX_IDS) {
            match self.show_some(ids).await {
                Ok(instances) => shown.extend(instances),
                // The next look asks again.
                Err(error) => debug!(code = error.code, error = error.message, "a look got no answer"),
            }
        }
        shown
    }

    /// The same for as many as one call takes; an error means that nothing is known of them.
    pub(super) async fn show_some(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, Error> {
        match self.ec2.by_id(ids).await {
            Err(error) => match without_named(ids, &error) {
                Some(rest) => self.ec2.by_id(&rest).await,
                None => Err(error),
            },
            answer => answer,
        }
    }
}

/// Leaves out the ids for which EC2 refused the whole look.
fn without_named(ids: &[InstanceId], error: &Error) -> Option<Vec<InstanceId>> {
    let named = InstanceId::all_in(&error.message);
    let rest: Vec<InstanceId> = ids.iter().filter(|id| !named.contains(id)).cloned().collect();
    (rest.len() < ids.len()).then_some(rest)
}

fn marked(instances: &[Instance]) -> Vec<InstanceId> {
    instances.iter().filter(|instance| instance.tags.contains_key(STOPPED_AT_TAG)).map(|instance| instance.id).collect()
}
