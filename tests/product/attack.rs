//! Clients who mean no good, many at a time: the others are served as before, and memory stays bounded.

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
use crate::web::{Site, TLS};

/// Only a hang reaches it. Flags below set every deadline of the exporter far beyond it, where a test
/// is not about that deadline: what is answered was not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const ENDLESS: [&str; 2] = ["--web-read-timeout=1h", "--web-write-timeout=1h"];
/// What an attack may cost.
const GROWTH: u64 = 8 << 20;

const ATTACKER: &str = "127.0.0.1";
const SCRAPER: &str = "127.0.0.2";

/// A connection from an address of this machine.
fn connect(from: &str, to: &str) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (from, to) = (format!("{from}:0").parse::<SocketAddr>().unwrap(), to.parse().unwrap());
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(from)?;
        socket.connect(to).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(from: &str, to: &str, request: &str) -> io::Result<Response> {
    let mut stream = connect(from, to)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Response::parse(&answer))
}

const SCRAPE: &str =
    "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";

/// Something that goes on until it is dropped, on threads of its own.
struct Attack {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Runs `act` again and again on so many threads, each with its number.
    fn on(threads: usize, act: impl Fn(usize, &AtomicBool) + Clone + Send + 'static) -> Self {
        let over = Arc::<AtomicBool>::default();
        let start = |n| {
            let (over, act) = (Arc::clone(&over), act.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    act(n, &over);
                }
            })
        };
        let threads = (0..threads).map(start).collect();
        Self { over, threads }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
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

/// The highest that memory was while `act` ran.
fn peak<T>(exporter: &Exporter, act: impl FnOnce() -> T) -> (u64, T) {
    // The kernel's mark begins anew.
    fs::write(format!("/proc/{}/clear_refs", exporter.pid()), "5").unwrap();
    let done = act();
    (memory(exporter, "VmHWM"), done)
}

