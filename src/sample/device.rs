//! The readings of one GPU.

use std::sync::Arc;

use super::link_fields::LabeledReadings;
use super::partition::PartitionSample;
use super::reading_cache::CachedReading;
use crate::model::{Discards, Gpu, HealthSample, Limits, LinkStates, Missing, Moment, Reading};
use crate::nvml::raw::Handle;

/// Readings of one GPU in one cycle.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Identity of the GPU.
    pub gpu: Arc<Gpu>,
    /// Current NVML handle.
    pub handle: Handle,
    /// Power and temperature limits.
    pub limits: Limits,
    /// Compute mode in DCGM's encoding (`nvmlDeviceGetComputeMode`), if container
    /// families are selected.
    pub compute_mode: Reading,
    /// When the read began.
    pub at: Moment,
    /// One cached reading per row of the device slice of the catalog, in its order; `None` for rows
    /// that are not selected.
    pub readings: Vec<Option<CachedReading>>,
    /// Readings of the instance slice from the whole GPU while MIG is enabled; only if the device
    /// selector includes the whole GPU.
    pub mig_parent_readings: Option<Vec<Option<CachedReading>>>,
    /// One value per row of the info label slice; `None` for rows that are not selected or need no
    /// read.
    pub info_labels: Vec<Option<Result<Arc<str>, Missing>>>,
    /// Clock event (throttle) reasons, if a family that needs them is selected.
    pub clock_event_reasons: Option<Result<u64, Missing>>,
    /// `NVLink` peer-to-peer status (`nvmlGpuP2PStatus_t`) by index of the other GPU; empty if not
    /// selected.
    pub peers: Vec<(u32, Result<u32, Missing>)>,
    /// `NVLink` states, if a link family is selected or the health sample is due.
    pub links: Option<Result<LinkStates, Missing>>,
    /// Readings of links and of the place in the rack, as far as they are selected.
    pub labeled: LabeledReadings,
    /// Health sample, if it is due.
    pub health: Option<HealthSample>,
    /// Energy since the driver was loaded, joules (`NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION`); only if
    /// energy is accumulated per container.
    pub energy: Option<Reading>,
    /// The whole GPU, or its MIG devices while MIG is enabled.
    pub partitions: Vec<PartitionSample>,
    /// Whether the list of partitions is complete, or why not.
    pub partitions_complete: Result<(), Missing>,
    /// Discarded rows since the session began.
    pub discards: Discards,
    /// Offset of the driver's clock from the wall clock, seconds, if known.
    pub driver_clock_offset: Option<f64>,
    /// Whether the GPU was busy in the last windows, and none of their utilization rows was valid.
    pub refuses_all_rows: bool,
}

impl DeviceSample {
    /// State of the whole GPU.
    ///
    /// # Errors
    /// The GPU or the driver is lost, or nothing of the GPU can be read.
    pub fn state(&self) -> Result<(), Missing> {
        // Cached readings of earlier cycles are not evidence of the current state.
        let cells =
            self.readings.iter().chain(self.partitions.iter().flat_map(|part| &part.readings));
        let present = cells.flatten().filter(|cell| cell.at >= self.at.mono);
        let framebuffers = self.partitions.iter().map(|part| part.framebuffer.map(drop));
        let all = present.map(|cell| cell.reading.map(drop)).chain(framebuffers);
        let now = || all.clone();
        let failures = || now().filter_map(Result::err);
        let fatal = |m: &Missing| matches!(m, Missing::Lost | Missing::DriverGone);
        if let Some(missing) = failures().find(fatal) {
            return Err(missing);
        }
        if now().any(|read| read.is_ok()) {
            return Ok(());
        }
        // That a value is not supported is a response, too: a system on chip reports no framebuffer. And what the
        // driver limits for the exporter says nothing about the GPU.
        let is_response = |m: &Missing| matches!(m, Missing::Unsupported | Missing::Limited);
        failures().find(|m| !is_response(m)).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Reading;

    fn sample(readings: &[Reading]) -> DeviceSample {
        let at = Moment { mono: Duration::ZERO, wall_us: 0 };
        let gpu = Arc::new(Gpu {
            index: 0,
            minor: None,
            uuid: "GPU-0".into(),
            name: "".into(),
            pci_bus_id: "".into(),
        });
        let cells =
            readings.iter().map(|r| Some(CachedReading { reading: *r, at: at.mono })).collect();
        DeviceSample {
            gpu,
            handle: Handle::none(),
            limits: Limits::default(),
            compute_mode: Err(Missing::Pending),
            at,
            readings: cells,
            mig_parent_readings: None,
            info_labels: Vec::new(),
            clock_event_reasons: None,
            peers: Vec::new(),
            links: None,
            labeled: LabeledReadings::default(),
            health: None,
            energy: None,
            partitions: Vec::new(),
            partitions_complete: Ok(()),
            discards: Discards::default(),
            driver_clock_offset: None,
            refuses_all_rows: false,
        }
    }

    #[test]
    fn gpu_is_up_while_one_reading_succeeds() {
        let failed = Err(Missing::Failed(999));
        assert_eq!(sample(&[failed, Ok(1.0)]).state(), Ok(()));
        assert_eq!(sample(&[failed, Err(Missing::Unsupported)]).state(), Err(Missing::Failed(999)));
        assert_eq!(sample(&[Ok(1.0), Err(Missing::Lost)]).state(), Err(Missing::Lost));
        assert_eq!(sample(&[Err(Missing::Unsupported)]).state(), Ok(()), "a response");
        assert_eq!(sample(&[Err(Missing::Limited)]).state(), Ok(()), "the exporter's own limit");
        assert_eq!(sample(&[Err(Missing::Limited), failed]).state(), Err(Missing::Failed(999)));
    }
}
