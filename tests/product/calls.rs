//! How much a cycle asks of the driver.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::exporter::Exporter;

/// Eight GPUs with a process on most of them, one cycle a second.
const ARGS: [&str; 3] = ["--mock=demo", "--collect-interval", "1000"];
const GPUS: u64 = 8;
/// A whole round of slow readings.
const CYCLES: u64 = 10;
/// Calls per GPU and cycle.
const MOST: f64 = 12.0;
/// Goes on by time and not by cycle, once a second for all GPUs together.
const WAITS: &str = "nvmlEventSetWait_v2";
/// What several rows share, from the first to the last that a GPU's thread asks for.
const SHARED: [&str; 4] = [
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessesUtilizationInfo",
];

type Calls = BTreeMap<String, u64>;

/// Counts by function, as the mock library wrote them.
fn calls(text: &str) -> Calls {
    let count = |line: &str| {
        let (count, function) = line.split_once(' ').unwrap();
        (function.to_owned(), count.parse().unwrap())
    };
    text.lines().map(count).collect()
}

/// The counts between two cycles, the first of which is at least the one wanted: every GPU has been asked
/// for its fields as often as for what is asked last.
fn between_cycles(exporter: &Exporter, file: &Path, cycle: u64) -> Calls {
    let told = Cell::new(Calls::new());
    exporter.wait_for("counts between two cycles", |_| {
        told.set(calls(&fs::read_to_string(file).unwrap_or_default()));
        let all = told.take();
        let asked = |function| all.get(function).copied().unwrap_or_default();
        let each = asked("nvmlDeviceGetFieldValues");
        let is_between = each >= cycle * GPUS
            && each % GPUS == 0
            && SHARED.into_iter().all(|function| asked(function) == each);
        told.set(all);
        is_between
    });
    told.into_inner()
}

#[test]
fn a_cycle_asks_the_driver_little_and_no_fact_twice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let exporter = Exporter::start_with(&[("MOCK_NVML_CALLS", file.to_str().unwrap())], &ARGS);
    let before = between_cycles(&exporter, &file, 3);
    let asked = |calls: &Calls, function: &str| calls.get(function).copied().unwrap_or_default();
    let cycles = |calls: &Calls| asked(calls, "nvmlDeviceGetFieldValues") / GPUS;
    let all = between_cycles(&exporter, &file, cycles(&before) + CYCLES);

    let counted = f64_of(GPUS * (cycles(&all) - cycles(&before)));
    let each = |function: &String| {
        let grown = asked(&all, function) - asked(&before, function);
        (function.clone(), f64_of(grown) / counted)
    };
    let each: BTreeMap<String, f64> = all.keys().filter(|name| *name != WAITS).map(each).collect();
    let sum = each.values().sum::<f64>() + 1.0 / f64_of(GPUS);
    assert!(sum <= MOST, "{sum} calls for each GPU in a cycle: {each:#?}");

    // Facts are asked once for each GPU.
    for fact in ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMinorNumber"] {
        assert_eq!(all.get(fact), Some(&GPUS), "{fact}: {all:#?}");
    }
    // What several rows share is read once a cycle.
    for shared in SHARED {
        assert!((0.99..=1.01).contains(&each[shared]), "{shared}: {each:#?}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn f64_of(count: u64) -> f64 {
    count as f64
}