/// Scrapes while `attack` goes on: every scrape comes through, most within a second, and no memory is
/// lost to the attackers, at any time. `scrapes` go out from `from`.
fn withstands(what: &str, exporter: &Exporter, from: &str, attack: impl FnOnce() -> Attack) {
    let scrape = || {
        thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        let answer =
            ask(from, exporter.address(), SCRAPE).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        began.elapsed()
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
    assert!(median < Duration::from_secs(1), "{what}: {times:?}");
    assert!(growth < GROWTH, "{what}: {growth} bytes more than {before}");
}

/// An exporter with pages of some hundred KiB, twice a second.
fn exporter(flags: &[&str]) -> Exporter {
    let ours = ["--mock=demo", "--collect-interval=500"];
    let exporter = Exporter::start(&[&ours, &ENDLESS[..], flags].concat());
    exporter.wait_for("a page", |page| page.contains("DCGM_CUSTOM_PROCESS_MEM_USED{"));
    exporter
}

fn counted(exporter: &Exporter, reason: &str) -> f64 {
    let answer = ask(SCRAPER, exporter.address(), &SCRAPE.replace("gzip", "identity")).unwrap();
    let label = format!("reason=\"{reason}\"");
    value(&answer.text(), "nvml_exporter_http_refused_total", &[&label]).unwrap_or_default()
}

fn until_counted(exporter: &Exporter, reason: &str, at_least: f64) {
    let deadline = Instant::now() + PATIENCE;
    while counted(exporter, reason) < at_least {
        assert!(Instant::now() < deadline, "{reason}: {}", counted(exporter, reason));
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
    until_counted(&exporter, "cap", 900.0);
    drop(held);
    // The same again and again, while somebody else scrapes.
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
fn a_head_that_does_not_arrive_is_waited_for_as_long_as_is_said() {
    let exporter =
        Exporter::start(&["--mock=idle-t4", "--collect-interval=200", "--web-read-timeout=1s"]);
    let mut slow = connect(ATTACKER, exporter.address()).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost").unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "{answer:?}");
    until_counted(&exporter, "read_deadline", 1.0);
    // An idle connection that has had its answer ends without a word.
    let mut idle = connect(ATTACKER, exporter.address()).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    idle.read_to_end(&mut answer).unwrap();
    assert_eq!(Response::parse(&answer).status, 200);
    assert!(counted(&exporter, "read_deadline") < 2.0);
}

/// Asks for page after page and takes next to nothing of them.
fn read_slowly(address: &str, over: &AtomicBool) {
    let Ok(mut deaf) = connect(ATTACKER, address) else { return };
    let _ = deaf.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300).as_bytes());
    let mut byte = [0; 1];
    while !over.load(Ordering::Relaxed) && matches!(deaf.read(&mut byte), Ok(1)) {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn slow_readers() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("slow readers", &exporter, SCRAPER, || {
        Attack::on(100, move |_, over| read_slowly(&address, over))
    });
    until_counted(&exporter, "cap", 1.0);
}

#[test]
fn slow_readers_of_many_large_pages() {
    let exporter = exporter(&["--mock=huge", "--collect-interval=100"]);
    let address = exporter.address().to_owned();
    withstands("slow readers of large pages", &exporter, SCRAPER, || {
        // They come one after another, so that each holds a page of another cycle.
        let attack = Attack::on(60, move |n, over| {
            thread::sleep(Duration::from_millis(u64::try_from(n).unwrap() * 50));
            read_slowly(&address, over);
        });
        thread::sleep(Duration::from_secs(2));
        attack
    });
    until_counted(&exporter, "old_page", 1.0);
}

#[test]
fn slow_readers_at_the_scrapers_own_address_make_room_once_they_are_slow() {
    let exporter = exporter(&[]);
    let deaf: Vec<_> = (0..100)
        .filter_map(|_| {
            let mut deaf = connect(ATTACKER, exporter.address()).ok()?;
            let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300);
            let _ = deaf.write_all(requests.as_bytes());
            Some(deaf)
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        match ask(ATTACKER, exporter.address(), SCRAPE) {
            Ok(answer) if answer.status == 200 => break answer,
            Ok(answer) => assert_eq!(answer.status, 503, "and says that it is busy"),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "they hold all places");
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    drop(deaf);
}

#[test]
fn heads_and_bodies_without_end() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("oversized", &exporter, SCRAPER, || {
        Attack::on(32, move |n, over| {
            let Ok(mut stream) = connect(ATTACKER, &address) else { return };
            let begun = match n % 4 {
                0 => "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ",
                1 => "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
                2 => {
                    "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
                }
                _ => "GET /",
            };
            let _ = stream.write_all(begun.as_bytes());
            while !over.load(Ordering::Relaxed) && stream.write_all(&[b'x'; 8 << 10]).is_ok() {}
        })
    });
    until_counted(&exporter, "malformed", 1.0);
}

#[test]
fn garbage() {
    let exporter = exporter(&[]);
    let address = exporter.address().to_owned();
    withstands("garbage", &exporter, SCRAPER, || {
        Attack::on(16, move |n, _| {
            let Ok(mut stream) = connect(ATTACKER, &address) else { return };
            let mut random = fastrand::Rng::with_seed(n as u64);
            let rubbish: Vec<u8> = match n % 4 {
                0 => (0..4096).map(|_| random.u8(..)).collect(),
                1 => "GET / HTTP/9.9\r\n\r\n".repeat(50).into_bytes(),
                2 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
                _ => "GET / HTTP/1.1\r\n".to_owned().into_bytes().repeat(300),
            };
            let _ = stream.write_all(&rubbish);
            let _ = stream.read(&mut [0; 1024]);
        })
    });
    until_counted(&exporter, "malformed", 1.0);
}

#[test]
fn handshakes_that_never_finish() {
    let site = Site::new();
    let exporter = site.start(TLS, &ENDLESS);
    let scrape = || site.get(&exporter, "/metrics", None);
    let scrapes = || {
        let scrape = |_| {
            let began = Instant::now();
            assert_eq!(scrape().unwrap().0.status, 200);
            began.elapsed()
        };
        (0..20).map(scrape).collect::<Vec<Duration>>()
    };
    exporter.wait_for_log("GPU is up");
    while scrape().unwrap().0.status == 503 {
        thread::sleep(Duration::from_millis(50));
    }
    let (before, _) = peak(&exporter, scrapes);
    // A record that announces 16 KiB of a greeting, and its first bytes.
    let greeting = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03";
    let (during, (silent, mut times)) = peak(&exporter, || {
        let silent: Vec<_> = (0..1000)
            .filter_map(|n| {
                let mut stream = connect(ATTACKER, exporter.address()).ok()?;
                if n % 2 == 0 {
                    stream.write_all(greeting).ok()?;
                }
                Some(stream)
            })
            .collect();
        (silent, scrapes())
    });
    times.sort_unstable();
    assert!(times[10] < Duration::from_secs(1), "{times:?}");
    let growth = during.saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes more than {before}");
    // Those that still have a place lose it by the deadline of handshakes.
    let refused = |page: &str| {
        value(page, "nvml_exporter_http_refused_total", &["reason=\"handshake\""])
            .unwrap_or_default()
    };
    let deadline = Instant::now() + PATIENCE;
    while refused(&scrape().unwrap().0.text()) < 20.0 {
        assert!(Instant::now() < deadline, "they are waited for without end");
        thread::sleep(Duration::from_millis(100));
    }
    drop(silent);
}

#[test]
fn no_files_left() {
    // About thirty are open before anybody connects: there are more places than files.
    let flags = ["--mock=shared-l20", "--collect-interval=200", "--web-read-timeout=1h"];
    let exporter = Exporter::with_files(48, &flags);
    let complete =
        |page: &str| page.contains("PodName=\"") && page.contains("DCGM_FI_DEV_GPU_UTIL{");
    exporter.wait_for("a page", complete);
    let held: Vec<_> =
        (0..200).filter_map(|_| connect(ATTACKER, exporter.address()).ok()).collect();
    for _ in 0..20 {
        let answer = ask(SCRAPER, exporter.address(), &SCRAPE.replace("gzip", "identity")).unwrap();
        assert!(complete(&answer.text()), "what is read of processes needs files, too");
    }
    until_counted(&exporter, "cap", 100.0);
    drop(held);
}

#[test]
fn who_comes_while_no_file_is_left_is_answered_once_there_is_one() {
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
    // Several tries, and still no answer and no other word about it.
    thread::sleep(Duration::from_secs(1));
    limit(1024);
    for mut stream in waiting {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(Response::parse(&answer).status, 200);
    }
    until_counted(&exporter, "files", 3.0);
    exporter.wait_for("processes again", |page| page.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"));
    let said = exporter.log();
    assert_eq!(said.matches("no connection accepted").count(), 1, "{said}");
    assert!(said.contains("connections are accepted again"), "{said}");
}

#[test]
fn what_the_system_keeps_for_slow_readers_is_little() {
    let exporter = exporter(&["--mock=huge"]);
    let mut deaf = connect(ATTACKER, exporter.address()).unwrap();
    deaf.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).unwrap();
    // What is not acknowledged lies in the server's buffers, which the pod's memory is charged with.
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
    let deadline = Instant::now() + PATIENCE;
    while queued() < 50_000 {
        assert!(Instant::now() < deadline, "{} bytes", queued());
        thread::sleep(Duration::from_millis(50));
    }
    let most = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(50));
        queued()
    });
    let most = most.max().unwrap_or_default();
    assert!(most < 300_000, "{most}");
}

