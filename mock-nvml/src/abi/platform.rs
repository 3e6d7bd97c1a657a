//! What a board is part of: a fabric of switches, and licences for virtual GPUs.

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlGridLicensableFeatures_t,
    nvmlReturn_t,
};

use super::{board, dispatch, put, versioned};
use crate::{code::Code, world::Board};

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;
/// The branch that brought the third version of the struct.
const THIRD: u32 = 570;
/// Nothing of what the mask has a place for is wrong.
const ALL_WELL: u32 = 0b1010_1010;
/// `NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY`.
const HEALTHY: u8 = 1;

/// The third version of the struct came with the branch 570, and drivers before it refuse it.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let board = board("nvmlDeviceGetGpuFabricInfoV", device, |board| Ok(board.clone()))?;
        // A board with as many links as a switch has room for is behind one.
        let in_fabric = board.is_in_fabric();
        let (state, mask) = if in_fabric { (COMPLETED, ALL_WELL) } else { (0, 0) };
        let second = out.cast::<nvmlGpuFabricInfo_v2_t>();
        if board.branch() < THIRD {
            // SAFETY: the caller gives a struct that it has filled as far as it is asked to.
            let asked = unsafe { versioned(second.cast_const(), 2) }?;
            let filled = nvmlGpuFabricInfo_v2_t { state, healthMask: mask, ..asked };
            // SAFETY: as above.
            return unsafe { put(second, filled) };
        }
        // SAFETY: as above.
        let asked = unsafe { versioned(out.cast_const(), 3) }?;
        let summary = if in_fabric { HEALTHY } else { 0 };
        let filled =
            nvmlGpuFabricInfo_v3_t { state, healthMask: mask, healthSummary: summary, ..asked };
        // SAFETY: as above.
        unsafe { put(out, filled) }
    })
}

/// No board of a scenario is a virtual one, and none needs a licence.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGridLicensableFeatures_v4(
    device: nvmlDevice_t,
    out: *mut nvmlGridLicensableFeatures_t,
) -> nvmlReturn_t {
    dispatch(|| {
        board("nvmlDeviceGetGridLicensableFeatures_v4", device, |_: &Board| Ok(()))?;
        if out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, of which all zeroes are a value.
        unsafe { out.write_bytes(0, 1) };
        Ok(())
    })
}
