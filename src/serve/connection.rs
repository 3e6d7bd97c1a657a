//! One connection: its peer, its phase, and the timeout of each phase.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Timeouts;
use super::peer::Peer;
use super::reject_counters::RejectReason;
use crate::policy;

/// State of a connection, shared by the task that serves it and the connection limiter.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) peer: Peer,
    timeouts: Timeouts,
    phase: Mutex<Phase>,
    /// Why a timeout ended the connection.
    timed_out: OnceLock<RejectReason>,
    /// Notified when the connection is evicted.
    pub(super) evicted: Notify,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No byte of a request has been received. `used`: there has been a request before.
    Idle { since: Instant, used: bool },
    /// A request has been received in part.
    Receiving { since: Instant },
    /// A response is in flight.
    Responding(InFlight),
}

/// A response in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    since: Instant,
    deadline: Instant,
    body: Option<PageRef>,
    /// Some of it was written: a flush before that does not end it.
    begun: bool,
}

/// A response body in memory, identified by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PageRef {
    address: usize,
    /// Length in bytes.
    pub(super) length: usize,
}

impl From<&Bytes> for PageRef {
    fn from(body: &Bytes) -> Self {
        Self { address: body.as_ptr().addr(), length: body.len() }
    }
}

impl ConnectionState {
    pub(super) fn new(peer: Peer, timeouts: Timeouts) -> Self {
        Self {
            peer,
            timeouts,
            phase: Mutex::new(Phase::Idle { since: Instant::now(), used: false }),
            timed_out: OnceLock::new(),
            evicted: Notify::new(),
        }
    }

    /// Records that a request was received and starts the write timeout of its response.
    pub(super) fn start_response(&self) {
        let since = Instant::now();
        let deadline = since + self.timeouts.write;
        *self.phase() = Phase::Responding(InFlight { since, deadline, body: None, begun: false });
    }

    /// Sets the body of the response in flight.
    pub(super) fn set_body(&self, body: PageRef) {
        if let Phase::Responding(response) = &mut *self.phase() {
            response.body = Some(body);
        }
    }

    /// The body of the response in flight, and when the response began.
    pub(super) fn body(&self) -> Option<(PageRef, Instant)> {
        let response = self.in_flight()?;
        Some((response.body?, response.since))
    }

