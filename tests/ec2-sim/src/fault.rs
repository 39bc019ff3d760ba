//! Bad days: what should go wrong, for which calls, how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that goes wrong with the calls it matches.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The API action; none: every action.
    #[serde(default)]
    pub action: Option<String>,
    /// None: every region.
    #[serde(default)]
    pub region: Option<String>,
    /// Names or ids of machines, one of which the call must name by its id; empty: any call.
    #[serde(default)]
    pub names: Vec<String>,
    /// What happens.
    pub then: Then,
    /// How often it happens; none: for ever.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many matching calls get through first.
    #[serde(default)]
    pub after: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Then {
    /// EC2 says no before anything changes; `{ids}` in the message becomes the ids concerned.
    Refuse(Refusal),
    /// EC2 begins to work only after this real time; other faults still apply to the call.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
    /// EC2 never answers and does nothing.
    Hang,
    /// EC2 does it; the connection is cut before the answer.
    LoseAnswer,
    /// The connection is cut; nothing is done.
    CutConnection,
    /// EC2 does it; half of the answer arrives, with status 200.
    Garble,
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
        if let Self::Refuse(refusal) = &mut then {
            refusal.message = refusal.message.replace("{ids}", &ids.join(", "));
        }
        then
    }
}

impl Fault {
    /// Makes EC2 say no, with status 400.
    pub fn refuse<'a>(action: impl Into<Option<&'a str>>, code: &str, message: &str) -> Self {
        Self::new(action, Then::Refuse(Refusal::new(code, message)))
    }

    /// Makes EC2 slow.
    pub fn stall<'a>(action: impl Into<Option<&'a str>>, time: Duration) -> Self {
        Self::new(action, Then::Stall { ms: time.as_millis().try_into().unwrap_or(u64::MAX) })
    }

    /// Makes EC2 silent.
    pub fn hang<'a>(action: impl Into<Option<&'a str>>) -> Self {
        Self::new(action, Then::Hang)
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

    /// Spares the calls that name none of these machines.
    pub fn on(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// Spares all other regions.
    pub fn region(self, region: &str) -> Self {
        Self { region: Some(region.into()), ..self }
    }

    /// Ends after so many calls.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Begins after so many calls.
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    /// Refuses with another HTTP status than 400, as throttling does with 503.
    pub fn status(mut self, status: u16) -> Self {
        if let Then::Refuse(refusal) = &mut self.then {
            refusal.status = status;
        }
        self
    }

    fn new<'a>(action: impl Into<Option<&'a str>>, then: Then) -> Self {
        let action = action.into().map(String::from);
        Self { action, region: None, names: Vec::new(), then, times: None, after: 0 }
    }

    pub(crate) fn covers(&self, action: &str, region: &str) -> bool {
        let covers = |wanted: &Option<String>, found| wanted.as_deref().is_none_or(|wanted| wanted == found);
        covers(&self.action, action) && covers(&self.region, region)
    }

    /// Counts a matching call, and tells whether it is struck.
    pub(crate) fn strikes(&mut self) -> bool {
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(times) => {
                *times -= 1;
                true
            }
        }
    }
}
