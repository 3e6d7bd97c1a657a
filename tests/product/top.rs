//! The node in a terminal.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::clients::tool_path;
use crate::exporter::{Scenario, command, run, run_tool, run_with, sandboxed_command};
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

#[test]
fn invalid_remote_response_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--url=http://{}", listener.local_addr().unwrap());
    let responses = [
        ("{\"version\": 2}", "version 2, and this program reads 3"),
        ("{\"version\": 3}", "not one of nvml-exporter"),
        ("<html>", "not one of nvml-exporter"),
    ];
    std::thread::spawn(move || {
        for ((response, _), stream) in responses.into_iter().zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let length = response.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{response}")
                .unwrap();
        }
    });
    for (_, expected) in responses {
        let error = top_error(&["--once", &url]);
        assert!(error.contains(expected), "{error}");
    }
    let error = top_error(&["--once", "--url=nonsense"]);
    assert!(error.contains("use http(s)://HOST:PORT"), "{error}");
}

#[test]
fn every_key_works_in_a_terminal() {
    assert_interactive(&command(&IN_A_TERMINAL));
}

#[test]
fn top_works_in_an_unprivileged_pod() {
    assert_interactive(&sandboxed_command(&IN_A_TERMINAL));
}

#[test]
fn mig_devices_are_folded_until_a_key_is_pressed() {
    let seen = in_a_terminal(&command(&["top", "--mock=mig-h100", "-d", "0.5"]), "mig");
    assert!(!seen["folded"].as_str().unwrap().contains("MIG 2g"), "{seen}");
    assert!(seen["unfolded"].as_str().unwrap().contains("MIG 2g"), "{seen}");
    assert_eq!(seen["exit"], 0);
}

#[test]
fn screen_without_a_driver_ends_with_the_reason() {
    let command =
        command(&["top", "--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let seen = in_a_terminal(&command, "none");
    assert_eq!(seen["exit"], 1, "{seen}");
    assert!(seen["text"].as_str().unwrap().contains("the driver is down"), "{seen}");
}

#[test]
fn screen_ends_with_its_terminal() {
    let seen = in_a_terminal(&command(&IN_A_TERMINAL), "closed");
    assert_eq!(seen["exit"], 128 + 1, "SIGHUP");
}

const IN_A_TERMINAL: [&str; 3] = ["top", "--mock=demo", "--collect-interval=500"];

/// Runs the command in a terminal with tests/clients/terminal.py.
fn in_a_terminal(command: &Command, scenario: &str) -> serde_json::Value {
    let text = |text: &OsStr| text.to_str().unwrap().to_owned();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let environment = command.get_envs().filter_map(|(key, value)| Some((text(key), text(value?))));
    let input = serde_json::json!({
        "command": words.map(text).collect::<Vec<_>>(),
        "environment": environment.collect::<BTreeMap<_, _>>(),
        "scenario": scenario,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/terminal.py");
    let python = tool_path("python/bin/python");
    let output = run_tool(&python, &[&script.display().to_string()], &input.to_string());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Presses every key in a small and a large terminal, and checks the screens.
fn assert_interactive(command: &Command) {
    let all = in_a_terminal(command, "demo");
    for size in ["80x24", "200x60"] {
        let seen = &all[size];
        let text = |screen: &str| seen[screen].as_str().unwrap().to_owned();
        assert!(text("compact").contains("GPU 0 H100"), "{size} {}", text("compact"));
        assert!(text("compact").contains("8 GPUs: 8 ok"), "{size} {}", text("compact"));
        assert!(text("full").contains("ml/train trainer"), "{size} {}", text("full"));
        assert!(text("end").contains("SOURCES"), "{size} {}", text("end"));
        assert!(text("pods").contains("ml/train"), "{size} {}", text("pods"));
        assert!(text("help").contains("fold or unfold MIG devices"), "{size} {}", text("help"));
        for (what, expected) in [("coloured", true), ("restored", true)] {
            assert_eq!(seen[what], expected, "{size} {what}");
        }
        assert_eq!(seen["exit"], 0, "{size}");
    }
    assert_eq!((&all["plain_coloured"], &all["plain_exit"]), (&false.into(), &0.into()));
}
