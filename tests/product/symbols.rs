//! Libraries that lack a symbol: each is removed once, and the rest of the exposition stays.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::Output;
use std::sync::Mutex;
use std::thread;

use mock_nvml::header::functions;
use nvml_exporter::catalog::{CatalogRow, rows};

use crate::exporter::{Exporter, Scenario, run};

/// Boards of several generations, one of them partitioned, with processes.
const NODE: &str = r#"
now = 60
[[gpu]]
model = "T4"
[[gpu]]
model = "H100"
mig = [{ from = 0, instances = [{ profile = "3g.40gb", gi = 1 }] }]
[[gpu]]
model = "GB200"
[[gpu]]
model = "GB10"
[[process]]
pid = 100
name = "p"
gpus = [0, 2, 3]
memory = "1 GiB"
sm = 40
[[process]]
pid = 200
name = "q"
gpus = [1]
gi = 1
memory = "1 GiB"
sm = 40
"#;
/// Without one of these there is no session, no GPU, or no identity.
const ESSENTIAL: [&str; 8] = [
    "nvmlInit_v2",
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
];
const XIDS: &[&str] = &["DCGM_EXP_XID_ERRORS_", "DCGM_FI_DEV_XID_ERROR"];
const PROFILING: &[&str] = &["DCGM_FI_PROF_"];
/// Symbols that other rows than those which name them rest on: the prefixes of these rows.
const SHARED: [(&str, &[&str]); 22] = [
    // Whether and how a GPU is partitioned.
    ("nvmlDeviceGetMigMode", &["DCGM_"]),
    ("nvmlDeviceGetMaxMigDeviceCount", &["DCGM_"]),
    ("nvmlDeviceGetMigDeviceHandleByIndex", &["DCGM_"]),
    ("nvmlDeviceGetGpuInstanceId", &["DCGM_"]),
    ("nvmlDeviceGetComputeInstanceId", &["DCGM_"]),
    // Whether a process is on the device at all, and whether it may be on another.
    ("nvmlDeviceGetComputeRunningProcesses_v3", &["DCGM_CUSTOM_PROCESS_", "DCGM_CUSTOM_ILLEGAL_"]),
    ("nvmlDeviceGetProcessesUtilizationInfo", &["DCGM_CUSTOM_PROCESS_", "DCGM_CUSTOM_ILLEGAL_"]),
    // A label of every series of a GPU.
    ("nvmlDeviceGetMinorNumber", &["DCGM_"]),
    // Inputs of the health watches.
    ("nvmlDeviceGetCurrPcieLinkGeneration", &["DCGM_EXP_GPU_HEALTH_STATUS"]),
    ("nvmlDeviceGetCurrPcieLinkWidth", &["DCGM_EXP_GPU_HEALTH_STATUS"]),
    ("nvmlDeviceValidateInforom", &["DCGM_EXP_GPU_HEALTH_STATUS"]),
    // XIDs.
    ("nvmlDeviceGetSupportedEventTypes", XIDS),
    ("nvmlDeviceRegisterEvents", XIDS),
    ("nvmlEventSetCreate", XIDS),
    // What older drivers have instead of a function that rows name.
    (
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        &["DCGM_EXP_CLOCK_EVENTS_", "DCGM_EXP_GPU_HEALTH_STATUS", "DCGM_FI_DEV_CLOCK"],
    ),
    ("nvmlDeviceGetTemperature", &["DCGM_FI_DEV_GPU_TEMP"]),
    ("nvmlDeviceGetProcessUtilization", &["DCGM_CUSTOM_PROCESS_", "DCGM_CUSTOM_ILLEGAL_"]),
    // Samples of the profiling metrics.
    ("nvmlGpmQueryDeviceSupport", PROFILING),
    ("nvmlGpmSampleAlloc", PROFILING),
    ("nvmlGpmSampleGet", PROFILING),
    ("nvmlGpmMigSampleGet", PROFILING),
    // The one field that is an event.
    ("nvmlDeviceGetFieldValues", &["DCGM_FI_", "DCGM_EXP_", "DCGM_CUSTOM_DEV_"]),
];

/// A counters file with every row.
fn counters() -> String {
    let line = |row: CatalogRow| format!("{}, {}, A row.\n", row.name, row.kind.as_str());
    rows().filter(|row| !row.is_info_label).map(line).collect()
}

fn scenario(driver: &str, without: Option<&str>) -> String {
    let mut text =
        NODE.replacen("[[gpu]]", &format!("[driver]\nversion = \"{driver}\"\n[[gpu]]"), 1);
    if let Some(function) = without {
        write!(text, "[[fault]]\nfunction = \"{function}\"\nmissing = true\n").unwrap();
    }
    text
}

