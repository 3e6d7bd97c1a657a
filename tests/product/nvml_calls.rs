//! NVML calls per collection cycle, counted by the mock library.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::exporter::Exporter;

/// Eight GPUs, most of them with a process; one cycle per second.
const ARGS: [&str; 3] = ["--mock=demo", "--collect-interval", "1000"];
const GPUS: u64 = 8;
/// Number of cycles measured: every slow reading is read once in them.
const CYCLES: u64 = 10;
/// Maximum calls per GPU and second, with one cycle per second: what changes with the load is read in each cycle
/// (clocks, temperature, P-state, clock event reasons, video engines, utilization and its samples).
/// Slow cycles ask some of them twice, and read what the health watches need: 0.8.
const CALLS_MAX: f64 = 21.0;
/// Called once per second for all GPUs together, independent of cycles.
const EVENT_WAIT: &str = "nvmlEventSetWait_v2";
/// Calls shared by several catalog rows, in the order in which a GPU's thread makes them.
const SHARED: [&str; 4] = [
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessesUtilizationInfo",
];

type Calls = BTreeMap<String, u64>;

/// Parses the file of the mock library: one `count function` per line.
fn parse_calls(text: &str) -> Calls {
    let count = |line: &str| {
        let (count, function) = line.split_once(' ').unwrap();
        (function.to_owned(), count.parse().unwrap())
    };
    text.lines().map(count).collect()
}

/// The call counts between two cycles, after at least `cycle` cycles: for every GPU, the first and the last call
/// of a cycle have been made equally often.
fn between_cycles(exporter: &Exporter, file: &Path, cycle: u64) -> Calls {
    let counts = Cell::new(Calls::new());
    exporter.wait_for("counts between two cycles", |_| {
        counts.set(parse_calls(&fs::read_to_string(file).unwrap_or_default()));
        let all = counts.take();
        let count = |function| all.get(function).copied().unwrap_or_default();
        let reads = count(SHARED[0]);
        let is_between = reads >= cycle * GPUS
            && reads % GPUS == 0
            && SHARED.into_iter().all(|function| count(function) == reads);
        counts.set(all);
        is_between
    });
    counts.into_inner()
}

#[test]
fn calls_per_cycle_are_bounded_and_static_facts_are_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let exporter = Exporter::start_with(&[("MOCK_NVML_CALLS", file.to_str().unwrap())], &ARGS);
    let before = between_cycles(&exporter, &file, 3);
    let count = |calls: &Calls, function: &str| calls.get(function).copied().unwrap_or_default();
    let cycles = |calls: &Calls| count(calls, SHARED[0]) / GPUS;
    let all = between_cycles(&exporter, &file, cycles(&before) + CYCLES);

    let gpu_cycles = f64_of(GPUS * (cycles(&all) - cycles(&before)));
    let calls_per_cycle = |function: &String| {
        let increase = count(&all, function) - count(&before, function);
        (function.clone(), f64_of(increase) / gpu_cycles)
    };
    let per_cycle: BTreeMap<String, f64> =
        all.keys().filter(|name| *name != EVENT_WAIT).map(calls_per_cycle).collect();
    let sum = per_cycle.values().sum::<f64>() + 1.0 / f64_of(GPUS);
    assert!(sum <= CALLS_MAX, "{sum} calls per GPU and cycle: {per_cycle:#?}");

    // Static facts are read once per GPU.
    for fact in ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMinorNumber"] {
        assert_eq!(all.get(fact), Some(&GPUS), "{fact}: {all:#?}");
    }
    // Calls shared by several rows are made once per cycle.
    for shared in SHARED {
        assert!((0.99..=1.01).contains(&per_cycle[shared]), "{shared}: {per_cycle:#?}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn f64_of(count: u64) -> f64 {
    count as f64
}
