//! The one place that reads a clock; everything else is handed a [`Moment`].

#![expect(clippy::disallowed_methods, reason = "this is the clock that the ban points to")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Moment;

/// A running clock, copied to whoever has to wait for something.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    rate: u32,
}

impl Clock {
    /// Starts at zero monotonic time.
    #[must_use]
    pub fn start() -> Self {
        Self::hurried(1)
    }

    /// Starts at zero a monotonic time that passes `rate` times as fast, so that what takes hours is
    /// over in minutes. The wall clock keeps its pace.
    #[must_use]
    pub fn hurried(rate: u32) -> Self {
        Self { origin: Instant::now(), rate: rate.max(1) }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { mono: self.mono(), wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX) }
    }

    /// How long it still is until `deadline` (monotonic); zero once it has passed.
    #[must_use]
    pub fn until(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.mono()) / self.rate
    }

    fn mono(&self) -> Duration {
        self.origin.elapsed().saturating_mul(self.rate)
    }
}
