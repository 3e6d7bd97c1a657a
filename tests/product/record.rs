//! `record` writes a scenario that plays the node: its exposition is that of the node, with other names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nvml_exporter::catalog::{self, ACCUMULATED};

use crate::exporter::{Scenario, built_in_scenario, run, run_once, value};
use crate::exposition::{ALL_FAMILIES, NEWEST};

/// A recording of a scenario.
struct Recording {
    directory: tempfile::TempDir,
}

impl Recording {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("node.toml")).unwrap()
    }

    fn flag(&self) -> String {
        format!("--mock={}", self.path("node.toml").display())
    }

    /// The originals and what replaces them.
    fn names(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path("names")).unwrap();
        let pairs = text.lines().map(|line| line.split_once('\t').unwrap());
        pairs.map(|(original, new)| (original.to_owned(), new.to_owned())).collect()
    }
}

fn record(mock: &str, flags: &[&str]) -> Recording {
    let recording = Recording { directory: tempfile::tempdir().unwrap() };
    let [output, names, exposition] =
        ["node.toml", "names", "exposition"].map(|name| recording.path(name).display().to_string());
    // The last one of a flag counts.
    let args = ["record", mock, "--seconds=0", "--output", &output, "--names", &names];
    let run = run(&[&args, ["--exposition", exposition.as_str()].as_slice(), flags].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    recording
}

/// The series of an exposition, with other names, sorted. Left out, and the only differences that a recording
/// may have: the process of the exporter, times, what counts its own work, and the path of the library.
fn series_of(exposition: &str, names: &BTreeMap<String, String>) -> Vec<String> {
    let timed = [
        "_timestamp_seconds",
        "_duration_seconds",
        "nvml_exporter_driver_clock_offset_seconds",
        "nvml_exporter_discarded_rows_total",
        "nvml_exporter_cycles_total",
    ];
    let series = |line: &str| -> Option<String> {
        if line.starts_with('#') || line.starts_with("process_") {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let family = series.split('{').next()?;
        let value = if timed.iter().any(|name| family.ends_with(name)) { "…" } else { value };
        let mut library = false;
        let parts = series.split('"').map(|part| {
            let is_path = std::mem::replace(&mut library, part.ends_with("library="));
            if is_path { "…" } else { names.get(part).map_or(part, String::as_str) }
        });
        Some(format!("{} {value}", parts.collect::<Vec<_>>().join("\"")))
    };
    let mut all: Vec<String> = exposition.lines().filter_map(series).collect();
    all.sort();
    all
}

fn assert_same(original: &[String], played: &[String]) {
    let (one, other): (BTreeSet<_>, BTreeSet<_>) =
        (original.iter().collect(), played.iter().collect());
    let lost: Vec<_> = one.difference(&other).collect();
    let added: Vec<_> = other.difference(&one).collect();
    assert!(lost.is_empty() && added.is_empty(), "lost: {lost:#?}\nadded: {added:#?}");
    assert_eq!(original.len(), played.len());
}

/// Flags with which an exposition does not depend on the machine and on its load.
const FIXED: [&str; 3] = ["--hostname=host-1", "--max-age=5000", "--collect-interval=5000"];

/// Records a node, plays it, and compares the expositions.
fn assert_round_trip(mock: &str, flags: &[&str]) -> Recording {
    let flags = &[&FIXED, flags].concat();
    let recording = record(mock, flags);
    let original = run_once(&[&[mock], flags.as_slice()].concat());
    let played = run_once(&[&[recording.flag().as_str()], flags.as_slice()].concat());
    let names = recording.names();
    let original = series_of(&original, &names);
    assert!(original.len() > 50, "{original:#?}");
    assert_same(&original, &series_of(&played, &BTreeMap::new()));
    recording
}

macro_rules! round_trips {
    ($($test:ident: $name:literal at $now:literal;)*) => {
        $(
            #[test]
            fn $test() {
                assert_round_trip(&Scenario::built_in_at($name, $now).flag(), &[]);
            }
        )*
        const PLAYED: &[&str] = &[$($name),*];
    };
}

round_trips! {
    demo_is_played: "demo" at 60;
    idle_t4_is_played: "idle-t4" at 60;
    shared_l20_is_played: "shared-l20" at 60;
    consumer_4090_is_played: "consumer-4090" at 60;
    faulty_is_played: "faulty" at 60;
    blackwell_is_played: "blackwell" at 60;
    old_driver_is_played: "old-driver" at 60;
    mig_a100_is_played: "mig-a100" at 60;
    mig_h100_is_played: "mig-h100" at 30;
    bert_hpa_is_played: "bert-hpa" at 90;
    abi_535_is_played: "abi-535" at 60;
    huge_is_played: "huge" at 60;
    hami_is_played: "hami" at 60;
    hami_mig_is_played: "hami-mig" at 60;
    kai_is_played: "kai" at 60;
    lifecycle_is_played: "lifecycle" at 90;
    lifecycle_of_an_init_container_is_played: "lifecycle" at 20;
    gke_is_played: "gke" at 60;
    gvisor_is_played: "gvisor" at 60;
    jetson_is_played: "jetson" at 60;
    dra_is_played: "dra" at 60;
    dra_sharing_is_played: "dra-sharing" at 60;
}

#[test]
fn every_built_in_scenario_is_played_or_has_no_gpu() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("mock-nvml/scenarios");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let scenarios = files.filter(|path| path.extension().is_some_and(|is| is == "toml"));
    for path in scenarios {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name == "no-gpu" || PLAYED.contains(&name), "{name}");
    }
}

