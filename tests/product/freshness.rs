//! How old values are: after a change of the node, each row shows it as soon as its tier promises.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use nvml_exporter::catalog::DEVICE;
use nvml_exporter::policy::Tier;

use crate::exporter::{Exporter, Scenario, series, value};

const INTERVAL: Duration = Duration::from_millis(200);
/// The scenario is read again, and the cycle that reads it is published; the exporter is not polled in every cycle.
const SLACK: f64 = 4.0;

/// Rows that must show that the GPU began to work.
const MOVING: [&str; 13] = [
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_SM_CLOCK_HERTZ",
    "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ",
    "DCGM_FI_DEV_VIDEO_CLOCK",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_PSTATE",
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
    "DCGM_FI_DEV_FAN_SPEED",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_ENC_UTIL",
    "DCGM_FI_DEV_DEC_UTIL",
];

fn values(metrics: &str) -> BTreeMap<&'static str, String> {
    let of = |name: &'static str| {
        Some((name, series(metrics, name).first()?.rsplit(' ').next()?.to_owned()))
    };
    DEVICE.iter().filter_map(|metric| of(metric.name)).collect()
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or_default()
}

#[test]
fn each_row_shows_a_change_within_the_age_of_its_tier() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("all.csv");
    let rows =
        DEVICE.iter().map(|metric| format!("{}, {}, A row.\n", metric.name, metric.kind.as_str()));
    std::fs::write(&counters, rows.collect::<String>()).unwrap();
    let gpu = "[[gpu]]\nmodel = \"RTX 4090\"\n";
    let work = "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"9 GiB\"\nsm = 90\nmem = 60\nenc = 40\ndec = 30\n";
    let scenario = Scenario::new("fresh", &format!("now = 60\n{gpu}"));
    let file = format!("-f={}", counters.display());
    let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=200"]);
    let before = exporter.wait_for("the idle GPU", |metrics| cycles(metrics) >= 8.0);
    let (from, before) = (cycles(&before), values(&before));
    scenario.rewrite(&format!("now = 2000\n{gpu}{work}"));

    let cycles_of = |age: Duration| age.div_duration_f64(INTERVAL).ceil();
    let changed: RefCell<BTreeMap<&str, f64>> = RefCell::default();
    exporter.wait_for("the age of slow rows", |metrics| {
        for (name, value) in values(metrics) {
            if before.get(name).is_some_and(|was| *was != value) {
                changed.borrow_mut().entry(name).or_insert(cycles(metrics) - from);
            }
        }
        cycles(metrics) - from > cycles_of(Tier::Slow.age(INTERVAL)) + SLACK
    });
    let changed = changed.into_inner();
    for name in MOVING {
        assert!(changed.contains_key(name), "{name} did not change: {before:#?}\n{changed:#?}");
    }
    for (name, took) in changed {
        let tier = DEVICE.iter().find(|metric| metric.name == name).unwrap().tier;
        let allowed = cycles_of(tier.age(INTERVAL)) + SLACK;
        assert!(took <= allowed, "{name} changed after {took} cycles, {allowed} are allowed");
    }
}
