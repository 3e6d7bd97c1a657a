//! The file of this library.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use procfs::process::{MMapPath, MemoryMap, Process};

/// What the kernel adds to the path of a mapped file that was deleted or replaced.
const DELETED: &[u8] = b" (deleted)";

/// The path of the file from which this library was loaded (`/proc/self/maps`). The name that the loader has may be
/// one that does not exist any more: clients load a second library through a path of its open file.
pub(super) fn library_path() -> Option<PathBuf> {
    let function: fn() -> Option<PathBuf> = library_path;
    let address = u64::try_from(function as usize).ok()?;
    let contains = |map: &MemoryMap| (map.address.0..map.address.1).contains(&address);
    let map =
        Process::myself().and_then(|process| process.maps()).ok()?.into_iter().find(contains)?;
    let MMapPath::Path(path) = map.pathname else { return None };
    let path = path.into_os_string().into_vec();
    Some(OsStr::from_bytes(path.strip_suffix(DELETED).unwrap_or(&path)).into())
}
