//! The threads of all GPUs of a session.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::device::DeviceSample;
use super::device_reader::{DeviceReader, GpuRequest};
use super::gpu_worker::{GpuWorker, SampledGpu};
use crate::clock::Clock;
use crate::host::ProcRoot;
use crate::model::{Missing, Moment};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::worker::Worker;

/// One worker per GPU, by index.
pub(super) struct GpuWorkers {
    clock: Clock,
    proc_root: ProcRoot,
    live: Arc<AtomicUsize>,
    workers: Vec<GpuWorker>,
}

impl GpuWorkers {
    /// No workers yet; `live` counts their threads.
    pub(super) fn new(clock: Clock, proc_root: ProcRoot, live: Arc<AtomicUsize>) -> Self {
        Self { clock, proc_root, live, workers: Vec::new() }
    }

    /// Starts a thread for each GPU index that has none. The thread also identifies its GPU, since
    /// that call can hang as well.
    pub(super) fn spawn_up_to(&mut self, count: f64, session: &Arc<Session>) {
        while f64::from(self.count()) < count {
            let index = self.count();
            let (session, proc_root) = (Arc::clone(session), self.proc_root.clone());
            let mut reader = DeviceReader::new(session, index, proc_root, self.clock);
            let name = format!("gpu-{index}");
            match Worker::spawn(name, &self.live, move |request| reader.handle(request)) {
                Ok(worker) => {
                    self.workers.push(GpuWorker { worker, sampled: SampledGpu::default() });
                }
                Err(error) => {
                    tracing::error!(gpu = index, %error, "cannot start the thread of this GPU");
                    return;
                }
            }
        }
    }

    /// Drops the workers; their threads end after their current request.
    pub(super) fn clear(&mut self) {
        self.workers.clear();
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Sends a request to each GPU that has none pending.
    pub(super) fn send(&mut self, request: &GpuRequest, now: Moment) {
        for gpu in &mut self.workers {
            gpu.worker.send(request.clone(), now.mono);
        }
    }

    /// Receives all responses that arrive before `deadline`.
    pub(super) fn receive(&mut self, deadline: Duration) {
        for gpu in &mut self.workers {
            gpu.recv_until(&self.clock, deadline);
        }
    }

    /// Receives the responses to the requests sent at `sent_at` that arrive before `deadline`.
    pub(super) fn receive_sent_at(&mut self, sent_at: Duration, deadline: Duration) {
        for gpu in &mut self.workers {
            if gpu.worker.pending_since() == Some(sent_at) {
                gpu.recv_until(&self.clock, deadline);
            }
        }
    }

    /// Index and handle of all identified GPUs, for peer-to-peer queries.
    pub(super) fn peers(&self) -> Arc<[(u32, Handle)]> {
        self.identified().map(|sample| (sample.gpu.index, sample.handle)).collect()
    }

    /// The newest samples of all identified GPUs.
    pub(super) fn identified(&self) -> impl Iterator<Item = &DeviceSample> + Clone {
        self.workers.iter().filter_map(|gpu| gpu.sampled.latest.as_ref()?.as_deref().ok())
    }

    /// Whether a thread ended without a response.
    pub(super) fn has_dead_thread(&self) -> bool {
        self.workers.iter().any(|gpu| gpu.worker.is_dead())
    }

    /// Whether the driver of a GPU is gone.
    pub(super) fn has_lost_driver(&self) -> bool {
        self.workers.iter().any(|gpu| gpu.state() == Some(Err(Missing::DriverGone)))
    }

    /// The GPUs and their newest samples.
    pub(super) fn sampled(&self) -> Vec<SampledGpu> {
        self.workers.iter().map(GpuWorker::sampled).collect()
    }
}
