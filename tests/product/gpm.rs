//! GPM: what happened between two samples, on GPUs and on their instances.

use crate::exporter::{Exporter, Scenario, built_in, once, series, value};

const ACTIVE: &str = "DCGM_FI_PROF_SM_ACTIVE";

fn values(page: &str, family: &str) -> Vec<f64> {
    series(page, family)
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect()
}

fn active(page: &str, instance: u32) -> Option<f64> {
    value(page, ACTIVE, &["gpu=\"1\"", &format!("GPU_I_ID=\"{instance}\"")])
}

#[test]
fn ratios_of_instances_and_of_their_gpu_agree_with_what_runs() {
    let scenario = Scenario::held("mig-h100", 30);
    let instances = once(&[&scenario.flag()]);
    // One process each, which keeps 95 and 80 % of its instance busy.
    assert_eq!((active(&instances, 1), active(&instances, 2)), (Some(0.95), Some(0.8)));
    for family in
        ["GR_ENGINE_ACTIVE", "SM_ACTIVE", "SM_OCCUPANCY", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE"]
    {
        let values = values(&instances, &format!("DCGM_FI_PROF_{family}"));
        assert_eq!(values.len(), 6, "{family}: one an instance");
        assert!(values.iter().all(|ratio| (0.0..=1.0).contains(ratio)), "{family}: {values:?}");
    }
    // Three and four of seven slices.
    let whole = once(&[&scenario.flag(), "-d", "g"]);
    let of_gpu = value(&whole, ACTIVE, &["gpu=\"1\""]).unwrap();
    let of_both = 0.95 * 3.0 / 7.0 + 0.8 * 4.0 / 7.0;
    assert!((of_gpu - of_both).abs() < 0.1, "{of_gpu} of the GPU, {of_both} of its instances");
}

#[test]
fn boards_before_hopper_have_none_and_nothing_is_made_up() {
    for name in ["mig-a100", "idle-t4", "shared-l20", "consumer-4090"] {
        let page = once(&[&Scenario::held(name, 30).flag()]);
        let told = page.lines().filter(|line| line.starts_with("DCGM_FI_PROF_"));
        let told: Vec<_> = told.filter(|line| !line.contains("_BYTES{")).collect();
        assert_eq!(told, Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_board_that_counts_bytes_has_rates_without_gpm() {
    let process =
        "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\npcie_tx = 200\n";
    let scenario = Scenario::new("t4", &format!("[[gpu]]\nmodel = \"T4\"\n{process}"));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let mebibytes = |page: &str| {
        let rate = value(page, "DCGM_FI_PROF_PCIE_TX_BYTES", &["gpu=\"0\""])?;
        Some(rate / 1_048_576.0)
    };
    // The process begins with the world, and the first window may begin before both.
    exporter.wait_for("a rate", |page| {
        mebibytes(page).is_some_and(|rate| (190.0..210.0).contains(&rate))
    });
}

#[test]
fn an_instance_that_takes_over_an_id_starts_anew() {
    let text = built_in("mig-h100");
    let at = |now: u32| format!("now = {now}\n{text}");
    let scenario = Scenario::new("mig-h100", &at(30));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let of = |page: &str, instance: u32| {
        value(page, ACTIVE, &["gpu=\"0\"", &format!("GPU_I_ID=\"{instance}\"")])
    };
    exporter.wait_for("the first layout", |page| of(page, 4).is_some());
    // The id 1 means another instance now; its samples are its own, and a mean of both never shows.
    scenario.rewrite(&at(90));
    let page = exporter.wait_for("the second layout", |page| {
        page.contains("GPU_I_PROFILE=\"4g.40gb\",GPU_I_ID=\"1\"") && of(page, 1).is_some()
    });
    let used = of(&page, 1).unwrap();
    assert!((0.0..=1.0).contains(&used), "{used}");
}

#[test]
fn a_driver_that_refuses_gpm_costs_nothing_else() {
    let fault = "[[fault]]\nfunction = \"nvmlGpmSampleGet\"\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("gpm", &format!("[[gpu]]\nmodel = \"H100\"\n{fault}"));
    let page = once(&[&scenario.flag()]);
    assert_eq!(values(&page, ACTIVE), Vec::<f64>::new());
    assert_eq!(value(&page, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]), Some(0.0));
    assert!(
        series(&page, "DCGM_FI_PROF_PCIE_TX_BYTES").is_empty(),
        "a failure is not a missing feature"
    );
}
