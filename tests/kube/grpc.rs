//! A fake kubelet with configurable replies: gRPC over HTTP/2 on a Unix socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The reply to a call.
#[derive(Clone)]
pub(crate) enum Reply {
    /// This message.
    Message(Vec<u8>),
    /// A gRPC status with code and message.
    Status(u16, &'static str),
    /// No reply.
    Hang,
}

/// The reply of each method.
#[derive(Clone)]
pub(crate) struct Replies {
    pub(crate) list: Reply,
    pub(crate) allocatable: Reply,
}

/// A running kubelet.
pub(crate) struct FakeKubelet {
    socket: PathBuf,
    replies: Arc<Mutex<Replies>>,
    calls: watch::Receiver<CallCounts>,
    tasks: JoinSet<()>,
}

/// Number of connections and of calls of each method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    pub(crate) connections: u32,
    pub(crate) list: u32,
    pub(crate) allocatable: u32,
}

impl FakeKubelet {
    pub(crate) fn start(socket: &Path, replies: Replies) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let replies = Arc::new(Mutex::new(replies));
        let (count, calls) = watch::channel(CallCounts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&replies), count));
        Self { socket: socket.to_owned(), replies, calls, tasks }
    }

    /// Changes the replies of later calls.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Replies)) {
        change(&mut self.replies.lock().unwrap());
    }

    pub(crate) fn calls(&mut self) -> &mut watch::Receiver<CallCounts> {
        &mut self.calls
    }

    /// Stops as for a restart: connections break, the socket file remains.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Stops and removes the socket file.
    pub(crate) async fn stop_and_remove_socket(self) {
        let socket = self.socket.clone();
        self.stop().await;
        std::fs::remove_file(socket).unwrap();
    }
}

async fn serve(
    listener: UnixListener,
    replies: Arc<Mutex<Replies>>,
    count: watch::Sender<CallCounts>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        count.send_modify(|calls| calls.connections += 1);
        let (replies, count) = (Arc::clone(&replies), count.clone());
        connections.spawn(async move {
            let service =
                service_fn(move |request| respond(request, Arc::clone(&replies), count.clone()));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _broken = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn respond(
    request: Request<Incoming>,
    replies: Arc<Mutex<Replies>>,
    count: watch::Sender<CallCounts>,
) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let replies = replies.lock().unwrap().clone();
    let method = request.uri().path().to_owned();
    let message = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&message[..], [0; 5], "both requests are empty messages");
    let reply = match method.as_str() {
        "/v1.PodResourcesLister/List" => {
            count.send_modify(|calls| calls.list += 1);
            replies.list
        }
        "/v1.PodResourcesLister/GetAllocatableResources" => {
            count.send_modify(|calls| calls.allocatable += 1);
            replies.allocatable
        }
        _ => Reply::Status(12, "unknown method"),
    };
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(match reply {
        Reply::Message(message) => response.body(framed(&message)).unwrap(),
        Reply::Status(code, message) => response
            .header("grpc-status", code)
            .header("grpc-message", message)
            .body(Full::default().boxed())
            .unwrap(),
        Reply::Hang => std::future::pending().await,
    })
}

/// A message with its length prefix, and the trailers of a success.
fn framed(message: &[u8]) -> Body {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body = Full::new(Bytes::from(bytes));
    body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
}

/// A server on the socket that sends bytes that are not HTTP/2.
pub(crate) fn serve_invalid_bytes(socket: &Path) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open: Vec<UnixStream> = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
            let _closed = stream.write_all(&bytes).await;
            open.push(stream);
        }
    });
    tasks
}

/// A message as the kubelet encodes it, with the fields that the exporter skips.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pod {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) containers: Vec<Container>,
    #[prost(int64, repeated, tag = "4")]
    pub(crate) cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Devices {
    #[prost(string, tag = "1")]
    pub(crate) resource: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) topology: Option<Topology>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Topology {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<NumaNode>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NumaNode {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Allocatable {
    #[prost(message, repeated, tag = "1")]
    pub(crate) devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "2")]
    pub(crate) cpu_ids: Vec<i64>,
}
