//! EC2's token buckets, as far as we can know them: how long to wait so that no call is throttled.
//!
//! EC2 counts calls and, separately, the instances in them, by account, region and action. The buckets are shared with
//! the console and every other tool, so assumptions made here are corrected by what EC2 says. A rate-limit crate models
//! one bucket; it can't express two coupled ones, or an assumption that is taken back.

use std::time::Duration;

use tokio::time::Instant;

use crate::ec2::{Buckets, Rate};

/// Network delays vary: two calls may reach EC2 closer together than they were sent. Nothing is lost by that, because the
/// buckets fill in the meantime.
const MARGIN: Duration = Duration::from_millis(100);
/// More seconds than any invocation lives.
const FOR_EVER: f64 = 24.0 * 60.0 * 60.0;
/// The share of the refill still counted on after a throttled answer: somebody else uses the rest.
const SLOWER: f64 = 0.93;
/// The least share that is counted on.
const SLOWEST: f64 = 0.1;
/// How much that share grows with each accepted call, up to all of it.
const FASTER: f64 = 0.01;
/// The part of a call's tokens that is believed to be there after the first throttled answer in a row, the second, and
/// each further one.
const LEFT: [f64; 3] = [0.75, 0.5, 0.0];

/// The state of EC2's buckets for one action.
#[derive(Debug)]
pub(super) struct Pace {
    calls: Bucket,
    instances: Bucket,
    /// The share of the refill that may be counted on, at most 1.
    share: f64,
    /// Throttled answers since the last accepted call.
    in_a_row: usize,
}

impl Pace {
    /// Assumes full buckets, as in an account that has been idle for a while.
    pub(super) fn new(buckets: Buckets, now: Instant) -> Self {
        let full = |rate| Bucket { rate, level: rate.size, at: now };
        Self { calls: full(buckets.calls), instances: full(buckets.instances), share: 1.0, in_a_row: 0 }
    }

    /// Returns how long to wait before a call with this many instances; zero if it can be made now.
    pub(super) fn wait(&mut self, instances: usize, now: Instant) -> Duration {
        self.refill(now);
        let wait = self.calls.lacks(1.0).max(self.instances.lacks(instances as f64));
        if wait == 0.0 { Duration::ZERO } else { Duration::from_secs_f64((wait / self.share).min(FOR_EVER)) + MARGIN }
    }

    /// A call is made. A call that EC2 then refuses counts too: it may have cost its tokens.
    pub(super) fn take(&mut self, instances: usize, now: Instant) {
        self.refill(now);
        self.calls.level -= 1.0;
        self.instances.level -= instances as f64;
    }

    /// EC2 did not throttle it.
    pub(super) fn accepted(&mut self) {
        self.share = (self.share + FASTER).min(1.0);
        self.in_a_row = 0;
    }

    /// EC2 throttled it, and took no tokens: somebody else has drawn on a bucket.
    ///
    /// EC2 doesn't say which one. The one believed to be lower is blamed first; the second time in a row, both are.
    pub(super) fn throttled(&mut self, instances: usize, now: Instant) {
        self.refill(now);
        self.calls.level += 1.0;
        self.instances.level += instances as f64;
        let left = LEFT[self.in_a_row.min(LEFT.len() - 1)];
        let (calls, stock) = (self.calls.level / self.calls.rate.size, self.instances.level / self.instances.rate.size);
        if calls <= stock || self.in_a_row > 0 {
            self.calls.level = self.calls.level.min(left);
        }
        if stock <= calls || self.in_a_row > 0 {
            self.instances.level = self.instances.level.min(left * instances as f64);
        }
        self.share = (self.share * SLOWER).max(SLOWEST);
        self.in_a_row += 1;
    }

