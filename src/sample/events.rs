//! The event thread: receives XID events. NVML delivers each event once, to one waiter.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use super::xid_history::XidHistories;
use crate::clock::Clock;
use crate::model::{Gpu, Missing};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::events::EventSet;
use crate::policy::{EVENT_HUNG_AFTER, EVENT_PAUSE, EVENT_RETRY, EVENT_WAIT};
use crate::worker;

/// The client side of the event thread of one session. Dropping it ends the thread after its
/// current wait.
pub struct EventListener {
    subscriptions: Sender<Subscribe>,
    events: Receiver<DriverEvent>,
    subscribed: BTreeMap<Arc<str>, Handle>,
    /// When the last event was received (monotonic).
    received_at: Duration,
    ended: bool,
}

/// The event thread of a closed session, until its last events are received.
pub struct DrainingListener(Receiver<DriverEvent>);

/// A request to subscribe a GPU to XID events.
struct Subscribe {
    uuid: Arc<str>,
    handle: Handle,
}

enum DriverEvent {
    /// Result of the subscription of this GPU.
    Subscribed(Arc<str>, Result<(), Missing>),
    /// An XID error of this GPU.
    Xid(Arc<str>, u32),
    /// A wait ended; after an error, events may have been missed.
    WaitEnded(Result<(), Missing>),
}

impl EventListener {
    /// Starts the thread, counted in `live` while it exists.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn start(session: Arc<Session>, clock: Clock, live: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (subscriptions, inbox) = mpsc::channel();
        let (outbox, events) = mpsc::channel();
        worker::spawn_counted("events".to_owned(), live, move || {
            let (subscribed, failed) = (Vec::new(), Vec::new());
            EventLoop { session, clock, inbox, outbox, subscribed, failed, retried_at: None }.run();
        })?;
        let (subscribed, received_at) = (BTreeMap::new(), clock.now().mono);
        Ok(Self { subscriptions, events, subscribed, received_at, ended: false })
    }

    /// Ends the thread after its current wait, which may still receive an event that is not
    /// delivered to another waiter.
    #[must_use]
    pub fn stop(self) -> DrainingListener {
        DrainingListener(self.events)
    }

    /// Whether the thread ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Subscribes a GPU; no effect if its handle is subscribed already.
    pub fn subscribe(&mut self, gpu: &Gpu, handle: Handle) {
        if self.subscribed.insert(Arc::clone(&gpu.uuid), handle) != Some(handle) {
            // A send to an ended thread fails; the receiving side detects that it ended.
            let _ = self.subscriptions.send(Subscribe { uuid: Arc::clone(&gpu.uuid), handle });
        }
    }

    /// Records all events received since the last call, at `now` (monotonic).
    pub fn drain(&mut self, records: &mut XidHistories, now: Duration) {
        loop {
            let event = match self.events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    return set_state(records, Err(Missing::Hung));
                }
            };
            self.received_at = now;
            match event {
                DriverEvent::Subscribed(uuid, result) => {
                    records.entry(uuid).or_default().subscribed = result;
                }
                DriverEvent::Xid(uuid, xid) => records.entry(uuid).or_default().record(xid, now),
                DriverEvent::WaitEnded(result) => set_state(records, result),
            }
        }
        if now.saturating_sub(self.received_at) > EVENT_HUNG_AFTER {
            set_state(records, Err(Missing::Hung));
        }
    }
}

