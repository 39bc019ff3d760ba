//! Time as the cloud sees it: real time, moved by as much as a test likes.

use chrono::{DateTime, TimeDelta, Utc};

/// Real time plus an offset; it never stands still, because a product polling a frozen cloud would poll for ever.
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
