//! The kubelet's socket: gRPC over HTTP/2.

use std::{convert::Infallible, pin::Pin, rc::Rc};

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

use super::{super::kubelet, door::Stream, keeper::Keeper, reply::Reply};
use crate::scenario::cluster::{Server, Trouble};

const GRPC: &str = "application/grpc";
/// The largest request that is read, in bytes.
const MOST: usize = 64 << 10;
/// Bytes before a message: not compressed, and its length.
const PREFIX: usize = 5;

const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// Runs what HTTP/2 has to do on this thread.
#[derive(Clone, Copy, Debug)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves one connection to its end.
pub(super) async fn connection(stream: Pin<Box<dyn Stream>>, keeper: Rc<Keeper>) {
    let service = service_fn(move |request| answer(Rc::clone(&keeper), request));
    let mut builder = http2::Builder::new(Here);
    // A client that breaks off or speaks something else ends its connection, and that is all.
    let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    keeper: Rc<Keeper>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    if request.method() != Method::POST || !is_grpc {
        let mut refused = Response::new(Reply::whole(""));
        *refused.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Ok(refused);
    }
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), MOST).collect().await;
    let message = body.ok().and_then(|body| message(&body.to_bytes()));
    let answered = match keeper.delay(Server::Kubelet).await {
        Some(Trouble::Denied) => Err((PERMISSION_DENIED, "permission denied".to_owned())),
        Some(Trouble::Throttled) => Err((RESOURCE_EXHAUSTED, "rejected by rate limit".to_owned())),
        // A field that is longer than the message.
        Some(Trouble::Garbage) => Ok(vec![0x0a, 0xff, 0xff, 0x7f, 0x00]),
        _ => match message {
            None => Err((INTERNAL, "the request is no message".to_owned())),
            Some(message) => told(&keeper, &path, &message),
        },
    };
    Ok(response(answered))
}

fn told(keeper: &Keeper, path: &str, message: &[u8]) -> Result<Vec<u8>, kubelet::Status> {
    let (scenario, now) = keeper.refresh();
    match scenario.cluster.as_deref() {
        None => Err((UNAVAILABLE, "there is no cluster".to_owned())),
        Some(cluster) => kubelet::answer(cluster, now.world, path, message),
    }
}

/// The one message of a request that is not compressed.
fn message(body: &[u8]) -> Option<Vec<u8>> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (usize::try_from(length).ok()? == message.len()).then(|| message.to_vec())
}

fn response(answered: Result<Vec<u8>, kubelet::Status>) -> Response<Reply> {
    let mut trailers = HeaderMap::new();
    let (code, said, message) = match answered {
        Ok(message) => (0, String::new(), Some(message)),
        Err((code, said)) => (code, said, None),
    };
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if let Ok(said) = HeaderValue::from_str(&escape(&said))
        && !said.is_empty()
    {
        trailers.insert("grpc-message", said);
    }
    let framed = message.map(|message| {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        Bytes::from([&[0][..], &length, &message].concat())
    });
    let mut response = Response::new(Reply::with_trailers(framed, trailers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// A message as a header can carry it.
fn escape(said: &str) -> String {
    let each = said.bytes().map(|byte| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_one() {
        assert_eq!(message(&[0, 0, 0, 0, 2, 7, 8]), Some(vec![7, 8]));
        assert_eq!(message(&[0, 0, 0, 0, 0]), Some(vec![]));
        for body in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 7]] {
            assert_eq!(message(body), None, "{body:?}");
        }
    }

    #[test]
    fn what_is_said_fits_a_header() {
        assert_eq!(escape("100 % sure,\nα"), "100 %25 sure,%0A%CE%B1");
    }
}
