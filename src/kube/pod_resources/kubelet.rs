//! A connection to the kubelet's socket, and what its refusals mean.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    Allocatable, AllocatableResourcesResponse, Empty, ListPodResourcesResponse, PodResourcesList,
};
use crate::kube::api::Fault;
use crate::kube::source::Failure;
use crate::policy;

/// A connection to one kubelet: after a restart there is another.
#[derive(Debug)]
pub struct Kubelet {
    grpc: Grpc<Channel>,
    socket: SocketId,
}

/// Which file the socket is: a kubelet that starts puts a new one in the old one's place.
#[derive(Debug, PartialEq, Eq)]
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

impl Kubelet {
    /// Connects.
    ///
    /// # Errors
    /// There is no socket, nobody listens to it, or we may not.
    pub async fn connect(path: &Path, patience: Duration) -> Result<Self, Fault> {
        let failed = |failure, error: &dyn Error| {
            Fault::new(failure, format!("{}: {}", path.display(), chain(error)))
        };
        let socket = SocketId::of(path).map_err(|e| failed(of_io(&e), &e))?;
        let target = path.to_owned();
        let connector = tower::service_fn(move |_| {
            let target = target.clone();
            async move { UnixStream::connect(target).await.map(TokioIo::new) }
        });
        // gRPC wants an authority; a unix socket has none.
        let endpoint = Endpoint::from_static("http://localhost");
        let connecting = endpoint.connect_with_connector(connector);
        let channel = match timeout(patience, connecting).await {
            Err(_) => {
                return Err(Fault::new(Failure::Timeout, "the kubelet does not take a connection"));
            }
            Ok(Err(e)) => return Err(failed(find_io(&e).map_or(Failure::Connection, of_io), &e)),
            Ok(Ok(channel)) => channel,
        };
        let grpc = Grpc::new(channel).max_decoding_message_size(policy::POD_RESOURCES_MAX);
        Ok(Self { grpc, socket })
    }

    /// Whether the socket at `path` is still the one that this connection was made to.
    #[must_use]
    pub fn is_current(&self, path: &Path) -> bool {
        SocketId::of(path).is_ok_and(|socket| socket == self.socket)
    }

    /// The pods, and the containers that were allocated something.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that cannot be decoded.
    pub async fn list(&mut self, patience: Duration) -> Result<PodResourcesList, Fault> {
        let path = PathAndQuery::from_static("/v1.PodResourcesLister/List");
        let list: ListPodResourcesResponse = self.ask(path, patience).await?;
        list.into_list().map_err(|e| Fault::new(Failure::Garbage, format!("List: {e}")))
    }

    /// The devices that could be given.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that cannot be decoded.
    pub async fn allocatable(&mut self, patience: Duration) -> Result<Allocatable, Fault> {
        let path = PathAndQuery::from_static("/v1.PodResourcesLister/GetAllocatableResources");
        let answer: AllocatableResourcesResponse = self.ask(path, patience).await?;
        Ok(answer.allocatable())
    }

    async fn ask<M>(&mut self, path: PathAndQuery, patience: Duration) -> Result<M, Fault>
    where
        M: prost::Message + Default + 'static,
    {
        let method = path.to_string();
        let codec = ProstCodec::<Empty, M>::default();
        let asking = async {
            self.grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            self.grpc.unary(Request::new(Empty {}), path, codec).await
        };
        match timeout(patience, asking).await {
            Err(_) => Err(Fault::new(Failure::Timeout, format!("{method}: no answer in time"))),
            Ok(Err(status)) => Err(refusal(&method, &status)),
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }
}

fn refusal(method: &str, status: &Status) -> Fault {
    let detail: String = chain(status).chars().take(400).collect();
    Fault::new(meaning(status, &detail), format!("{method}: {detail}"))
}

/// The same code stands for different things, which only its text tells apart.
fn meaning(status: &Status, detail: &str) -> Failure {
    let says = |words: &[&str]| words.iter().any(|words| detail.contains(words));
    let code = status.code();
    // Our own limit says so with one code, the kubelet's with the other.
    let limit = matches!(code, Code::OutOfRange | Code::ResourceExhausted);
    if limit && says(&["larger than", "too large"]) {
        Failure::TooLarge
    } else if code == Code::ResourceExhausted {
        Failure::Throttled
    } else if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
        Failure::Denied
    } else if code == Code::Unimplemented {
        Failure::Unsupported
    } else if code == Code::DeadlineExceeded {
        Failure::Timeout
    } else if find_io(status).is_some() {
        Failure::Connection
    } else if says(&["failed to decode", "protocol error", "compression flag"]) {
        Failure::Garbage
    } else if matches!(code, Code::Unavailable | Code::Cancelled) {
        Failure::Connection
    } else {
        Failure::Refused
    }
}

fn of_io(error: &io::Error) -> Failure {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        Failure::Absent
    } else if kind == io::ErrorKind::PermissionDenied {
        Failure::Denied
    } else {
        Failure::Connection
    }
}

fn find_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .find_map(|error| error.downcast_ref::<io::Error>())
}

/// What happened, and everything that it comes from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
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
    fn refusals_are_told_apart() {
        let said = |code, text: &str| refusal("List", &Status::new(code, text)).failure;
        for (code, text, expected) in [
            (Code::ResourceExhausted, "rejected by rate limit", Failure::Throttled),
            (
                Code::ResourceExhausted,
                "grpc: trying to send message larger than max (5000000 vs. 4194304)",
                Failure::TooLarge,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
                Failure::TooLarge,
            ),
            (Code::PermissionDenied, "no", Failure::Denied),
            (Code::Unauthenticated, "no", Failure::Denied),
            (Code::Unimplemented, "unknown method", Failure::Unsupported),
            (Code::DeadlineExceeded, "late", Failure::Timeout),
            (Code::Internal, "failed to decode Protobuf message: x", Failure::Garbage),
            (Code::Internal, "device manager is not ready", Failure::Refused),
            (Code::Unavailable, "gone", Failure::Connection),
        ] {
            assert_eq!(said(code, text), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn a_refusal_that_goes_on_for_ever_is_cut() {
        let fault = refusal("List", &Status::internal("x".repeat(100_000)));
        assert!(fault.detail.len() < 500);
    }
}
