//! Cost of a scrape of a published snapshot, compared with a bare hyper server that returns the same bytes.

use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nvml_exporter::clock::Clock;
use nvml_exporter::publish::Published;
use nvml_exporter::render::PageScope;
use nvml_exporter::serve::routes::Routes;
use nvml_exporter::serve::{AppState, Timeouts, serve};
use nvml_exporter::web_config::WebConfig;
use tokio::sync::watch;

use crate::allocations;
use crate::node::{Node, Size};

/// A node with about a thousand series.
const NODE: Size = Size { gpus: 8, processes: 64, pods: 30 };
const REQUEST: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: node-1:9400\r\nAccept-Encoding: gzip\r\n\r\n";
/// Scrapes per round. The servers are measured alternately, for the same number of rounds.
const SCRAPES: usize = 2000;
const ROUNDS: usize = 5;

/// A server on its own thread.
struct Server {
    address: SocketAddr,
    /// Path of the thread's `schedstat` in /proc: the first number is its CPU time in ns.
    schedstat: String,
}

impl Server {
    fn start<S: Future<Output = ()>>(
        serve: impl FnOnce(tokio::net::TcpListener) -> S + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let thread = rustix::thread::gettid().as_raw_nonzero();
            sender.send(format!("/proc/self/task/{thread}/schedstat")).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                serve(tokio::net::TcpListener::from_std(listener).unwrap()).await;
            });
        });
        Self { address, schedstat: receiver.recv().unwrap() }
    }

    /// CPU time of the server's thread since its start.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(&self.schedstat).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// Sends [`SCRAPES`] scrapes over one connection. Returns the server's cost per scrape and appends the
    /// latency of each to `times`.
    fn scrapes(&self, times: &mut Vec<Duration>) -> ScrapeCost {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client { buffer: vec![0; 64 << 10], head: Vec::with_capacity(64 << 10) };
        times.reserve(SCRAPES);
        let before = self.cpu();
        let allocated = allocations::count(|| {
            for _ in 0..SCRAPES {
                let started = now();
                stream.write_all(REQUEST).unwrap();
                client.receive(&mut stream);
                times.push(started.elapsed());
            }
        });
        let cpu = self.cpu().saturating_sub(before) / u32::try_from(SCRAPES).unwrap();
        ScrapeCost { cpu, allocations: allocated / SCRAPES }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures durations")]
fn now() -> Instant {
    Instant::now()
}

/// Cost of one scrape to the server.
#[derive(Clone, Copy)]
struct ScrapeCost {
    cpu: Duration,
    allocations: usize,
}

/// A client that does not allocate, so that all counted allocations are the server's.
struct Client {
    buffer: Vec<u8>,
    head: Vec<u8>,
}

impl Client {
    /// Reads one complete response.
    fn receive(&mut self, stream: &mut TcpStream) {
        let Self { buffer, head } = self;
        head.clear();
        let mut left = loop {
            let n = stream.read(buffer).unwrap();
            head.extend_from_slice(buffer.get(..n).unwrap());
            let find = |text: &[u8]| head.windows(text.len()).position(|window| window == text);
            let Some(end) = find(b"\r\n\r\n") else { continue };
            let length = find(b"content-length: ").unwrap() + b"content-length: ".len();
            let digits = head.get(length..end).unwrap().iter().take_while(|byte| **byte != b'\r');
            let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
            break end + 4 + length - head.len();
        };
        while left > 0 {
            left -= stream.read(buffer).unwrap();
        }
    }
}

fn exporter(published: Published) -> Server {
    let (publish, published) = watch::channel(Some(Arc::new(published)));
    Server::start(async move |listener| {
        let timeouts = Timeouts { read: Duration::from_secs(60), write: Duration::from_secs(60) };
        let site = AppState {
            published,
            max_age: Duration::MAX,
            liveness_max_age: Duration::MAX,
            clock: Clock::start(),
            routes: Routes {
                telemetry_path: None,
                own_path: None,
                are_own_on_metrics: true,
                landing: true,
            },
            timeouts,
            rejected: Arc::default(),
            web_config_health: Arc::default(),
        };
        serve(vec![listener], site, WebConfig::default(), pending()).await;
        drop(publish);
    })
}

/// Starts a hyper server that returns these headers and bytes for every request.
fn bare_hyper(headers: HeaderMap, body: Bytes) -> Server {
    Server::start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let respond = |_: Request<hyper::body::Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().clone_from(&headers);
                async { Ok::<_, Infallible>(response) }
            };
            let connection = http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(respond)).await;
        }
    })
}

fn headers() -> HeaderMap {
    let pairs = [
        ("content-type", "text/plain; version=0.0.4; charset=utf-8"),
        ("content-encoding", "gzip"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("vary", "Accept-Encoding"),
    ];
    pairs.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Prints the cost of a scrape of both servers.
#[expect(clippy::print_stdout, reason = "prints the report")]
pub(crate) fn report() {
    let node = Node::new(NODE);
    let published = || Published::new(node.attribute(node.sample()));
    let body = published().exposition(PageScope::All, Duration::ZERO, Duration::MAX, true);
    let bytes = body.len();
    let (exporter, bare_hyper) = (exporter(published()), bare_hyper(headers(), body));
    let mut spent = [ScrapeCost { cpu: Duration::MAX, allocations: 0 }; 2];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((server, least), times) in
            [&exporter, &bare_hyper].into_iter().zip(&mut spent).zip(&mut times)
        {
            let cost = server.scrapes(times);
            *least = if cost.cpu < least.cpu { cost } else { *least };
        }
    }
    println!("scrape of {NODE}: {bytes} bytes of gzip, keep-alive");
    for ((name, spent), mut times) in
        ["nvml-exporter", "bare hyper"].into_iter().zip(spent).zip(times)
    {
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 1000).unwrap();
        let ScrapeCost { cpu, allocations } = spent;
        println!(
            "{name}: {cpu:?} CPU time, {allocations} allocations, p50 {:?}, p99 {:?}",
            at(500),
            at(990)
        );
    }
    let [exporter, bare_hyper] = spent.map(|spent| spent.cpu.as_secs_f64());
    println!("nvml-exporter / bare hyper: {:.2}", exporter / bare_hyper);
}
