//! The thread that listens to the driver: what befalls a GPU is told once, to whoever waits for it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Gpu, Missing, XidRecord};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::events::EventSet;
use crate::policy::{EVENT_PAUSE, EVENT_SILENCE, EVENT_WAIT};
use crate::worker;

/// The asking side of the thread of one session. Dropping it ends the thread after its present wait.
pub struct Listener {
    orders: Sender<Order>,
    news: Receiver<News>,
    ordered: BTreeMap<Arc<str>, Handle>,
    heard_at: Duration,
}

/// Listen to this GPU, too.
struct Order {
    uuid: Arc<str>,
    handle: Handle,
}

enum News {
    /// The driver agreed, or refused, to tell of this GPU.
    Listening(Arc<str>, Result<(), Missing>),
    /// An XID befell this GPU.
    Xid(Arc<str>, u32),
    /// A wait ended; with an error nobody knows what was missed.
    Waited(Result<(), Missing>),
}

impl Listener {
    /// Starts the thread, counted in `live` for as long as it exists.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(session: Arc<Session>, clock: Clock, live: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let (outbox, news) = mpsc::channel();
        worker::spawn_counted("events".to_owned(), live, move || {
            Ear { session, clock, inbox, outbox, heard: Vec::new() }.listen();
        })?;
        Ok(Self { orders, news, ordered: BTreeMap::new(), heard_at: clock.now().mono })
    }

    /// Has the thread listen to a GPU; a handle that it listens to already changes nothing.
    pub fn order(&mut self, gpu: &Gpu, handle: Handle) {
        if self.ordered.insert(Arc::clone(&gpu.uuid), handle) != Some(handle) {
            // A thread that has ended tells so by its silence, see `hear`.
            let _ = self.orders.send(Order { uuid: Arc::clone(&gpu.uuid), handle });
        }
    }

    /// Takes down what has come until `now` (monotonic) since the last time.
    pub fn hear(&mut self, records: &mut BTreeMap<Arc<str>, XidRecord>, now: Duration) {
        loop {
            let news = match self.news.try_recv() {
                Ok(news) => news,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return judge(records, Err(Missing::Hung)),
            };
            self.heard_at = now;
            match news {
                News::Listening(uuid, answer) => {
                    records.entry(uuid).or_default().listening = answer;
                }
                News::Xid(uuid, xid) => records.entry(uuid).or_default().count(xid, now),
                News::Waited(result) => judge(records, result),
            }
        }
        if now.saturating_sub(self.heard_at) > EVENT_SILENCE {
            judge(records, Err(Missing::Hung));
        }
    }
}

/// A wait that failed leaves doubt about every GPU that was listened to, until one succeeds again.
fn judge(records: &mut BTreeMap<Arc<str>, XidRecord>, waited: Result<(), Missing>) {
    for record in records.values_mut() {
        let refused = matches!(record.listening, Err(Missing::Unsupported | Missing::Pending));
        if !refused {
            record.listening = waited;
        }
    }
}

/// The listening side, on its own thread.
struct Ear {
    session: Arc<Session>,
    clock: Clock,
    inbox: Receiver<Order>,
    outbox: Sender<News>,
    heard: Vec<Order>,
}

/// Nobody is there any more to listen for.
struct Deserted;

impl Ear {
    fn listen(mut self) {
        let set = match EventSet::create(self.session.nvml()) {
            Ok(set) => set,
            Err(missing) => {
                self.refuse_all(missing);
                return;
            }
        };
        while self.turn(&set).is_ok() {}
        set.free(self.session.nvml());
    }

    /// A driver without event sets refuses every GPU.
    fn refuse_all(&self, missing: Missing) {
        for order in &self.inbox {
            if self.outbox.send(News::Listening(order.uuid, Err(missing))).is_err() {
                return;
            }
        }
    }

