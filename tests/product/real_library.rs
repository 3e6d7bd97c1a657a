//! The driver's own library, of several branches, on a machine without its driver.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exporter::{Exporter, run, value};

const NODE: &str = "/dev/nvidiactl";

/// The libraries that `tests/run` brings.
fn libraries() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nvml");
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}; tests/run brings it", folder.display()));
    let library = |entry: fs::DirEntry| entry.path().join("libnvidia-ml.so.1");
    entries.map(|entry| library(entry.unwrap())).filter(|path| path.is_file()).collect()
}

/// Open files, the connections of our own scrapes not counted.
fn descriptors(exporter: &Exporter) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", exporter.pid())).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| !link.to_string_lossy().starts_with("socket:")).count()
}

fn threads(exporter: &Exporter) -> usize {
    fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap().count()
}

fn failures(page: &str) -> f64 {
    let reason = ["reason=\"driver_not_loaded\""];
    value(page, "nvml_exporter_driver_open_failures_total", &reason).unwrap_or(0.0)
}

fn cpu_ticks(exporter: &Exporter) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", exporter.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// What an exporter holds and has spent.
struct Seen {
    descriptors: usize,
    threads: usize,
    ticks: u64,
    cycles: f64,
}

fn seen(exporter: &Exporter, page: &str) -> Seen {
    Seen {
        descriptors: descriptors(exporter),
        threads: threads(exporter),
        ticks: cpu_ticks(exporter),
        cycles: value(page, "nvml_exporter_cycles_total", &[]).unwrap(),
    }
}

fn first_refusal(library: &str, exporter: &Exporter) -> Seen {
    let page = exporter.wait_for("a refusal", |page| failures(page) >= 1.0);
    assert_eq!(value(&page, "nvml_exporter_driver_up", &[]), Some(0.0), "{library}");
    assert!(!page.contains("\nDCGM_"), "{library}: {page}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("driver_not_loaded"), "{}", readiness.text());
    assert_eq!(exporter.get("/healthz").status, 200);
    seen(exporter, &page)
}

fn later_attempts(library: &str, exporter: &Exporter, first: &Seen) {
    let page = exporter.wait_for("two more attempts", |page| failures(page) >= 3.0);
    let now = seen(exporter, &page);
    // The second and the third attempt come after pauses of one and two seconds.
    let cycles = now.cycles - first.cycles;
    assert!(cycles >= 10.0, "{library}: {cycles} cycles between the attempts");
    assert!(failures(&page) < cycles / 2.0, "{library}: an attempt in every cycle");
    assert!(now.ticks - first.ticks < 100, "{library}: a second of work for two attempts");
    assert_eq!((now.descriptors, now.threads), (first.descriptors, first.threads), "{library}");
    let maps = fs::read_to_string(format!("/proc/{}/maps", exporter.pid())).unwrap();
    assert!(!maps.contains("libnvidia-ml"), "{library} is still mapped");
    let log = exporter.log();
    assert_eq!(log.matches("driver is down").count(), 1, "{log}");
}

#[test]
fn without_its_driver_the_real_library_is_retried_and_nothing_is_left_behind() {
    let libraries = libraries();
    assert!(libraries.len() >= 4, "{libraries:?}");
    if Path::new("/proc/driver/nvidia/version").exists() {
        println!("skipped: this machine has an NVIDIA driver");
        return;
    }
    let stray = Path::new(NODE).exists();
    // All at once: what takes time is the waiting between the attempts.
    let exporters = libraries.iter().map(|library| {
        let library = library.to_str().unwrap();
        let args = ["--nvml-library", library, "--collect-interval", "200"];
        (library, Exporter::start(&args))
    });
    let exporters: Vec<_> = exporters.collect();
    let first: Vec<Seen> = exporters.iter().map(|(library, e)| first_refusal(library, e)).collect();
    for ((library, exporter), first) in exporters.iter().zip(first) {
        later_attempts(library, exporter, &first);
    }
    assert_eq!(Path::new(NODE).exists(), stray, "the library has left {NODE} behind");
}

#[test]
fn check_tells_that_their_module_is_not_loaded() {
    for library in libraries() {
        let library = library.display().to_string();
        let args = ["check", "--address=127.0.0.1:0", "--nvml-library", &library];
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains(&format!("{library}: loaded; it does not start")), "{told}");
        assert!(told.contains("nvmlInit_v2: no session (driver_not_loaded)"), "{told}");
        assert!(!Path::new(NODE).exists(), "it leaves no device node behind");
    }
}
