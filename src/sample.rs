//! One cycle: every GPU is asked by its own thread, and what has answered by the deadline is the
//! sample. Nothing here waits longer than that, and nothing joins a thread.

pub mod absentees;
pub mod cells;
pub mod device;
pub mod events;
pub mod gpm;
pub mod gpu_ring;
pub mod limits;
pub mod node;
pub mod part;
pub mod processes;
pub mod ring;
pub mod seat;
pub mod signs;
pub mod texts;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use self::absentees::Absentees;
use self::device::DeviceReader;
use self::events::{Listener, Retired};
use self::node::NodeReader;
pub use self::seat::SampledGpu;
use self::seat::Seat;
use crate::clock::Clock;
use crate::host::ProcRoot;
use crate::model::{
    ClockCounts, ClockRecord, Missing, Moment, Reading, Vitals, VitalsRecord, XidRecord,
};
use crate::nvml::inventory::Driver;
use crate::nvml::{End, LibraryError, Session};
use crate::policy;
use crate::release::Request;
use crate::selection::Selection;
use crate::worker::Worker;

/// The raw material of one snapshot.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When the cycle began.
    pub at: Moment,
    /// How long it took.
    pub took: Duration,
    /// The session's state.
    pub driver: DriverState,
    /// How many GPUs the driver counts, and when it was asked.
    pub gpu_count: Option<(Reading, Moment)>,
    /// How long the driver's thread took over its last answer.
    pub node_took: Option<Duration>,
    /// GPUs in the order of their index.
    pub gpus: Vec<SampledGpu>,
    /// What the driver told of each GPU's XIDs, by UUID.
    pub xids: BTreeMap<Arc<str>, XidRecord>,
    /// How often there were reasons for lower clocks on each GPU, by UUID.
    pub clocks: BTreeMap<Arc<str>, Result<ClockCounts, Missing>>,
    /// What tells of each GPU's health, by UUID.
    pub vitals: BTreeMap<Arc<str>, Vitals>,
    /// Failed attempts to open the driver, by reason.
    pub open_failures: BTreeMap<&'static str, u64>,
    /// Cycles so far, this one included.
    pub cycles: u64,
    /// Threads of earlier sessions that still wait for the driver.
    pub abandoned: usize,
}

/// Whether there is a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// Open, with these versions.
    Up(Driver),
    /// Not open.
    Down {
        /// Fixed label.
        reason: &'static str,
        /// A sentence for people.
        detail: String,
    },
}

/// Asks the driver's thread and the GPUs' threads, and remembers their newest answers.
pub struct Sampler {
    clock: Clock,
    deadline: Duration,
    libraries: Vec<PathBuf>,
    proc_root: ProcRoot,
    live: Arc<AtomicUsize>,
    driver_thread: Worker<node::Question, node::Answer>,
    session: Option<Arc<Session>>,
    closed: Weak<Session>,
    /// Of every session that may still be held.
    ends: Vec<End>,
    /// Who has NVML let go, while anybody does.
    released: Option<Request>,
    release_by: Duration,
    listener: Option<Listener>,
    retired: Vec<Retired>,
    xids: BTreeMap<Arc<str>, XidRecord>,
    clocks: BTreeMap<Arc<str>, ClockRecord>,
    vitals: BTreeMap<Arc<str>, VitalsRecord>,
    absentees: Absentees,
    driver: DriverState,
    next_open: Duration,
    opened_at: Duration,
    failures: u32,
    open_failures: BTreeMap<&'static str, u64>,
    gpu_count: Option<(Reading, Moment)>,
    node_asked: Moment,
    node_took: Option<Duration>,
    seats: Vec<Seat>,
    cycles: u64,
}

