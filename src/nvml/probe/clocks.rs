//! Clocks of a device, and the reasons of their changes.

use nvml_wrapper::enum_wrappers::device::Clock;

use super::Probe;
use crate::model::{Missing, Reading};
use crate::nvml::raw;

impl Probe<'_> {
    /// SM clock, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn sm_clock(&self) -> Reading {
        self.clock(Clock::SM)
    }

    /// Memory clock, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn memory_clock(&self) -> Reading {
        self.clock(Clock::Memory)
    }

    /// Video engine clock, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn video_clock(&self) -> Reading {
        self.clock(Clock::Video)
    }

    /// Each clock is read once, so that its values in two units agree.
    fn clock(&self, domain: Clock) -> Reading {
        let read = || Ok(f64::from(self.device.clock_info(domain)?));
        let known = match domain {
            Clock::Graphics => return read(),
            Clock::SM => &self.clocks[0],
            Clock::Memory => &self.clocks[1],
            Clock::Video => &self.clocks[2],
        };
        *known.get_or_init(read)
    }

    /// Application SM clock, MHz (`nvmlDeviceGetApplicationsClock` of the graphics clock, which the
    /// SMs use).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn application_sm_clock(&self) -> Reading {
        Ok(f64::from(self.device.applications_clock(Clock::Graphics)?))
    }

    /// Application memory clock, MHz (`nvmlDeviceGetApplicationsClock`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn application_memory_clock(&self) -> Reading {
        Ok(f64::from(self.device.applications_clock(Clock::Memory)?))
    }

    /// Clock event (throttle) reasons, a bitmask (`nvmlDeviceGetCurrentClocksEventReasons`).
    ///
    /// # Errors
    /// Returns the NVML error.
    #[expect(clippy::cast_precision_loss, reason = "NVML defines the low 9 bits")]
    pub fn clock_event_reasons(&self) -> Reading {
        Ok(self.clock_event_bits()? as f64)
    }

    /// Clock event (throttle) reasons.
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn clock_event_bits(&self) -> Result<u64, Missing> {
        let read = || raw::clocks::clock_event_reasons(self.session.nvml(), self.handle);
        *self.clock_event_reasons.get_or_init(read)
    }
}
