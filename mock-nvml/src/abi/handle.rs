//! Getting handles of GPUs.

use std::{
    ffi::{c_char, c_uint},
    ptr,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{dispatch, put, text, world};
use crate::{code::Answer, world::Named};

/// Functions that take a GPU's index and give its handle.
macro_rules! by_index {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
            // SAFETY: the caller gives a place for a handle.
            dispatch(|| unsafe { give(stringify!($name), Named::Index(index), device) })
        }
    )*};
}

/// Functions that take a text that names a GPU and give its handle.
macro_rules! by_text {
    ($($name:ident: $named:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            said: *const c_char,
            device: *mut nvmlDevice_t,
        ) -> nvmlReturn_t {
            dispatch(|| {
                // SAFETY: the caller gives a string.
                let said = unsafe { text(said) }?;
                // SAFETY: the caller gives a place for a handle.
                unsafe { give(stringify!($name), $named(said), device) }
            })
        }
    )*};
}

by_index! { nvmlDeviceGetHandleByIndex nvmlDeviceGetHandleByIndex_v2 }

by_text! {
    nvmlDeviceGetHandleByUUID: Named::Uuid;
    nvmlDeviceGetHandleByPciBusId: Named::PciBusId;
    nvmlDeviceGetHandleByPciBusId_v2: Named::PciBusId;
    nvmlDeviceGetHandleBySerial: Named::Serial;
}

/// # Safety
/// `device` is null or valid for a write.
unsafe fn give(function: &str, named: Named, device: *mut nvmlDevice_t) -> Answer<()> {
    let handle = world()?.handle(function, named)?;
    // SAFETY: as our caller says. The handle is an address that nobody follows.
    unsafe { put(device, ptr::without_provenance_mut(handle)) }
}
