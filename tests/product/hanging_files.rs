//! Files that cannot be read under a running exporter: a FIFO blocks its reader as a file of a mount does that
//! has no server.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::exporter::{Exporter, run, value};

const FLAGS: [&str; 2] = ["--mock=idle-t4", "--collect-interval=200"];

/// Replaces a file by a FIFO without a writer.
fn hang(path: &Path) {
    let fifo = path.with_extension("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::rename(fifo, path).unwrap();
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or_default()
}

fn source_up(metrics: &str, source: &str) -> Option<f64> {
    value(metrics, "nvml_exporter_source_up", &[&format!("source=\"{source}\"")])
}

/// Waits until the exporter has run some cycles more, and returns the exposition.
fn wait_for_cycles(exporter: &Exporter) -> String {
    let from = cycles(&exporter.metrics());
    let metrics = exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 5.0);
    assert!(value(&metrics, "DCGM_FI_DEV_GPU_TEMP", &["gpu=\"0\""]).is_some(), "{metrics}");
    metrics
}

/// SIGTERM ends the exporter.
fn terminate(exporter: Exporter) {
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn job_directory_that_hangs_keeps_its_jobs_and_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("0");
    fs::write(&file, "job-7\n").unwrap();
    let flag = format!("--hpc-job-mapping-dir={}", directory.path().display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    exporter.wait_for("a job", |text| text.contains("hpc_job=\"job-7\""));
    hang(&file);
    let metrics = wait_for_cycles(&exporter);
    assert!(metrics.contains("hpc_job=\"job-7\""), "the last content is kept");
    let contact = |metrics: &str| {
        let labels = ["source=\"hpc_jobs\""];
        value(metrics, "nvml_exporter_source_contact_timestamp_seconds", &labels)
    };
    let last = contact(&metrics);
    assert!(last.is_some());
    assert_eq!(exporter.get("/healthz").status, 200);
    let metrics = exporter
        .wait_for("the health of the source", |text| source_up(text, "hpc_jobs") == Some(0.0));
    assert!((contact(&metrics).unwrap() - last.unwrap()).abs() < 1.0, "the age grows");
    exporter.wait_for_log("the file system has not responded for 30 s");
    wait_for_cycles(&exporter);
    terminate(exporter);
}

#[test]
fn counters_file_that_hangs_keeps_its_counters() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    fs::write(&file, "DCGM_FI_DEV_GPU_TEMP, gauge, help\n").unwrap();
    let flag = format!("-f={}", file.display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    wait_for_cycles(&exporter);
    assert_eq!(source_up(&exporter.metrics(), "counters"), Some(1.0));
    hang(&file);
    exporter.send_sighup();
    exporter.wait_for("the health of the source", |text| source_up(text, "counters") == Some(0.0));
    wait_for_cycles(&exporter);
    assert!(exporter.log().contains("the previous counters stay in effect"), "{}", exporter.log());
    terminate(exporter);
}

#[test]
fn web_configuration_that_hangs_stays_active() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(&file, format!("basic_auth_users:\n  alice: {hash}\n")).unwrap();
    let flag = format!("--web-config-file={}", file.display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    hang(&file);
    exporter.wait_for_log("the previous configuration stays active");
    let get = |password: &str| {
        let credentials = STANDARD.encode(format!("alice:{password}"));
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
        );
        exporter.request(&head).status
    };
    assert_eq!((get("wrong"), get("secret")), (401, 200), "a thread checks passwords");
    assert_eq!(exporter.get("/healthz").status, 200);
    terminate(exporter);
}

#[test]
fn exporter_does_not_start_with_a_file_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    hang(&file);
    for flag in ["-f", "--web-config-file"] {
        let output = run(&[&FLAGS[..], &[&format!("{flag}={}", file.display())]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("the file system does not respond"), "{error}");
    }
}

#[test]
fn release_file_is_found_by_a_thread_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let flag = format!("--release-file={}", directory.path().join("release").display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    wait_for_cycles(&exporter);
    let tasks = fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    let names: Vec<_> = tasks.map(|task| name(task.unwrap())).collect();
    assert!(names.contains(&"release\n".to_owned()), "{names:?}");
    terminate(exporter);
}
