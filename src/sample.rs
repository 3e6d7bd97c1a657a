//! The collection cycle: each GPU is read by its own thread, and the responses that arrive before
//! the deadline form the sample. The cycle never waits longer than the deadline and never joins a
//! thread.

pub mod device;
pub mod driver_reader;
pub mod driver_state;
pub mod events;
pub mod gpm;
pub mod gpu_retention;
pub mod gpu_utilization;
pub mod gpu_worker;
pub mod health_reader;
pub mod info_labels;
pub mod limits;
pub mod partition;
pub mod process_utilization;
pub mod processes;
pub mod reading_cache;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use self::device::DeviceReader;
use self::driver_reader::DriverReader;
pub use self::driver_state::{DriverDown, DriverState};
use self::events::{DrainingListener, EventListener};
use self::gpu_retention::GpuRetention;
use self::gpu_worker::GpuWorker;
pub use self::gpu_worker::SampledGpu;
use crate::clock::Clock;
use crate::driver_release::ReleaseRequest;
use crate::host::ProcRoot;
use crate::model::{
    ClockEventCounts, ClockEventHistory, DownReason, HealthHistory, HealthState, Missing, Moment,
    Problem, Reading, XidHistory,
};
use crate::nvml::{LibraryError, Session, SessionClosed};
use crate::policy;
use crate::selection::Selection;
use crate::worker::Worker;

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
    pub xids: BTreeMap<Arc<str>, XidHistory>,
    /// Clock event (throttle) counts of each GPU, by UUID.
    pub clock_events: BTreeMap<Arc<str>, Result<ClockEventCounts, Missing>>,
    /// Health state of each GPU, by UUID.
    pub health: BTreeMap<Arc<str>, HealthState>,
    /// Failed attempts to open a session, by reason.
    pub open_failures: BTreeMap<&'static str, u64>,
    /// Number of cycles, this one included.
    pub cycles: u64,
    /// Number of threads of earlier sessions that are still blocked in the driver.
    pub abandoned_threads: usize,
}

/// Sends requests to the driver thread and the GPU threads, and keeps their newest responses.
pub struct Sampler {
    clock: Clock,
    deadline: Duration,
    libraries: Vec<PathBuf>,
    proc_root: ProcRoot,
    live: Arc<AtomicUsize>,
    driver_thread: Worker<driver_reader::DriverRequest, driver_reader::DriverResponse>,
    session: Option<Arc<Session>>,
    previous_session: Weak<Session>,
    /// Sessions that some thread may still hold.
    held_sessions: Vec<SessionClosed>,
    /// The active request to release NVML.
    release_request: Option<ReleaseRequest>,
    release_deadline: Duration,
    listener: Option<EventListener>,
    draining_listeners: Vec<DrainingListener>,
    xids: BTreeMap<Arc<str>, XidHistory>,
    clocks: BTreeMap<Arc<str>, ClockEventHistory>,
    health: BTreeMap<Arc<str>, HealthHistory>,
    gpu_retention: GpuRetention,
    driver: DriverState,
    next_open: Duration,
    opened_at: Duration,
    failures: u32,
    open_failures: BTreeMap<&'static str, u64>,
    gpu_count: Option<(Reading, Moment)>,
    driver_requested_at: Moment,
    driver_request_duration: Option<Duration>,
    gpu_workers: Vec<GpuWorker>,
    cycles: u64,
}

