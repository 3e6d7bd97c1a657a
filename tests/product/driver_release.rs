//! Releasing NVML on request, and reacquiring it.

use std::collections::BTreeMap;
use std::fs;

use crate::exporter::{Exporter, Scenario, WATCH_NODE, series, value};

const SHORT_INTERVAL: [&str; 4] = ["--collect-interval", "200", "--max-age", "1000"];
const TWO_T4: &str = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";

fn start(environment: &[(&str, &str)], scenario: &Scenario, args: &[&str]) -> Exporter {
    let flag = scenario.flag();
    let args = [&[flag.as_str()], SHORT_INTERVAL.as_slice(), args].concat();
    let exporter = Exporter::start_with(environment, &args);
    exporter.wait_for("GPUs", is_acquired);
    exporter
}

fn is_acquired(metrics: &str) -> bool {
    series(metrics, "DCGM_FI_DEV_GPU_UTIL").len() == 2
        && value(metrics, "nvml_exporter_released", &[]) == Some(0.0)
}

/// Waits until NVML is released, and checks that no device series are served and `/readyz` names the
/// request.
fn wait_for_release(exporter: &Exporter, request: &str) {
    let metrics = exporter.wait_for("the release", |metrics| {
        value(metrics, "nvml_exporter_released", &[]) == Some(1.0)
    });
    assert_eq!(value(&metrics, "nvml_exporter_driver_up", &[]), Some(0.0));
    assert!(!metrics.lines().any(|line| line.starts_with("DCGM_FI_")), "{metrics}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("(released)"), "{}", readiness.text());
    assert!(readiness.text().contains(request), "{}", readiness.text());
    assert_eq!(exporter.get("/healthz").status, 200);
}

fn wait_for_cycles(exporter: &Exporter, more: f64) {
    let cycles = |metrics: &str| value(metrics, "nvml_exporter_cycles_total", &[]).unwrap();
    let from = cycles(&exporter.metrics());
    exporter.wait_for("more cycles", |metrics| cycles(metrics) >= from + more);
}

#[test]
fn sigusr1_releases_nvml_and_sigusr2_reacquires_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let calls = || {
        let text = fs::read_to_string(&file).unwrap();
        let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
        pairs.map(|(n, name)| (name.to_owned(), n.parse().unwrap())).collect::<BTreeMap<_, u64>>()
    };
    let scenario = Scenario::new("signal", TWO_T4);
    let exporter = start(&[("MOCK_NVML_CALLS", file.to_str().unwrap())], &scenario, &[]);
    exporter.send_signal("-USR1");
    wait_for_release(&exporter, "requested by SIGUSR1, until SIGUSR2");
    let before = calls();
    wait_for_cycles(&exporter, 5.0);
    assert_eq!(calls(), before, "no NVML calls while released");

    // A repeated request changes nothing.
    exporter.send_signal("-USR1");
    wait_for_cycles(&exporter, 2.0);
    wait_for_release(&exporter, "SIGUSR1");

    // The driver is replaced meanwhile: nothing of the old one is kept.
    scenario.rewrite(&format!("{TWO_T4}[driver]\nversion = \"570.86.15\"\n"));
    exporter.send_signal("-USR2");
    let metrics = exporter.wait_for("GPUs again", is_acquired);
    let version = value(&metrics, "nvml_exporter_driver_info", &["\"570.86.15\""]);
    assert_eq!(version, Some(1.0), "{metrics}");
    wait_for_cycles(&exporter, 5.0);
    let calls = calls();
    assert_eq!(calls["nvmlInit_v2"], calls["nvmlShutdown"] + 1, "{calls:?}");
    assert_eq!(value(&exporter.metrics(), "nvml_exporter_threads_abandoned", &[]), Some(0.0));
    let log = exporter.log();
    assert_eq!(log.matches("NVML is released").count(), 1, "{log}");
}

/// Heaps of threads: glibc aligns each to 64 MiB.
fn thread_heaps(exporter: &Exporter) -> usize {
    const SIZE: u64 = 64 << 20;
    let maps = fs::read_to_string(format!("/proc/{}/maps", exporter.pid())).unwrap();
    let mapping = |line: &str| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        (start, end, rest.split(' ').next().unwrap().to_owned())
    };
    let mappings: Vec<_> = maps.lines().map(mapping).collect();
    // A heap is reserved as a whole, and its begin is in use.
    let is_heap = |pair: &&[(u64, u64, String)]| {
        let [(start, used, access), (next, end, reserved)] = pair else { return false };
        start.is_multiple_of(SIZE)
            && (access == "rw-p" && reserved == "---p")
            && (used == next && *end == start + SIZE)
    };
    mappings.windows(2).filter(is_heap).count()
}

#[test]
fn threads_of_many_sessions_share_one_heap() {
    let scenario = Scenario::new("heap", TWO_T4);
    let exporter = start(&[], &scenario, &[]);
    for _ in 0..3 {
        exporter.wait_for("a session", is_acquired);
        exporter.send_signal("-USR1");
        wait_for_release(&exporter, "SIGUSR1");
        exporter.send_signal("-USR2");
    }
    exporter.wait_for("a session", is_acquired);
    assert_eq!(thread_heaps(&exporter), 0, "the memory of each would grow to that of the largest");
}

