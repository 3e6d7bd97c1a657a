//! When a counter was read, for rates.

use std::time::Duration;

use crate::model::Moment;
use crate::policy::{FIELD_STAMP_AGE, WALL_CLOCK_STEP};

/// When a counter was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterTime {
    /// Time stamp of the driver, microseconds since the Unix epoch; not positive if unknown.
    pub stamp_us: i64,
    /// When the call returned.
    pub returned: Moment,
}

impl CounterTime {
    /// Time between two readings of a counter; `None` if `self` is not after `before`.
    ///
    /// By the stamps of the driver, which may be older than the calls: a call can be late, and the
    /// driver can return a cached value. By the returns of the calls if there are no stamps, they
    /// are not possible, or the wall clock was set in between.
    #[must_use]
    pub fn since(self, before: Self) -> Option<Duration> {
        let called = self.returned.mono.checked_sub(before.returned.mono)?;
        let wall = self.returned.wall_us.checked_sub(before.returned.wall_us);
        let wall_is_steady = wall
            .is_some_and(|wall| Duration::from_micros(wall).abs_diff(called) <= WALL_CLOCK_STEP);
        let is_possible =
            |stamped: &Duration| !stamped.is_zero() && stamped.abs_diff(called) <= FIELD_STAMP_AGE;
        let stamped = self.stamped_since(before).filter(|_| wall_is_steady).filter(is_possible);
        Some(stamped.unwrap_or(called)).filter(|elapsed| !elapsed.is_zero())
    }

    fn stamped_since(self, before: Self) -> Option<Duration> {
        if before.stamp_us <= 0 {
            return None;
        }
        let elapsed = self.stamp_us.checked_sub(before.stamp_us)?;
        u64::try_from(elapsed).ok().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const WALL: u64 = 1_700_000_000 * SECOND;

    /// A reading that the driver took at `stamp` µs, returned at `mono` and `wall` µs.
    fn time(stamp: i64, mono: u64, wall: u64) -> CounterTime {
        let returned = Moment { mono: Duration::from_micros(mono), wall_us: WALL + wall };
        let stamp_us = if stamp < 0 { 0 } else { i64::try_from(WALL).unwrap() + stamp };
        CounterTime { stamp_us, returned }
    }

    #[test]
    fn stamps_of_the_driver_are_preferred() {
        let before = time(1_000_000, 1_000_000, 1_000_000);
        let late = time(6_000_000, 7_500_000, 7_500_000);
        assert_eq!(late.since(before), Some(Duration::from_secs(5)), "returned 1.5 s late");
        let unstamped = time(-1, 6_000_000, 6_000_000);
        assert_eq!(unstamped.since(time(-1, 1_000_000, 1_000_000)), Some(Duration::from_secs(5)));
        assert_eq!(before.since(before), None, "no time in between");
    }

    #[test]
    fn impossible_stamps_and_a_set_clock_leave_the_returns() {
        let before = time(1_000_000, 1_000_000, 1_000_000);
        let five = Some(Duration::from_secs(5));
        assert_eq!(time(1_000_000, 6_000_000, 6_000_000).since(before), five, "a constant stamp");
        assert_eq!(time(60_000_000, 6_000_000, 6_000_000).since(before), five, "too far ahead");
        assert_eq!(time(500_000, 6_000_000, 6_000_000).since(before), five, "decreasing");
        let set = time(5_500_000, 6_000_000, 5_500_000);
        assert_eq!(set.since(before), five, "the wall clock was set back by half a second");
    }
}
