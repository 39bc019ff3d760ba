//! Pure: exponential back-off.

use std::time::Duration;

use tokio::time::Instant;

/// When something may be tried next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The moment; in the past before the first failure.
    pub(super) at: Instant,
    step: Duration,
    ladder: Ladder,
}

/// How pauses grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// Each pause as a percentage of the one before.
    pub(super) growth: u32,
}

impl Backoff {
    /// Begins without a pause.
    pub(super) fn new(ladder: Ladder, now: Instant) -> Self {
        Self { at: now, step: ladder.first, ladder }
    }

    /// Waits, longer than the last time.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.at = now + self.step;
        self.step = (self.step * self.ladder.growth / 100).min(self.ladder.longest);
    }

    /// Starts over, after a success.
    pub(super) fn reset(&mut self, now: Instant) {
        *self = Self::new(self.ladder, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_anew() {
        let ladder = Ladder { first: Duration::from_secs(1), longest: Duration::from_secs(3), growth: 200 };
        let now = Instant::now();
        let mut backoff = Backoff::new(ladder, now);
        assert_eq!(backoff.at, now);
        let pauses: Vec<u64> = (0..4)
            .map(|_| {
                backoff.back_off(now);
                (backoff.at - now).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 3, 3]);
        backoff.reset(now);
        backoff.back_off(now);
        assert_eq!(backoff.at - now, ladder.first);
    }
}
