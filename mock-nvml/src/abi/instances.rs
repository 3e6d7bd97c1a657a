//! GPU instances and their compute instances.

use std::{ffi::c_uint, ptr};

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t, nvmlDevice_t,
    nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlReturn_t,
};

use crate::{
    abi::{
        call::{dispatch, world},
        pointer::put,
    },
    models::mig::compute_id,
    numeric::clamp_u32,
    return_code::{NvmlResult, ReturnCode},
    scenario::mig::{ComputeInstance, GpuInstance},
    world::{
        board::{Board, view::BoardView},
        handles::HandleTarget,
    },
};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: nvmlDevice_t,
    profile: c_uint,
    instances: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuInstances", device, profile, instances, count);
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstances";
        let ((), found) = world()?.target_handles(function, device.addr(), |board| {
            let layout = board.require_layout()?;
            if !board.model().mig().iter().any(|one| one.id == profile) {
                return Err(ReturnCode::INVALID_ARGUMENT);
            }
            let matching = layout.instances.iter().filter(|one| one.profile.id == profile);
            Ok(((), matching.map(|one| HandleTarget::GpuInstance(one.generation)).collect()))
        })?;
        // SAFETY: the caller's array has room for the most instances of the profile.
        unsafe { put_handles(count, instances, &found) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuInstanceById(
    device: nvmlDevice_t,
    id: c_uint,
    out: *mut nvmlGpuInstance_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuInstanceById", device, id, out);
    dispatch(|| {
        let function = "nvmlDeviceGetGpuInstanceById";
        let (found, ()) = world()?.target_handle(function, device.addr(), |board| {
            let found = board.require_layout()?.instance(id).ok_or(ReturnCode::NOT_FOUND)?;
            Ok((HandleTarget::GpuInstance(found.generation), ()))
        })?;
        // SAFETY: the caller passes null or a valid pointer to a handle.
        unsafe { put(out, ptr::without_provenance_mut(found)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpuInstanceGetInfo(
    instance: nvmlGpuInstance_t,
    out: *mut nvmlGpuInstanceInfo_t,
) -> nvmlReturn_t {
    tap!("nvmlGpuInstanceGetInfo", instance, out);
    dispatch(|| {
        let function = "nvmlGpuInstanceGetInfo";
        let (device, gi) = world()?.target_handle(function, instance.addr(), |board| {
            Ok((HandleTarget::Board, gpu_instance(board)?.clone()))
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
        // SAFETY: the caller passes null or a valid pointer to the struct.
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
    tap!("nvmlGpuInstanceGetComputeInstances", instance, profile, instances, count);
    dispatch(|| {
        let function = "nvmlGpuInstanceGetComputeInstances";
        let ((), found) = world()?.target_handles(function, instance.addr(), |board| {
            let all = &gpu_instance(board)?.compute;
            let matching = all.iter().filter(|one| compute_id(one.slices) == Some(profile));
            Ok(((), matching.map(|one| HandleTarget::ComputeInstance(one.generation)).collect()))
        })?;
        // SAFETY: the caller's array has room for the most instances of the profile.
        unsafe { put_handles(count, instances, &found) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: nvmlGpuInstance_t,
    id: c_uint,
    out: *mut nvmlComputeInstance_t,
) -> nvmlReturn_t {
    tap!("nvmlGpuInstanceGetComputeInstanceById", instance, id, out);
    dispatch(|| {
        let function = "nvmlGpuInstanceGetComputeInstanceById";
        let (found, ()) = world()?.target_handle(function, instance.addr(), |board| {
            let found = gpu_instance(board)?.compute.iter().find(|one| one.id == id);
            Ok((HandleTarget::ComputeInstance(found.ok_or(ReturnCode::NOT_FOUND)?.generation), ()))
        })?;
        // SAFETY: the caller passes null or a valid pointer to a handle.
        unsafe { put(out, ptr::without_provenance_mut(found)) }
    })
}

/// The struct of `nvmlComputeInstanceGetInfo`, without a placement.
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
    tap!("nvmlComputeInstanceGetInfo", instance, out);
    dispatch(|| {
        let info = compute_info("nvmlComputeInstanceGetInfo", instance)?;
        let old = ComputeInstanceInfoV1 {
            device: info.device,
            gpu_instance: info.gpuInstance,
            id: info.id,
            profile: info.profileId,
        };
        // SAFETY: the caller passes null or a valid pointer to this or a later, longer version.
        unsafe { put(out.cast(), old) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlComputeInstanceGetInfo_v2(
    instance: nvmlComputeInstance_t,
    out: *mut nvmlComputeInstanceInfo_t,
) -> nvmlReturn_t {
    tap!("nvmlComputeInstanceGetInfo_v2", instance, out);
    dispatch(|| {
        let info = compute_info("nvmlComputeInstanceGetInfo_v2", instance)?;
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, info) }
    })
}

fn compute_info(
    function: &str,
    instance: nvmlComputeInstance_t,
) -> NvmlResult<nvmlComputeInstanceInfo_t> {
    let (ci, handles) = world()?.target_handles(function, instance.addr(), |board| {
        let (gi, ci) = compute_instance(board)?;
        Ok((ci.clone(), vec![HandleTarget::Board, HandleTarget::GpuInstance(gi.generation)]))
    })?;
    let [device, gpu_instance] = *handles.as_slice() else { return Err(ReturnCode::UNKNOWN) };
    Ok(nvmlComputeInstanceInfo_t {
        device: ptr::without_provenance_mut(device),
        gpuInstance: ptr::without_provenance_mut(gpu_instance),
        id: ci.id,
        profileId: compute_id(ci.slices).ok_or(ReturnCode::UNKNOWN)?,
        placement: nvmlComputeInstancePlacement_t { start: ci.start, size: ci.slices },
    })
}

fn gpu_instance(board: &Board) -> NvmlResult<&GpuInstance> {
    match board.view() {
        BoardView::GpuInstance(gi) => Ok(gi),
        BoardView::Board | BoardView::MigDevice(..) | BoardView::ComputeInstance(..) => {
            Err(ReturnCode::INVALID_ARGUMENT)
        }
    }
}

fn compute_instance(board: &Board) -> NvmlResult<(&GpuInstance, &ComputeInstance)> {
    match board.view() {
        BoardView::ComputeInstance(gi, ci) => Ok((gi, ci)),
        BoardView::Board | BoardView::MigDevice(..) | BoardView::GpuInstance(_) => {
            Err(ReturnCode::INVALID_ARGUMENT)
        }
    }
}

/// Writes all handles and their number. The caller passes no capacity.
///
/// # Safety
/// `count` is null or valid for a write, and `out` for writes of that many handles.
unsafe fn put_handles<T>(
    count: *mut c_uint,
    out: *mut *mut T,
    handles: &[usize],
) -> NvmlResult<()> {
    if out.is_null() || count.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let handles: Vec<*mut T> =
        handles.iter().map(|handle| ptr::without_provenance_mut(*handle)).collect();
    // SAFETY: by this function's contract; `out` does not overlap `handles`.
    unsafe { handles.as_ptr().copy_to_nonoverlapping(out, handles.len()) };
    // SAFETY: by this function's contract.
    unsafe { put(count, clamp_u32(handles.len())) }
}
