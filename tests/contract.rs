//! Invariants of the catalogue.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::exporter_metrics::EXPORTER_METRICS;
use nvml_exporter::catalog::{
    ACCUMULATED, ACTIVITY, ALLOCATED_FRACTION, CONTAINER, DEVICE, DeviceSource, EVENT, EventInput,
    ILLEGAL, INFO_LABELS, INSTANCE, Kind, MEMORY_ACCOUNT, Metric, NODE, PROCESS, alias, find,
    preset,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Name, kind, symbol and HELP of every row but those of labels and of the exporter itself.
fn rows() -> Vec<(&'static str, Kind, &'static str, &'static str)> {
    fn of<S>(slice: &[Metric<S>]) -> Vec<(&'static str, Kind, &'static str, &'static str)> {
        slice.iter().map(|m| (m.name, m.kind, m.symbol, m.help)).collect()
    }
    let devices = [of(NODE), of(DEVICE), of(EVENT), of(INSTANCE), of(ALLOCATED_FRACTION)];
    let containers = [of(CONTAINER), of(MEMORY_ACCOUNT), of(ACTIVITY)];
    [devices.concat(), containers.concat(), of(PROCESS), of(ILLEGAL), of(ACCUMULATED)].concat()
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
fn names_are_unique_and_valid() {
    let mut seen = BTreeSet::new();
    let info_labels = INFO_LABELS.iter().map(|row| row.name);
    let exporter_metrics = EXPORTER_METRICS.iter().map(|row| row.name);
    for name in rows().iter().map(|row| row.0).chain(info_labels).chain(exporter_metrics) {
        assert!(seen.insert(name), "{name} is a duplicate");
        let mut letters = name.chars();
        assert!(letters.next().is_some_and(|c| c.is_ascii_alphabetic()), "{name}");
        assert!(letters.all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
    }
}

#[test]
fn counter_suffixes_follow_dcgm_and_prometheus() {
    for (name, ..) in rows() {
        assert!(name.starts_with("DCGM_"), "{name}");
        assert!(!name.ends_with("_total"), "{name}: DCGM's counters have no such suffix");
    }
    for row in EXPORTER_METRICS {
        let counter = row.kind == Kind::Counter;
        assert_eq!(row.name.ends_with("_total"), counter, "{}", row.name);
    }
}

#[test]
fn help_is_one_line() {
    let exporter_metrics = EXPORTER_METRICS.iter().map(|row| (row.name, row.help));
    for (name, help) in rows().iter().map(|row| (row.0, row.3)).chain(exporter_metrics) {
        // The exposition library does not escape HELP: a newline would break every scrape.
        assert!(!help.is_empty() && !help.contains(['\n', '\\']), "{name}: {help:?}");
    }
}

#[test]
fn exporter_metrics_are_unique() {
    let mut seen = Vec::new();
    for row in EXPORTER_METRICS {
        assert!(!seen.contains(&row.id), "{}", row.name);
        seen.push(row.id);
    }
}

#[test]
fn rows_of_fields_have_the_symbol_of_the_batched_call() {
    for metric in DEVICE.iter().chain(INSTANCE) {
        let of_fields = !metric.source.fields().is_empty();
        let expected = match metric.source.gpm() {
            Some(_) => "nvmlGpmMetricsGet",
            None if of_fields => "nvmlDeviceGetFieldValues",
            None => metric.symbol,
        };
        assert_eq!(metric.symbol, expected, "{}", metric.name);
        assert!(of_fields || metric.symbol != "nvmlDeviceGetFieldValues", "{}", metric.name);
    }
}

/// A row that needs data states so in its source, and has the symbol that returns them.
#[test]
fn rows_have_the_symbol_of_what_they_need() {
    for metric in EVENT {
        let expected = match metric.source.needs {
            EventInput::Xids => "nvmlEventSetWait_v2",
            EventInput::ClockEvents => "nvmlDeviceGetCurrentClocksEventReasons",
            EventInput::Peers => "nvmlDeviceGetP2PStatus",
            EventInput::Links => "nvmlDeviceGetNvLinkState",
            EventInput::NvLinkField(_)
            | EventInput::NvLinkRate(_)
            | EventInput::C2cField(_)
            | EventInput::Health => "nvmlDeviceGetFieldValues",
            EventInput::NvLinkErrors(_) => "nvmlDeviceGetNvLinkErrorCounter",
            EventInput::SlowHealth => "nvmlDeviceValidateInforom",
            EventInput::Platform => "nvmlDeviceGetPlatformInfo",
        };
        assert_eq!(metric.symbol, expected, "{}", metric.name);
    }
    for metric in DEVICE.iter().chain(INSTANCE) {
        let sampled = matches!(metric.source, DeviceSource::Sampled(_));
        assert_eq!(metric.symbol == "nvmlDeviceGetSamples", sampled, "{}", metric.name);
    }
}

#[test]
fn every_row_of_every_slice_is_found_and_described() {
    let info_labels = INFO_LABELS.iter().map(|m| (m.name, m.kind, m.symbol, m.help));
    let mut found = Vec::new();
    for (name, kind, symbol, help) in rows().into_iter().chain(info_labels) {
        let row = find(name).unwrap();
        assert_eq!((row.name, row.kind, row.symbol, row.help), (name, kind, symbol, help));
        assert!(!row.unit.is_empty() && !row.symbol.is_empty() && !row.help.is_empty(), "{name}");
        found.push(name);
    }
    found.sort_unstable();
    let mut all: Vec<_> = nvml_exporter::catalog::rows().map(|row| row.name).collect();
    all.sort_unstable();
    assert_eq!(found, all);
}

/// A new row is one edit: the compiler counts the rows.
#[test]
fn slices_of_rows_have_no_written_length() {
    let folder = Path::new(ROOT).join("src/catalog/rows");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for file in files.chain([Path::new(ROOT).join("src/catalog/rows.rs")]) {
        let text = fs::read_to_string(&file).unwrap();
        let counted = text.match_indices("Source>; ").map(|(at, found)| &text[at + found.len()..]);
        for length in counted {
            assert!(length.starts_with("N]"), "{}: {length:.40}", file.display());
        }
    }
}

#[test]
fn every_alias_and_preset_resolves_to_a_row() {
    for (name, row) in alias::all() {
        let (name, row) = (name.replace('#', "0"), row.replace('#', "0"));
        assert_eq!(find(&name).map(|found| found.name), Some(&*row), "{name}");
    }
    let presets =
        [preset::ACK, preset::DCGM_4_8, preset::DCGM_4_9, preset::ACTIONS, preset::ACTIONS_4_9]
            .concat();
    for name in presets.into_iter().chain(preset::GAUGES_SINCE_4_8_4.iter().copied()) {
        assert!(find(name).is_some(), "{name}");
    }
}

/// Rows that are in no golden file: those of boards and drivers that the mock does not simulate
/// (C2C links, totals since branch 580), those that are absent before the first XID, and
/// accumulated usage, which depends on elapsed time. Activity and accounts of containers need a cluster:
/// `tests/product/gpm.rs`, `tests/product/memory_accounts.rs`.
fn is_in_no_golden(name: &str) -> bool {
    name == "DCGM_EXP_XID_ERRORS_TOTAL"
        || ACTIVITY.iter().any(|row| row.name == name)
        || MEMORY_ACCOUNT.iter().any(|row| row.name == name)
        || is_accumulated(name)
        || name.starts_with("DCGM_FI_PROF_C2C_")
        || (name.starts_with("DCGM_FI_PROF_") && name.ends_with("_TOTAL"))
        // Memories with counters only on boards before Volta, or on no board of the mock.
        || (name.starts_with("DCGM_FI_DEV_ECC_")
            && ["_TEX", "_SHM", "_CBU"].iter().any(|end| name.ends_with(end)))
        // The largest boards of the mock have 36 links, 7 decoders and one
        // optical flow engine.
        || name.contains("NVLINK") && (36..72).any(|link| name.contains(&format!("_L{link}")))
        || ["DCGM_FI_PROF_NVDEC7_ACTIVE", "DCGM_FI_PROF_NVOFA1_ACTIVE"].contains(&name)
}

/// Rows without a counterpart in other exporters.
fn is_specific_to_this_exporter(name: &str) -> bool {
    is_accumulated(name)
        || ACTIVITY.iter().any(|row| row.name == name)
        || MEMORY_ACCOUNT.iter().any(|row| row.name == name)
        || (name.starts_with("DCGM_CUSTOM_DEV_")
            && !["DCGM_CUSTOM_DEV_FB_TOTAL", "DCGM_CUSTOM_DEV_FB_ALLOCATED"].contains(&name))
}

fn is_accumulated(name: &str) -> bool {
    ACCUMULATED.iter().any(|row| row.name == name)
}

#[test]
fn every_row_is_in_a_golden() {
    let goldens = goldens();
    for (name, kind, ..) in rows().into_iter().filter(|row| !is_in_no_golden(row.0)) {
        let typed = format!("\n# TYPE {name} {}\n{name}{{", kind.as_str());
        assert!(goldens.contains(&typed), "{name}");
    }
}

#[test]
fn consumer_board_without_a_cluster_has_no_unsupported_series() {
    let golden = golden("consumer-4090");
    let absent: Vec<&str> = rows()
        .iter()
        .map(|row| row.0)
        .filter(|name| preset::ACK.contains(name) && !name.starts_with("DCGM_FI_PROF_"))
        .filter(|name| !golden.contains(&format!("\n{name}{{")))
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
        let entry = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let exported = library.windows(entry.len()).any(|window| window == entry);
        assert!(exported, "{name}: {symbol}");
    }
}

/// The record of a name in the field map, by the name before or since DCGM 4.6, or that of the first member of its
/// family: the map does not list every link and engine.
fn mapped<'a>(records: &'a [csv::StringRecord], name: &str) -> Option<&'a csv::StringRecord> {
    let named = |column: usize, name: &str| records.iter().find(|r| r.get(column) == Some(name));
    let of = |name: &str| named(0, name).or_else(|| named(11, name));
    of(name).or_else(|| of(&of_number_0(name)?))
}

