//! What a scraper, a probe and a browser get.

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::read::GzDecoder;

use crate::exporter::{Exporter, Response, Scenario, series, value};

fn exporter() -> Exporter {
    let exporter = Exporter::start(&["--mock=idle-t4", "--collect-interval", "3600000"]);
    exporter.wait_for("series", |page| page.contains("DCGM_FI_DEV_GPU_UTIL{"));
    exporter
}

#[test]
fn metrics_are_text_whatever_is_accepted() {
    let exporter = exporter();
    let plain = exporter.request(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(plain.header("content-length"), Some(plain.body.len().to_string().as_str()));
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
}

#[test]
fn the_exporters_own_series_stand_where_they_are_wanted() {
    let whole = exporter();
    let own = ["--mock=idle-t4", "--own-metrics-path=/metrics/own"];
    let exporter = Exporter::start(&own);
    let gpus = exporter.wait_for("series", |page| page.contains("DCGM_FI_DEV_GPU_UTIL{"));
    let own = exporter.get("/metrics/own");
    assert_eq!(own.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let types = |page: &str| page.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert!(!gpus.contains("nvml_exporter_") && !own.text().contains("DCGM_"), "{gpus}");
    let split = || types(&exporter.metrics()) + types(&exporter.get("/metrics/own").text());
    whole.wait_for("the same families", |page| types(page) == split());
}

#[test]
fn gzip_holds_the_same_page() {
    let exporter = exporter();
    let zipped = exporter.request(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut page = String::new();
    GzDecoder::new(zipped.body.as_slice()).read_to_string(&mut page).unwrap();
    assert_eq!(page, exporter.metrics());
}

#[test]
fn head_has_the_length_and_no_body() {
    let exporter = exporter();
    let head = exporter.request("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(exporter.metrics().len().to_string().as_str()));
    assert!(head.body.is_empty());
}

#[test]
fn other_methods_and_paths_are_refused() {
    let exporter = exporter();
    let post = exporter.request(
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert_eq!((post.status, post.header("allow")), (405, Some("get, head")));
    assert_eq!(exporter.get("/metric").status, 404);
}

#[test]
fn probes_and_landing_page() {
    let exporter = exporter();
    for (path, body) in [("/healthz", "ok\n"), ("/health", "ok\n"), ("/readyz", "ready\n")] {
        let answer = exporter.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
    }
    let landing = exporter.get("/");
    assert_eq!(landing.header("content-type"), Some("text/html; charset=utf-8"));
    for link in ["/metrics", "/readyz", "/api/v1/node"] {
        assert!(landing.text().contains(&format!("href=\"{link}\"")), "{link}");
    }
}

#[test]
fn the_first_page_is_a_full_one() {
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval", "600000"]);
    let page = exporter.wait_for("a page", |page| page.contains("nvml_exporter_cycles_total"));
    assert_eq!(value(&page, "nvml_exporter_cycles_total", &[]), Some(1.0));
    assert_eq!(series(&page, "DCGM_FI_DEV_FB_USED").len(), 8, "{page}");
    assert_eq!(exporter.get("/readyz").status, 200);
}

/// An exporter of a page that no socket buffer swallows whole, so that its scrape is in flight for as
/// long as its reader likes.
fn endless(world: &str, interval: &str, family: &str) -> Exporter {
    let processes = "[[process]]\npid = 1000\nname = \"worker\"\ngpus = [0]\n\
                     memory = \"8 MiB\"\ncount = 500\n";
    let scenario = Scenario::new("large", &format!("now = 60\n{world}{processes}"));
    let (mock, text) = (scenario.flag(), "x".repeat(256));
    let labels: Vec<String> = (0..16).map(|n| format!("--extra-label=l{n}={text}")).collect();
    let labels = labels.iter().map(String::as_str);
    let flags: Vec<&str> =
        [mock.as_str(), "--collect-interval", interval].into_iter().chain(labels).collect();
    let exporter = Exporter::start(&flags);
    exporter.wait_for("every process", |page| series(page, family).len() == 500);
    exporter
}

/// Begins to read a page, and reads no more of it than has come by then.
fn begin(exporter: &Exporter) -> (TcpStream, Vec<u8>) {
    let mut reader = TcpStream::connect(exporter.address()).unwrap();
    reader.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut begun = vec![0; 4096];
    reader.read_exact(&mut begun).unwrap();
    (reader, begun)
}

#[test]
fn sigterm_ends_it_though_a_gpu_hangs_and_nobody_reads() {
    // One page for all: pages of the past would not be waited for.
    let hang = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    let world = format!("[[gpu]]\nmodel = \"T4\"\ncount = 2\n{hang}");
    let exporter = endless(&world, "600000", "DCGM_CUSTOM_PROCESS_MEM_USED");
    let readers: Vec<_> = (0..8).map(|_| begin(&exporter)).collect();
    // Much sooner than the half minute that a response may take to be written.
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("did not finish"), "they were in flight: {log}");
    drop(readers);
}

#[test]
fn sigterm_lets_a_scrape_in_flight_finish_and_exits_with_0() {
    let exporter = endless("[[gpu]]\nmodel = \"H100\"\n", "500", "DCGM_CUSTOM_PROCESS_SM_UTIL");
    let (mut slow, mut answer) = begin(&exporter);
    let ended = std::thread::spawn(move || exporter.terminate());
    slow.read_to_end(&mut answer).unwrap();
    let answer = Response::parse(&answer);
    let announced = answer.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(announced > 6_000_000, "{announced}");
    assert_eq!(answer.body.len(), announced, "the page arrives whole");
    let (status, log) = ended.join().unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM: stopping") && !log.contains("did not finish"), "{log}");
}
