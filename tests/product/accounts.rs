//! What containers use in all, beside what the GPU itself has counted.

use crate::exporter::{Exporter, Scenario, series, value};

const WORLD: &str = r#"
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

/// What a page says of the L20.
struct Page(String);

impl Page {
    fn of(&self, family: &str, labels: &[&str]) -> f64 {
        let labels = [&["gpu=\"0\""], labels].concat();
        let found = value(&self.0, family, &labels);
        found.unwrap_or_else(|| panic!("no {family} {labels:?} in {}", self.0))
    }

    fn is_zero(&self, family: &str, label: &str) -> bool {
        value(&self.0, family, &["gpu=\"0\"", label]) == Some(0.0)
    }

    fn at(&self) -> f64 {
        self.of("nvml_exporter_gpu_sample_timestamp_seconds", &[])
    }

    fn owners(&self) -> f64 {
        let owners = ["container", "host", "nobody", "unknown"];
        let of = |owner| self.of(ENERGY, &[&format!("owner=\"{owner}\"")]);
        owners.iter().map(of).sum()
    }
}

const ENERGY: &str = "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL";
const TRAIN: &str = "PodName=\"train\"";
const NOTEBOOK: &str = "PodName=\"notebook\"";

#[test]
fn what_is_used_adds_up_to_what_the_gpu_counts() {
    let scenario = Scenario::new("accounts", WORLD);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    std::fs::write(&file, FAMILIES.join("\n")).unwrap();
    let (mock, counters) = (scenario.flag(), format!("-f={}", file.display()));
    let exporter = Exporter::start(&[&mock, &counters, "--collect-interval", "500"]);
    let page = |what: &str, enough: &dyn Fn(&Page) -> bool| {
        Page(exporter.wait_for(what, |page| {
            value(page, ENERGY, &["gpu=\"0\"", "owner=\"host\""]).is_some_and(|joules| joules > 0.0)
                && value(page, "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", &[NOTEBOOK]).is_some()
                && enough(&Page(page.to_owned()))
        }))
    };
    let first = page("accounts", &|_| true);
    let begin = first.at();
    let last = page("two seconds more", &|page| page.at() > begin + 2.0);
    let passed = last.at() - begin;
    let grown = |family: &str, labels: &[&str]| last.of(family, labels) - first.of(family, labels);
    let near = |found: f64, expected: f64| {
        assert!((found - expected).abs() <= 0.15 * expected, "{found}, not {expected}");
    };

    near(grown("DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL", &[TRAIN]), 0.3 * passed);
    near(grown("DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL", &["ProcessId=\"101\""]), 0.3 * passed);
    near(grown("DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL", &["ProcessId=\"103\""]), 0.1 * passed);
    near(grown("DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", &[NOTEBOOK]), passed);
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL", TRAIN));
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS", TRAIN));
    near(grown("DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS", &[NOTEBOOK]), passed);

    let used = grown("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]) / 1000.0;
    let shared = last.owners() - first.owners();
    assert!(used > 0.0 && (shared - used).abs() < 1e-3, "{shared} J shared of {used} J");
    near(grown("DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL", &[TRAIN]), 0.75 * used);
    assert!(last.is_zero("DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL", NOTEBOOK));
    near(grown(ENERGY, &["owner=\"host\""]), 0.25 * used);

    let [min, mean, max] =
        ["MIN", "MEAN", "MAX"].map(|end| last.of(&format!("DCGM_CUSTOM_DEV_GPU_UTIL_{end}"), &[]));
    assert!(0.0 < min && min <= mean && mean <= max && max <= 100.0, "{min} {mean} {max}");

    // The divided GPU tells no utilization of processes, so nobody's use of it is known.
    for family in FAMILIES.map(|line| line.split(',').next().unwrap()) {
        let of_both = family == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";
        let divided = series(&last.0, family).iter().any(|line| line.contains("gpu=\"1\""));
        assert_eq!(divided, of_both, "{family}");
    }
}

#[test]
fn nobody_pays_for_what_nobody_asked_for() {
    let scenario = Scenario::new("accounts", WORLD);
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "200"]);
    let page = exporter.wait_for("processes", |page| page.contains("PodName=\"train\""));
    for family in FAMILIES.map(|line| line.split(',').next().unwrap()) {
        let is_default = family == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";
        assert_eq!(!series(&page, family).is_empty(), is_default, "{family}");
    }
}
