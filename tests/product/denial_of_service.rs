//! Denial of service: many malicious clients at a time neither delay scrapes nor increase memory.

#![expect(clippy::disallowed_methods, reason = "a test measures how long a scrape takes")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::exporter::{Exporter, Response, value};
use crate::web_fixture::{KeepAlive, TLS, WebFixture};

/// Timeout of the tests, which is only reached by a hang. Tests that are not about the timeouts of the
/// exporter set those far above it, so that a response shows that no timeout was needed.
const TIMEOUT: Duration = Duration::from_secs(60);
const LONG_TIMEOUTS: [&str; 2] = ["--web-read-timeout=1h", "--web-write-timeout=1h"];
/// Scrape timeout of Prometheus by default.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum growth of memory during an attack, in bytes.
const GROWTH_MAX: u64 = 8 << 20;

const ATTACKER: &str = "127.0.0.1";
const SCRAPER: &str = "127.0.0.2";

/// Connects from a local address.
fn connect(from: &str, to: &str) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (from, to) = (format!("{from}:0").parse::<SocketAddr>().unwrap(), to.parse().unwrap());
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(from)?;
        socket.connect(to).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

pub(crate) fn send(from: &str, to: &str, request: &str) -> io::Result<Response> {
    let mut stream = connect(from, to)?;
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    if response.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Response::parse(&response))
}

const SCRAPE: &str =
    "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";

/// Threads that attack until this is dropped.
struct Attack {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Repeats `act` on so many threads; its arguments are the number of the thread and whether to stop.
    fn on(threads: usize, act: impl Fn(usize, &AtomicBool) + Clone + Send + 'static) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let start = |n| {
            let (stopped, act) = (Arc::clone(&stopped), act.clone());
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    act(n, &stopped);
                }
            })
        };
        let threads = (0..threads).map(start).collect();
        Self { stopped, threads }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A field of `/proc/<pid>/status`, in bytes.
fn memory(exporter: &Exporter, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// The peak of resident memory in bytes while `act` ran, and its result.
fn peak<T>(exporter: &Exporter, act: impl FnOnce() -> T) -> (u64, T) {
    // Resets VmHWM.
    fs::write(format!("/proc/{}/clear_refs", exporter.pid()), "5").unwrap();
    let result = act();
    (memory(exporter, "VmHWM"), result)
}

/// Scrapes from the address `from` during the attack: every scrape succeeds, most in time, and
/// peak memory hardly grows.
fn withstands(what: &str, exporter: &Exporter, from: &str, attack: impl FnOnce() -> Attack) {
    let scrape = || {
        thread::sleep(Duration::from_millis(50));
        let started = Instant::now();
        let response =
            send(from, exporter.address(), SCRAPE).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(response.status, 200, "{what}: {}", response.text());
        started.elapsed()
    };
    let scrapes = |count| (0..count).map(|_| scrape()).collect::<Vec<Duration>>();
    let (before, _) = peak(exporter, || scrapes(40));
    let (during, mut times) = peak(exporter, || {
        let _attack = attack();
        scrapes(40)
    });
    times.sort_unstable();
    let median = times[times.len() / 2];
    let growth = during.saturating_sub(before);
    assert!(median < SCRAPE_TIMEOUT, "{what}: {times:?}");
    assert!(growth < GROWTH_MAX, "{what}: {growth} bytes more than {before}");
}

/// An exporter with scrape responses of some hundred KiB and two cycles per second.
fn exporter(flags: &[&str]) -> Exporter {
    let base = ["--mock=demo", "--collect-interval=500"];
    let exporter = Exporter::start(&[&base, &LONG_TIMEOUTS[..], flags].concat());
    exporter.wait_for("processes", |text| text.contains("DCGM_CUSTOM_PROCESS_MEM_USED{"));
    exporter
}

fn refused(exporter: &Exporter, reason: &str) -> f64 {
    let response = send(SCRAPER, exporter.address(), &SCRAPE.replace("gzip", "identity")).unwrap();
    let label = format!("reason=\"{reason}\"");
    value(&response.text(), "nvml_exporter_http_refused_total", &[&label]).unwrap_or_default()
}

fn wait_for_refused(exporter: &Exporter, reason: &str, at_least: f64) {
    let deadline = Instant::now() + TIMEOUT;
    while refused(exporter, reason) < at_least {
        assert!(Instant::now() < deadline, "{reason}: {}", refused(exporter, reason));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_thousand_half_open_connections() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    let mut held = Vec::new();
    withstands("half-open", &exporter, ATTACKER, || {
        held.extend((0..1000).filter_map(|_| connect(ATTACKER, &address).ok()));
        Attack::on(0, |_, _| {})
    });
    wait_for_refused(&exporter, "cap", 900.0);
    drop(held);
    // The same repeatedly, with scrapes from another address.
    withstands("reconnecting", &exporter, SCRAPER, || {
        Attack::on(4, move |_, _| {
            let held: Vec<_> = (0..100).map(|_| connect(ATTACKER, &address)).collect();
            drop(held);
        })
    });
}

#[test]
fn slow_headers() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("slow headers", &exporter, SCRAPER, || {
        Attack::on(100, move |_, _| {
            let Ok(mut slow) = connect(ATTACKER, &address) else { return };
            for byte in "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: 1234567890".bytes() {
                thread::sleep(Duration::from_millis(40));
                if slow.write_all(&[byte]).is_err() {
                    return;
                }
            }
        })
    });
}

#[test]
fn incomplete_head_ends_the_connection_after_the_read_timeout() {
    let exporter =
        Exporter::start(&["--mock=idle-t4", "--collect-interval=200", "--web-read-timeout=1s"]);
    let mut slow = connect(ATTACKER, exporter.address()).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost").unwrap();
    let mut response = Vec::new();
    slow.read_to_end(&mut response).unwrap();
    assert!(response.is_empty(), "{response:?}");
    wait_for_refused(&exporter, "read_deadline", 1.0);
    // A connection without a request is closed as well, but not counted.
    let mut silent = connect(ATTACKER, exporter.address()).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(refused(&exporter, "read_deadline") < 2.0);
}

#[test]
fn idle_connection_outlives_the_read_timeout() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--web-read-timeout=1s"]);
    let mut kept = KeepAlive(connect(SCRAPER, exporter.address()).unwrap());
    assert_eq!(kept.get("/healthz", "").unwrap().status, 200);
    // This one was opened later, and is closed after the read timeout.
    let mut silent = connect(ATTACKER, exporter.address()).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!(kept.get("/healthz", "").unwrap().status, 200);
}

