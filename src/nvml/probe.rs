//! One device in one cycle: each NVML call is made once, whoever asks.

mod board;
mod errors;

use std::cell::OnceCell;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::struct_wrappers::device::{BAR1MemoryInfo, Utilization};

use super::Session;
use super::raw::fields::Field;
use super::raw::health::{Fabric, SpareRows};
use super::raw::memory::Memory;
use super::raw::{self, Handle};
use crate::model::{Missing, Reading};
use crate::policy::TEMPERATURE_MAX;

const MIB: u64 = 1024 * 1024;

/// Reads of one device, memoised for one cycle.
pub struct Probe<'nvml> {
    session: &'nvml Session,
    handle: Handle,
    device: Device<'nvml>,
    fields: &'nvml [Field],
    field_values: OnceCell<Result<Vec<Reading>, Missing>>,
    memory: OnceCell<Result<Memory, Missing>>,
    utilization: OnceCell<Result<Utilization, Missing>>,
    bar1: OnceCell<Result<BAR1MemoryInfo, Missing>>,
    fabric: OnceCell<Result<Fabric, Missing>>,
    spare_rows: OnceCell<Result<SpareRows, Missing>>,
    gpm: Gpm<'nvml>,
    extent: Result<Extent, Missing>,
}

/// The lowest, the mean and the highest of some samples, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// The lowest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The highest.
    pub max: f64,
}

/// What GPM measured of the device, by metric.
#[derive(Clone, Copy, Debug)]
pub struct Gpm<'a> {
    /// The metrics that were asked for (`nvmlGpmMetricId_t`).
    pub ids: &'a [u32],
    /// Their readings, in that order.
    pub readings: Result<&'a [Reading], Missing>,
}

impl Gpm<'_> {
    /// Nothing was asked for.
    pub const NONE: Self = Self { ids: &[], readings: Err(Missing::Unsupported) };
}

impl<'nvml> Probe<'nvml> {
    /// A probe that asks for all of `fields` in one call when the first of them is wanted.
    #[must_use]
    pub fn new(session: &'nvml Session, handle: Handle, fields: &'nvml [Field]) -> Self {
        Self {
            session,
            handle,
            device: handle.device(session.nvml()),
            fields,
            field_values: OnceCell::new(),
            memory: OnceCell::new(),
            utilization: OnceCell::new(),
            bar1: OnceCell::new(),
            fabric: OnceCell::new(),
            spare_rows: OnceCell::new(),
            gpm: Gpm::NONE,
            extent: Err(Missing::Pending),
        }
    }

    /// The same, with what GPM measured.
    #[must_use]
    pub fn with_gpm(self, gpm: Gpm<'nvml>) -> Self {
        Self { gpm, ..self }
    }

    /// The same, with what the GPU's samples said since the last cycle.
    #[must_use]
    pub fn with_extent(self, extent: Result<Extent, Missing>) -> Self {
        Self { extent, ..self }
    }

    /// What the samples of the GPU's utilization said since the last cycle (`nvmlDeviceGetSamples`).
    ///
    /// # Errors
    /// What the driver answered; pending without a sample.
    pub fn utilization_extent(&self) -> Result<Extent, Missing> {
        self.extent
    }

    /// A metric of GPM, in its own unit (`nvmlGpmMetricsGet`).
    ///
    /// # Errors
    /// What the driver answered; unsupported before Hopper; pending before the second sample.
    pub fn gpm(&self, id: u32) -> Reading {
        let readings = self.gpm.readings?;
        let position = self.gpm.ids.iter().position(|asked| *asked == id);
        position.and_then(|at| readings.get(at)).copied().unwrap_or(Err(Missing::Unsupported))
    }

    /// Share of the last sample period in which a kernel ran, percent (`nvmlDeviceGetUtilizationRates`).
    ///
    /// # Errors
    /// What the driver answered; not supported while MIG is on.
    pub fn gpu_utilization(&self) -> Reading {
        percent(self.utilization()?.gpu)
    }