#[test]
fn guessed_passwords_keep_no_scraper_waiting() {
    let site = Site::new();
    // About a second of one core for each guess.
    let slow = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$13$");
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {slow}\n"), &ENDLESS);
    let address = exporter.address().to_owned();
    let guess = |from: &str, user: &str, password: &str| {
        let sent = STANDARD.encode(format!("{user}:{password}"));
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\nConnection: close\r\n\r\n"
        );
        ask(from, &address, &request)
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
    // Fifty are before it, and it waits for two at the most.
    let other = guess(SCRAPER, "alice", "other").unwrap();
    assert_eq!(other.status, 401);
    let answered = guesses
        .iter()
        .filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0; 1]).is_ok()
        })
        .count();
    assert!(answered < 25, "{answered} of those before it");
    // Whoever asks without a password is not kept waiting at all.
    assert_eq!(exporter.get("/healthz").status, 200);
    drop(guesses);
}

#[test]
fn a_user_that_exists_is_refused_as_one_that_does_not() {
    let site = Site::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {hash}\n"), &["--debug"]);
    let answer = |user: &str| {
        let sent = STANDARD.encode(format!("{user}:hunter2"));
        let mut stream = connect(ATTACKER, exporter.address()).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let date = |line: &&str| !line.to_lowercase().starts_with("date:");
        answer.lines().filter(date).collect::<Vec<_>>().join("\n")
    };
    assert!(answer("alice").starts_with("HTTP/1.1 401"));
    assert_eq!(answer("alice"), answer("mallory"));
    let said = exporter.log();
    for secret in ["alice", "mallory", "hunter2", &hash] {
        assert!(!said.contains(secret), "{said}");
    }
}
