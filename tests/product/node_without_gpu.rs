//! Nodes without an NVIDIA GPU, and nodes with a GPU and without a driver.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::exporter::{Exporter, Scenario, run, series, value};

const SHORT_INTERVAL: [&str; 2] = ["--collect-interval", "200"];
const WITHOUT_GPU: &str = "nvml_exporter_node_without_gpu";
const DRIVER_UP: &str = "nvml_exporter_driver_up";
const T4: &str = "[[gpu]]\nmodel = \"T4\"\n";

fn start(args: &[&str]) -> Exporter {
    Exporter::start(&[args, SHORT_INTERVAL.as_slice()].concat())
}

fn is_without_gpu(metrics: &str) -> bool {
    value(metrics, WITHOUT_GPU, &[]) == Some(1.0)
}

/// A directory to read as `/sys`, with a PCI bus.
struct SysRoot(tempfile::TempDir);

impl SysRoot {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.add("0000:00:00.0", "0x8086", "0x060000");
        root
    }

    fn add_gpu(&self) {
        self.add("0000:1b:00.0", "0x10de", "0x030200");
    }

    fn remove_gpu(&self) {
        fs::remove_dir_all(self.0.path().join("bus/pci/devices/0000:1b:00.0")).unwrap();
    }

    /// Adds a device, which appears with all its files.
    fn add(&self, address: &str, vendor: &str, class: &str) {
        let draft = self.0.path().join("draft");
        fs::create_dir(&draft).unwrap();
        fs::write(draft.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(draft.join("class"), format!("{class}\n")).unwrap();
        let devices = self.0.path().join("bus/pci/devices");
        fs::create_dir_all(&devices).unwrap();
        fs::rename(draft, devices.join(address)).unwrap();
    }

    fn flag(&self) -> String {
        format!("--sysfs={}", self.0.path().display())
    }
}

