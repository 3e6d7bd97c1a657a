//! Memory of a caller.

use std::{
    ffi::{CStr, c_char},
    mem::offset_of,
    slice,
};

use nvml_wrapper_sys::bindings::nvmlProcessesUtilizationInfo_t;

use super::pointer;

/// The bytes at an address; `None` if it is null.
///
/// # Safety
/// The address is null or valid for reads and writes of `length` bytes during the call, which nothing else
/// accesses.
pub(super) unsafe fn bytes<'a>(address: usize, length: usize) -> Option<&'a mut [u8]> {
    let start: *mut u8 = pointer(address);
    if start.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    Some(unsafe { slice::from_raw_parts_mut(start, length) })
}

/// The text at an address; empty if it is null.
///
/// # Safety
/// The address is null or that of a NUL-terminated text.
pub(super) unsafe fn text(address: usize) -> String {
    let start: *mut c_char = pointer(address);
    if start.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// The text at the address that is at an address; empty if one of them is null.
///
/// # Safety
/// The address is null or that of the address of a NUL-terminated text, or of null.
pub(super) unsafe fn text_at(address: usize) -> String {
    // SAFETY: by this function's contract.
    let bytes = unsafe { bytes(address, size_of::<usize>()) };
    let inner = bytes.and_then(|bytes| bytes.first_chunk().copied());
    // SAFETY: as above.
    unsafe { text(inner.map_or(0, usize::from_ne_bytes)) }
}

/// The `unsigned int` at an address; 0 if it is null.
///
/// # Safety
/// The address is null or valid for a read.
pub(super) unsafe fn read_u32(address: usize) -> u32 {
    // SAFETY: by this function's contract.
    let bytes = unsafe { bytes(address, size_of::<u32>()) };
    bytes.and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u32::from_ne_bytes)
}

/// Writes an `unsigned int`, unless the address is null.
///
/// # Safety
/// The address is null or valid for a write.
pub(super) unsafe fn write_u32(address: usize, number: u32) {
    // SAFETY: by this function's contract.
    if let Some(place) = unsafe { bytes(address, size_of::<u32>()) } {
        place.copy_from_slice(&number.to_ne_bytes());
    }
}

/// The members of `nvmlProcessesUtilizationInfo_t`: the addresses of the number of rows and of the rows, and the
/// cursor.
pub(super) struct UtilizationRequest {
    pub(super) count: usize,
    pub(super) cursor: usize,
    pub(super) rows: usize,
}

impl UtilizationRequest {
    /// The members of the struct at an address.
    pub(super) fn at(address: usize) -> Self {
        let request: *const nvmlProcessesUtilizationInfo_t = pointer(address);
        if request.is_null() {
            return Self { count: 0, cursor: 0, rows: 0 };
        }
        // SAFETY: not null, so the caller's struct, in which the input fields are set.
        let info = unsafe { request.read() };
        Self {
            count: address + offset_of!(nvmlProcessesUtilizationInfo_t, processSamplesCount),
            cursor: usize::try_from(info.lastSeenTimeStamp).unwrap_or_default(),
            rows: info.procUtilArray.expose_provenance(),
        }
    }
}
