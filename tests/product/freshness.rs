//! How old values are: after each of several changes of the node, each row shows it as soon as docs/metrics.md
//! states.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use nvml_exporter::catalog;
use nvml_exporter::policy::SECOND_TIER;

use crate::documents::{column, read_file};
use crate::exporter::{Exporter, Scenario, value};

const INTERVAL: Duration = Duration::from_millis(200);
/// The scenario is read again, and the cycle that reads it is published; rates need two readings.
const SLACK: f64 = 4.0;
/// Number of changes. A row of each call shows half of them at least; some events happen at each second one only.
const CHANGES: u32 = 4;

/// Calls with rows that have one value for as long as a GPU, its board and its processes are the same, or that nothing
/// in this scenario changes.
const CONSTANT: [&str; 29] = [
    "nvmlDeviceGetApplicationsClock",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetFBCStats",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetGridLicensableFeatures_v4",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceValidateInforom",
    "nvmlGpmQueryDeviceSupport",
    "nvmlSystemGetConfComputeState",
    "nvmlSystemGetCudaDriverVersion_v2",
];

/// The node after a number of changes: it works after each second one, and all counters advance.
fn node(change: u32) -> String {
    let is_busy = change % 2 == 1;
    let (errors, now) = (1 + 3 * change, 100 + 2000 * change);
    let down = if is_busy { "[3]" } else { "[]" };
    let mut text =
        format!("now = {now}\n[[xid]]\ngpu = 1\nat = {now}\ncode = {}\n", 13 + 18 * change);
    let power_limit = |watts: u32| watts - 10 * change;
    write!(
        text,
        "[[gpu]]\nmodel = \"RTX 4090\"\npcie_replays_per_hour = 60\npower_limit = {}\n\
         [[gpu]]\nmodel = \"H100\"\npcie_replays_per_hour = 60\npower_limit = {}\n\
         ecc = {{ sbe_volatile = {errors}, dbe_volatile = {errors}, sbe_aggregate = {errors}, dbe_aggregate = {errors} }}\n\
         remapped = {{ correctable = {errors}, uncorrectable = {errors}, pending = {is_busy}, failure = {is_busy} }}\n\
         nvlink = {{ down = {down}, crc_flit = {errors}, crc_data = {errors}, replay = {errors}, recovery = {errors} }}\n\
         [[gpu]]\nmodel = \"T4\"\nretired = {{ sbe = {errors}, dbe = {errors}, pending = {is_busy} }}\n",
        power_limit(400),
        power_limit(600),
    )
    .unwrap();
    let load = if is_busy {
        "sm = 90\nmem = 60\nenc = 40\ndec = 30\npcie_tx = 200\npcie_rx = 100\n"
    } else {
        ""
    };
    let memory = 1 + change;
    write!(
        text,
        "[[process]]\npid = 7\nname = \"p\"\ngpus = [0, 1, 2]\nmemory = \"{memory} GiB\"\n{load}"
    )
    .unwrap();
    text
}

/// The samples of each family, with their labels.
fn families(metrics: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("DCGM_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        all.entry(name).or_default().push(line);
    }
    all
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or_default()
}

/// The largest age of each row that docs/metrics.md states, at [`INTERVAL`].
fn documented_ages() -> BTreeMap<String, Duration> {
    let text = read_file("docs/metrics.md");
    let cells = ["series", "read", "age"].map(|heading| column(&text, heading));
    let [names, reads, ages] = cells;
    // A table without ages follows.
    assert!(reads.len() == ages.len() && names.len() > ages.len());
    let rows: Vec<&str> = catalog::rows().map(|row| row.name).collect();
    let position = |name: &str| rows.iter().position(|row| *row == name).unwrap();
    let mut found = BTreeMap::new();
    for ((names, read), age) in names.iter().zip(&reads).zip(&ages) {
        let age = match read.as_str() {
            "cycle" | "on event" => INTERVAL,
            "cycle, at most once a second" => SECOND_TIER.max(INTERVAL),
            _ => match age.strip_suffix(" s").and_then(|seconds| seconds.parse().ok()) {
                Some(seconds) => Duration::from_secs_f64(seconds),
                None => continue,
            },
        };
        // A name, or the first and the last one of several.
        let names: Vec<usize> = names.split('`').skip(1).step_by(2).map(position).collect();
        let names = names[0]..=*names.last().unwrap();
        found.extend(names.map(|row| (rows[row].to_owned(), age)));
    }
    found
}

/// The number of cycles after which each family showed a change of the node.
fn changes(exporter: &Exporter, scenario: &Scenario, change: u32) -> BTreeMap<String, f64> {
    let before = exporter.metrics();
    let before = families(&before);
    scenario.rewrite(&node(change));
    // Cycles from now on read the changed node.
    let from = cycles(&exporter.metrics());
    let mut unchanged_at: BTreeMap<String, f64> = BTreeMap::new();
    let mut changed: BTreeMap<String, f64> = BTreeMap::new();
    let end = from + (Duration::from_millis(10_500).div_duration_f64(INTERVAL)).ceil() + SLACK;
    loop {
        let metrics = exporter.wait_for("a cycle", |metrics| cycles(metrics) >= from);
        let cycle = cycles(&metrics) - from;
        for (name, lines) in families(&metrics) {
            if changed.contains_key(name) {
                continue;
            }
            if before.get(name).is_some_and(|was| *was != lines) {
                // It changed after the last exposition in which it had not.
                let took = unchanged_at.get(name).map_or(0.0, |at| at + 1.0);
                changed.insert(name.to_owned(), took);
            } else {
                unchanged_at.insert(name.to_owned(), cycle);
            }
        }
        if cycle + from > end {
            return changed;
        }
    }
}

#[test]
fn each_row_shows_each_change_within_its_documented_age() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("all.csv");
    let rows = catalog::rows().filter(|row| !row.is_info_label);
    let rows = rows.map(|row| format!("{}, {}, A row.\n", row.name, row.kind.as_str()));
    std::fs::write(&counters, rows.collect::<String>()).unwrap();
    let scenario = Scenario::new("fresh", &node(0));
    let file = format!("-f={}", counters.display());
    let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=200"]);
    exporter.wait_for("the idle node", |metrics| cycles(metrics) >= 8.0);

    let ages = documented_ages();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for change in 1..=CHANGES {
        for (name, took) in changes(&exporter, &scenario, change) {
            *counts.entry(name.clone()).or_default() += 1;
            let age = ages.get(&name).unwrap_or_else(|| panic!("{name} has no documented age"));
            let allowed = age.div_duration_f64(INTERVAL).ceil() + SLACK;
            assert!(took <= allowed, "{name}: {took} cycles, {allowed} are allowed");
        }
    }
    // The rows of one call have one age, so that one of them is enough.
    let metrics = exporter.metrics();
    let present = families(&metrics);
    let mut calls: BTreeMap<(&str, String), bool> = BTreeMap::new();
    for row in catalog::rows().filter(|row| present.contains_key(row.name)) {
        let has_moved = counts.get(row.name) >= Some(&(CHANGES / 2));
        *calls.entry((row.symbol, format!("{:?}", row.tier))).or_default() |= has_moved;
    }
    let constant = calls.iter().filter(|(_, has_moved)| !**has_moved);
    let constant: Vec<&str> = constant.map(|((symbol, _), _)| *symbol).collect();
    assert_eq!(constant, CONSTANT, "calls without a row that moved: {counts:#?}");
}
