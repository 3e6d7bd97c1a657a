//! The collection cycle: each GPU is read by its own thread, and the responses that arrive before
//! the deadline form the sample. The cycle never waits longer than the deadline and never joins a
//! thread.

mod cached;
mod clock_event_history;
pub mod device;
mod device_reader;
pub mod driver_clock;
pub mod driver_reader;
mod driver_session;
pub mod driver_source;
mod driver_state;
mod driver_thread;
mod event_listeners;
pub mod events;
pub mod gpm;
pub mod gpu_retention;
pub mod gpu_utilization;
pub mod gpu_worker;
mod gpu_workers;
mod health_history;
pub mod health_reader;
mod histories;
mod identified_gpu;
pub mod info_labels;
pub mod limits;
mod link_errors;
pub mod link_fields;
mod link_rates;
mod memory_accounts;
mod mig_mode;
mod open_backoff;
mod own_limit;
pub mod partition;
mod partitions;
mod peer_links;
pub mod process_utilization;
pub mod processes;
pub mod reading_cache;
mod release_state;
pub mod unlisted_use;
pub mod utilization_source;
pub mod xid_history;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use self::device_reader::GpuRequest;
use self::driver_session::{DriverSession, SessionEvent};
use self::driver_source::DriverSource;
pub use self::driver_state::{DriverDown, DriverState};
use self::driver_thread::DriverThread;
use self::event_listeners::EventListeners;
pub use self::gpu_worker::SampledGpu;
use self::gpu_workers::GpuWorkers;
use self::histories::Histories;
use self::release_state::ReleaseState;
use crate::clock::Clock;
use crate::driver_release::ReleaseRequest;
use crate::model::{ClockEventCounts, DownReason, HealthState, Missing, Moment, Reading, XidState};
use crate::policy;
use crate::selection::Selection;

/// Everything that was read in one cycle; input of a snapshot.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Start of the cycle.
    pub at: Moment,
    /// Duration of the cycle.
    pub duration: Duration,
    /// State of the NVML session.
    pub driver: DriverState,
    /// Number of GPUs (`nvmlDeviceGetCount_v2`), and when it was requested.
    pub gpu_count: Option<(Reading, Moment)>,
    /// Duration of the last request to the driver thread.
    pub driver_request_duration: Option<Duration>,
    /// GPUs in index order.
    pub gpus: Vec<SampledGpu>,
    /// XID errors of each GPU, by UUID.
    pub xids: BTreeMap<Arc<str>, XidState>,
    /// Clock event (throttle) counts of each GPU, by UUID.
    pub clock_events: BTreeMap<Arc<str>, Result<ClockEventCounts, Missing>>,
    /// Health state of each GPU, by UUID.
    pub health: BTreeMap<Arc<str>, Arc<HealthState>>,
    /// Failed attempts to open a session, by reason.
    pub open_failures: BTreeMap<&'static str, u64>,
    /// Number of cycles, this one included.
    pub cycles: u64,
    /// Number of threads of earlier sessions that are still blocked in the driver.
    pub abandoned_threads: usize,
}

/// Runs the collection cycle.
pub struct Sampler {
    clock: Clock,
    deadline: Duration,
    /// Number of existing threads of this sampler.
    live: Arc<AtomicUsize>,
    driver: DriverSession,
    release: ReleaseState,
    gpus: GpuWorkers,
    listeners: EventListeners,
    histories: Histories,
    cycles: u64,
}