impl DrainingListener {
    /// Records the XIDs received since the last call, at `now` (monotonic). Returns whether more
    /// may follow.
    pub fn drain(&mut self, records: &mut XidHistories, now: Duration) -> bool {
        loop {
            match self.0.try_recv() {
                Ok(DriverEvent::Xid(uuid, xid)) => {
                    records.entry(uuid).or_default().record(xid, now);
                }
                // The current session has its own subscriptions.
                Ok(DriverEvent::Subscribed(..) | DriverEvent::WaitEnded(_)) => {}
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

/// Sets the state of all subscribed GPUs. After a failed wait their XIDs are unknown until a wait
/// succeeds.
fn set_state(records: &mut XidHistories, waited: Result<(), Missing>) {
    for record in records.values_mut() {
        let unsubscribed =
            matches!(record.subscribed, Err(Missing::Unsupported | Missing::Pending));
        if !unsubscribed {
            record.subscribed = waited;
        }
    }
}

/// The event thread.
struct EventLoop {
    session: Arc<Session>,
    clock: Clock,
    inbox: Receiver<Subscribe>,
    outbox: Sender<DriverEvent>,
    subscribed: Vec<Subscribe>,
    /// Subscriptions that failed with an error that may be temporary.
    failed: Vec<Subscribe>,
    /// When those were last retried (monotonic).
    retried_at: Option<Duration>,
}

/// The client side was dropped.
struct Disconnected;

impl EventLoop {
    fn run(mut self) {
        let Ok(set) = self.create_set() else { return };
        while self.step(&set).is_ok() {}
        set.free(self.session.nvml());
    }

    /// Creates the event set. Until then, all subscriptions fail. No retry if the driver does not
    /// support event sets.
    fn create_set(&mut self) -> Result<EventSet, Disconnected> {
        loop {
            let missing = match EventSet::create(self.session.nvml()) {
                Ok(set) => return Ok(set),
                Err(missing) => missing,
            };
            self.send(DriverEvent::WaitEnded(Err(missing)))?;
            let request = if missing == Missing::Unsupported {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.inbox.recv_timeout(EVENT_PAUSE)
            };
            match request {
                Ok(request) => {
                    self.send(DriverEvent::Subscribed(Arc::clone(&request.uuid), Err(missing)))?;
                    self.failed.push(request);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Disconnected),
            }
        }
    }

    fn step(&mut self, set: &EventSet) -> Result<(), Disconnected> {
        self.retry_failed(set)?;
        self.subscribe_new(set)?;
        // Without a subscribed GPU there is nothing to wait for in the driver.
        if self.subscribed.is_empty() { self.pause(set, EVENT_PAUSE) } else { self.wait(set) }
    }

    fn subscribe_new(&mut self, set: &EventSet) -> Result<(), Disconnected> {
        loop {
            match self.inbox.try_recv() {
                Ok(request) => self.register(set, request)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Disconnected),
            }
        }
    }

    /// Retries failed subscriptions, at most every [`EVENT_RETRY`]: a call for a faulty GPU may be
    /// slow and this thread serves all GPUs.
    fn retry_failed(&mut self, set: &EventSet) -> Result<(), Disconnected> {
        let now = self.clock.now().mono;
        if self.retried_at.is_some_and(|retried_at| now.saturating_sub(retried_at) < EVENT_RETRY) {
            return Ok(());
        }
        self.retried_at = Some(now);
        std::mem::take(&mut self.failed)
            .into_iter()
            .try_for_each(|request| self.register(set, request))
    }

    fn register(&mut self, set: &EventSet, request: Subscribe) -> Result<(), Disconnected> {
        let result = set.register(self.session.nvml(), request.handle);
        self.send(DriverEvent::Subscribed(Arc::clone(&request.uuid), result))?;
        self.failed.retain(|failed| failed.uuid != request.uuid);
        match result {
            Ok(()) => self.subscribed.push(request),
            Err(Missing::Unsupported) => {}
            Err(_) => self.failed.push(request),
        }
        Ok(())
    }

    fn wait(&mut self, set: &EventSet) -> Result<(), Disconnected> {
        let began = self.clock.now().mono;
        let timeout_ms = u32::try_from(EVENT_WAIT.as_millis()).unwrap_or(u32::MAX);
        let waited = set.wait(self.session.nvml(), timeout_ms);
        self.send(DriverEvent::WaitEnded(waited.map(drop)))?;
        match waited {
            Ok(Some(event)) => {
                // The newest subscription of a handle wins: a GPU that was reset may get a handle
                // that was used before.
                let gpu = self.subscribed.iter().rfind(|gpu| gpu.handle == event.device);
                match gpu.map(|gpu| Arc::clone(&gpu.uuid)) {
                    Some(uuid) => self.send(DriverEvent::Xid(uuid, event.xid)),
                    None => Ok(()),
                }
            }
            // Pause after a wait that returned at once, so that the thread does not spin.
            Ok(None) if self.clock.now().mono.saturating_sub(began) > EVENT_WAIT / 2 => Ok(()),
            Ok(None) | Err(_) => self.pause(set, EVENT_PAUSE),
        }
    }

    fn pause(&mut self, set: &EventSet, pause: Duration) -> Result<(), Disconnected> {
        match self.inbox.recv_timeout(pause) {
            Ok(request) => self.register(set, request),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Disconnected),
        }
    }

    fn send(&self, event: DriverEvent) -> Result<(), Disconnected> {
        self.outbox.send(event).map_err(|_| Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Reading, XidState};
    use crate::sample::xid_history::XidHistory;

    const NOW: Duration = Duration::from_secs(1);

    fn records(listening: Result<(), Missing>) -> XidHistories {
        let mut history = XidHistory::new();
        history.subscribed = listening;
        BTreeMap::from([("GPU-0".into(), history)])
    }

    fn state(records: &XidHistories) -> XidState {
        records["GPU-0"].state(NOW, NOW)
    }

    fn last(records: &XidHistories) -> Reading {
        state(records).last()
    }

    fn listener() -> (Sender<DriverEvent>, EventListener) {
        let (subscriptions, _) = mpsc::channel();
        let (sender, events) = mpsc::channel();
        let (subscribed, received_at) = (BTreeMap::new(), Duration::ZERO);
        (sender, EventListener { subscriptions, events, subscribed, received_at, ended: false })
    }

    #[test]
    fn last_xid_is_zero_only_while_subscribed() {
        let (sender, mut listener) = listener();
        let mut records = records(Err(Missing::Pending));
        sender.send(DriverEvent::WaitEnded(Ok(()))).unwrap();
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Err(Missing::Pending), "not subscribed yet");
        sender.send(DriverEvent::Subscribed("GPU-0".into(), Ok(()))).unwrap();
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Ok(0.0));
        sender.send(DriverEvent::WaitEnded(Err(Missing::Failed(999)))).unwrap();
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Err(Missing::Failed(999)));
        sender.send(DriverEvent::WaitEnded(Ok(()))).unwrap();
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Ok(0.0), "subscribed again");
    }

    #[test]
    fn each_xid_is_counted_once_and_the_last_is_returned() {
        let (sender, mut listener) = listener();
        let mut records = records(Ok(()));
        for xid in [31, 79, 31, 31] {
            sender.send(DriverEvent::Xid("GPU-0".into(), xid)).unwrap();
        }
        listener.drain(&mut records, NOW);
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Ok(31.0));
        assert_eq!(state(&records).counts, BTreeMap::from([(31, 3), (79, 1)]));
    }

    #[test]
    fn gpu_without_event_support_stays_unsupported() {
        let (sender, mut listener) = listener();
        let mut records = records(Err(Missing::Unsupported));
        sender.send(DriverEvent::WaitEnded(Ok(()))).unwrap();
        drop(sender);
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Err(Missing::Unsupported));
    }

    #[test]
    fn silent_thread_is_reported_hung() {
        let (_sender, mut listener) = listener();
        let mut records = records(Ok(()));
        listener.drain(&mut records, EVENT_HUNG_AFTER);
        assert_eq!(last(&records), Ok(0.0));
        listener.drain(&mut records, EVENT_HUNG_AFTER + NOW);
        assert_eq!(last(&records), Err(Missing::Hung));
    }

    #[test]
    fn ended_thread_is_reported_hung() {
        let (sender, mut listener) = listener();
        let mut records = records(Ok(()));
        assert!(!listener.has_ended());
        drop(sender);
        listener.drain(&mut records, NOW);
        assert_eq!(last(&records), Err(Missing::Hung));
        assert!(listener.has_ended());
    }

    #[test]
    fn last_events_of_a_stopped_thread_are_recorded() {
        let (sender, listener) = listener();
        let mut records = records(Err(Missing::Pending));
        let mut draining = listener.stop();
        assert!(draining.drain(&mut records, NOW));
        sender.send(DriverEvent::WaitEnded(Ok(()))).unwrap();
        sender.send(DriverEvent::Xid("GPU-0".into(), 48)).unwrap();
        drop(sender);
        assert!(!draining.drain(&mut records, NOW));
        assert_eq!(state(&records).counts, BTreeMap::from([(48, 1)]));
        assert_eq!(records["GPU-0"].subscribed, Err(Missing::Pending), "no longer subscribed");
    }
}
