//! NVIDIA's own library, of several driver branches, on a machine without the driver.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::exporter::{Exporter, run, value};

const DEVICE_NODE: &str = "/dev/nvidiactl";

/// The libraries that `tests/run` installs.
fn libraries() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nvml");
    let entries = fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}; tests/run installs it", directory.display()));
    let library = |entry: fs::DirEntry| entry.path().join("libnvidia-ml.so.1");
    entries.map(|entry| library(entry.unwrap())).filter(|path| path.is_file()).collect()
}

/// Open file descriptors, without the sockets of the test's own scrapes.
fn descriptors(exporter: &Exporter) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", exporter.pid())).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| !link.to_string_lossy().starts_with("socket:")).count()
}

fn threads(exporter: &Exporter) -> usize {
    fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap().count()
}

fn failures(metrics: &str) -> f64 {
    let reason = ["reason=\"driver_not_loaded\""];
    value(metrics, "nvml_exporter_driver_open_failures_total", &reason).unwrap_or(0.0)
}

fn cpu_ticks(exporter: &Exporter) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", exporter.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Resource usage of an exporter at one moment.
struct ResourceUsage {
    descriptors: usize,
    threads: usize,
    ticks: u64,
    cycles: f64,
}

fn resource_usage(exporter: &Exporter, metrics: &str) -> ResourceUsage {
    ResourceUsage {
        descriptors: descriptors(exporter),
        threads: threads(exporter),
        ticks: cpu_ticks(exporter),
        cycles: value(metrics, "nvml_exporter_cycles_total", &[]).unwrap(),
    }
}

fn wait_for_first_failure(library: &str, exporter: &Exporter) -> ResourceUsage {
    let metrics = exporter.wait_for("a failure", |metrics| failures(metrics) >= 1.0);
    assert_eq!(value(&metrics, "nvml_exporter_driver_up", &[]), Some(0.0), "{library}");
    assert!(!metrics.contains("\nDCGM_"), "{library}: {metrics}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("driver_not_loaded"), "{}", readiness.text());
    assert_eq!(exporter.get("/healthz").status, 200);
    resource_usage(exporter, &metrics)
}

fn check_retries(library: &str, exporter: &Exporter, first: &ResourceUsage) {
    let metrics = exporter.wait_for("two more attempts", |metrics| failures(metrics) >= 3.0);
    let now = resource_usage(exporter, &metrics);
    // The second and third attempt follow after one and two seconds.
    let cycles = now.cycles - first.cycles;
    assert!(cycles >= 10.0, "{library}: {cycles} cycles between the attempts");
    assert!(failures(&metrics) < cycles / 2.0, "{library}: an attempt in every cycle");
    assert!(now.ticks - first.ticks < 100, "{library}: a second of CPU time for two attempts");
    assert_eq!((now.descriptors, now.threads), (first.descriptors, first.threads), "{library}");
    let maps = fs::read_to_string(format!("/proc/{}/maps", exporter.pid())).unwrap();
    assert!(!maps.contains("libnvidia-ml"), "{library} is still mapped");
    // On a machine under load, the first cycle ends before the driver was tried, which is logged too.
    let log = exporter.log();
    assert_eq!(log.matches("reason=\"driver_not_loaded\"").count(), 1, "{log}");
}

#[test]
fn real_library_without_driver_is_retried_and_leaks_nothing() {
    let libraries = libraries();
    assert!(libraries.len() >= 4, "{libraries:?}");
    if Path::new("/proc/driver/nvidia/version").exists() {
        // Not by `eprintln!`, which the test harness would hide.
        let reason = b"skipped: NVML libraries without a driver: this machine has a driver\n";
        std::io::stderr().write_all(reason).unwrap();
        return;
    }
    let existed = Path::new(DEVICE_NODE).exists();
    // All in parallel: most of the time is spent between attempts.
    let exporters = libraries.iter().map(|library| {
        let library = library.to_str().unwrap();
        let args = ["--require-gpu", "--nvml-library", library, "--collect-interval", "200"];
        (library, Exporter::start(&args))
    });
    let exporters: Vec<_> = exporters.collect();
    let first: Vec<ResourceUsage> =
        exporters.iter().map(|(library, e)| wait_for_first_failure(library, e)).collect();
    for ((library, exporter), first) in exporters.iter().zip(first) {
        check_retries(library, exporter, &first);
    }
    assert_eq!(Path::new(DEVICE_NODE).exists(), existed, "the library has created {DEVICE_NODE}");
}

#[test]
fn record_reports_that_the_kernel_module_is_not_loaded() {
    for library in libraries() {
        let library = library.display().to_string();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        let output = format!("--output={}", file.display());
        let run = run(&["record", "--require-gpu", "--nvml-library", &library, &output]);
        assert_eq!(run.status.code(), Some(1));
        let error = String::from_utf8(run.stderr).unwrap();
        assert!(error.contains(&format!("{library}: nvmlInit_v2: ")), "{error}");
        assert!(error.contains("load the nvidia kernel module"), "{error}");
        assert!(!file.exists() && !Path::new(DEVICE_NODE).exists());
    }
}

#[test]
fn check_reports_that_the_kernel_module_is_not_loaded() {
    for library in libraries() {
        let library = library.display().to_string();
        let args = ["check", "--address=127.0.0.1:0", "--require-gpu", "--nvml-library", &library];
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(&format!("{library}: loaded, but not initialized")), "{stdout}");
        assert!(stdout.contains("nvmlInit_v2: no session (driver_not_loaded)"), "{stdout}");
        assert!(!Path::new(DEVICE_NODE).exists(), "the check creates no device node");
    }
}
