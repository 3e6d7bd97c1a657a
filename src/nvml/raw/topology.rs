//! How two GPUs reach each other.

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
