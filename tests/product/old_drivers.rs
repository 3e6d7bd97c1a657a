//! Drivers that lack NVML calls or return wrong data, and one without the legacy process utilization call.

use std::collections::BTreeMap;

use crate::exporter::{Scenario, run_once, series, value};

fn metrics_of(name: &str) -> String {
    run_once(&[&Scenario::built_in_at(name, 60).flag(), "--node-name", "node-1"])
}

/// The values of a process family by PID.
fn by_process(metrics: &str, family: &str) -> BTreeMap<u32, f64> {
    let sample = |line: &str| {
        let pid = line.split("ProcessId=\"").nth(1)?.split('"').next()?.parse().ok()?;
        Some((pid, line.rsplit(' ').next()?.parse().ok()?))
    };
    series(metrics, family).into_iter().filter_map(sample).collect()
}

#[test]
fn driver_535_is_read_through_older_process_lists() {
    let metrics = metrics_of("abi-535");
    let used = by_process(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED");
    let workers = (5101..5109).map(|pid| (pid, 3072.0));
    let clients = (5210..5213).map(|pid| (pid, 2048.0));
    let expected: BTreeMap<u32, f64> = workers.chain(clients).collect();
    assert_eq!(used, expected);
    let server = ["gpu=\"1\"", "owner=\"mps_server\""];
    assert_eq!(value(&metrics, "nvml_exporter_framebuffer_bytes", &server), Some(31_457_280.0));
    assert_eq!(series(&metrics, "nvml_exporter_discarded_rows_total"), Vec::<&str>::new());
}

#[test]
fn driver_470_is_read_through_the_calls_it_has() {
    let metrics = metrics_of("old-driver");
    let by_pid = by_process(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED");
    assert_eq!(by_pid, BTreeMap::from([(1201, 6144.0), (1377, 52224.0)]));
    assert_eq!(by_process(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL").len(), 2);
    let of_gpu = |family: &str, gpu: u32| value(&metrics, family, &[&format!("gpu=\"{gpu}\"")]);
    // Without nvmlDeviceGetMemoryInfo_v2, reserved memory counts as used.
    let (used, free) = (of_gpu("DCGM_FI_DEV_FB_USED", 1), of_gpu("DCGM_FI_DEV_FB_FREE", 1));
    let total = of_gpu("DCGM_CUSTOM_DEV_FB_TOTAL", 1).unwrap();
    assert!((total - used.unwrap() - free.unwrap()).abs() <= 1.0, "{used:?} {free:?} {total}");
    assert!(of_gpu("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", 0).is_some(), "read under its older name");
    let retired =
        ["SBE", "DBE", "PENDING"].map(|kind| of_gpu(&format!("DCGM_FI_DEV_RETIRED_{kind}"), 0));
    assert_eq!(retired, [Some(2.0), Some(1.0), Some(1.0)]);
    assert_eq!(of_gpu("DCGM_FI_DEV_RETIRED_DBE", 2), None, "an A100 remaps rows instead");
}

#[test]
fn new_utilization_call_is_used_where_only_it_works() {
    let metrics = metrics_of("blackwell");
    let utilization = by_process(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL");
    assert_eq!(
        utilization,
        BTreeMap::from([(2101, 82.0), (2102, 82.0), (2240, 12.0), (2301, 5.0)])
    );
}

#[test]
fn old_utilization_call_is_used_where_only_it_exists() {
    let missing =
        "[[fault]]\nfunction = \"nvmlDeviceGetProcessesUtilizationInfo\"\nmissing = true\n";
    let text = format!(
        "now = 60\n[[gpu]]\nmodel = \"H100\"\n[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\n\
         memory = \"1 GiB\"\nsm = 40\n{missing}"
    );
    let metrics = run_once(&[&Scenario::new("old-call", &text).flag()]);
    assert_eq!(by_process(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL"), BTreeMap::from([(7, 40.0)]));
}
