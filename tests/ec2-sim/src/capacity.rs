//! Room for a start: what EC2 has in a zone, and what it grants an account.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::machine::Machine;
use crate::place::Place;

/// An availability zone without room for an instance type.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortage {
    /// The availability zone.
    pub zone: String,
    /// The instance type.
    pub kind: String,
    /// How many starts it refuses; none: as long as it lasts.
    #[serde(default)]
    pub times: Option<u32>,
    /// When it ends, by the cloud's clock; none: never.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
}

impl Shortage {
    /// Describes a lack of room for this instance type in this availability zone.
    pub fn new(zone: &str, kind: &str) -> Self {
        Self { zone: zone.into(), kind: kind.into(), times: None, until: None }
    }

    /// Ends after so many starts.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Ends at this time of the cloud.
    pub fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(until), ..self }
    }

    /// EC2's words for RunInstances, which StartInstances uses too (cloud-custodian #5235); on dedicated hosts it
    /// says no more than "Insufficient capacity." (hammertime #29).
    fn refusal(&self) -> Refusal {
        let Self { zone, kind, .. } = self;
        let region = zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
        let other = if zone.ends_with('b') { 'a' } else { 'b' };
        let message = format!(
            "We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). Our \
             system will be working on provisioning additional capacity. You can currently get {kind} capacity by not \
             specifying an Availability Zone in your request or choosing {region}{other}."
        );
        Refusal::new("InsufficientInstanceCapacity", message).with_status(500)
    }
}

impl Cloud {
    /// Refuses a start for which there is no room; what is on already needs none.
    pub(crate) fn check_room(&mut self, place: &Place, ids: &[String]) -> Result<(), Refusal> {
        let stopped = self.named(ids).filter(|machine| machine.state == "stopped");
        let wanted: Vec<_> = stopped.map(|machine| (machine.zone.clone(), machine.kind.clone())).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        if let Some(limit) = self.settings.vcpu_limit {
            let is_on = |machine: &&Machine| matches!(machine.state.as_str(), "pending" | "running");
            if self.machines_in(place).filter(is_on).count() + wanted.len() > limit {
                let message = format!(
                    "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the \
                     instance bucket that the specified instance type belongs to. Please visit \
                     http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
                );
                return Err(Refusal::new("VcpuLimitExceeded", message));
            }
        }
        let now = self.clock.now();
        let short = |shortage: &&mut Shortage| {
            let lasts = shortage.until.is_none_or(|until| now < until) && shortage.times != Some(0);
            lasts && wanted.iter().any(|(zone, kind)| *zone == shortage.zone && *kind == shortage.kind)
        };
        let Some(shortage) = self.settings.shortages.iter_mut().find(short) else {
            return Ok(());
        };
        if let Some(times) = &mut shortage.times {
            *times -= 1;
        }
        Err(shortage.refusal())
    }
}
