//! NVML: locates and loads the library, opens a session, and reads devices through it.
//!
//! The real library and the mock are loaded in the same way; no code here distinguishes them.

pub mod device_info;
pub mod device_nodes;
pub mod field_numbering;
pub mod inventory;
pub mod library_file;
pub mod links;
pub mod mapped_library;
pub mod mock;
pub mod open_step;
pub mod probe;
pub mod raw;
mod search_path;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use libloading::Library;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED as DRIVER_NOT_LOADED,
    nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH as LIB_RM_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_NO_PERMISSION as NO_PERMISSION,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN,
};

use self::field_numbering::FieldNumbering;
use self::library_file::LibraryFileError;
use self::open_step::{OpenProgress, OpenStep};
use self::raw::newer::NewerFunctions;
use crate::model::{DownReason, Missing, Problem};

/// Paths of the library in the order in which they are tried: the search path of the loader, then
/// the usual directories of distributions, driver containers, host mounts, GKE and WSL.
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

/// Why no session could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum LibraryError {
    /// No library could be loaded from any of the paths.
    NotFound {
        /// The paths, separated by commas.
        tried: String,
        /// Error of the loader for the last path.
        detail: String,
    },
    /// The file is not opened: the loader would wait for it, or crash.
    Refused {
        /// Path of the file.
        library: PathBuf,
        /// Why.
        error: LibraryFileError,
    },
    /// The library was loaded, but `nvmlInit_v2` failed.
    Init {
        /// Path that it was loaded from.
        library: PathBuf,
        /// The NVML error.
        error: String,
        /// Reason label.
        reason: DownReason,
        /// What the operator can do.
        remedy: &'static str,
    },
}

impl LibraryError {
    /// Kind of this error.
    #[must_use]
    pub fn reason(&self) -> DownReason {
        match self {
            Self::NotFound { .. } => DownReason::LibraryNotFound,
            Self::Refused { .. } => DownReason::LibraryInvalid,
            Self::Init { reason, .. } => *reason,
        }
    }

    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::NotFound { tried, detail } => Problem::new(
                format!("no libnvidia-ml at {tried} ({detail})"),
                "install the NVIDIA driver, mount its library into the container, or set \
                 --nvml-library",
            ),
            Self::Refused { library, error } => Problem::new(
                format!("{}: {error}", library.display()),
                "install the NVIDIA driver again, or set --nvml-library to its libnvidia-ml.so.1",
            ),
            Self::Init { library, error, remedy, .. } => {
                Problem::new(format!("{}: nvmlInit_v2: {error}", library.display()), *remedy)
            }
        }
    }
}

/// An NVML session, from `nvmlInit_v2` to `nvmlShutdown`. The latter runs when the last thread
/// drops its reference.
pub struct Session {
    nvml: Nvml,
    newer: NewerFunctions,
    field_numbering: FieldNumbering,
    /// Path that the library was loaded from.
    pub library: String,
    /// The name that the loader has it under.
    pub file: PathBuf,
    /// Dropped after `nvml`, which disconnects the channel of [`SessionClosed`].
    _open: Sender<Infallible>,
}

/// Signals that a session was shut down and its library was unloaded.
pub struct SessionClosed(Receiver<Infallible>);

impl SessionClosed {
    /// Waits up to `timeout`; returns whether the session is closed.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Session {
    /// Loads the library from the first path that has one and calls `nvmlInit_v2`. `proc_root` is
    /// read to detect whether the kernel module is loaded.
    ///
    /// Blocks as long as the file system and the driver do, possibly forever; `progress` shows in which
    /// step.
    ///
    /// # Errors
    /// Returns why no path has a library, or why its initialization failed.
    pub fn open(
        paths: &[PathBuf],
        proc_root: &Path,
        progress: &OpenProgress,
    ) -> Result<(Self, SessionClosed), LibraryError> {
        let (mut detail, mut refused) = (String::new(), None);
        for path in paths {
            progress.begin(OpenStep::Read(path.clone()));
            for file in search_path::candidates(path) {
                match load(&file, progress) {
                    Ok(loaded) => {
                        progress.begin(OpenStep::Initialize);
                        return Self::initialize(path, &loaded, proc_root);
                    }
                    Err(LoadError::Loader(message)) => detail = message,
                    Err(LoadError::Refused(error)) => {
                        refused.get_or_insert(LibraryError::Refused { library: file, error });
                    }
                }
            }
        }
        let tried: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        Err(refused.unwrap_or(LibraryError::NotFound { tried: tried.join(", "), detail }))
    }

    fn initialize(
        path: &Path,
        loaded: &LoadedLibrary,
        proc_root: &Path,
    ) -> Result<(Self, SessionClosed), LibraryError> {
        let init = || Nvml::builder().lib_path(loaded.name.as_os_str()).init();
        let nvml = device_nodes::without_mknod(proc_root, init);
        let nvml = nvml.map_err(|error| init_error(path, error))?;
        let (open, end) = mpsc::channel();
        let library = path.display().to_string();
        let newer = NewerFunctions::of(&nvml);
        let version = raw::texts::driver_version(&nvml).unwrap_or_default();
        let field_numbering = FieldNumbering::of(&version);
        let file = loaded.name.clone();
        let session = Self { nvml, newer, field_numbering, library, file, _open: open };
        Ok((session, SessionClosed(end)))
    }

    /// The library wrapper.
    #[must_use]
    pub fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// Which field numbers the driver uses.
    #[must_use]
    pub fn field_numbering(&self) -> FieldNumbering {
        self.field_numbering
    }

