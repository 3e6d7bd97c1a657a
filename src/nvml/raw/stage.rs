//! How the mock library is told which scenario to play.

use std::ffi::{CString, c_char};
use std::path::Path;

use super::super::LibraryError;

/// Has the mock library at `library` set up `scenario` in the empty directory `stage`: a
/// `libnvidia-ml.so.1` to load and a `proc` to read.
///
/// # Errors
/// The library cannot be loaded or is not the mock; or the mock's own word on the scenario.
pub fn stage_mock(library: &Path, scenario: &str, stage: &Path) -> Result<(), LibraryError> {
    type Stage = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, u32) -> i32;
    let no_mock = |e: libloading::Error| LibraryError::NoMock {
        path: library.to_owned(),
        detail: e.to_string(),
    };
    let text = |s: &str| {
        CString::new(s).map_err(|_| LibraryError::Scenario("a name with a NUL byte".to_owned()))
    };
    let (scenario, directory) = (text(scenario)?, text(&stage.to_string_lossy())?);
    let mut message = vec![0_u8; 4096];
    let room = u32::try_from(message.len()).unwrap_or_default();

    // SAFETY: loading runs the library's initialisers; it is our own build, found beside our executable.
    let mock = unsafe { libloading::Library::new(library) }.map_err(no_mock)?;
    // SAFETY: the mock exports this symbol with this signature.
    let call = unsafe { mock.get::<Stage>(b"mockNvmlStage\0") }.map_err(no_mock)?;
    // SAFETY: both texts are NUL-terminated and the message has `room` bytes.
    let code =
        unsafe { call(scenario.as_ptr(), directory.as_ptr(), message.as_mut_ptr().cast(), room) };
    if code == 0 {
        return Ok(());
    }
    message.truncate(message.iter().position(|&b| b == 0).unwrap_or_default());
    Err(LibraryError::Scenario(String::from_utf8_lossy(&message).into_owned()))
}
