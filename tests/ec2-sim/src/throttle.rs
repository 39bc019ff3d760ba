//! EC2's token buckets, by account, region and action: one for calls, and for starts and stops another for instances.

use chrono::{DateTime, Utc};

use crate::api::{Action, Request};
use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::place::Place;
use crate::storage::Verb;

/// How many tokens a bucket holds, and how many come back per second.
#[derive(Clone, Copy)]
struct Rate(f64, f64);

/// Returns an action's name for its buckets, its bucket for calls, and its bucket for instances if it has one.
///
/// From the EC2 developer guide, "Request throttling for the Amazon EC2 API". We infer that DescribeInstances by id has
/// the smaller bucket, since the guide says "without specifying either pagination or a filter".
fn rates(action: &Action) -> (&'static str, Rate, Option<Rate>) {
    match action {
        Action::Describe(describe) if describe.is_bounded() => ("DescribeInstances", Rate(100.0, 20.0), None),
        Action::Describe(_) => ("DescribeInstances, unbounded", Rate(50.0, 10.0), None),
        Action::DescribeRegions => ("DescribeRegions", Rate(100.0, 20.0), None),
        Action::Start => ("StartInstances", Rate(5.0, 2.0), Some(Rate(1000.0, 2.0))),
        Action::Stop { .. } => ("StopInstances", Rate(50.0, 5.0), Some(Rate(1000.0, 20.0))),
        Action::CreateTags(_) => ("CreateTags", Rate(100.0, 10.0), None),
        Action::Storage(Verb::Delete) => ("DeleteSnapshot", Rate(100.0, 5.0), None),
        Action::Storage(Verb::Attribute) => ("DescribeSnapshotAttribute", Rate(50.0, 10.0), None),
        Action::Storage(_) => ("Describe snapshots and the like", Rate(100.0, 20.0), None),
        Action::DeleteTags(_) => ("DeleteTags", Rate(100.0, 10.0), None),
    }
}

/// A bucket's level at the last call.
pub(crate) struct Bucket {
    tokens: f64,
    at: DateTime<Utc>,
}

impl Cloud {
    /// Takes a call's tokens, all or none: one for the call, and one for each instance that it names unless it is a
    /// dry run. Whether EC2 takes tokens for a call that it then refuses is not documented; here they are taken.
    pub(crate) fn throttle(&mut self, request: &Request) -> Result<(), Refusal> {
        if !self.settings.throttle {
            return Ok(());
        }
        let (name, calls, instances) = rates(&request.action);
        let mut wanted = vec![(name.to_owned(), calls, 1.0)];
        if let Some(rate) = instances.filter(|_| !request.dry_run) {
            wanted.push((format!("{name}, instances"), rate, request.ids.len() as f64));
        }
        let now = self.clock.now();
        let lacks =
            |(name, rate, tokens): &(String, Rate, f64)| self.bucket(&request.place, name, *rate, now).tokens < *tokens;
        if wanted.iter().any(lacks) {
            return Err(Refusal::new("RequestLimitExceeded", "Request limit exceeded.").with_status(503));
        }
        for (name, rate, tokens) in wanted {
            self.bucket(&request.place, &name, rate, now).tokens -= tokens;
        }
        Ok(())
    }

    /// Returns a bucket, filled up to now.
    fn bucket(&mut self, place: &Place, name: &str, Rate(size, refill): Rate, now: DateTime<Utc>) -> &mut Bucket {
        let size = (size * self.settings.throttle_size).max(1.0);
        let key = (place.clone(), name.to_owned());
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: size, at: now });
        // A test may have set the clock back.
        let seconds = (now - bucket.at).as_seconds_f64().max(0.0);
        let more = seconds * refill * self.settings.throttle_refill;
        *bucket = Bucket { tokens: (bucket.tokens + more).min(size), at: now };
        bucket
    }
}
