//! The NVML session: opened on the driver thread, closed when it is of no more use.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::driver_reader::{DriverRequest, DriverResponse};
use super::driver_state::{DriverDown, DriverState};
use super::driver_thread::DriverThread;
use super::open_backoff::OpenBackoff;
use crate::clock::Clock;
use crate::model::{DownReason, Moment, Problem, Reading};
use crate::nvml::{LibraryError, Session, SessionClosed};
use crate::policy;

/// The session, if one is open, and the state of the driver.
pub(super) struct DriverSession {
    clock: Clock,
    thread: DriverThread,
    session: Option<Arc<Session>>,
    previous: Weak<Session>,
    /// Until when a new session waits for the threads that hold the previous one (monotonic).
    previous_until: Duration,
    backoff: OpenBackoff,
    state: DriverState,
    open_failures: BTreeMap<&'static str, u64>,
    gpu_count: Option<(Reading, Moment)>,
}

/// A response of the driver thread that concerns other parts of the sampler.
pub(super) enum SessionEvent {
    /// A session is open; this signals its end.
    Opened(SessionClosed),
    /// The GPUs of the session were counted.
    Counted(Reading),
}

impl DriverSession {
    /// The driver is not opened yet.
    pub(super) fn new(clock: Clock, thread: DriverThread) -> Self {
        Self {
            clock,
            thread,
            session: None,
            previous: Weak::new(),
            previous_until: Duration::ZERO,
            backoff: OpenBackoff::default(),
            state: DriverState::default(),
            open_failures: BTreeMap::new(),
            gpu_count: None,
        }
    }

    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    pub(super) fn thread(&self) -> &DriverThread {
        &self.thread
    }

    pub(super) fn state(&self) -> &DriverState {
        &self.state
    }

    /// Failed attempts to open a session, by reason.
    pub(super) fn open_failures(&self) -> &BTreeMap<&'static str, u64> {
        &self.open_failures
    }

    /// Number of GPUs, and when it was requested.
    pub(super) fn gpu_count(&self) -> Option<(Reading, Moment)> {
        self.gpu_count
    }

    /// Down with [`DownReason::Hung`] if opening a session takes longer than
    /// [`policy::OPEN_TIMEOUT`]; otherwise the state.
    pub(super) fn hung_or_state(&self, now: Duration) -> DriverState {
        let waited = self.thread.pending_since().map(|since| now.saturating_sub(since));
        match waited.filter(|waited| *waited >= policy::OPEN_TIMEOUT) {
            Some(waited) if self.session.is_none() => {
                let step = self.thread.open_step();
                let message = format!("{step} has not returned for {} s", waited.as_secs());
                let problem = Problem::new(message, step.remedy());
                DriverState::Down(DriverDown::Closed { reason: DownReason::Hung, problem })
            }
            _ => self.state.clone(),
        }
    }

    /// Requests a new session, except during the backoff and while threads other than the driver
    /// thread hold the previous one. Returns whether it was requested.
    pub(super) fn request_open(&mut self, now: Moment) -> bool {
        let is_held = self.previous.strong_count() > 1 && now.mono < self.previous_until;
        if is_held || !self.backoff.is_over(now.mono) {
            return false;
        }
        self.thread.restart_if_dead();
        self.thread.send(DriverRequest::Open, now);
        true
    }

    /// Requests the number of GPUs if a session is open. Returns whether one is.
    pub(super) fn request_count(&mut self, now: Moment) -> bool {
        if self.session.is_some() {
            self.thread.send(DriverRequest::CountGpus, now);
        }
        self.session.is_some()
    }

    /// Makes the driver thread drop its session.
    pub(super) fn request_release(&mut self, now: Moment) {
        self.thread.send(DriverRequest::Release, now);
    }

    /// Sets the state of a requested release.
    pub(super) fn set_released(&mut self, state: DriverState) {
        self.state = state;
    }

    /// Opens the driver again in the next cycle.
    pub(super) fn end_release(&mut self) {
        self.backoff.end();
        let detail = "opening the driver again after a release";
        self.state = DriverState::closed(DownReason::Starting, detail);
    }

    /// Receives a response that arrives before `deadline`.
    pub(super) fn receive(&mut self, deadline: Duration) -> Option<SessionEvent> {
        match self.thread.receive(deadline)? {
            DriverResponse::Opened { session, driver, closed } => {
                self.backoff.record_opened(self.clock.now().mono);
                self.session = Some(session);
                self.state = DriverState::Up(driver);
                Some(SessionEvent::Opened(closed))
            }
            DriverResponse::OpenFailed(error) => {
                self.record_failure(error);
                None
            }
            DriverResponse::NoGpu(problem) => {
                self.backoff.postpone(self.clock.now().mono + policy::PCI_BUS_EVERY);
                let reason = DownReason::NoGpu;
                self.state = DriverState::Down(DriverDown::Closed { reason, problem });
                None
            }
            DriverResponse::GpuCount(count) => {
                self.gpu_count = Some((count, self.thread.requested_at()));
                Some(SessionEvent::Counted(count))
            }
            DriverResponse::Released => None,
        }
    }

    /// Drops the session; the next cycle may open a new one.
    pub(super) fn close(&mut self, now: Duration, reason: DownReason) {
        self.previous = self.session.take().as_ref().map(Arc::downgrade).unwrap_or_default();
        self.previous_until = now + policy::RELEASE_GRACE;
        self.gpu_count = None;
        self.backoff.record_closed(now);
        self.state = DriverState::closed(reason, "the session has ended");
    }

    fn record_failure(&mut self, error: LibraryError) {
        self.backoff.record_failure(self.clock.now().mono);
        *self.open_failures.entry(error.reason().label()).or_default() += 1;
        self.state = DriverState::Down(DriverDown::OpenFailed(error));
    }
}
