//! The machine's time.

use std::time::Duration;

use dtc_core::Time;
use tokio::time::Instant;

/// Anchored at the wall clock when it is made, monotonic from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    anchor: Duration,
    started: Instant,
}

impl Clock {
    /// Now, `anchor` after 1970.
    pub(crate) fn new(anchor: Duration) -> Self {
        Self { anchor, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time::default() + self.anchor + self.started.elapsed()
    }

    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.started + at.since(Time::default() + self.anchor)
    }
}