#[test]
fn idle_connections_of_one_client_end_no_others() {
    let exporter = exporter(&[]);
    let mut scraper = KeepAlive(connect(SCRAPER, exporter.address()).unwrap());
    assert_eq!(scraper.get("/metrics", "").unwrap().status, 200);
    let held: Vec<_> = (0..300)
        .map(|_| {
            let mut idle = KeepAlive(connect(ATTACKER, exporter.address()).unwrap());
            assert_eq!(idle.get("/healthz", "").unwrap().status, 200);
            idle
        })
        .collect();
    wait_for_refused(&exporter, "cap", 200.0);
    assert_eq!(scraper.get("/metrics", "").unwrap().status, 200, "on the same connection");
    assert_eq!(send(SCRAPER, exporter.address(), SCRAPE).unwrap().status, 200);
    drop(held);
}

/// Sends many scrapes and reads one byte at a time.
fn read_slowly(address: &str, stopped: &AtomicBool) {
    let Ok(mut slow) = connect(ATTACKER, address) else { return };
    let _ = slow.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300).as_bytes());
    let mut byte = [0; 1];
    while !stopped.load(Ordering::Relaxed) && matches!(slow.read(&mut byte), Ok(1)) {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn slow_readers() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("slow readers", &exporter, SCRAPER, || {
        Attack::on(100, move |_, stopped| read_slowly(&address, stopped))
    });
    wait_for_refused(&exporter, "cap", 1.0);
}

#[test]
fn slow_readers_of_many_large_responses() {
    let exporter = exporter(&["--mock=huge", "--collect-interval=100"]);
    let address = exporter.address().to_owned();
    withstands("slow readers of large responses", &exporter, SCRAPER, || {
        // They start one after another, so that each holds the response of another cycle.
        let attack = Attack::on(60, move |n, stopped| {
            thread::sleep(Duration::from_millis(u64::try_from(n).unwrap() * 50));
            read_slowly(&address, stopped);
        });
        thread::sleep(Duration::from_secs(2));
        attack
    });
    wait_for_refused(&exporter, "old_page", 1.0);
}

