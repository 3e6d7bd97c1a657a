//! Laws of the table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::own::OWN;
use nvml_exporter::catalog::{
    ACCOUNT, ALLOTTED, CONTAINER, DEVICE, EVENT, ILLEGAL, INSTANCE, Kind, Metric, NODE, PROCESS,
    TEXT, alias, find, preset,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Name, kind, symbol and HELP of every row that comes from NVML.
fn rows() -> Vec<(&'static str, Kind, &'static str, &'static str)> {
    fn of<S>(slice: &[Metric<S>]) -> Vec<(&'static str, Kind, &'static str, &'static str)> {
        slice.iter().map(|m| (m.name, m.kind, m.symbol, m.help)).collect()
    }
    let devices = [of(NODE), of(DEVICE), of(EVENT), of(INSTANCE), of(ALLOTTED)];
    [devices.concat(), of(CONTAINER), of(PROCESS), of(ILLEGAL), of(ACCOUNT)].concat()
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
        let expected = match metric.source.gpm() {
            Some(_) => "nvmlGpmMetricsGet",
            None if of_fields => "nvmlDeviceGetFieldValues",
            None => metric.symbol,
        };
        assert_eq!(metric.symbol, expected, "{}", metric.name);
        assert!(of_fields || metric.symbol != "nvmlDeviceGetFieldValues", "{}", metric.name);
    }
}

#[test]
fn every_alias_and_every_preset_leads_to_a_row() {
    for (name, row) in alias::all() {
        let (name, row) = (name.replace('#', "0"), row.replace('#', "0"));
        assert_eq!(find(&name).map(|found| found.name), Some(&*row), "{name}");
    }
    let shown = [preset::ACK, preset::DCGM_4_8, preset::DCGM_4_9].concat();
    for name in shown.into_iter().chain(preset::GAUGES_SINCE_4_8_4.iter().copied()) {
        assert!(find(name).is_some(), "{name}");
    }
}

/// Rows of boards and drivers that the mock does not play: links to a CPU, and totals since branch 580;
/// what is told after the first XID only; and what is reckoned up while time goes on.
fn is_in_no_golden(name: &str) -> bool {
    name == "DCGM_EXP_XID_ERRORS_TOTAL"
        || is_account(name)
        || name.starts_with("DCGM_FI_PROF_C2C_")
        || (name.starts_with("DCGM_FI_PROF_") && name.ends_with("_TOTAL"))
        // Memories that boards before Volta, or none of the mock's, count apart.
        || (name.starts_with("DCGM_FI_DEV_ECC_")
            && ["_TEX", "_SHM", "_CBU"].iter().any(|end| name.ends_with(end)))
        // The mock's largest boards have 7 decoders, and one engine for optical flow.
        || ["DCGM_FI_PROF_NVDEC7_ACTIVE", "DCGM_FI_PROF_NVOFA1_ACTIVE"].contains(&name)
}

/// Rows that no other exporter has.
fn is_of_our_own(name: &str) -> bool {
    name.starts_with("DCGM_CUSTOM_DEV_GPU_UTIL_") || is_account(name)
}

fn is_account(name: &str) -> bool {
    ACCOUNT.iter().any(|row| row.name == name)
}

#[test]
fn every_row_appears_in_a_golden() {
    let pages = goldens();
    for (name, kind, ..) in rows().into_iter().filter(|row| !is_in_no_golden(row.0)) {
        let typed = format!("\n# TYPE {name} {}\n{name}{{", kind.word());
        assert!(pages.contains(&typed), "{name}");
    }
}

#[test]
fn a_consumer_board_without_a_cluster_shows_nothing_that_it_lacks() {
    let page = golden("consumer-4090");
    let absent: Vec<&str> = rows()
        .iter()
        .map(|row| row.0)
        .filter(|name| preset::ACK.contains(name) && !name.starts_with("DCGM_FI_PROF_"))
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

/// The line of the map that a name has, or the first of its family's: the map lists some links and
/// engines, and means all.
fn mapped<'a>(records: &'a [csv::StringRecord], name: &str) -> Option<&'a csv::StringRecord> {
    let of = |name: &str| records.iter().find(|record| record.get(0) == Some(name));
    of(name).or_else(|| {
        let mut letters: Vec<char> = name.chars().collect();
        let last = letters.iter().rposition(char::is_ascii_digit)?;
        let first = letters.iter().take(last).rposition(|c| !c.is_ascii_digit())? + 1;
        letters.splice(first..=last, ['0']);
        of(&letters.into_iter().collect::<String>())
    })
}

#[test]
#[ignore = "reads the field map that NVML_EXPORTER_FIELD_MAP names; .ci/run runs it where there is one"]
fn rows_and_the_field_map_agree() {
    let path = std::env::var("NVML_EXPORTER_FIELD_MAP").expect("NVML_EXPORTER_FIELD_MAP");
    let mut reader = csv::Reader::from_path(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // The map says of the states of links only how DCGM numbers them.
    let unmapped = |name: &str| name == "DCGM_FI_DEV_NVLINK_GET_STATE" || is_of_our_own(name);
    for (name, kind, ..) in rows().into_iter().filter(|row| !unmapped(row.0)) {
        let record = mapped(&records, name);
        let record = record.unwrap_or_else(|| panic!("{name} is not in {path}"));
        assert_eq!(Some(kind.word()), record.get(2), "{name}");
    }
    // What NVML can answer in a number or a text is a row, selectable by any of its names.
    for record in &records {
        let [name, source, unit] = [0, 7, 3].map(|column| record.get(column).unwrap());
        if !source.is_empty() && unit != "blob" {
            assert!(find(name).is_some(), "{name} can be answered by NVML and is no row");
        }
    }
}
