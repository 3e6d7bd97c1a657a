//! GPU instances and their compute instances.

use std::{ffi::c_uint, ptr};

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t, nvmlDevice_t,
    nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlReturn_t,
};

use super::{dispatch, put, world};
use crate::{
    code::{Answer, Code},
    models::mig::compute_id,
    number::clamp_u32,
    scenario::mig::{ComputeInstance, GpuInstance},
    world::{Board, Part, Seat},
};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: nvmlDevice_t,
    profile: c_uint,
    instances: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstances";
        let ((), found) = world()?.parts(function, device.addr(), |board| {
            let layout = board.partitioned()?;
            if !board.model().mig().iter().any(|one| one.id == profile) {
                return Err(Code::INVALID_ARGUMENT);
            }
            let alike = layout.instances.iter().filter(|one| one.profile.id == profile);
            Ok(((), alike.map(|one| Part::GpuInstance(one.life)).collect()))
        })?;
        // SAFETY: the caller gives room for as many as a board can have of the profile.
        unsafe { put_handles(count, instances, &found) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceById(
    device: nvmlDevice_t,
    id: c_uint,
    out: *mut nvmlGpuInstance_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceById";
        let (found, ()) = world()?.one_part(function, device.addr(), |board| {
            let found = board.partitioned()?.instance(id).ok_or(Code::NOT_FOUND)?;
            Ok((Part::GpuInstance(found.life), ()))
        })?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { put(out, ptr::without_provenance_mut(found)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpuInstanceGetInfo(
    instance: nvmlGpuInstance_t,
    out: *mut nvmlGpuInstanceInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlGpuInstanceGetInfo";
        let (device, gi) = world()?.one_part(function, instance.addr(), |board| {
            Ok((Part::Board, gpu_instance(board)?.clone()))
        })?;
        let info = nvmlGpuInstanceInfo_t {
            device: ptr::without_provenance_mut(device),
            id: gi.id,
            profileId: gi.profile.id,
            placement: nvmlGpuInstancePlacement_t {
                start: gi.start,
                size: gi.profile.memory_slices,
            },
        };
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    instances: *mut nvmlComputeInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlGpuInstanceGetComputeInstances";
        let ((), found) = world()?.parts(function, instance.addr(), |board| {
            let all = &gpu_instance(board)?.compute;
            let alike = all.iter().filter(|one| compute_id(one.slices) == Some(profile));
            Ok(((), alike.map(|one| Part::ComputeInstance(one.life)).collect()))
        })?;
        // SAFETY: the caller gives room for as many as an instance can have of the profile.
        unsafe { put_handles(count, instances, &found) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: nvmlGpuInstance_t,
    id: c_uint,
    out: *mut nvmlComputeInstance_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlGpuInstanceGetComputeInstanceById";
        let (found, ()) = world()?.one_part(function, instance.addr(), |board| {
            let found = gpu_instance(board)?.compute.iter().find(|one| one.id == id);
            Ok((Part::ComputeInstance(found.ok_or(Code::NOT_FOUND)?.life), ()))
        })?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { put(out, ptr::without_provenance_mut(found)) }
    })
}

/// What `nvmlComputeInstanceGetInfo` filled before placements were told.
#[repr(C)]
struct ComputeInstanceInfoV1 {
    device: nvmlDevice_t,
    gpu_instance: nvmlGpuInstance_t,
    id: c_uint,
    profile: c_uint,
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlComputeInstanceGetInfo(
    instance: nvmlComputeInstance_t,
    out: *mut nvmlComputeInstanceInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let info = compute_info("nvmlComputeInstanceGetInfo", instance)?;
        let old = ComputeInstanceInfoV1 {
            device: info.device,
            gpu_instance: info.gpuInstance,
            id: info.id,
            profile: info.profileId,
        };
        // SAFETY: the caller gives a place for a struct of this or a later version, which is longer.
        unsafe { put(out.cast(), old) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlComputeInstanceGetInfo_v2(
    instance: nvmlComputeInstance_t,
    out: *mut nvmlComputeInstanceInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let info = compute_info("nvmlComputeInstanceGetInfo_v2", instance)?;
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, info) }
    })
}

fn compute_info(
    function: &str,
    instance: nvmlComputeInstance_t,
) -> Answer<nvmlComputeInstanceInfo_t> {
    let (ci, handles) = world()?.parts(function, instance.addr(), |board| {
        let (gi, ci) = compute_instance(board)?;
        Ok((ci.clone(), vec![Part::Board, Part::GpuInstance(gi.life)]))
    })?;
    let [device, gpu_instance] = *handles.as_slice() else { return Err(Code::UNKNOWN) };
    Ok(nvmlComputeInstanceInfo_t {
        device: ptr::without_provenance_mut(device),
        gpuInstance: ptr::without_provenance_mut(gpu_instance),
        id: ci.id,
        profileId: compute_id(ci.slices).ok_or(Code::UNKNOWN)?,
        placement: nvmlComputeInstancePlacement_t { start: ci.start, size: ci.slices },
    })
}

fn gpu_instance(board: &Board) -> Answer<&GpuInstance> {
    match board.seat() {
        Seat::GpuInstance(gi) => Ok(gi),
        Seat::Board | Seat::MigDevice(..) | Seat::ComputeInstance(..) => {
            Err(Code::INVALID_ARGUMENT)
        }
    }
}

fn compute_instance(board: &Board) -> Answer<(&GpuInstance, &ComputeInstance)> {
    match board.seat() {
        Seat::ComputeInstance(gi, ci) => Ok((gi, ci)),
        Seat::Board | Seat::MigDevice(..) | Seat::GpuInstance(_) => Err(Code::INVALID_ARGUMENT),
    }
}

/// Writes all handles, and how many they are: the caller has no say in how many.
///
/// # Safety
/// `count` is null or valid for a write, and `out` for writes of so many handles.
unsafe fn put_handles<T>(count: *mut c_uint, out: *mut *mut T, handles: &[usize]) -> Answer<()> {
    if out.is_null() || count.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let handles: Vec<*mut T> =
        handles.iter().map(|handle| ptr::without_provenance_mut(*handle)).collect();
    // SAFETY: as our caller says; its array is not ours.
    unsafe { handles.as_ptr().copy_to_nonoverlapping(out, handles.len()) };
    // SAFETY: as our caller says.
    unsafe { put(count, clamp_u32(handles.len())) }
}
