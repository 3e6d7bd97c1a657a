//! What broke and was counted: memory errors, spare rows, links.

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;

use super::Probe;
use super::board::flag;
use crate::model::{Missing, Reading};
use crate::nvml::raw;
use crate::nvml::raw::health::SpareRows;

impl Probe<'_> {
    /// Whether ECC is on (`nvmlDeviceGetEccMode`, the current mode).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn ecc_mode(&self) -> Reading {
        Ok(flag(self.device.is_ecc_enabled()?.currently_enabled))
    }

    /// Whether ECC will be on after the next reboot.
    ///
    /// # Errors
    /// As [`Probe::ecc_mode`].
    pub fn ecc_mode_pending(&self) -> Reading {
        Ok(flag(self.device.is_ecc_enabled()?.pending_enabled))
    }

    /// Memory errors of the whole board (`nvmlDeviceGetTotalEccErrors`).
    ///
    /// # Errors
    /// What the driver answered; unsupported while ECC is off.
    pub fn ecc_errors(&self, kind: MemoryError, counter: EccCounter) -> Reading {
        Ok(count(self.device.total_ecc_errors(kind, counter)?))
    }

    /// Memory errors in one kind of memory (`nvmlDeviceGetMemoryErrorCounter`).
    ///
    /// # Errors
    /// What the driver answered; most boards count some kinds only.
    pub fn ecc_errors_at(
        &self,
        kind: MemoryError,
        counter: EccCounter,
        location: MemoryLocation,
    ) -> Reading {
        Ok(count(self.device.memory_error_counter(kind, counter, location)?))
    }

    /// Whether the errors in SRAM are above the threshold (`nvmlDeviceGetSramEccErrorStatus`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn sram_exceeded(&self) -> Reading {
        Ok(flag(raw::health::sram_exceeded(self.session.nvml(), self.handle)?))
    }

    /// Banks by the spare rows that they have left (`nvmlDeviceGetRowRemapperHistogram`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn spare_rows(&self, of: fn(SpareRows) -> u32) -> Reading {
        let read = || raw::health::spare_rows(self.session.nvml(), self.handle);
        let rows: Result<SpareRows, Missing> = *self.spare_rows.get_or_init(read);
        Ok(f64::from(of(rows?)))
    }

    /// Errors of one `NVLink` (`nvmlDeviceGetNvLinkErrorCounter`).
    ///
    /// # Errors
    /// What the driver answered; unsupported by links that the board has not, and since Hopper.
    pub fn link_errors(&self, link: u32, counter: ErrorCounter) -> Reading {
        Ok(count(self.device.link_wrapper_for(link).error_counter(counter)?))
    }
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn count(n: u64) -> f64 {
    n as f64
}