impl Sampler {
    /// Creates a sampler; the driver is not opened yet.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn new(
        clock: Clock,
        interval: Duration,
        libraries: Vec<PathBuf>,
        proc_root: ProcRoot,
    ) -> io::Result<Self> {
        let live = Arc::default();
        Ok(Self {
            deadline: policy::cycle_deadline(interval),
            driver_thread: driver_thread(&libraries, &proc_root, &live)?,
            libraries,
            proc_root,
            live,
            session: None,
            previous_session: Weak::new(),
            held_sessions: Vec::new(),
            release_request: None,
            release_deadline: Duration::ZERO,
            listener: None,
            draining_listeners: Vec::new(),
            xids: BTreeMap::new(),
            clocks: BTreeMap::new(),
            health: BTreeMap::new(),
            gpu_retention: GpuRetention::default(),
            driver: DriverState::default(),
            next_open: Duration::ZERO,
            opened_at: Duration::ZERO,
            failures: 0,
            open_failures: BTreeMap::new(),
            gpu_count: None,
            driver_requested_at: clock.now(),
            driver_request_duration: None,
            gpu_workers: Vec::new(),
            cycles: 0,
            clock,
        })
    }

    /// Sets or clears the request to release NVML, effective from the next cycle. Returns whether a
    /// snapshot is to be published before the next regular one.
    pub fn set_release_request(&mut self, request: Option<ReleaseRequest>) -> bool {
        let changed = self.release_request.is_some() != request.is_some();
        if changed && request.is_none() {
            self.next_open = Duration::ZERO;
            self.driver = DriverState::closed(
                DownReason::Starting,
                "opening the driver again after a release",
            );
        }
        self.release_request = request;
        changed || self.driver.down_reason() == Some(DownReason::Releasing)
    }

    /// Reads the utilization ring buffers of all GPUs, without publishing: a ring buffer must be
    /// read before it wraps.
    pub fn read_utilization(&mut self) {
        let now = self.clock.now();
        self.receive_late();
        for gpu in &mut self.gpu_workers {
            gpu.worker.send(device::GpuRequest::ReadUtilization(now), now.mono);
        }
        self.collect(now, now.mono + self.deadline);
    }

    /// Reads all selected families that are due, and returns at the deadline at the latest.
    pub fn cycle(&mut self, selection: &Arc<Selection>) -> Sample {
        let now = self.clock.now();
        let deadline = now.mono + self.deadline;
        self.cycles += 1;
        self.receive_late();
        if self.release_request.is_some() {
            self.release_session(now, deadline);
        } else if self.session.is_none() {
            self.open(now, deadline);
        }
        if self.session.is_some() {
            self.send_driver_request(driver_reader::DriverRequest::CountGpus, now);
        }
        let peers: Arc<[_]> = self.gpu_workers.iter().filter_map(GpuWorker::peer).collect();
        for gpu in &mut self.gpu_workers {
            let (selection, peers) = (Arc::clone(selection), Arc::clone(&peers));
            gpu.worker.send(device::GpuRequest::Sample(now, selection, peers), now.mono);
        }
        self.collect(now, deadline);
        self.record_clock_events(selection);
        self.record_health(selection);
        self.drop_absent_gpus(now);
        let sample = self.sample(now);
        self.close_ended_session(now);
        sample
    }

    /// Waits until no thread is in an NVML call, or until `deadline`.
    pub fn quiesce(&mut self, deadline: Duration) {
        for gpu in &mut self.gpu_workers {
            gpu.recv_until(&self.clock, deadline);
        }
        self.receive_driver_response(deadline);
    }

    /// Opens a session and counts its GPUs at once, so that the first snapshot is complete.
    fn open(&mut self, now: Moment, deadline: Duration) {
        if now.mono < self.next_open
            || (self.previous_session_is_held() && now.mono < self.release_deadline)
        {
            return;
        }
        if self.driver_thread.is_dead() {
            match driver_thread(&self.libraries, &self.proc_root, &self.live) {
                Ok(worker) => self.driver_thread = worker,
                Err(error) => tracing::error!(%error, "cannot start the driver thread"),
            }
        }
        self.send_driver_request(driver_reader::DriverRequest::Open, now);
        self.receive_driver_response(deadline);
        if self.session.is_some() {
            self.send_driver_request(driver_reader::DriverRequest::CountGpus, now);
            self.receive_driver_response(deadline);
        }
    }

    /// Makes all threads drop the session, and sets the driver state to releasing or released.
    fn release_session(&mut self, now: Moment, deadline: Duration) {
        if self.session.is_some() {
            self.close(now, DownReason::Releasing);
        }
        self.send_driver_request(driver_reader::DriverRequest::Release, now);
        self.receive_driver_response(deadline);
        self.held_sessions.retain(|end| !end.wait(self.clock.until(deadline)));
        let is_free = self.driver_thread.pending_since().is_none() && self.held_sessions.is_empty();
        let request =
            self.release_request.iter().map(ReleaseRequest::to_string).collect::<String>();
        self.driver = if is_free {
            DriverState::closed(DownReason::Released, format!("NVML is released, {request}"))
        } else {
            let message =
                format!("NVML is being released, {request}; waiting for driver calls to return");
            DriverState::closed(DownReason::Releasing, message)
        };
    }

    /// Whether a thread other than the driver thread still holds the previous session.
    fn previous_session_is_held(&self) -> bool {
        self.previous_session.strong_count() > 1
    }

    fn send_driver_request(&mut self, request: driver_reader::DriverRequest, now: Moment) {
        if self.driver_thread.pending_since().is_none() {
            self.driver_requested_at = now;
            self.driver_thread.send(request, now.mono);
        }
    }

    /// Receives responses to requests of earlier cycles that have arrived since, without waiting.
    fn receive_late(&mut self) {
        self.quiesce(Duration::ZERO);
    }

    /// Receives the responses to the requests sent at `now` that arrive before `deadline`. A thread
    /// with an older pending request is not waited for: a hang must not slow down every cycle.
    fn collect(&mut self, now: Moment, deadline: Duration) {
        for gpu in &mut self.gpu_workers {
            if gpu.worker.pending_since() == Some(now.mono) {
                gpu.recv_until(&self.clock, deadline);
            }
        }
        if self.driver_thread.pending_since() == Some(now.mono) {
            self.receive_driver_response(deadline);
        }
        self.record_events();
    }

    fn receive_driver_response(&mut self, deadline: Duration) {
        let Some(response) = self.driver_thread.recv_timeout(self.clock.until(deadline)) else {
            return;
        };
        let now = self.clock.now().mono;
        self.driver_request_duration = Some(now.saturating_sub(self.driver_requested_at.mono));
        match response {
            driver_reader::DriverResponse::Opened { session, driver, closed: end } => {
                self.held_sessions.retain(|end| !end.wait(Duration::ZERO));
                self.held_sessions.push(end);
                self.opened_at = now;
                self.listener = self.start_listener(&session);
                self.session = Some(session);
                self.driver = DriverState::Up(driver);
            }
            driver_reader::DriverResponse::OpenFailed(error) => self.open_failed(error, now),
            driver_reader::DriverResponse::GpuCount(count) => {
                self.gpu_count = Some((count, self.driver_requested_at));
                self.spawn_new_gpu_workers(count);
            }
            driver_reader::DriverResponse::Released => {}
        }
    }

    fn start_listener(&self, session: &Arc<Session>) -> Option<EventListener> {
        EventListener::start(Arc::clone(session), self.clock, &self.live)
            .inspect_err(|error| tracing::error!(%error, "cannot start the event thread"))
            .ok()
    }

    /// Subscribes identified GPUs to XID events and records the events received since the last
    /// cycle.
    fn record_events(&mut self) {
        let now = self.clock.now().mono;
        let xids = &mut self.xids;
        self.draining_listeners.retain_mut(|listener| listener.drain(xids, now));
        if self.listener.as_ref().is_none_or(EventListener::has_ended) {
            self.listener = self.session.as_ref().and_then(|session| self.start_listener(session));
        }
        let Some(listener) = &mut self.listener else { return };
        for gpu in &self.gpu_workers {
            if let Some(Ok(sample)) = &gpu.sampled.latest {
                listener.subscribe(&sample.gpu, sample.handle);
            }
        }
        listener.drain(&mut self.xids, now);
    }

    /// Records clock event reasons while a family that counts them is selected.
    fn record_clock_events(&mut self, selection: &Selection) {
        if !selection.needs_clock_events() {
            self.clocks.clear();
            return;
        }
        for gpu in &self.gpu_workers {
            let Some(Ok(sample)) = &gpu.sampled.latest else { continue };
            if let Some(bits) = sample.clock_event_reasons {
                let record = self.clocks.entry(Arc::clone(&sample.gpu.uuid)).or_default();
                record.record(bits, sample.at.mono, selection.scope.windows.clock_events);
            }
        }
    }

    /// Records health samples while a health family is selected, and which GPUs were reset.
    fn record_health(&mut self, selection: &Selection) {
        if !selection.needs_health() {
            self.health.clear();
        }
        for gpu in &self.gpu_workers {
            let Some(Ok(sample)) = &gpu.sampled.latest else { continue };
            if let Some(xids) = self.xids.get_mut(&sample.gpu.uuid) {
                xids.observe_state(sample.state());
            }
            if let (Some(health), true) = (&sample.health, selection.needs_health()) {
                let record = self.health.entry(Arc::clone(&sample.gpu.uuid)).or_default();
                record.record(health, sample.at.mono, policy::HEALTH_WINDOW);
            }
        }
    }

    /// Drops the records of GPUs that have been absent for longer than the retention time.
    fn drop_absent_gpus(&mut self, now: Moment) {
        let present =
            self.gpu_workers.iter().filter_map(|gpu| gpu.sampled.latest.as_ref()?.as_ref().ok());
        self.gpu_retention.mark_present(present.map(|sample| &sample.gpu.uuid), now.mono);
        self.gpu_retention.retain(&mut self.xids);
        self.gpu_retention.retain(&mut self.clocks);
        self.gpu_retention.retain(&mut self.health);
    }

    fn open_failed(&mut self, error: LibraryError, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.next_open = now + policy::open_backoff(self.failures);
        *self.open_failures.entry(error.reason().label()).or_default() += 1;
        self.driver = DriverState::Down(DriverDown::OpenFailed(error));
    }

    /// Starts a thread for each GPU index that has none. The thread also identifies its GPU, since
    /// that call can hang as well.
    fn spawn_new_gpu_workers(&mut self, count: Reading) {
        let (Some(session), Ok(count)) = (self.session.clone(), count) else { return };
        while f64::from(to_u32(self.gpu_workers.len())) < count {
            let index = to_u32(self.gpu_workers.len());
            let mut reader = DeviceReader::new(Arc::clone(&session), index, self.proc_root.clone());
            let name = format!("gpu-{index}");
            match Worker::spawn(name, &self.live, move |request| reader.handle(request)) {
                Ok(worker) => {
                    self.gpu_workers.push(GpuWorker { worker, sampled: SampledGpu::default() });
                }
                Err(error) => {
                    tracing::error!(gpu = index, %error, "cannot start the thread of this GPU");
                    return;
                }
            }
        }
    }

    fn sample(&self, at: Moment) -> Sample {
        Sample {
            at,
            duration: self.clock.now().mono.saturating_sub(at.mono),
            driver: self.driver_state(at.mono),
            gpu_count: self.gpu_count,
            driver_request_duration: self.driver_request_duration,
            gpus: self.gpu_workers.iter().map(GpuWorker::sampled).collect(),
            xids: self.xids.clone(),
            clock_events: self
                .clocks
                .iter()
                .map(|(gpu, r)| (Arc::clone(gpu), r.counts()))
                .collect(),
            health: self.health.iter().filter_map(health_state).collect(),
            open_failures: self.open_failures.clone(),
            cycles: self.cycles,
            abandoned_threads: self.abandoned(),
        }
    }

    /// Number of threads of this sampler that do not belong to the current session.
    fn abandoned(&self) -> usize {
        let present = 1 + self.gpu_workers.len() + usize::from(self.listener.is_some());
        self.live.load(Ordering::Relaxed).saturating_sub(present)
    }

    /// The driver state; down with reason `hung` if opening a session takes longer than
    /// [`policy::OPEN_TIMEOUT`].
    fn driver_state(&self, now: Duration) -> DriverState {
        let waited = self.driver_thread.pending_since().map(|since| now.saturating_sub(since));
        match waited.filter(|waited| *waited >= policy::OPEN_TIMEOUT) {
            Some(waited) if self.session.is_none() && self.release_request.is_none() => {
                DriverState::Down(DriverDown::Closed {
                    reason: DownReason::Hung,
                    problem: Problem::new(
                        format!("nvmlInit_v2 has not returned for {} s", waited.as_secs()),
                        "check the kernel log for NVRM lines",
                    ),
                })
            }
            _ => self.driver.clone(),
        }
    }

    /// Closes the session if the driver is gone, a thread died, or a GPU was removed: GPU indexes
    /// may have changed. The next cycle opens a new session; the threads drop the old one until
    /// then.
    fn close_ended_session(&mut self, now: Moment) {
        if self.session.is_some()
            && let Some(reason) = self.session_end_reason()
        {
            self.close(now, reason);
        }
    }

    fn close(&mut self, now: Moment, reason: DownReason) {
        self.previous_session = self.session.as_ref().map(Arc::downgrade).unwrap_or_default();
        self.release_deadline = now.mono + policy::RELEASE_GRACE;
        self.session = None;
        self.draining_listeners.extend(self.listener.take().map(EventListener::stop));
        for record in self.xids.values_mut() {
            record.subscribed = Err(Missing::Pending);
            // After these, GPUs may have been reset or the driver replaced.
            if matches!(reason, DownReason::DriverGone | DownReason::Releasing) {
                record.reset();
            }
        }
        self.gpu_count = None;
        self.gpu_workers.clear();
        self.next_open = now.mono;
        if now.mono.saturating_sub(self.opened_at) >= policy::SESSION_STABLE_AFTER {
            self.failures = 0;
        } else {
            // Back off: every failed session may leave a hung thread behind.
            self.failures = self.failures.saturating_add(1);
            self.next_open += policy::open_backoff(self.failures);
        }
        self.driver = DriverState::closed(reason, "the session has ended");
    }

    fn session_end_reason(&self) -> Option<DownReason> {
        let gone = |missing: Result<(), Missing>| missing == Err(Missing::DriverGone);
        let count = self.gpu_count.map(|(count, _)| count);
        let workers = f64::from(to_u32(self.gpu_workers.len()));
        if count.is_some_and(|count| gone(count.map(drop)))
            || self.gpu_workers.iter().any(|gpu| gpu.state().is_some_and(gone))
        {
            Some(DownReason::DriverGone)
        } else if self.driver_thread.is_dead()
            || self.gpu_workers.iter().any(|s| s.worker.is_dead())
        {
            Some(DownReason::ThreadDied)
        } else if count.and_then(Result::ok).is_some_and(|count| workers > count) {
            Some(DownReason::GpuRemoved)
        } else {
            None
        }
    }
}

fn health_state((uuid, record): (&Arc<str>, &HealthHistory)) -> Option<(Arc<str>, HealthState)> {
    Some((Arc::clone(uuid), record.state()?))
}

fn driver_thread(
    libraries: &[PathBuf],
    proc_root: &ProcRoot,
    live: &Arc<AtomicUsize>,
) -> io::Result<Worker<driver_reader::DriverRequest, driver_reader::DriverResponse>> {
    let mut reader = DriverReader::new(libraries.to_vec(), proc_root.clone());
    Worker::spawn("driver".to_owned(), live, move |request| reader.handle(request))
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