#[test]
fn node_without_a_gpu_is_not_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("node.toml");
    let run = run(&["record", "--mock=no-gpu", "--output", output.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(error.contains("nothing to record: none of the 3 devices on the PCI bus"), "{error}");
    assert!(!output.exists());
}

#[test]
fn dialect_of_dcgm_exporter_is_played_with_its_labels() {
    let flags = ["--dialect=dcgm-exporter", "-k", "--kubernetes-enable-pod-labels"];
    assert_round_trip(&Scenario::built_in_at("demo", 60).flag(), &flags);
}

/// All families but those that the exporter accumulates, with the texts of boards as labels.
#[test]
fn every_family_is_played() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("all.csv");
    let is_accumulated = |name| ACCUMULATED.iter().any(|metric| metric.name == name);
    let rows = catalog::rows().filter(|row| !is_accumulated(row.name));
    let row = |row: catalog::CatalogRow| {
        let kind = if row.is_info_label { "label" } else { row.kind.as_str() };
        format!("{},{kind},\n", row.name)
    };
    fs::write(&counters, rows.map(row).collect::<String>()).unwrap();
    let file = format!("-f={}", counters.display());
    for (name, text) in [("everything", ALL_FAMILIES), ("newest", NEWEST)] {
        let scenario = Scenario::new(name, text);
        assert_round_trip(&scenario.flag(), &["--dialect=dcgm-exporter", &file]);
    }
}

/// A recording of a recording that was edited.
#[test]
fn limit_of_the_own_cgroup_is_played() {
    let node = "now = 60\n[driver]\nversion = \"615.71\"\n[[gpu]]\nmodel = \"H100\"\n\
                memory_limits = [{ cgroup = \"*\", hard = \"20 GiB\" }]\n[cluster]\nnode = \"node-1\"\n";
    let limited = Scenario::new("own-limit", node);
    let recording = assert_round_trip(&limited.flag(), &[]);
    let played = run_once(&[&[recording.flag().as_str()], FIXED.as_slice()].concat());
    assert!(played.contains("reason=\"limited\""), "{played}");
}

#[test]
fn recording_that_was_edited_is_played() {
    let recording = record(&Scenario::built_in_at("demo", 60).flag(), &FIXED);
    let text = recording.text();
    let power = text.lines().find(|line| line.starts_with("nvmlDeviceGetPowerUsage = ")).unwrap();
    let edited = text
        .replacen(power, "nvmlDeviceGetPowerUsage = 123500", 1)
        .replacen(
            "nvmlDeviceGetFBCStats = [0, 0, 0]",
            "nvmlDeviceGetFBCStats = { error = \"GPU_IS_LOST\" }",
            1,
        )
        .replace("namespace-1", "team-a");
    assert_ne!(edited, text);
    let scenario = Scenario::new("edited", &edited);
    assert_round_trip(&scenario.flag(), &[]);
    let played = run_once(&[scenario.flag().as_str()]);
    assert_eq!(value(&played, "DCGM_FI_DEV_POWER_USAGE", &["gpu=\"0\""]), Some(123.5));
    assert!(played.contains("NamespaceName=\"team-a\""), "{played}");
}

/// A node with values that change while it is recorded: counters of a board without GPM, and an XID error.
const RUNNING: &str = r#"
[[gpu]]
model = "A100"
[[process]]
pid = 4101
name = "python"
gpus = [0]
memory = "4 GiB"
sm = 40
pcie_tx = 300
pcie_rx = 200
nvlink = 2000
[[xid]]
gpu = 0
at = 1.0
code = 31
"#;

