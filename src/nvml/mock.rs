//! `--mock`: creates the environment in which the mock library plays a scenario.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::raw;
use crate::model::Problem;

/// The temporary directory of a mock environment: it can be removed by another thread than that which
/// creates it.
#[derive(Clone, Default)]
pub struct MockFiles(Arc<Mutex<Option<TempDir>>>);

impl MockFiles {
    fn create(&self) -> io::Result<PathBuf> {
        let mut directory = self.lock();
        let created = tempfile::Builder::new().prefix("nvml-exporter-mock-").tempdir()?;
        Ok(directory.insert(created).path().to_owned())
    }

    /// Removes the directory. None is created while the result exists.
    #[must_use = "another one may be created"]
    pub fn remove(&self) -> impl Drop + use<'_> {
        let mut directory = self.lock();
        if let Some(directory) = directory.take() {
            let path = directory.keep();
            // The mock library may create files at the same time: again until there are none.
            for _ in 0..REMOVE_TRIES {
                if fs::remove_dir_all(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    break;
                }
            }
        }
        directory
    }

    fn lock(&self) -> MutexGuard<'_, Option<TempDir>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum number of attempts to remove a directory in which files are created.
const REMOVE_TRIES: usize = 100;

/// A temporary directory with a `libnvidia-ml.so.1`, the directories `proc` and `sys` and, if the scenario
/// defines one, a cluster. Removed on drop.
pub struct MockEnv {
    files: MockFiles,
    directory: PathBuf,
}

impl Drop for MockEnv {
    fn drop(&mut self) {
        drop(self.files.remove());
    }
}

impl MockEnv {
    /// Sets up `scenario` (a built-in name or a file) with the mock library of this
    /// installation.
    ///
    /// # Errors
    /// Returns an error if the mock library cannot be loaded, if it rejects the scenario, or if the
    /// temporary directory cannot be created.
    pub fn set_up(scenario: &str, files: &MockFiles) -> Result<Self, Problem> {
        let failed = |error: io::Error| {
            Problem::new(
                format!("--mock: cannot create a temporary directory: {error}"),
                "set TMPDIR to a writable directory",
            )
        };
        let library = mock_library().map_err(failed)?;
        let directory = files.create().map_err(failed)?;
        // From here on, an error removes the directory.
        let mock_env = Self { files: files.clone(), directory };
        raw::mock_env::set_up_mock(&library, scenario, mock_env.directory())?;
        Ok(mock_env)
    }

    /// Path of the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of the library to load.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.directory.join("libnvidia-ml.so.1")
    }

    /// The proc root with the processes of the scenario.
    #[must_use]
    pub fn procfs(&self) -> PathBuf {
        self.directory.join("proc")
    }

    /// The directory to read as `/sys`, with the PCI bus of the scenario.
    #[must_use]
    pub fn sysfs(&self) -> PathBuf {
        self.directory.join("sys")
    }
}

/// A temporary directory with a library that records the calls of this process to the driver's library.
/// Removed on drop, or with the mock environment that it is in.
pub struct RecorderEnv {
    directory: PathBuf,
    _files: Option<TempDir>,
}

impl RecorderEnv {
    /// Records the library `driver`, in a directory within `mock_env` if there is one.
    ///
    /// # Errors
    /// The mock library cannot be loaded, or the directory cannot be created.
    pub fn set_up(driver: &Path, mock_env: Option<&MockEnv>) -> Result<Self, Problem> {
        let failed = |error: io::Error| {
            Problem::new(
                format!("record: cannot create a temporary directory: {error}"),
                "set TMPDIR to a writable directory",
            )
        };
        let recorder = if let Some(mock_env) = mock_env {
            let directory = mock_env.directory().join("recorder");
            fs::create_dir(&directory).map_err(failed)?;
            Self { directory, _files: None }
        } else {
            let files = tempfile::Builder::new().prefix("nvml-exporter-record-").tempdir();
            let files = files.map_err(failed)?;
            Self { directory: files.path().to_owned(), _files: Some(files) }
        };
        let library = mock_library().map_err(failed)?;
        raw::mock_env::set_up_recorder(&library, &driver.to_string_lossy(), &recorder.directory)?;
        // Under the name of the driver's library, the loader would return that library.
        let created = recorder.directory.join("libnvidia-ml.so.1");
        fs::rename(created, recorder.library()).map_err(failed)?;
        Ok(recorder)
    }

    /// Path of the library to load.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.directory.join("libnvml-recorder.so")
    }

    /// What was recorded so far: tables of a scenario.
    ///
    /// # Errors
    /// The library is not loaded.
    pub fn answers(&self) -> Result<String, Problem> {
        raw::mock_env::recorded_answers(&self.library())
    }
}

/// The mock library beside the executable, as a build and the image have it, or in the library directory of a package.
fn mock_library() -> io::Result<PathBuf> {
    let executable = env::current_exe()?;
    let directory = executable.parent().unwrap_or(Path::new("/"));
    let packaged = directory.join("../lib/nvml-exporter/libmock_nvml.so");
    Ok(if packaged.exists() { packaged } else { directory.join("libmock_nvml.so") })
}
