//! A thread that handles one request at a time and may never respond.
//!
//! A call into a faulty driver can block forever and can be neither cancelled nor killed safely.
//! These threads are therefore never joined: the client waits until its deadline and continues
//! without a response.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::policy;

/// The client side of a worker thread. Dropping it ends the thread after its current request.
pub struct Worker<Q, A> {
    requests: Sender<Q>,
    responses: Receiver<A>,
    sent_at: Option<Duration>,
    dead: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Starts a thread that handles requests with `handle`, counted in `live` while it exists.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn spawn(
        name: String,
        live: &Arc<AtomicUsize>,
        mut handle: impl FnMut(Q) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let (outbox, responses) = mpsc::channel();
        spawn_counted(name, live, move || {
            for request in inbox {
                if outbox.send(handle(request)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, responses, sent_at: None, dead: false })
    }

    /// Sends a request at `now` (monotonic), unless another one is pending.
    pub fn send(&mut self, request: Q, now: Duration) {
        if self.sent_at.is_none() {
            match self.requests.send(request) {
                Ok(()) => self.sent_at = Some(now),
                Err(_) => self.dead = true,
            }
        }
    }

    /// Waits up to `timeout` for the response to the pending request; `None` on timeout or if no
    /// request is pending.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<A> {
        self.sent_at?;
        match self.responses.recv_timeout(timeout) {
            Ok(response) => {
                self.sent_at = None;
                Some(response)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.dead = true;
                None
            }
        }
    }

    /// When the pending request was sent (monotonic); `None` if no request is pending.
    #[must_use]
    pub fn pending_since(&self) -> Option<Duration> {
        self.sent_at
    }

    /// Whether the thread ended without a response.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }
}

/// Starts a thread that is never joined, counted in `live` while it exists.
///
/// # Errors
/// Returns the OS error if the thread cannot be created.
pub fn spawn_counted(
    name: String,
    live: &Arc<AtomicUsize>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let guard = LiveGuard::new(live);
    spawn(name, move || {
        let _guard = guard;
        body();
    })?;
    Ok(())
}

/// Starts a thread, and waits until it has touched its thread-locals: a thread that starts while a library
/// is loaded waits for that library.
///
/// # Errors
/// Returns the OS error if the thread cannot be created.
pub fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (ready, is_ready) = mpsc::channel::<Infallible>();
    let thread = thread::Builder::new().name(name).spawn(move || {
        touch_thread_locals();
        drop(ready);
        body();
    })?;
    // It does not wait for a library that does not finish loading.
    let _ = is_ready.recv_timeout(policy::THREAD_START_TIMEOUT);
    Ok(thread)
}

/// The result of `call` if it returns within `timeout`. It runs on a thread of its own, which is left behind
/// otherwise.
pub fn call_in_time<T: Send + 'static>(
    timeout: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (outbox, inbox) = mpsc::channel();
    let call = move || {
        // The caller may have gone on.
        let _ = outbox.send(call());
    };
    spawn("call".to_owned(), call).ok()?;
    inbox.recv_timeout(timeout).ok()
}

thread_local! {
    static IS_TOUCHING: Cell<bool> = const { Cell::new(false) };
}

/// Initializes the thread-locals that the calling thread will use: of channels, of tokio and of the log.
/// The first use registers a destructor, and for that takes the lock of the loader, which is held forever if
/// the constructor of a library does not return.
pub fn touch_thread_locals() {
    // A channel without a buffer prepares to block even if the time is over by then.
    let (_sender, receiver) = mpsc::sync_channel::<Infallible>(0);
    let _ = receiver.recv_timeout(Duration::ZERO);
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        runtime.handle().block_on(async {});
    }
    IS_TOUCHING.set(true);
    tracing::error!("");
    IS_TOUCHING.set(false);
}

/// Whether the event that the calling thread logs is only that of [`touch_thread_locals`], and not written.
#[must_use]
pub fn is_touching_thread_locals() -> bool {
    IS_TOUCHING.get()
}

struct LiveGuard(Arc<AtomicUsize>);

impl LiveGuard {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn pending_request_is_not_sent_twice() {
        let live = Arc::default();
        let (release, gate) = mpsc::channel::<()>();
        let mut worker = Worker::spawn("test".to_owned(), &live, move |n: u32| {
            gate.recv().unwrap();
            n
        })
        .unwrap();
        worker.send(1, Duration::from_secs(1));
        worker.send(2, Duration::from_secs(2));
        assert_eq!(worker.recv_timeout(Duration::ZERO), None);
        assert_eq!(worker.pending_since(), Some(Duration::from_secs(1)));
        release.send(()).unwrap();
        assert_eq!(worker.recv_timeout(LONG), Some(1));
        assert_eq!(worker.recv_timeout(LONG), None, "no request is pending");
    }

    #[test]
    fn panicked_thread_is_reported_dead() {
        let live = Arc::default();
        let mut worker: Worker<(), ()> =
            Worker::spawn("test".to_owned(), &live, |()| panic!("on purpose")).unwrap();
        worker.send((), Duration::ZERO);
        assert_eq!(worker.recv_timeout(LONG), None);
        assert!(worker.is_dead());
    }

    #[test]
    fn thread_is_counted_until_it_ends() {
        let live: Arc<AtomicUsize> = Arc::default();
        let (release, gate) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let mut worker = Worker::spawn("test".to_owned(), &live, move |()| {
            let _ended = &ended;
            let _ = gate.recv();
        })
        .unwrap();
        worker.send((), Duration::ZERO);
        drop(worker);
        assert_eq!(live.load(Ordering::Relaxed), 1, "the hung thread is left behind");
        drop(release);
        assert!(end.recv().is_err(), "the thread has dropped its closure");
    }
}
