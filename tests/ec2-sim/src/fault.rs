//! Bad days: what should go wrong, for which calls, how often.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::machine::Machine;
use crate::place::Place;

/// Something that goes wrong with the calls it matches: all of an action, an account and a region, or those of them
/// that name, by its id, a machine that has what `names`, `zone` and `kind` ask for together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The API action; none: every action.
    #[serde(default)]
    pub action: Option<String>,
    /// The account that a call is about, for AssumeRole the role's; none: every account.
    #[serde(default)]
    pub account: Option<String>,
    /// None: every region.
    #[serde(default)]
    pub region: Option<String>,
    /// Names or ids, of which the machine has one; empty: any.
    #[serde(default)]
    pub names: Vec<String>,
    /// The machine's availability zone; none: any.
    #[serde(default)]
    pub zone: Option<String>,
    /// The machine's instance type; none: any.
    #[serde(default)]
    pub kind: Option<String>,
    /// What happens.
    pub then: Then,
    /// How often it happens; none: for ever.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long it happens, in milliseconds of the cloud's clock from the first time on; none: for ever.
    #[serde(default)]
    pub lasts_ms: Option<u64>,
    /// When it ends, by the cloud's clock; none: never.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// How many matching calls get through first.
    #[serde(default)]
    pub after: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Then {
    /// EC2 says no before anything changes; `{ids}` in the message becomes the ids concerned, `{id}` the first of them.
    Refuse(Refusal),
    /// EC2 does it, and says no all the same: after a 5xx nobody can know what was done.
    RefuseAfter(Refusal),
    /// EC2 begins to work only after this real time; other faults still apply to the call.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
    /// EC2 never answers and does nothing.
    Hang,
    /// EC2 does it and never answers.
    HangAfter,
    /// EC2 does it; the connection is cut before the answer.
    LoseAnswer,
    /// The connection is cut; nothing is done.
    CutConnection,
    /// EC2 does it; half of the answer arrives, with status 200.
    Garble,
    /// EC2 does it; the status comes at once, the rest bit by bit.
    Trickle {
        /// Milliseconds until the last bit.
        ms: u64,
    },
    /// Exactly this is answered; nothing is done.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Text in JSON; any bytes in Rust.
        #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
        body: Vec<u8>,
    },
}

fn write_text<S: Serializer>(body: &[u8], json: S) -> Result<S::Ok, S::Error> {
    json.serialize_str(&String::from_utf8_lossy(body))
}

fn read_text<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(json).map(String::into_bytes)
}

/// EC2's no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// EC2's error code.
    pub code: String,
    /// EC2's text.
    pub message: String,
    /// The HTTP status; 400 where none is given.
    #[serde(default = "bad_request")]
    pub status: u16,
}

fn bad_request() -> u16 {
    400
}

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        let status = bad_request();
        Self { code: code.into(), message: message.into(), status }
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

impl Then {
    /// Writes the ids concerned into what it says.
    pub(crate) fn about(&self, ids: &[String]) -> Self {
        let mut then = self.clone();
        if let Self::Refuse(refusal) | Self::RefuseAfter(refusal) = &mut then {
            let first = ids.first().map_or("", String::as_str);
            refusal.message = refusal.message.replace("{ids}", &ids.join(", ")).replace("{id}", first);
        }
        then
    }
}

