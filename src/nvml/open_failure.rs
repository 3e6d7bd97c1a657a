//! Why no NVML session could be opened, as a label.

/// Kind of a [`LibraryError`](super::LibraryError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// No library could be loaded.
    LibraryNotFound,
    /// The library is not an NVML library.
    NotNvml,
    /// The kernel module is not loaded.
    DriverNotLoaded,
    /// Library and kernel module have different versions.
    VersionMismatch,
    /// Permission denied.
    Denied,
    /// Any other NVML error.
    Failed,
    /// The mock cannot be used.
    Mock,
}

impl OpenFailure {
    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LibraryNotFound => "library_not_found",
            Self::NotNvml => "not_nvml",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::VersionMismatch => "version_mismatch",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Mock => "mock",
        }
    }
}
