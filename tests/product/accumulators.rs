//! Usage accumulated per container and per owner class, compared with the GPU's own energy counter.

use crate::exporter::{Exporter, Scenario, series, value};

const SCENARIO: &str = r#"
[[gpu]]
model = "L20"
[[gpu]]
model = "A100"
mig = [{ instances = [{ profile = "7g.80gb", gi = 0, slot = 0 }] }]
[cluster]
node = "node-1"
[[pod]]
name = "train"
namespace = "ml"
containers = [{ name = "main", ack = { gpu = 0, gib = 4 } }]
[[pod]]
name = "notebook"
namespace = "ml"
containers = [{ name = "main", ack = { gpu = 0, gib = 4 } }]
[[process]]
pid = 101
name = "python"
gpus = [0]
sm = 30
memory = "1 GiB"
pod = "ml/train"
[[process]]
pid = 102
name = "python"
gpus = [0]
memory = "1 GiB"
pod = "ml/notebook"
[[process]]
pid = 103
name = "x"
gpus = [0]
sm = 10
memory = "1 GiB"
"#;

const FAMILIES: [&str; 10] = [
    "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL, counter, x",
    "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL, counter, x",
    "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL, counter, x",
    "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS, gauge, x",
    "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL, counter, x",
    "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL, counter, x",
    "DCGM_CUSTOM_DEV_GPU_UTIL_MIN, gauge, x",
    "DCGM_CUSTOM_DEV_GPU_UTIL_MEAN, gauge, x",
    "DCGM_CUSTOM_DEV_GPU_UTIL_MAX, gauge, x",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, counter, x",
];

/// The exposition, restricted to series of the L20 (GPU 0).
struct L20Metrics(String);

impl L20Metrics {
    fn value(&self, family: &str, labels: &[&str]) -> f64 {
        let labels = [&["gpu=\"0\""], labels].concat();
        let found = value(&self.0, family, &labels);
        found.unwrap_or_else(|| panic!("no {family} {labels:?} in {}", self.0))
    }

    fn is_zero(&self, family: &str, label: &str) -> bool {
        value(&self.0, family, &["gpu=\"0\"", label]) == Some(0.0)
    }

    fn sample_time(&self) -> f64 {
        self.value("nvml_exporter_gpu_sample_timestamp_seconds", &[])
    }

    /// Joules of all owner classes together.
    fn energy_of_all_owners(&self) -> f64 {
        let owners = ["container", "host", "none", "unknown"];
        let joules = |owner| self.value(ENERGY, &[&format!("owner=\"{owner}\"")]);
        owners.iter().map(joules).sum()
    }
}

const ENERGY: &str = "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL";
const TRAIN: &str = "PodName=\"train\"";
const NOTEBOOK: &str = "PodName=\"notebook\"";

#[test]
fn accumulated_usage_matches_the_gpu_counters() {
    let scenario = Scenario::new("accumulators", SCENARIO);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    std::fs::write(&file, FAMILIES.join("\n")).unwrap();
    let (mock, counters) = (scenario.flag(), format!("-f={}", file.display()));
    let exporter = Exporter::start(&[&mock, &counters, "--collect-interval", "500"]);
    let wait_for = |what: &str, is_ready: &dyn Fn(&L20Metrics) -> bool| {
        L20Metrics(exporter.wait_for(what, |metrics| {
            value(metrics, ENERGY, &["gpu=\"0\"", "owner=\"host\""])
                .is_some_and(|joules| joules > 0.0)
                && value(metrics, "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", &[NOTEBOOK]).is_some()
                && is_ready(&L20Metrics(metrics.to_owned()))
        }))
    };
    let first = wait_for("accumulators", &|_| true);
    let start = first.sample_time();
    let last = wait_for("two more seconds", &|metrics| metrics.sample_time() > start + 2.0);
    let elapsed = last.sample_time() - start;
    let increase =
        |family: &str, labels: &[&str]| last.value(family, labels) - first.value(family, labels);
    let assert_near = |found: f64, expected: f64| {
        assert!((found - expected).abs() <= 0.15 * expected, "{found}, expected {expected}");
    };

    assert_near(increase("DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL", &[TRAIN]), 0.3 * elapsed);
    assert_near(
        increase("DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL", &["ProcessId=\"101\""]),
        0.3 * elapsed,
    );
    assert_near(
        increase("DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL", &["ProcessId=\"103\""]),
        0.1 * elapsed,
    );
    assert_near(increase("DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", &[NOTEBOOK]), elapsed);
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", TRAIN));
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS", TRAIN));
    assert_near(increase("DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS", &[NOTEBOOK]), elapsed);

    let used = increase("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]) / 1000.0;
    let attributed = last.energy_of_all_owners() - first.energy_of_all_owners();
    assert!(
        used > 0.0 && (attributed - used).abs() < 1e-3,
        "{attributed} J attributed of {used} J"
    );
    assert_near(increase("DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL", &[TRAIN]), 0.75 * used);
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL", NOTEBOOK));
    assert_near(increase(ENERGY, &["owner=\"host\""]), 0.25 * used);

    let [min, mean, max] = ["MIN", "MEAN", "MAX"]
        .map(|statistic| last.value(&format!("DCGM_CUSTOM_DEV_GPU_UTIL_{statistic}"), &[]));
    assert!(0.0 < min && min <= mean && mean <= max && max <= 100.0, "{min} {mean} {max}");

    // The partitioned GPU has no process utilization, so no usage of it is accumulated.
    for family in FAMILIES.map(|line| line.split(',').next().unwrap()) {
        let is_on_both_gpus = family == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";
        let is_on_mig_gpu = series(&last.0, family).iter().any(|line| line.contains("gpu=\"1\""));
        assert_eq!(is_on_mig_gpu, is_on_both_gpus, "{family}");
    }
}

#[test]
fn unselected_accumulators_are_not_exported() {
    let scenario = Scenario::new("accumulators", SCENARIO);
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "200"]);
    let metrics = exporter.wait_for("processes", |metrics| metrics.contains("PodName=\"train\""));
    for family in FAMILIES.map(|line| line.split(',').next().unwrap()) {
        let is_default = family == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";
        assert_eq!(!series(&metrics, family).is_empty(), is_default, "{family}");
    }
}