impl Fault {
    /// Makes EC2 say no, with status 400.
    pub fn refuse<'a>(action: impl Into<Option<&'a str>>, code: &str, message: &str) -> Self {
        Self::new(action, Then::Refuse(Refusal::new(code, message)))
    }

    /// Makes EC2 do it and say no, with status 400.
    pub fn refuse_after<'a>(action: impl Into<Option<&'a str>>, code: &str, message: &str) -> Self {
        Self::new(action, Then::RefuseAfter(Refusal::new(code, message)))
    }

    /// Makes EC2 slow.
    pub fn stall<'a>(action: impl Into<Option<&'a str>>, time: Duration) -> Self {
        Self::new(action, Then::Stall { ms: millis(time) })
    }

    /// Makes EC2 silent.
    pub fn hang<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::Hang)
    }

    /// Makes EC2 do it and fall silent: whoever waits can be killed after the act and before the answer.
    pub fn hang_after<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::HangAfter)
    }

    /// Makes EC2 do it without saying so.
    pub fn lose_answer<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::LoseAnswer)
    }

    /// Cuts the connection before anything is done.
    pub fn cut<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::CutConnection)
    }

    /// Makes EC2 do it and answer half of what it meant to.
    pub fn garble<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::Garble)
    }

    /// Makes EC2 do it and take this long to tell it, bit by bit.
    pub fn trickle<'a>(action: impl Into<Option<&'a str>>, time: Duration) -> Self {
        Self::new(action, Then::Trickle { ms: millis(time) })
    }

    /// Makes EC2 answer exactly this, and do nothing.
    pub fn answer<'a>(action: impl Into<Option<&'a str>>, status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(action, Then::Answer { status, body: body.into() })
    }

    /// Spares the calls that name none of these machines.
    pub fn on(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// Spares the calls that name no machine in this availability zone.
    pub fn in_zone(self, zone: &str) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Spares the calls that name no machine of this instance type.
    pub fn of_kind(self, kind: &str) -> Self {
        Self { kind: Some(kind.into()), ..self }
    }

    /// Spares all other accounts.
    pub fn account(self, account: &str) -> Self {
        Self { account: Some(account.into()), ..self }
    }

    /// Spares all other regions.
    pub fn region(self, region: &str) -> Self {
        Self { region: Some(region.into()), ..self }
    }

    /// Ends after so many calls.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Ends so long after the first call that it struck, by the cloud's clock.
    pub fn lasting(self, time: Duration) -> Self {
        Self { lasts_ms: Some(millis(time)), ..self }
    }

    /// Ends at this time of the cloud.
    pub fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Begins after so many calls.
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    /// Refuses with another HTTP status than 400, as throttling does with 503.
    pub fn status(mut self, status: u16) -> Self {
        if let Then::Refuse(refusal) | Then::RefuseAfter(refusal) = &mut self.then {
            refusal.status = status;
        }
        self
    }

    fn new<'a>(action: impl Into<Option<&'a str>>, then: Then) -> Self {
        let action = action.into().map(String::from);
        Self {
            action,
            account: None,
            region: None,
            names: Vec::new(),
            zone: None,
            kind: None,
            then,
            times: None,
            lasts_ms: None,
            until: None,
            after: 0,
        }
    }

    /// Tells whether it strikes calls whatever machines they name.
    pub(crate) fn is_general(&self) -> bool {
        self.names.is_empty() && self.zone.is_none() && self.kind.is_none()
    }

    /// Tells whether a machine that a call names by its id is among those that it is about.
    pub(crate) fn concerns(&self, id: &str, machine: Option<&Machine>) -> bool {
        let called = |name: &String| name == id || machine.is_some_and(|machine| machine.answers_to(name));
        let of = |wanted: &Option<String>, found: fn(&Machine) -> &String| {
            wanted.as_ref().is_none_or(|wanted| machine.is_some_and(|machine| found(machine) == wanted))
        };
        (self.names.is_empty() || self.names.iter().any(called))
            && of(&self.zone, |machine| &machine.zone)
            && of(&self.kind, |machine| &machine.kind)
    }

    pub(crate) fn covers(&self, action: &str, place: &Place) -> bool {
        let covers = |wanted: &Option<String>, found| wanted.as_deref().is_none_or(|wanted| wanted == found);
        covers(&self.action, action) && covers(&self.account, &place.account) && covers(&self.region, &place.region)
    }

    /// Counts a matching call, and tells whether it is struck.
    pub(crate) fn strikes(&mut self, now: DateTime<Utc>) -> bool {
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        if self.until.is_some_and(|until| until <= now) || self.times == Some(0) {
            return false;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        if let Some(lasts) = self.lasts_ms.take() {
            let ends = now + Duration::from_millis(lasts);
            self.until = Some(self.until.map_or(ends, |until| until.min(ends)));
        }
        true
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
