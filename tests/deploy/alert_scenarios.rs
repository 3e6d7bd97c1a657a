//! Every alert, raised by a real Prometheus on a mock node in the state that the alert detects.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::programs::{Server, tool_path, url_encode};
use crate::rules::{alerts, documented_counters, groups};

const STATES: &str = "/api/v1/rules?type=alert";

/// The rule groups with shorter durations, since the tests run for seconds.
fn accelerated_groups() -> Value {
    let original = groups().to_string();
    let replacements =
        [("_seconds > 60", "_seconds > 2"), ("_seconds < 60", "_seconds < 2"), ("[5m]", "[3s]")];
    let accelerated = replacements.into_iter().fold(original, |text, (long, short)| {
        assert!(text.contains(long), "{long}");
        text.replace(long, short)
    });
    serde_json::from_str(&accelerated).unwrap()
}

fn prometheus(targets: &[&str]) -> Server {
    Server::start_prometheus_with_rules(
        &tool_path("debian/usr/bin/prometheus"),
        targets,
        &accelerated_groups(),
    )
}

/// The alerts with a true condition (pending or firing).
fn raised(body: &str) -> BTreeSet<String> {
    let response: Value = serde_json::from_str(body).unwrap_or_default();
    let groups = response["data"]["groups"].as_array().cloned().unwrap_or_default();
    let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
    let raised = rules.filter(|rule| matches!(rule["state"].as_str(), Some("pending" | "firing")));
    raised.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until each of these alerts has been raised at least once.
fn wait_for_alerts(prometheus: &Server, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|alert| (*alert).to_owned()).collect();
    let missing = RefCell::new(wanted);
    prometheus.wait_until(STATES, |body| {
        let raised = raised(body);
        missing.borrow_mut().retain(|alert| !raised.contains(alert));
        let missing = missing.borrow();
        if missing.is_empty() { Ok(()) } else { Err(format!("not raised: {missing:?}")) }
    });
}

/// Runs an exporter on a scenario and a Prometheus until each of these alerts has been raised at least once.
fn run_until_raised(scenario: &str, flags: &[&str], wanted: &[&str]) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("scenario.toml");
    fs::write(&file, scenario).unwrap();
    let mock = format!("--mock={}", file.display());
    let exporter =
        Server::start_exporter(&[&[mock.as_str(), "--node-name=node-1"], flags].concat());
    wait_for_alerts(&prometheus(&[exporter.address()]), wanted);
}

const FAST_CYCLES: [&str; 1] = ["--collect-interval=300"];

/// Scenarios and the alerts that they raise.
const NODES: [(&str, &[&str]); 6] = [
    (
        r#"
[[gpu]]
model = "H100"
lost = [{ from = 4.0 }]
[[gpu]]
model = "T4"
ambient = 60
slowed = [{ by = "board_limit", from = 4.0, to = 600.0 }]
retired = { pending = true }
[[gpu]]
model = "L20"
[[gpu]]
model = "T4"
[[fault]]
function = "nvmlDeviceGetUUID"
gpu = 3
code = "UNKNOWN"
[[xid]]
gpu = 2
at = 4.0
code = 94
[[xid]]
gpu = 2
at = 4.1
code = 63
[[xid]]
gpu = 2
at = 4.2
code = 31
[[xid]]
gpu = 2
at = 4.3
code = 999
[[process]]
pid = 100
name = "guest"
gpus = [1]
memory = "1 GiB"
sm = 100
mem = 100
[[pod]]
name = "full"
containers = [{ name = "c", gpus = [2] }]
[[process]]
pid = 200
name = "vllm"
pod = "default/full"
gpus = [2]
memory = "44 GiB"
sm = 0
"#,
        &[
            "GpuLost",
            "GpuUnidentified",
            "GpuXidHardware",
            "GpuXidMemory",
            "GpuXidRecorded",
            "GpuXidApplication",
            "GpuXidOther",
            "GpuPagesPendingRetirement",
            "GpuMemoryNearlyFull",
            "PodGpuMemoryNearlyFull",
            "GpuThermalThrottling",
            "GpuHardwareSlowdown",
            "GpuAllocatedButIdle",
            "GpuUsedWithoutAllocation",
        ],
    ),
    (
        r#"
[[gpu]]
model = "H100"
[[process]]
pid = 100
name = "train"
gpus = [0]
memory = "60 GiB"
sm = 100
mem = 100
pipes = { tensor = 1.0 }
"#,
        &["GpuPowerThrottling"],
    ),
    (
        r#"
[driver]
version = "595.91.07"
[[gpu]]
model = "GB200"
ambient = 60
repair = { action = 2, unrepairable = true, from = 2.0 }
[[xid]]
gpu = 0
at = 3.0
code = 163
[[process]]
pid = 100
name = "train"
gpus = [0]
memory = "60 GiB"
sm = 100
"#,
        &[
            "GpuRecoveryAction",
            "GpuMemoryUnrepairable",
            "GpuTemperatureMargin",
            "GpuPowerSmoothingOff",
        ],
    ),
    (
        r#"
pid_namespace = "container"
[[gpu]]
model = "L20"
[[pod]]
name = "torn"
annotations = { "scheduler.framework.gpushare.allocation" = "{" }
containers = [{ name = "c", ack = { gpu = 0, gib = 4 } }]
[[process]]
pid = 100
name = "p"
gpus = [0]
memory = "1 GiB"
cgroup = "0::/kubepods.slice/kubepods-pod0e5a6b7c_1111_2222_3333_444455556666.slice"
[[cluster_fault]]
source = "api"
effect = "close"
from = 6.0
"#,
        &[
            "GpuAttributionBroken",
            "GpuPidNamespace",
            "GpuProcessesUnresolved",
            "GpuAllocationProblem",
        ],
    ),
    (
        "[driver]\nreload = [{ from = 0.0, to = 600.0 }]\n[[gpu]]\nmodel = \"T4\"\n",
        &["NvmlDriverDown"],
    ),
    (
        r#"
[[gpu]]
model = "T4"
[[gpu]]
model = "T4"
[[fault]]
function = "*"
gpu = 1
from = 4.0
hang = true
[[fault]]
function = "*"
gpu = 0
from = 9.0
to = 10.0
code = "UNINITIALIZED"
"#,
        &["GpuHung", "NvmlDriverHung"],
    ),
];

