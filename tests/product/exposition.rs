//! Snapshot tests: the whole exposition of each scenario. Changes are reviewed in the diff of the snapshots.

use std::collections::BTreeMap;

use nvml_exporter::catalog::{ACCUMULATED, Kind};

use crate::exporter::{Scenario, run_once};

fn metrics_of(scenario: &str, now: u32, flags: &[&str]) -> String {
    let scenario = Scenario::built_in_at(scenario, now);
    let mock = scenario.flag();
    let fixed = ["--node-name", "node-1", "--hostname", "host-1", "--max-age", "5000"];
    run_once(&[&[mock.as_str()], fixed.as_slice(), flags].concat())
}

/// Masks only what differs between runs.
fn check(name: &str, metrics: &str) {
    insta::with_settings!({
        filters => vec![
            // The process of the exporter depends on the machine.
            (r"\n(?:# (?:HELP|TYPE) )?process_[^\n]*", ""),
            (r#",revision="[^"]*""#, ",revision=\"<revision>\""),
            (r"(_timestamp_seconds(?:\{[^}]*\})?) [0-9.e+]+", "$1 <time>"),
            (r"(_duration_seconds(?:\{[^}]*\})?) [0-9.e+-]+", "$1 <duration>"),
            (r"(nvml_exporter_driver_clock_offset_seconds\{[^}]*\}) [0-9.e+-]+", "$1 <offset>"),
            (r"(nvml_exporter_discarded_rows_total\{[^}]*\}) [0-9]+", "$1 <rows>"),
            // On a busy machine the first request may be sent before the mock kubelet has started.
            (concat!(
                r"# HELP nvml_exporter_source_failures_total .*\n# TYPE .*\n",
                r"nvml_exporter_source_failures_total\{source=.pod_resources.,reason=.absent.[^}]*\} 1\n"
            ), ""),
            (r"(nvml_exporter_cycles_total(?:\{[^}]*\})?) [0-9]+", "$1 <cycles>"),
            (r#"version="[0-9]+\.[0-9]+\.[0-9]+",r"#, r#"version="<version>",r"#),
            (r#"library="[^"]*/libnvidia-ml.so.1""#, r#"library="<mock>/libnvidia-ml.so.1""#),
        ],
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!(name, metrics);
    });
}

/// GPUs of several generations with errors and a process on each.
pub(crate) const ALL_FAMILIES: &str = r#"
now = 60
[driver]
version = "570.124.06"
[[gpu]]
model = "T4"
retired = { sbe = 1, dbe = 2, pending = true }
ecc = { sbe_volatile = 5, dbe_volatile = 1, sbe_aggregate = 9, dbe_aggregate = 2 }
[[gpu]]
model = "A100"
remapped = { correctable = 3, uncorrectable = 1, pending = true }
nvlink = { link = 3, crc_flit = 2, crc_data = 3, replay = 4, recovery = 5 }
[[gpu]]
model = "H100"
[[gpu]]
model = "B200"
nvlink = { link = 1, replay = 4, recovery = 5 }
[[gpu]]
model = "RTX 4090"
[[process]]
pid = 2101
name = "python"
gpus = [0, 1, 2, 3, 4]
sm = 60
mem = 30
dec = 10
memory = "4 GiB"
nvlink = 2000
pcie_tx = 300
pcie_rx = 200
"#;

/// The exposition with the labels that all series of a GPU have in common named once, above it: a change of
/// such a label is a change of one line per GPU.
fn with_common_labels(metrics: &str) -> String {
    let mut common = BTreeMap::<&str, &str>::new();
    for labels in metrics.lines().filter_map(gpu_labels) {
        let gpu = labels.split(',').next().unwrap();
        common
            .entry(gpu)
            .and_modify(|shared| *shared = common_prefix(shared, labels))
            .or_insert(labels);
    }
    let named = common.iter().map(|(gpu, labels)| format!("<{gpu}> {labels}\n"));
    let lines = metrics.lines().map(|line| {
        let gpu = gpu_labels(line).and_then(|labels| labels.split(',').next());
        match gpu.and_then(|gpu| Some((gpu, *common.get(gpu)?))) {
            Some((gpu, shared)) => line.replacen(shared, &format!("<{gpu}>"), 1) + "\n",
            None => format!("{line}\n"),
        }
    });
    named.chain(lines).collect()
}

/// The exposition of a golden: the inverse of [`with_common_labels`].
pub(crate) fn expand_common_labels(golden: &str) -> String {
    let (names, lines): (Vec<&str>, Vec<&str>) =
        golden.lines().partition(|line| line.starts_with("<gpu="));
    let names: Vec<_> = names.iter().filter_map(|line| line.split_once(' ')).collect();
    let expand = |line: &str| {
        let replace = |line: String, (name, labels): &(&str, &str)| line.replacen(*name, labels, 1);
        names.iter().fold(line.to_owned(), replace) + "\n"
    };
    lines.into_iter().map(expand).collect()
}

/// The labels of a DCGM series of a GPU.
fn gpu_labels(line: &str) -> Option<&str> {
    let (_, labels) = line.split_once('{')?;
    let (labels, _) = labels.rsplit_once('}')?;
    (line.starts_with("DCGM_") && labels.starts_with("gpu=")).then_some(labels)
}

/// The whole labels that both begin with.
fn common_prefix<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    if same == one.len() && (same == other.len() || other[same..].starts_with(',')) {
        return one;
    }
    one[..same].rfind("\",").map_or("", |end| &one[..=end])
}

/// A counters file that selects every catalog row.
#[test]
fn all_families() {
    let scenario = Scenario::new("everything", ALL_FAMILIES);
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("all.csv");
    let row = |row: nvml_exporter::catalog::CatalogRow| match (row.is_info_label, row.kind) {
        (true, _) => format!("{},label,\n", row.name),
        (false, Kind::Gauge) => format!("{},gauge,\n", row.name),
        (false, Kind::Counter) => format!("{},counter,\n", row.name),
    };
    // Accumulated values depend on the time of the run.
    let is_accumulated = |name| ACCUMULATED.iter().any(|metric| metric.name == name);
    let rows = nvml_exporter::catalog::rows().filter(|row| !is_accumulated(row.name));
    let all: String = rows.map(row).collect();
    std::fs::write(&counters, all).unwrap();
    let (mock, file) = (scenario.flag(), format!("-f={}", counters.display()));
    let dialect = ["--dialect", "dcgm-exporter", "--hostname", "host-1", "--max-age", "5000"];
    check(
        "everything",
        &with_common_labels(&run_once(&[&[mock.as_str(), &file], dialect.as_slice()].concat())),
    );
}

/// Boards and a driver that have what those of [`ALL_FAMILIES`] do not have.
pub(crate) const NEWEST: &str = r#"
now = 60
[driver]
version = "615.71"
[[gpu]]
model = "GB200"
repair = { action = 4, unrepairable = true, channel = true, tpc = true, from = 30 }
nvlink = { link = 1, symbol = 7, effective = 2, packet = 3 }
c2c = { errors = 5 }
[[gpu]]
model = "VR200"
[[gpu]]
model = "GB10"
[[process]]
pid = 2101
name = "python"
gpus = [0, 1, 2]
sm = 60
mem = 30
enc = 10
memory = "4 GiB"
nvlink = 2000
"#;

/// A counters file that selects every catalog row without a series in the golden of [`ALL_FAMILIES`].
#[test]
fn families_of_the_newest_boards() {
    let golden = format!("{}/tests/product/snapshots/everything.snap", env!("CARGO_MANIFEST_DIR"));
    let everything = std::fs::read_to_string(golden).unwrap();
    let is_new = |row: &nvml_exporter::catalog::CatalogRow| {
        !row.is_info_label
            && !ACCUMULATED.iter().any(|metric| metric.name == row.name)
            && !everything.contains(&format!("\n{}{{", row.name))
    };
    let rows = nvml_exporter::catalog::rows().filter(is_new);
    let all =
        rows.fold(String::new(), |text, row| text + row.name + "," + row.kind.as_str() + ",\n");
    let labels =
        ["FABRIC_CLUSTER_UUID", "PLATFORM_CHASSIS_SERIAL_NUMBER", "PLATFORM_INFINIBAND_GUID"];
    let labels = labels.map(|name| format!("DCGM_FI_DEV_{name},label,\n")).concat();
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("new.csv");
    std::fs::write(&counters, all + &labels).unwrap();
    let scenario = Scenario::new("newest", NEWEST);
    let (mock, file) = (scenario.flag(), format!("-f={}", counters.display()));
    let dialect = ["--dialect", "dcgm-exporter", "--hostname", "host-1", "--max-age", "5000"];
    check(
        "newest",
        &with_common_labels(&run_once(&[&[mock.as_str(), &file], dialect.as_slice()].concat())),
    );
}

#[test]
fn demo() {
    check("demo", &metrics_of("demo", 60, &[]));
}

#[test]
fn demo_in_dcgm_exporter_dialect() {
    check("demo-dcgm-exporter", &metrics_of("demo", 60, &["--dialect", "dcgm-exporter"]));
}

#[test]
fn idle_t4() {
    check("idle-t4", &metrics_of("idle-t4", 60, &["--extra-label", "NodePoolId=np-1"]));
}

#[test]
fn shared_l20() {
    check("shared-l20", &metrics_of("shared-l20", 60, &[]));
}

#[test]
fn consumer_4090() {
    check("consumer-4090", &metrics_of("consumer-4090", 60, &[]));
}

#[test]
fn old_driver() {
    check("old-driver", &metrics_of("old-driver", 60, &[]));
}

#[test]
fn blackwell() {
    check("blackwell", &metrics_of("blackwell", 60, &[]));
}

#[test]
fn bert_hpa() {
    check("bert-hpa", &metrics_of("bert-hpa", 90, &[]));
}

#[test]
fn abi_535() {
    check("abi-535", &metrics_of("abi-535", 60, &[]));
}

#[test]
fn mig_a100() {
    check("mig-a100", &metrics_of("mig-a100", 60, &[]));
}

#[test]
fn mig_h100() {
    check("mig-h100", &metrics_of("mig-h100", 30, &[]));
}

#[test]
fn mig_h100_in_dcgm_exporter_dialect() {
    let flags = ["--dialect", "dcgm-exporter"];
    check("mig-h100-dcgm-exporter", &metrics_of("mig-h100", 30, &flags));
}

#[test]
fn hami() {
    check("hami", &metrics_of("hami", 60, &[]));
    check("hami-mig", &metrics_of("hami-mig", 60, &[]));
}

#[test]
fn kai() {
    check("kai", &metrics_of("kai", 60, &[]));
}

#[test]
fn dra() {
    check("dra", &metrics_of("dra", 60, &[]));
}

#[test]
fn dra_sharing() {
    check("dra-sharing", &metrics_of("dra-sharing", 60, &[]));
}

#[test]
fn dra_in_dcgm_exporter_dialect() {
    let flags = ["--dialect", "dcgm-exporter", "-k", "--kubernetes-enable-dra"];
    check("dra-dcgm-exporter", &metrics_of("dra", 60, &flags));
}

#[test]
fn lifecycle() {
    check("lifecycle", &metrics_of("lifecycle", 90, &[]));
}

/// An init container is on the GPU.
#[test]
fn lifecycle_while_a_pod_initializes() {
    check("lifecycle-init", &metrics_of("lifecycle", 20, &[]));
}

#[test]
fn faulty() {
    check("faulty", &metrics_of("faulty", 60, &[]));
}
