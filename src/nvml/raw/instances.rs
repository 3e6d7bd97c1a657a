//! GPU instance id, compute instance id and placement of a MIG device.

use std::mem::MaybeUninit;
use std::ptr;

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpuInstanceInfo_t, nvmlReturn_t};

use super::{Handle, check, symbol};
use crate::model::{MigPlacement, Missing};

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

/// Placement of the GPU instance `id` of `gpu` (`nvmlDeviceGetGpuInstanceById`,
/// `nvmlGpuInstanceGetInfo`).
///
/// # Errors
/// Returns the NVML error. The first call needs root.
pub fn placement(nvml: &Nvml, gpu: Handle, id: u32) -> Result<MigPlacement, Missing> {
    let find = symbol(&nvml.lib().nvmlDeviceGetGpuInstanceById)?;
    let read = symbol(&nvml.lib().nvmlGpuInstanceGetInfo)?;
    let mut instance = ptr::null_mut();
    // SAFETY: `instance` is a live pointer, which the call writes.
    check(unsafe { find(gpu.0, id, &raw mut instance) })?;
    let mut info = MaybeUninit::<nvmlGpuInstanceInfo_t>::zeroed();
    // SAFETY: the handle is of this library, and `info` has room for the struct that the call writes.
    check(unsafe { read(instance, info.as_mut_ptr()) })?;
    // SAFETY: all fields are integers and pointers, for which zero bytes are valid.
    let info = unsafe { info.assume_init() };
    Ok(MigPlacement { profile_id: info.profileId, start: info.placement.start })
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
