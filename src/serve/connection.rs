//! One connection: who is at its other end, its deadlines, and the page that it holds.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::peer::Peer;

/// What a connection and those who serve it know of each other.
#[derive(Debug)]
pub(super) struct Line {
    /// Who is at its other end.
    pub(super) peer: Peer,
    /// The response in flight; none while there is none.
    flight: Mutex<Option<Flight>>,
    /// A response was not taken in time.
    overdue: AtomicBool,
    /// A request has begun and has not arrived.
    arriving: AtomicBool,
    /// It is to make room.
    pub(super) let_go: Notify,
}

/// A response on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    since: Instant,
    due: Instant,
    page: Option<Held>,
}

/// A page in memory, told from others by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    place: usize,
    /// Its length in bytes.
    pub(super) length: usize,
}

impl From<&Bytes> for Held {
    fn from(page: &Bytes) -> Self {
        Self { place: page.as_ptr().addr(), length: page.len() }
    }
}

impl Line {
    /// A connection that nothing has come over yet.
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            flight: Mutex::default(),
            overdue: AtomicBool::default(),
            arriving: AtomicBool::default(),
            let_go: Notify::new(),
        }
    }

    /// A request has come; its response is to be taken within `patience`.
    pub(super) fn answering(&self, patience: Duration) {
        let since = Instant::now();
        self.arriving.store(false, Ordering::Relaxed);
        *self.flight() = Some(Flight { since, due: since + patience, page: None });
    }

    /// The response in flight is this page.
    pub(super) fn holds(&self, page: Held) {
        if let Some(flight) = self.flight().as_mut() {
            flight.page = Some(page);
        }
    }

    /// The page that the response in flight is, and since when.
    pub(super) fn held(&self) -> Option<(Held, Instant)> {
        let flight = *self.flight();
        flight.and_then(|flight| Some((flight.page?, flight.since)))
    }

    /// Since when a response has been in flight.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        (*self.flight()).map(|flight| flight.since)
    }

    /// Whether it ended because a response was not taken in time.
    pub(super) fn was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Whether a request has begun and has not arrived.
    pub(super) fn is_arriving(&self) -> bool {
        self.arriving.load(Ordering::Relaxed)
    }

    fn flight(&self) -> MutexGuard<'_, Option<Flight>> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(Flight { due, .. }) = *self.line.flight() else { return Poll::Pending };
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
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.line.arriving.store(true, Ordering::Relaxed);
        }
        read
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

    // To a stream that cannot take several buffers at once, hyper writes one: head and page, copied
    // for each connection.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_overdue(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// What is flushed has been taken as far as the system can tell: the response is over.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                *self.line.flight() = None;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn line() -> Arc<Line> {
        Arc::new(Line::new(Peer::Unknown))
    }

    #[tokio::test]
    async fn a_response_that_is_not_taken_ends_the_connection() {
        // Nobody reads at the other end.
        let (near, _far) = tokio::io::duplex(16);
        let line = line();
        let mut timed = Timed::new(near, Arc::clone(&line));
        line.answering(Duration::from_millis(10));
        let error = timed.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(line.was_overdue());
    }

    #[tokio::test]
    async fn a_response_that_is_taken_ends_the_deadline() {
        let (near, _far) = tokio::io::duplex(64);
        let line = line();
        let mut timed = Timed::new(near, Arc::clone(&line));
        line.answering(Duration::from_secs(60));
        let page = Bytes::from_static(b"page");
        line.holds(Held::from(&page));
        timed.write_all(&[0; 16]).await.unwrap();
        assert_eq!(line.held().unwrap().0.length, 4);
        timed.flush().await.unwrap();
        assert!(line.busy_since().is_none() && line.held().is_none() && !line.was_overdue());
    }

    #[tokio::test]
    async fn a_request_arrives_from_its_first_byte_until_it_is_answered() {
        let (near, mut far) = tokio::io::duplex(64);
        let line = line();
        let mut timed = Timed::new(near, Arc::clone(&line));
        assert!(!line.is_arriving());
        far.write_all(b"GE").await.unwrap();
        timed.read_exact(&mut [0; 2]).await.unwrap();
        assert!(line.is_arriving());
        line.answering(Duration::from_secs(60));
        assert!(!line.is_arriving());
    }

    #[tokio::test]
    async fn pages_are_not_copied_for_streams_that_take_several_buffers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(Timed::new(stream, line()).is_write_vectored());
    }
}
