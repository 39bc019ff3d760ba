//! A whole cloud as one JSON document: machines, faults, settings.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::fault::Fault;
use crate::machine::Machine;

/// Everything that a cloud can start out with; its shortest form is `{"machines": [{"name": "web", "count": 3}]}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// In JSON an entry may carry `name`, short for that tag, and `count` for copies called `name-1` and on.
    pub machines: Vec<Machine>,
    /// What goes wrong from the start.
    pub faults: Vec<Fault>,
    /// How the cloud behaves.
    pub settings: Settings,
}

/// How the cloud behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The most machines on a page, whatever MaxResults asks for.
    pub page_size: usize,
    /// How many pages with a token and nothing else come before every page with machines.
    pub empty_pages: usize,
    /// How long an instance is `pending`; `start_takes_ms` in JSON.
    #[serde(rename = "start_takes_ms", deserialize_with = "millis")]
    pub start_takes: Duration,
    /// How long an instance is `stopping`; `stop_takes_ms` in JSON.
    #[serde(rename = "stop_takes_ms", deserialize_with = "millis")]
    pub stop_takes: Duration,
    /// The regions enabled for the account.
    pub regions: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            page_size: 1000,
            empty_pages: 0,
            // Long enough to be seen by whoever polls, short enough for a test.
            start_takes: Duration::from_millis(150),
            stop_takes: Duration::from_millis(150),
            regions: ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"].map(String::from).into(),
        }
    }
}

fn millis<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}
