//! The machine's clock is set forth and back under a running exporter.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exporter::{Exporter, Scenario, series, value};

const WORLD: &str = "[[gpu]]\nmodel = \"T4\"\n\
     [[process]]\npid = 7\nname = \"python\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 40\n";

/// The library that sets the clock of one program, by an offset in a file; `tests/run` brings it.
fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/debian/usr/lib");
    let of = |entry: fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    let machines = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found = machines.map(|entry| of(entry.unwrap())).filter(|path| path.is_file());
    found.next().expect("libfaketimeMT; tests/run brings it")
}

#[test]
fn numbers_stay_true_when_the_clock_is_set() {
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
    let scenario = Scenario::new("clock", WORLD);
    let flag = scenario.flag();
    let exporter = Exporter::start_with(
        &environment,
        &[&flag, "--collect-interval", "300", "--max-age", "1500"],
    );

    let sm = |page: &str| value(page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[]);
    let is_told = |page: &str| sm(page).is_some_and(|sm| (sm - 40.0).abs() < 3.0);
    let energy = |page: &str| value(page, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]).unwrap();
    let stamp = |page: &str| value(page, "nvml_exporter_snapshot_timestamp_seconds", &[]).unwrap();
    let cycles = |page: &str| value(page, "nvml_exporter_cycles_total", &[]).unwrap();
    let mut last = exporter.wait_for("utilization", is_told);
    let begun = stamp(&last);
    for (jump, seconds) in [("+86400", 86_400.0), ("+0", 0.0), ("-86400", -86_400.0), ("+0", 0.0)] {
        set(jump);
        let from = cycles(&last);
        let moved = |page: &str| (stamp(page) - begun - seconds).abs() < 3600.0;
        // What cannot be measured over the jump is absent, and told again by the next windows.
        let page = exporter.wait_for("utilization after the jump", |page| {
            assert_eq!(series(page, "DCGM_FI_DEV_GPU_UTIL").len(), 1, "{page}");
            assert!(sm(page).is_none() || is_told(page), "at {jump} s: {:?}", sm(page));
            moved(page) && cycles(page) >= from + 4.0 && is_told(page)
        });
        assert!(
            energy(&page) >= energy(&last),
            "{jump}: {} after {}",
            energy(&page),
            energy(&last)
        );
        assert_eq!(exporter.get("/readyz").status, 200);
        last = page;
    }
    assert!(!last.contains("nvml_exporter_discarded_rows_total{"), "{last}");
}
