//! The file of this library.

use std::{
    ffi::{CStr, OsStr},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{self, PathBuf},
};

/// The path of the file from which this library was loaded.
pub(super) fn library_path() -> Option<PathBuf> {
    let symbol: fn() -> Option<PathBuf> = library_path;
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address and writes one Dl_info, for which `info` is valid.
    let found = unsafe { libc::dladdr(symbol as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: Dl_info consists of addresses; zeroed, and possibly written to, it is initialised.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader keeps the NUL-terminated name of a file while that file is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    path::absolute(OsStr::from_bytes(name.to_bytes())).ok()
}
