//! `--mock`: creates the environment in which the mock library plays a scenario.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::raw;
use crate::model::Problem;

/// A temporary directory with a `libnvidia-ml.so.1`, a `proc` directory and, if the scenario
/// defines one, a cluster. Removed on drop.
pub struct MockEnv {
    directory: TempDir,
}

impl MockEnv {
    /// Sets up `scenario` (a built-in name or a file) with the mock library in the directory of the
    /// executable.
    ///
    /// # Errors
    /// Returns an error if the mock library cannot be loaded, if it rejects the scenario, or if the
    /// temporary directory cannot be created.
    pub fn set_up(scenario: &str) -> Result<Self, Problem> {
        let failed = |error: io::Error| {
            Problem::new(
                format!("--mock: cannot create a temporary directory: {error}"),
                "set TMPDIR to a writable directory",
            )
        };
        let directory =
            tempfile::Builder::new().prefix("nvml-exporter-mock-").tempdir().map_err(failed)?;
        let library = next_to_executable("libmock_nvml.so").map_err(failed)?;
        raw::mock_env::set_up_mock(&library, scenario, directory.path())?;
        Ok(Self { directory })
    }

    /// Path of the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Path of the library to load.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.directory.path().join("libnvidia-ml.so.1")
    }

    /// The proc root with the processes of the scenario.
    #[must_use]
    pub fn procfs(&self) -> PathBuf {
        self.directory.path().join("proc")
    }
}

fn next_to_executable(file: &str) -> io::Result<PathBuf> {
    let executable = env::current_exe()?;
    Ok(executable.parent().unwrap_or(Path::new("/")).join(file))
}
