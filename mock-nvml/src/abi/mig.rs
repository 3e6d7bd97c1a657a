//! MIG devices.

use std::{ffi::c_uint, ptr};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use super::{dispatch, put, world};
use crate::{
    code::{Answer, Code},
    models::mig::SLICES,
    world::{Board, Part},
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

fn attributes(board: &Board) -> Answer<nvmlDeviceAttributes_t> {
    let (gi, ci) = board.mig_device()?;
    let profile = gi.profile;
    let media = c_uint::from(profile.media);
    Ok(nvmlDeviceAttributes_t {
        multiprocessorCount: gi.multiprocessors(ci),
        sharedCopyEngineCount: profile.copies,
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
    // SAFETY: the caller gives a place for a handle.
    dispatch(|| unsafe {
        give("nvmlDeviceGetMigDeviceHandleByIndex", device, out, |board| {
            let layout = board.partitioned()?;
            if index >= SLICES {
                return Err(Code::INVALID_ARGUMENT);
            }
            let found = layout.devices().find(|(_, ci)| ci.slot == index);
            found.map(|(_, ci)| Part::MigDevice(ci.life)).ok_or(Code::NOT_FOUND)
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    // SAFETY: the caller gives a place for a handle.
    dispatch(|| unsafe {
        give("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, out, |board| {
            let of_mig = board.mig_device().map_err(|_| Code::INVALID_ARGUMENT);
            of_mig.map(|_| Part::Board)
        })
    })
}

/// Gives a handle of another part of the same GPU.
///
/// # Safety
/// `out` is null or valid for a write.
pub(super) unsafe fn give<T>(
    function: &str,
    handle: *mut T,
    out: *mut nvmlDevice_t,
    pick: impl FnOnce(&Board) -> Answer<Part>,
) -> Answer<()> {
    let (found, ()) = world()?.one_part(function, handle.addr(), |board| Ok((pick(board)?, ())))?;
    // SAFETY: as our caller says. The handle is an address that nobody follows.
    unsafe { put(out, ptr::without_provenance_mut(found)) }
}
