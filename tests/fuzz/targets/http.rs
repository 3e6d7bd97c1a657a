//! HTTP, on a real connection.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::labels::{Dialect, Labels};
use nvml_exporter::model::Moment;
use nvml_exporter::publish::Published;
use nvml_exporter::selection::{Frame, Selection, preset};
use nvml_exporter::serve::{Site, Timeouts, Web, serve};
use nvml_exporter::snapshot::{Entity, Health, Host, Snapshot, Tables};
use nvml_exporter::web_config::WebConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

/// A client that waits longer than this has been forgotten.
const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUTS: Timeouts = Timeouts { read: Duration::from_secs(2), write: Duration::from_secs(2) };

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    /// Kept, or there would be no page.
    _publish: watch::Sender<Option<Arc<Published>>>,
    /// A client's ports are used up in a moment, its addresses are not.
    clients: Cell<u32>,
}

/// Whatever is sent, whole responses come back or none and the connection ends; whoever comes next is
/// answered.
pub(crate) fn check(bytes: &[u8]) {
    thread_local! {
        static SERVER: Server = Server::start();
    }
    SERVER.with(|server| {
        whole_responses(&server.send(bytes, true));
        let ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let next = server.send(ask, false);
        assert!(next.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", next.escape_ascii());
    });
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (publish, published) = watch::channel(Some(Arc::new(Published::new(snapshot()))));
        let site = Site {
            published,
            max_age: Duration::from_secs(3600),
            clock: Clock::start(),
            own_path: None,
            landing: true,
            refused: Arc::default(),
        };
        let web = Web { config: WebConfig::default(), file: None, timeouts: TIMEOUTS };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, site, web, std::future::pending()));
        Self { runtime, address, _publish: publish, clients: Cell::new(0) }
    }

    /// What comes back, to the end; a client that `hangs_up` says that it will ask nothing more.
    fn send(&self, bytes: &[u8], hangs_up: bool) -> Vec<u8> {
        let number = self.clients.replace(self.clients.get() + 1) % 0x00FF_FFF0;
        let client = Ipv4Addr::from(0x7F00_0002 + number);
        let talk = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(IpAddr::V4(client), 0)).unwrap();
            let mut stream = socket.connect(self.address).await.unwrap();
            let (mut from, mut to) = stream.split();
            // Who is refused may hear so before having said everything, and the rest is lost.
            let send = async {
                let _sent = to.write_all(bytes).await;
                // A request on whose heels the end comes need not be answered.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                if hangs_up {
                    let _ended = to.shutdown().await;
                }
            };
            let mut heard = Vec::new();
            let hear = async {
                let _reset = from.read_to_end(&mut heard).await;
            };
            tokio::join!(send, hear);
            heard
        };
        self.runtime.block_on(async { timeout(PATIENCE, talk).await.unwrap() })
    }
}

/// Responses one after the other, each with the body that its head promises or, to HEAD, without one.
fn whole_responses(mut rest: &[u8]) {
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
                assert!(body.is_empty() || body.starts_with(b"HTTP/1."), "half a body");
                body
            }
        };
    }
}

/// The page of one GPU.
fn snapshot() -> Snapshot {
    let selection = Arc::new(Selection::of(&preset(&Dialect::Ack), Frame::default()));
    let readings = vec![Ok(1.0); selection.device.len()];
    let labels = Labels::of([("gpu", "0")].into_iter());
    Snapshot {
        at: Moment { mono: Duration::ZERO, wall_us: 0 },
        host: Host::default(),
        selection,
        nodes: Vec::new(),
        occupancy: Vec::new(),
        tables: Tables { devices: vec![Entity { labels, readings }], ..Tables::default() },
        health: Health { cycles: 1, ..Health::default() },
    }
}
