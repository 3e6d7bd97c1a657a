//! The thread that opens the driver, as seen by the sampler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::driver_reader::{DriverReader, DriverRequest, DriverResponse};
use super::driver_source::DriverSource;
use crate::clock::Clock;
use crate::model::Moment;
use crate::nvml::open_step::{OpenProgress, OpenStep};
use crate::worker::Worker;

/// Sends requests to the driver thread, and starts another one if it died.
pub(super) struct DriverThread {
    clock: Clock,
    source: DriverSource,
    live: Arc<AtomicUsize>,
    progress: OpenProgress,
    worker: Worker<DriverRequest, DriverResponse>,
    requested_at: Moment,
    request_duration: Option<Duration>,
}

impl DriverThread {
    /// Starts the thread, counted in `live` while it exists.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub(super) fn start(
        clock: Clock,
        source: DriverSource,
        live: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let progress = OpenProgress::default();
        Ok(Self {
            worker: worker(source.clone(), &live, &progress)?,
            requested_at: clock.now(),
            request_duration: None,
            clock,
            source,
            live,
            progress,
        })
    }

    pub(super) fn restart_if_dead(&mut self) {
        if self.is_dead() {
            match worker(self.source.clone(), &self.live, &self.progress) {
                Ok(worker) => self.worker = worker,
                Err(error) => tracing::error!(%error, "cannot start the driver thread"),
            }
        }
    }

    /// Sends a request, unless another one is pending.
    pub(super) fn send(&mut self, request: DriverRequest, now: Moment) {
        if self.pending_since().is_none() {
            self.requested_at = now;
            self.worker.send(request, now.mono);
        }
    }

    /// The response to the pending request, if it arrives before `deadline`.
    pub(super) fn receive(&mut self, deadline: Duration) -> Option<DriverResponse> {
        let response = self.worker.recv_timeout(self.clock.until(deadline))?;
        let duration = self.clock.now().mono.saturating_sub(self.requested_at.mono);
        self.request_duration = Some(duration);
        Some(response)
    }

    /// When the pending request was sent (monotonic); `None` if no request is pending.
    pub(super) fn pending_since(&self) -> Option<Duration> {
        self.worker.pending_since()
    }

    /// The step of the pending request to open a session.
    pub(super) fn open_step(&self) -> OpenStep {
        self.progress.step()
    }

    /// Whether the thread ended without a response.
    pub(super) fn is_dead(&self) -> bool {
        self.worker.is_dead()
    }

    /// When the last request was sent.
    pub(super) fn requested_at(&self) -> Moment {
        self.requested_at
    }

    /// Duration of the last completed request.
    pub(super) fn request_duration(&self) -> Option<Duration> {
        self.request_duration
    }
}

fn worker(
    source: DriverSource,
    live: &Arc<AtomicUsize>,
    progress: &OpenProgress,
) -> io::Result<Worker<DriverRequest, DriverResponse>> {
    let mut reader = DriverReader::new(source, progress.clone());
    Worker::spawn("driver".to_owned(), live, move |request| reader.handle(request))
}
