//! GPM metrics of GPUs and MIG instances: ratios and rates between two samples.

use crate::exporter::{Exporter, Scenario, built_in_scenario, run_once, series, value};

const ACTIVE: &str = "DCGM_FI_PROF_SM_ACTIVE";

fn values(metrics: &str, family: &str) -> Vec<f64> {
    series(metrics, family)
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect()
}

fn active(metrics: &str, instance: u32) -> Option<f64> {
    value(metrics, ACTIVE, &["gpu=\"1\"", &format!("GPU_I_ID=\"{instance}\"")])
}

#[test]
fn ratios_of_instances_and_of_their_gpu_match_the_scenario() {
    let scenario = Scenario::built_in_at("mig-h100", 30);
    let instances = run_once(&[&scenario.flag()]);
    // One process per instance, with 95 % and 80 % SM utilization of its instance.
    assert_eq!((active(&instances, 1), active(&instances, 2)), (Some(0.95), Some(0.8)));
    for family in
        ["GR_ENGINE_ACTIVE", "SM_ACTIVE", "SM_OCCUPANCY", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE"]
    {
        let values = values(&instances, &format!("DCGM_FI_PROF_{family}"));
        assert_eq!(values.len(), 6, "{family}: one per instance");
        assert!(values.iter().all(|ratio| (0.0..=1.0).contains(ratio)), "{family}: {values:?}");
    }
    // The instances have three and four of seven slices.
    let whole = run_once(&[&scenario.flag(), "-d", "g"]);
    let of_gpu = value(&whole, ACTIVE, &["gpu=\"1\""]).unwrap();
    let of_both = 0.95 * 3.0 / 7.0 + 0.8 * 4.0 / 7.0;
    assert!((of_gpu - of_both).abs() < 0.1, "{of_gpu} for the GPU, {of_both} for its instances");
}

#[test]
fn gpus_before_hopper_have_no_gpm_series() {
    for name in ["mig-a100", "idle-t4", "shared-l20", "consumer-4090"] {
        let metrics = run_once(&[&Scenario::built_in_at(name, 30).flag()]);
        let profiling = metrics.lines().filter(|line| line.starts_with("DCGM_FI_PROF_"));
        let profiling: Vec<_> = profiling.filter(|line| !line.contains("_BYTES{")).collect();
        assert_eq!(profiling, Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn pcie_rates_without_gpm_come_from_byte_counters() {
    let process =
        "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\npcie_tx = 200\n";
    let scenario = Scenario::new("t4", &format!("[[gpu]]\nmodel = \"T4\"\n{process}"));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let mebibytes = |metrics: &str| {
        let rate = value(metrics, "DCGM_FI_PROF_PCIE_TX_BYTES", &["gpu=\"0\""])?;
        Some(rate / 1_048_576.0)
    };
    // The first window may begin before the process starts.
    exporter.wait_for("a rate", |metrics| {
        mebibytes(metrics).is_some_and(|rate| (190.0..210.0).contains(&rate))
    });
}

#[test]
fn reused_instance_id_starts_with_new_samples() {
    let text = built_in_scenario("mig-h100");
    let at = |now: u32| format!("now = {now}\n{text}");
    let scenario = Scenario::new("mig-h100", &at(30));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let active_on_gpu_0 = |metrics: &str, instance: u32| {
        value(metrics, ACTIVE, &["gpu=\"0\"", &format!("GPU_I_ID=\"{instance}\"")])
    };
    exporter.wait_for("the first layout", |metrics| active_on_gpu_0(metrics, 4).is_some());
    // ID 1 is a different instance now: no mean spans samples of both instances.
    scenario.rewrite(&at(90));
    let metrics = exporter.wait_for("the second layout", |metrics| {
        metrics.contains("GPU_I_PROFILE=\"4g.40gb\",GPU_I_ID=\"1\"")
            && active_on_gpu_0(metrics, 1).is_some()
    });
    let ratio = active_on_gpu_0(&metrics, 1).unwrap();
    assert!((0.0..=1.0).contains(&ratio), "{ratio}");
}

#[test]
fn failing_gpm_affects_no_other_series() {
    let fault = "[[fault]]\nfunction = \"nvmlGpmSampleGet\"\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("gpm", &format!("[[gpu]]\nmodel = \"H100\"\n{fault}"));
    let metrics = run_once(&[&scenario.flag()]);
    assert_eq!(values(&metrics, ACTIVE), Vec::<f64>::new());
    assert_eq!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]), Some(0.0));
    assert!(
        series(&metrics, "DCGM_FI_PROF_PCIE_TX_BYTES").is_empty(),
        "a failed GPM call does not fall back to byte counters"
    );
}

