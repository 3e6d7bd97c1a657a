//! Response bodies.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    HeaderMap,
    body::{Body, Bytes, Frame},
};
use tokio::sync::mpsc;

/// Some frames, then, for a watch, those of a channel.
pub(super) struct Reply {
    frames: VecDeque<Frame<Bytes>>,
    more: Option<mpsc::Receiver<Frame<Bytes>>>,
}

impl Reply {
    /// A complete body.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { frames: [Frame::data(bytes.into())].into(), more: None }
    }

    /// An optional body, then trailers.
    pub(super) fn with_trailers(bytes: Option<Bytes>, trailers: HeaderMap) -> Self {
        let data = bytes.map(Frame::data);
        Self { frames: data.into_iter().chain([Frame::trailers(trailers)]).collect(), more: None }
    }

    /// A body that ends when the sender is dropped.
    pub(super) fn stream(more: mpsc::Receiver<Frame<Bytes>>) -> Self {
        Self { frames: VecDeque::new(), more: Some(more) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.more {
            None => Poll::Ready(None),
            Some(more) => more.poll_recv(context).map(|frame| Some(Ok(frame?))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.more.is_none()
    }
}