#[test]
fn slow_readers_at_the_address_of_the_scraper_are_evicted() {
    let exporter = exporter(&[]);
    let slow: Vec<_> = (0..100)
        .filter_map(|_| {
            let mut slow = connect(ATTACKER, exporter.address()).ok()?;
            let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300);
            let _ = slow.write_all(requests.as_bytes());
            Some(slow)
        })
        .collect();
    let deadline = Instant::now() + TIMEOUT;
    let response = loop {
        match send(ATTACKER, exporter.address(), SCRAPE) {
            Ok(response) if response.status == 200 => break response,
            Ok(response) => assert_eq!(response.status, 503, "too many connections"),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "no connection was evicted");
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    drop(slow);
}

#[test]
fn endless_heads_and_bodies() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("oversized", &exporter, SCRAPER, || {
        Attack::on(32, move |n, stopped| {
            let Ok(mut stream) = connect(ATTACKER, &address) else { return };
            let start = match n % 4 {
                0 => "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ",
                1 => "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
                2 => {
                    "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
                }
                _ => "GET /",
            };
            let _ = stream.write_all(start.as_bytes());
            while !stopped.load(Ordering::Relaxed) && stream.write_all(&[b'x'; 8 << 10]).is_ok() {}
        })
    });
    wait_for_refused(&exporter, "malformed", 1.0);
}

#[test]
fn invalid_requests() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("invalid requests", &exporter, SCRAPER, || {
        Attack::on(16, move |n, _| {
            let Ok(mut stream) = connect(ATTACKER, &address) else { return };
            let mut random = fastrand::Rng::with_seed(n as u64);
            let invalid: Vec<u8> = match n % 4 {
                0 => (0..4096).map(|_| random.u8(..)).collect(),
                1 => "GET / HTTP/9.9\r\n\r\n".repeat(50).into_bytes(),
                2 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
                _ => "GET / HTTP/1.1\r\n".to_owned().into_bytes().repeat(300),
            };
            let _ = stream.write_all(&invalid);
            let _ = stream.read(&mut [0; 1024]);
        })
    });
    wait_for_refused(&exporter, "malformed", 1.0);
}

#[test]
fn unfinished_tls_handshakes() {
    let site = WebFixture::new();
    let exporter = site.start(TLS, &LONG_TIMEOUTS);
    let scrape = || site.get(&exporter, "/metrics", None);
    let scrapes = || {
        let scrape = |_| {
            let started = Instant::now();
            assert_eq!(scrape().unwrap().0.status, 200);
            started.elapsed()
        };
        (0..20).map(scrape).collect::<Vec<Duration>>()
    };
    exporter.wait_for_log("GPU is up");
    while scrape().unwrap().0.status == 503 {
        thread::sleep(Duration::from_millis(50));
    }
    let (before, _) = peak(&exporter, scrapes);
    // The header of a record of 16 KiB with a ClientHello, and its first bytes.
    let hello = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03";
    let (during, (silent, mut times)) = peak(&exporter, || {
        let silent: Vec<_> = (0..1000)
            .filter_map(|n| {
                let mut stream = connect(ATTACKER, exporter.address()).ok()?;
                if n % 2 == 0 {
                    stream.write_all(hello).ok()?;
                }
                Some(stream)
            })
            .collect();
        (silent, scrapes())
    });
    times.sort_unstable();
    assert!(times[10] < SCRAPE_TIMEOUT, "{times:?}");
    let growth = during.saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes more than {before}");
    // The connections that were not evicted end by the handshake timeout.
    let refused = |text: &str| {
        value(text, "nvml_exporter_http_refused_total", &["reason=\"handshake\""])
            .unwrap_or_default()
    };
    let deadline = Instant::now() + TIMEOUT;
    while refused(&scrape().unwrap().0.text()) < 20.0 {
        assert!(Instant::now() < deadline, "handshakes do not time out");
        thread::sleep(Duration::from_millis(100));
    }
    drop(silent);
}

#[test]
fn connections_leave_file_descriptors_for_reading() {
    // About thirty are open before the first connection, so there are fewer left than connections.
    let flags = ["--mock=shared-l20", "--collect-interval=200", "--web-read-timeout=1h"];
    let exporter = Exporter::with_file_limit(48, &flags);
    let complete =
        |text: &str| text.contains("PodName=\"") && text.contains("DCGM_FI_DEV_GPU_UTIL{");
    exporter.wait_for("pods", complete);
    let held: Vec<_> =
        (0..200).filter_map(|_| connect(ATTACKER, exporter.address()).ok()).collect();
    for _ in 0..20 {
        let response =
            send(SCRAPER, exporter.address(), &SCRAPE.replace("gzip", "identity")).unwrap();
        assert!(complete(&response.text()), "reading /proc needs file descriptors");
    }
    wait_for_refused(&exporter, "cap", 100.0);
    drop(held);
}

