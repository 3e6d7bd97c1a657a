//! `--mock`: a stage on which the mock library plays a scenario.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{LibraryError, raw};

/// A directory with a `libnvidia-ml.so.1`, a `proc` and, where the scenario has one, a cluster;
/// removed when dropped.
pub struct Stage {
    directory: TempDir,
}

impl Stage {
    /// Sets `scenario` (a built-in name or a file) up with the mock library that lies beside our
    /// own executable.
    ///
    /// # Errors
    /// No mock library, a scenario that it refuses, or a temporary directory that cannot be made.
    pub fn set_up(scenario: &str) -> Result<Self, LibraryError> {
        let directory = tempfile::Builder::new()
            .prefix("nvml-exporter-mock-")
            .tempdir()
            .map_err(LibraryError::Stage)?;
        let library = beside_executable("libmock_nvml.so").map_err(LibraryError::Stage)?;
        raw::stage::stage_mock(&library, scenario, directory.path())?;
        Ok(Self { directory })
    }

    /// Where everything is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The library to load.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.directory.path().join("libnvidia-ml.so.1")
    }

    /// The proc root in which the scenario's processes live.
    #[must_use]
    pub fn procfs(&self) -> PathBuf {
        self.directory.path().join("proc")
    }
}

fn beside_executable(file: &str) -> io::Result<PathBuf> {
    let executable = env::current_exe()?;
    Ok(executable.parent().unwrap_or(Path::new("/")).join(file))
}
