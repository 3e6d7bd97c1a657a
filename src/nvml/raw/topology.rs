//! How two GPUs reach each other, and by which links.

use nvml_wrapper::Nvml;

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `NVML_P2P_CAPS_INDEX_NVLINK`.
const NVLINK: u32 = 2;

/// Whether one GPU reaches another over `NVLink` (`nvmlDeviceGetP2PStatus`): 0 it does, else why not
/// (`nvmlGpuP2PStatus_t`).
///
/// # Errors
/// What the driver answered.
pub fn nvlink_status(nvml: &Nvml, from: Handle, to: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetP2PStatus)?;
    let mut status = 0;
    // SAFETY: `status` is a live u32, which the call writes.
    check(unsafe { call(from.0, to.0, NVLINK, &raw mut status) })?;
    Ok(status)
}

/// Whether a link (`NVLink`) is active, 0 or 1 (`nvmlDeviceGetNvLinkState`).
///
/// # Errors
/// What the driver answered.
pub fn link_state(nvml: &Nvml, gpu: Handle, link: u32) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetNvLinkState)?;
    let mut state = 0;
    // SAFETY: `state` is a live place for the enum, which the call writes.
    check(unsafe { call(gpu.0, link, &raw mut state) })?;
    Ok(state)
}
