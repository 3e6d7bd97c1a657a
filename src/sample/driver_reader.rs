//! Opens the NVML session and counts its GPUs, on a dedicated thread.

use std::path::PathBuf;
use std::sync::Arc;

use crate::host::ProcRoot;
use crate::model::Reading;
use crate::nvml::inventory::DriverInfo;
use crate::nvml::{LibraryError, Session, SessionClosed};

/// A request to the driver thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverRequest {
    /// Drop the session, if any, and open a new one.
    Open,
    /// Read the number of GPUs.
    CountGpus,
    /// Drop the session, if any.
    Release,
}

/// A response of the driver thread.
pub enum DriverResponse {
    /// A new session.
    Opened {
        /// The session, shared with the GPU threads.
        session: Arc<Session>,
        /// Driver versions.
        driver: DriverInfo,
        /// Signals that the session is closed.
        closed: SessionClosed,
    },
    /// Opening the session failed.
    OpenFailed(LibraryError),
    /// Number of GPUs (`nvmlDeviceGetCount_v2`).
    GpuCount(Reading),
    /// The driver thread dropped its session.
    Released,
}

/// Opens the session and counts its GPUs.
pub struct DriverReader {
    paths: Vec<PathBuf>,
    proc_root: ProcRoot,
    session: Option<Arc<Session>>,
}

impl DriverReader {
    /// Creates a reader that tries the library at `paths`, in their order.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, proc_root: ProcRoot) -> Self {
        Self { paths, proc_root, session: None }
    }

    /// Handles one request.
    pub fn handle(&mut self, request: DriverRequest) -> DriverResponse {
        match (request, &self.session) {
            (DriverRequest::CountGpus, Some(session)) => {
                DriverResponse::GpuCount(session.gpu_count().map(f64::from))
            }
            (DriverRequest::Release, _) => {
                self.session = None;
                DriverResponse::Released
            }
            (DriverRequest::Open, _) | (DriverRequest::CountGpus, None) => self.open(),
        }
    }

    fn open(&mut self) -> DriverResponse {
        // The old session must be dropped before the library is loaded again.
        self.session = None;
        match Session::open(&self.paths, self.proc_root.path()) {
            Ok((session, end)) => {
                let session = Arc::new(session);
                self.session = Some(Arc::clone(&session));
                DriverResponse::Opened { driver: session.driver_info(), session, closed: end }
            }
            Err(error) => DriverResponse::OpenFailed(error),
        }
    }
}
