//! The only module that reads clocks or sleeps.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One instant in real, wall-clock and world time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Now {
    /// Monotonic seconds since the first call of the library.
    pub(crate) real: f64,
    /// Wall clock in microseconds since the epoch, the unit of NVML's time stamps.
    pub(crate) wall: u64,
    /// World time in seconds, the time of scenarios.
    pub(crate) world: f64,
    /// Whether the scenario fixes world time (its `now` key).
    pub(crate) fixed: bool,
}

/// The current time. World time is `fixed` if the scenario sets it, else the real time.
#[expect(clippy::disallowed_methods, reason = "only this file reads clocks")]
pub(crate) fn now(fixed: Option<f64>) -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let real = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        real,
        wall: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        world: fixed.unwrap_or(real),
        fixed: fixed.is_some(),
    }
}

/// Blocks the calling thread.
#[expect(clippy::disallowed_methods, reason = "a delayed or hung call has to block its caller")]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
