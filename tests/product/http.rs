//! HTTP responses to scrapers, probes and browsers.

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::read::GzDecoder;

use crate::exporter::{Exporter, Response, Scenario, series, value};

fn exporter() -> Exporter {
    let exporter = Exporter::start(&["--mock=idle-t4", "--collect-interval", "3600000"]);
    exporter.wait_for("series", |text| text.contains("DCGM_FI_DEV_GPU_UTIL{"));
    exporter
}

#[test]
fn metrics_are_in_text_format_whatever_accept_prefers() {
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
fn own_metrics_can_have_their_own_path() {
    let whole = Exporter::start(&["--mock=idle-t4"]);
    let own = ["--mock=idle-t4", "--own-metrics-path=/metrics/own"];
    let exporter = Exporter::start(&own);
    let gpus = exporter.wait_for("series", |text| text.contains("DCGM_FI_DEV_GPU_UTIL{"));
    let own = exporter.get("/metrics/own");
    assert_eq!(own.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let types = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert!(!gpus.contains("nvml_exporter_") && !own.text().contains("DCGM_"), "{gpus}");
    let split = || types(&exporter.metrics()) + types(&exporter.get("/metrics/own").text());
    whole.wait_for("the same families", |text| types(text) == split());
}

/// Tests of dcgm-exporter require pod labels of all series at `/metrics`.
#[test]
fn own_metrics_are_apart_in_the_dialect_of_dcgm_exporter() {
    const OWN: [&str; 2] = ["nvml_exporter_build_info{version=", "process_resident_memory_bytes"];
    let of = |flags: &[&str], environment: &[(&str, &str)]| {
        let flags = [&["--mock=idle-t4"], flags].concat();
        let exporter = Exporter::start_with(environment, &flags);
        let gpus = exporter.wait_for("series", |text| text.contains("DCGM_FI_DEV_GPU_UTIL{"));
        let own = exporter.get("/metrics/own");
        let is_on_metrics = OWN.iter().all(|name| gpus.contains(name));
        assert!(is_on_metrics || OWN.iter().all(|name| !gpus.contains(name)), "{gpus}");
        let has_own_path = own.status == 200 && OWN.iter().all(|name| own.text().contains(name));
        (is_on_metrics, has_own_path)
    };
    let dcgm = "--dialect=dcgm-exporter";
    assert_eq!(of(&[], &[]), (true, false));
    assert_eq!(of(&[dcgm], &[]), (false, true));
    assert_eq!(of(&[dcgm, "--enable-exporter-metrics"], &[]), (true, false));
    assert_eq!(of(&["--enable-exporter-metrics=false"], &[]), (false, true));
    let variable = "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS";
    assert_eq!(of(&[dcgm], &[(variable, "true")]), (true, false));
    assert_eq!(of(&[], &[(variable, "0")]), (false, true));
    assert_eq!(of(&[dcgm], &[(variable, "")]), (false, true));
    let both = ["--own-metrics-path=/metrics/own", "--enable-exporter-metrics=true"];
    assert_eq!(of(&both, &[]), (true, true));
}

#[test]
fn telemetry_path_is_another_path_of_the_metrics() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--web.telemetry-path=/gpus"]);
    for path in ["/gpus", "/metrics"] {
        exporter.wait_for_at(path, "series", |text| text.contains("DCGM_FI_DEV_GPU_UTIL{"));
    }
}

#[test]
fn series_of_the_exporter_have_the_node_name_in_the_dialect_of_ack() {
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval=200"]);
    let text = exporter.wait_for("pods", |text| !series(text, "nvml_exporter_pods").is_empty());
    let own = text
        .lines()
        .filter(|line| line.starts_with("nvml_exporter_") || line.starts_with("process_"));
    let own: Vec<&str> = own.collect();
    assert!(own.len() > 50, "{text}");
    for line in own {
        assert!(line.contains("NodeName=\""), "{line}");
    }
    let build = series(&text, "nvml_exporter_build_info");
    assert!(build[0].contains("revision=\"") && build[0].contains("features=\"manual,top\""));
    assert!(value(&text, "process_open_fds", &[]).is_some_and(|n| n >= 3.0), "{text}");
    assert!(value(&text, "process_start_time_seconds", &[]).is_some_and(|n| n > 1e9), "{text}");
    assert!(value(&text, "process_max_fds", &[]) > value(&text, "process_open_fds", &[]));
    let memory = |name: &str| value(&text, &format!("process_{name}_memory_bytes"), &[]).unwrap();
    assert!(memory("resident") > 1e6 && memory("virtual") > memory("resident"), "{text}");
    assert!(value(&text, "process_cpu_seconds_total", &[]).is_some_and(|n| n < 3600.0), "{text}");
}

#[test]
fn gzip_response_has_the_same_content() {
    let exporter = exporter();
    let compressed = exporter.request(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(compressed.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, exporter.metrics());
}

#[test]
fn body_as_it_is_can_be_preferred_to_gzip() {
    let exporter = exporter();
    let encoding = |accept: &str| {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n"
        );
        exporter.request(&request).header("content-encoding").map(str::to_owned)
    };
    assert_eq!(encoding("gzip;q=0.5, identity"), None);
    assert_eq!(encoding("gzip, identity;q=0.5").as_deref(), Some("gzip"));
}

#[test]
fn head_response_has_the_content_length_and_no_body() {
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
fn probes_and_web_ui() {
    let exporter = exporter();
    for (path, body) in [("/healthz", "ok\n"), ("/health", "ok\n"), ("/readyz", "ready\n")] {
        let response = exporter.get(path);
        assert_eq!((response.status, response.text().as_str()), (200, body), "{path}");
    }
    let landing = exporter.get("/");
    assert_eq!(landing.header("content-type"), Some("text/html; charset=utf-8"));
    for link in ["/metrics", "/readyz", "/api/v1/node"] {
        assert!(landing.text().contains(&format!("href=\"{link}\"")), "{link}");
    }
}

#[test]
fn first_cycle_is_complete() {
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval", "600000"]);
    let text = exporter.wait_for("a cycle", |text| text.contains("nvml_exporter_cycles_total"));
    assert_eq!(value(&text, "nvml_exporter_cycles_total", &[]), Some(1.0));
    assert_eq!(series(&text, "DCGM_FI_DEV_FB_USED").len(), 8, "{text}");
    assert_eq!(exporter.get("/readyz").status, 200);
}

/// An exporter with a scrape response that is larger than all socket buffers, so that it is in flight
/// until the client has read it.
fn exporter_with_large_response(world: &str, interval: &str, family: &str) -> Exporter {
    let processes = "[[process]]\npid = 1000\nname = \"worker\"\ngpus = [0]\n\
                     memory = \"8 MiB\"\ncount = 500\n";
    let scenario = Scenario::new("large", &format!("now = 60\n{world}{processes}"));
    let (mock, text) = (scenario.flag(), "x".repeat(256));
    let labels: Vec<String> = (0..16).map(|n| format!("--extra-label=l{n}={text}")).collect();
    let labels = labels.iter().map(String::as_str);
    let flags: Vec<&str> =
        [mock.as_str(), "--collect-interval", interval].into_iter().chain(labels).collect();
    let exporter = Exporter::start(&flags);
    exporter.wait_for("every process", |text| series(text, family).len() == 500);
    exporter
}

/// Starts a scrape and reads the first bytes of its response.
fn start_scrape(exporter: &Exporter) -> (TcpStream, Vec<u8>) {
    let mut client = TcpStream::connect(exporter.address()).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut start = vec![0; 4096];
    client.read_exact(&mut start).unwrap();
    (client, start)
}

#[test]
fn sigterm_ends_the_process_despite_hanging_gpu_and_clients() {
    // A single cycle, because connections with responses of earlier cycles are evicted.
    let hang = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    let world = format!("[[gpu]]\nmodel = \"T4\"\ncount = 2\n{hang}");
    let exporter = exporter_with_large_response(&world, "600000", "DCGM_CUSTOM_PROCESS_MEM_USED");
    let clients: Vec<_> = (0..8).map(|_| start_scrape(&exporter)).collect();
    // Much sooner than the write timeout of 30 s.
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("did not finish"), "scrapes were in flight: {log}");
    drop(clients);
}

#[test]
fn sigterm_waits_for_a_scrape_in_flight_and_exits_with_0() {
    let world = "[[gpu]]\nmodel = \"H100\"\n";
    let exporter = exporter_with_large_response(world, "500", "DCGM_CUSTOM_PROCESS_SM_UTIL");
    let (mut client, mut response) = start_scrape(&exporter);
    let terminated = std::thread::spawn(move || exporter.terminate());
    client.read_to_end(&mut response).unwrap();
    let response = Response::parse(&response);
    let length = response.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(length > 6_000_000, "{length}");
    assert_eq!(response.body.len(), length, "the response is complete");
    let (status, log) = terminated.join().unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM: stopping") && !log.contains("did not finish"), "{log}");
}

#[test]
fn request_without_one_valid_host_is_refused() {
    let exporter = exporter();
    let status = |version: &str, hosts: &str| {
        let request = format!("GET /healthz HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        exporter.request(&request).status
    };
    for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nhost: a\r\n", "Host: a b\r\n"] {
        assert_eq!(status("1.1", hosts), 400, "{hosts:?}");
    }
    for hosts in ["Host: a\r\n", "Host: [::1]:9400\r\n", "Host:\r\n"] {
        assert_eq!(status("1.1", hosts), 200, "{hosts:?}");
    }
    assert_eq!((status("1.0", ""), status("1.0", "Host: a\r\nHost: b\r\n")), (200, 400));
}