#[test]
fn node_without_gpu_is_ready_and_says_so_once() {
    let exporter = start(&["--mock=no-gpu"]);
    let cycles = |metrics: &str| value(metrics, "nvml_exporter_cycles_total", &[]);
    let metrics = exporter.wait_for("some cycles", |metrics| cycles(metrics) > Some(3.0));
    assert!(is_without_gpu(&metrics), "{metrics}");
    for absent in [DRIVER_UP, "nvml_exporter_driver_open_failures_total", "nvml_exporter_source_up"]
    {
        assert!(series(&metrics, absent).is_empty(), "{metrics}");
    }
    let gpus = value(&metrics, "DCGM_FI_DEV_COUNT", &["NodeName=\"node-1\""]);
    assert_eq!(gpus, Some(0.0), "{metrics}");
    assert!(metrics.lines().filter(|line| line.starts_with("DCGM_")).count() == 1, "{metrics}");

    let readiness = exporter.get("/readyz");
    let text = readiness.text();
    assert_eq!((readiness.status, exporter.get("/startupz").status), (200, 200), "{text}");
    assert!(text.starts_with("ready\nthis node has no NVIDIA GPU: none of the 3 PCI"), "{text}");

    let log = exporter.log();
    assert_eq!(log.matches("this node has no NVIDIA GPU").count(), 1, "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    // Neither the driver's library nor the cluster is used.
    let process = format!("/proc/{}", exporter.pid());
    let maps = fs::read_to_string(format!("{process}/maps")).unwrap();
    assert!(!maps.contains("libnvidia-ml"), "{maps}");
    let tasks = fs::read_dir(format!("{process}/task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    let threads: Vec<String> = tasks.map(|task| name(task.unwrap())).collect();
    assert!(threads.iter().all(|name| !name.starts_with("cluster")), "{threads:?}");
}

#[test]
fn page_json_top_and_check_say_that_there_is_no_gpu() {
    let reason = "this node has no NVIDIA GPU: none of the 3 PCI devices";
    let exporter = start(&["--mock=no-gpu"]);
    exporter.wait_for("the state", is_without_gpu);
    let node: Value = serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap();
    assert_eq!((&node["ready"], &node["driver"]["reason"]), (&true.into(), &"no_gpu".into()));
    assert!(node["no_gpu_reason"].as_str().unwrap().starts_with(reason), "{node}");
    let page = exporter.get("/").text();
    assert!(page.contains("Ready: ") && page.contains(reason), "{page}");
    assert!(page.contains("not needed") && !page.contains(">down<"), "{page}");

    for args in [vec!["top", "--once"], vec!["top", "--once", "--dialect=dcgm-exporter"]] {
        let output = run(&[&args, &["--mock=no-gpu"][..]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(reason) && error.contains("top --mock=demo"), "{error}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
    let output = run(&["check", "--mock=no-gpu", "--address=127.0.0.1:0", "--output=json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    let findings = report["findings"].as_array().unwrap();
    let of = |topic: &str| findings.iter().find(|finding| finding["topic"] == topic).unwrap();
    assert_eq!(of("driver")["verdict"], "note");
    assert!(of("driver")["message"].as_str().unwrap().contains(reason), "{report}");
    assert_eq!(
        (&of("library")["verdict"], &of("gpu")["verdict"]),
        (&"skipped".into(), &"ok".into())
    );

    let output = run(&["--once", "--mock=no-gpu"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(reason), "{error}");
}

/// Signals end the wait for the next look at the bus.
fn look_again(exporter: &Exporter) {
    exporter.send_signal("-USR1");
    exporter.wait_for("the release", |metrics| {
        value(metrics, "nvml_exporter_released", &[]) == Some(1.0)
    });
    exporter.send_signal("-USR2");
}

#[test]
fn gpu_that_appears_later_is_read_with_its_pods() {
    let sys = SysRoot::new();
    let exporter = start(&["--mock=demo", &sys.flag()]);
    exporter.wait_for("the state", is_without_gpu);
    look_again(&exporter);
    exporter.wait_for("the state again", is_without_gpu);
    sys.add_gpu();
    look_again(&exporter);
    let metrics = exporter.wait_for("a pod", |metrics| {
        let processes = series(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL");
        processes.iter().any(|process| process.contains("PodName=\"train\""))
    });
    assert!(series(&metrics, WITHOUT_GPU).is_empty(), "{metrics}");
    assert_eq!(value(&metrics, DRIVER_UP, &[]), Some(1.0));
    let log = exporter.log();
    assert!(log.contains("driver is up") && !log.contains("driver is down"), "{log}");
}

#[test]
fn gpu_without_a_driver_is_not_a_node_without_gpu() {
    let scenario = Scenario::new("unloaded", &format!("{T4}[driver]\nreload = [{{ from = 0 }}]\n"));
    let exporter = start(&[&scenario.flag()]);
    let metrics = exporter
        .wait_for("the driver state", |metrics| value(metrics, DRIVER_UP, &[]) == Some(0.0));
    assert!(series(&metrics, WITHOUT_GPU).is_empty(), "{metrics}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("driver_not_loaded"), "{}", readiness.text());
}

#[test]
fn gpu_that_leaves_the_bus_is_a_fault() {
    let sys = SysRoot::new();
    sys.add_gpu();
    let scenario = Scenario::new("removed", T4);
    let exporter = start(&[&scenario.flag(), &sys.flag()]);
    exporter.wait_for("the driver", |metrics| value(metrics, DRIVER_UP, &[]) == Some(1.0));
    sys.remove_gpu();
    scenario.rewrite(&format!("{T4}[driver]\nreload = [{{ from = 0 }}]\n"));
    let metrics = exporter.wait_for("the failure", |metrics| {
        let failures = "nvml_exporter_driver_open_failures_total";
        value(metrics, failures, &["driver_not_loaded"]).is_some()
    });
    assert_eq!(value(&metrics, DRIVER_UP, &[]), Some(0.0));
    assert!(series(&metrics, WITHOUT_GPU).is_empty(), "{metrics}");
}

#[test]
fn node_that_must_have_a_gpu_is_not_ready_without_one() {
    let exporter = start(&["--mock=no-gpu", "--require-gpu"]);
    exporter.wait_for("the driver state", |metrics| value(metrics, DRIVER_UP, &[]) == Some(0.0));
    assert_eq!(exporter.get("/readyz").status, 503);
    assert!(Path::new(&format!("/proc/{}", exporter.pid())).exists(), "it still serves");
}
