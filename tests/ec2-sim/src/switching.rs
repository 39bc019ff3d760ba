//! What a start and a stop do to one machine, and when EC2 refuses them. Knows nothing about calls or clocks.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::fault::Refusal;
use crate::fleet::Settings;
use crate::machine::{Machine, Settling, Spot, StateReason, whole_second};

// EC2's wording. Messages without `{id}` follow "The instance 'i-…'".
const NOT_STARTABLE: &str = "is not in a state from which it can be started.";
const NOT_STOPPABLE: &str = "is not in a state from which it can be stopped.";
/// Quoted in aws-solutions/instance-scheduler-on-aws #510.
const NOT_HIBERNATABLE: &str =
    "The instance can't be hibernated because it was not configured at launch for hibernation: {id}";
/// Quoted in the source of Drone's runner for AWS, among others; it names no instance.
const NOT_READY_TO_HIBERNATE: &str = "Instance is not ready to hibernate yet, retry in a few minutes";
/// Quoted in cloud-custodian #6014 and flatcar/mantle #315.
const NEVER_RAN: &str = "Instance '{id}' cannot be stopped as it has never reached the 'running' state.";
/// The code and its cause are from terraform-provider-aws #33399; the wording is ours.
const REQUEST_ACTIVE: &str = "The Spot Instance request of instance '{id}' is not in a state from which the instance \
    can be started.";
const NOT_EBS: &str = "does not have an 'ebs' root device type and cannot be stopped";
const PROTECTED: &str = "may not be stopped. Modify its 'disableApiStop' instance attribute and try again.";
const ONE_TIME: &str = "You can't stop the Spot Instance '{id}' because it is associated with a \
    one-time Spot Instance request. You can only stop Spot Instances associated with persistent \
    Spot Instance requests.";

/// What has arrived in its state after these moments is refused as if it hadn't arrived yet.
pub(crate) struct Lags {
    spot: DateTime<Utc>,
    running: DateTime<Utc>,
    hibernation: DateTime<Utc>,
}

impl Lags {
    pub(crate) fn at(now: DateTime<Utc>, settings: &Settings) -> Self {
        Self {
            spot: now - settings.spot_lag,
            running: now - settings.running_lag,
            hibernation: now - settings.hibernation_lag,
        }
    }
}

impl Machine {
    /// Returns when the current transition ends, if there is one.
    pub(crate) fn settles_at(&self) -> Option<DateTime<Utc>> {
        self.settling.as_ref().map(|settling| settling.at)
    }

    /// Finishes the current transition, if its time has come.
    pub(crate) fn settle(&mut self, now: DateTime<Utc>) {
        let settled = self.settling.take_if(|settling| settling.at <= now);
        // A test may have set another state meanwhile, which then stays.
        let moving = matches!(self.state.as_str(), "pending" | "stopping");
        if let Some(settled) = settled.filter(|_| moving) {
            self.state = settled.state.into();
            self.state_reason = settled.reason.or(self.state_reason.take());
            self.arrived = settled.at;
        }
    }

    /// Checks whether EC2 would accept a start.
    pub(crate) fn may_start(&self, lags: &Lags) -> Result<(), Refusal> {
        match self.state.as_str() {
            "stopped" if self.spot.is_some() && self.arrived > lags.spot => {
                self.refuse_in_full("IncorrectSpotRequestState", REQUEST_ACTIVE)
            }
            "pending" | "running" | "stopped" => Ok(()),
            _ => self.refuse("IncorrectInstanceState", NOT_STARTABLE),
        }
    }

    /// Checks whether EC2 would accept a stop; for an instance that is off already it always does.
    pub(crate) fn may_stop(&self, hibernate: bool, lags: &Lags) -> Result<(), Refusal> {
        match self.state.as_str() {
            "stopping" | "stopped" => Ok(()),
            "running" if self.arrived > lags.running => self.refuse_in_full("IncorrectInstanceState", NEVER_RAN),
            "running" if self.stop_protected => self.refuse("OperationNotPermitted", PROTECTED),
            "running" if self.instance_store => self.refuse("UnsupportedOperation", NOT_EBS),
            "running" if self.spot == Some(Spot::OneTime) => self.refuse_in_full("UnsupportedOperation", ONE_TIME),
            "running" if hibernate && (!self.hibernation || self.never_hibernates) => {
                self.refuse_in_full("UnsupportedHibernationConfiguration", NOT_HIBERNATABLE)
            }
            "running" if hibernate && self.arrived > lags.hibernation => {
                self.refuse_in_full("UnsupportedOperation", NOT_READY_TO_HIBERNATE)
            }
            "running" => Ok(()),
            _ => self.refuse("IncorrectInstanceState", NOT_STOPPABLE),
        }
    }

    /// Starts it if it is stopped.
    pub(crate) fn start(&mut self, now: DateTime<Utc>, takes: Duration) {
        if self.state != "stopped" {
            return;
        }
        self.state = "pending".into();
        self.state_reason = None;
        self.transition_reason.clear();
        if !self.resume_keeps_launch_time {
            self.launch_time = whole_second(now);
        }
        let reason = self.falls_back.clone().filter(|_| self.falls_back_times != Some(0));
        if let (Some(_), Some(times)) = (&reason, &mut self.falls_back_times) {
            *times -= 1;
        }
        let state = if reason.is_some() { "stopped" } else { "running" };
        self.settling = Some(Settling { at: now + takes, state, reason });
    }

    /// Stops it if it is running.
    pub(crate) fn stop(&mut self, now: DateTime<Utc>, takes: Duration, hibernate: bool) {
        if self.state != "running" {
            return;
        }
        let (code, what) = match hibernate {
            true => ("Client.UserInitiatedHibernate", "User initiated hibernate"),
            false => ("Client.UserInitiatedShutdown", "User initiated shutdown"),
        };
        self.state = "stopping".into();
        self.state_reason = Some(StateReason::new(code, format!("{code}: {what}")));
        self.transition_reason = now.format("User initiated (%Y-%m-%d %H:%M:%S GMT)").to_string();
        self.settling = Some(Settling { at: now + takes, state: "stopped", reason: None });
    }

    /// Switches it as a person at the console would, at once, whatever transition it was in.
    pub(crate) fn switch_by_hand(&mut self, on: bool, now: DateTime<Utc>) {
        let was_on = matches!(self.state.as_str(), "pending" | "running");
        self.settling = None;
        self.state = if was_on { "running" } else { "stopped" }.into();
        if on {
            self.start(now, Duration::ZERO);
        } else {
            self.stop(now, Duration::ZERO, false);
        }
        self.settle(now);
    }

    fn refuse(&self, code: &str, why: &str) -> Result<(), Refusal> {
        self.refuse_in_full(code, &format!("The instance '{}' {why}", self.id))
    }

    fn refuse_in_full(&self, code: &str, words: &str) -> Result<(), Refusal> {
        Err(Refusal::new(code, words.replace("{id}", &self.id)))
    }
}