#[test]
fn nvml_is_released_while_the_file_exists() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("release");
    let scenario = Scenario::new("file", TWO_T4);
    let exporter = start(&[], &scenario, &["--release-file", file.to_str().unwrap()]);
    for _ in 0..2 {
        fs::write(&file, "").unwrap();
        wait_for_release(&exporter, &format!("requested by the file {}", file.display()));
        fs::remove_file(&file).unwrap();
        exporter.wait_for("GPUs again", is_acquired);
    }
}

#[test]
fn nvml_is_released_while_the_node_has_the_label() {
    let whole = "[[gpu]]\nmodel = \"A100\"\nmig = [{ from = 30, instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
    let cluster = "[cluster]\nlabels = [{ key = \"nvidia.com/mig.config.state\", value = \"pending\", from = 20, to = 40 }, { key = \"nvidia.com/mig.config.state\", value = \"success\", from = 40 }]\n";
    let at = |now: u32| format!("now = {now}\n{whole}{cluster}");
    let scenario = Scenario::new("label", &at(10));
    let flag = scenario.flag();
    let args = [&[flag.as_str(), WATCH_NODE], SHORT_INTERVAL.as_slice()].concat();
    let exporter = Exporter::start(&args);
    let devices = |metrics: &str| series(metrics, "DCGM_FI_DEV_FB_USED").len();
    let metrics = exporter.wait_for("the GPU and the node label", |metrics| {
        devices(metrics) == 1
            && value(metrics, "nvml_exporter_source_up", &["\"node_label\""]) == Some(1.0)
    });
    assert!(!metrics.contains("GPU_I_ID=\"1\""), "{metrics}");

    for now in [20, 30] {
        scenario.rewrite(&at(now));
        wait_for_release(&exporter, "the node label nvidia.com/mig.config.state=pending");
    }
    scenario.rewrite(&at(40));
    exporter.wait_for("the MIG devices", |metrics| metrics.contains("GPU_I_ID=\"1\""));
}

#[test]
fn nvml_is_not_released_while_a_call_hangs() {
    let scenario = Scenario::new("hung", TWO_T4);
    let exporter = start(&[], &scenario, &[]);
    let hang = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    scenario.rewrite(&format!("{TWO_T4}{hang}"));
    exporter.wait_for("the hang", |metrics| {
        value(metrics, "nvml_exporter_gpu_up", &["gpu=\"1\""]) == Some(0.0)
    });
    exporter.send_signal("-USR1");
    let metrics = exporter.wait_for("the driver to be down", |metrics| {
        value(metrics, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    assert_eq!(value(&metrics, "nvml_exporter_released", &[]), Some(0.0));
    wait_for_cycles(&exporter, 3.0);
    let readiness = exporter.get("/readyz").text();
    assert!(
        readiness.contains("(releasing)") && readiness.contains("waiting for driver calls"),
        "{readiness}"
    );

    scenario.rewrite(TWO_T4);
    wait_for_release(&exporter, "SIGUSR1");
}

#[test]
fn nvml_is_not_released_while_a_call_of_an_earlier_session_hangs() {
    let gpus = |count: u32| format!("now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = {count}\n");
    let scenario = Scenario::new("earlier", &gpus(3));
    let exporter = Exporter::start(&[&[&*scenario.flag()], SHORT_INTERVAL.as_slice()].concat());
    let devices = |metrics: &str| series(metrics, "DCGM_FI_DEV_GPU_UTIL").len();
    exporter.wait_for("GPUs", |metrics| devices(metrics) == 3);
    // A call that takes 12 s, even if its GPU is removed.
    let slow = "[[fault]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ngpu = 1\ndelay = 12\n";
    scenario.rewrite(&format!("{}{slow}", gpus(3)));
    exporter.wait_for("a GPU that hangs", |metrics| devices(metrics) == 2);
    // Removing a GPU ends the session.
    scenario.rewrite(&gpus(2));
    exporter.wait_for("the next session", |metrics| {
        devices(metrics) == 2 && value(metrics, "nvml_exporter_threads_abandoned", &[]) == Some(1.0)
    });
    exporter.send_signal("-USR1");
    exporter.wait_for("the driver to be down", |metrics| {
        value(metrics, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    wait_for_cycles(&exporter, 8.0);
    assert_eq!(value(&exporter.metrics(), "nvml_exporter_released", &[]), Some(0.0));
    wait_for_release(&exporter, "SIGUSR1");
}

#[test]
fn invalid_release_label_is_refused() {
    let output = crate::exporter::run(&["--mock", "--release-label", "pending"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("--release-label pending: not a label; give KEY=VALUE"), "{error}");
}

#[test]
fn what_needs_an_api_server_says_so_without_one() {
    for (flag, expected, is_fatal) in [
        (
            "--release-label=a=b",
            "--release-label needs an API server, and none is configured",
            false,
        ),
        (
            "--configmap-data=ns:name",
            "--configmap-data ns:name: the in-cluster configuration",
            true,
        ),
    ] {
        let output = crate::exporter::run(&["--print-metrics", flag]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected) && output.status.success() != is_fatal, "{flag}: {error}");
    }
}
