//! The cloud's clock: real time, shifted as a test likes.

use chrono::{DateTime, TimeDelta, Utc};

/// Real time plus an offset. It never stands still: a function that polls a frozen cloud would poll for ever.
#[derive(Clone, Copy, Default)]
pub(crate) struct Clock {
    offset: TimeDelta,
}

impl Clock {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.offset
    }

    pub(crate) fn set(&mut self, now: DateTime<Utc>) {
        self.offset = now - Utc::now();
    }
}
