//! Event sets (`nvmlEventSet_t`) and waiting for events.

use std::{
    ffi::{c_uint, c_ulonglong},
    ptr,
    time::Duration,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{dispatch, world},
        pointer::put,
    },
    return_code::{NvmlResult, ReturnCode},
    world::events::{DeliveredEvent, supported_event_types},
};

/// The instance ids of an event that concerns no MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

values! {
    nvmlDeviceGetSupportedEventTypes: c_ulonglong = |board| Ok(supported_event_types(board.model()));
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    tap!("nvmlEventSetCreate", set);
    dispatch(|| {
        if set.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let number = world()?.create_set("nvmlEventSetCreate")?;
        // SAFETY: not null, so a valid pointer to a set; the address in it is never dereferenced.
        unsafe { put(set, ptr::without_provenance_mut(number)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    tap!("nvmlEventSetFree", set);
    dispatch(|| world()?.free_set("nvmlEventSetFree", set.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceRegisterEvents", device, types, set);
    dispatch(|| world()?.register("nvmlDeviceRegisterEvents", device.addr(), types, set.addr()))
}

/// The struct of `nvmlEventSetWait`, without MIG instance ids.
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
    tap!("nvmlEventSetWait", set, data, timeout);
    dispatch(|| {
        let DeliveredEvent { handle, kind, data: xid, .. } =
            wait("nvmlEventSetWait", set, data, timeout)?;
        let device = ptr::without_provenance_mut(handle);
        // SAFETY: the caller passes null or a valid pointer to this or a later, longer version.
        unsafe { put(data.cast(), EventDataV1 { device, kind, data: xid }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    tap!("nvmlEventSetWait_v2", set, data, timeout);
    dispatch(|| {
        let event = wait("nvmlEventSetWait_v2", set, data, timeout)?;
        let filled = nvmlEventData_t {
            device: ptr::without_provenance_mut(event.handle),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
            computeInstanceId: event.compute_instance.unwrap_or(NO_INSTANCE),
        };
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(data, filled) }
    })
}

/// Waits for the next event. A null `data` is refused first, so that no event is lost.
fn wait(
    function: &str,
    set: nvmlEventSet_t,
    data: *const nvmlEventData_t,
    timeout: c_uint,
) -> NvmlResult<DeliveredEvent> {
    if data.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    world()?.wait(function, set.addr(), Duration::from_millis(timeout.into()))
}
