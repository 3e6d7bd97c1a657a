//! A library that the loader cannot open, or does not finish to open, under a running exporter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::exporter::{Exporter, run, run_with, value};
use crate::web_fixture::WebFixture;

/// The mock library; its constructor waits while the file of `MOCK_NVML_HANG_FILE` exists.
fn mock_library() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_nvml-exporter")).with_file_name("libmock_nvml.so")
}

/// The exporter, and the file that keeps its library from being loaded.
fn start_hanging(directory: &Path, args: &[&str]) -> (Exporter, PathBuf) {
    let file = directory.join("hang");
    fs::write(&file, "").unwrap();
    let library = format!("--nvml-library={}", mock_library().display());
    let environment = [("MOCK_NVML_HANG_FILE", file.to_str().unwrap())];
    let args = [&[library.as_str(), "--require-gpu", "--collect-interval=200"], args].concat();
    (Exporter::start_with(&environment, &args), file)
}

/// Waits until the constructor runs, so that the lock of the loader is held.
fn wait_for_constructor(exporter: &Exporter) {
    let maps = format!("/proc/{}/maps", exporter.pid());
    let is_mapped = |_: &str| fs::read_to_string(&maps).unwrap().contains("libmock_nvml.so");
    exporter.wait_for_at("/healthz", "the library among the maps", is_mapped);
}

#[test]
fn library_that_does_not_finish_loading_is_reported_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (exporter, file) = start_hanging(directory.path(), &[]);
    wait_for_constructor(&exporter);
    exporter.wait_for("a cycle", |text| text.contains("nvml_exporter_driver_up 0"));
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 200),
        ("/api/v1/node", 200),
        ("/", 200),
        ("/none", 404),
    ] {
        assert_eq!(exporter.get(path).status, status, "{path}");
    }
    let gzip =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    assert_eq!(exporter.request(gzip).header("content-encoding"), Some("gzip"));
    let readiness = exporter.wait_for_at("/readyz", "a hang", |text| text.contains("(hung)"));
    assert!(readiness.contains("loading the library /"), "{readiness}");
    assert_eq!(value(&exporter.metrics(), "nvml_exporter_driver_up", &[]), Some(0.0));
    exporter.send_sighup();
    exporter.wait_for_log("no counters file to reload");
    exporter.wait_for_log("reason=\"hung\"");
    fs::remove_file(file).unwrap();
    exporter
        .wait_for("the driver", |text| value(text, "nvml_exporter_driver_up", &[]) == Some(1.0));
    let (status, log) = exporter.terminate();
    assert!(status.success(), "{log}");
}

#[test]
fn sigterm_ends_the_process_while_a_library_does_not_finish_loading() {
    let directory = tempfile::tempdir().unwrap();
    let (exporter, _file) = start_hanging(directory.path(), &[]);
    wait_for_constructor(&exporter);
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn requests_with_tls_and_passwords_are_answered_while_a_library_does_not_finish_loading() {
    let directory = tempfile::tempdir().unwrap();
    let web = WebFixture::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let tls = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";
    let config = format!("{tls}basic_auth_users:\n  alice: {hash}\n");
    let flag = web.write_config(&config);
    let (exporter, _file) = start_hanging(directory.path(), &[&flag]);
    let maps = format!("/proc/{}/maps", exporter.pid());
    while !fs::read_to_string(&maps).unwrap().contains("libmock_nvml.so") {
        std::thread::yield_now();
    }
    let get = |path: &str| web.get(&exporter, path, None).unwrap().0.status;
    assert_eq!((get("/healthz"), get("/readyz"), get("/metrics")), (200, 503, 401));
    let credentials = base64::engine::general_purpose::STANDARD.encode("alice:secret");
    let authorized = |head: &str| web.request(&exporter, head).unwrap().status;
    for _ in 0..2 {
        let head = format!(
            "GET /api/v1/node HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
        );
        assert!([200, 503].contains(&authorized(&head)), "503 before the first cycle");
    }
    web.write_config(&config.replace("alice", "bob"));
    exporter.wait_for_log("reloaded");
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
}

fn refused(path: &Path) -> (String, Output) {
    let library = format!("--nvml-library={}", path.display());
    let exporter = Exporter::start(&["--require-gpu", &library]);
    let readiness =
        exporter.wait_for_at("/readyz", "a refusal", |text| text.contains("(library_invalid)"));
    assert_eq!(exporter.get("/healthz").status, 200);
    let failures = ["reason=\"library_invalid\""];
    let metrics = exporter.metrics();
    assert!(value(&metrics, "nvml_exporter_driver_open_failures_total", &failures).is_some());
    assert!(exporter.terminate().0.success());
    (readiness, run(&["check", "--require-gpu", &library]))
}

#[test]
fn library_that_cannot_be_loaded_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("libnvidia-ml.so.1");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let image = fs::read(mock_library()).unwrap();
    let truncated = directory.path().join("truncated.so");
    fs::write(&truncated, &image[..image.len() / 2]).unwrap();
    let other = directory.path().join("other.so");
    fs::write(&other, [&image[..18], &[3], &image[19..]].concat()).unwrap();
    for (path, reason) in [
        (fifo, "not a regular file"),
        (truncated, "the file is truncated"),
        (other, "for another machine"),
        (directory.path().to_owned(), "not a regular file"),
        ("/etc/passwd".into(), "not a shared library"),
    ] {
        let (readiness, check) = refused(&path);
        assert!(readiness.contains(reason), "{readiness}");
        let report = String::from_utf8(check.stdout).unwrap();
        assert!(report.contains(reason) && check.status.code() == Some(1), "{report}");
    }
}

#[test]
fn truncated_library_is_refused_until_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libnvidia-ml.so.1");
    let image = fs::read(mock_library()).unwrap();
    fs::write(&library, &image[..image.len() - 1]).unwrap();
    let flag = format!("--nvml-library={}", library.display());
    let exporter = Exporter::start(&["--require-gpu", &flag]);
    exporter.wait_for_at("/readyz", "a refusal", |text| text.contains("the file is truncated"));
    fs::copy(mock_library(), &library).unwrap();
    exporter
        .wait_for("the driver", |text| value(text, "nvml_exporter_driver_up", &[]) == Some(1.0));
}

#[test]
fn subcommands_end_although_a_library_does_not_finish_loading() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hang");
    fs::write(&file, "").unwrap();
    let library = format!("--nvml-library={}", mock_library().display());
    let environment = [("MOCK_NVML_HANG_FILE", file.to_str().unwrap())];
    for args in [["--once", "--require-gpu", &library], ["check", "--require-gpu", &library]] {
        let output = run_with(&environment, &args);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("loading the library"), "{text}");
    }
}
