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
