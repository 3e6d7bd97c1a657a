//! NVLink fabric state, licences of virtual GPUs, place in the rack, power profiles, and sessions.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlConfComputeSystemState_t, nvmlDevice_t, nvmlFBCStats_t, nvmlGpuFabricInfo_v2_t,
    nvmlGpuFabricInfo_v3_t, nvmlGridLicensableFeatures_t, nvmlMask255_t, nvmlPlatformInfo_v2_t,
    nvmlReturn_t, nvmlWorkloadPowerProfileCurrentProfiles_v1_t,
};

use crate::{
    abi::{
        call::{board, dispatch, world},
        pointer::{put, versioned},
    },
    return_code::ReturnCode,
    world::board::{Board, fabric::Fabric},
};

/// The first branch with version 3 of the struct.
const V3_BRANCH: u32 = 570;

/// `nvmlNvlinkVersion_t` of NVLink 5.
const NVLINK_5: u32 = 7;

/// Version 3 of the struct came with the 570 branch; older drivers refuse it.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuFabricInfoV", device, out);
    dispatch(|| {
        let board = board("nvmlDeviceGetGpuFabricInfoV", device, |board| Ok(board.clone()))?;
        let fabric = board.fabric();
        let Fabric { cluster_uuid, clique, status, state, health_mask, health_summary } = fabric;
        let cliqueId = clique.unwrap_or_default();
        let second = out.cast::<nvmlGpuFabricInfo_v2_t>();
        if board.branch() < V3_BRANCH {
            // SAFETY: the caller passes null or a struct in which the input fields are set.
            let request = unsafe { versioned(second.cast_const(), 2) }?;
            let filled = nvmlGpuFabricInfo_v2_t {
                clusterUuid: cluster_uuid,
                status,
                cliqueId,
                state,
                healthMask: health_mask,
                ..request
            };
            // SAFETY: as above.
            return unsafe { put(second, filled) };
        }
        // SAFETY: as above.
        let request = unsafe { versioned(out.cast_const(), 3) }?;
        let filled = nvmlGpuFabricInfo_v3_t {
            clusterUuid: cluster_uuid,
            status,
            cliqueId,
            state,
            healthMask: health_mask,
            healthSummary: health_summary,
            ..request
        };
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
    tap!("nvmlDeviceGetGridLicensableFeatures_v4", device, out);
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

versioned! {
    // Boards that are not in a rack report their module only, and all bits set for the rest.
    nvmlDeviceGetPlatformInfo: nvmlPlatformInfo_v2_t, 2 = |board, request| {
        let links = board.model().nvlinks.filter(|links| links.version >= NVLINK_5);
        links.ok_or(ReturnCode::NOT_SUPPORTED)?;
        let module = u8::try_from(board.gpu().index + 1).unwrap_or(u8::MAX);
        let mut filled = nvmlPlatformInfo_v2_t { peerType: 1, moduleId: module, ..request };
        filled.ibGuid = [0; 16];
        filled.chassisSerialNumber = [0; 16];
        (filled.slotNumber, filled.trayIndex, filled.hostId) = (u8::MAX, u8::MAX, u8::MAX);
        if board.model().extras.platform {
            let guid = [0x21, 0xAC, 0x5B, 0x6A, 0x52, 0x8F, 0x7C, module];
            filled.ibGuid.iter_mut().zip(guid).for_each(|(byte, value)| *byte = value);
            filled.chassisSerialNumber = *b"1823825185529\0\0\0";
            (filled.slotNumber, filled.trayIndex, filled.hostId) = (5, 4, 1);
        }
        Ok(filled)
    };
    // Profile 1 is requested and in effect.
    nvmlDeviceWorkloadPowerProfileGetCurrentProfiles: nvmlWorkloadPowerProfileCurrentProfiles_v1_t, 1 = |board, request| {
        if !board.model().extras.power_smoothing {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let profiles = |low| nvmlMask255_t { mask: [low, 0, 0, 0, 0, 0, 0, 0] };
        Ok(nvmlWorkloadPowerProfileCurrentProfiles_v1_t {
            perfProfilesMask: profiles(0x1F),
            requestedProfilesMask: profiles(2),
            enforcedProfilesMask: profiles(2),
            ..request
        })
    };
}

values! {
    // No session records the screen.
    nvmlDeviceGetFBCStats: nvmlFBCStats_t = |_| {
        Ok(nvmlFBCStats_t { sessionsCount: 0, averageFPS: 0, averageLatency: 0 })
    };
    nvmlDeviceGetModuleId: c_uint = |board| {
        c_uint::try_from(board.gpu().index + 1).map_err(|_| ReturnCode::UNKNOWN)
    };
}

/// One session of 30 frames per second while the encoder works.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetEncoderStats(
    device: nvmlDevice_t,
    sessions: *mut c_uint,
    rate: *mut c_uint,
    latency: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetEncoderStats", device, sessions, rate, latency);
    dispatch(|| {
        let busy = board("nvmlDeviceGetEncoderStats", device, |board| Ok(board.encoder() > 0))?;
        let busy = c_uint::from(busy);
        if [sessions, rate, latency].iter().any(|out| out.is_null()) {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(sessions, busy) }?;
        // SAFETY: as above.
        unsafe { put(rate, busy * 30) }?;
        // SAFETY: as above.
        unsafe { put(latency, busy * 2_000) }
    })
}

/// Confidential computing is off.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetConfComputeState(
    out: *mut nvmlConfComputeSystemState_t,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetConfComputeState", out);
    dispatch(|| {
        world()?.with_session("nvmlSystemGetConfComputeState", |_, _| Ok(()))?;
        let off = nvmlConfComputeSystemState_t { environment: 0, ccFeature: 0, devToolsMode: 0 };
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, off) }
    })
}
