//! Per-cycle cache of the NVML reads of one device: each call is made at most once.

mod board;
mod clocks;
mod counter_time;
mod errors;
mod gpm_readings;
mod memory;
mod platform;
mod repair;

use std::cell::OnceCell;

use nvml_wrapper::Device;
use nvml_wrapper::struct_wrappers::device::{BAR1MemoryInfo, Utilization};

use super::Session;
use super::raw::fabric::Fabric;
use super::raw::fields::{Field, FieldReading};
use super::raw::health::SpareRows;
use super::raw::memory::Memory;
use super::raw::{self, Handle};
use crate::clock::Clock;
use crate::model::{Missing, Moment, Reading};
use crate::policy::TEMPERATURE_MAX;

pub use counter_time::CounterTime;
pub use gpm_readings::GpmReadings;

const MIB: u64 = 1024 * 1024;

/// Reads of one device, cached for one cycle.
pub struct Probe<'nvml> {
    session: &'nvml Session,
    handle: Handle,
    device: Device<'nvml>,
    fields: &'nvml [Field],
    clock: Clock,
    field_values: OnceCell<Result<FieldBatch, Missing>>,
    memory: OnceCell<Result<Memory, Missing>>,
    memory_floor: u64,
    own_limit: Result<(), Missing>,
    utilization: OnceCell<Result<Utilization, Missing>>,
    bar1: OnceCell<Result<BAR1MemoryInfo, Missing>>,
    /// SM, memory and video clock, MHz.
    clocks: [OnceCell<Reading>; 3],
    clock_event_reasons: OnceCell<Result<u64, Missing>>,
    fabric: OnceCell<Result<Fabric, Missing>>,
    spare_rows: OnceCell<Result<SpareRows, Missing>>,
    gpm: GpmReadings<'nvml>,
    sampled_utilization: Result<MinMeanMax, Missing>,
}

/// The fields of one call, and when it returned.
struct FieldBatch {
    values: Vec<FieldReading>,
    returned: Moment,
}

/// Minimum, mean and maximum of utilization samples, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinMeanMax {
    /// Minimum.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Maximum.
    pub max: f64,
}

impl<'nvml> Probe<'nvml> {
    /// Creates a probe. All of `fields` are read in one call when the first of them is needed.
    #[must_use]
    pub fn new(
        session: &'nvml Session,
        handle: Handle,
        fields: &'nvml [Field],
        clock: Clock,
    ) -> Self {
        Self {
            session,
            handle,
            clock,
            device: handle.device(session.nvml()),
            fields,
            field_values: OnceCell::new(),
            memory: OnceCell::new(),
            memory_floor: 0,
            own_limit: Ok(()),
            utilization: OnceCell::new(),
            bar1: OnceCell::new(),
            clocks: [const { OnceCell::new() }; 3],
            clock_event_reasons: OnceCell::new(),
            fabric: OnceCell::new(),
            spare_rows: OnceCell::new(),
            gpm: GpmReadings::NONE,
            sampled_utilization: Err(Missing::Pending),
        }
    }

    /// Sets the GPM readings.
    #[must_use]
    pub fn with_gpm(self, gpm: GpmReadings<'nvml>) -> Self {
        Self { gpm, ..self }
    }

    /// Sets the framebuffer that a process certainly uses, bytes: a smaller total is invalid.
    #[must_use]
    pub fn with_memory_floor(self, memory_floor: u64) -> Self {
        Self { memory_floor, ..self }
    }

    /// Sets whether the memory that the driver reports is that of the GPU, or why not.
    #[must_use]
    pub fn with_own_limit(self, own_limit: Result<(), Missing>) -> Self {
        Self { own_limit, ..self }
    }

    /// Sets minimum, mean and maximum of the GPU utilization samples since the last cycle.
    #[must_use]
    pub fn with_sampled_utilization(
        self,
        sampled_utilization: Result<MinMeanMax, Missing>,
    ) -> Self {
        Self { sampled_utilization, ..self }
    }

    /// Minimum, mean and maximum of the GPU utilization samples since the last cycle
    /// (`nvmlDeviceGetSamples`), percent.
    ///
    /// # Errors
    /// Returns the NVML error; pending if there is no sample.
    pub fn sampled_utilization(&self) -> Result<MinMeanMax, Missing> {
        self.sampled_utilization
    }