#[test]
fn gpu_and_driver_alerts_are_raised() {
    for (scenario, wanted) in NODES {
        run_until_raised(scenario, &FAST_CYCLES, wanted);
    }
}

/// The state that each of [`COUNTED`] detects.
const FAULTY_LINKS: &str = r#"
[driver]
version = "615.71"
[[gpu]]
model = "GB200"
repair = { tpc = true, sram = true }
nvlink = { link = 3, symbol = 9, effective = 2, from = 4.0 }
c2c = { errors = 4, from = 4.0 }
[[gpu]]
model = "GB200"
nvlink = { fabric = "registering" }
"#;
/// Alerts on families that the counters file of docs/alerts.md selects.
const COUNTED: [&str; 5] =
    ["GpuRepairPending", "GpuNvLinkErrors", "GpuC2cErrors", "GpuHealthFailed", "GpuHealthWarning"];

#[test]
fn alerts_on_families_of_a_counters_file_are_raised() {
    let counters = tempfile::NamedTempFile::new().unwrap();
    fs::write(counters.path(), documented_counters()).unwrap();
    let flag = format!("-f={}", counters.path().display());
    run_until_raised(FAULTY_LINKS, &[&flag, FAST_CYCLES[0]], &COUNTED);
}

#[test]
fn exporter_alerts_are_raised() {
    // The second collection cycle never comes.
    run_until_raised(
        "[[gpu]]\nmodel = \"T4\"\n",
        &["--collect-interval=3600000"],
        &["NvmlExporterStale"],
    );

    let exporter = || Server::start_exporter(&["--mock=idle-t4", "--node-name=node-1"]);
    let (one, other) = (exporter(), exporter());
    let prometheus = prometheus(&[one.address(), other.address()]);
    wait_for_alerts(&prometheus, &["NvmlExporterTwice"]);
    drop((one, other));
    wait_for_alerts(&prometheus, &["NvmlExporterDown", "NvmlExporterGone"]);
}

#[test]
fn missing_gpu_alert_is_raised() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("scenario.toml");
    let gpus = |count: u32| format!("[[gpu]]\nmodel = \"T4\"\ncount = {count}\n");
    fs::write(&file, gpus(2)).unwrap();
    let mock = format!("--mock={}", file.display());
    let exporter = Server::start_exporter(&[&mock, "--node-name=node-1", "--collect-interval=300"]);
    let prometheus = prometheus(&[exporter.address()]);
    let two = "/api/v1/query?query=DCGM_FI_DEV_COUNT==2";
    prometheus.wait_for(two, |body| body.contains(r#""value""#));
    fs::write(&file, gpus(1)).unwrap();
    wait_for_alerts(&prometheus, &["GpuMissing"]);
}

#[test]
fn node_without_gpu_raises_no_alert() {
    let exporter = Server::start_exporter(&["--mock=no-gpu", "--collect-interval=300"]);
    let prometheus = prometheus(&[exporter.address()]);
    // The rules are evaluated as often as the target is scraped.
    let scrapes = "count_over_time(nvml_exporter_node_without_gpu[1h]) > 10";
    let path = format!("/api/v1/query?query={}", url_encode(scrapes));
    prometheus.wait_for(&path, |body| body.contains(r#""value""#));
    // Before the first scrape, no exporter is there.
    let past = prometheus.query(r#"count_over_time(ALERTS{alertname!="NvmlExporterGone"}[1h])"#);
    assert!(past.contains(r#""result":[]"#), "{past}");
    prometheus.wait_until(STATES, |body| {
        let raised = raised(body);
        if raised.is_empty() { Ok(()) } else { Err(format!("raised: {raised:?}")) }
    });
}

#[test]
fn every_alert_is_covered() {
    let mut covered: BTreeSet<&str> =
        NODES.iter().flat_map(|(_, wanted)| *wanted).copied().collect();
    covered.extend(["NvmlExporterStale", "NvmlExporterTwice", "NvmlExporterDown"]);
    covered.extend(["NvmlExporterGone", "GpuMissing"]);
    covered.extend(COUNTED);
    let alerts = alerts();
    let all: BTreeSet<&str> = alerts.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(covered, all);
}
