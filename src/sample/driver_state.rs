//! State of the NVML session.

use std::fmt;

use crate::nvml::inventory::DriverInfo;
use crate::nvml::open_failure::OpenFailure;

/// State of the NVML session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// Open, with these versions.
    Up(DriverInfo),
    /// Not open.
    Down {
        /// Why.
        reason: DownReason,
        /// Human-readable message.
        detail: String,
    },
}

/// Why there is no NVML session. `Display` writes the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Not opened yet, or not again since a release.
    Starting,
    /// Opening a session has not returned.
    Hung,
    /// Opening a session failed.
    NotOpened(OpenFailure),
    /// The driver was unloaded.
    DriverGone,
    /// A thread of the session ended.
    ThreadDied,
    /// There are fewer GPUs than before.
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
            Self::Hung => "hung",
            Self::NotOpened(failure) => failure.label(),
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

impl Default for DriverState {
    fn default() -> Self {
        Self::down(DownReason::Starting, "the driver is not opened yet")
    }
}

impl DriverState {
    /// Not open.
    pub(super) fn down(reason: DownReason, detail: impl Into<String>) -> Self {
        Self::Down { reason, detail: detail.into() }
    }

    /// Whether NVML is released on request, by all threads.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.is_down_by(DownReason::Released)
    }

    /// Whether the session is not open for this reason.
    pub(super) fn is_down_by(&self, cause: DownReason) -> bool {
        matches!(self, Self::Down { reason, .. } if *reason == cause)
    }
}
