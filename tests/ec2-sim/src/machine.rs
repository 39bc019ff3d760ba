//! One simulated instance: what it is, and the words to describe it in a test or a fleet's JSON.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::place::{OWN_ACCOUNT, Place};

/// An instance; its blank fields are filled in when it joins a cloud.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// `i-` and 17 hex digits; blank: made up, in the order of joining.
    pub id: String,
    /// Twelve digits; blank: the function's own account, 123456789012.
    pub account: String,
    /// Blank: us-east-1.
    pub region: String,
    /// Blank: the region's zone a.
    pub zone: String,
    /// One of EC2's state names, or a made-up one; blank: running.
    pub state: String,
    /// The instance type; blank: t3.micro.
    pub kind: String,
    /// `default`, `dedicated` or `host`; blank: default.
    pub tenancy: String,
    /// Blank: one VPC for all.
    pub vpc: String,
    /// Blank: made up.
    pub private_ip: String,
    /// All tags, the name among them.
    pub tags: BTreeMap<String, String>,
    /// When it was last started; the Unix epoch stands for blank: three days ago.
    pub launch_time: DateTime<Utc>,
    /// Why it last changed its state, as a code and a text.
    pub state_reason: Option<StateReason>,
    /// EC2's older free text for the same, with the time in it.
    pub transition_reason: String,
    /// Whether, and on which kind of request, it is a Spot Instance.
    pub spot: Option<Spot>,
    /// Its root device is an instance store, which does not survive a stop: EC2 refuses one.
    pub instance_store: bool,
    /// Its attribute `disableApiStop` is set.
    pub stop_protected: bool,
    /// It was launched with hibernation configured.
    pub hibernation: bool,
    /// The principal of the AWS service that manages it.
    pub managed_by: Option<String>,
    /// It can't hibernate although it is configured for it: EC2 refuses as if it were not.
    pub never_hibernates: bool,
    /// Every start ends in `stopped`, for this reason.
    pub falls_back: Option<StateReason>,
    /// How many starts do; none: all of them.
    pub falls_back_times: Option<u32>,
    /// A start leaves the launch time alone; whether EC2 does so on a resume from hibernation is not documented.
    pub resume_keeps_launch_time: bool,
    /// DescribeInstances leaves out its tags unless a filter names one; see the setting of the same name.
    pub tags_omitted: bool,
    /// What DescribeInstances writes about it in place of the truth: the names of elements, each with a text, or with
    /// nothing where the element is left out. The truth is what filters match.
    pub shown: BTreeMap<String, Option<String>>,
    /// When its last transition ended.
    #[serde(skip)]
    pub(crate) arrived: DateTime<Utc>,
    #[serde(skip)]
    pub(crate) settling: Option<Settling>,
    /// Until then EC2 says that there is no such machine.
    #[serde(skip)]
    pub(crate) known_from: DateTime<Utc>,
    // A fleet's JSON only; see `copies`.
    #[serde(skip_serializing)]
    name: Option<String>,
    #[serde(skip_serializing)]
    count: Option<usize>,
}

/// EC2's StateReason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateReason {
    /// For example `Client.UserInitiatedShutdown`.
    pub code: String,
    /// The code and a sentence.
    pub message: String,
}

/// The kind of Spot request behind an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spot {
    /// EC2 refuses to stop these.
    OneTime,
    /// These can be stopped.
    Persistent,
}

/// A transition under way.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    pub(crate) at: DateTime<Utc>,
    pub(crate) state: &'static str,
    /// Replaces the state reason on arrival, where there is one.
    pub(crate) reason: Option<StateReason>,
}

impl Machine {
    /// Describes a running machine with this tag `Name`.
    pub fn named(name: &str) -> Self {
        Self::default().tag("Name", name)
    }

    /// Adds or replaces a tag.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Puts it into a state, known to EC2 or not.
    pub fn state(self, state: &str) -> Self {
        self.with(|machine| machine.state = state.into())
    }

    /// Places it in an account.
    pub fn account(self, account: &str) -> Self {
        self.with(|machine| machine.account = account.into())
    }

    /// Places it in a region.
    pub fn region(self, region: &str) -> Self {
        self.with(|machine| machine.region = region.into())
    }

    /// Places it in an availability zone.
    pub fn zone(self, zone: &str) -> Self {
        self.with(|machine| machine.zone = zone.into())
    }

    /// Sets the instance type.
    pub fn kind(self, kind: &str) -> Self {
        self.with(|machine| machine.kind = kind.into())
    }

    /// Places it in a VPC.
    pub fn vpc(self, vpc: &str) -> Self {
        self.with(|machine| machine.vpc = vpc.into())
    }

    /// Sets when it was last started, to the whole second as in EC2.
    pub fn launched(self, at: DateTime<Utc>) -> Self {
        self.with(|machine| machine.launch_time = at)
    }

    /// Makes it a Spot Instance that cannot be stopped.
    pub fn spot_one_time(self) -> Self {
        self.with(|machine| machine.spot = Some(Spot::OneTime))
    }

    /// Makes it a Spot Instance that can be stopped.
    pub fn spot_persistent(self) -> Self {
        self.with(|machine| machine.spot = Some(Spot::Persistent))
    }

    /// Gives it an instance-store root device.
    pub fn instance_store(self) -> Self {
        self.with(|machine| machine.instance_store = true)
    }

