//! `NVLink` connections between GPUs.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK as NVLINK;

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `NVLink` peer-to-peer status between two GPUs (`nvmlDeviceGetP2PStatus`): 0 if available, else
/// the reason (`nvmlGpuP2PStatus_t`).
///
/// # Errors
/// Returns the NVML error.
pub fn nvlink_status(nvml: &Nvml, from: Handle, to: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetP2PStatus)?;
    let mut status = 0;
    // SAFETY: `status` is a live u32, which the call writes.
    check(unsafe { call(from.0, to.0, NVLINK, &raw mut status) })?;
    Ok(status)
}

/// An error counter of an `NVLink`, an `nvmlNvLinkErrorCounter_t` (`nvmlDeviceGetNvLinkErrorCounter`).
///
/// # Errors
/// Returns the NVML error; unsupported since Hopper.
pub fn link_errors(nvml: &Nvml, gpu: Handle, link: u32, counter: u32) -> Result<u64, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetNvLinkErrorCounter)?;
    let mut errors = 0;
    // SAFETY: `errors` is a live u64, which the call writes.
    check(unsafe { call(gpu.0, link, counter, &raw mut errors) })?;
    Ok(errors)
}

/// State of an `NVLink`: 0 inactive, 1 active (`nvmlDeviceGetNvLinkState`).
///
/// # Errors
/// Returns the NVML error.
pub fn link_state(nvml: &Nvml, gpu: Handle, link: u32) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetNvLinkState)?;
    let mut state = 0;
    // SAFETY: `state` is a live variable of the enum type, which the call writes.
    check(unsafe { call(gpu.0, link, &raw mut state) })?;
    Ok(state)
}
