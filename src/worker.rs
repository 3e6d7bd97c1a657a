//! A thread that is asked one thing at a time, and that may never answer.
//!
//! A call into a sick driver can block for ever and can be neither cancelled nor safely killed. So
//! nobody joins these threads: the asker waits until its deadline and goes on without.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// The asking side of such a thread. Dropping it lets the thread end after its present answer.
pub struct Worker<Q, A> {
    questions: Sender<Q>,
    answers: Receiver<A>,
    asked_at: Option<Duration>,
    dead: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Starts a thread that answers with `answer`, counted in `live` for as long as it exists.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(
        name: String,
        live: &Arc<AtomicUsize>,
        mut answer: impl FnMut(Q) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        spawn_counted(name, live, move || {
            for question in inbox {
                if outbox.send(answer(question)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers, asked_at: None, dead: false })
    }

    /// Asks, unless the last question is still open.
    pub fn ask(&mut self, question: Q, now: Duration) {
        if self.asked_at.is_none() {
            match self.questions.send(question) {
                Ok(()) => self.asked_at = Some(now),
                Err(_) => self.dead = true,
            }
        }
    }

    /// Waits up to `patience` for the open question's answer; none if nothing is open.
    pub fn answer(&mut self, patience: Duration) -> Option<A> {
        self.asked_at?;
        match self.answers.recv_timeout(patience) {
            Ok(answer) => {
                self.asked_at = None;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.dead = true;
                None
            }
        }
    }

    /// Since when a question has been open.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Duration> {
        self.asked_at
    }

    /// The thread ended without answering.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }
}

/// Starts a thread that nobody joins, counted in `live` for as long as it exists.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn_counted(
    name: String,
    live: &Arc<AtomicUsize>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let counted = Counted::new(live);
    thread::Builder::new().name(name).spawn(move || {
        let _counted = counted;
        body();
    })?;
    Ok(())
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_open_question_is_not_asked_twice() {
        let live = Arc::default();
        let (release, gate) = mpsc::channel::<()>();
        let mut worker = Worker::spawn("test".to_owned(), &live, move |n: u32| {
            gate.recv().unwrap();
            n
        })
        .unwrap();
        worker.ask(1, Duration::from_secs(1));
        worker.ask(2, Duration::from_secs(2));
        assert_eq!(worker.answer(Duration::ZERO), None);
        assert_eq!(worker.waiting_since(), Some(Duration::from_secs(1)));
        release.send(()).unwrap();
        assert_eq!(worker.answer(LONG), Some(1));
        assert_eq!(worker.answer(LONG), None, "nothing is open");
    }

    #[test]
    fn a_thread_that_panics_is_told_from_one_that_hangs() {
        let live = Arc::default();
        let mut worker: Worker<(), ()> =
            Worker::spawn("test".to_owned(), &live, |()| panic!("on purpose")).unwrap();
        worker.ask((), Duration::ZERO);
        assert_eq!(worker.answer(LONG), None);
        assert!(worker.is_dead());
    }

    #[test]
    fn a_thread_is_counted_until_it_ends() {
        let live: Arc<AtomicUsize> = Arc::default();
        let (release, gate) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let mut worker = Worker::spawn("test".to_owned(), &live, move |()| {
            let _ended = &ended;
            let _ = gate.recv();
        })
        .unwrap();
        worker.ask((), Duration::ZERO);
        drop(worker);
        assert_eq!(live.load(Ordering::Relaxed), 1, "it hangs and is left behind");
        drop(release);
        assert!(end.recv().is_err(), "the thread has dropped its closure");
    }
}
