//! The only module that reads a clock; all other code receives a [`Moment`].

#![expect(clippy::disallowed_methods, reason = "this is the clock that the ban points to")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Moment;

/// A monotonic clock that starts at zero, together with the wall clock. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    rate: u32,
}

impl Clock {
    /// Starts the monotonic time at zero.
    #[must_use]
    pub fn start() -> Self {
        Self::with_rate(1)
    }

    /// Starts a monotonic time at zero that passes `rate` times as fast, so that a soak test of
    /// hours takes minutes. The wall clock is not accelerated.
    #[must_use]
    pub fn with_rate(rate: u32) -> Self {
        Self { origin: Instant::now(), rate: rate.max(1) }
    }

    /// The current time on both clocks.
    #[must_use]
    pub fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { mono: self.mono(), wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX) }
    }

    /// Real time left until `deadline` (monotonic); zero once it has passed.
    #[must_use]
    pub fn until(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.mono()) / self.rate
    }

    fn mono(&self) -> Duration {
        self.origin.elapsed().saturating_mul(self.rate)
    }
}
