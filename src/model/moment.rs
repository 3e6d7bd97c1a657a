//! Points in time.

use std::time::Duration;

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time since process start; for ages and deadlines.
    pub mono: Duration,
    /// Microseconds since the Unix epoch; comparable with NVML's time stamps.
    pub wall_us: u64,
}

impl Moment {
    /// Seconds since the Unix epoch, to the millisecond.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds since the epoch fit in 2^53 until 2255"
    )]
    pub fn unix_seconds(self) -> f64 {
        (self.wall_us / 1000) as f64 / 1000.0
    }
}

/// Whole microseconds of a duration, the unit of NVML's time stamps.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
