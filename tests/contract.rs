//! Laws of the table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::own::OWN;
use nvml_exporter::catalog::{
    ALLOTTED, CONTAINER, DEVICE, EVENT, ILLEGAL, INSTANCE, Kind, Metric, NODE, PROCESS, TEXT,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Name, kind, symbol and HELP of every row that comes from NVML.
fn rows() -> Vec<(&'static str, Kind, &'static str, &'static str)> {
    fn of<S>(slice: &[Metric<S>]) -> Vec<(&'static str, Kind, &'static str, &'static str)> {
        slice.iter().map(|m| (m.name, m.kind, m.symbol, m.help)).collect()
    }
    let devices = [of(NODE), of(DEVICE), of(EVENT), of(INSTANCE), of(ALLOTTED)];
    [devices.concat(), of(CONTAINER), of(PROCESS), of(ILLEGAL)].concat()
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    }
}

fn golden(name: &str) -> String {
    let path = Path::new(ROOT).join("tests/product/snapshots").join(format!("{name}.snap"));
    fs::read_to_string(path).unwrap()
}

fn goldens() -> String {
    let folder = Path::new(ROOT).join("tests/product/snapshots");
    let files = fs::read_dir(folder).unwrap();
    files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn names_are_unique_and_legal() {
    let mut seen = BTreeSet::new();
    let texts = TEXT.iter().map(|text| text.name);
    for name in rows().iter().map(|row| row.0).chain(texts).chain(OWN.iter().map(|own| own.name)) {
        assert!(seen.insert(name), "{name} stands twice");
        let mut letters = name.chars();
        assert!(letters.next().is_some_and(|c| c.is_ascii_alphabetic()), "{name}");
        assert!(letters.all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
    }
}

#[test]
fn counters_are_named_as_their_users_expect() {
    for (name, ..) in rows() {
        assert!(name.starts_with("DCGM_"), "{name}");
        assert!(!name.ends_with("_total"), "{name}: DCGM's counters have no such suffix");
    }
    for own in OWN {
        let counter = own.kind == Kind::Counter;
        assert_eq!(own.name.ends_with("_total"), counter, "{}", own.name);
    }
}

#[test]
fn help_is_one_line() {
    let own = OWN.iter().map(|own| (own.name, own.help));
    for (name, help) in rows().iter().map(|row| (row.0, row.3)).chain(own) {
        // The exposition library writes HELP as it is: a newline would break every scrape.
        assert!(!help.is_empty() && !help.contains(['\n', '\\']), "{name}: {help:?}");
    }
}

#[test]
fn every_own_series_stands_in_the_table_once() {
    let mut seen = Vec::new();
    for own in OWN {
        assert!(!seen.contains(&own.series), "{}", own.name);
        seen.push(own.series);
    }
}

#[test]
fn a_row_of_fields_names_the_call_that_fetches_them() {
    for metric in DEVICE.iter().chain(INSTANCE) {
        let of_fields = !metric.source.fields().is_empty();
        let symbol = metric.symbol == "nvmlDeviceGetFieldValues";
        assert_eq!(of_fields, symbol, "{}", metric.name);
    }
}

#[test]
fn every_row_appears_in_a_golden() {
    let pages = goldens();
    for (name, kind, ..) in rows() {
        let typed = format!("\n# TYPE {name} {}\n{name}{{", word(kind));
        assert!(pages.contains(&typed), "{name}");
    }
}

#[test]
fn a_consumer_board_without_a_cluster_shows_nothing_that_it_lacks() {
    let page = golden("consumer-4090");
    let absent: Vec<&str> = rows()
        .iter()
        .map(|row| row.0)
        .filter(|name| !page.contains(&format!("\n{name}{{")))
        .collect();
    assert_eq!(
        absent,
        [
            "DCGM_CUSTOM_ALLOCATE_MODE",
            "DCGM_FI_DEV_APP_SM_CLOCK",
            "DCGM_FI_DEV_APP_MEM_CLOCK",
            "DCGM_FI_DEV_MEMORY_TEMP",
            "DCGM_FI_DEV_POWER_VIOLATION",
            "DCGM_FI_DEV_THERMAL_VIOLATION",
            "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
            "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
            "DCGM_FI_DEV_LOW_UTIL_VIOLATION",
            "DCGM_FI_DEV_RELIABILITY_VIOLATION",
            "DCGM_FI_DEV_RETIRED_SBE",
            "DCGM_FI_DEV_RETIRED_DBE",
            "DCGM_FI_DEV_RETIRED_PENDING",
            "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
            "DCGM_CUSTOM_DEV_FB_ALLOCATED",
            "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
            "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED",
            "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL",
            "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_COPY_UTIL",
            "DCGM_CUSTOM_ILLEGAL_PROCESS_ENCODE_UTIL",
            "DCGM_CUSTOM_ILLEGAL_PROCESS_DECODE_UTIL",
            "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED",
        ]
    );
}

#[test]
fn every_symbol_is_exported_by_the_mock() {
    let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
    let path = binary.parent().unwrap().join("libmock_nvml.so");
    let library = fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run cargo build --workspace first", path.display()));
    for (name, _, symbol, _) in rows().into_iter().filter(|row| row.2.starts_with("nvml")) {
        let wanted = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let exported = library.windows(wanted.len()).any(|window| window == wanted);
        assert!(exported, "{name}: {symbol}");
    }
}

#[test]
#[ignore = "reads the field map that NVML_EXPORTER_FIELD_MAP names; .ci/run runs it where there is one"]
fn types_agree_with_the_field_map() {
    let path = std::env::var("NVML_EXPORTER_FIELD_MAP").expect("NVML_EXPORTER_FIELD_MAP");
    let map = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    for (name, kind, ..) in rows() {
        let line = map.lines().find(|line| line.starts_with(&format!("{name},")));
        let expected = line.and_then(|line| line.split(',').nth(2));
        let expected = expected.unwrap_or_else(|| panic!("{name} is not in {path}"));
        assert_eq!(word(kind), expected, "{name}");
    }
    let ours: BTreeSet<&str> = rows().iter().map(|row| row.0).collect();
    for line in map.lines() {
        let columns: Vec<&str> = line.splitn(8, ',').collect();
        let [name, _, _, _, _, _, "yes", _] = columns[..] else { continue };
        let later = name.starts_with("DCGM_FI_PROF_");
        assert!(later || ours.contains(name), "{name} is shown by ACK's exporter and not by ours");
    }
}
