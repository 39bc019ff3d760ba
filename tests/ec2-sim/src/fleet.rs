//! A whole cloud as one JSON document: machines, faults, settings.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::capacity::Shortage;
use crate::fault::Fault;
use crate::machine::Machine;

/// Everything that a cloud can start with; in JSON for example `{"machines": [{"name": "web", "count": 3}]}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// In JSON an entry may have `name`, short for the tag `Name`, and `count` for copies called `name-1`, `name-2` …
    pub machines: Vec<Machine>,
    /// The faults from the start.
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
    /// How many empty pages, each with a token, come before every page with machines.
    pub empty_pages: usize,
    /// The first page has a token even if it shows everything, and all further pages are empty and have the same token,
    /// for ever.
    pub token_stuck: bool,
    /// DescribeInstances leaves out all tags unless a filter names one, `tag:…` or `tag-key`. It isn't certain that EC2
    /// ever does so, but Cloud Custodian works around it (cloud-custodian #252, #10909).
    pub tags_omitted: bool,
    /// A dry run is carried out like any other call, as MiniStack 1.5.33 does.
    pub ignores_dry_run: bool,
    /// How long an instance is `pending`; `start_takes_ms` in JSON.
    #[serde(rename = "start_takes_ms", deserialize_with = "millis")]
    pub start_takes: Duration,
    /// How long an instance is `stopping`; `stop_takes_ms` in JSON.
    #[serde(rename = "stop_takes_ms", deserialize_with = "millis")]
    pub stop_takes: Duration,
    /// How long EC2 refuses to start a Spot Instance after it has stopped, with `IncorrectSpotRequestState`, because
    /// its request lags behind (terraform-provider-aws #33399); `spot_lag_ms` in JSON.
    #[serde(rename = "spot_lag_ms", deserialize_with = "millis")]
    pub spot_lag: Duration,
    /// How long EC2 refuses to stop an instance after it became `running`, as if it weren't yet (cloud-custodian
    /// #6014); `running_lag_ms` in JSON.
    #[serde(rename = "running_lag_ms", deserialize_with = "millis")]
    pub running_lag: Duration,
    /// How long an instance isn't ready to hibernate after it became `running`: its agent needs a minute or two (EC2
    /// user guide, "Troubleshoot Amazon EC2 instance hibernation"); `hibernation_lag_ms` in JSON.
    #[serde(rename = "hibernation_lag_ms", deserialize_with = "millis")]
    pub hibernation_lag: Duration,
    /// The regions enabled for every account.
    pub regions: Vec<String>,
    /// A stop that is refused because of some of its machines — by stop protection, or a [`Fault`] about machines — is
    /// carried out in the availability zones without any of these, as EC2 documents for protected instances.
    pub partial_success: bool,
    /// Calls are throttled by EC2's token buckets, with 503 `RequestLimitExceeded`.
    pub throttle: bool,
    /// The size of the token buckets, as a multiple of what EC2 documents; at least one token.
    pub throttle_size: f64,
    /// How fast the token buckets fill by the cloud's clock, as a multiple of what EC2 documents.
    pub throttle_refill: f64,
    /// How far DescribeInstances lags behind changes made from now on; `describe_lag_ms` in JSON.
    #[serde(rename = "describe_lag_ms", deserialize_with = "millis")]
    pub describe_lag: Duration,
    /// How long EC2 doesn't know machines added from now on; `not_found_for_ms` in JSON. The fleet's own machines are
    /// known at once.
    #[serde(rename = "not_found_for_ms", deserialize_with = "millis")]
    pub not_found_for: Duration,
    /// The tag, as key and value, that the caller's policy requires of what is started, stopped, tagged or deleted.
    pub only_tagged: Option<(String, String)>,
    /// That policy's refusal names the first machine without the tag; otherwise it names none.
    pub only_tagged_names: bool,
    /// The caller's policy lets it delete only snapshots with `curfew:delete-after` and without `curfew:exempt`.
    pub guards_snapshots: bool,
    /// Where EC2 lacks capacity for starts.
    pub shortages: Vec<Shortage>,
    /// How many machines in a region of an account may be on, each counted as one vCPU.
    pub vcpu_limit: Option<usize>,
    /// The accounts whose roles nobody may assume; roles of other accounts may be assumed by everybody.
    pub denied_accounts: Vec<String>,
    /// The accounts whose roles may only be assumed without a source identity.
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
            // Long enough to be seen by polling, short enough for a test.
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
