//! The system clock is set forward and back under a running exporter.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::exporter::{Exporter, Scenario, series, value};

const SCENARIO: &str = "[[gpu]]\nmodel = \"T4\"\n\
     [[process]]\npid = 7\nname = \"python\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 40\n";

/// libfaketime, which shifts the clock of one program by the offset in a file; `tests/run` installs it.
fn library() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/debian/usr/lib");
    let library = |entry: fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    let architectures =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut found =
        architectures.map(|entry| library(entry.unwrap())).filter(|path| path.is_file());
    found.next().expect("libfaketimeMT, installed by tests/run")
}

#[test]
fn values_stay_correct_when_the_clock_is_set() {
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    let set = |text: &str| {
        let draft = directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &offset).unwrap();
    };
    set("+0");
    let library = library();
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let scenario = Scenario::new("clock", SCENARIO);
    let flag = scenario.flag();
    let exporter = Exporter::start_with(
        &environment,
        &[&flag, "--collect-interval", "300", "--max-age", "1500"],
    );

    let sm = |metrics: &str| value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[]);
    let is_correct = |metrics: &str| sm(metrics).is_some_and(|sm| (sm - 40.0).abs() < 3.0);
    let energy =
        |metrics: &str| value(metrics, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]).unwrap();
    let timestamp =
        |metrics: &str| value(metrics, "nvml_exporter_snapshot_timestamp_seconds", &[]).unwrap();
    let cycles = |metrics: &str| value(metrics, "nvml_exporter_cycles_total", &[]).unwrap();
    let mut last = exporter.wait_for("utilization", is_correct);
    let start = timestamp(&last);
    for jump in [86_400, 0, -86_400, 0, 3600, 0, -3600, 0] {
        set(&format!("{jump:+}"));
        let from = cycles(&last);
        let is_shifted =
            |metrics: &str| (timestamp(metrics) - start - f64::from(jump)).abs() < 1800.0;
        // A window that spans the jump cannot be measured: its value is absent until the next window.
        let absent = RefCell::new(BTreeSet::new());
        let metrics = exporter.wait_for("utilization after the jump", |metrics| {
            assert_eq!(series(metrics, "DCGM_FI_DEV_GPU_UTIL").len(), 1, "{metrics}");
            assert!(sm(metrics).is_none() || is_correct(metrics), "at {jump} s: {:?}", sm(metrics));
            if sm(metrics).is_none() {
                absent.borrow_mut().insert(cycles(metrics).to_bits());
            }
            assert_eq!(["/healthz", "/readyz"].map(|path| exporter.get(path).status), [200, 200]);
            is_shifted(metrics) && cycles(metrics) >= from + 4.0 && is_correct(metrics)
        });
        let absent = absent.into_inner().len();
        assert!(absent <= 1, "{absent} windows were lost at {jump} s");
        assert!(
            energy(&metrics) >= energy(&last),
            "{jump}: {} after {}",
            energy(&metrics),
            energy(&last)
        );
        last = metrics;
    }
    assert!(!last.contains("nvml_exporter_discarded_rows_total{"), "{last}");
}
