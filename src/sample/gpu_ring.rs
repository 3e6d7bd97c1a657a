//! The lowest, the mean and the highest utilization of a GPU between two cycles.

use crate::model::{Missing, Moment};
use crate::nvml::probe::Extent;
use crate::nvml::raw::samples::UtilizationSample;
use crate::policy::STAMP_TOLERANCE;

/// Follows the ring: each sample counts once.
#[derive(Debug, Default)]
pub struct GpuRing {
    followed: bool,
    last_seen_us: Option<u64>,
    percents: Vec<u32>,
    failed: Option<Missing>,
}

impl GpuRing {
    /// Begins to follow the ring, or leaves off.
    pub fn follow(&mut self, wanted: bool) {
        if wanted != self.followed {
            *self = Self { followed: wanted, ..Self::default() };
        }
    }

    /// Whether it is followed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followed
    }

    /// The `lastSeenTimeStamp` to ask with. A clock that was set back begins anew.
    #[must_use]
    pub fn last_seen_us(&self, now: Moment) -> u64 {
        self.last_seen_us.filter(|seen| *seen <= now.wall_us).unwrap_or(now.wall_us)
    }

    /// Takes in one answer. The first one only sets the cursor: what is in the ring by then was before
    /// anybody looked.
    pub fn absorb(&mut self, answer: Result<Vec<UtilizationSample>, Missing>, now: Moment) {
        let seen = self.last_seen_us(now);
        let samples = match answer {
            Ok(samples) => samples,
            Err(missing) => {
                *self = Self { followed: self.followed, failed: Some(missing), ..Self::default() };
                return;
            }
        };
        let tolerance = u64::try_from(STAMP_TOLERANCE.as_micros()).unwrap_or(u64::MAX);
        let believed = |sample: &&UtilizationSample| {
            let stamps = seen + 1..=now.wall_us.saturating_add(tolerance);
            sample.percent <= 100 && stamps.contains(&sample.stamp_us)
        };
        let new: Vec<_> = samples.iter().filter(believed).collect();
        self.percents.extend(new.iter().map(|sample| sample.percent));
        self.last_seen_us = new.iter().map(|sample| sample.stamp_us).max().or(Some(seen));
        self.failed = None;
    }

    /// What was seen since the last time.
    ///
    /// # Errors
    /// Pending without a sample, and what the driver answered.
    pub fn close(&mut self) -> Result<Extent, Missing> {
        let percents = std::mem::take(&mut self.percents);
        if let Some(missing) = self.failed {
            return Err(missing);
        }
        let (Some(min), Some(max)) = (percents.iter().min(), percents.iter().max()) else {
            return Err(Missing::Pending);
        };
        let sum: u32 = percents.iter().sum();
        let count = u32::try_from(percents.len()).unwrap_or(u32::MAX);
        let mean = f64::from(sum) / f64::from(count);
        Ok(Extent { min: f64::from(*min), mean, max: f64::from(*max) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn moment(seconds: u64) -> Moment {
        Moment { mono: Duration::from_secs(seconds), wall_us: seconds * 1_000_000 }
    }

    fn sample(ms: u64, percent: u32) -> UtilizationSample {
        UtilizationSample { stamp_us: ms * 1000, percent }
    }

    #[test]
    fn each_sample_counts_once_and_none_from_before() {
        let mut ring = GpuRing::default();
        assert_eq!(ring.close(), Err(Missing::Pending));
        ring.absorb(Ok(vec![sample(500, 99)]), moment(1));
        assert_eq!(ring.close(), Err(Missing::Pending), "it was before anybody looked");
        let two = vec![sample(1200, 10), sample(1400, 40)];
        ring.absorb(Ok(two.clone()), moment(2));
        ring.absorb(Ok([two, vec![sample(2100, 70)]].concat()), moment(3));
        assert_eq!(ring.close(), Ok(Extent { min: 10.0, mean: 40.0, max: 70.0 }));
        ring.absorb(Ok(Vec::new()), moment(4));
        assert_eq!(ring.close(), Err(Missing::Pending));
    }

    #[test]
    fn rubbish_failures_and_clocks_that_jump_leave_no_trace() {
        let mut ring = GpuRing::default();
        ring.absorb(Ok(Vec::new()), moment(10));
        ring.absorb(
            Ok(vec![sample(10_500, 101), sample(90_000, 50), sample(10_600, 5)]),
            moment(11),
        );
        assert_eq!(ring.close(), Ok(Extent { min: 5.0, mean: 5.0, max: 5.0 }));
        ring.absorb(Err(Missing::Unsupported), moment(12));
        assert_eq!(ring.close(), Err(Missing::Unsupported));
        ring.absorb(Ok(Vec::new()), moment(100));
        // Set back by a minute: the cursor is not in the future.
        assert_eq!(ring.last_seen_us(moment(40)), 40_000_000);
    }
}
