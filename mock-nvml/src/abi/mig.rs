//! MIG devices.

use std::{ffi::c_uint, ptr};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{dispatch, world},
        pointer::put,
    },
    models::mig::SLICES,
    return_code::{NvmlResult, ReturnCode},
    world::{board::Board, handles::HandleTarget},
};

values! {
    nvmlDeviceIsMigDeviceHandle: c_uint = |board| Ok(c_uint::from(board.mig_device().is_ok()));
    nvmlDeviceGetMaxMigDeviceCount: c_uint =
        |board| Ok(if board.layout().is_some() { SLICES } else { 0 });
    nvmlDeviceGetGpuInstanceId: c_uint = |board| Ok(board.mig_device()?.0.id);
    nvmlDeviceGetComputeInstanceId: c_uint = |board| Ok(board.mig_device()?.1.id);
    nvmlDeviceGetAttributes: nvmlDeviceAttributes_t = attributes;
    nvmlDeviceGetAttributes_v2: nvmlDeviceAttributes_t = attributes;
}

fn attributes(board: &Board) -> NvmlResult<nvmlDeviceAttributes_t> {
    let (gi, ci) = board.mig_device()?;
    let profile = gi.profile;
    let media = c_uint::from(profile.media_engines);
    Ok(nvmlDeviceAttributes_t {
        multiprocessorCount: gi.multiprocessors(ci),
        sharedCopyEngineCount: profile.copy_engines,
        sharedDecoderCount: profile.decoders,
        sharedEncoderCount: 0,
        sharedJpegCount: media,
        sharedOfaCount: media,
        gpuInstanceSliceCount: profile.slices,
        computeInstanceSliceCount: ci.slices,
        memorySizeMB: profile.mib,
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetMigDeviceHandleByIndex", device, index, out);
    // SAFETY: the caller passes null or a valid pointer to a handle.
    dispatch(|| unsafe {
        write_related_handle("nvmlDeviceGetMigDeviceHandleByIndex", device, out, |board| {
            let layout = board.require_layout()?;
            if index >= SLICES {
                return Err(ReturnCode::INVALID_ARGUMENT);
            }
            let found = layout.devices().find(|(_, ci)| ci.slot == index);
            found.map(|(_, ci)| HandleTarget::MigDevice(ci.generation)).ok_or(ReturnCode::NOT_FOUND)
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, out);
    // SAFETY: the caller passes null or a valid pointer to a handle.
    dispatch(|| unsafe {
        write_related_handle("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, out, |board| {
            let of_mig = board.mig_device().map_err(|_| ReturnCode::INVALID_ARGUMENT);
            of_mig.map(|_| HandleTarget::Board)
        })
    })
}

/// Writes the handle of another device of the same GPU.
///
/// # Safety
/// `out` is null or valid for a write.
unsafe fn write_related_handle<T>(
    function: &str,
    handle: *mut T,
    out: *mut nvmlDevice_t,
    pick: impl FnOnce(&Board) -> NvmlResult<HandleTarget>,
) -> NvmlResult<()> {
    let (found, ()) =
        world()?.target_handle(function, handle.addr(), |board| Ok((pick(board)?, ())))?;
    // SAFETY: by this function's contract. The handle is an address that is never dereferenced.
    unsafe { put(out, ptr::without_provenance_mut(found)) }
}
