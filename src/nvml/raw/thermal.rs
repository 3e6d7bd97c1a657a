//! Temperatures.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlMarginTemperature_v1_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH, nvmlTemperature_v1_t,
    nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU as GPU,
};

use super::{Handle, check, symbol, version};
use crate::model::Missing;

/// GPU die temperature, °C: `nvmlDeviceGetTemperatureV`, or `nvmlDeviceGetTemperature` (before driver
/// 570; removed in CUDA 14).
///
/// # Errors
/// Returns the NVML error.
pub fn temperature(nvml: &Nvml, gpu: Handle) -> Result<i32, Missing> {
    match temperature_v(nvml, gpu) {
        Err(Missing::Unsupported | Missing::Failed(VERSION_MISMATCH)) => old_temperature(nvml, gpu),
        result => result,
    }
}

fn temperature_v(nvml: &Nvml, gpu: Handle) -> Result<i32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetTemperatureV)?;
    let mut reading = nvmlTemperature_v1_t {
        version: version::<nvmlTemperature_v1_t>(1),
        sensorType: GPU,
        temperature: 0,
    };
    // SAFETY: `reading` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut reading) })?;
    Ok(reading.temperature)
}

fn old_temperature(nvml: &Nvml, gpu: Handle) -> Result<i32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetTemperature)?;
    let mut celsius = 0_u32;
    // SAFETY: `celsius` is a live u32, which the call writes.
    check(unsafe { call(gpu.0, GPU, &raw mut celsius) })?;
    i32::try_from(celsius).map_err(|_| Missing::Invalid)
}

/// Distance of the GPU to its nearest slowdown threshold, °C (`nvmlDeviceGetMarginTemperature`);
/// negative above it.
///
/// # Errors
/// Returns the NVML error; unsupported before driver 570.
pub fn temperature_margin(nvml: &Nvml, gpu: Handle) -> Result<i32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetMarginTemperature)?;
    let mut margin = nvmlMarginTemperature_v1_t {
        version: version::<nvmlMarginTemperature_v1_t>(1),
        marginTemperature: 0,
    };
    // SAFETY: `margin` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut margin) })?;
    Ok(margin.marginTemperature)
}
