//! NVML: finding the library, one session with it, and what is read through it.
//!
//! The real driver's library and the mock are loaded by the same path; nothing here knows which.

pub mod device_nodes;
pub mod facts;
pub mod inventory;
pub mod links;
pub mod mapped;
pub mod mock;
pub mod probe;
pub mod raw;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::model::Missing;

/// Where the driver's library lies, in the order of trying: the loader's own search, then the
/// usual folders of distributions, driver containers, host mounts, GKE and WSL.
const LIBRARY_PATHS: [&str; 9] = [
    "libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
    "/host/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
];

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No library at any of the paths.
    #[error(
        "no libnvidia-ml: tried {tried}; install the NVIDIA driver, mount its library into the \
         container, or name it with --nvml-library ({detail})"
    )]
    NotFound {
        /// The paths, separated by commas.
        tried: String,
        /// What the loader said of the last one.
        detail: String,
    },
    /// The library was loaded and refused to start.
    #[error("{library}: nvmlInit_v2: {error}; {mend}")]
    Init {
        /// Path it was loaded from.
        library: String,
        /// What it answered.
        error: String,
        /// Fixed label.
        reason: &'static str,
        /// What an operator can do.
        mend: &'static str,
    },
    /// The mock library is not beside the executable, or is not the mock.
    #[error("--mock: {path}: {detail}; build it with `cargo build --workspace`", path = path.display())]
    NoMock {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader said.
        detail: String,
    },
    /// The mock refused the scenario.
    #[error("--mock: {0}")]
    Scenario(String),
    /// The mock's stage could not be set up.
    #[error(
        "--mock: no temporary directory for the mock's stage: {0}; set TMPDIR to a writable one"
    )]
    Stage(std::io::Error),
}

impl LibraryError {
    /// The fixed label of this error.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "library_not_found",
            Self::Init { reason, .. } => reason,
            Self::NoMock { .. } | Self::Scenario(_) | Self::Stage(_) => "mock",
        }
    }
}

/// One generation of the library: from `nvmlInit_v2` to `nvmlShutdown`, which runs when the last
/// thread that shares the session lets go of it.
pub struct Session {
    nvml: Nvml,
    /// The path that the library was loaded from.
    pub library: String,
    /// Dropped after `nvml`, which is how [`End`] learns of it.
    _open: Sender<Infallible>,
}

/// Tells when a session has been shut down and its library closed.
pub struct End(Receiver<Infallible>);

impl End {
    /// Waits for it, up to `patience`; whether it has come.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.0.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Session {
    /// Loads the library at the first path that has one and initialises it. `proc_root` tells
    /// whether the kernel has a driver at all.
    ///
    /// Blocks for as long as the driver does, which may be for ever.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] or [`LibraryError::Init`].
    pub fn open(paths: &[PathBuf], proc_root: &Path) -> Result<(Self, End), LibraryError> {
        let mut detail = String::new();
        for path in paths {
            let renamed = mapped::renamed(path);
            let name = renamed.as_ref().map_or(path, |renamed| &renamed.name);
            let init = || Nvml::builder().lib_path(name.as_os_str()).init();
            match device_nodes::spared(proc_root, init) {
                Ok(nvml) => {
                    let (open, end) = mpsc::channel();
                    let library = path.display().to_string();
                    return Ok((Self { nvml, library, _open: open }, End(end)));
                }
                Err(NvmlError::LibloadingError(e)) => detail = e.to_string(),
                Err(error) => return Err(init_error(path, error)),
            }
        }
        let tried: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        Err(LibraryError::NotFound { tried: tried.join(", "), detail })
    }

    /// The wrapped library.
    #[must_use]
    pub fn nvml(&self) -> &Nvml {
        &self.nvml
    }
}

fn init_error(path: &Path, error: NvmlError) -> LibraryError {
    let (library, text) = (path.display().to_string(), error.to_string());
    let (reason, mend) = match Refusal::of(error) {
        Refusal::NoSymbol => ("not_nvml", "this file is not an NVML library"),
        Refusal::Code(9) => (
            "driver_not_loaded",
            "load the nvidia kernel module; the exporter takes it up by itself",
        ),
        Refusal::Code(18) => (
            "version_mismatch",
            "library and kernel module are of different versions: reload the module or reboot",
        ),
        Refusal::Code(4) => ("denied", "give the exporter access to /dev/nvidiactl"),
        Refusal::Code(_) => ("failed", "look at the kernel log for NVRM lines"),
    };
    LibraryError::Init { library, error: text, reason, mend }
}

/// What is behind an error of the wrapper.
enum Refusal {
    /// The library lacks the symbol.
    NoSymbol,
    /// An `nvmlReturn_t`.
    Code(u32),
}

impl Refusal {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the wrapper turns the rest into codes")]
    fn of(error: NvmlError) -> Self {
        match error {
            NvmlError::FailedToLoadSymbol(_) => Self::NoSymbol,
            // The wrapper knows the codes up to 22; newer ones come this way.
            NvmlError::UnexpectedVariant(code) => Self::Code(code),
            other => Self::Code(other.into()),
        }
    }
}

/// What becomes of each path when it is tried alone.
#[must_use]
pub fn explain(paths: &[PathBuf], proc_root: &Path) -> Vec<(PathBuf, Result<(), LibraryError>)> {
    let one = |path: &PathBuf| {
        let opened = Session::open(std::slice::from_ref(path), proc_root);
        (path.clone(), opened.map(drop))
    };
    paths.iter().map(one).collect()
}

/// The paths to try: `explicit` alone, or the ordered search.
#[must_use]
pub fn library_paths(explicit: Option<&Path>) -> Vec<PathBuf> {
    match explicit {
        Some(path) => vec![path.to_owned()],
        None => LIBRARY_PATHS.iter().map(PathBuf::from).collect(),
    }
}

impl From<NvmlError> for Missing {
    fn from(error: NvmlError) -> Self {
        match Refusal::of(error) {
            Refusal::NoSymbol => Self::Unsupported,
            Refusal::Code(code) => Self::from_code(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_given_is_the_only_one_tried() {
        let paths = library_paths(Some(Path::new("/nowhere/libnvidia-ml.so.1")));
        let error = Session::open(&paths, Path::new("/proc")).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), "library_not_found");
        assert!(error.to_string().contains("tried /nowhere/libnvidia-ml.so.1;"), "{error}");
    }

    #[test]
    fn a_library_that_is_not_nvml_is_named_as_such() {
        let paths = library_paths(Some(Path::new("libc.so.6")));
        let error = Session::open(&paths, Path::new("/proc")).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), "not_nvml");
    }

    #[test]
    fn error_codes_keep_their_meaning_through_the_wrapper() {
        for code in (1..=30).chain([999]) {
            assert_eq!(Missing::from(NvmlError::from(code)), Missing::from_code(code), "{code}");
        }
    }
}
