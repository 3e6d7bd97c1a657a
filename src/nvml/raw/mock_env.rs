//! Passes the scenario to the mock library.

use std::ffi::{CString, c_char};
use std::path::Path;

use crate::model::Problem;

/// Lets the mock library at `library` set up `scenario` in the empty directory `directory`: a
/// `libnvidia-ml.so.1` to load and a `proc` directory to read.
///
/// # Errors
/// The library cannot be loaded or is not the mock, or the mock rejects the scenario, with its message.
pub fn set_up_mock(library: &Path, scenario: &str, directory: &Path) -> Result<(), Problem> {
    set_up(library, b"mockNvmlEnvironment\0", scenario, directory, "--mock")
}

/// Lets the mock library at `library` create a library in the directory `directory` that records the library
/// `driver`.
///
/// # Errors
/// The mock library cannot be loaded or is not the mock, or its message why it cannot record.
pub fn set_up_recorder(library: &Path, driver: &str, directory: &Path) -> Result<(), Problem> {
    set_up(library, b"mockNvmlRecorder\0", driver, directory, "record")
}

/// What the recording library at `library` has recorded: tables of a scenario.
///
/// # Errors
/// It is not loaded, or not such a library.
pub fn recorded_answers(library: &Path) -> Result<String, Problem> {
    type Answers = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let no_recorder = |e: libloading::Error| {
        Problem::without_remedy(format!("record: {}: {e}", library.display()))
    };
    // SAFETY: the library is loaded, so that its initialisers have run.
    let recorder = unsafe { libloading::Library::new(library) }.map_err(no_recorder)?;
    // SAFETY: the recorder exports this symbol with this signature.
    let answers = unsafe { recorder.get::<Answers>(b"mockNvmlAnswers\0") }.map_err(no_recorder)?;
    let mut text = Vec::<u8>::new();
    loop {
        // SAFETY: the buffer has this length.
        let length = unsafe { answers(text.as_mut_ptr().cast(), text.len()) };
        if length < text.len() {
            text.truncate(length);
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        // Answers may be added in between.
        text = vec![0; length + RESERVE];
    }
}

/// Bytes by which a buffer is larger than the text.
const RESERVE: usize = 4096;

/// Calls a function of the mock library with a text and a directory.
fn set_up(
    library: &Path,
    function: &[u8],
    scenario: &str,
    directory: &Path,
    flag: &str,
) -> Result<(), Problem> {
    type SetUp = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, u32) -> i32;
    let no_mock = |e: libloading::Error| {
        let message = format!("{flag}: {}: {e}", library.display());
        Problem::new(message, "build it with `cargo build --workspace`")
    };
    let c_string = |s: &str| {
        let nul = "--mock: the scenario or the temporary directory contains a NUL byte";
        CString::new(s).map_err(|_| Problem::new(nul, "use another name"))
    };
    let (scenario, directory) = (c_string(scenario)?, c_string(&directory.to_string_lossy())?);
    let mut message = vec![0_u8; 4096];
    let capacity = u32::try_from(message.len()).unwrap_or_default();

    // SAFETY: loading runs the initialisers of the library, which is built with the exporter and is
    // in the directory of its executable.
    let mock = unsafe { libloading::Library::new(library) }.map_err(no_mock)?;
    // SAFETY: the mock exports this symbol with this signature.
    let call = unsafe { mock.get::<SetUp>(function) }.map_err(no_mock)?;
    // SAFETY: both strings are NUL-terminated and the message buffer has `capacity` bytes.
    let code = unsafe {
        call(scenario.as_ptr(), directory.as_ptr(), message.as_mut_ptr().cast(), capacity)
    };
    if code == 0 {
        return Ok(());
    }
    message.truncate(message.iter().position(|&b| b == 0).unwrap_or_default());
    Err(Problem::without_remedy(String::from_utf8_lossy(&message)).at(flag))
}