#[test]
fn rates_and_events_of_a_running_node_are_played() {
    let scenario = Scenario::new("running", RUNNING);
    let recording = record(&scenario.flag(), &[FIXED.as_slice(), &["--seconds=3"]].concat());
    let recorded = fs::read_to_string(recording.path("exposition")).unwrap();
    let played = run_once(&[&[recording.flag().as_str()], FIXED.as_slice()].concat());
    for (family, least) in [
        ("DCGM_FI_PROF_PCIE_TX_BYTES", 1e8),
        ("DCGM_FI_PROF_PCIE_RX_BYTES", 1e8),
        ("DCGM_FI_PROF_NVLINK_TX_BYTES", 1e8),
        ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", 100.0),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1000.0),
        ("DCGM_CUSTOM_PROCESS_SM_UTIL", 40.0),
        ("DCGM_FI_DEV_XID_ERRORS", 31.0),
    ] {
        let values = [&recorded, &played].map(|text| value(text, family, &["gpu=\"0\""]));
        assert_eq!(values[0], values[1], "{family}");
        assert!(values[0] >= Some(least), "{family}: {values:?}");
    }
}

/// Words of a text, as names are: with dots, hyphens and underscores.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c)).collect()
}

/// The values of these labels in an exposition.
fn label_values(exposition: &str, labels: &[&str]) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        for label in labels {
            let found =
                line.split(&format!("{label}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            values.extend(found.filter(|value| !value.is_empty()).map(str::to_owned));
        }
    }
    values
}

/// A scenario at 60 s on a node with another name, which no replacement has.
fn on_node(text: &str, node: &str) -> String {
    let node = format!("node = \"{node}\"");
    let named = match text.lines().find(|line| line.starts_with("node = ")) {
        Some(line) => text.replacen(line, &node, 1),
        None if text.contains("[cluster]") => {
            text.replacen("[cluster]", &format!("[cluster]\n{node}"), 1)
        }
        None => format!("{text}\n[cluster]\n{node}\n"),
    };
    format!("now = 60\n{named}")
}

#[test]
fn recording_has_no_name_of_the_node() {
    let labels = [
        "UUID",
        "pci_bus_id",
        "Hostname",
        "namespace",
        "pod",
        "container",
        "exported_pod",
        "NamespaceName",
        "PodName",
        "ContainerName",
        "ProcessName",
        "NodeName",
    ];
    for name in ["demo", "shared-l20", "kai", "dra"] {
        let scenario = Scenario::new(name, &on_node(&built_in_scenario(name), "gpu-host-7"));
        let recording = record(&scenario.flag(), &FIXED);
        // Known to the exporter, and not names of this node.
        let known = ["nvidia-cuda-mps", "kai-resource-reservation"];
        let recorded = known.iter().fold(recording.text(), |text, name| text.replace(name, ""));
        let words = words(&recorded);
        let flag = scenario.flag();
        let expositions = [
            run_once(&[flag.as_str()]),
            run_once(&[flag.as_str(), "--dialect=dcgm-exporter", "-k"]),
        ];
        let mut originals = label_values(&expositions.concat(), &labels);
        originals.extend(recording.names().into_keys());
        originals.retain(|name| !known.contains(&name.as_str()));
        assert!(originals.contains("gpu-host-7") && originals.len() > 10, "{originals:?}");
        for original in &originals {
            let is_in = words.contains(original.as_str())
                || original.len() >= 16 && recorded.contains(original);
            assert!(!is_in, "{name}: {original}");
        }
    }
}

#[test]
fn names_are_kept_on_request() {
    let scenario = Scenario::built_in_at("shared-l20", 60);
    let mock = scenario.flag();
    let recording = record(&mock, &["--keep-names"]);
    assert!(recording.names().is_empty());
    let [original, played] = [mock.clone(), recording.flag()]
        .map(|mock| run_once(&[&[mock.as_str()], FIXED.as_slice()].concat()));
    let none = BTreeMap::new();
    assert_same(&series_of(&original, &none), &series_of(&played, &none));
}

#[test]
fn recording_of_a_large_node_is_less_than_a_megabyte() {
    let recording = record(&Scenario::built_in_at("huge", 60).flag(), &FIXED);
    let size = recording.text().len();
    assert!((100_000..1_000_000).contains(&size), "{size}");
}

#[test]
fn exposition_of_the_recorded_moment_has_the_replaced_names() {
    let recording = record(&Scenario::built_in_at("demo", 60).flag(), &FIXED);
    let exposition = fs::read_to_string(recording.path("exposition")).unwrap();
    assert!(exposition.contains("PodName=\"pod-1\""), "{exposition}");
    assert!(exposition.contains("DCGM_FI_PROF_SM_ACTIVE{"), "all families are recorded");
    assert!(!exposition.contains("PodName=\"train\""));
}
