//! NVLink fabric state, and licences of virtual GPUs.

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlGridLicensableFeatures_t,
    nvmlReturn_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, versioned},
    },
    return_code::ReturnCode,
    world::board::Board,
};

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;
/// The first branch with version 3 of the struct.
const V3_BRANCH: u32 = 570;
/// Health mask: each two-bit field is `…_FALSE`, no problem.
const ALL_HEALTHY: u32 = 0b1010_1010;
/// `NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY`.
const HEALTHY: u8 = 1;

/// Version 3 of the struct came with the 570 branch; older drivers refuse it.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let board = board("nvmlDeviceGetGpuFabricInfoV", device, |board| Ok(board.clone()))?;
        // Boards with 18 links are connected to NVSwitches.
        let in_fabric = board.is_in_fabric();
        let (state, mask) = if in_fabric { (COMPLETED, ALL_HEALTHY) } else { (0, 0) };
        let second = out.cast::<nvmlGpuFabricInfo_v2_t>();
        if board.branch() < V3_BRANCH {
            // SAFETY: the caller passes null or a struct in which the input fields are set.
            let request = unsafe { versioned(second.cast_const(), 2) }?;
            let filled = nvmlGpuFabricInfo_v2_t { state, healthMask: mask, ..request };
            // SAFETY: as above.
            return unsafe { put(second, filled) };
        }
        // SAFETY: as above.
        let request = unsafe { versioned(out.cast_const(), 3) }?;
        let summary = if in_fabric { HEALTHY } else { 0 };
        let filled =
            nvmlGpuFabricInfo_v3_t { state, healthMask: mask, healthSummary: summary, ..request };
        // SAFETY: as above.
        unsafe { put(out, filled) }
    })
}

/// No board of a scenario is a vGPU, so none needs a licence.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGridLicensableFeatures_v4(
    device: nvmlDevice_t,
    out: *mut nvmlGridLicensableFeatures_t,
) -> nvmlReturn_t {
    dispatch(|| {
        board("nvmlDeviceGetGridLicensableFeatures_v4", device, |_: &Board| Ok(()))?;
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, for which all zeroes is a value.
        unsafe { out.write_bytes(0, 1) };
        Ok(())
    })
}
