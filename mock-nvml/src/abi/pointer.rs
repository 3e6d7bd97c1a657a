//! Reads and writes through the pointers of a caller.

use std::{
    ffi::{CStr, c_char, c_uint},
    ptr,
};

use crate::{
    fault::{self, Substitute},
    numeric::clamp_u32,
    return_code::{NvmlResult, ReturnCode},
};

/// Writes `value` through the caller's output pointer.
///
/// # Safety
/// `out` is null or valid for a write of `T`.
pub(super) unsafe fn put<T>(out: *mut T, value: T) -> NvmlResult<()> {
    if out.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    // Only numbers: a huge count of rows would crash the client.
    let bytes = match fault::substitute().filter(|_| size_of::<T>() <= size_of::<u64>()) {
        Some(Substitute::AllBitsSet) => [0xFF; size_of::<u64>()],
        Some(Substitute::Number(number)) => u64::from(number).to_le_bytes(),
        Some(Substitute::NoRows) | None => {
            // SAFETY: not null, so valid for this write by this function's contract.
            unsafe { out.write(value) };
            return Ok(());
        }
    };
    // SAFETY: as above, and `T` is no longer than the bytes.
    unsafe { bytes.as_ptr().copy_to_nonoverlapping(out.cast(), size_of::<T>()) };
    Ok(())
}

/// Writes the number of rows to `count`, and the rows to `out` if all of them fit.
///
/// # Safety
/// `count` is null or valid for reads and writes; `out` is null or valid for writes of that many
/// rows.
pub(super) unsafe fn put_rows<R: Copy>(
    count: *mut c_uint,
    out: *mut R,
    rows: &[R],
) -> NvmlResult<()> {
    if count.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so the caller's count.
    let capacity = if out.is_null() { 0 } else { unsafe { count.read() } };
    let needed = clamp_u32(rows.len());
    // SAFETY: as above.
    unsafe { count.write(needed) };
    if needed > capacity {
        return Err(ReturnCode::INSUFFICIENT_SIZE);
    }
    if needed > 0 {
        // SAFETY: `out` is valid for `capacity` rows, which is enough, and does not overlap `rows`.
        unsafe { rows.as_ptr().copy_to_nonoverlapping(out, rows.len()) };
    }
    Ok(())
}

/// The caller's struct, if its first member is `NVML_STRUCT_VERSION` of this version and size.
///
/// # Safety
/// `input` is null or valid for a read of `T`, which begins with an `unsigned int`.
pub(super) unsafe fn versioned<T: Copy>(input: *const T, version: c_uint) -> NvmlResult<T> {
    if input.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let expected = (version << 24) | clamp_u32(size_of::<T>());
    // SAFETY: not null, so the caller's struct, which begins with its version.
    if unsafe { input.cast::<c_uint>().read() } != expected {
        return Err(ReturnCode::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: as above, and of this version.
    Ok(unsafe { input.read() })
}

/// Writes `text` and a NUL to a buffer of `length` bytes; writes nothing if they do not fit. With all bits
/// set, the text has no end.
///
/// # Safety
/// `out` is null or valid for writes of `length` bytes.
pub(super) unsafe fn put_text(out: *mut c_char, length: c_uint, text: &str) -> NvmlResult<()> {
    if out.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let capacity = usize::try_from(length).unwrap_or(usize::MAX);
    if fault::substitute() == Some(Substitute::AllBitsSet) {
        // SAFETY: the buffer has `capacity` bytes.
        unsafe { ptr::write_bytes(out, 0xFF, capacity) };
        return Ok(());
    }
    if text.len() >= capacity {
        return Err(ReturnCode::INSUFFICIENT_SIZE);
    }
    // SAFETY: the buffer has more than `text.len()` bytes and does not overlap `text`.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), text.len()) };
    // SAFETY: as above, this is at most its last byte.
    let end = unsafe { out.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(())
}

/// The caller's string.
///
/// # Errors
/// `INVALID_ARGUMENT` for null or invalid UTF-8.
///
/// # Safety
/// `text` is null or a NUL-terminated string that is valid for the call.
pub(super) unsafe fn read_str<'a>(text: *const c_char) -> NvmlResult<&'a str> {
    if text.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so a string by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| ReturnCode::INVALID_ARGUMENT)
}