    fn turn(&mut self, set: &EventSet) -> Result<(), Deserted> {
        loop {
            let order = if self.heard.is_empty() {
                // There is nothing to wait for in the driver.
                self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.inbox.try_recv()
            };
            match order {
                Ok(order) => self.register(set, order)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Deserted),
            }
        }
        self.wait(set)
    }

    fn register(&mut self, set: &EventSet, order: Order) -> Result<(), Deserted> {
        let answer = set.register(self.session.nvml(), order.handle);
        self.tell(News::Listening(Arc::clone(&order.uuid), answer))?;
        if answer.is_ok() {
            self.heard.push(order);
        }
        Ok(())
    }

    fn wait(&mut self, set: &EventSet) -> Result<(), Deserted> {
        let began = self.clock.now().mono;
        let patience = u32::try_from(EVENT_WAIT.as_millis()).unwrap_or(u32::MAX);
        let waited = set.wait(self.session.nvml(), patience);
        self.tell(News::Waited(waited.map(drop)))?;
        match waited {
            Ok(Some(event)) => {
                // The newest order of a handle wins: a GPU that was reset may be given an old one.
                let gpu = self.heard.iter().rfind(|order| order.handle == event.device);
                match gpu.map(|order| Arc::clone(&order.uuid)) {
                    Some(uuid) => self.tell(News::Xid(uuid, event.xid)),
                    None => Ok(()),
                }
            }
            // A wait that returns at once, for whatever reason, must not become a spinning thread.
            Ok(None) if self.clock.now().mono.saturating_sub(began) > EVENT_WAIT / 2 => Ok(()),
            Ok(None) | Err(_) => self.pause(set, EVENT_PAUSE),
        }
    }

    fn pause(&mut self, set: &EventSet, pause: Duration) -> Result<(), Deserted> {
        match self.inbox.recv_timeout(pause) {
            Ok(order) => self.register(set, order),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Deserted),
        }
    }

    fn tell(&self, news: News) -> Result<(), Deserted> {
        self.outbox.send(news).map_err(|_| Deserted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn records(listening: Result<(), Missing>) -> BTreeMap<Arc<str>, XidRecord> {
        BTreeMap::from([("GPU-0".into(), XidRecord { listening, ..XidRecord::new() })])
    }

    fn listener() -> (Sender<News>, Listener) {
        let (orders, _) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        (tell, Listener { orders, news, ordered: BTreeMap::new(), heard_at: Duration::ZERO })
    }

    #[test]
    fn no_xid_is_zero_only_while_somebody_listens() {
        let (tell, mut listener) = listener();
        let mut records = records(Err(Missing::Pending));
        tell.send(News::Waited(Ok(()))).unwrap();
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Pending), "not registered yet");
        tell.send(News::Listening("GPU-0".into(), Ok(()))).unwrap();
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Ok(0.0));
        tell.send(News::Waited(Err(Missing::Failed(999)))).unwrap();
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Failed(999)));
        tell.send(News::Waited(Ok(()))).unwrap();
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Ok(0.0), "listening again");
    }

    #[test]
    fn each_xid_is_counted_once_and_the_last_one_is_told() {
        let (tell, mut listener) = listener();
        let mut records = records(Ok(()));
        for xid in [31, 79, 31, 31] {
            tell.send(News::Xid("GPU-0".into(), xid)).unwrap();
        }
        listener.hear(&mut records, NOW);
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Ok(31.0));
        assert_eq!(records["GPU-0"].counts, BTreeMap::from([(31, 3), (79, 1)]));
    }

    #[test]
    fn a_gpu_that_tells_of_no_events_stays_unsupported() {
        let (tell, mut listener) = listener();
        let mut records = records(Err(Missing::Unsupported));
        tell.send(News::Waited(Ok(()))).unwrap();
        drop(tell);
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Unsupported));
    }

    #[test]
    fn a_thread_that_is_silent_for_long_hangs() {
        let (_tell, mut listener) = listener();
        let mut records = records(Ok(()));
        listener.hear(&mut records, EVENT_SILENCE);
        assert_eq!(records["GPU-0"].last(), Ok(0.0));
        listener.hear(&mut records, EVENT_SILENCE + NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Hung));
    }

    #[test]
    fn a_thread_that_has_ended_hears_nothing() {
        let (tell, mut listener) = listener();
        let mut records = records(Ok(()));
        drop(tell);
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Hung));
    }
}
