//! Addresses, sockets and connections of the HTTP server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::denial_of_service::send;
use crate::exporter::{Exporter, run_with, value};

const TIMEOUT: Duration = Duration::from_secs(60);

const PROBE: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Opens a connection that sends scrapes and reads nothing.
fn unread(exporter: &Exporter) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    // More responses than fit into the socket buffers.
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    let _ = stream.write_all(request.as_bytes());
    stream
}

#[test]
fn client_that_does_not_read_is_disconnected_after_the_write_timeout() {
    let flags = ["--mock=huge", "--collect-interval=500", "--web-write-timeout=500ms"];
    let exporter = Exporter::start(&flags);
    exporter.wait_for("processes", |text| text.len() > 100_000);
    let unread: Vec<_> = (0..4).map(|_| unread(&exporter)).collect();
    exporter.wait_for("write timeouts", |text| {
        value(text, "nvml_exporter_http_refused_total", &["reason=\"write_deadline\""]) >= Some(4.0)
    });
    drop(unread);
}

#[test]
fn idle_connections_are_evicted_at_the_connection_limit() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--collect-interval=200"]);
    exporter.wait_for("a GPU", |text| text.contains("DCGM_FI_DEV_GPU_UTIL"));
    let silent: Vec<_> =
        (0..300).filter_map(|_| TcpStream::connect(exporter.address()).ok()).collect();
    assert!(exporter.metrics().contains("DCGM_FI_DEV_GPU_UTIL"), "a scrape succeeds");
    exporter.wait_for("evictions", |text| {
        value(text, "nvml_exporter_http_refused_total", &["reason=\"cap\""]) > Some(100.0)
    });
    drop(silent);
}

#[test]
fn invalid_and_oversized_requests_are_refused() {
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for text in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", &long, &many] {
        let mut stream = TcpStream::connect(exporter.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 4"), "{response:?}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}

#[test]
fn sockets_passed_by_systemd_are_used() {
    let output = run_with(&[], &["--mock=idle-t4", "--web-systemd-socket"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("LISTEN_FDS is not set"), "{error}");

    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let exporter =
        Exporter::socket_activated(listeners, &["--mock=idle-t4", "--web-systemd-socket"]);
    for address in &addresses {
        assert_eq!(send("127.0.0.3", address, PROBE).unwrap().status, 200);
    }
    assert!(Path::new(&format!("/proc/{}", exporter.pid())).exists());
}

#[test]
fn every_address_is_served() {
    // The exporter is started with another address already; one is given twice.
    let [first, second] =
        ["127.0.0.2:0", "127.0.0.4:0"].map(|address| format!("--address={address}"));
    let exporter = Exporter::start(&["--mock=idle-t4", &first, &second, &second]);
    // All are logged before the first response.
    assert_eq!(exporter.get("/healthz").status, 200);
    let log = exporter.log();
    let served: Vec<&str> =
        log.lines().filter_map(|line| Some(line.split_once("serving address=")?.1)).collect();
    assert_eq!(served.len(), 3, "{log}");
    for address in served {
        assert_eq!(send("127.0.0.3", address, PROBE).unwrap().status, 200, "{address}");
    }
    // One that cannot be used is an error, not a warning.
    let used = format!("--address={}", exporter.address());
    let output = run_with(&[], &["--mock=idle-t4", "--address=127.0.0.1:0", &used]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("another program listens"), "{error}");
}