#[test]
fn connections_wait_while_the_limit_of_open_files_is_reached() {
    let exporter = exporter(&[]);
    let limit = |files: u64| {
        let limit = Rlimit { current: Some(files), maximum: Some(1024) };
        let pid = Pid::from_raw(i32::try_from(exporter.pid()).unwrap());
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    limit(8);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(ATTACKER, exporter.address()).unwrap();
            stream.write_all(SCRAPE.as_bytes()).unwrap();
            stream
        })
        .collect();
    exporter.wait_for_log("no connection accepted");
    // Several attempts later there is still no response and only one log line.
    thread::sleep(Duration::from_secs(1));
    limit(1024);
    for mut stream in waiting {
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        assert_eq!(Response::parse(&response).status, 200);
    }
    wait_for_refused(&exporter, "files", 3.0);
    exporter.wait_for("processes again", |text| text.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"));
    let log = exporter.log();
    assert_eq!(log.matches("no connection accepted").count(), 1, "{log}");
    assert!(log.contains("connections are accepted again"), "{log}");
}

#[test]
fn send_buffers_for_slow_readers_are_small() {
    let exporter = exporter(&["--mock=huge"]);
    let mut slow = connect(ATTACKER, exporter.address()).unwrap();
    slow.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).unwrap();
    // Unacknowledged data is in the server's send buffers, which are charged to the pod's memory.
    let port = exporter.address().rsplit_once(':').unwrap().1.to_owned();
    let queued = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!(":{:04X} ", port.parse::<u16>().unwrap());
        let queues = table.lines().filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let ours = format!("{} ", columns[1]).ends_with(&local) && columns[3] == "01";
            ours.then(|| u64::from_str_radix(columns[4].split_once(':').unwrap().0, 16).unwrap())
        });
        queues.max().unwrap_or_default()
    };
    let deadline = Instant::now() + TIMEOUT;
    while queued() < 50_000 {
        assert!(Instant::now() < deadline, "{} bytes", queued());
        thread::sleep(Duration::from_millis(50));
    }
    let peak = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(50));
        queued()
    });
    let peak = peak.max().unwrap_or_default();
    // The kernel doubles the 128 KiB set and exceeds that by its last segment; its default is 4 MiB.
    assert!(peak < 1 << 20, "{peak}");
}

#[test]
fn guessed_passwords_do_not_delay_scrapes() {
    let site = WebFixture::new();
    // One check takes about a second of CPU time.
    let slow = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$13$");
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {slow}\n"), &LONG_TIMEOUTS);
    let address = exporter.address().to_owned();
    let guess = |from: &str, user: &str, password: &str| {
        let sent = STANDARD.encode(format!("{user}:{password}"));
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\nConnection: close\r\n\r\n"
        );
        send(from, &address, &request)
    };
    let guesses: Vec<_> = (0..50)
        .map(|n| {
            let mut stream = connect(ATTACKER, &address).unwrap();
            let sent = STANDARD.encode(format!("alice:{n}"));
            write!(
                stream,
                "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\n\r\n"
            )
            .unwrap();
            stream
        })
        .collect();
    // Fifty guesses were sent before, but this request waits for at most two checks.
    let other = guess(SCRAPER, "alice", "other").unwrap();
    assert_eq!(other.status, 401);
    let responses = guesses
        .iter()
        .filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0; 1]).is_ok()
        })
        .count();
    assert!(responses < 25, "{responses} guesses were checked before");
    // A request without credentials does not wait.
    assert_eq!(exporter.get("/healthz").status, 200);
    drop(guesses);
}

#[test]
fn known_and_unknown_users_are_refused_alike() {
    let site = WebFixture::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {hash}\n"), &["--debug"]);
    let response = |user: &str| {
        let sent = STANDARD.encode(format!("{user}:hunter2"));
        let mut stream = connect(ATTACKER, exporter.address()).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let is_not_date = |line: &&str| !line.to_lowercase().starts_with("date:");
        response.lines().filter(is_not_date).collect::<Vec<_>>().join("\n")
    };
    assert!(response("alice").starts_with("HTTP/1.1 401"));
    assert_eq!(response("alice"), response("mallory"));
    let log = exporter.log();
    for secret in ["alice", "mallory", "hunter2", &hash] {
        assert!(!log.contains(secret), "{log}");
    }
}
