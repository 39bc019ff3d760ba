//! Room for a start: what EC2 has in a zone, and what it grants an account.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::machine::Machine;
use crate::place::Place;

/// An availability zone with little or no room for an instance type. A start that wants more of it than there is left
/// is refused as a whole; one that is accepted takes what it wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortage {
    /// The availability zone.
    pub zone: String,
    /// The instance type; blank: all of them share the room, as they share a subnet's addresses.
    #[serde(default)]
    pub kind: String,
    /// How many more may be started.
    #[serde(default)]
    pub room: usize,
    /// Room that comes later: when, by the cloud's clock, and for how many.
    #[serde(default)]
    pub more: Vec<(DateTime<Utc>, usize)>,
    /// What EC2 says; none: its words for InsufficientInstanceCapacity.
    #[serde(default)]
    pub says: Option<Refusal>,
    /// How many starts it refuses; none: as long as it lasts.
    #[serde(default)]
    pub times: Option<u32>,
    /// When it ends, by the cloud's clock; none: never.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
}

impl Shortage {
    /// Describes a lack of room for this instance type in this availability zone; of every type, if that is blank.
    pub fn new(zone: &str, kind: &str) -> Self {
        Self { zone: zone.into(), kind: kind.into(), room: 0, more: Vec::new(), says: None, times: None, until: None }
    }

    /// Leaves room for so many.
    pub fn room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Makes room for so many more at this time of the cloud.
    pub fn more(mut self, at: DateTime<Utc>, room: usize) -> Self {
        self.more.push((at, room));
        self
    }

    /// Refuses with another code than InsufficientInstanceCapacity, as `InsufficientCapacityOnHost` or
    /// `InsufficientFreeAddressesInSubnet`, and another text and status.
    pub fn says(self, code: &str, message: &str, status: u16) -> Self {
        Self { says: Some(Refusal::new(code, message).with_status(status)), ..self }
    }

    /// Ends after so many starts.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Ends at this time of the cloud.
    pub fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Takes in the room that has come.
    fn refill(&mut self, now: DateTime<Utc>) {
        self.more.retain(|(at, room)| {
            let is_due = *at <= now;
            self.room += if is_due { *room } else { 0 };
            !is_due
        });
    }

    /// How many of these starts, by zone and type, it is about; none once it has ended.
    fn wanted(&self, starts: &[(String, String)], now: DateTime<Utc>) -> usize {
        if self.until.is_some_and(|until| until <= now) || self.times == Some(0) {
            return 0;
        }
        let is_about = |(zone, kind): &&(String, String)| *zone == self.zone && ["", kind].contains(&&*self.kind);
        starts.iter().filter(is_about).count()
    }

    /// EC2's words for RunInstances, which StartInstances uses too (cloud-custodian #5235); on dedicated hosts it
    /// says no more than "Insufficient capacity." (hammertime #29).
    fn refusal(&self) -> Refusal {
        let Self { zone, kind, says, .. } = self;
        if let Some(says) = says {
            return says.clone();
        }
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
    /// Refuses a start for which there is no room, or takes the room; what is on already needs none.
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
        let shortages = &mut self.settings.shortages;
        shortages.iter_mut().for_each(|shortage| shortage.refill(now));
        if let Some(short) = shortages.iter_mut().find(|shortage| shortage.wanted(&wanted, now) > shortage.room) {
            if let Some(times) = &mut short.times {
                *times -= 1;
            }
            return Err(short.refusal());
        }
        for shortage in shortages {
            shortage.room -= shortage.wanted(&wanted, now);
        }
        Ok(())
    }
}