    /// The GPM readings of the device.
    #[must_use]
    pub fn gpm_readings(&self) -> GpmReadings<'nvml> {
        self.gpm
    }

    /// A GPM metric in its own unit (`nvmlGpmMetricsGet`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before Hopper; pending before the second sample.
    pub fn gpm(&self, id: u32) -> Reading {
        let readings = self.gpm.readings?;
        let position = self.gpm.ids.iter().position(|requested| *requested == id);
        position.and_then(|at| readings.get(at)).copied().unwrap_or(Err(Missing::Unsupported))
    }

    /// GPU utilization: share of the last sample period in which a kernel ran, percent
    /// (`nvmlDeviceGetUtilizationRates`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported while MIG is enabled.
    pub fn gpu_utilization(&self) -> Reading {
        percent(self.utilization()?.gpu)
    }

    /// Memory utilization: share of the last sample period in which device memory was read or
    /// written, percent.
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
    /// Returns the NVML error.
    pub fn encoder_utilization(&self) -> Reading {
        percent(self.device.encoder_utilization()?.utilization)
    }

    /// Decoder utilization, percent (`nvmlDeviceGetDecoderUtilization`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn decoder_utilization(&self) -> Reading {
        percent(self.device.decoder_utilization()?.utilization)
    }

    /// Number of pages retired because of single-bit errors (`nvmlDeviceGetRetiredPages`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn single_bit_retired_pages(&self) -> Reading {
        let pages = raw::retired_pages::single_bit_retired_pages(self.session.nvml(), self.handle)?;
        Ok(f64::from(pages))
    }

    /// GPU die temperature, °C (`nvmlDeviceGetTemperatureV`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn temperature(&self) -> Reading {
        celsius(f64::from(raw::thermal::temperature(self.session.nvml(), self.handle)?))
    }

    /// Power draw of the board, W (`nvmlDeviceGetPowerUsage`, mW).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn power(&self) -> Reading {
        Ok(f64::from(self.device.power_usage()?) / 1000.0)
    }

    /// Performance state, 0 (fastest) to 15 (`nvmlDeviceGetPerformanceState`).
    ///
    /// # Errors
    /// Returns the NVML error; invalid for `NVML_PSTATE_UNKNOWN` and unknown states.
    pub fn performance_state(&self) -> Reading {
        let state = raw::modes::performance_state(self.session.nvml(), self.handle)?;
        if state <= 15 { Ok(f64::from(state)) } else { Err(Missing::Invalid) }
    }

    /// Unconverted value of a field (`nvmlDeviceGetFieldValues`); `field` must be one of those
    /// passed to [`Probe::new`].
    ///
    /// # Errors
    /// Returns the NVML error of the field or of the call; unsupported for a field that was not
    /// requested.
    pub fn field(&self, field: Field) -> Reading {
        self.counter(field).and_then(|(reading, _)| reading)
    }

    /// As [`Probe::field`], with the time of the reading.
    ///
    /// # Errors
    /// Returns the NVML error of the call; unsupported for a field that was not requested.
    pub fn counter(&self, field: Field) -> Result<(Reading, CounterTime), Missing> {
        let read = || {
            let values = raw::fields::field_values(
                self.session.nvml(),
                self.session.field_numbering(),
                self.handle,
                self.fields,
            )?;
            Ok(FieldBatch { values, returned: self.clock.now() })
        };
        let batch = self.field_values.get_or_init(read).as_ref().map_err(|m| *m)?;
        let position = self.fields.iter().position(|f| *f == field);
        let value = position.and_then(|at| batch.values.get(at)).ok_or(Missing::Unsupported)?;
        let time = CounterTime { stamp_us: value.stamp_us, returned: batch.returned };
        Ok((value.reading, time))
    }

    /// The time now: when a reading was taken, if called after it.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }
}

fn percent(value: u32) -> Reading {
    if value <= 100 { Ok(f64::from(value)) } else { Err(Missing::Invalid) }
}

/// Rejects sentinel values of temperatures, °C.
///
/// # Errors
/// Returns [`Missing::Invalid`] above [`TEMPERATURE_MAX`].
pub fn celsius(value: f64) -> Reading {
    if value <= TEMPERATURE_MAX { Ok(value) } else { Err(Missing::Invalid) }
}

/// The compute mode "exclusive process" in DCGM's encoding.
pub const EXCLUSIVE_PROCESS: f64 = 2.0;

/// Converts bytes to whole MiB, truncated as in DCGM series.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "2^53 MiB is beyond any GPU")]
pub fn mebibytes(bytes: u64) -> f64 {
    (bytes / MIB) as f64
}

/// A number of bytes.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no GPU has 2^53 bytes")]
pub fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_invalid() {
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
