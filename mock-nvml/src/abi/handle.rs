//! Handles of GPUs and MIG devices.

use std::{
    ffi::{c_char, c_uint},
    ptr,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{dispatch, world},
        pointer::{put, read_str},
    },
    return_code::NvmlResult,
    world::state::DeviceLookup,
};

/// Functions that return the handle of a GPU index.
macro_rules! by_index {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
            tap!(stringify!($name), index, device);
            // SAFETY: the caller passes null or a valid pointer to a handle.
            dispatch(|| unsafe { write_handle(stringify!($name), DeviceLookup::Index(index), device) })
        }
    )*};
}

/// Functions that return the handle for a UUID, a PCI bus id or a serial number.
macro_rules! by_text {
    ($($name:ident: $named:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            identifier: *const c_char,
            device: *mut nvmlDevice_t,
        ) -> nvmlReturn_t {
            tap!(stringify!($name), identifier, device);
            dispatch(|| {
                // SAFETY: the caller passes null or a NUL-terminated string.
                let identifier = unsafe { read_str(identifier) }?;
                // SAFETY: the caller passes null or a valid pointer to a handle.
                unsafe { write_handle(stringify!($name), $named(identifier), device) }
            })
        }
    )*};
}

by_index! { nvmlDeviceGetHandleByIndex nvmlDeviceGetHandleByIndex_v2 }

by_text! {
    nvmlDeviceGetHandleByUUID: DeviceLookup::Uuid;
    nvmlDeviceGetHandleByPciBusId: DeviceLookup::PciBusId;
    nvmlDeviceGetHandleByPciBusId_v2: DeviceLookup::PciBusId;
    nvmlDeviceGetHandleBySerial: DeviceLookup::Serial;
}

/// Looks a device up and writes its handle.
///
/// # Safety
/// `device` is null or valid for a write.
unsafe fn write_handle(
    function: &str,
    named: DeviceLookup,
    device: *mut nvmlDevice_t,
) -> NvmlResult<()> {
    let handle = world()?.handle(function, named)?;
    // SAFETY: by this function's contract. The handle is an address that is never dereferenced.
    unsafe { put(device, ptr::without_provenance_mut(handle)) }
}
