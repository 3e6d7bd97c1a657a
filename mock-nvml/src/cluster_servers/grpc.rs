//! gRPC over HTTP/2, for methods with one request and one response.

use std::convert::Infallible;

use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

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

/// Serves one connection until it closes, in a [`tokio::task::LocalSet`]. `call` returns the encoded
/// response to a path and an encoded request.
pub async fn serve_connection<S, C, F>(stream: S, call: C)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    C: Fn(String, Vec<u8>) -> F + Clone + 'static,
    F: Future<Output = Result<Vec<u8>, GrpcStatus>> + 'static,
{
    let service = service_fn(move |request| handle(call.clone(), request));
    let mut builder = http2::Builder::new(LocalExecutor);
    // A protocol error or a disconnect of the client only ends this connection.
    let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn handle<F>(
    call: impl Fn(String, Vec<u8>) -> F,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible>
where
    F: Future<Output = Result<Vec<u8>, GrpcStatus>>,
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
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
    let result = match body.ok().and_then(|body| message(&body.to_bytes())) {
        Some(message) => call(path, message).await,
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

fn response(result: Result<Vec<u8>, GrpcStatus>) -> Response<Reply> {
    let mut trailers = HeaderMap::new();
    let (code, error, message) = match result {
        Ok(message) => (0, String::new(), Some(message)),
        Err((code, error)) => (code, error, None),
    };
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if let Ok(error) = HeaderValue::from_str(&escape(&error))
        && !error.is_empty()
    {
        trailers.insert("grpc-message", error);
    }
    let framed = message.map(|message| {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        Bytes::from([&[0][..], &length, &message].concat())
    });
    let mut response = Response::new(Reply::with_trailers(framed, trailers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
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
