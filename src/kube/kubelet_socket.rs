//! gRPC over a Unix socket of the kubelet.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::request_error::RequestError;
use super::source::FailureReason;

/// A connection to one kubelet process. A restarted kubelet needs a new connection.
#[derive(Clone, Debug)]
pub struct KubeletSocket {
    grpc: Grpc<Channel>,
    socket: SocketId,
}

/// Identity of the socket file. A kubelet that starts replaces the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketId {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl SocketId {
    fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl KubeletSocket {
    /// Connects to the socket at `path`, for messages of at most `limit` bytes.
    ///
    /// # Errors
    /// The socket is absent, no process accepts connections, access is denied, or the timeout is over.
    pub async fn connect(
        path: &Path,
        limit: usize,
        timeout: Duration,
    ) -> Result<Self, RequestError> {
        let failed = |failure, error: &dyn Error| {
            let cause = chain(error);
            RequestError::new(
                failure,
                format!("{}: the kubelet is not reached: {cause}", path.display()),
            )
        };
        let socket = SocketId::of(path).map_err(|e| failed(of_io(&e), &e))?;
        let target = path.to_owned();
        let connector = tower::service_fn(move |_| {
            let target = target.clone();
            async move { UnixStream::connect(target).await.map(TokioIo::new) }
        });
        // gRPC requires an authority, which a Unix socket does not have.
        let endpoint = Endpoint::from_static("http://localhost");
        let connecting = endpoint.connect_with_connector(connector);
        let channel = match time::timeout(timeout, connecting).await {
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                let text = format!("{}: no connection within {seconds} s", path.display());
                return Err(RequestError::new(FailureReason::Timeout, text));
            }
            Ok(Err(e)) => {
                return Err(match find_io(&e) {
                    Some(cause) => failed(of_io(cause), cause),
                    None => failed(FailureReason::Connection, &e),
                });
            }
            Ok(Ok(channel)) => channel,
        };
        let grpc = Grpc::new(channel).max_decoding_message_size(limit);
        Ok(Self { grpc, socket })
    }

    /// Whether `path` is still the socket file of this connection.
    #[must_use]
    pub fn is_current(&self, path: &Path) -> bool {
        SocketId::of(path).is_ok_and(|socket| socket == self.socket)
    }

    /// Calls a method with one response.
    ///
    /// # Errors
    /// No response, an error status, or a response that cannot be decoded.
    pub async fn call<Q, M>(
        &mut self,
        path: PathAndQuery,
        request: Request<Q>,
        timeout: Duration,
    ) -> Result<M, RequestError>
    where
        Q: prost::Message + 'static,
        M: prost::Message + Default + 'static,
    {
        let method = path.to_string();
        let codec = ProstCodec::<Q, M>::default();
        let call = async {
            self.grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            self.grpc.unary(request, path, codec).await
        };
        in_time(&method, timeout, call).await.map(Response::into_inner)
    }

    /// Calls a method with a stream of responses.
    ///
    /// # Errors
    /// No response, or an error status.
    pub async fn stream<Q, M>(
        &mut self,
        path: PathAndQuery,
        request: Request<Q>,
        timeout: Duration,
    ) -> Result<Streaming<M>, RequestError>
    where
        Q: prost::Message + 'static,
        M: prost::Message + Default + 'static,
    {
        let method = path.to_string();
        let codec = ProstCodec::<Q, M>::default();
        let call = async {
            self.grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            self.grpc.server_streaming(request, path, codec).await
        };
        in_time(&method, timeout, call).await.map(Response::into_inner)
    }
}

async fn in_time<T>(
    method: &str,
    timeout: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, RequestError> {
    match time::timeout(timeout, call).await {
        Err(_) => {
            let seconds = timeout.as_secs_f64();
            let text = format!("{method}: no response within {seconds} s");
            Err(RequestError::new(FailureReason::Timeout, text))
        }
        Ok(result) => result.map_err(|status| status_error(method, &status)),
    }
}

/// The error of a status that `method` returned, or that its stream ended with.
#[must_use]
pub fn status_error(method: &str, status: &Status) -> RequestError {
    let details: String = chain(status).chars().take(400).collect();
    let text = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    let text = with_causes(text, status.source());
    let text: String = text.chars().take(400).collect();
    RequestError::new(reason(status, &details), format!("{method}: {text}"))
}

/// One code has several meanings, which only the text distinguishes.
fn reason(status: &Status, details: &str) -> FailureReason {
    let contains = |texts: &[&str]| texts.iter().any(|text| details.contains(text));
    let code = status.code();
    // The size limit of this client and that of the kubelet have different codes.
    let limit = matches!(code, Code::OutOfRange | Code::ResourceExhausted);
    if limit && contains(&["larger than", "too large"]) {
        FailureReason::TooLarge
    } else if code == Code::ResourceExhausted {
        FailureReason::Throttled
    } else if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
        FailureReason::Denied
    } else if code == Code::Unimplemented {
        FailureReason::Unsupported
    } else if code == Code::FailedPrecondition {
        FailureReason::NotReady
    } else if code == Code::DeadlineExceeded {
        FailureReason::Timeout
    } else if find_io(status).is_some() {
        FailureReason::Connection
    } else if contains(&["failed to decode", "protocol error", "compression flag"]) {
        FailureReason::Garbage
    } else if matches!(code, Code::Unavailable | Code::Cancelled) {
        FailureReason::Connection
    } else {
        FailureReason::Refused
    }
}

fn of_io(error: &io::Error) -> FailureReason {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        FailureReason::Absent
    } else if kind == io::ErrorKind::PermissionDenied {
        FailureReason::Denied
    } else {
        FailureReason::Connection
    }
}

fn find_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .find_map(|error| error.downcast_ref::<io::Error>())
}

/// The texts of an error and of its causes.
fn chain(error: &dyn Error) -> String {
    with_causes(&error.to_string(), error.source())
}

fn with_causes(text: &str, mut cause: Option<&(dyn Error + 'static)>) -> String {
    let mut text = text.to_owned();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_failure_reasons() {
        let failure = |code, text: &str| status_error("List", &Status::new(code, text)).reason;
        for (code, text, expected) in [
            (Code::ResourceExhausted, "rejected by rate limit", FailureReason::Throttled),
            (
                Code::ResourceExhausted,
                "grpc: trying to send message larger than max (5000000 vs. 4194304)",
                FailureReason::TooLarge,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
                FailureReason::TooLarge,
            ),
            (Code::PermissionDenied, "no", FailureReason::Denied),
            (Code::Unauthenticated, "no", FailureReason::Denied),
            (Code::Unimplemented, "unknown method", FailureReason::Unsupported),
            (Code::DeadlineExceeded, "late", FailureReason::Timeout),
            (Code::FailedPrecondition, "not synced", FailureReason::NotReady),
            (Code::Internal, "failed to decode Protobuf message: x", FailureReason::Garbage),
            (Code::Internal, "device manager is not ready", FailureReason::Refused),
            (Code::Unavailable, "gone", FailureReason::Connection),
        ] {
            assert_eq!(failure(code, text), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn long_status_message_is_truncated() {
        let fault = status_error("List", &Status::internal("x".repeat(100_000)));
        assert!(fault.problem.message.len() < 500);
    }
}
