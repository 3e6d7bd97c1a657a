//! The mock's kubelet with responses that no scenario has: of any size, malformed, or a status for one
//! method.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use mock_nvml::pod_resources::{GrpcStatus, serve_connection};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

/// The reply to a call.
#[derive(Clone)]
pub(crate) enum Reply {
    /// This message.
    Message(Vec<u8>),
    /// A gRPC status with code and message.
    Status(u8, &'static str),
    /// No reply.
    Hang,
}

/// The reply of each method.
#[derive(Clone)]
pub(crate) struct Replies {
    pub(crate) list: Reply,
    pub(crate) allocatable: Reply,
}

/// A running kubelet. It stops when it is dropped.
pub(crate) struct FakeKubelet {
    socket: PathBuf,
    replies: Arc<Mutex<Replies>>,
    calls: watch::Receiver<CallCounts>,
    server: LocalServer,
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
        let replies = Arc::new(Mutex::new(replies));
        let (count, calls) = watch::channel(CallCounts::default());
        let answers = Arc::clone(&replies);
        let server = LocalServer::start(socket, move |stream| {
            count.send_modify(|calls| calls.connections += 1);
            let (replies, count) = (Arc::clone(&answers), count.clone());
            serve_connection(stream, move |path, message| {
                assert!(message.is_empty(), "both requests are empty messages");
                respond(replies.lock().unwrap().clone(), path, count.clone())
            })
        });
        Self { socket: socket.to_owned(), replies, calls, server }
    }

    /// Changes the replies of later calls.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Replies)) {
        change(&mut self.replies.lock().unwrap());
    }

    pub(crate) fn calls(&mut self) -> &mut watch::Receiver<CallCounts> {
        &mut self.calls
    }

    /// Stops as for a restart: connections break, the socket file remains.
    pub(crate) fn stop(self) {
        self.server.stop();
    }

    /// Stops and removes the socket file.
    pub(crate) fn stop_and_remove_socket(self) {
        let socket = self.socket.clone();
        self.stop();
        std::fs::remove_file(socket).unwrap();
    }
}

async fn respond(
    replies: Replies,
    path: String,
    count: watch::Sender<CallCounts>,
) -> Result<Vec<u8>, GrpcStatus> {
    let reply = match path.as_str() {
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
    match reply {
        Reply::Message(message) => Ok(message),
        Reply::Status(code, message) => Err((code, message.to_owned())),
        Reply::Hang => std::future::pending().await,
    }
}

/// A server on a socket, on a thread of its own: tasks of the mock stay on their thread.
pub(crate) struct LocalServer {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl LocalServer {
    fn start<F: Future<Output = ()> + 'static>(
        socket: &Path,
        serve: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let accept = async move {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.spawn_local(serve(stream));
                }
            };
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop, thread }
    }

    /// A server that sends bytes that are not HTTP/2.
    pub(crate) fn of_invalid_bytes(socket: &Path) -> Self {
        Self::start(socket, |mut stream| async move {
            let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
            let _closed = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        })
    }

    /// Breaks the connections; the socket file remains.
    pub(crate) fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}
