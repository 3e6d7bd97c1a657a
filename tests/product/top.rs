//! The node in a terminal.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;

use crate::exporter::{Exporter, Scenario, run, run_with};
use crate::web_fixture::WebFixture;

/// The output of `top --once` at this width.
fn frame(columns: &str, args: &[&str]) -> String {
    let output = run_with(&[("COLUMNS", columns)], &[&["top", "--once"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The error of `top`, which must fail without output.
fn top_error(args: &[&str]) -> String {
    let output = run(&[&["top"], args].concat());
    assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn one_frame_fits_in_80_columns() {
    let text = frame("80", &["--mock=demo"]);
    for expected in [
        "8 GPUs: 8 ok  memory ",
        "GPU 0 H100 80GB HBM3",
        "    ml/train trainer",
        "      python 4101 C",
        "    serving/triton-0 triton",
        "    research/reserved main",
        "  pod_resources up",
    ] {
        assert!(text.lines().any(|line| line.starts_with(expected)), "{expected:?} in\n{text}");
    }
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    let words = |start: &str| line(start).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words("    ml/train trainer")[2..], ["exclusive", "97", "%", "68.5", "GiB"]);
    assert_eq!(words("    research/reserved main")[2..], ["exclusive", "0", "%", "0.0", "GiB"]);
    assert_eq!(
        words("    serving/triton-0 triton")[2..],
        ["share", "–", "unsupported", "9.0", "GiB"]
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour");
}

#[test]
fn one_frame_is_printed_without_a_terminal() {
    let output = run_with(&[("COLUMNS", "80")], &["top", "--mock=idle-t4"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("GPU 0 Tesla T4"), "{text}");
}

#[test]
fn frame_shows_mig_devices_and_faults() {
    let text = frame("100", &["--mock=mig-h100"]);
    assert!(text.contains("  MIG 2g.20gb GI 1 CI 0"), "{text}");
    let text = frame("60", &["--mock=faulty"]);
    assert!(text.contains("ready, but only 3 of 4 GPUs can be read"), "{text}");
    assert!(text.contains("GPU 1 not identified"), "{text}");
    assert!(text.contains("could not be remapped"), "{text}");
    let wide = frame("120", &["--mock=faulty"]);
    assert!(wide.contains("– denied") && wide.contains("remedy: "), "{wide}");
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
}

#[test]
fn shown_families_are_read_even_if_not_exported() {
    let counters = Scenario::new("counters", "DCGM_FI_DEV_FB_FREE, gauge, Framebuffer.\n");
    let counters = counters.path().display().to_string();
    let text = frame("80", &["--mock=demo", "--dialect=dcgm-exporter", "-f", &counters]);
    assert!(text.contains("ml/train trainer") && text.contains("/700 W"), "{text}");
}

#[test]
fn missing_driver_is_an_error_with_its_reason() {
    let error =
        top_error(&["--once", "--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    assert!(error.contains("the driver is down (library_not_found)"), "{error}");
    assert!(error.contains("/nowhere/libnvidia-ml.so.1"), "{error}");
}

#[test]
fn remote_exporter_is_read_over_tls_with_a_password() {
    let site = WebFixture::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let settings = format!(
        "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\nbasic_auth_users:\n  alice: {hash}\n"
    );
    let exporter = site.start(&settings, &[]);
    let port = exporter.address().rsplit(':').next().unwrap();
    let url = format!("--url=https://localhost:{port}");
    let ca = format!("--ca={}", site.authority());
    let text = frame("80", &[&url, &ca, "--user=alice:secret"]);
    assert!(text.contains("GPU 0 Tesla T4"), "{text}");
    let text = frame("80", &[&url, "--insecure-tls", "--user=alice:secret"]);
    assert!(text.contains("GPU 0 Tesla T4"), "{text}");

    let error = top_error(&["--once", &url, &ca, "--user=alice:wrong"]);
    assert!(error.contains("401"), "{error}");
    let error = top_error(&["--once", &url, "--user=alice:secret"]);
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    let error = top_error(&["--once", &url, &ca, "--user=alice"]);
    assert!(error.contains("--user: the password is missing"), "{error}");
}

/// Responds to one request after another with these texts.
fn serve(listener: TcpListener, responses: Vec<String>) {
    std::thread::spawn(move || {
        for (response, stream) in responses.into_iter().zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let length = response.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{response}")
                .unwrap();
        }
    });
}

#[test]
fn invalid_remote_response_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--url=http://{}", listener.local_addr().unwrap());
    let responses = [
        ("{\"version\": 2}", "version 2, and this program reads 3"),
        ("{\"version\": 3}", "not one of nvml-exporter"),
        ("<html>", "not one of nvml-exporter"),
    ];
    serve(listener, responses.map(|(response, _)| response.to_owned()).to_vec());
    for (_, expected) in responses {
        let error = top_error(&["--once", &url]);
        assert!(error.contains(expected), "{error}");
    }
    let error = top_error(&["--once", "--url=nonsense"]);
    assert!(error.contains("use http(s)://HOST:PORT"), "{error}");
}

/// What a narrow frame does not have of a wide one is marked by an ellipsis in its line or in the heads.
#[test]
fn nothing_is_cut_without_a_mark() {
    for scenario in ["demo", "mig-h100", "faulty", "shared-l20"] {
        let scenario = Scenario::built_in_at(scenario, 20);
        let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "500"]);
        exporter.wait_for("processes", |text| text.contains("DCGM_CUSTOM_PROCESS_MEM_USED{"));
        // The same state for each width.
        let node = exporter.get("/api/v1/node").text();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("--url=http://{}", listener.local_addr().unwrap());
        serve(listener, vec![node; 5]);
        let wide = frame("140", &[&url]);
        for columns in ["40", "60", "80", "110"] {
            let narrow = frame(columns, &[&url]);
            let words: BTreeSet<&str> = narrow.split_whitespace().collect();
            let heads = narrow.lines().find(|line| line.starts_with("GPU  ")).unwrap();
            for line in wide.lines().filter(|line| !line.starts_with("GPU")) {
                let Some(start) = line.split_whitespace().next() else { continue };
                let of_line = |other: &&str| {
                    let first = other.split_whitespace().next().unwrap_or("none");
                    start.starts_with(first.trim_end_matches('…'))
                };
                let is_marked = narrow.lines().filter(of_line).any(|line| line.contains('…'));
                let missing = line.split_whitespace().find(|word| !words.contains(word));
                assert!(
                    missing.is_none() || is_marked,
                    "{columns}: {missing:?} of {line}\n{narrow}"
                );
            }
            let is_complete = ["POWER", "TEMP"].iter().all(|head| heads.contains(head));
            assert!(is_complete || heads.contains('…'), "{columns}: {heads}");
        }
    }
}
