//! gRPC over HTTP/2, for methods with one request, and one response or a stream of them.

use std::convert::Infallible;

use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{cluster::kubelet::GrpcStatus, cluster_servers::reply::Reply};

const GRPC: &str = "application/grpc";
/// Largest request body, in bytes.
const MAX_REQUEST: usize = 64 << 10;
/// Bytes before a gRPC message: the compression flag and the length.
const PREFIX: usize = 5;

const INTERNAL: u8 = 13;

/// Spawns the tasks of HTTP/2 connections on this thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// The metadata key of a field mask.
const FIELD_MASK: &str = "x-kubernetes-fieldmask";
/// Responses of a stream that are buffered for a slow client.
const MAX_BUFFERED: usize = 16;

/// A request.
#[derive(Debug)]
pub(super) struct GrpcRequest {
    /// Path of the method.
    pub(super) path: String,
    /// The encoded request message.
    pub(super) message: Vec<u8>,
    /// The field mask in the metadata.
    pub(super) field_mask: Option<String>,
}

/// The response to a request.
pub(super) enum GrpcReply {
    /// One encoded message.
    One(Vec<u8>),
    /// Encoded messages, until the channel is closed or a status ends the stream.
    Stream(mpsc::Receiver<Result<Vec<u8>, GrpcStatus>>),
}

/// Serves one connection until it closes, in a [`tokio::task::LocalSet`]. `call` returns the encoded
/// response to a path and an encoded request.
pub async fn serve_connection<S, C, F>(stream: S, call: C)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    C: Fn(String, Vec<u8>) -> F + Clone + 'static,
    F: Future<Output = Result<Vec<u8>, GrpcStatus>> + 'static,
{
    let call = move |request: GrpcRequest| {
        let reply = call(request.path, request.message);
        async move { reply.await.map(GrpcReply::One) }
    };
    serve(stream, call).await;
}

/// Serves one connection until it closes. `call` returns the response to a request.
pub(super) async fn serve<S, C, F>(stream: S, call: C)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    C: Fn(GrpcRequest) -> F + Clone + 'static,
    F: Future<Output = Result<GrpcReply, GrpcStatus>> + 'static,
{
    let service = service_fn(move |request| handle(call.clone(), request));
    let mut builder = http2::Builder::new(LocalExecutor);
    // A protocol error or a disconnect of the client only ends this connection.
    let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn handle<F>(
    call: impl Fn(GrpcRequest) -> F,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible>
where
    F: Future<Output = Result<GrpcReply, GrpcStatus>>,
{
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    if request.method() != Method::POST || !is_grpc {
        let mut rejected = Response::new(Reply::full(""));
        *rejected.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Ok(rejected);
    }
    let path = request.uri().path().to_owned();
    let field_mask = request.headers().get(FIELD_MASK).and_then(|mask| mask.to_str().ok());
    let field_mask = field_mask.map(str::to_owned);
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
    let result = match body.ok().and_then(|body| message(&body.to_bytes())) {
        Some(message) => call(GrpcRequest { path, message, field_mask }).await,
        None => Err((INTERNAL, "the request body is not one uncompressed gRPC message".to_owned())),
    };
    Ok(response(result))
}

/// The message of a request body, which must be exactly one uncompressed message.
fn message(body: &[u8]) -> Option<Vec<u8>> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (usize::try_from(length).ok()? == message.len()).then(|| message.to_vec())
}

fn response(result: Result<GrpcReply, GrpcStatus>) -> Response<Reply> {
    let body = match result {
        Ok(GrpcReply::One(message)) => {
            Reply::with_trailers(Some(framed(&message)), trailers(&(0, String::new())))
        }
        Err(status) => Reply::with_trailers(None, trailers(&status)),
        Ok(GrpcReply::Stream(messages)) => {
            let (sender, frames) = mpsc::channel(1);
            tokio::task::spawn_local(forward(messages, sender));
            Reply::stream(frames)
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// Forwards the messages of a stream, and its status at the end.
async fn forward(
    mut messages: mpsc::Receiver<Result<Vec<u8>, GrpcStatus>>,
    sender: mpsc::Sender<Frame<Bytes>>,
) {
    let mut status = (0, String::new());
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            // The client has disconnected.
            () = sender.closed() => return,
        };
        match message {
            Some(Ok(message)) => {
                if sender.send(Frame::data(framed(&message))).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => {
                status = error;
                break;
            }
            None => break,
        }
    }
    // The error only means that the client has disconnected.
    let _ = sender.send(Frame::trailers(trailers(&status))).await;
}

/// A channel for the messages of a stream.
pub(super) fn stream() -> (mpsc::Sender<Result<Vec<u8>, GrpcStatus>>, GrpcReply) {
    let (sender, messages) = mpsc::channel(MAX_BUFFERED);
    (sender, GrpcReply::Stream(messages))
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Bytes::from([&[0][..], &length, message].concat())
}

fn trailers((code, error): &GrpcStatus) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(*code)));
    if let Ok(error) = HeaderValue::from_str(&escape(error))
        && !error.is_empty()
    {
        trailers.insert("grpc-message", error);
    }
    trailers
}

/// Percent-encodes an error message for the `grpc-message` trailer.
fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_or_compressed_message_is_rejected() {
        assert_eq!(message(&[0, 0, 0, 0, 2, 7, 8]), Some(vec![7, 8]));
        assert_eq!(message(&[0, 0, 0, 0, 0]), Some(vec![]));
        for body in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 7]] {
            assert_eq!(message(body), None, "{body:?}");
        }
    }

    #[test]
    fn error_message_is_percent_encoded() {
        assert_eq!(escape("100 % sure,\nα"), "100 %25 sure,%0A%CE%B1");
    }
}
