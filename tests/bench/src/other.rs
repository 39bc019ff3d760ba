//! Another client of the account: it calls EC2 steadily, so that of every bucket a fifth of what comes in is its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ec2_sim::{Machine, Sim};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cloud::{Buckets, Way};

/// The part of the refill that it takes.
pub(crate) const SHARE: f64 = 0.2;
/// How soon it asks again after a refusal.
const AGAIN: Duration = Duration::from_millis(20);

/// The other client, with instances of its own.
pub(crate) struct Other {
    ids: Vec<String>,
    call: String,
    url: String,
    every: Duration,
    accepted: AtomicU64,
}

impl Other {
    /// Adds its instances, which what it asks for does not change.
    pub(crate) fn join(sim: &Sim, way: Way, buckets: Buckets, faster: f64) -> Self {
        let (action, state) = match way {
            Way::Stop => ("StopInstances", "stopped"),
            Way::Start => ("StartInstances", "running"),
        };
        // Calls as its share allows, and in each as many instances as make that share of their bucket.
        let count = (buckets.instances.1 / buckets.calls.1).round() as usize;
        let ids = sim.add_many(count, |number| Machine::named(&format!("other-{number}")).state(state));
        let mut call = format!("Action={action}&Version=2016-11-15");
        for (n, id) in (1..).zip(&ids) {
            call.push_str(&format!("&InstanceId.{n}={id}"));
        }
        let every = Duration::from_secs_f64(1.0 / (buckets.calls.1 * SHARE * faster));
        Self { ids, call, url: sim.url(), every, accepted: AtomicU64::new(0) }
    }

    /// Calls until it is dropped. What EC2 refuses is asked for again until it is granted, and what it missed in the
    /// meantime is made up for.
    pub(crate) async fn run(&self) -> Result<(), reqwest::Error> {
        let client = reqwest::Client::new();
        let begun = Instant::now();
        for turn in 1.. {
            sleep_until(begun + self.every * turn).await;
            while !client.post(&self.url).body(self.call.clone()).send().await?.status().is_success() {
                sleep(AGAIN).await;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many instances its accepted calls named.
    pub(crate) fn instances(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed) * self.ids.len() as u64
    }

    /// Tells whether a call was its own, by what it names.
    pub(crate) fn made(&self, ids: &[String]) -> bool {
        self.ids == ids
    }
}