    /// Share of the last sample period in which memory was read or written, percent.
    ///
    /// # Errors
    /// As [`Probe::gpu_utilization`].
    pub fn memory_utilization(&self) -> Reading {
        percent(self.utilization()?.memory)
    }

    fn utilization(&self) -> Result<Utilization, Missing> {
        let read = || Ok(self.device.utilization_rates()?);
        self.utilization.get_or_init(read).clone()
    }

    /// Encoder utilization, percent (`nvmlDeviceGetEncoderUtilization`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn encoder_utilization(&self) -> Reading {
        percent(self.device.encoder_utilization()?.utilization)
    }

    /// Decoder utilization, percent (`nvmlDeviceGetDecoderUtilization`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn decoder_utilization(&self) -> Reading {
        percent(self.device.decoder_utilization()?.utilization)
    }

    /// Framebuffer, bytes (`nvmlDeviceGetMemoryInfo_v2`, v1 before driver 510).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn memory(&self) -> Result<Memory, Missing> {
        *self.memory.get_or_init(|| raw::memory::memory(self.session.nvml(), self.handle))
    }

    /// Framebuffer of the device, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_total(&self) -> Reading {
        Ok(mebibytes(self.memory()?.total))
    }

    /// Framebuffer in use, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_used(&self) -> Reading {
        Ok(mebibytes(self.memory()?.used))
    }

    /// Framebuffer free, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_free(&self) -> Reading {
        Ok(mebibytes(self.memory()?.free))
    }

    /// Framebuffer that the driver keeps for itself, MiB (`nvmlDeviceGetMemoryInfo_v2`).
    ///
    /// # Errors
    /// As [`Probe::memory`]; unsupported before driver 510.
    pub fn memory_reserved(&self) -> Reading {
        Ok(mebibytes(self.memory()?.reserved.ok_or(Missing::Unsupported)?))
    }

    /// Part of the framebuffer in use, of what can be used, 0 to 1.
    ///
    /// # Errors
    /// As [`Probe::memory`]; invalid where nothing can be used.
    pub fn memory_used_ratio(&self) -> Reading {
        let memory = self.memory()?;
        let usable = memory.total.saturating_sub(memory.reserved.unwrap_or_default());
        if usable == 0 { Err(Missing::Invalid) } else { Ok(bytes(memory.used) / bytes(usable)) }
    }

    /// Framebuffer of the device, bytes.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_total_bytes(&self) -> Reading {
        Ok(bytes(self.memory()?.total))
    }

    /// BAR1 aperture of the device, bytes (`nvmlDeviceGetBAR1MemoryInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn bar1_total_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.total))
    }

    /// BAR1 in use, bytes.
    ///
    /// # Errors
    /// As [`Probe::bar1_total_bytes`].
    pub fn bar1_used_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.used))
    }

    /// BAR1 free, bytes.
    ///
    /// # Errors
    /// As [`Probe::bar1_total_bytes`].
    pub fn bar1_free_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.free))
    }

    /// BAR1 aperture of the device, MiB (`nvmlDeviceGetBAR1MemoryInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn bar1_total(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.total))
    }

    /// BAR1 in use, MiB.
    ///
    /// # Errors
    /// As [`Probe::bar1_total`].
    pub fn bar1_used(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.used))
    }

    /// BAR1 free, MiB.
    ///
    /// # Errors
    /// As [`Probe::bar1_total`].
    pub fn bar1_free(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.free))
    }

    fn bar1(&self) -> Result<BAR1MemoryInfo, Missing> {
        let read = || Ok(self.device.bar1_memory_info()?);
        self.bar1.get_or_init(read).clone()
    }

    /// SM clock, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn sm_clock(&self) -> Reading {
        Ok(f64::from(self.device.clock_info(Clock::SM)?))
    }

    /// Memory clock, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn memory_clock(&self) -> Reading {
        Ok(f64::from(self.device.clock_info(Clock::Memory)?))
    }

    /// Clock of the video engines, MHz (`nvmlDeviceGetClockInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn video_clock(&self) -> Reading {
        Ok(f64::from(self.device.clock_info(Clock::Video)?))
    }

    /// SM clock that applications asked for, MHz (`nvmlDeviceGetApplicationsClock` of graphics,
    /// which the SM runs with).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn application_sm_clock(&self) -> Reading {
        Ok(f64::from(self.device.applications_clock(Clock::Graphics)?))
    }

    /// Memory clock that applications asked for, MHz (`nvmlDeviceGetApplicationsClock`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn application_memory_clock(&self) -> Reading {
        Ok(f64::from(self.device.applications_clock(Clock::Memory)?))
    }

    /// Pages retired because of single-bit errors (`nvmlDeviceGetRetiredPages`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn retired_by_single_bit_errors(&self) -> Reading {
        let pages = raw::pages::retired_by_single_bit_errors(self.session.nvml(), self.handle)?;
        Ok(f64::from(pages))
    }

    /// Temperature of the die, °C (`nvmlDeviceGetTemperature`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn temperature(&self) -> Reading {
        celsius(f64::from(self.device.temperature(TemperatureSensor::Gpu)?))
    }

    /// Power draw of the board, W (`nvmlDeviceGetPowerUsage`, mW).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn power(&self) -> Reading {
        Ok(f64::from(self.device.power_usage()?) / 1000.0)
    }

    /// Performance state, 0 (fastest) to 15 (`nvmlDeviceGetPerformanceState`).
    ///
    /// # Errors
    /// What the driver answered; invalid where it says "unknown".
    pub fn performance_state(&self) -> Reading {
        let state = self.device.performance_state()?.as_c();
        if state <= 15 { Ok(f64::from(state)) } else { Err(Missing::Invalid) }
    }

    /// Why the clocks are lower than they could be, a bitmask (`nvmlDeviceGetCurrentClocksEventReasons`).
    ///
    /// # Errors
    /// What the driver answered.
    #[expect(clippy::cast_precision_loss, reason = "NVML defines the low 9 bits")]
    pub fn clock_event_reasons(&self) -> Reading {
        Ok(raw::clocks::clock_event_reasons(self.session.nvml(), self.handle)? as f64)
    }

    /// The value of one of the fields that the probe was made with, as the driver gave it.
    ///
    /// # Errors
    /// What the driver answered for the field, or for the call as a whole.
    pub fn field(&self, field: Field) -> Reading {
        let read = || raw::fields::field_values(self.session.nvml(), self.handle, self.fields);
        let values = self.field_values.get_or_init(read).as_ref().map_err(|m| *m)?;
        let position = self.fields.iter().position(|f| *f == field);
        position.and_then(|at| values.get(at)).copied().unwrap_or(Err(Missing::Unsupported))
    }
}

