//! The directory of a mock environment, and how its files are written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// File with the name or path of the scenario.
pub(crate) const SCENARIO: &str = "scenario";
/// File with the library that is recorded.
pub(crate) const RECORDED_LIBRARY: &str = "recorded-library";
/// Directory of the proc root.
pub(crate) const PROC: &str = "proc";
/// Directory of the node's cgroups (version 2).
pub(crate) const CGROUPS: &str = "cgroup";
/// Directory to read as `/sys`.
pub(crate) const SYS: &str = "sys";

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot access {path}: {error}", path = .path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// Whether `home` is a mock environment that has not been removed.
pub(crate) fn exists(home: &Path) -> bool {
    home.join(SCENARIO).is_file() && home.join(PROC).is_dir()
}

/// Replaces a file atomically: the old library may be mapped by a process.
pub(crate) fn replace_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes).map_err(file_error(&temporary))?;
    fs::rename(&temporary, path).map_err(file_error(path))
}

pub(crate) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError { path, error }
}