    /// Sets `disableApiStop`.
    pub fn stop_protected(self) -> Self {
        self.with(|machine| machine.stop_protected = true)
    }

    /// Configures hibernation.
    pub fn hibernation(self) -> Self {
        self.with(|machine| machine.hibernation = true)
    }

    /// Hands it to an AWS service.
    pub fn managed_by(self, principal: &str) -> Self {
        self.with(|machine| machine.managed_by = Some(principal.into()))
    }

    /// Makes EC2 refuse to hibernate it, configured or not.
    pub fn never_hibernates(self) -> Self {
        self.with(|machine| machine.never_hibernates = true)
    }

    /// Makes every start fall back to `stopped`, for this reason.
    pub fn falls_back(self, code: &str, message: &str) -> Self {
        self.with(|machine| machine.falls_back = Some(StateReason::new(code, message)))
    }

    /// Makes only so many starts fall back.
    pub fn falls_back_times(self, times: u32) -> Self {
        self.with(|machine| machine.falls_back_times = Some(times))
    }

    /// Makes DescribeInstances leave out its tags unless a filter names one.
    pub fn tags_omitted(self) -> Self {
        self.with(|machine| machine.tags_omitted = true)
    }

    /// Makes DescribeInstances write this as one of its elements, as `launchTime` or `instanceState`; none leaves the
    /// element out.
    pub fn shown<'a>(self, element: &str, text: impl Into<Option<&'a str>>) -> Self {
        let text = text.into().map(String::from);
        self.with(|machine| drop(machine.shown.insert(element.into(), text)))
    }

    /// Sets the tenancy.
    pub fn tenancy(self, tenancy: &str) -> Self {
        self.with(|machine| machine.tenancy = tenancy.into())
    }

    /// Makes a start leave the launch time alone.
    pub fn resume_keeps_launch_time(self) -> Self {
        self.with(|machine| machine.resume_keeps_launch_time = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The tag `Name`, or nothing.
    pub fn name(&self) -> &str {
        self.tags.get("Name").map_or("", String::as_str)
    }

    /// The account and region that it is in.
    pub(crate) fn place(&self) -> Place {
        Place { account: self.account.clone(), region: self.region.clone() }
    }

    pub(crate) fn is_in(&self, place: &Place) -> bool {
        self.region == place.region && self.account == place.account
    }

    /// Tells whether somebody who says `name` may mean this machine: its id or its name, behind nothing, `region/`,
    /// `account/` or `account/region/`.
    pub(crate) fn answers_to(&self, name: &str) -> bool {
        let bare = without(&self.region, without(&self.account, name));
        bare == self.id || bare == self.name()
    }

    /// Multiplies an entry of a fleet's JSON: `count` machines called `name-1` and on, or just the one.
    pub(crate) fn copies(mut self) -> Vec<Self> {
        if let Some(name) = self.name.take() {
            self.tags.insert("Name".into(), name);
        }
        let Some(count) = self.count.take() else {
            return vec![self];
        };
        let nth = |n| self.clone().tag("Name", &format!("{}-{n}", self.name()));
        (1..=count).map(nth).collect()
    }

    /// Fills in what is blank for the `number`th machine to join a cloud.
    pub(crate) fn join(&mut self, number: u32, now: DateTime<Utc>) {
        let fill = |field: &mut String, text: String| {
            if field.is_empty() {
                *field = text;
            }
        };
        fill(&mut self.id, format!("i-0ec2{number:013x}"));
        fill(&mut self.account, OWN_ACCOUNT.into());
        fill(&mut self.region, "us-east-1".into());
        fill(&mut self.zone, format!("{}a", self.region));
        fill(&mut self.state, "running".into());
        fill(&mut self.kind, "t3.micro".into());
        fill(&mut self.vpc, "vpc-0ec20001".into());
        let address = Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number);
        fill(&mut self.private_ip, address.to_string());
        if self.launch_time == DateTime::UNIX_EPOCH {
            self.launch_time = now - TimeDelta::days(3);
        }
        self.launch_time = whole_second(self.launch_time);
    }

    pub(crate) fn image(&self) -> &'static str {
        "ami-0ec2000000000000a"
    }

    pub(crate) fn subnet(&self) -> String {
        self.vpc.replacen("vpc-", "subnet-", 1)
    }

    pub(crate) fn root_device_type(&self) -> &'static str {
        match self.instance_store {
            true => "instance-store",
            false => "ebs",
        }
    }
}

impl StateReason {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Takes `first/` away from a name that begins so.
fn without<'a>(first: &str, name: &'a str) -> &'a str {
    match name.split_once('/') {
        Some((before, rest)) if before == first => rest,
        Some(_) | None => name,
    }
}

/// Cuts to EC2's resolution of LaunchTime.
pub(crate) fn whole_second(at: DateTime<Utc>) -> DateTime<Utc> {
    at - TimeDelta::nanoseconds(at.timestamp_subsec_nanos().into())
}

/// EC2's number for a state; a made-up state has none of EC2's.
pub(crate) fn state_code(state: &str) -> u16 {
    match state {
        "pending" => 0,
        "running" => 16,
        "shutting-down" => 32,
        "terminated" => 48,
        "stopping" => 64,
        "stopped" => 80,
        _ => 96,
    }
}
