//! The node in a terminal.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::clients::brought;
use crate::exporter::{Scenario, command, confined, run, run_with, tool};
use crate::web::Site;

/// What `top --once` prints at this width.
fn frame(columns: &str, args: &[&str]) -> String {
    let output = run_with(&[("COLUMNS", columns)], &[&["top", "--once"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refusal(args: &[&str]) -> String {
    let output = run(&[&["top"], args].concat());
    assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn one_frame_tells_who_uses_which_gpu_in_80_columns() {
    let told = frame("80", &["--mock=demo"]);
    for expected in [
        "ready",
        "GPU 0 NVIDIA H100 80GB HBM3",
        "    ml/train trainer                          exclusive         97 %   70152 MiB",
        "      python 4101 C                                             97 %   69632 MiB",
        "    serving/triton-0 triton                  share     - unsupported    9216 MiB",
        "    research/reserved main                    exclusive          0 %       0 MiB",
        "  pod_resources up",
    ] {
        assert!(told.lines().any(|line| line.starts_with(expected)), "{expected:?} in\n{told}");
    }
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    assert!(!told.contains('\u{1b}'), "no colour");
}

#[test]
fn without_a_terminal_it_prints_one_frame() {
    let output = run_with(&[("COLUMNS", "80")], &["top", "--mock=idle-t4"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.contains("GPU 0 Tesla T4"), "{told}");
}

#[test]
fn instances_and_faults_are_told_too() {
    let told = frame("100", &["--mock=mig-h100"]);
    assert!(told.contains("  MIG 2g.20gb GI 1 CI 0 MIG-"), "{told}");
    let told = frame("60", &["--mock=faulty"]);
    assert!(told.contains("ready, but only 3 of 4 GPUs can be read"), "{told}");
    assert!(told.contains("GPU 1 lost, and not identified"), "{told}");
    assert!(told.contains("power - denied"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 60), "{told}");
}

#[test]
fn what_people_look_at_is_read_whatever_is_exported() {
    let counters = Scenario::new("counters", "DCGM_FI_DEV_FB_FREE, gauge, Framebuffer.\n");
    let counters = counters.path().display().to_string();
    let told = frame("80", &["--mock=demo", "--dialect=dcgm-exporter", "-f", &counters]);
    assert!(told.contains("ml/train trainer") && told.contains("700 W of 700 W"), "{told}");
}

#[test]
fn without_a_driver_it_says_why() {
    let told = frame("200", &["--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    assert!(told.contains("not ready: driver down (library_not_found)"), "{told}");
}

#[test]
fn a_running_exporter_is_asked_over_tls_with_a_password() {
    let site = Site::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let settings = format!(
        "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\nbasic_auth_users:\n  alice: {hash}\n"
    );
    let exporter = site.start(&settings, &[]);
    let port = exporter.address().rsplit(':').next().unwrap();
    let url = format!("--url=https://localhost:{port}");
    let ca = format!("--ca={}", site.authority());
    let told = frame("80", &[&url, &ca, "--user=alice:secret"]);
    assert!(told.contains("GPU 0 Tesla T4"), "{told}");
    let told = frame("80", &[&url, "--insecure-tls", "--user=alice:secret"]);
    assert!(told.contains("GPU 0 Tesla T4"), "{told}");

    let said = refusal(&["--once", &url, &ca, "--user=alice:wrong"]);
    assert!(said.contains("401"), "{said}");
    let said = refusal(&["--once", &url, "--user=alice:secret"]);
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    let said = refusal(&["--once", &url, &ca, "--user=alice"]);
    assert!(said.contains("--user: give USER:PASSWORD"), "{said}");
}

#[test]
fn an_exporter_that_is_none_is_refused_with_a_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--url=http://{}", listener.local_addr().unwrap());
    let answers = [
        ("{\"version\": 2}", "version 2, and this program reads 1"),
        ("{\"version\": 1}", "not an answer of nvml-exporter"),
        ("<html>", "not an answer of nvml-exporter"),
    ];
    std::thread::spawn(move || {
        for ((answer, _), stream) in answers.into_iter().zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let length = answer.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}").unwrap();
        }
    });
    for (_, expected) in answers {
        let said = refusal(&["--once", &url]);
        assert!(said.contains(expected), "{said}");
    }
    let said = refusal(&["--once", "--url=nonsense"]);
    assert!(said.contains("give http(s)://HOST:PORT"), "{said}");
}

#[test]
fn it_is_at_home_in_a_terminal() {
    assert_at_home(&command(&IN_A_TERMINAL));
}

#[test]
fn it_is_at_home_in_a_pod_that_may_do_nothing_else() {
    assert_at_home(&confined(&IN_A_TERMINAL));
}

const IN_A_TERMINAL: [&str; 3] = ["top", "--mock=demo", "--collect-interval=500"];

fn assert_at_home(command: &Command) {
    let text = |text: &OsStr| text.to_str().unwrap().to_owned();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let environment = command.get_envs().filter_map(|(key, value)| Some((text(key), text(value?))));
    let input = serde_json::json!({
        "command": words.map(text).collect::<Vec<_>>(),
        "environment": environment.collect::<BTreeMap<_, _>>(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/terminal.py");
    let python = brought("python/bin/python");
    let output = tool(&python, &[&script.display().to_string()], &input.to_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(seen["first"].as_str().unwrap().contains("GPU 0 NVIDIA H100"), "{seen}");
    assert!(seen["end"].as_str().unwrap().contains("research/reserved"), "{seen}");
    let without = seen["without"].as_str().unwrap();
    assert!(without.contains("ml/train trainer") && !without.contains("python"), "{without}");
    for (what, expected) in [("coloured", true), ("restored", true), ("plain_coloured", false)] {
        assert_eq!(seen[what], expected, "{what}");
    }
    assert_eq!((&seen["exit"], &seen["plain_exit"]), (&0.into(), &0.into()));
}