/// The name with 0 in the place of its last number.
fn of_number_0(name: &str) -> Option<String> {
    let mut letters: Vec<char> = name.chars().collect();
    let last = letters.iter().rposition(char::is_ascii_digit)?;
    let first = letters.iter().take(last).rposition(|c| !c.is_ascii_digit())? + 1;
    letters.splice(first..=last, ['0']);
    Some(letters.into_iter().collect())
}

#[test]
#[ignore = "needs the field map at $NVML_EXPORTER_FIELD_MAP; .ci/run runs it if the file exists"]
fn rows_match_the_field_map() {
    let path = std::env::var("NVML_EXPORTER_FIELD_MAP").expect("NVML_EXPORTER_FIELD_MAP");
    let mut reader = csv::Reader::from_path(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // Of the link states, the map has only DCGM's numbers; it ends before the names of dcgm-exporter 4.9 and before
    // driver 570, which DCGM's own list has.
    let folder = Path::new(&path).parent().unwrap();
    let lists = ["dcgm-fields-4.6.csv", "dcgm-field-aliases.csv"];
    let newer = lists.map(|list| fs::read_to_string(folder.join(list)).unwrap()).concat();
    let newer: BTreeSet<&str> = newer.split([',', '\n']).collect();
    let unmapped = |name: &str| {
        name == "DCGM_FI_DEV_NVLINK_GET_STATE"
            || preset::DCGM_4_9.contains(&name)
            || newer.contains(name)
            || of_number_0(name).is_some_and(|first| newer.contains(&*first))
            || is_specific_to_this_exporter(name)
    };
    for (name, kind, ..) in rows() {
        let Some(record) = mapped(&records, name) else {
            assert!(unmapped(name), "{name} is not in {path}");
            continue;
        };
        assert_eq!(Some(kind.as_str()), record.get(2), "{name}");
    }
    // Every field that NVML has as a number or a string is a row, selectable by each of its names.
    for record in &records {
        let [name, source, unit] = [0, 7, 3].map(|column| record.get(column).unwrap());
        if !source.is_empty() && unit != "blob" {
            assert!(find(name).is_some(), "{name} is available through NVML but has no row");
        }
    }
}