fn percent(value: u32) -> Reading {
    if value <= 100 { Ok(f64::from(value)) } else { Err(Missing::Invalid) }
}

/// A temperature, unless it is a sentinel.
///
/// # Errors
/// [`Missing::Invalid`] above [`TEMPERATURE_MAX`].
pub fn celsius(value: f64) -> Reading {
    if value <= TEMPERATURE_MAX { Ok(value) } else { Err(Missing::Invalid) }
}

/// Whole MiB in `bytes`, truncated as users of the DCGM series expect.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "2^53 MiB is beyond any GPU")]
pub fn mebibytes(bytes: u64) -> f64 {
    (bytes / MIB) as f64
}

#[expect(clippy::cast_precision_loss, reason = "no GPU has 2^53 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_true_is_absent() {
        assert_eq!(percent(100), Ok(100.0));
        assert_eq!(percent(101), Err(Missing::Invalid));
        assert_eq!(celsius(200.0), Ok(200.0));
        assert_eq!(celsius(f64::from(u32::MAX)), Err(Missing::Invalid));
        assert_eq!(celsius(f64::NAN), Err(Missing::Invalid));
    }

    #[test]
    fn mebibytes_are_truncated() {
        assert_eq!(mebibytes(MIB - 1).to_bits(), 0.0_f64.to_bits());
        assert_eq!(mebibytes(3 * MIB + 1).to_bits(), 3.0_f64.to_bits());
    }
}
