//! The files of a simulated node: removed on every way out.

#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::exporter::{Exporter, command};

/// Starts a command with a mock environment in a directory of its own. The driver does not open, so that
/// no command ends by itself.
fn start_mock(args: &[&str]) -> (Child, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("hang.toml");
    let text = "[[gpu]]\nmodel = \"T4\"\n[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n\
                [cluster]\nnode = \"node-1\"\n";
    fs::write(&scenario, text).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = command(args);
    command.arg(format!("--mock={}", scenario.display())).env("TMPDIR", temporary.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    // The kubeconfig is the last file of the environment.
    let is_complete = || {
        let mut entries = fs::read_dir(temporary.path()).unwrap();
        entries.any(|entry| entry.unwrap().path().join("kubeconfig").exists())
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_complete() {
        assert!(Instant::now() < deadline, "no mock environment");
        thread::sleep(Duration::from_millis(10));
    }
    (child, temporary)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn files_of_a_mock_are_removed_after_a_signal() {
    let serve: &[&str] = &["--address=127.0.0.1:0"];
    for args in [&["--once"], &["check"], &["top"], serve] {
        for (number, kind) in
            [(2, Signal::INT), (15, Signal::TERM), (1, Signal::HUP), (3, Signal::QUIT)]
        {
            let is_server = args == serve;
            if is_server && kind == Signal::HUP {
                continue;
            }
            let (mut child, temporary) = start_mock(args);
            signal(&child, kind);
            let code = child.wait().unwrap().code();
            // The server may not have begun to serve.
            assert!(
                code == Some(128 + number) || is_server && code == Some(0),
                "{args:?}: {code:?}"
            );
            let left = fs::read_dir(temporary.path()).unwrap().count();
            assert_eq!(left, 0, "{args:?} {kind:?}");
        }
    }
}

#[test]
fn files_of_a_mock_are_removed_after_a_second_signal() {
    let (mut child, temporary) = start_mock(&["--address=127.0.0.1:0"]);
    while child.try_wait().unwrap().is_none() {
        signal(&child, Signal::INT);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(child.wait().unwrap().code(), Some(0 | 130)));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn reload_is_not_the_first_of_two_signals() {
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    // Signals are handled before the first response.
    exporter.metrics();
    exporter.send_sighup();
    exporter.wait_for_log("SIGHUP");
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM: stopping"), "{log}");
}
