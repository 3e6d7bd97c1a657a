//! A fake API server over HTTP/1.1; the test writes every response.
//!
//! The mock's API server serves a scenario, and only what HTTP and the API permit. The tests here need
//! each request, and responses that a proper server does not send: lines that end in the middle of a
//! chunk, connections that break, and objects and events that are not of the API. Those that the mock
//! plays as well are in `tests/product/cluster.rs`, with the whole exporter.

use std::path::Path;

use nvml_exporter::kube::address::Address;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::HANG;

/// A server that queues requests until the test takes them.
pub(crate) struct FakeServer {
    pub(crate) url: String,
    directory: TempDir,
    requests: mpsc::UnboundedReceiver<Exchange>,
    _tasks: JoinSet<()>,
}

/// A request with its connection.
pub(crate) struct Exchange {
    /// Method, path and headers.
    pub(crate) head: String,
    connection: TcpStream,
}

/// A response with an open body.
pub(crate) struct Stream(TcpStream);

impl FakeServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, requests) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                if let Some(exchange) = Exchange::read(connection).await
                    && send.send(exchange).is_err()
                {
                    return;
                }
            }
        });
        let directory = tempfile::tempdir().unwrap();
        Self { url, directory, requests, _tasks: tasks }
    }

    /// The address of an API server, in a kubeconfig.
    pub(crate) fn address(&self) -> Address {
        kubeconfig(self.directory.path(), &self.url)
    }

    /// The next request; its path has to contain all of `contains`.
    pub(crate) async fn next(&mut self, contains: &[&str]) -> Exchange {
        let next = timeout(HANG, self.requests.recv()).await;
        let exchange = next.unwrap_or_else(|_| panic!("no request for {contains:?}")).unwrap();
        for part in contains {
            assert!(exchange.path().contains(part), "{part} in {}", exchange.path());
        }
        exchange
    }
}

/// A kubeconfig in `directory` for the API server at `url`.
pub(crate) fn kubeconfig(directory: &Path, url: &str) -> Address {
    let file = directory.join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: fake, users: [],\n\
         clusters: [{{name: fake, cluster: {{server: '{url}'}}}}],\n\
         contexts: [{{name: fake, context: {{cluster: fake, user: ''}}}}]}}"
    );
    std::fs::write(&file, text).unwrap();
    Address::Kubeconfig(file)
}

impl Exchange {
    async fn read(mut connection: TcpStream) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        Some(Self { head: String::from_utf8(head).unwrap(), connection })
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// Sends a complete response.
    pub(crate) async fn respond(mut self, status: u16, body: &str) {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.connection.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends an error response with a `Status` object.
    pub(crate) async fn fail(self, status: u16, message: &str) {
        let body = format!(r#"{{"kind":"Status","code":{status},"message":"{message}"}}"#);
        self.respond(status, &body).await;
    }

    /// Begins a chunked response.
    pub(crate) async fn stream(mut self) -> Stream {
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        self.connection.write_all(head).await.unwrap();
        Stream(self.connection)
    }
}

impl Stream {
    pub(crate) async fn raw(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.unwrap();
    }

    pub(crate) async fn line(&mut self, text: &str) {
        self.raw(&format!("{text}\n")).await;
    }

    /// Ends the response. Dropping the stream instead breaks the connection.
    pub(crate) async fn end(mut self) {
        self.0.write_all(b"0\r\n\r\n").await.unwrap();
    }
}

/// JSON of a pod with one container.
pub(crate) fn pod(uid: &str, name: &str, version: u32) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"uid":"{uid}","namespace":"demo","name":"{name}","resourceVersion":"{version}"}},"spec":{{"nodeName":"n1","containers":[{{"name":"main"}}]}},"status":{{"containerStatuses":[{{"name":"main","containerID":"containerd://c-{uid}"}}]}}}}"#
    )
}

pub(crate) fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}
