//! HTTP requests over a real connection.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::labels::{Dialect, Labels};
use nvml_exporter::model::Moment;
use nvml_exporter::publish::Published;
use nvml_exporter::selection::{Selection, SelectionScope, preset};
use nvml_exporter::serve::routes::Routes;
use nvml_exporter::serve::{AppState, Timeouts, serve};
use nvml_exporter::snapshot::{Entity, ExporterHealth, NodeIdentity, Snapshot, Tables};
use nvml_exporter::web_config::WebConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

/// Timeout of a connection; the server must have responded or closed it by then.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
const TIMEOUTS: Timeouts = Timeouts { read: Duration::from_secs(2), write: Duration::from_secs(2) };

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    /// Keeps the published snapshot available.
    _publish: watch::Sender<Option<Arc<Published>>>,
    /// Number of clients so far. Each has its own loopback address, since the ports of one address run out.
    clients: Cell<u32>,
}

/// For any input the server sends only complete responses, or none, and closes the connection; the next client
/// is served.
pub(crate) fn check(bytes: &[u8]) {
    thread_local! {
        static SERVER: Server = Server::start();
    }
    SERVER.with(|server| {
        check_responses(&server.send(bytes, true));
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let next = server.send(request, false);
        assert!(next.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", next.escape_ascii());
    });
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (publish, published) = watch::channel(Some(Arc::new(Published::new(snapshot()))));
        let site = AppState {
            published,
            max_age: Duration::from_secs(3600),
            liveness_max_age: Duration::MAX,
            clock: Clock::start(),
            routes: Routes {
                telemetry_path: None,
                own_path: None,
                are_own_on_metrics: true,
                landing: true,
            },
            timeouts: TIMEOUTS,
            rejected: Arc::default(),
            web_config_health: Arc::default(),
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(vec![listener], site, WebConfig::default(), std::future::pending()));
        Self { runtime, address, _publish: publish, clients: Cell::new(0) }
    }

    /// Sends the bytes and returns the response up to the end of the connection. With `shutdown`, the client closes
    /// its sending side.
    fn send(&self, bytes: &[u8], shutdown: bool) -> Vec<u8> {
        let number = self.clients.replace(self.clients.get() + 1) % 0x00FF_FFF0;
        let client = Ipv4Addr::from(0x7F00_0002 + number);
        let exchange = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(IpAddr::V4(client), 0)).unwrap();
            let mut stream = socket.connect(self.address).await.unwrap();
            let (mut from, mut to) = stream.split();
            // The server may reject and close before everything is sent: a failed write is fine.
            let send = async {
                let _sent = to.write_all(bytes).await;
                // A request directly followed by the end of the stream need not be served: let it be read first.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                if shutdown {
                    let _ended = to.shutdown().await;
                }
            };
            let mut received = Vec::new();
            let receive = async {
                let _reset = from.read_to_end(&mut received).await;
            };
            tokio::join!(send, receive);
            received
        };
        self.runtime.block_on(async { timeout(CONNECTION_TIMEOUT, exchange).await.unwrap() })
    }
}

/// Checks consecutive responses: each has a body of its `Content-Length` or, to HEAD, none.
fn check_responses(mut rest: &[u8]) {
    while !rest.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(rest);
        let Ok(httparse::Status::Complete(head)) = parsed else {
            panic!("no response: {parsed:?} in {}", rest.escape_ascii());
        };
        let status = response.code.unwrap();
        assert!(
            [200, 400, 401, 404, 405, 414, 417, 429, 431, 501, 503, 505].contains(&status),
            "{status}"
        );
        let length =
            response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |h| std::str::from_utf8(h.value).unwrap().parse().unwrap());
        let body = rest.split_at(head).1;
        rest = match body.split_at_checked(length) {
            Some((_, after)) if after.is_empty() || after.starts_with(b"HTTP/1.") => after,
            _ => {
                assert!(body.is_empty() || body.starts_with(b"HTTP/1."), "incomplete body");
                body
            }
        };
    }
}

/// A snapshot with one GPU.
fn snapshot() -> Snapshot {
    let selection = Arc::new(Selection::of(&preset(&Dialect::Ack), SelectionScope::default()));
    let readings = vec![Ok(1.0); selection.device.len()];
    let labels = Labels::from_pairs([("gpu", "0")].into_iter());
    Snapshot {
        at: Moment { mono: Duration::ZERO, wall_us: 0 },
        identity: NodeIdentity::default(),
        selection,
        nodes: Vec::new(),
        device_usages: Vec::new(),
        tables: Tables { devices: vec![Entity { labels, readings }], ..Tables::default() },
        health: ExporterHealth { cycles: 1, ..ExporterHealth::default() },
    }
}