    /// Functions of the library that nvml-wrapper does not have.
    #[must_use]
    pub fn newer(&self) -> &NewerFunctions {
        &self.newer
    }
}

/// A library that is loaded while this exists.
struct LoadedLibrary {
    /// The name that the loader has it under.
    name: PathBuf,
    _library: Library,
}

/// Why a file was not loaded.
enum LoadError {
    /// It was not given to the loader.
    Refused(LibraryFileError),
    /// The message of the loader.
    Loader(String),
}

/// Checks and loads one file.
fn load(file: &Path, progress: &OpenProgress) -> Result<LoadedLibrary, LoadError> {
    // The loader reports that there is no file.
    if file.exists() {
        library_file::check(file).map_err(LoadError::Refused)?;
    }
    progress.begin(OpenStep::Load(file.to_owned()));
    let name = mapped_library::alias(file).unwrap_or_else(|| file.to_owned());
    let library = raw::library::load(name.as_os_str()).map_err(LoadError::Loader)?;
    Ok(LoadedLibrary { name, _library: library })
}

fn init_error(path: &Path, error: NvmlError) -> LibraryError {
    let mut text = error.to_string();
    let (reason, remedy) = match NvmlErrorKind::of(error) {
        NvmlErrorKind::NoSymbol => {
            text.push_str("; this is not an NVML library");
            (DownReason::NotNvml, "set --nvml-library to a libnvidia-ml.so.1")
        }
        NvmlErrorKind::Code(DRIVER_NOT_LOADED) => (
            DownReason::DriverNotLoaded,
            "load the nvidia kernel module; the exporter retries by itself",
        ),
        NvmlErrorKind::Code(LIB_RM_VERSION_MISMATCH) => (
            DownReason::VersionMismatch,
            "library and kernel module have different versions: reload the module or reboot",
        ),
        NvmlErrorKind::Code(NO_PERMISSION) => {
            (DownReason::Denied, "give the exporter access to /dev/nvidiactl")
        }
        NvmlErrorKind::Code(_) | NvmlErrorKind::UnknownValue => {
            (DownReason::Failed, "check the kernel log for NVRM lines")
        }
    };
    LibraryError::Init { library: path.to_owned(), error: text, reason, remedy }
}

/// Kind of an error of nvml-wrapper.
enum NvmlErrorKind {
    /// The library lacks the symbol.
    NoSymbol,
    /// An `nvmlReturn_t`.
    Code(u32),
    /// A value that the wrapper does not know.
    UnknownValue,
}

/// Last `nvmlReturn_t` that the wrapper has a variant for; unknown codes begin after it.
const LAST_KNOWN_CODE: u32 = 22;

impl NvmlErrorKind {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the wrapper converts all other errors to codes"
    )]
    fn of(error: NvmlError) -> Self {
        match error {
            NvmlError::FailedToLoadSymbol(_) => Self::NoSymbol,
            // Both an unknown code and an unknown value of an enumeration.
            NvmlError::UnexpectedVariant(code) if code <= LAST_KNOWN_CODE || code == UNKNOWN => {
                Self::UnknownValue
            }
            NvmlError::UnexpectedVariant(code) => Self::Code(code),
            other => Self::Code(other.into()),
        }
    }
}

/// Tries to open a session with each path separately, and returns the results.
#[must_use]
pub fn try_paths(paths: &[PathBuf], proc_root: &Path) -> Vec<(PathBuf, Result<(), LibraryError>)> {
    let one = |path: &PathBuf| {
        let paths = std::slice::from_ref(path);
        let opened = Session::open(paths, proc_root, &OpenProgress::default());
        (path.clone(), opened.map(drop))
    };
    paths.iter().map(one).collect()
}

/// Paths to try: only `explicit`, or the default search order.
#[must_use]
pub fn library_paths(explicit: Option<&Path>) -> Vec<PathBuf> {
    match explicit {
        Some(path) => vec![path.to_owned()],
        None => LIBRARY_PATHS.iter().map(PathBuf::from).collect(),
    }
}

impl From<NvmlError> for Missing {
    fn from(error: NvmlError) -> Self {
        match NvmlErrorKind::of(error) {
            NvmlErrorKind::NoSymbol => Self::Unsupported,
            NvmlErrorKind::Code(code) => Self::from_code(code),
            NvmlErrorKind::UnknownValue => Self::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(paths: &[PathBuf]) -> Result<(Session, SessionClosed), LibraryError> {
        Session::open(paths, Path::new("/proc"), &OpenProgress::default())
    }

    #[test]
    fn explicit_path_is_the_only_one_tried() {
        let paths = library_paths(Some(Path::new("/missing/libnvidia-ml.so.1")));
        let error = opened(&paths).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), DownReason::LibraryNotFound);
        assert!(error.to_string().contains("at /missing/libnvidia-ml.so.1 ("), "{error}");
    }

    #[test]
    fn library_without_nvml_symbols_is_reported_as_not_nvml() {
        let paths = library_paths(Some(Path::new("libc.so.6")));
        let error = opened(&paths).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), DownReason::NotNvml);
    }

    #[test]
    fn refused_file_is_reported_although_other_paths_have_no_file() {
        let paths: Vec<PathBuf> = ["/dev/null", "/no/such"].map(Into::into).to_vec();
        let error = opened(&paths).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), DownReason::LibraryInvalid);
        assert!(error.to_string().starts_with("/dev/null: not a regular file; "), "{error}");
    }

    #[test]
    fn nvml_return_codes_survive_the_wrapper() {
        for code in (1..=30).chain([999]) {
            assert_eq!(Missing::from(NvmlError::from(code)), Missing::from_code(code), "{code}");
        }
    }
}
