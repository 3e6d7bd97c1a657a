//! A scrape of a page that is ready, against a server that does nothing but answer the same bytes.

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
use nvml_exporter::render::Part;
use nvml_exporter::serve::{Site, Timeouts, Web, serve};
use nvml_exporter::web_config::WebConfig;
use tokio::sync::watch;

use crate::allocations;
use crate::node::{Node, Size};

/// Eight GPUs, which is about a thousand series.
const NODE: Size = Size { gpus: 8, processes: 64, pods: 30 };
const REQUEST: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: node-1:9400\r\nAccept-Encoding: gzip\r\n\r\n";
/// Scrapes of one turn; both servers have as many turns, one after the other.
const SCRAPES: usize = 2000;
const TURNS: usize = 5;

/// A server with a thread of its own.
struct Server {
    address: SocketAddr,
    /// Where the kernel tells for how long the thread has run.
    ran: String,
}

impl Server {
    fn start<S: Future<Output = ()>>(
        serve: impl FnOnce(tokio::net::TcpListener) -> S + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let thread = rustix::thread::gettid().as_raw_nonzero();
            tell.send(format!("/proc/self/task/{thread}/schedstat")).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                serve(tokio::net::TcpListener::from_std(listener).unwrap()).await;
            });
        });
        Self { address, ran: told.recv().unwrap() }
    }

    /// Time on a processor so far.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(&self.ran).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// So many scrapes over one connection: what each took of the server, and how long the client
    /// waited for them.
    fn scrapes(&self, times: &mut Vec<Duration>) -> Taken {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client { buffer: vec![0; 64 << 10], head: Vec::with_capacity(64 << 10) };
        times.reserve(SCRAPES);
        let before = self.cpu();
        let allocated = allocations::count(|| {
            for _ in 0..SCRAPES {
                let begun = now();
                stream.write_all(REQUEST).unwrap();
                client.receive(&mut stream);
                times.push(begun.elapsed());
            }
        });
        let cpu = self.cpu().saturating_sub(before) / u32::try_from(SCRAPES).unwrap();
        Taken { cpu, allocations: allocated / SCRAPES }
    }
}

#[expect(clippy::disallowed_methods, reason = "it takes the time of something")]
fn now() -> Instant {
    Instant::now()
}

/// What a scrape takes of a server.
#[derive(Clone, Copy)]
struct Taken {
    cpu: Duration,
    allocations: usize,
}

/// A client that allocates nothing itself, so that what is allocated is the server's.
struct Client {
    buffer: Vec<u8>,
    head: Vec<u8>,
}

impl Client {
    /// Reads one response to its end.
    fn receive(&mut self, stream: &mut TcpStream) {
        let Self { buffer, head } = self;
        head.clear();
        let mut left = loop {
            let n = stream.read(buffer).unwrap();
            head.extend_from_slice(buffer.get(..n).unwrap());
            let find = |what: &[u8]| head.windows(what.len()).position(|window| window == what);
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

fn ours(published: Published) -> Server {
    let (publish, published) = watch::channel(Some(Arc::new(published)));
    Server::start(async move |listener| {
        let timeouts = Timeouts { read: Duration::from_secs(60), write: Duration::from_secs(60) };
        let web = Web { config: WebConfig::default(), file: None, timeouts };
        let site = Site {
            published,
            max_age: Duration::MAX,
            clock: Clock::start(),
            own_path: None,
            landing: true,
            refused: Arc::default(),
        };
        serve(listener, site, web, pending()).await;
        drop(publish);
    })
}

/// Answers every request with these bytes under these headers.
fn bare(headers: HeaderMap, body: Bytes) -> Server {
    Server::start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = |_: Request<hyper::body::Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().clone_from(&headers);
                async { Ok::<_, Infallible>(response) }
            };
            let connection = http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
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

/// Prints what a scrape costs here and there.
#[expect(clippy::print_stdout, reason = "this is the report")]
pub(crate) fn tell() {
    let node = Node::new(NODE);
    let published = || Published::new(node.attribute(node.sample()));
    let body = published().page(Part::Whole, Duration::ZERO, Duration::MAX, true);
    let bytes = body.len();
    let (ours, bare) = (ours(published()), bare(headers(), body));
    let mut spent = [Taken { cpu: Duration::MAX, allocations: 0 }; 2];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for ((server, least), times) in [&ours, &bare].into_iter().zip(&mut spent).zip(&mut times) {
            let taken = server.scrapes(times);
            *least = if taken.cpu < least.cpu { taken } else { *least };
        }
    }
    println!("scrape of {NODE}: {bytes} bytes of gzip, keep-alive");
    for ((name, spent), mut times) in
        ["nvml-exporter", "bare hyper"].into_iter().zip(spent).zip(times)
    {
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 1000).unwrap();
        let Taken { cpu, allocations } = spent;
        println!(
            "{name}: {cpu:?} of processor, {allocations} allocations, p50 {:?}, p99 {:?}",
            at(500),
            at(990)
        );
    }
    let [ours, bare] = spent.map(|spent| spent.cpu.as_secs_f64());
    println!("nvml-exporter / bare hyper: {:.2}", ours / bare);
}
