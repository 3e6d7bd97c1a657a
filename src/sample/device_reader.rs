//! Reads one GPU, on its own thread.

use std::sync::Arc;

use super::device::DeviceSample;
use super::identified_gpu::{IdentifiedGpu, ReaderContext};
use crate::clock::Clock;
use crate::host::ProcRoot;
use crate::model::{Missing, Moment};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::selection::Selection;

/// A request to a GPU thread.
#[derive(Clone, Debug)]
pub(super) enum GpuRequest {
    /// Only read the utilization ring buffers.
    ReadUtilization,
    /// Read all selected families that are due; with index and handle of all GPUs, for peer-to-peer
    /// queries.
    Sample(Moment, Arc<Selection>, Arc<[(u32, Handle)]>),
}

/// Identifies and reads the GPU at an index.
pub(super) struct DeviceReader {
    index: u32,
    context: ReaderContext,
    identified: Option<IdentifiedGpu>,
}

impl DeviceReader {
    /// Creates a reader of the GPU at `index`; the GPU is not identified yet.
    pub(super) fn new(
        session: Arc<Session>,
        index: u32,
        proc_root: ProcRoot,
        clock: Clock,
    ) -> Self {
        Self { index, context: ReaderContext::new(session, proc_root, clock), identified: None }
    }

    /// Handles one request; [`GpuRequest::ReadUtilization`] has no result.
    ///
    /// # Errors
    /// The GPU cannot be identified.
    pub(super) fn handle(&mut self, request: GpuRequest) -> Option<Result<DeviceSample, Missing>> {
        match request {
            GpuRequest::ReadUtilization => {
                if let Some(gpu) = &mut self.identified {
                    gpu.read_utilization(&mut self.context);
                }
                None
            }
            GpuRequest::Sample(now, selection, peers) => {
                self.context.selection = selection;
                Some(self.sample(now, &peers))
            }
        }
    }

    fn sample(&mut self, now: Moment, peers: &[(u32, Handle)]) -> Result<DeviceSample, Missing> {
        let mut gpu = self.identity()?;
        let sample = gpu.sample(&mut self.context, now, peers);
        self.identified = Some(gpu);
        Ok(sample)
    }

    /// The identified GPU. One that was reset needs a new handle, and its cached state is invalid. If
    /// there is no new handle, the old one stays in use, so that its errors are reported.
    fn identity(&mut self) -> Result<IdentifiedGpu, Missing> {
        let session = &self.context.session;
        let (gpu, handle) = match self.identified.take() {
            Some(known) if known.is_down() => match session.handle(known.gpu()) {
                Ok(handle) => (Arc::clone(known.gpu()), handle),
                Err(_) => return Ok(known),
            },
            Some(known) => return Ok(known),
            None => {
                let (gpu, handle) = session.identify(self.index)?;
                (Arc::new(gpu), handle)
            }
        };
        Ok(IdentifiedGpu::new(gpu, handle, session))
    }
}
