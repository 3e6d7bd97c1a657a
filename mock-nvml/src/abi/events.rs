//! Sets of events, and waiting for one.

use std::{
    ffi::{c_uint, c_ulonglong},
    ptr,
    time::Duration,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use super::{dispatch, put, world};
use crate::{
    code::{Answer, Code},
    world::{Event, supported},
};

/// What an event is about that is about no MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

values! {
    nvmlDeviceGetSupportedEventTypes: c_ulonglong = |board| Ok(supported(board.model()));
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    dispatch(|| {
        if set.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let number = world()?.create_set("nvmlEventSetCreate")?;
        // SAFETY: not null, so the caller's place for a set. It is an address that nobody follows.
        unsafe { put(set, ptr::without_provenance_mut(number)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    dispatch(|| world()?.free_set("nvmlEventSetFree", set.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    dispatch(|| world()?.register("nvmlDeviceRegisterEvents", device.addr(), types, set.addr()))
}

/// What `nvmlEventSetWait` fills: it knows of no MIG instances.
#[repr(C)]
struct EventDataV1 {
    device: nvmlDevice_t,
    kind: c_ulonglong,
    data: c_ulonglong,
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetWait(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let Event { handle, kind, data: xid, .. } = wait("nvmlEventSetWait", set, data, timeout)?;
        let device = ptr::without_provenance_mut(handle);
        // SAFETY: the caller gives a place for a struct of this or the later version, which is longer.
        unsafe { put(data.cast(), EventDataV1 { device, kind, data: xid }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let event = wait("nvmlEventSetWait_v2", set, data, timeout)?;
        let told = nvmlEventData_t {
            device: ptr::without_provenance_mut(event.handle),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
            computeInstanceId: event.compute_instance.unwrap_or(NO_INSTANCE),
        };
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(data, told) }
    })
}

/// The next event, but none is taken from the set for a caller who has no place for it.
fn wait(
    function: &str,
    set: nvmlEventSet_t,
    data: *const nvmlEventData_t,
    timeout: c_uint,
) -> Answer<Event> {
    if data.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    world()?.wait(function, set.addr(), Duration::from_millis(timeout.into()))
}