const ALONE: &str = r#"
now = 60
[[gpu]]
model = "H100"
[[pod]]
name = "train"
containers = [{ name = "main", gpus = [0] }]
[[process]]
pid = 7
name = "python"
pod = "default/train"
gpus = [0]
memory = "8 GiB"
sm = 80
pipes = { tensor = 0.25 }
"#;

/// The exposition of the activity of containers on a node.
fn activity(node: &str) -> String {
    let counters = tempfile::NamedTempFile::new().unwrap();
    let lines = ["SM_ACTIVE", "SM_OCCUPANCY", "TENSOR_ACTIVE", "DRAM_ACTIVE"]
        .map(|name| format!("DCGM_CUSTOM_CONTAINER_{name}, gauge, A row.\n"));
    std::fs::write(counters.path(), lines.concat()).unwrap();
    let file = format!("-f={}", counters.path().display());
    run_once(&[&Scenario::new("activity", node).flag(), &file, "--node-name=node-1"])
}

#[test]
fn activity_has_the_labels_of_the_only_container() {
    let metrics = activity(ALONE);
    let labels = ["PodName=\"train\"", "ContainerName=\"main\"", "AllocateMode=\"exclusive\""];
    let of = |name| value(&metrics, &format!("DCGM_CUSTOM_CONTAINER_{name}"), &labels);
    assert_eq!(of("SM_ACTIVE"), Some(0.8), "{metrics}");
    assert_eq!(of("TENSOR_ACTIVE"), Some(0.2), "a quarter of the busy time: {metrics}");
    assert_eq!(of("SM_OCCUPANCY"), Some(0.4), "{metrics}");
    assert!(of("DRAM_ACTIVE").is_some(), "{metrics}");
    // Idle, and known to be.
    let idle = ALONE.replace("sm = 80", "sm = 0").replace("pod = \"default/train\"\n", "");
    let (before, process) = idle.split_once("[[process]]").unwrap();
    assert!(process.contains("gpus = [0]"));
    let of = |name| value(&activity(before), &format!("DCGM_CUSTOM_CONTAINER_{name}"), &labels);
    assert_eq!(of("SM_ACTIVE"), Some(0.0));
}

#[test]
fn activity_of_a_device_with_other_users_is_of_no_container() {
    let other = "[[process]]\npid = 9\nname = \"monitor\"\ngpus = [0]\nmemory = \"1 GiB\"\n";
    let shared = ALONE.replace("gpus = [0] }]", "slices = { gpus = 0, replicas = 2 } }]");
    let namespace = "pid_namespace = \"container\"\n";
    for (name, node) in [
        ("a process of the host", format!("{ALONE}{other}")),
        ("a share", shared),
        ("processes that the driver omits", format!("{namespace}{ALONE}")),
        ("before Hopper", ALONE.replace("H100", "A100")),
    ] {
        let metrics = activity(&node);
        assert!(!metrics.contains("\nDCGM_CUSTOM_CONTAINER_"), "{name}: {metrics}");
    }
}

#[test]
fn activity_of_a_gpu_instance_is_of_its_container() {
    let instances = "mig = [{ from = 0, instances = [{ profile = \"3g.40gb\", gi = 1 }, { profile = \"3g.40gb\", gi = 2, compute = [\"1c.3g.40gb\", \"2c.3g.40gb\"] }] }]\n";
    let node = ALONE
        .replace("model = \"H100\"\n", &format!("model = \"H100\"\n{instances}"))
        .replace("gpus = [0] }]", "mig = [\"0/1\"] }]")
        .replace("gpus = [0]\nmemory", "gpus = [0]\ngi = 1\nmemory");
    let metrics = activity(&node);
    let found = series(&metrics, "DCGM_CUSTOM_CONTAINER_SM_ACTIVE");
    assert_eq!(found.len(), 1, "{metrics}");
    assert!(found[0].contains("PodName=\"train\"") && found[0].ends_with(" 0.8"), "{found:?}");
}
