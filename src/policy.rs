//! Every duration and threshold, and the pure decisions that are made with them.

use std::time::Duration;

/// A cycle reads and publishes this often unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Shorter intervals cost the workloads more than they tell.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Readings that move slowly (temperatures, limits) are read this often at the most.
pub const SLOW_TIER: Duration = Duration::from_secs(10);
/// The driver's utilization ring is read at least this often. The shortest known ring holds 72
/// samples of 1/6 s, which is 12 s.
pub const RING_READ_EVERY: Duration = Duration::from_secs(5);
/// A sample shows up in the ring at most this long after it was taken (the firmware hands them
/// over once a second), so an idle ring's cursor stays this far behind the clock.
pub const RING_LATENCY: Duration = Duration::from_secs(1);
/// A row stamped further ahead of our clock than this is rubbish.
pub const STAMP_TOLERANCE: Duration = Duration::from_secs(1);
/// The largest pid that a 64-bit kernel gives (`PID_MAX_LIMIT`).
pub const PID_MAX: u32 = 4_194_304;
/// A temperature above this is a sentinel, not a temperature.
pub const TEMPERATURE_MAX: f64 = 200.0;
/// `--once` waits this long for the driver to open.
pub const ONCE_OPEN: Duration = Duration::from_secs(10);
/// `--once` measures utilization over this window.
pub const ONCE_WINDOW: Duration = Duration::from_secs(1);
/// First pause after a failed attempt to open the driver; doubles up to [`OPEN_BACKOFF_MAX`].
pub const OPEN_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// A closed session's threads have this long to let go of it before a new one is opened: the library
/// cannot be loaded anew while somebody holds the old one.
pub const RELEASE_GRACE: Duration = Duration::from_secs(5);
/// How long the driver is asked to wait for an event. It is also how long a thread that listens
/// takes to notice that its session is over.
pub const EVENT_WAIT: Duration = Duration::from_secs(1);
/// Pause after a wait for events that failed or came back at once.
pub const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// Waits for events that end in no word for so long hang.
pub const EVENT_SILENCE: Duration = Duration::from_secs(15);
/// Longest pause between attempts to open the driver.
pub const OPEN_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A client has this long to send its request, and an idle connection lives this long.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are served at one time.
pub const HTTP_CONNECTIONS: usize = 64;
/// Scrapes in flight have this long to finish after SIGTERM.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// NVML calls in flight have this long to finish after SIGTERM: a monitor that is killed in the
/// middle of one has been seen to wedge a GPU.
pub const QUIESCE_GRACE: Duration = Duration::from_secs(2);

/// How often a reading is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Every cycle.
    Cycle,
    /// At most every [`SLOW_TIER`].
    Slow,
}

impl Tier {
    /// Whether a reading last taken at `last` is to be taken again at `now`.
    #[must_use]
    pub fn due(self, last: Option<Duration>, now: Duration) -> bool {
        match (self, last) {
            (Self::Cycle, _) | (_, None) => true,
            (Self::Slow, Some(last)) => now.saturating_sub(last) >= SLOW_TIER,
        }
    }

    /// How old an unanswered reading may be and still be published.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Duration {
        match self {
            Self::Cycle => max_age,
            Self::Slow => max_age.max(2 * SLOW_TIER),
        }
    }
}

/// `--max-age` when it is not given.
#[must_use]
pub fn default_max_age(interval: Duration) -> Duration {
    (3 * interval).max(Duration::from_secs(15))
}

/// How long a cycle waits for the GPUs before it publishes without those that have not answered.
#[must_use]
pub fn cycle_deadline(interval: Duration) -> Duration {
    (interval / 2).min(Duration::from_secs(2))
}

/// How many times the rings are read in one interval, the cycle's own reading included.
#[must_use]
pub fn ring_reads(interval: Duration) -> u32 {
    let reads = interval.as_millis().div_ceil(RING_READ_EVERY.as_millis());
    u32::try_from(reads).unwrap_or(u32::MAX).max(1)
}

/// The pause after the `failures`th attempt in a row to open the driver has failed.
#[must_use]
pub fn open_backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    OPEN_BACKOFF_MIN.saturating_mul(1 << doublings).min(OPEN_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_read_before_they_wrap() {
        for ms in [100, 1_000, 5_000, 5_001, 30_000, 60_000, 3_600_000] {
            let interval = Duration::from_millis(ms);
            assert!(interval / ring_reads(interval) <= RING_READ_EVERY, "{interval:?}");
        }
        assert_eq!(ring_reads(DEFAULT_INTERVAL), 1);
    }

    #[test]
    fn backoff_doubles_to_its_cap() {
        let pauses: Vec<u64> = (1..8).map(|n| open_backoff(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(open_backoff(u32::MAX), OPEN_BACKOFF_MAX);
    }

    #[test]
    fn slow_readings_wait_their_turn() {
        let second = Duration::from_secs(1);
        assert!(Tier::Slow.due(None, second));
        assert!(!Tier::Slow.due(Some(second), 2 * second));
        assert!(Tier::Slow.due(Some(second), second + SLOW_TIER));
        assert_eq!(Tier::Slow.max_age(15 * second), 20 * second);
        assert_eq!(Tier::Slow.max_age(60 * second), 60 * second);
    }

    #[test]
    fn max_age_is_three_intervals_or_fifteen_seconds() {
        assert_eq!(default_max_age(DEFAULT_INTERVAL), Duration::from_secs(15));
        assert_eq!(default_max_age(Duration::from_secs(30)), Duration::from_secs(90));
    }
}
