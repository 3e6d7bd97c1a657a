//! The last sample of a GPU, without readings that are too old.

use std::time::Duration;

use crate::catalog::DeviceSource;
use crate::model::{DeviceProcesses, Missing, Moment, Reading};
use crate::policy::Tier;
use crate::sample::SampledGpu;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::sample::reading_cache::CachedReading;
use crate::selection::{SelectedFamilies, SelectedFamily};

/// The last sample of a GPU, and whether it is current.
pub struct CurrentSample<'a> {
    /// State of the GPU's worker thread and its last response.
    pub gpu: &'a SampledGpu,
    /// Last sample of the GPU.
    pub sample: &'a DeviceSample,
    /// Whether the GPU can be read, or why not.
    pub state: Result<(), Missing>,
    now: Moment,
    max_age: Duration,
}

impl<'a> CurrentSample<'a> {
    /// State of a GPU at `now`. A reading may be at most `max_age` old while the driver does not
    /// respond.
    ///
    /// # Errors
    /// Why the GPU has not been identified.
    pub fn new(sampled: &'a SampledGpu, now: Moment, max_age: Duration) -> Result<Self, Missing> {
        let too_old = |since: Duration| now.mono.saturating_sub(since) > max_age;
        let sample = match &sampled.latest {
            Some(sample) => sample.as_deref().map_err(|missing| *missing)?,
            None if sampled.pending_since.is_some_and(too_old) => return Err(Missing::Hung),
            None => return Err(Missing::Pending),
        };
        let state = if too_old(sample.at.mono) { Err(Missing::Hung) } else { sample.state() };
        Ok(Self { gpu: sampled, sample, state, now, max_age })
    }

    /// Readings of the families of `selected`, from the cached readings of the GPU or of a
    /// partition.
    #[must_use]
    pub fn readings(
        &self,
        cached: &[Option<CachedReading>],
        selected: &SelectedFamilies<DeviceSource>,
    ) -> Vec<Reading> {
        self.readings_of(cached, selected.families())
    }

    /// Readings of some rows, from the cached readings of their slice.
    #[must_use]
    pub fn readings_of(
        &self,
        cached: &[Option<CachedReading>],
        families: &[SelectedFamily<DeviceSource>],
    ) -> Vec<Reading> {
        let of = |row: usize, tier| match self.state {
            // While a GPU hangs, each reading has its own maximum age: slow tiers keep longer.
            Ok(()) | Err(Missing::Hung) => {
                // A family that was selected after the sample has no reading yet.
                let cached = cached.get(row).copied().flatten().ok_or(Missing::Pending)?;
                self.reading(cached, tier)
            }
            // Cached readings of a GPU that is gone are not its current state.
            Err(missing) => Err(missing),
        };
        families.iter().map(|family| of(family.row, family.metric.tier)).collect()
    }

    /// Withholds a value that is too old. The reason of a missing value does not expire.
    fn reading(&self, cached: CachedReading, tier: Tier) -> Reading {
        // A reading of the last sample is as old as the sample.
        let age = self.now.mono.saturating_sub(cached.at.min(self.sample.at.mono));
        let too_old = age > tier.max_age(self.max_age);
        if too_old && cached.reading.is_ok() { Err(Missing::Hung) } else { cached.reading }
    }

    /// Process list of a partition.
    ///
    /// # Errors
    /// The GPU cannot be read, or the list is missing.
    pub fn process_list(
        &self,
        partition: &'a PartitionSample,
    ) -> Result<&'a DeviceProcesses, Missing> {
        self.state?;
        partition.listing.as_ref().map_err(|missing| *missing)
    }
}
