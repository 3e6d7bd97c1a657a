//! GPU utilization samples from the sample ring buffer of the driver: which of them are new, and
//! their minimum, mean and maximum between two cycles.

use std::time::Duration;

use super::utilization_source::UtilizationSource;
use crate::model::{Missing, micros};
use crate::nvml::probe::MinMeanMax;
use crate::nvml::raw::samples::UtilizationSample;
use crate::policy::{SAMPLE_PERIOD_DEFAULT, SAMPLE_PERIOD_MAX};

/// Reads new utilization samples; each sample counts once. The cursor is the stamp of the newest
/// sample, in the driver's time: the clock of the host does not matter.
#[derive(Debug, Default)]
pub struct GpuUtilizationSampler {
    last_seen_us: Option<u64>,
    last_busy_us: Option<u64>,
    /// When the last new sample was read (monotonic).
    advanced_at: Duration,
    percents: Vec<u32>,
    failed: Option<Missing>,
}

/// The new samples of one read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleProgress {
    /// Stamp of the newest sample, new or not.
    pub newest_us: u64,
    /// Time that the new samples cover, without gaps.
    pub covered_us: u64,
    /// Stamp of the last sample in which the GPU was busy, if there was one.
    pub last_busy_us: Option<u64>,
    /// Mean utilization in the new samples, percent.
    pub mean: f64,
    /// Whether the samples follow those of the last read; false at the first read, and after the
    /// driver's clock was set back.
    pub is_continuous: bool,
}

impl GpuUtilizationSampler {
    /// Reads the samples since the last read. The first read only sets the cursor: its samples are
    /// from before the collection.
    ///
    /// # Errors
    /// Returns the NVML error; the cursor stays. Pending if the buffer is empty.
    pub fn read(&mut self, source: &mut impl UtilizationSource) -> Result<SampleProgress, Missing> {
        let read = self.request(source).inspect_err(|missing| {
            self.percents.clear();
            self.failed = Some(*missing);
        });
        let (samples, is_continuous) = read?;
        self.failed = None;
        let seen_us = self.last_seen_us;
        let newest_us = samples.last().map(|sample| sample.stamp_us).or(seen_us);
        let newest_us = newest_us.ok_or(Missing::Pending)?;
        self.last_seen_us = Some(newest_us);
        if !samples.is_empty() {
            self.advanced_at = source.now().mono;
        }
        let busy = samples.iter().rfind(|sample| sample.percent > 0).map(|sample| sample.stamp_us);
        self.last_busy_us = busy.or(self.last_busy_us.filter(|_| is_continuous));
        let new = if is_continuous { samples } else { Vec::new() };
        let valid = new.iter().map(|sample| sample.percent).filter(|percent| *percent <= 100);
        let valid: Vec<u32> = valid.collect();
        self.percents.extend(&valid);
        Ok(SampleProgress {
            newest_us,
            covered_us: seen_us.map_or(0, |seen| covered_us(seen, &new)),
            last_busy_us: self.last_busy_us,
            mean: mean(&valid).unwrap_or_default(),
            is_continuous,
        })
    }

    /// The samples after the cursor, oldest first, and whether they follow it. If they do not, they
    /// are all samples of the buffer.
    ///
    /// The sample of the cursor is requested, too: if neither it nor a newer one is returned, or if
    /// samples after it have older stamps, the driver's clock was set back.
    fn request(
        &mut self,
        source: &mut impl UtilizationSource,
    ) -> Result<(Vec<UtilizationSample>, bool), Missing> {
        let Some(seen) = self.last_seen_us else { return Ok((source.samples(0)?, false)) };
        let mut samples = source.samples(seen.saturating_sub(1))?;
        if samples.is_empty() {
            return Ok((source.samples(0)?, false));
        }
        let is_newest = samples.last().is_some_and(|sample| sample.stamp_us == seen);
        let is_late = source.now().mono.saturating_sub(self.advanced_at) >= SAMPLE_PERIOD_MAX;
        if is_newest && is_late {
            let all = source.samples(0)?;
            if all.last().is_some_and(|sample| sample.stamp_us < seen) {
                return Ok((all, false));
            }
        }
        let at = samples.iter().rposition(|sample| sample.stamp_us == seen);
        Ok((samples.split_off(at.map_or(0, |at| at + 1)), true))
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
        let mean = mean(&percents).ok_or(Missing::Pending)?;
        Ok(MinMeanMax { min: f64::from(*min), mean, max: f64::from(*max) })
    }
}

fn mean(percents: &[u32]) -> Option<f64> {
    let count = u32::try_from(percents.len()).ok().filter(|count| *count > 0)?;
    Some(f64::from(percents.iter().sum::<u32>()) / f64::from(count))
}

