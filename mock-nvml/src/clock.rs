//! The only place that reads a clock or waits.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One instant, in the three times that matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Now {
    /// Real seconds since the library was first used; never goes back.
    pub(crate) real: f64,
    /// Wall clock in microseconds since the epoch, the unit of NVML's time stamps.
    pub(crate) wall: u64,
    /// World time in seconds: what scenarios speak of.
    pub(crate) world: f64,
    /// Whether the scenario holds the world at this time.
    pub(crate) held: bool,
}

/// The present. World time is `hold` when a scenario holds it, else the real time.
#[expect(clippy::disallowed_methods, reason = "this file is the one that reads the clocks")]
pub(crate) fn now(hold: Option<f64>) -> Now {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let real = BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        real,
        wall: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        world: hold.unwrap_or(real),
        held: hold.is_some(),
    }
}

/// Blocks the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "a delayed or hung call must really block its caller"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