/// The series of GPUs. Those that accumulate over the exporter's own time are left out.
fn samples(output: &Output) -> BTreeSet<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let is_of_gpu = |line: &&str| line.starts_with("DCGM_") && !line.contains("_SECONDS_TOTAL{");
    text.lines().filter(is_of_gpu).map(str::to_owned).collect()
}

fn family(sample: &str) -> &str {
    sample.split(['{', ' ']).next().unwrap()
}

/// Whether a row may be absent without `function`.
fn rests_on(function: &str, family: &str) -> bool {
    let shared = SHARED.iter().filter(|(symbol, _)| *symbol == function);
    shared.flat_map(|(_, prefixes)| *prefixes).any(|prefix| family.starts_with(prefix))
        || rows().any(|row| {
            row.name == family
                && row.symbol.trim_end_matches("_v2") == function.trim_end_matches("_v2")
        })
}

/// What is wrong without `function`, if anything.
fn problem(driver: &str, function: &str, all: &BTreeSet<String>, file: &str) -> Option<String> {
    let text = scenario(driver, Some(function));
    let without = Scenario::new("node", &text);
    let output = run(&["--once", &without.flag(), file, "--node-name=n"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if log.contains("panicked") || output.status.code().is_none() {
        return Some(format!("{function}: {log}"));
    }
    if ESSENTIAL.contains(&function) {
        return None;
    }
    let rest = samples(&output);
    let lost: BTreeSet<&str> = all
        .difference(&rest)
        .map(|sample| family(sample))
        .filter(|name| !rests_on(function, name))
        .collect();
    let new: BTreeSet<&str> = rest.difference(all).map(|sample| family(sample)).collect();
    let new: BTreeSet<&str> = new.into_iter().filter(|name| !rests_on(function, name)).collect();
    (!lost.is_empty() || !new.is_empty())
        .then(|| format!("{function}: without {lost:?}, and other values of {new:?}"))
}

/// The functions that the exporter calls on this driver.
fn called(driver: &str, file: &str) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let counts = directory.path().join("calls");
    let whole = Scenario::new("node", &scenario(driver, None));
    let exporter = Exporter::start_with(
        &[("MOCK_NVML_CALLS", counts.to_str().unwrap())],
        &[&whole.flag(), file, "--collect-interval=200"],
    );
    exporter.wait_for("some cycles", |metrics| {
        crate::exporter::value(metrics, "nvml_exporter_cycles_total", &[]).is_some_and(|n| n >= 3.0)
    });
    let counts = fs::read_to_string(counts).unwrap();
    counts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The number of functions that were removed from the library of a driver, and what was wrong.
fn remove_one_by_one(driver: &str) -> (usize, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.csv");
    fs::write(&path, counters()).unwrap();
    let file = format!("-f={}", path.display());
    let whole = Scenario::new("node", &scenario(driver, None));
    let all = samples(&run(&["--once", &whole.flag(), &file, "--node-name=n"]));
    assert!(all.len() > 200, "{all:?}");
    let branch = driver.split('.').next().unwrap().parse().unwrap();
    let called = called(driver, &file);
    let names = functions(branch).filter(|(name, exists)| *exists && called.contains(*name));
    let names: Mutex<Vec<&str>> = Mutex::new(names.map(|(name, _)| name).collect());
    let removed = names.lock().unwrap().len();
    let problems = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(name) = names.lock().unwrap().pop() else { break };
                    if let Some(found) = problem(driver, name, &all, &file) {
                        problems.lock().unwrap().insert(format!("driver {driver}: {found}"));
                    }
                }
            });
        }
    });
    (removed, problems.into_inner().unwrap().into_iter().collect())
}

#[test]
fn newest_driver_may_lack_any_symbol() {
    let (removed, problems) = remove_one_by_one("615.71");
    assert!(removed > 50, "{removed}");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
#[ignore = "minutes; SYMBOLS_OF_ALL_BRANCHES=1 runs it"]
fn every_driver_may_lack_any_symbol() {
    if std::env::var_os("SYMBOLS_OF_ALL_BRANCHES").is_none() {
        return;
    }
    let drivers = [
        "470.256.02",
        "535.161.08",
        "550.54.15",
        "570.148.08",
        "580.95.05",
        "590.44.01",
        "595.91.07",
        "610.43.02",
    ];
    let (removed, problems): (Vec<usize>, Vec<_>) =
        drivers.into_iter().map(remove_one_by_one).unzip();
    eprintln!(
        "{} functions were removed: {removed:?} of {drivers:?}",
        removed.iter().sum::<usize>()
    );
    let problems = problems.concat();
    assert!(problems.is_empty(), "{problems:#?}");
}
