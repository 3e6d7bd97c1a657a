//! GPU instance id and compute instance id of a MIG device.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `nvmlDeviceGetGpuInstanceId` of a MIG device.
///
/// # Errors
/// Returns the NVML error.
pub fn gpu_instance_id(nvml: &Nvml, mig: Handle) -> Result<u32, Missing> {
    id(symbol(&nvml.lib().nvmlDeviceGetGpuInstanceId)?, mig)
}

/// `nvmlDeviceGetComputeInstanceId` of a MIG device.
///
/// # Errors
/// Returns the NVML error.
pub fn compute_instance_id(nvml: &Nvml, mig: Handle) -> Result<u32, Missing> {
    id(symbol(&nvml.lib().nvmlDeviceGetComputeInstanceId)?, mig)
}

fn id(
    call: unsafe extern "C" fn(nvmlDevice_t, *mut u32) -> nvmlReturn_t,
    mig: Handle,
) -> Result<u32, Missing> {
    let mut id = 0;
    // SAFETY: `id` is a live u32, which both calls write.
    check(unsafe { call(mig.0, &raw mut id) })?;
    Ok(id)
}