    fn refill(&mut self, now: Instant) {
        self.calls.fill(self.share, now);
        self.instances.fill(self.share, now);
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, share: f64, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + seconds * self.rate.refill * share).min(self.rate.size);
        self.at = now;
    }

    /// Returns the seconds until it holds this many tokens; a call larger than the bucket waits until it is full.
    fn lacks(&self, tokens: f64) -> f64 {
        let lacking = tokens.min(self.rate.size) - self.level;
        if lacking > 0.0 { lacking / self.rate.refill } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::ec2::{START_BUCKETS as START, STOP_BUCKETS as STOP};

    /// EC2's side: two buckets, of which somebody else drains a part of what comes in.
    struct Real {
        calls: Bucket,
        instances: Bucket,
        share: f64,
    }

    impl Real {
        fn new(buckets: Buckets, share: f64, now: Instant) -> Self {
            let Pace { calls, instances, .. } = Pace::new(buckets, now);
            Self { calls, instances, share }
        }

        fn ask(&mut self, instances: usize, now: Instant) -> bool {
            self.calls.fill(self.share, now);
            self.instances.fill(self.share, now);
            let room = self.calls.level >= 1.0 && self.instances.level >= instances as f64;
            if room {
                self.calls.level -= 1.0;
                self.instances.level -= instances as f64;
            }
            room
        }
    }

    /// Sends batches as fast as the pace allows; gives how long it took, and how many were throttled.
    fn send(buckets: Buckets, batches: &[usize], share: f64) -> (Duration, usize) {
        let begun = Instant::now();
        let (mut now, mut throttled) = (begun, 0);
        let (mut pace, mut real) = (Pace::new(buckets, now), Real::new(buckets, share, now));
        for batch in batches {
            loop {
                // A clock is never exact to the nanosecond, and neither is a network.
                now += pace.wait(*batch, now) + Duration::from_micros(1);
                pace.take(*batch, now);
                if real.ask(*batch, now) {
                    pace.accepted();
                    break;
                }
                pace.throttled(*batch, now);
                throttled += 1;
                assert!(throttled < 10_000, "no end");
            }
        }
        (now - begun, throttled)
    }

    fn batches(instances: usize) -> Vec<usize> {
        (0..instances).step_by(64).map(|at| (instances - at).min(64)).collect()
    }

    fn bound(Buckets { instances: rate, .. }: Buckets, instances: usize) -> f64 {
        ((instances as f64 - rate.size) / rate.refill).max(0.0)
    }

    #[test]
    fn five_thousand_stops_and_fifteen_hundred_starts_take_what_ec2_takes() {
        for (buckets, instances) in [(STOP, 5000), (START, 1500)] {
            let (took, throttled) = send(buckets, &batches(instances), 1.0);
            assert_eq!(throttled, 0);
            let bound = bound(buckets, instances);
            assert!((bound..bound * 1.05).contains(&took.as_secs_f64()), "{took:?}, EC2 takes {bound} s");
        }
    }

    #[test]
    fn while_somebody_takes_a_fifth_all_is_sent_within_a_third_more_time() {
        for (buckets, instances) in [(STOP, 5000), (START, 1500)] {
            let (took, throttled) = send(buckets, &batches(instances), 0.8);
            let ratio = took.as_secs_f64() / bound(buckets, instances);
            assert!((1.25..1.3).contains(&ratio) && throttled <= 20, "{ratio} with {throttled} throttled");
        }
    }

    #[test]
    fn a_call_larger_than_the_bucket_does_not_wait_for_ever() {
        let now = Instant::now();
        assert_eq!(Pace::new(STOP, now).wait(5000, now), Duration::ZERO);
    }

    #[test]
    fn after_a_throttled_answer_it_waits_and_believes_the_documented_rate_again_later() {
        let now = Instant::now();
        let mut pace = Pace::new(STOP, now);
        pace.take(64, now);
        pace.throttled(64, now);
        let first = pace.wait(64, now);
        assert!(first > Duration::from_millis(800), "{first:?}");
        pace.throttled(64, now);
        pace.throttled(64, now);
        assert!(pace.wait(64, now) > first * 3, "longer each time");
        (0..50).for_each(|_| pace.accepted());
        assert!((pace.share - 1.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn on_an_idle_account_nothing_is_throttled(
            batches in prop::collection::vec(1..1000_usize, 1..60),
            starts in any::<bool>(),
        ) {
            let (_, throttled) = send(if starts { START } else { STOP }, &batches, 1.0);
            prop_assert_eq!(throttled, 0);
        }

        #[test]
        fn whatever_others_take_all_is_sent_in_the_end(
            batches in prop::collection::vec(1..200_usize, 1..60),
            share in 0.1..1.0_f64,
        ) {
            let (took, _) = send(STOP, &batches, share);
            let instances: usize = batches.iter().sum();
            prop_assert!(took.as_secs_f64() >= bound(STOP, instances) * 0.999);
        }
    }
}
