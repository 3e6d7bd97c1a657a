//! One connection: its peer, the response in flight, and the write timeout.

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

/// State of a connection, shared by the task that serves it and the connection limiter.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) peer: Peer,
    /// The response in flight, if any.
    in_flight: Mutex<Option<InFlight>>,
    /// A response was not written within its timeout.
    timed_out: AtomicBool,
    /// A request has been received in part.
    receiving: AtomicBool,
    /// Notified when the connection is evicted.
    pub(super) evicted: Notify,
}

/// A response in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    since: Instant,
    deadline: Instant,
    body: Option<PageRef>,
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
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            in_flight: Mutex::default(),
            timed_out: AtomicBool::default(),
            receiving: AtomicBool::default(),
            evicted: Notify::new(),
        }
    }

    /// Records that a request was received and starts the write timeout of its response.
    pub(super) fn start_response(&self, timeout: Duration) {
        let since = Instant::now();
        self.receiving.store(false, Ordering::Relaxed);
        *self.in_flight() = Some(InFlight { since, deadline: since + timeout, body: None });
    }

    /// Sets the body of the response in flight.
    pub(super) fn set_body(&self, body: PageRef) {
        if let Some(response) = self.in_flight().as_mut() {
            response.body = Some(body);
        }
    }

    /// The body of the response in flight, and when the response began.
    pub(super) fn body(&self) -> Option<(PageRef, Instant)> {
        let response = *self.in_flight();
        response.and_then(|response| Some((response.body?, response.since)))
    }

    /// When the response in flight began; `None` if the connection is idle.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        (*self.in_flight()).map(|response| response.since)
    }

    /// Whether a response was not written within its timeout.
    pub(super) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Whether a request has been received in part.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving.load(Ordering::Relaxed)
    }

    fn in_flight(&self) -> MutexGuard<'_, Option<InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream with a write timeout for each response, so that a client that does not read cannot keep a
/// response body in memory.
pub(super) struct DeadlineStream<S> {
    stream: S,
    connection: Arc<ConnectionState>,
    timer: Pin<Box<Sleep>>,
}

impl<S> DeadlineStream<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionState>) -> Self {
        Self { stream, connection, timer: Box::pin(sleep_until(Instant::now())) }
    }

    /// Ready with an error once the deadline of the response in flight has passed.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(InFlight { deadline, .. }) = *self.connection.in_flight() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(context).map(|()| {
            self.connection.timed_out.store(true, Ordering::Relaxed);
            io::Error::new(io::ErrorKind::TimedOut, "timeout while writing the response")
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.receiving.store(true, Ordering::Relaxed);
        }
        read
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A completed flush ends the response in flight: the kernel has accepted all of it.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                *self.connection.in_flight() = None;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn connection() -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new(Peer::Unknown))
    }

    #[tokio::test]
    async fn response_that_is_not_read_times_out() {
        // The other end does not read.
        let (near, _far) = tokio::io::duplex(16);
        let connection = connection();
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        connection.start_response(Duration::from_millis(10));
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(connection.has_timed_out());
    }

    #[tokio::test]
    async fn flushed_response_is_no_longer_in_flight() {
        let (near, _far) = tokio::io::duplex(64);
        let connection = connection();
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        connection.start_response(Duration::from_secs(60));
        let body = Bytes::from_static(b"body");
        connection.set_body(PageRef::from(&body));
        stream.write_all(&[0; 16]).await.unwrap();
        assert_eq!(connection.body().unwrap().0.length, 4);
        stream.flush().await.unwrap();
        assert!(connection.busy_since().is_none() && connection.body().is_none());
        assert!(!connection.has_timed_out());
    }

    #[tokio::test]
    async fn request_is_being_received_from_its_first_byte_until_it_is_complete() {
        let (near, mut far) = tokio::io::duplex(64);
        let connection = connection();
        let mut stream = DeadlineStream::new(near, Arc::clone(&connection));
        assert!(!connection.is_receiving());
        far.write_all(b"GE").await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        assert!(connection.is_receiving());
        connection.start_response(Duration::from_secs(60));
        assert!(!connection.is_receiving());
    }

    #[tokio::test]
    async fn tcp_streams_have_vectored_writes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(DeadlineStream::new(stream, connection()).is_write_vectored());
    }
}