impl Sampler {
    /// Creates a sampler; the driver is not opened yet.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn new(clock: Clock, interval: Duration, source: DriverSource) -> io::Result<Self> {
        let live: Arc<AtomicUsize> = Arc::default();
        let proc_root = source.proc_root.clone();
        let thread = DriverThread::start(clock, source, Arc::clone(&live))?;
        Ok(Self {
            clock,
            deadline: policy::cycle_deadline(interval),
            driver: DriverSession::new(clock, thread),
            release: ReleaseState::default(),
            gpus: GpuWorkers::new(clock, proc_root, Arc::clone(&live)),
            listeners: EventListeners::new(clock, Arc::clone(&live)),
            histories: Histories::default(),
            live,
            cycles: 0,
        })
    }

    /// Sets or clears the request to release NVML, effective from the next cycle. Returns whether a
    /// snapshot is to be published before the next regular one.
    pub fn set_release_request(&mut self, request: Option<ReleaseRequest>) -> bool {
        let changed = self.release.set_request(request);
        if changed && !self.release.is_requested() {
            self.driver.end_release();
        }
        changed || self.driver.state().down_reason() == Some(DownReason::Releasing)
    }

    /// Reads the utilization ring buffers of all GPUs, without publishing: a ring buffer must be
    /// read before it wraps.
    pub fn read_utilization(&mut self) {
        let now = self.clock.now();
        self.receive_late();
        self.gpus.send(&GpuRequest::ReadUtilization, now);
        self.collect(now, now.mono + self.deadline);
    }

    /// Reads all selected families that are due, and returns at the deadline at the latest.
    pub fn cycle(&mut self, selection: &Arc<Selection>) -> Sample {
        let now = self.clock.now();
        let deadline = now.mono + self.deadline;
        self.cycles += 1;
        self.receive_late();
        if self.release.is_requested() {
            self.release_session(now, deadline);
        } else if self.driver.session().is_none() {
            self.open(now, deadline);
        }
        self.driver.request_count(now);
        let peers = self.gpus.peers();
        self.gpus.send(&GpuRequest::Sample(now, Arc::clone(selection), peers), now);
        self.collect(now, deadline);
        self.histories.record(self.gpus.identified(), selection, now.mono);
        let sample = self.sample(now, selection);
        self.close_ended_session(now);
        sample
    }

    /// Waits until no thread is in an NVML call, or until `deadline`.
    pub fn quiesce(&mut self, deadline: Duration) {
        self.gpus.receive(deadline);
        self.receive_driver_response(deadline);
    }

    /// Opens a session and counts its GPUs at once, so that the first snapshot is complete.
    fn open(&mut self, now: Moment, deadline: Duration) {
        if self.driver.request_open(now) {
            self.receive_driver_response(deadline);
            if self.driver.request_count(now) {
                self.receive_driver_response(deadline);
            }
        }
    }

    /// Makes all threads drop the session, and sets the driver state to releasing or released.
    fn release_session(&mut self, now: Moment, deadline: Duration) {
        if self.driver.session().is_some() {
            self.close(now, DownReason::Releasing);
        }
        self.driver.request_release(now);
        self.receive_driver_response(deadline);
        let is_in_call = self.driver.thread().pending_since().is_some();
        self.driver.set_released(self.release.wait(&self.clock, deadline, is_in_call));
    }

    /// Receives responses to requests of earlier cycles that have arrived since, without waiting.
    fn receive_late(&mut self) {
        self.quiesce(Duration::ZERO);
    }

    /// Receives the responses to the requests sent at `now` that arrive before `deadline`. A thread
    /// with an older pending request is not waited for: a hang must not slow down every cycle.
    fn collect(&mut self, now: Moment, deadline: Duration) {
        self.gpus.receive_sent_at(now.mono, deadline);
        if self.driver.thread().pending_since() == Some(now.mono) {
            self.receive_driver_response(deadline);
        }
        let (session, identified) = (self.driver.session(), self.gpus.identified());
        let received_at = self.clock.now().mono;
        self.listeners.record(&mut self.histories.xids, session, identified, received_at);
    }

    fn receive_driver_response(&mut self, deadline: Duration) {
        match (self.driver.receive(deadline), self.driver.session()) {
            (Some(SessionEvent::Opened(closed)), _) => self.release.add_session(closed),
            (Some(SessionEvent::Counted(Ok(count))), Some(session)) => {
                self.gpus.spawn_up_to(count, session);
            }
            (Some(SessionEvent::Counted(_)) | None, _) => {}
        }
    }

    fn sample(&self, at: Moment, selection: &Selection) -> Sample {
        Sample {
            at,
            duration: self.clock.now().mono.saturating_sub(at.mono),
            driver: self.driver_state(at.mono),
            gpu_count: self.driver.gpu_count(),
            driver_request_duration: self.driver.thread().request_duration(),
            gpus: self.gpus.sampled(),
            xids: self.histories.xid_states(selection.scope.windows.xids, at.mono),
            clock_events: self.histories.clock_event_counts(),
            health: self.histories.health_states(),
            open_failures: self.driver.open_failures().clone(),
            cycles: self.cycles,
            abandoned_threads: self.abandoned(),
        }
    }

    /// The driver state. A thread that does not release the session is not a driver that hangs.
    fn driver_state(&self, now: Duration) -> DriverState {
        if self.release.is_requested() {
            self.driver.state().clone()
        } else {
            self.driver.hung_or_state(now)
        }
    }

    /// Number of threads of this sampler that do not belong to the current session.
    fn abandoned(&self) -> usize {
        let gpus = usize::try_from(self.gpus.count()).unwrap_or(usize::MAX);
        let present = 1 + gpus + usize::from(self.listeners.is_listening());
        self.live.load(Ordering::Relaxed).saturating_sub(present)
    }

    /// Closes the session if the driver is gone, a thread died, or a GPU was removed: GPU indexes
    /// may have changed. The next cycle opens a new session; the threads drop the old one until
    /// then.
    fn close_ended_session(&mut self, now: Moment) {
        if self.driver.session().is_some()
            && let Some(reason) = self.session_end_reason()
        {
            self.close(now, reason);
        }
    }

    fn close(&mut self, now: Moment, reason: DownReason) {
        self.driver.close(now.mono, reason);
        self.listeners.stop();
        self.histories.end_session(reason);
        self.gpus.clear();
    }

    fn session_end_reason(&self) -> Option<DownReason> {
        let count = self.driver.gpu_count().map(|(count, _)| count);
        if count == Some(Err(Missing::DriverGone)) || self.gpus.has_lost_driver() {
            Some(DownReason::DriverGone)
        } else if self.driver.thread().is_dead() || self.gpus.has_dead_thread() {
            Some(DownReason::ThreadDied)
        } else if count
            .and_then(Result::ok)
            .is_some_and(|count| f64::from(self.gpus.count()) > count)
        {
            Some(DownReason::GpuRemoved)
        } else {
            None
        }
    }
}