/// The time that the samples after `seen_us` cover: each one the time since the sample before it,
/// or one period after a gap.
fn covered_us(seen_us: u64, new: &[UtilizationSample]) -> u64 {
    let stamps = || std::iter::once(seen_us).chain(new.iter().map(|sample| sample.stamp_us));
    let steps = || stamps().zip(stamps().skip(1)).map(|(from, to)| to.saturating_sub(from));
    let period = steps().filter(|step| *step > 0).min().unwrap_or_default();
    let period = period.min(micros(SAMPLE_PERIOD_MAX));
    let period = if new.len() > 1 { period } else { period.min(micros(SAMPLE_PERIOD_DEFAULT)) };
    steps().map(|step| if step <= micros(SAMPLE_PERIOD_MAX) { step } else { period }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;
    use crate::nvml::raw::utilization::UtilizationRow;

    /// A ring buffer, and the time in seconds.
    struct Buffer(Result<Vec<UtilizationSample>, Missing>, u64);

    impl UtilizationSource for Buffer {
        fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing> {
            let all = self.0.clone()?;
            Ok(all.into_iter().filter(|sample| sample.stamp_us > last_seen_us).collect())
        }

        fn rows(&mut self, _: u64) -> Result<Vec<UtilizationRow>, Missing> {
            Ok(Vec::new())
        }

        fn is_busy(&mut self) -> Result<bool, Missing> {
            Ok(false)
        }

        fn now(&self) -> Moment {
            Moment { mono: Duration::from_secs(self.1), wall_us: 0 }
        }
    }

    fn sample(ms: u64, percent: u32) -> UtilizationSample {
        UtilizationSample { stamp_us: ms * 1000, percent }
    }

    fn read(
        sampler: &mut GpuUtilizationSampler,
        buffer: &[(u64, u32)],
        seconds: u64,
    ) -> SampleProgress {
        let buffer = buffer.iter().map(|(ms, percent)| sample(*ms, *percent)).collect();
        sampler.read(&mut Buffer(Ok(buffer), seconds)).unwrap()
    }

    #[test]
    fn each_sample_counts_once_and_older_ones_are_ignored() {
        let mut sampler = GpuUtilizationSampler::default();
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Pending));
        let first = read(&mut sampler, &[(500, 99)], 1);
        assert!(!first.is_continuous && first.last_busy_us == Some(500_000), "{first:?}");
        assert_eq!(
            sampler.take_min_mean_max(),
            Err(Missing::Pending),
            "the sample is older than the first read"
        );
        let second = read(&mut sampler, &[(500, 99), (1200, 10), (1400, 40)], 2);
        assert_eq!((second.newest_us, second.covered_us), (1_400_000, 900_000));
        read(&mut sampler, &[(500, 99), (1200, 10), (1400, 40), (2100, 70)], 3);
        assert_eq!(
            sampler.take_min_mean_max(),
            Ok(MinMeanMax { min: 10.0, mean: 40.0, max: 70.0 })
        );
        let none = read(&mut sampler, &[(1400, 40), (2100, 70)], 4);
        assert_eq!((none.covered_us, none.is_continuous), (0, true));
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Pending));
    }

    #[test]
    fn gap_between_samples_is_not_covered() {
        let mut sampler = GpuUtilizationSampler::default();
        read(&mut sampler, &[(1000, 0)], 1);
        let wrapped = read(&mut sampler, &[(30_000, 0), (30_200, 0), (30_400, 0)], 31);
        assert_eq!((wrapped.covered_us, wrapped.is_continuous), (600_000, true));
    }

    #[test]
    fn clock_of_the_driver_that_was_set_back_starts_again() {
        let mut sampler = GpuUtilizationSampler::default();
        read(&mut sampler, &[(90_000, 5), (90_200, 5)], 1);
        let back = read(&mut sampler, &[(50_000, 5)], 2);
        assert_eq!((back.newest_us, back.is_continuous), (50_000_000, false));
        // The buffer still has samples of before.
        read(&mut sampler, &[(90_000, 5), (90_200, 5)], 3);
        let back = read(&mut sampler, &[(90_000, 5), (90_200, 5), (50_000, 5)], 6);
        assert_eq!((back.newest_us, back.is_continuous), (50_000_000, false));
        let next = read(&mut sampler, &[(90_200, 5), (50_000, 5), (50_200, 7)], 7);
        assert_eq!((next.newest_us, next.covered_us), (50_200_000, 200_000));
    }

    #[test]
    fn invalid_samples_and_failures_have_no_value() {
        let mut sampler = GpuUtilizationSampler::default();
        read(&mut sampler, &[(10_000, 1)], 10);
        read(&mut sampler, &[(10_000, 1), (10_500, 101), (10_600, 5)], 11);
        assert_eq!(sampler.take_min_mean_max(), Ok(MinMeanMax { min: 5.0, mean: 5.0, max: 5.0 }));
        let failed = sampler.read(&mut Buffer(Err(Missing::Unsupported), 12));
        assert_eq!(failed, Err(Missing::Unsupported));
        assert_eq!(sampler.take_min_mean_max(), Err(Missing::Unsupported));
        let next = read(&mut sampler, &[(10_600, 5), (10_800, 5)], 13);
        assert_eq!(next.covered_us, 200_000, "the cursor stays");
    }
}
