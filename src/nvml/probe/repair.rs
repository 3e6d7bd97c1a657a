//! Reads of repairs, of the temperature margin and of SRAM errors.

use super::Probe;
use super::board::flag;
use crate::model::{Missing, Reading};
use crate::nvml::raw;
use crate::nvml::raw::health::SramErrors;
use crate::nvml::raw::repair::PendingRepairs;

impl Probe<'_> {
    /// Whether the GPU has memory that cannot be repaired
    /// (`nvmlDeviceGetUnrepairableMemoryFlag_v1`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before Hopper and before driver 590.
    pub fn has_unrepairable_memory(&self) -> Result<bool, Missing> {
        raw::repair::has_unrepairable_memory(self.session.newer(), self.handle)
    }

    /// [`Probe::has_unrepairable_memory`] as a number.
    ///
    /// # Errors
    /// As [`Probe::has_unrepairable_memory`].
    pub fn unrepairable_memory(&self) -> Reading {
        Ok(flag(self.has_unrepairable_memory()?))
    }

    /// Repairs that the next reset makes (`nvmlDeviceGetRepairStatus`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before Ampere and before driver 580.
    pub fn pending_repairs(&self) -> Result<PendingRepairs, Missing> {
        raw::repair::pending_repairs(self.session.nvml(), self.handle)
    }

    /// Whether the next reset repairs a memory channel.
    ///
    /// # Errors
    /// As [`Probe::pending_repairs`].
    pub fn channel_repair_pending(&self) -> Reading {
        Ok(flag(self.pending_repairs()?.channel))
    }

    /// Whether the next reset repairs a TPC.
    ///
    /// # Errors
    /// As [`Probe::pending_repairs`].
    pub fn tpc_repair_pending(&self) -> Reading {
        Ok(flag(self.pending_repairs()?.tpc))
    }

    /// Distance to the nearest slowdown temperature, °C (`nvmlDeviceGetMarginTemperature`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before driver 570.
    pub fn temperature_margin(&self) -> Reading {
        let margin = raw::thermal::temperature_margin(self.session.nvml(), self.handle)?;
        super::celsius(f64::from(margin))
    }

    /// One of the SRAM error counters (`nvmlDeviceGetSramEccErrorStatus`).
    ///
    /// # Errors
    /// Returns the NVML error.
    #[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
    pub fn sram_errors(&self, of: fn(&SramErrors) -> u64) -> Reading {
        Ok(of(&raw::health::sram_errors(self.session.nvml(), self.handle)?) as f64)
    }
}
