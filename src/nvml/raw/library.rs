//! Opens a library.

use std::ffi::OsStr;

use libloading::Library;

/// Loads the library at `path`, which runs its constructors.
///
/// # Errors
/// Returns the message of the loader.
pub fn load(path: &OsStr) -> Result<Library, String> {
    // SAFETY: the constructors of the driver's library are those of every program that uses NVML.
    unsafe { Library::new(path) }.map_err(|error| error.to_string())
}
