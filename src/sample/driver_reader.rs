//! Opens the NVML session and counts its GPUs, on a dedicated thread.

use std::sync::Arc;

use super::driver_source::DriverSource;
use crate::model::{Problem, Reading};
use crate::nvml::inventory::DriverInfo;
use crate::nvml::open_step::OpenProgress;
use crate::nvml::{LibraryError, Session, SessionClosed};
use crate::policy;

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
    /// The node has no NVIDIA GPU, for this reason; no library was loaded.
    NoGpu(Problem),
    /// Number of GPUs (`nvmlDeviceGetCount_v2`).
    GpuCount(Reading),
    /// The driver thread dropped its session.
    Released,
}

/// Opens the session and counts its GPUs.
pub struct DriverReader {
    source: DriverSource,
    progress: OpenProgress,
    session: Option<Arc<Session>>,
}

impl DriverReader {
    /// Creates a reader without a session, which shows its `progress`.
    #[must_use]
    pub fn new(source: DriverSource, progress: OpenProgress) -> Self {
        Self { source, progress, session: None }
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
        if let Some(why) = self.no_gpu() {
            return DriverResponse::NoGpu(why);
        }
        let DriverSource { libraries, proc_root, .. } = &self.source;
        match Session::open(libraries, proc_root.path(), &self.progress) {
            Ok((session, end)) => {
                // A GPU that disappears from the bus later is a fault, and the library reports it.
                self.source.pci_bus = None;
                let session = Arc::new(session);
                self.session = Some(Arc::clone(&session));
                DriverResponse::Opened { driver: session.driver_info(), session, closed: end }
            }
            Err(error) => DriverResponse::OpenFailed(error),
        }
    }
    /// Why the node certainly has no NVIDIA GPU.
    fn no_gpu(&self) -> Option<Problem> {
        let bus = self.source.pci_bus.as_ref()?;
        let devices = bus.devices_without_gpu()?;
        let message = format!(
            "this node has no NVIDIA GPU: none of the {devices} PCI devices in {} is one",
            bus.devices().display()
        );
        let remedy = format!(
            "nothing to do: the bus is read again every {} s; set --require-gpu if there must be one",
            policy::PCI_BUS_EVERY.as_secs()
        );
        Some(Problem::new(message, remedy))
    }
}
