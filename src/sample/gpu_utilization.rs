//! Minimum, mean and maximum GPU utilization between two cycles, from the sample ring buffer of the
//! driver.

use crate::model::{Missing, Moment};
use crate::nvml::probe::MinMeanMax;
use crate::nvml::raw::samples::UtilizationSample;
use crate::policy::STAMP_TOLERANCE;

/// Collects new utilization samples; each sample counts once.
#[derive(Debug, Default)]
pub struct GpuUtilizationSampler {
    enabled: bool,
    last_seen_us: Option<u64>,
    percents: Vec<u32>,
    failed: Option<Missing>,
}

impl GpuUtilizationSampler {
    /// Enables or disables the collection; a change resets it.
    pub fn set_enabled(&mut self, enabled: bool) {
        if enabled != self.enabled {
            *self = Self { enabled, ..Self::default() };
        }
    }

    /// Whether the collection is enabled.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The `lastSeenTimeStamp` for the next read, microseconds since the Unix epoch. Restarts at
    /// `now` if the clock was set back.
    #[must_use]
    pub fn last_seen_us(&self, now: Moment) -> u64 {
        self.last_seen_us.filter(|seen| *seen <= now.wall_us).unwrap_or(now.wall_us)
    }

    /// Adds the samples of one read. The first read only sets the cursor: its samples are from
    /// before the collection.
    pub fn add_samples(&mut self, samples: Result<Vec<UtilizationSample>, Missing>, now: Moment) {
        let seen = self.last_seen_us(now);
        let samples = match samples {
            Ok(samples) => samples,
            Err(missing) => {
                *self = Self { enabled: self.enabled, failed: Some(missing), ..Self::default() };
                return;
            }
        };
        let tolerance = u64::try_from(STAMP_TOLERANCE.as_micros()).unwrap_or(u64::MAX);
        let is_valid = |sample: &&UtilizationSample| {
            let stamps = seen + 1..=now.wall_us.saturating_add(tolerance);
            sample.percent <= 100 && stamps.contains(&sample.stamp_us)
        };
        let new: Vec<_> = samples.iter().filter(is_valid).collect();
        self.percents.extend(new.iter().map(|sample| sample.percent));
        self.last_seen_us = new.iter().map(|sample| sample.stamp_us).max().or(Some(seen));
        self.failed = None;
    }

    /// Minimum, mean and maximum since the last call.
    ///
    /// # Errors
    /// Pending without a sample; the NVML error if the last read failed.
    pub fn take_min_mean_max(&mut self) -> Result<MinMeanMax, Missing> {
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
        Ok(MinMeanMax { min: f64::from(*min), mean, max: f64::from(*max) })
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
    fn each_sample_counts_once_and_older_ones_are_ignored() {
        let mut sampler = GpuUtilizationSampler::default();
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Pending));
        sampler.add_samples(Ok(vec![sample(500, 99)]), moment(1));
        assert_eq!(
            sampler.take_min_mean_max(),
            Err(Missing::Pending),
            "the sample is older than the first read"
        );
        let two = vec![sample(1200, 10), sample(1400, 40)];
        sampler.add_samples(Ok(two.clone()), moment(2));
        sampler.add_samples(Ok([two, vec![sample(2100, 70)]].concat()), moment(3));
        assert_eq!(
            sampler.take_min_mean_max(),
            Ok(MinMeanMax { min: 10.0, mean: 40.0, max: 70.0 })
        );
        sampler.add_samples(Ok(Vec::new()), moment(4));
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Pending));
    }

    #[test]
    fn invalid_samples_failures_and_clock_steps_are_ignored() {
        let mut sampler = GpuUtilizationSampler::default();
        sampler.add_samples(Ok(Vec::new()), moment(10));
        sampler.add_samples(
            Ok(vec![sample(10_500, 101), sample(90_000, 50), sample(10_600, 5)]),
            moment(11),
        );
        assert_eq!(sampler.take_min_mean_max(), Ok(MinMeanMax { min: 5.0, mean: 5.0, max: 5.0 }));
        sampler.add_samples(Err(Missing::Unsupported), moment(12));
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Unsupported));
        sampler.add_samples(Ok(Vec::new()), moment(100));
        // The clock was set back by a minute: the cursor is not in the future.
        assert_eq!(sampler.last_seen_us(moment(40)), 40_000_000);
    }
}
