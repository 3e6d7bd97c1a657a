//! How much a cycle asks of the driver.

use std::collections::BTreeMap;
use std::fs;

use crate::exporter::{Exporter, value};

/// Eight GPUs with a process on most of them, one cycle a second.
const ARGS: [&str; 3] = ["--mock=demo", "--collect-interval", "1000"];
const GPUS: u64 = 8;
/// From the cycle after the first few to the one that ends a whole round of slow readings.
const CYCLES: u64 = 10;
/// Calls per GPU and cycle.
const MOST: f64 = 12.0;

type Calls = BTreeMap<String, u64>;

/// Counts by function, as the mock library wrote them.
fn calls(text: &str) -> Calls {
    let count = |line: &str| {
        let (count, function) = line.split_once(' ').unwrap();
        (function.to_owned(), count.parse().unwrap())
    };
    text.lines().map(count).collect()
}

fn cycles(page: &str) -> Option<f64> {
    value(page, "nvml_exporter_cycles_total", &[])
}

#[test]
fn a_cycle_asks_the_driver_little_and_no_fact_twice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let exporter = Exporter::start_with(&[("MOCK_NVML_CALLS", file.to_str().unwrap())], &ARGS);
    let after = |cycle: f64| {
        let page = exporter.wait_for("a cycle", |page| cycles(page).is_some_and(|n| n >= cycle));
        let calls = calls(&fs::read_to_string(&file).unwrap());
        (cycles(&page).unwrap(), calls)
    };
    let (first, before) = after(3.0);
    let (last, all) = after(first + f64_of(CYCLES));

    let grown = |function: &str| {
        f64_of(all[function] - before.get(function).copied().unwrap_or_default()) / f64_of(GPUS)
    };
    // A cycle may have begun or ended between the page and the counts: the cycles that were counted
    // are those in which every GPU was asked for its fields, in one batch.
    let counted = grown("nvmlDeviceGetFieldValues");
    assert!((counted - (last - first)).abs() <= 1.5, "{counted} in {first} to {last}: {all:#?}");
    let each = |function: &String| (function.clone(), grown(function) / counted);
    let each: BTreeMap<String, f64> = all.keys().map(each).collect();
    let sum: f64 = each.values().sum();
    assert!(sum <= MOST, "{sum} calls for each GPU in a cycle: {each:#?}");

    // Facts are asked once for each GPU.
    for fact in ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMinorNumber"] {
        assert_eq!(all.get(fact), Some(&GPUS), "{fact}: {all:#?}");
    }
    // What several rows share is read once a cycle.
    for shared in [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetProcessesUtilizationInfo",
    ] {
        assert!((0.9..=1.1).contains(&each[shared]), "{shared}: {each:#?}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn f64_of(count: u64) -> f64 {
    count as f64
}
