//! Passes the scenario to the mock library.

use std::ffi::{CString, c_char};
use std::path::Path;

use super::super::LibraryError;

/// Lets the mock library at `library` set up `scenario` in the empty directory `directory`: a
/// `libnvidia-ml.so.1` to load and a `proc` directory to read.
///
/// # Errors
/// Returns [`LibraryError::NoMock`] if the library cannot be loaded or is not the mock, and
/// [`LibraryError::Scenario`] with the message of the mock if it rejects the scenario.
pub fn set_up_mock(library: &Path, scenario: &str, directory: &Path) -> Result<(), LibraryError> {
    type SetUp = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, u32) -> i32;
    let no_mock = |e: libloading::Error| LibraryError::NoMock {
        path: library.to_owned(),
        detail: e.to_string(),
    };
    let c_string = |s: &str| {
        let nul = "the scenario or the temporary directory contains a NUL byte; use another name";
        CString::new(s).map_err(|_| LibraryError::Scenario(nul.to_owned()))
    };
    let (scenario, directory) = (c_string(scenario)?, c_string(&directory.to_string_lossy())?);
    let mut message = vec![0_u8; 4096];
    let capacity = u32::try_from(message.len()).unwrap_or_default();

    // SAFETY: loading runs the initialisers of the library, which is built with the exporter and is
    // in the directory of its executable.
    let mock = unsafe { libloading::Library::new(library) }.map_err(no_mock)?;
    // SAFETY: the mock exports this symbol with this signature.
    let call = unsafe { mock.get::<SetUp>(b"mockNvmlEnvironment\0") }.map_err(no_mock)?;
    // SAFETY: both strings are NUL-terminated and the message buffer has `capacity` bytes.
    let code = unsafe {
        call(scenario.as_ptr(), directory.as_ptr(), message.as_mut_ptr().cast(), capacity)
    };
    if code == 0 {
        return Ok(());
    }
    message.truncate(message.iter().position(|&b| b == 0).unwrap_or_default());
    Err(LibraryError::Scenario(String::from_utf8_lossy(&message).into_owned()))
}
