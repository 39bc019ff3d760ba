//! Capacity for starts: what EC2 has in a zone, and what it allows an account.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::machine::Machine;
use crate::place::Place;

/// An availability zone with little or no capacity for an instance type. A start that needs more than is left is
/// refused as a whole; one that is accepted takes what it needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortage {
    /// The availability zone.
    pub zone: String,
    /// The instance type; blank: all types share the capacity, as they share a subnet's addresses.
    #[serde(default)]
    pub kind: String,
    /// How many more may be started.
    #[serde(default)]
    pub room: usize,
    /// Capacity that comes later: when, by the cloud's clock, and for how many.
    #[serde(default)]
    pub more: Vec<(DateTime<Utc>, usize)>,
    /// EC2's error; none: InsufficientInstanceCapacity.
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
    /// Builds a zone without capacity for this instance type, or for all types together if it is blank.
    pub fn new(zone: &str, kind: &str) -> Self {
        Self { zone: zone.into(), kind: kind.into(), room: 0, more: Vec::new(), says: None, times: None, until: None }
    }

    /// Leaves capacity for this many.
    pub fn room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Adds capacity for this many at this time of the cloud's clock.
    pub fn more(mut self, at: DateTime<Utc>, room: usize) -> Self {
        self.more.push((at, room));
        self
    }

    /// Refuses with another error than InsufficientInstanceCapacity, such as `InsufficientCapacityOnHost` or
    /// `InsufficientFreeAddressesInSubnet`.
    pub fn says(self, code: &str, message: &str, status: u16) -> Self {
        Self { says: Some(Refusal::new(code, message).with_status(status)), ..self }
    }

    /// Makes it end after refusing this many starts.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Makes it end at this time of the cloud's clock.
    pub fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Adds the capacity whose time has come.
    fn refill(&mut self, now: DateTime<Utc>) {
        self.more.retain(|(at, room)| {
            let is_due = *at <= now;
            self.room += if is_due { *room } else { 0 };
            !is_due
        });
    }

    /// Counts those of these starts, given by zone and type, that it is about; 0 once it has ended.
    fn wanted(&self, starts: &[(String, String)], now: DateTime<Utc>) -> usize {
        if self.until.is_some_and(|until| until <= now) || self.times == Some(0) {
            return 0;
        }
        let is_about = |(zone, kind): &&(String, String)| *zone == self.zone && ["", kind].contains(&&*self.kind);
        starts.iter().filter(is_about).count()
    }

    /// Returns EC2's error. The message is that of RunInstances, which StartInstances uses, too (cloud-custodian
    /// #5235); on dedicated hosts it is only "Insufficient capacity." (hammertime #29).
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
    /// Refuses a start without enough capacity, or takes the capacity; instances that are on already need none.
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