    /// When the response in flight began; `None` if there is none.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.in_flight().map(|response| response.since)
    }

    /// Since when there is no response in flight; `None` if there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::Idle { since, .. } | Phase::Receiving { since } => Some(since),
            Phase::Responding(_) => None,
        }
    }

    /// The reason if a timeout ended the connection that counts as a refusal.
    pub(super) fn timed_out(&self) -> Option<RejectReason> {
        self.timed_out.get().copied()
    }

    fn in_flight(&self) -> Option<InFlight> {
        match *self.phase() {
            Phase::Responding(response) => Some(response),
            Phase::Idle { .. } | Phase::Receiving { .. } => None,
        }
    }

    /// When the phase times out if it does not end.
    fn deadline(&self) -> Instant {
        let read = self.timeouts.read;
        match *self.phase() {
            Phase::Idle { since, used: true } => since + policy::HTTP_IDLE_TIMEOUT.max(read),
            Phase::Idle { since, used: false } | Phase::Receiving { since } => since + read,
            Phase::Responding(response) => response.deadline,
        }
    }

    /// Records that the deadline has passed.
    fn time_out(&self) -> io::Error {
        // The end of an idle connection is not a refusal.
        let (reason, what) = match *self.phase() {
            Phase::Idle { .. } => (None, "the next request"),
            Phase::Receiving { .. } => (Some(RejectReason::ReadTimeout), "the request"),
            Phase::Responding(_) => (Some(RejectReason::WriteTimeout), "writing the response"),
        };
        reason.map(|reason| self.timed_out.set(reason));
        io::Error::new(io::ErrorKind::TimedOut, format!("timeout of {what}"))
    }

    /// Records that bytes were received.
    fn received(&self) {
        let mut phase = self.phase();
        if let Phase::Idle { .. } = *phase {
            *phase = Phase::Receiving { since: Instant::now() };
        }
    }

    /// Records that bytes of the response in flight were written.
    fn sent(&self) {
        if let Phase::Responding(response) = &mut *self.phase() {
            response.begun = true;
        }
    }

    /// Records that all that was written was flushed.
    fn flushed(&self) {
        let mut phase = self.phase();
        if let Phase::Responding(InFlight { begun: true, .. }) = *phase {
            *phase = Phase::Idle { since: Instant::now(), used: true };
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream with a timeout for each phase: a client that does not read cannot keep a response body in
/// memory, and one that sends slowly cannot keep a connection.
pub(super) struct DeadlineStream<S> {
    stream: S,
    connection: Arc<ConnectionState>,
    timer: Pin<Box<Sleep>>,
}

impl<S> DeadlineStream<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionState>) -> Self {
        Self { stream, connection, timer: Box::pin(sleep_until(Instant::now())) }
    }

    /// Ready with an error once the deadline of the phase has passed.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.connection.deadline();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(context).map(|()| self.connection.time_out())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                if buffer.filled().len() > before {
                    self.connection.received();
                }
                Poll::Ready(read)
            }
            // The deadline of a response is that of writing.
            Poll::Pending if self.connection.in_flight().is_some() => Poll::Pending,
            Poll::Pending => self.poll_timeout(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_timeout(context) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.connection.sent();
        }
        written
    }

    // Without vectored writes, hyper copies head and body into one buffer for each connection.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_timeout(context) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        if written.is_ready() {
            self.connection.sent();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A completed flush ends the response in flight: the kernel has accepted all of it.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.connection.flushed();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_timeout(context).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    fn connection(read: Duration, write: Duration) -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new(Peer::Unknown, Timeouts { read, write }))
    }

    #[tokio::test]
    async fn response_that_is_not_read_times_out() {
        // The other end does not read.
        let (near, _far) = tokio::io::duplex(16);
        let connection = connection(LONG, SHORT);
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        connection.start_response();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.timed_out(), Some(RejectReason::WriteTimeout));
    }

    #[tokio::test]
    async fn flushed_response_is_no_longer_in_flight() {
        let (near, _far) = tokio::io::duplex(64);
        let connection = connection(LONG, LONG);
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        connection.start_response();
        let body = Bytes::from_static(b"body");
        connection.set_body(PageRef::from(&body));
        stream.flush().await.unwrap();
        assert!(connection.busy_since().is_some(), "nothing of it was written yet");
        stream.write_all(&[0; 16]).await.unwrap();
        assert_eq!(connection.body().unwrap().0.length, 4);
        stream.flush().await.unwrap();
        assert!(connection.busy_since().is_none() && connection.body().is_none());
        assert_eq!(connection.timed_out(), None);
    }

    #[tokio::test]
    async fn incomplete_request_times_out_and_an_idle_connection_lives_longer() {
        let (near, mut far) = tokio::io::duplex(64);
        let connection = connection(SHORT, LONG);
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        connection.start_response();
        stream.write_all(b"response").await.unwrap();
        stream.flush().await.unwrap();
        let idle_since = connection.idle_since().unwrap();
        assert_eq!(connection.deadline(), idle_since + policy::HTTP_IDLE_TIMEOUT);
        far.write_all(b"GE").await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        let error = stream.read_exact(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.timed_out(), Some(RejectReason::ReadTimeout));
    }

    #[tokio::test]
    async fn connection_without_a_request_times_out_and_is_not_refused() {
        let (near, _far) = tokio::io::duplex(64);
        let connection = connection(SHORT, LONG);
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        let error = stream.read_exact(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.timed_out(), None);
    }

    #[tokio::test]
    async fn tcp_streams_have_vectored_writes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(DeadlineStream::new(stream, connection(LONG, LONG)).is_write_vectored());
    }
}
