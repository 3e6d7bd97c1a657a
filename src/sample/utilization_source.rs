//! The driver's ring buffers of utilization samples, as the utilization readers use them.

use crate::clock::Clock;
use crate::model::{Missing, Moment};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::samples::{SampleBuffer, UtilizationSample, gpu_utilization};
use crate::nvml::raw::utilization::{UtilizationBuffers, UtilizationRow, process_utilization};

/// The ring buffers of one GPU. All stamps are in the driver's own time.
pub trait UtilizationSource {
    /// Samples of the GPU newer than `last_seen_us` (`nvmlDeviceGetSamples`), idle ones included;
    /// empty if there is none.
    ///
    /// # Errors
    /// Returns the NVML error.
    fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing>;

    /// One row per process that was busy after `last_seen_us`: the mean over all samples since then,
    /// idle ones included, with the stamp of the last busy sample of the process.
    ///
    /// # Errors
    /// Returns the NVML error.
    fn rows(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationRow>, Missing>;

    /// Whether the GPU is in use (`nvmlDeviceGetUtilizationRates`).
    ///
    /// # Errors
    /// Returns the NVML error.
    fn is_busy(&mut self) -> Result<bool, Missing>;

    /// The time now.
    fn now(&self) -> Moment;
}

/// Reused buffers for the calls.
#[derive(Default)]
pub struct RingBuffers {
    rows: UtilizationBuffers,
    samples: SampleBuffer,
}

/// The ring buffers of a GPU in NVML.
pub struct NvmlUtilization<'a> {
    /// The NVML session of the handle.
    pub session: &'a Session,
    /// Handle of the GPU.
    pub handle: Handle,
    /// Buffers for the calls.
    pub buffers: &'a mut RingBuffers,
    /// For the times of the calls.
    pub clock: Clock,
}

impl UtilizationSource for NvmlUtilization<'_> {
    fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing> {
        let nvml = self.session.nvml();
        gpu_utilization(nvml, self.handle, last_seen_us, &mut self.buffers.samples)
    }

    fn rows(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationRow>, Missing> {
        let nvml = self.session.nvml();
        process_utilization(nvml, self.handle, last_seen_us, &mut self.buffers.rows)
    }

    fn is_busy(&mut self) -> Result<bool, Missing> {
        Ok(self.handle.device(self.session.nvml()).utilization_rates()?.gpu > 0)
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }
}
