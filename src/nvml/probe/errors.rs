//! Reads of error counters: ECC, row remapping, `NVLink`.

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;

use super::Probe;
use super::board::flag;
use crate::model::{LinkFields, Missing, Reading};
use crate::nvml::links::LinkKind;
use crate::nvml::raw;
use crate::nvml::raw::health::SpareRows;

impl Probe<'_> {
    /// Whether ECC is enabled (`nvmlDeviceGetEccMode`, current mode).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn ecc_mode(&self) -> Reading {
        Ok(flag(self.device.is_ecc_enabled()?.currently_enabled))
    }

    /// Whether ECC is enabled after the next reboot (`nvmlDeviceGetEccMode`, pending mode).
    ///
    /// # Errors
    /// As [`Probe::ecc_mode`].
    pub fn ecc_mode_pending(&self) -> Reading {
        Ok(flag(self.device.is_ecc_enabled()?.pending_enabled))
    }

    /// ECC errors of the whole board (`nvmlDeviceGetTotalEccErrors`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported while ECC is disabled.
    pub fn ecc_errors(&self, kind: MemoryError, counter: EccCounter) -> Reading {
        Ok(count(self.device.total_ecc_errors(kind, counter)?))
    }

    /// ECC errors of one memory location (`nvmlDeviceGetMemoryErrorCounter`).
    ///
    /// # Errors
    /// Returns the NVML error; most boards support some locations only.
    pub fn ecc_errors_by_location(
        &self,
        kind: MemoryError,
        counter: EccCounter,
        location: MemoryLocation,
    ) -> Reading {
        Ok(count(self.device.memory_error_counter(kind, counter, location)?))
    }

    /// Whether the SRAM error threshold is exceeded (`nvmlDeviceGetSramEccErrorStatus`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn exceeds_sram_threshold(&self) -> Result<bool, Missing> {
        let status = raw::health::sram_errors(self.session.nvml(), self.handle)?;
        Ok(status.bThresholdExceeded != 0)
    }

    /// [`Probe::exceeds_sram_threshold`] as a number.
    ///
    /// # Errors
    /// As [`Probe::exceeds_sram_threshold`].
    pub fn sram_threshold_exceeded(&self) -> Reading {
        Ok(flag(self.exceeds_sram_threshold()?))
    }

    /// Readings of fields of each link of one kind.
    ///
    /// # Errors
    /// As [`crate::nvml::Session::link_fields`].
    pub fn link_fields(&self, kind: LinkKind, fields: &[u32]) -> Result<LinkFields, Missing> {
        self.session.link_fields(self.handle, kind, fields)
    }

    /// Number of banks in one class of remaining spare rows (`nvmlDeviceGetRowRemapperHistogram`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn spare_rows(&self, class: fn(SpareRows) -> u32) -> Reading {
        let read = || raw::health::spare_rows(self.session.nvml(), self.handle);
        let rows: Result<SpareRows, Missing> = *self.spare_rows.get_or_init(read);
        Ok(f64::from(class(rows?)))
    }

    /// Errors of one `NVLink` (`nvmlDeviceGetNvLinkErrorCounter`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported for links that the board does not have, and since
    /// Hopper.
    pub fn link_errors(&self, link: u32, counter: ErrorCounter) -> Reading {
        Ok(count(self.device.link_wrapper_for(link).error_counter(counter)?))
    }
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn count(n: u64) -> f64 {
    n as f64
}
