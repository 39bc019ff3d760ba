//! A whole cloud as one JSON document: machines, faults, settings.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::capacity::Shortage;
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
    /// The first page carries a token even if it shows everything, and with that token come only empty pages with the
    /// same token, for ever.
    pub token_stuck: bool,
    /// DescribeInstances leaves out all tags unless a filter names one, `tag:…` or `tag-key`. It is not proved that EC2
    /// does so, but Cloud Custodian works around it (cloud-custodian #252, #10909).
    pub tags_omitted: bool,
    /// A dry run is carried out like any other call, as MiniStack 1.5.33 does.
    pub ignores_dry_run: bool,
    /// How long an instance is `pending`; `start_takes_ms` in JSON.
    #[serde(rename = "start_takes_ms", deserialize_with = "millis")]
    pub start_takes: Duration,
    /// How long an instance is `stopping`; `stop_takes_ms` in JSON.
    #[serde(rename = "stop_takes_ms", deserialize_with = "millis")]
    pub stop_takes: Duration,
    /// How long EC2 refuses to start a Spot Instance after it has stopped, `IncorrectSpotRequestState`: its request
    /// lags behind (terraform-provider-aws #33399); `spot_lag_ms` in JSON.
    #[serde(rename = "spot_lag_ms", deserialize_with = "millis")]
    pub spot_lag: Duration,
    /// How long EC2 refuses to stop what has just arrived at `running`, as if it never had (cloud-custodian #6014);
    /// `running_lag_ms` in JSON.
    #[serde(rename = "running_lag_ms", deserialize_with = "millis")]
    pub running_lag: Duration,
    /// How long what has just arrived at `running` isn't ready to hibernate: its agent needs a minute or two, says
    /// the user guide's "Troubleshoot Amazon EC2 instance hibernation"; `hibernation_lag_ms` in JSON.
    #[serde(rename = "hibernation_lag_ms", deserialize_with = "millis")]
    pub hibernation_lag: Duration,
    /// The regions enabled for every account.
    pub regions: Vec<String>,
    /// A stop refused because of some of its machines — stop protection, or a [`Fault`] about machines — is carried
    /// out all the same in the availability zones where none of these is, as EC2 documents for protected instances.
    pub partial_success: bool,
    /// EC2's token buckets are in force: past them, 503 `RequestLimitExceeded`.
    pub throttle: bool,
    /// Times what EC2 documents: how much a token bucket holds, never less than one token.
    pub throttle_size: f64,
    /// Times what EC2 documents: how fast, by the cloud's clock, a token bucket fills.
    pub throttle_refill: f64,
    /// How old what DescribeInstances shows is, of changes made from now on; `describe_lag_ms` in JSON.
    #[serde(rename = "describe_lag_ms", deserialize_with = "millis")]
    pub describe_lag: Duration,
    /// How long EC2 denies that there is a machine added from now on; `not_found_for_ms` in JSON, where the fleet's
    /// own machines are known at once.
    #[serde(rename = "not_found_for_ms", deserialize_with = "millis")]
    pub not_found_for: Duration,
    /// The tag, as key and value, that the caller's policy wants a machine to have before it is started, stopped or
    /// tagged.
    pub only_tagged: Option<(String, String)>,
    /// That policy's refusal names the first machine without the tag; else it names nothing.
    pub only_tagged_names: bool,
    /// The caller's policy lets it delete only snapshots that carry `curfew:delete-after` and no `curfew:exempt`.
    pub guards_snapshots: bool,
    /// Where EC2 has no room for stopped machines.
    pub shortages: Vec<Shortage>,
    /// How many machines in an account's region may be on, each counted as one vCPU.
    pub vcpu_limit: Option<usize>,
    /// The accounts whose roles nobody may assume; those of all others everybody may.
    pub denied_accounts: Vec<String>,
    /// The accounts whose roles are assumed only by who names no source identity.
    pub anonymous_accounts: Vec<String>,
    /// How long every call takes at least, in real time; `latency_ms` in JSON.
    #[serde(rename = "latency_ms", deserialize_with = "millis")]
    pub latency: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            page_size: 1000,
            empty_pages: 0,
            token_stuck: false,
            tags_omitted: false,
            ignores_dry_run: false,
            // Long enough to be seen by whoever polls, short enough for a test.
            start_takes: Duration::from_millis(150),
            stop_takes: Duration::from_millis(150),
            spot_lag: Duration::ZERO,
            running_lag: Duration::ZERO,
            hibernation_lag: Duration::ZERO,
            regions: ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"].map(String::from).into(),
            partial_success: false,
            throttle: false,
            throttle_size: 1.0,
            throttle_refill: 1.0,
            describe_lag: Duration::ZERO,
            not_found_for: Duration::ZERO,
            only_tagged: None,
            only_tagged_names: false,
            guards_snapshots: false,
            shortages: Vec::new(),
            vcpu_limit: None,
            denied_accounts: Vec::new(),
            anonymous_accounts: Vec::new(),
            latency: Duration::ZERO,
        }
    }
}

fn millis<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}