impl Sampler {
    /// A sampler that has not opened the driver yet.
    ///
    /// # Errors
    /// The system has no thread to give.
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
            closed: Weak::new(),
            ends: Vec::new(),
            released: None,
            release_by: Duration::ZERO,
            listener: None,
            retired: Vec::new(),
            xids: BTreeMap::new(),
            clocks: BTreeMap::new(),
            vitals: BTreeMap::new(),
            absentees: Absentees::default(),
            driver: DriverState::default(),
            next_open: Duration::ZERO,
            opened_at: Duration::ZERO,
            failures: 0,
            open_failures: BTreeMap::new(),
            gpu_count: None,
            node_asked: clock.now(),
            node_took: None,
            seats: Vec::new(),
            cycles: 0,
            clock,
        })
    }

    /// From the next cycle on, NVML is let go if somebody asks for it, and else held; whether there
    /// is something about it to publish before the next regular page.
    pub fn release(&mut self, asked: Option<Request>) -> bool {
        let turns = self.released.is_some() != asked.is_some();
        if turns && asked.is_none() {
            self.next_open = Duration::ZERO;
            self.driver =
                DriverState::Down { reason: "starting", detail: "taken up again".to_owned() };
        }
        self.released = asked;
        turns || matches!(self.driver, DriverState::Down { reason: RELEASING, .. })
    }

    /// Moves every GPU's utilization cursor on, without publishing.
    pub fn read_rings(&mut self) {
        let now = self.clock.now();
        self.collect_late();
        for seat in &mut self.seats {
            seat.worker.ask(device::Question::Ring(now), now.mono);
        }
        self.collect(now, now.mono + self.deadline);
    }

    /// Reads everything that is chosen and due, and returns by the deadline.
    pub fn cycle(&mut self, selection: &Arc<Selection>) -> Sample {
        let now = self.clock.now();
        let deadline = now.mono + self.deadline;
        self.cycles += 1;
        self.collect_late();
        if self.released.is_some() {
            self.let_go(now, deadline);
        } else if self.session.is_none() {
            self.open(now, deadline);
        }
        if self.session.is_some() {
            self.ask_driver(node::Question::Read, now);
        }
        let peers: Arc<[_]> = self.seats.iter().filter_map(Seat::peer).collect();
        for seat in &mut self.seats {
            let (selection, peers) = (Arc::clone(selection), Arc::clone(&peers));
            seat.worker.ask(device::Question::Sample(now, selection, peers), now.mono);
        }
        self.collect(now, deadline);
        self.note_clocks(selection);
        self.note_vitals(selection);
        self.forget_absentees(now);
        let sample = self.sample(now);
        self.close_if_over(now);
        sample
    }

    /// Waits until no thread is inside NVML, or until `deadline`.
    pub fn quiesce(&mut self, deadline: Duration) {
        for seat in &mut self.seats {
            seat.hear(&self.clock, deadline);
        }
        self.hear_driver(deadline);
    }

    /// Opens a session and reads its node at once, so that the first page is a full one.
    fn open(&mut self, now: Moment, deadline: Duration) {
        if now.mono < self.next_open || (self.closed_is_held() && now.mono < self.release_by) {
            return;
        }
        if self.driver_thread.is_dead() {
            match driver_thread(&self.libraries, &self.proc_root, &self.live) {
                Ok(worker) => self.driver_thread = worker,
                Err(error) => tracing::error!(%error, "no thread for the driver"),
            }
        }
        self.ask_driver(node::Question::Open, now);
        self.hear_driver(deadline);
        if self.session.is_some() {
            self.ask_driver(node::Question::Read, now);
            self.hear_driver(deadline);
        }
    }

    /// Has every thread let go of the session, and tells when all have.
    fn let_go(&mut self, now: Moment, deadline: Duration) {
        if self.session.is_some() {
            self.close(now, RELEASING);
        }
        self.ask_driver(node::Question::Release, now);
        self.hear_driver(deadline);
        self.ends.retain(|end| !end.wait(self.clock.until(deadline)));
        let is_free = self.driver_thread.waiting_since().is_none() && self.ends.is_empty();
        let asked = self.released.iter().map(Request::to_string).collect::<String>();
        self.driver = if is_free {
            DriverState::Down { reason: RELEASED, detail: format!("NVML has been let go: {asked}") }
        } else {
            let detail = format!("{asked}, and calls into the driver have yet to return");
            DriverState::Down { reason: RELEASING, detail }
        };
    }

    /// Whether anybody but the driver's own thread still holds the session before.
    fn closed_is_held(&self) -> bool {
        self.closed.strong_count() > 1
    }

    fn ask_driver(&mut self, question: node::Question, now: Moment) {
        if self.driver_thread.waiting_since().is_none() {
            self.node_asked = now;
            self.driver_thread.ask(question, now.mono);
        }
    }

    /// Takes in the answers to questions of earlier cycles, as far as they have come.
    fn collect_late(&mut self) {
        self.quiesce(Duration::ZERO);
    }

    /// Takes in the answers to the questions asked at `now` that come until `deadline`. Whoever
    /// still owes an older answer is not waited for: a hang must not slow down every cycle.
    fn collect(&mut self, now: Moment, deadline: Duration) {
        for seat in &mut self.seats {
            if seat.worker.waiting_since() == Some(now.mono) {
                seat.hear(&self.clock, deadline);
            }
        }
        if self.driver_thread.waiting_since() == Some(now.mono) {
            self.hear_driver(deadline);
        }
        self.hear_events();
    }

    fn hear_driver(&mut self, deadline: Duration) {
        let Some(answer) = self.driver_thread.answer(self.clock.until(deadline)) else { return };
        let now = self.clock.now().mono;
        self.node_took = Some(now.saturating_sub(self.node_asked.mono));
        match answer {
            node::Answer::Opened { session, driver, end } => {
                self.ends.retain(|end| !end.wait(Duration::ZERO));
                self.ends.push(end);
                self.opened_at = now;
                self.listener = self.listen(&session);
                self.session = Some(session);
                self.driver = DriverState::Up(driver);
            }
            node::Answer::Closed(error) => self.open_failed(&error, now),
            node::Answer::Read(count) => {
                self.gpu_count = Some((count, self.node_asked));
                self.seat_new_gpus(count);
            }
            node::Answer::Released => {}
        }
    }

    fn listen(&self, session: &Arc<Session>) -> Option<Listener> {
        Listener::start(Arc::clone(session), self.clock, &self.live)
            .inspect_err(|error| tracing::error!(%error, "no thread to listen to the driver"))
            .ok()
    }

    /// Has every GPU that is known listened to, and takes down what has been heard.
    fn hear_events(&mut self) {
        let now = self.clock.now().mono;
        let xids = &mut self.xids;
        self.retired.retain_mut(|retired| retired.hear(xids, now));
        if self.listener.as_ref().is_none_or(Listener::is_over) {
            self.listener = self.session.as_ref().and_then(|session| self.listen(session));
        }
        let Some(listener) = &mut self.listener else { return };
        for seat in &self.seats {
            if let Some(Ok(sample)) = &seat.sampled.latest {
                listener.order(&sample.gpu, sample.handle);
            }
        }
        listener.hear(&mut self.xids, now);
    }

    /// Takes down why clocks are lower than they could be, while that is counted.
    fn note_clocks(&mut self, selection: &Selection) {
        if !selection.wants_clock_events() {
            self.clocks.clear();
            return;
        }
        for seat in &self.seats {
            let Some(Ok(sample)) = &seat.sampled.latest else { continue };
            if let Some(bits) = sample.clock_event_reasons {
                let record = self.clocks.entry(Arc::clone(&sample.gpu.uuid)).or_default();
                record.take(bits, sample.at.mono, selection.frame.windows.clocks);
            }
        }
    }

    /// Takes down what tells of health, while that is told, and which GPUs have come back.
    fn note_vitals(&mut self, selection: &Selection) {
        if !selection.wants_health() {
            self.vitals.clear();
        }
        for seat in &self.seats {
            let Some(Ok(sample)) = &seat.sampled.latest else { continue };
            if let Some(xids) = self.xids.get_mut(&sample.gpu.uuid) {
                xids.see(sample.state());
            }
            if let (Some(signs), true) = (&sample.signs, selection.wants_health()) {
                let record = self.vitals.entry(Arc::clone(&sample.gpu.uuid)).or_default();
                record.take(signs, sample.at.mono, policy::HEALTH_WINDOW);
            }
        }
    }

    /// Forgets what was taken down of GPUs that have been gone for long.
    fn forget_absentees(&mut self, now: Moment) {
        let present =
            self.seats.iter().filter_map(|seat| seat.sampled.latest.as_ref()?.as_ref().ok());
        self.absentees.see(present.map(|sample| &sample.gpu.uuid), now.mono);
        self.absentees.prune(&mut self.xids);
        self.absentees.prune(&mut self.clocks);
        self.absentees.prune(&mut self.vitals);
    }

    fn open_failed(&mut self, error: &LibraryError, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.next_open = now + policy::open_backoff(self.failures);
        *self.open_failures.entry(error.reason()).or_default() += 1;
        self.driver = DriverState::Down { reason: error.reason(), detail: error.to_string() };
    }

    /// Gives each GPU that is counted for the first time a thread of its own, which also finds out
    /// which GPU it is: that can hang like everything else.
    fn seat_new_gpus(&mut self, count: Reading) {
        let (Some(session), Ok(count)) = (self.session.clone(), count) else { return };
        while f64::from(to_u32(self.seats.len())) < count {
            let index = to_u32(self.seats.len());
            let mut reader = DeviceReader::new(Arc::clone(&session), index, self.proc_root.clone());
            let name = format!("gpu-{index}");
            match Worker::spawn(name, &self.live, move |question| reader.answer(question)) {
                Ok(worker) => self.seats.push(Seat { worker, sampled: SampledGpu::default() }),
                Err(error) => {
                    tracing::error!(gpu = index, %error, "no thread for this GPU");
                    return;
                }
            }
        }
    }

    fn sample(&self, at: Moment) -> Sample {
        Sample {
            at,
            took: self.clock.now().mono.saturating_sub(at.mono),
            driver: self.driver_state(at.mono),
            gpu_count: self.gpu_count,
            node_took: self.node_took,
            gpus: self.seats.iter().map(Seat::sampled).collect(),
            xids: self.xids.clone(),
            clocks: self.clocks.iter().map(|(gpu, r)| (Arc::clone(gpu), r.counts())).collect(),
            vitals: self.vitals.iter().filter_map(vitals).collect(),
            open_failures: self.open_failures.clone(),
            cycles: self.cycles,
            abandoned: self.abandoned(),
        }
    }

    /// Threads of this sampler that belong to no session of the present.
    fn abandoned(&self) -> usize {
        let present = 1 + self.seats.len() + usize::from(self.listener.is_some());
        self.live.load(Ordering::Relaxed).saturating_sub(present)
    }

    /// A driver that does not answer to being opened is down, whatever it said before; but it may take
    /// its time.
    fn driver_state(&self, now: Duration) -> DriverState {
        let waited = self.driver_thread.waiting_since().map(|since| now.saturating_sub(since));
        match waited.filter(|waited| *waited >= policy::OPEN_PATIENCE) {
            Some(waited) if self.session.is_none() && self.released.is_none() => {
                DriverState::Down {
                    reason: "hung",
                    detail: format!(
                        "nvmlInit_v2 has not answered for {} s; look at the kernel log for NVRM lines",
                        waited.as_secs()
                    ),
                }
            }
            _ => self.driver.clone(),
        }
    }

    /// A session ends when the driver says so or when its GPUs are others than before: their
    /// indexes may have moved. The next cycle opens a new one; until then the threads can let go.
    fn close_if_over(&mut self, now: Moment) {
        if self.session.is_some()
            && let Some(reason) = self.over()
        {
            self.close(now, reason);
        }
    }

    fn close(&mut self, now: Moment, reason: &'static str) {
        self.closed = self.session.as_ref().map(Arc::downgrade).unwrap_or_default();
        self.release_by = now.mono + policy::RELEASE_GRACE;
        self.session = None;
        self.retired.extend(self.listener.take().map(Listener::retire));
        for record in self.xids.values_mut() {
            record.listening = Err(Missing::Pending);
            // Whoever has NVML let go resets GPUs, or loads another driver.
            if [DRIVER_GONE, RELEASING].contains(&reason) {
                record.begin_anew();
            }
        }
        self.gpu_count = None;
        self.seats.clear();
        self.next_open = now.mono;
        if now.mono.saturating_sub(self.opened_at) >= policy::SESSION_LASTS {
            self.failures = 0;
        } else {
            // It is no use to open one after the other, and a thread that hangs is left behind each time.
            self.failures = self.failures.saturating_add(1);
            self.next_open += policy::open_backoff(self.failures);
        }
        self.driver = DriverState::Down { reason, detail: "the session has ended".to_owned() };
    }

    fn over(&self) -> Option<&'static str> {
        let gone = |missing: Result<(), Missing>| missing == Err(Missing::DriverGone);
        let count = self.gpu_count.map(|(count, _)| count);
        let seats = f64::from(to_u32(self.seats.len()));
        if count.is_some_and(|count| gone(count.map(drop)))
            || self.seats.iter().any(|seat| seat.state().is_some_and(gone))
        {
            Some(DRIVER_GONE)
        } else if self.driver_thread.is_dead() || self.seats.iter().any(|s| s.worker.is_dead()) {
            Some("thread_died")
        } else if count.and_then(Result::ok).is_some_and(|count| seats > count) {
            Some("gpu_removed")
        } else {
            None
        }
    }
}

/// The end of a session with which the driver ended, too.
const DRIVER_GONE: &str = "driver_gone";
/// NVML is to be let go, and somebody still holds it.
const RELEASING: &str = "releasing";
/// It has been.
const RELEASED: &str = "released";

impl Default for DriverState {
    fn default() -> Self {
        Self::Down { reason: "starting", detail: "not opened yet".to_owned() }
    }
}

impl DriverState {
    /// Whether NVML has been let go on request, by every thread.
    #[must_use]
    pub fn is_released(&self) -> bool {
        matches!(self, Self::Down { reason: RELEASED, .. })
    }
}

fn vitals((uuid, record): (&Arc<str>, &VitalsRecord)) -> Option<(Arc<str>, Vitals)> {
    Some((Arc::clone(uuid), record.vitals()?))
}

fn driver_thread(
    libraries: &[PathBuf],
    proc_root: &ProcRoot,
    live: &Arc<AtomicUsize>,
) -> io::Result<Worker<node::Question, node::Answer>> {
    let mut reader = NodeReader::new(libraries.to_vec(), proc_root.clone());
    Worker::spawn("driver".to_owned(), live, move |question| reader.answer(question))
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
