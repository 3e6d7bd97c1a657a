//! A kubelet that answers as it is told, in real gRPC over HTTP/2 on a unix socket.

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

/// What the kubelet does with a question.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Answers with this message.
    Message(Vec<u8>),
    /// Refuses with a gRPC code and words.
    Status(u16, &'static str),
    /// Takes the question and never answers.
    Hang,
}

/// How the kubelet behaves, one reply for each method.
#[derive(Clone)]
pub(crate) struct Manners {
    pub(crate) list: Reply,
    pub(crate) allocatable: Reply,
}

/// A running kubelet; its socket goes with it.
pub(crate) struct FakeKubelet {
    socket: PathBuf,
    manners: Arc<Mutex<Manners>>,
    asked: watch::Receiver<Asked>,
    tasks: JoinSet<()>,
}

/// How many times each method was called, and how many connections were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) connections: u32,
    pub(crate) list: u32,
    pub(crate) allocatable: u32,
}

impl FakeKubelet {
    pub(crate) fn start(socket: &Path, manners: Manners) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let manners = Arc::new(Mutex::new(manners));
        let (count, asked) = watch::channel(Asked::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&manners), count));
        Self { socket: socket.to_owned(), manners, asked, tasks }
    }

    /// From now on it answers so.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    pub(crate) fn asked(&mut self) -> &mut watch::Receiver<Asked> {
        &mut self.asked
    }

    /// Ends, as a kubelet does for its restart: connections break, the socket stays behind.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends and takes its socket with it.
    pub(crate) async fn vanish(self) {
        let socket = self.socket.clone();
        self.stop().await;
        std::fs::remove_file(socket).unwrap();
    }
}

async fn serve(listener: UnixListener, manners: Arc<Mutex<Manners>>, count: watch::Sender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        count.send_modify(|asked| asked.connections += 1);
        let (manners, count) = (Arc::clone(&manners), count.clone());
        connections.spawn(async move {
            let service =
                service_fn(move |request| answer(request, Arc::clone(&manners), count.clone()));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _broken = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    manners: Arc<Mutex<Manners>>,
    count: watch::Sender<Asked>,
) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let manners = manners.lock().unwrap().clone();
    let method = request.uri().path().to_owned();
    let question = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&question[..], [0; 5], "both requests are empty messages");
    let reply = match method.as_str() {
        "/v1.PodResourcesLister/List" => {
            count.send_modify(|asked| asked.list += 1);
            manners.list
        }
        "/v1.PodResourcesLister/GetAllocatableResources" => {
            count.send_modify(|asked| asked.allocatable += 1);
            manners.allocatable
        }
        _ => Reply::Status(12, "unknown method"),
    };
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(match reply {
        Reply::Message(message) => response.body(framed(&message)).unwrap(),
        Reply::Status(code, words) => response
            .header("grpc-status", code)
            .header("grpc-message", words)
            .body(Full::default().boxed())
            .unwrap(),
        Reply::Hang => std::future::pending().await,
    })
}

/// One message with its prefix, and the trailers of success.
fn framed(message: &[u8]) -> Body {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body = Full::new(Bytes::from(bytes));
    body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
}

/// Somebody who listens on the socket and speaks no HTTP/2 at all.
pub(crate) fn babble(socket: &Path) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open: Vec<UnixStream> = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let rubbish: Vec<u8> = (0..=255).cycle().take(4096).collect();
            let _gone = stream.write_all(&rubbish).await;
            open.push(stream);
        }
    });
    tasks
}

/// The messages as the kubelet encodes them, with the fields that the exporter skips.
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
