//! Enumerations of a device, as numbers: nvml-wrapper returns an unknown value as if it were an error
//! code.

use nvml_wrapper::Nvml;

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `nvmlDeviceGetPerformanceState`, an `nvmlPstates_t`.
///
/// # Errors
/// Returns the NVML error.
pub fn performance_state(nvml: &Nvml, handle: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetPerformanceState)?;
    let mut state = 0;
    // SAFETY: `state` is live, and any number is valid for it.
    check(unsafe { call(handle.0, &raw mut state) })?;
    Ok(state)
}

/// `nvmlDeviceGetBrand`, an `nvmlBrandType_t`.
///
/// # Errors
/// Returns the NVML error.
pub fn brand(nvml: &Nvml, handle: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetBrand)?;
    let mut brand = 0;
    // SAFETY: `brand` is live, and any number is valid for it.
    check(unsafe { call(handle.0, &raw mut brand) })?;
    Ok(brand)
}

/// `nvmlDeviceGetComputeMode`, an `nvmlComputeMode_t`.
///
/// # Errors
/// Returns the NVML error.
pub fn compute_mode(nvml: &Nvml, handle: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetComputeMode)?;
    let mut mode = 0;
    // SAFETY: `mode` is live, and any number is valid for it.
    check(unsafe { call(handle.0, &raw mut mode) })?;
    Ok(mode)
}
