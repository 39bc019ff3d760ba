//! How long this invocation may still work: no call is begun that could not be answered in time.

use std::future::Future;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// Reserved at the end for writing the report: the log lines of ten thousand instances on a small function.
const FOR_THE_REPORT: Duration = Duration::from_secs(2);
/// A call is begun only with this much time left: EC2 answers most calls in less, and if we cut off a stop,
/// nobody knows its outcome.
const FOR_A_CALL: Duration = Duration::from_secs(1);
/// Lambda's own limit, for hosts that give no usable deadline (`cargo lambda watch` doesn't).
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Timers fire up to this late on a busy core, so the wait for a call that has to begin in time is shortened by this.
const TIMER: Duration = Duration::from_millis(20);

/// The end of the time in which calls may be made.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    for_a_call: Duration,
}

/// There was too little time to begin, or it ran out during the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl Deadline {
    /// Reads Lambda's deadline, and reserves time for the report.
    ///
    /// A function with a timeout of seconds reserves a fifth of it, and begins no calls in the fifth before that.
    #[must_use]
    pub fn of(lambda: SystemTime) -> Self {
        let left = match lambda.duration_since(SystemTime::now()) {
            Ok(left) => left.min(LONGEST),
            // No event arrives after its own deadline: this host doesn't keep one.
            Err(_) => LONGEST,
        };
        Self::within(left)
    }

    /// Returns the deadline of an invocation that may live this long from now.
    #[must_use]
    pub fn within(left: Duration) -> Self {
        Self { at: Instant::now() + left - FOR_THE_REPORT.min(left / 5), for_a_call: FOR_A_CALL.min(left / 5) }
    }

    /// Returns the deadline, or a moment this far from now if that comes first.
    #[must_use]
    pub fn at_most(&self, left: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + left), ..*self }
    }

    /// Returns a deadline this many calls earlier: the time for them is reserved for something else.
    #[must_use]
    pub fn earlier(&self, calls: u32) -> Self {
        // The call before may end a little late.
        let kept = (self.for_a_call + TIMER * 5) * calls;
        Self { at: self.at.checked_sub(kept).unwrap_or_else(Instant::now), ..*self }
    }

    /// Returns a deadline this much earlier.
    #[must_use]
    pub fn sooner(&self, by: Duration) -> Self {
        Self { at: self.at.checked_sub(by).unwrap_or_else(Instant::now), ..*self }
    }

    /// Returns the last moment at which a call may be begun.
    #[must_use]
    pub fn last_call(&self) -> Instant {
        self.at.checked_sub(self.for_a_call + TIMER).unwrap_or_else(Instant::now)
    }

    /// Returns the first half of the time that is left.
    #[must_use]
    pub fn first_half(&self) -> Self {
        let now = Instant::now();
        Self { at: now + self.at.saturating_duration_since(now) / 2, ..*self }
    }

    /// Whether a call begun now could still be answered.
    #[must_use]
    pub fn allows_a_call(&self) -> bool {
        self.allows_a_call_at(Instant::now())
    }

    /// Whether a call begun at a moment could still be answered.
    #[must_use]
    pub fn allows_a_call_at(&self, now: Instant) -> bool {
        self.at.saturating_duration_since(now) >= self.for_a_call
    }

    /// Makes a call, if there is time for one, and gives it up when the time is over.
    ///
    /// # Errors
    /// [`TooLate`] in both cases.
    pub async fn call<T>(&self, call: impl Future<Output = T>) -> Result<T, TooLate> {
        if !self.allows_a_call() {
            return Err(TooLate);
        }
        timeout(self.at.saturating_duration_since(Instant::now()), call).await.map_err(|_| TooLate)
    }

    /// Makes a call as soon as the semaphore admits it, if there is time for one then.
    ///
    /// # Errors
    /// [`TooLate`], as for [`call`](Self::call).
    pub async fn call_through<F: Future>(
        &self,
        gate: &Semaphore,
        call: impl FnOnce() -> F,
    ) -> Result<F::Output, TooLate> {
        let _room = self.call(gate.acquire()).await?;
        // Thousands may wait here: memory for a call is allocated only when its turn comes.
        self.call(Box::pin(call())).await
    }

    /// Waits, but not for so long that no call could follow.
    ///
    /// # Errors
    /// [`TooLate`], at once, if no call could follow in any case.
    pub async fn pause(&self, pause: Duration) -> Result<(), TooLate> {
        let left = self.last_call().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TooLate);
        }
        sleep(pause.min(left)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_given_up_before_lambda_kills_the_function() {
        let lambda = Duration::from_secs(60);
        let deadline = Deadline::of(SystemTime::now() + lambda);
        let begun = Instant::now();
        assert_eq!(deadline.call(std::future::pending::<()>()).await, Err(TooLate));
        let took = begun.elapsed();
        assert!(took < lambda && took > lambda - FOR_THE_REPORT * 2, "{took:?}");
        assert!(!deadline.allows_a_call());
        assert_eq!(deadline.pause(Duration::from_millis(1)).await, Err(TooLate));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_longest_pause_there_is_time_for_one_call() {
        let deadline = Deadline::of(SystemTime::now() + Duration::from_secs(3));
        deadline.pause(Duration::from_secs(600)).await.expect("time was left");
        assert_eq!(deadline.call(async {}).await, Ok(()));
        assert!(deadline.call(std::future::pending::<()>()).await.is_err(), "and no more than one");
        assert!(!deadline.allows_a_call());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_without_a_deadline_gets_lambdas_own_limit() {
        let deadline = Deadline::of(SystemTime::UNIX_EPOCH + Duration::from_secs(600));
        let begun = Instant::now();
        deadline.pause(LONGEST * 2).await.expect("time was left");
        assert!(begun.elapsed() > LONGEST - FOR_THE_REPORT * 2, "{:?}", begun.elapsed());
    }
}
