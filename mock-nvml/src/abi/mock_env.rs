//! Exported functions that NVML does not have: setting up a mock environment.

use std::{
    ffi::{c_char, c_int, c_uint},
    panic::catch_unwind,
    path::Path,
};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::{
    abi::{
        call::dispatch,
        library_file::library_path,
        pointer::{put_text, read_str},
        tap::recorder::{missing_functions, recorded},
    },
    environment,
    exported_functions::FUNCTIONS,
    scenario_file::source::BUILT_IN,
};

/// Sets up a mock environment for a scenario (the name of a built-in or a path) in an existing
/// directory. Returns 0 on success; otherwise `error` (of `error_len` bytes) receives the message,
/// truncated to fit.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlEnvironment(
    scenario: *const c_char,
    dir: *const c_char,
    error: *mut c_char,
    error_len: c_uint,
) -> c_int {
    // SAFETY: the caller passes null or a NUL-terminated string.
    let scenario = unsafe { read_str(scenario) };
    // SAFETY: the caller passes null or a NUL-terminated string.
    let dir = unsafe { read_str(dir) };
    let (Ok(scenario), Ok(dir)) = (scenario, dir) else {
        let message = "mockNvmlEnvironment: the scenario or the directory is null or not UTF-8; \
                       pass both as UTF-8 strings";
        // SAFETY: the caller passes null or a buffer of `error_len` bytes.
        return unsafe { put_message(error, error_len, message) };
    };
    let set_up = || environment::create(scenario, Path::new(dir), library_path().as_deref());
    let message = match catch_unwind(set_up) {
        Ok(Ok(())) => return 0,
        Ok(Err(why)) => why.to_string(),
        Err(_) => {
            "the mock environment was not set up: the mock library panicked (a bug)".to_owned()
        }
    };
    // SAFETY: the caller passes null or a buffer of `error_len` bytes.
    unsafe { put_message(error, error_len, &message) }
}

/// Makes an existing directory one with a library that records another one. Returns 0 on success; otherwise
/// `error` (of `error_len` bytes) receives the message, truncated to fit.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlRecorder(
    library: *const c_char,
    dir: *const c_char,
    error: *mut c_char,
    error_len: c_uint,
) -> c_int {
    // SAFETY: the caller passes null or a NUL-terminated string.
    let library = unsafe { read_str(library) }.unwrap_or_default();
    // SAFETY: the caller passes null or a NUL-terminated string.
    let dir = unsafe { read_str(dir) }.unwrap_or_default();
    let set_up = || match missing_functions(library, FUNCTIONS) {
        None => Err(format!("the library {library} cannot be loaded: give another --nvml-library")),
        Some(missing) => {
            let image = library_path();
            environment::create_recorder(library, &missing, Path::new(dir), image.as_deref())
                .map_err(|error| error.to_string())
        }
    };
    let message = match catch_unwind(set_up) {
        Ok(Ok(())) => return 0,
        Ok(Err(message)) => message,
        Err(_) => "the recorder was not set up: the mock library panicked (a bug)".to_owned(),
    };
    // SAFETY: the caller passes null or a buffer of `error_len` bytes.
    unsafe { put_message(error, error_len, &message) }
}

/// Writes what this library has recorded, as tables of a scenario file, to a buffer of `length` bytes. Returns
/// the length of the text, or 0 if this library records nothing; the buffer is not written if it is too small.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlAnswers(out: *mut c_char, length: usize) -> usize {
    let read = || {
        let answers = recorded().unwrap_or_default();
        let capacity = c_uint::try_from(length).unwrap_or(c_uint::MAX);
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        let _ = unsafe { put_text(out, capacity, &answers) };
        answers.len()
    };
    catch_unwind(read).unwrap_or_default()
}

/// Writes the names of the built-in scenarios, one per line, to a buffer of `length` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mockNvmlScenarios(
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let names = names.join("\n") + "\n";
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        unsafe { put_text(out, length, &names) }
    })
}

/// Writes an error message, truncated to fit, and returns the code of failure.
///
/// # Safety
/// `error` is null or valid for writes of `length` bytes.
unsafe fn put_message(error: *mut c_char, length: c_uint, message: &str) -> c_int {
    let capacity = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(1);
    let end = (0..=message.len().min(capacity)).rev().find(|&end| message.is_char_boundary(end));
    let cut = message.get(..end.unwrap_or_default()).unwrap_or_default();
    // SAFETY: by this function's contract. Without a buffer the message is dropped.
    let _ = unsafe { put_text(error, length, cut) };
    1
}
