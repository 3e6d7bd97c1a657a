//! The step of opening a session that is in progress.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A step, which may never return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OpenStep {
    /// The files that this path may stand for are read.
    Read(PathBuf),
    /// The loader opens this file.
    Load(PathBuf),
    /// The driver opens a session.
    #[default]
    Initialize,
}

impl fmt::Display for OpenStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path) => write!(f, "reading the file {}", path.display()),
            Self::Load(path) => write!(f, "loading the library {}", path.display()),
            Self::Initialize => f.write_str("nvmlInit_v2"),
        }
    }
}

impl OpenStep {
    /// What the operator can do if the step does not return.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => "check the file system that the library is on",
            Self::Load(_) => "check that the file is NVIDIA's library, and restart the exporter",
            Self::Initialize => "check the kernel log for NVRM lines",
        }
    }
}

/// Shows the thread that waits for a session which step is in progress.
#[derive(Clone, Default)]
pub struct OpenProgress(Arc<Mutex<OpenStep>>);

impl OpenProgress {
    /// Sets the step.
    pub fn begin(&self, step: OpenStep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// The step that began last.
    #[must_use]
    pub fn step(&self) -> OpenStep {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
