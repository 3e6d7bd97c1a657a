//! Reasons why there is no NVML session.

use std::fmt;

/// Why there is no NVML session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The driver is not opened yet.
    Starting,
    /// The node has no NVIDIA GPU, so the library is not loaded.
    NoGpu,
    /// No library was found.
    LibraryNotFound,
    /// The library is not an NVML library.
    NotNvml,
    /// The file of the library is not one that can be loaded.
    LibraryInvalid,
    /// The kernel module is not loaded.
    DriverNotLoaded,
    /// Library and kernel module have different versions.
    VersionMismatch,
    /// No permission to use the device nodes.
    Denied,
    /// `nvmlInit_v2` returned another error.
    Failed,
    /// The file, the loader or `nvmlInit_v2` does not return.
    Hung,
    /// The driver was unloaded during the session.
    DriverGone,
    /// A thread of the session ended.
    ThreadDied,
    /// A GPU was removed during the session.
    GpuRemoved,
    /// A release was requested, but a thread still holds the session.
    Releasing,
    /// A release was requested and no thread holds a session.
    Released,
}

impl DownReason {
    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NoGpu => "no_gpu",
            Self::LibraryNotFound => "library_not_found",
            Self::NotNvml => "not_nvml",
            Self::LibraryInvalid => "library_invalid",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::VersionMismatch => "version_mismatch",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::DriverGone => "driver_gone",
            Self::ThreadDied => "thread_died",
            Self::GpuRemoved => "gpu_removed",
            Self::Releasing => "releasing",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
