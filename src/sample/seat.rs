//! One GPU as the sampler asks it: its thread, and its newest answer.

use std::sync::Arc;
use std::time::Duration;

use super::device::{self, DeviceSample};
use crate::clock::Clock;
use crate::model::Missing;
use crate::nvml::raw::Handle;
use crate::worker::Worker;

/// One GPU and the newest thing that is known of it.
#[derive(Clone, Debug, Default)]
pub struct SampledGpu {
    /// Its newest answer, from this cycle or an earlier one: what it is and does, or why it cannot
    /// even be identified.
    pub latest: Option<Result<Arc<DeviceSample>, Missing>>,
    /// Since when it has owed an answer.
    pub waiting_since: Option<Duration>,
    /// How long its newest answer took.
    pub took: Option<Duration>,
}

/// A GPU's thread, and what it has told.
pub(super) struct Seat {
    pub(super) worker: Worker<device::Question, Option<Result<DeviceSample, Missing>>>,
    pub(super) sampled: SampledGpu,
}

impl Seat {
    pub(super) fn hear(&mut self, clock: &Clock, deadline: Duration) {
        let Some(since) = self.worker.waiting_since() else { return };
        if let Some(Some(answer)) = self.worker.answer(clock.until(deadline)) {
            self.sampled.took = Some(clock.now().mono.saturating_sub(since));
            self.sampled.latest = Some(answer.map(Arc::new));
        }
    }

    /// The GPU as others may ask for it.
    pub(super) fn peer(&self) -> Option<(u32, Handle)> {
        let sample = self.sampled.latest.as_ref()?.as_ref().ok()?;
        Some((sample.gpu.index, sample.handle))
    }

    pub(super) fn state(&self) -> Option<Result<(), Missing>> {
        let latest = self.sampled.latest.as_ref()?;
        Some(latest.as_ref().map_err(|missing| *missing).and_then(|sample| sample.state()))
    }

    pub(super) fn sampled(&self) -> SampledGpu {
        SampledGpu { waiting_since: self.worker.waiting_since(), ..self.sampled.clone() }
    }
}
