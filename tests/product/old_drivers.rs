//! Drivers that lack calls, or get them wrong, and one that lacks the call that all others have.

use std::collections::BTreeMap;

use crate::exporter::{Scenario, once, series, value};

fn page(name: &str) -> String {
    once(&[&Scenario::held(name, 60).flag(), "--node-name", "node-1"])
}

/// The numbers of a process family, by pid.
fn by_process(page: &str, family: &str) -> BTreeMap<u32, f64> {
    let of = |line: &str| {
        let pid = line.split("ProcessId=\"").nth(1)?.split('"').next()?.parse().ok()?;
        Some((pid, line.rsplit(' ').next()?.parse().ok()?))
    };
    series(page, family).into_iter().filter_map(of).collect()
}

#[test]
fn a_driver_that_writes_wide_rows_is_read_by_its_older_lists() {
    let page = page("abi-535");
    let held = by_process(&page, "DCGM_CUSTOM_PROCESS_MEM_USED");
    let workers = (5101..5109).map(|pid| (pid, 3072.0));
    let clients = (5210..5213).map(|pid| (pid, 2048.0));
    let truth: BTreeMap<u32, f64> = workers.chain(clients).collect();
    assert_eq!(held, truth);
    let server = ["gpu=\"1\"", "owner=\"mps_server\""];
    assert_eq!(value(&page, "nvml_exporter_framebuffer_bytes", &server), Some(31_457_280.0));
    assert_eq!(series(&page, "nvml_exporter_discarded_rows_total"), Vec::<&str>::new());
}

#[test]
fn a_driver_of_470_is_read_by_what_it_has() {
    let page = page("old-driver");
    let held = by_process(&page, "DCGM_CUSTOM_PROCESS_MEM_USED");
    assert_eq!(held, BTreeMap::from([(1201, 6144.0), (1377, 52224.0)]));
    assert_eq!(by_process(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL").len(), 2);
    let of_gpu = |family: &str, gpu: u32| value(&page, family, &[&format!("gpu=\"{gpu}\"")]);
    // Without the second version of the call, what is reserved counts as used.
    let (used, free) = (of_gpu("DCGM_FI_DEV_FB_USED", 1), of_gpu("DCGM_FI_DEV_FB_FREE", 1));
    let total = of_gpu("DCGM_CUSTOM_DEV_FB_TOTAL", 1).unwrap();
    assert!((total - used.unwrap() - free.unwrap()).abs() <= 1.0, "{used:?} {free:?} {total}");
    assert!(of_gpu("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", 0).is_some(), "by its older name");
    let retired =
        ["SBE", "DBE", "PENDING"].map(|what| of_gpu(&format!("DCGM_FI_DEV_RETIRED_{what}"), 0));
    assert_eq!(retired, [Some(2.0), Some(1.0), Some(1.0)]);
    assert_eq!(of_gpu("DCGM_FI_DEV_RETIRED_DBE", 2), None, "an A100 remaps rows instead");
}

#[test]
fn where_only_the_new_call_works_it_is_used() {
    let page = page("blackwell");
    let told = by_process(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL");
    assert_eq!(told, BTreeMap::from([(2101, 82.0), (2102, 82.0), (2240, 12.0), (2301, 5.0)]));
}

#[test]
fn where_only_the_old_call_is_there_it_is_used() {
    let missing =
        "[[fault]]\nfunction = \"nvmlDeviceGetProcessesUtilizationInfo\"\nmissing = true\n";
    let text = format!(
        "now = 60\n[[gpu]]\nmodel = \"H100\"\n[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\n\
         memory = \"1 GiB\"\nsm = 40\n{missing}"
    );
    let page = once(&[&Scenario::new("old-call", &text).flag()]);
    assert_eq!(by_process(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL"), BTreeMap::from([(7, 40.0)]));
}
