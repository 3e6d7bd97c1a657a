//! The clock of the driver, by which it stamps utilization samples, compared with the wall clock.

use std::time::Duration;

use crate::model::Moment;
use crate::policy::{CLOCK_STEP, DRIVER_CLOCK_WINDOW};

/// Offset of the driver's clock, learnt from the stamps of new samples.
///
/// A sample is at least as old as its delivery, so each stamp gives a lower bound of the offset; the
/// largest bound of the last minutes is the estimate. It is too low by the delay of the fastest
/// delivery.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverClock {
    /// Largest bound of this window and of the one before, µs.
    bounds: [Option<i64>; 2],
    /// Start of the window (monotonic).
    since: Duration,
}

impl DriverClock {
    /// Adds the stamp of a new sample that the driver returned before `returned`. Returns false if a
    /// clock was set: the offset is learnt again.
    pub fn observe(&mut self, stamp_us: u64, returned: Moment) -> bool {
        let bound = difference(stamp_us, returned.wall_us);
        let is_step = self
            .offset_us()
            .is_some_and(|offset| Duration::from_micros(offset.abs_diff(bound)) > CLOCK_STEP);
        if is_step {
            self.bounds = [None; 2];
        }
        if returned.mono.saturating_sub(self.since) >= DRIVER_CLOCK_WINDOW {
            let [current, _] = self.bounds;
            self.bounds = [None, current];
            self.since = returned.mono;
        }
        let [current, _] = &mut self.bounds;
        *current = Some(current.map_or(bound, |known| known.max(bound)));
        !is_step
    }

    /// Driver time minus wall clock, µs; `None` until it is known.
    #[must_use]
    pub fn offset_us(&self) -> Option<i64> {
        self.bounds.into_iter().flatten().max()
    }

    /// Driver time of the newest sample that can have been delivered at `now`, µs.
    #[must_use]
    pub fn newest_us(&self, now: Moment) -> Option<u64> {
        Some(now.wall_us.saturating_add_signed(self.offset_us()?))
    }
}

fn difference(stamp_us: u64, wall_us: u64) -> i64 {
    let magnitude = i64::try_from(stamp_us.abs_diff(wall_us)).unwrap_or(i64::MAX);
    if stamp_us >= wall_us { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const WALL: u64 = 1_700_000_000 * SECOND;

    fn at(us: u64) -> Moment {
        Moment { mono: Duration::from_micros(us), wall_us: WALL + us }
    }

    #[test]
    fn offset_is_the_largest_bound() {
        let mut clock = DriverClock::default();
        assert_eq!((clock.offset_us(), clock.newest_us(at(0))), (None, None));
        assert!(clock.observe(WALL + 1_500_000 - 800_000, at(0)));
        assert!(clock.observe(WALL + SECOND + 1_500_000 - 100_000, at(SECOND)));
        assert!(clock.observe(WALL + 2 * SECOND + 1_500_000 - 900_000, at(2 * SECOND)));
        assert_eq!(clock.offset_us(), Some(1_400_000));
        assert_eq!(clock.newest_us(at(5 * SECOND)), Some(WALL + 6_400_000));
    }

    #[test]
    fn slow_drift_is_followed_and_a_step_is_learnt_at_once() {
        let mut clock = DriverClock::default();
        for second in 0..600 {
            // 1 ms a second slower than the wall clock.
            assert!(clock.observe(WALL + second * 999_000, at(second * SECOND)));
        }
        let offset = clock.offset_us().unwrap();
        assert!((-600_000..-450_000).contains(&offset), "{offset}");
        assert!(!clock.observe(WALL + 601 * SECOND - 8 * SECOND, at(601 * SECOND)));
        assert_eq!(clock.offset_us(), Some(-8_000_000));
    }
}
