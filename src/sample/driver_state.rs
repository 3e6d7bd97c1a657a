//! State of the NVML session.

use crate::model::{DownReason, Problem};
use crate::nvml::LibraryError;
use crate::nvml::inventory::DriverInfo;

/// State of the NVML session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// Open, with these versions.
    Up(DriverInfo),
    /// Not open.
    Down(DriverDown),
}

/// Why the session is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverDown {
    /// It could not be opened.
    OpenFailed(LibraryError),
    /// It was not opened yet, has ended, or was released.
    Closed {
        /// Reason label.
        reason: DownReason,
        /// What happened, and what to do about it.
        problem: Problem,
    },
}

impl DriverState {
    /// Down with `message`, and nothing for the operator to do.
    pub(super) fn closed(reason: DownReason, message: impl Into<String>) -> Self {
        Self::Down(DriverDown::Closed { reason, problem: Problem::without_remedy(message) })
    }

    /// Why the session is not open; `None` if it is open.
    #[must_use]
    pub fn down_reason(&self) -> Option<DownReason> {
        match self {
            Self::Up(_) => None,
            Self::Down(down) => Some(down.reason()),
        }
    }

    /// Why the node has no NVIDIA GPU and needs no driver; `None` if it has one or may have one.
    #[must_use]
    pub fn no_gpu(&self) -> Option<&Problem> {
        match self {
            Self::Down(DriverDown::Closed { reason: DownReason::NoGpu, problem }) => Some(problem),
            Self::Down(_) | Self::Up(_) => None,
        }
    }

    /// Whether an attempt to open the driver has ended, on a node that has or may have a GPU.
    #[must_use]
    pub fn is_known_with_gpu(&self) -> bool {
        use DownReason::{NoGpu, Released, Releasing, Starting};
        !matches!(self.down_reason(), Some(NoGpu | Starting | Releasing | Released))
    }

    /// Whether NVML is released on request, by all threads.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.down_reason() == Some(DownReason::Released)
    }
}

impl Default for DriverState {
    fn default() -> Self {
        Self::closed(DownReason::Starting, "the driver is not opened yet")
    }
}

impl DriverDown {
    /// The reason.
    #[must_use]
    pub fn reason(&self) -> DownReason {
        match self {
            Self::OpenFailed(error) => error.reason(),
            Self::Closed { reason, .. } => *reason,
        }
    }

    /// What happened, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::OpenFailed(error) => error.problem(),
            Self::Closed { problem, .. } => problem.clone(),
        }
    }

    /// What happened, without the library and the call that failed.
    #[must_use]
    pub fn error(&self) -> String {
        match self {
            Self::OpenFailed(LibraryError::Refused { error, .. }) => error.to_string(),
            Self::OpenFailed(
                LibraryError::Init { error, .. } | LibraryError::NotFound { detail: error, .. },
            ) => error.clone(),
            Self::Closed { problem, .. } => problem.message.clone(),
        }
    }

    /// Whether no NVML library is loaded.
    #[must_use]
    pub fn lacks_library(&self) -> bool {
        let reason = self.reason();
        let not_loaded = [DownReason::LibraryNotFound, DownReason::LibraryInvalid];
        not_loaded.contains(&reason) || reason == DownReason::NotNvml
    }
}
