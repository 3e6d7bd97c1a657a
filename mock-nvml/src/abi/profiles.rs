//! Profiles of GPU instances.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{
    NVML_GPU_INSTANCE_PROFILE_COUNT, nvmlDevice_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t, nvmlReturn_t,
};

use super::{board, dispatch, pci::chars, put};
use crate::{
    code::{Answer, Code},
    models::mig::Profile,
    number::clamp_u32,
    world::Board,
};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: nvmlDevice_t,
    profile: c_uint,
    out: *mut nvmlGpuInstanceProfileInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceProfileInfo";
        let profile = board(function, device, |board| self::profile(board, profile))?;
        let info = nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.most,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copies,
            decoderCount: profile.decoders,
            encoderCount: 0,
            jpegCount: c_uint::from(profile.media),
            ofaCount: c_uint::from(profile.media),
            memorySizeMB: profile.mib,
        };
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: nvmlDevice_t,
    profile: c_uint,
    out: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let profile = board(function, device, |board| self::profile(board, profile))?;
        if out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins with the version that it has set.
        let version = unsafe { out.cast::<c_uint>().read() };
        let of = |number: c_uint, size: usize| (number << 24) | clamp_u32(size);
        if version == of(2, size_of::<nvmlGpuInstanceProfileInfo_v2_t>()) {
            // SAFETY: the caller's struct is of this version.
            unsafe { put(out, profile_v2(profile, version)) }
        } else if version == of(3, size_of::<nvmlGpuInstanceProfileInfo_v3_t>()) {
            // SAFETY: the caller's struct is of this version.
            unsafe { put(out.cast(), profile_v3(profile, version)) }
        } else {
            Err(Code::ARGUMENT_VERSION_MISMATCH)
        }
    })
}

fn profile_v2(profile: &Profile, version: c_uint) -> nvmlGpuInstanceProfileInfo_v2_t {
    nvmlGpuInstanceProfileInfo_v2_t {
        version,
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.slices,
        instanceCount: profile.most,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copies,
        decoderCount: profile.decoders,
        encoderCount: 0,
        jpegCount: c_uint::from(profile.media),
        ofaCount: c_uint::from(profile.media),
        memorySizeMB: profile.mib,
        name: name(profile),
    }
}

fn profile_v3(profile: &Profile, version: c_uint) -> nvmlGpuInstanceProfileInfo_v3_t {
    nvmlGpuInstanceProfileInfo_v3_t {
        version,
        id: profile.id,
        sliceCount: profile.slices,
        instanceCount: profile.most,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copies,
        decoderCount: profile.decoders,
        encoderCount: 0,
        jpegCount: c_uint::from(profile.media),
        ofaCount: c_uint::from(profile.media),
        memorySizeMB: profile.mib,
        name: name(profile),
        capabilities: 0,
    }
}

fn name(profile: &Profile) -> [c_char; 96] {
    chars(&format!("MIG {}", profile.name))
}

/// The profile that a `NVML_GPU_INSTANCE_PROFILE_…` means.
fn profile(board: &Board, index: c_uint) -> Answer<&'static Profile> {
    if index >= NVML_GPU_INSTANCE_PROFILE_COUNT {
        return Err(Code::INVALID_ARGUMENT);
    }
    board.model().mig().iter().find(|one| one.index == index).ok_or(Code::NOT_SUPPORTED)
}
