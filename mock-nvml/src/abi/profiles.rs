//! Profiles of GPU instances.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{
    NVML_GPU_INSTANCE_PROFILE_COUNT, nvmlDevice_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t, nvmlReturn_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pci::c_array,
        pointer::put,
    },
    models::mig::Profile,
    numeric::clamp_u32,
    return_code::{NvmlResult, ReturnCode},
    world::board::Board,
};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: nvmlDevice_t,
    profile: c_uint,
    out: *mut nvmlGpuInstanceProfileInfo_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuInstanceProfileInfo", device, profile, out);
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceProfileInfo";
        let profile = board(function, device, |board| self::profile(board, profile))?;
        let info = nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: 0,
            jpegCount: c_uint::from(profile.media_engines),
            ofaCount: c_uint::from(profile.media_engines),
            memorySizeMB: profile.mib,
        };
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: nvmlDevice_t,
    profile: c_uint,
    out: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuInstanceProfileInfoV", device, profile, out);
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let profile = board(function, device, |board| self::profile(board, profile))?;
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins with its version.
        let version = unsafe { out.cast::<c_uint>().read() };
        let of = |number: c_uint, size: usize| (number << 24) | clamp_u32(size);
        if version == of(2, size_of::<nvmlGpuInstanceProfileInfo_v2_t>()) {
            // SAFETY: the caller's struct is of this version.
            unsafe { put(out, profile_v2(profile, version)) }
        } else if version == of(3, size_of::<nvmlGpuInstanceProfileInfo_v3_t>()) {
            // SAFETY: the caller's struct is of this version.
            unsafe { put(out.cast(), profile_v3(profile, version)) }
        } else {
            Err(ReturnCode::ARGUMENT_VERSION_MISMATCH)
        }
    })
}

fn profile_v2(profile: &Profile, version: c_uint) -> nvmlGpuInstanceProfileInfo_v2_t {
    nvmlGpuInstanceProfileInfo_v2_t {
        version,
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.slices,
        instanceCount: profile.max_instances,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copy_engines,
        decoderCount: profile.decoders,
        encoderCount: 0,
        jpegCount: c_uint::from(profile.media_engines),
        ofaCount: c_uint::from(profile.media_engines),
        memorySizeMB: profile.mib,
        name: name(profile),
    }
}

fn profile_v3(profile: &Profile, version: c_uint) -> nvmlGpuInstanceProfileInfo_v3_t {
    nvmlGpuInstanceProfileInfo_v3_t {
        version,
        id: profile.id,
        sliceCount: profile.slices,
        instanceCount: profile.max_instances,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copy_engines,
        decoderCount: profile.decoders,
        encoderCount: 0,
        jpegCount: c_uint::from(profile.media_engines),
        ofaCount: c_uint::from(profile.media_engines),
        memorySizeMB: profile.mib,
        name: name(profile),
        capabilities: 0,
    }
}

fn name(profile: &Profile) -> [c_char; 96] {
    c_array(&format!("MIG {}", profile.name))
}

/// The profile of a `NVML_GPU_INSTANCE_PROFILE_…` number.
fn profile(board: &Board, index: c_uint) -> NvmlResult<&'static Profile> {
    if index >= NVML_GPU_INSTANCE_PROFILE_COUNT {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    board.model().mig().iter().find(|one| one.index == index).ok_or(ReturnCode::NOT_SUPPORTED)
}
