//! One connection: its deadlines, and whom to let go when there are too many.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a connection and those who serve it know of each other.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When the response in flight has to be taken; none while there is none.
    due: Mutex<Option<Instant>>,
    /// A response was not taken in time.
    overdue: AtomicBool,
    /// It is to make room.
    pub(super) let_go: Notify,
}

impl Line {
    /// A request has come; its response is to be taken within `patience`.
    pub(super) fn answering(&self, patience: Duration) {
        *self.due() = Some(Instant::now() + patience);
    }

    /// Whether a response is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.due().is_some()
    }

    /// Whether it ended because a response was not taken in time.
    pub(super) fn was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose writes fail once the response in flight is overdue: a client that does not read
/// would hold on to its page for ever.
pub(super) struct Timed<S> {
    stream: S,
    line: Arc<Line>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream, line, alarm: Box::pin(sleep_until(Instant::now())) }
    }

    /// Ready with an error once the response in flight is overdue.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(due) = *self.line.due() else { return Poll::Pending };
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        self.alarm.as_mut().poll(context).map(|()| {
            self.line.overdue.store(true, Ordering::Relaxed);
            io::Error::new(io::ErrorKind::TimedOut, "the response was not taken in time")
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_overdue(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    /// What is flushed has been taken as far as the system can tell: the response is over.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                *self.line.due() = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_overdue(context).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The connections of the moment, the oldest first.
#[derive(Debug)]
pub(super) struct Lines {
    room: usize,
    open: Mutex<Vec<Arc<Line>>>,
}

/// A connection's place among others, for as long as it is open.
pub(super) struct Place {
    lines: Arc<Lines>,
    pub(super) line: Arc<Line>,
}

/// Whether there was room for a connection.
pub(super) enum Room {
    /// There was.
    Free(Place),
    /// The oldest without a response in flight has made some.
    Made(Place),
    /// All are being answered: the new one is refused.
    None,
}

impl Lines {
    pub(super) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { room, open: Mutex::default() })
    }

    /// A place for a new connection. Where there is none, the oldest connection without a response
    /// in flight goes: it is a scraper that comes back, or somebody who holds places and asks nothing.
    pub(super) fn enter(self: &Arc<Self>) -> Room {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = false;
        if open.len() >= self.room {
            let Some(idle) = open.iter().position(|line| !line.is_busy()) else {
                return Room::None;
            };
            open.remove(idle).let_go.notify_one();
            made = true;
        }
        let line = Arc::<Line>::default();
        open.push(Arc::clone(&line));
        let place = Place { lines: Arc::clone(self), line };
        if made { Room::Made(place) } else { Room::Free(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.lines.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !Arc::ptr_eq(line, &self.line));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn open(lines: &Lines) -> usize {
        lines.open.lock().unwrap().len()
    }

    #[test]
    fn the_oldest_idle_connection_makes_room_and_busy_ones_stay() {
        let lines = Lines::new(2);
        let Room::Free(first) = lines.enter() else { panic!("no room") };
        let Room::Free(second) = lines.enter() else { panic!("no room") };
        first.line.answering(Duration::from_secs(60));
        let Room::Made(third) = lines.enter() else { panic!("the second was idle") };
        assert_eq!(open(&lines), 2);
        third.line.answering(Duration::from_secs(60));
        assert!(matches!(lines.enter(), Room::None), "all are busy");
        drop(second);
        assert_eq!(open(&lines), 2, "it had made room already");
        drop(first);
        assert!(matches!(lines.enter(), Room::Free(_)));
    }

    #[tokio::test]
    async fn a_response_that_is_not_taken_ends_the_connection() {
        // Nobody reads at the other end.
        let (near, _far) = tokio::io::duplex(16);
        let line = Arc::<Line>::default();
        let mut timed = Timed::new(near, Arc::clone(&line));
        line.answering(Duration::from_millis(10));
        let error = timed.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(line.was_overdue());
    }

    #[tokio::test]
    async fn a_response_that_is_taken_ends_the_deadline() {
        let (near, _far) = tokio::io::duplex(64);
        let line = Arc::<Line>::default();
        let mut timed = Timed::new(near, Arc::clone(&line));
        line.answering(Duration::from_secs(60));
        timed.write_all(&[0; 16]).await.unwrap();
        assert!(line.is_busy());
        timed.flush().await.unwrap();
        assert!(!line.is_busy() && !line.was_overdue());
    }
}
