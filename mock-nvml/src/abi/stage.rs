//! The mock's own functions, which NVML does not have: setting up a stage.

use std::{
    ffi::{c_char, c_int, c_uint},
    panic::catch_unwind,
    path::Path,
};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use super::{dispatch, image, put_text, text};
use crate::{scenario::BUILT_IN, stage};

/// Sets a stage up for a scenario (a built-in's name or a file's path) in an existing directory.
/// 0 is success; otherwise `error` (of `error_len` bytes) says why not, cut to fit.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlStage(
    scenario: *const c_char,
    dir: *const c_char,
    error: *mut c_char,
    error_len: c_uint,
) -> c_int {
    // SAFETY: the caller gives a string.
    let scenario = unsafe { text(scenario) };
    // SAFETY: the caller gives a string.
    let dir = unsafe { text(dir) };
    let (Ok(scenario), Ok(dir)) = (scenario, dir) else {
        let message = "mockNvmlStage needs a scenario and a directory as UTF-8 strings";
        // SAFETY: the caller gives a buffer of `error_len` bytes.
        return unsafe { explain(error, error_len, message) };
    };
    let set = || stage::set(scenario, Path::new(dir), image().as_deref());
    let message = match catch_unwind(set) {
        Ok(Ok(())) => return 0,
        Ok(Err(why)) => why.to_string(),
        Err(_) => "the stage could not be set up: a fault in the mock itself".to_owned(),
    };
    // SAFETY: the caller gives a buffer of `error_len` bytes.
    unsafe { explain(error, error_len, &message) }
}

/// Writes the names of the built-in scenarios, one a line, to a buffer of `length` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlScenarios(
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let names = names.join("\n") + "\n";
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { put_text(out, length, &names) }
    })
}

/// # Safety
/// `error` is null or valid for writes of `length` bytes.
unsafe fn explain(error: *mut c_char, length: c_uint, message: &str) -> c_int {
    let room = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(1);
    let end = (0..=message.len().min(room)).rev().find(|&end| message.is_char_boundary(end));
    let cut = message.get(..end.unwrap_or_default()).unwrap_or_default();
    // SAFETY: as our caller says. A caller without a buffer forgoes the message.
    let _ = unsafe { put_text(error, length, cut) };
    1
}
