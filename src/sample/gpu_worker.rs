//! The thread of one GPU and its newest response.

use std::sync::Arc;
use std::time::Duration;

use super::device::DeviceSample;
use super::device_reader::GpuRequest;
use crate::clock::Clock;
use crate::model::Missing;
use crate::worker::Worker;

/// One GPU and its newest sample.
#[derive(Clone, Debug, Default)]
pub struct SampledGpu {
    /// The newest sample, from this cycle or an earlier one, or the reason why the GPU cannot be
    /// identified. `None` before the first response.
    pub latest: Option<Result<Arc<DeviceSample>, Missing>>,
    /// When the pending request was sent (monotonic); `None` if no request is pending.
    pub pending_since: Option<Duration>,
    /// Duration of the newest completed request.
    pub request_duration: Option<Duration>,
}

pub(super) struct GpuWorker {
    pub(super) worker: Worker<GpuRequest, Option<Result<DeviceSample, Missing>>>,
    pub(super) sampled: SampledGpu,
}

impl GpuWorker {
    pub(super) fn recv_until(&mut self, clock: &Clock, deadline: Duration) {
        let Some(since) = self.worker.pending_since() else { return };
        if let Some(Some(sample)) = self.worker.recv_timeout(clock.until(deadline)) {
            self.sampled.request_duration = Some(clock.now().mono.saturating_sub(since));
            self.sampled.latest = Some(sample.map(Arc::new));
        }
    }

    pub(super) fn state(&self) -> Option<Result<(), Missing>> {
        let latest = self.sampled.latest.as_ref()?;
        Some(latest.as_ref().map_err(|missing| *missing).and_then(|sample| sample.state()))
    }

    pub(super) fn sampled(&self) -> SampledGpu {
        SampledGpu { pending_since: self.worker.pending_since(), ..self.sampled.clone() }
    }
}
