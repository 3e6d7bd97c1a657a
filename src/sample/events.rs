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
use crate::policy::{EVENT_PAUSE, EVENT_RETRY, EVENT_SILENCE, EVENT_WAIT};
use crate::worker;

/// The asking side of the thread of one session. Dropping it ends the thread after its present wait.
pub struct Listener {
    orders: Sender<Order>,
    news: Receiver<News>,
    ordered: BTreeMap<Arc<str>, Handle>,
    heard_at: Duration,
    over: bool,
}

/// What is left of a thread that is to end: what it has heard by then.
pub struct Retired(Receiver<News>);

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
            let (heard, refused) = (Vec::new(), Vec::new());
            Ear { session, clock, inbox, outbox, heard, refused, asked: None }.listen();
        })?;
        let (ordered, heard_at) = (BTreeMap::new(), clock.now().mono);
        Ok(Self { orders, news, ordered, heard_at, over: false })
    }

    /// Ends the thread after its present wait, which may still bring an event that nobody else is told.
    #[must_use]
    pub fn retire(self) -> Retired {
        Retired(self.news)
    }

    /// Whether the thread has ended by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
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
                Err(TryRecvError::Disconnected) => {
                    self.over = true;
                    return judge(records, Err(Missing::Hung));
                }
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

impl Retired {
    /// Takes down what has come until `now` (monotonic); whether more may come.
    pub fn hear(&mut self, records: &mut BTreeMap<Arc<str>, XidRecord>, now: Duration) -> bool {
        loop {
            match self.0.try_recv() {
                Ok(News::Xid(uuid, xid)) => records.entry(uuid).or_default().count(xid, now),
                // Others are listened to by now, or nobody.
                Ok(News::Listening(..) | News::Waited(_)) => {}
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
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
    /// GPUs that the driver would not tell of, for no lasting reason.
    refused: Vec<Order>,
    /// When those were last asked about (monotonic).
    asked: Option<Duration>,
}

/// Nobody is there any more to listen for.
struct Deserted;

impl Ear {
    fn listen(mut self) {
        let Ok(set) = self.create_set() else { return };
        while self.turn(&set).is_ok() {}
        set.free(self.session.nvml());
    }

    /// Until there is a set, every GPU is refused. A driver that knows of none is not asked again.
    fn create_set(&mut self) -> Result<EventSet, Deserted> {
        loop {
            let missing = match EventSet::create(self.session.nvml()) {
                Ok(set) => return Ok(set),
                Err(missing) => missing,
            };
            self.tell(News::Waited(Err(missing)))?;
            let order = if missing == Missing::Unsupported {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.inbox.recv_timeout(EVENT_PAUSE)
            };
            match order {
                Ok(order) => {
                    self.tell(News::Listening(Arc::clone(&order.uuid), Err(missing)))?;
                    self.refused.push(order);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Deserted),
            }
        }
    }

    fn turn(&mut self, set: &EventSet) -> Result<(), Deserted> {
        self.ask_again(set)?;
        self.take_orders(set)?;
        // Without a GPU there is nothing to wait for in the driver.
        if self.heard.is_empty() { self.pause(set, EVENT_PAUSE) } else { self.wait(set) }
    }

    fn take_orders(&mut self, set: &EventSet) -> Result<(), Deserted> {
        loop {
            match self.inbox.try_recv() {
                Ok(order) => self.register(set, order)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Deserted),
            }
        }
    }

    /// A GPU that could not be registered for no lasting reason is tried again, but not often: it may
    /// be sick, and this thread listens for all.
    fn ask_again(&mut self, set: &EventSet) -> Result<(), Deserted> {
        let now = self.clock.now().mono;
        if self.asked.is_some_and(|asked| now.saturating_sub(asked) < EVENT_RETRY) {
            return Ok(());
        }
        self.asked = Some(now);
        std::mem::take(&mut self.refused)
            .into_iter()
            .try_for_each(|order| self.register(set, order))
    }

    fn register(&mut self, set: &EventSet, order: Order) -> Result<(), Deserted> {
        let answer = set.register(self.session.nvml(), order.handle);
        self.tell(News::Listening(Arc::clone(&order.uuid), answer))?;
        self.refused.retain(|refused| refused.uuid != order.uuid);
        match answer {
            Ok(()) => self.heard.push(order),
            Err(Missing::Unsupported) => {}
            Err(_) => self.refused.push(order),
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
        let (ordered, heard_at) = (BTreeMap::new(), Duration::ZERO);
        (tell, Listener { orders, news, ordered, heard_at, over: false })
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
        assert!(!listener.is_over());
        drop(tell);
        listener.hear(&mut records, NOW);
        assert_eq!(records["GPU-0"].last(), Err(Missing::Hung));
        assert!(listener.is_over());
    }

    #[test]
    fn the_last_words_of_a_thread_that_is_to_end_are_heard() {
        let (tell, listener) = listener();
        let mut records = records(Err(Missing::Pending));
        let mut retired = listener.retire();
        assert!(retired.hear(&mut records, NOW));
        tell.send(News::Waited(Ok(()))).unwrap();
        tell.send(News::Xid("GPU-0".into(), 48)).unwrap();
        drop(tell);
        assert!(!retired.hear(&mut records, NOW));
        assert_eq!(records["GPU-0"].counts, BTreeMap::from([(48, 1)]));
        assert_eq!(records["GPU-0"].listening, Err(Missing::Pending), "it listens no more");
    }
}
