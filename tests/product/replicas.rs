//! Replicas of the device plugin: what is allocated with time-slicing and with MPS, and that it is
//! absent until it is certain which of them it is.

use crate::exporter::{Exporter, Scenario, WATCH_NODE, run_once, series, value};

const MEMORY: &str = "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
const COMPUTE: &str = "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED";
const FRACTION: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const TOTAL: &str = "DCGM_CUSTOM_DEV_FB_TOTAL";
const USED: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const PROBLEMS: &str = "nvml_exporter_allocation_problems";

/// Two pods with one of four replicas of a T4 each.
fn pods(mps: bool) -> String {
    format!(
        "now = 40\n[[gpu]]\nmodel = \"T4\"\n[[pod]]\nname = \"p\"\ncount = 2\n\
         containers = [{{ name = \"c\", slices = {{ gpus = 0, replicas = 4, mps = {mps} }} }}]\n"
    )
}

/// A process of the first pod.
fn process(kind: &str) -> String {
    format!(
        "[[process]]\npid = 70\nname = \"py\"\ntype = \"{kind}\"\ngpus = [0]\nmemory = \"2 GiB\"\n\
         pod = \"default/p-0\"\n"
    )
}

fn label(strategy: &str) -> String {
    let key = "nvidia.com/gpu.sharing-strategy";
    format!("[cluster]\nlabels = [{{ key = \"{key}\", value = \"{strategy}\" }}]\n")
}

/// What is allocated: the fraction of the memory of each pod, its compute, and the sum.
fn allocated(metrics: &str) -> Vec<(Option<f64>, Option<f64>, Option<f64>)> {
    let total = value(metrics, TOTAL, &[]).unwrap_or(f64::NAN);
    let of = |pod: &str| {
        let of = |family| value(metrics, family, &[&format!("PodName=\"{pod}\"")]);
        (of(MEMORY).map(|mib| mib / total), of(COMPUTE), value(metrics, FRACTION, &[]))
    };
    ["p-0", "p-1"].map(of).to_vec()
}

fn allocated_once(scenario: &str) -> Vec<(Option<f64>, Option<f64>, Option<f64>)> {
    let scenario = Scenario::new("replicas", scenario);
    allocated(&run_once(&[&scenario.flag(), "--node-name", "node-1"]))
}

fn both(share: (f64, f64, f64)) -> Vec<(Option<f64>, Option<f64>, Option<f64>)> {
    vec![(Some(share.0), Some(share.1), Some(share.2)); 2]
}

/// A quarter of memory and compute for each of the two.
const MPS: (f64, f64, f64) = (0.25, 0.25, 0.5);
/// All of the memory for each, and no limit of the compute.
const TIME_SLICING: (f64, f64, f64) = (1.0, 0.0, 1.0);
const UNKNOWN: (Option<f64>, Option<f64>, Option<f64>) = (None, None, None);

#[test]
fn clients_of_the_plugins_mps_daemon_have_equal_parts() {
    assert_eq!(allocated_once(&(pods(true) + &process("M"))), both(MPS));
}

#[test]
fn time_slicing_limits_nothing() {
    assert_eq!(allocated_once(&pods(false)), both(TIME_SLICING), "idle");
    assert_eq!(allocated_once(&(pods(false) + &process("C"))), both(TIME_SLICING));
    let own_server = pods(false) + &process("M");
    assert_eq!(allocated_once(&own_server), both(TIME_SLICING), "an MPS server that a pod runs");
}

#[test]
fn nothing_is_claimed_before_the_first_client() {
    for evidence in ["", &process("C")] {
        let scenario = Scenario::new("replicas", &(pods(true) + evidence));
        let metrics = run_once(&[&scenario.flag(), "--node-name", "node-1"]);
        assert_eq!(allocated(&metrics), [UNKNOWN; 2], "{evidence}");
        assert_eq!(value(&metrics, PROBLEMS, &["reason=\"unknown_replica\""]), Some(2.0));
        assert_eq!(series(&metrics, USED).len(), 2, "processes and idle containers are certain");
    }
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetComputeMode\"\ncode = \"NOT_SUPPORTED\"\n";
    assert_eq!(allocated_once(&(pods(false) + fault)), [UNKNOWN; 2]);
}

#[test]
fn what_the_clients_have_shown_remains_known_without_them() {
    let scenario = Scenario::new("replicas", &(pods(true) + &process("M")));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=100"]);
    exporter.wait_for("MPS", |metrics| allocated(metrics) == both(MPS));
    scenario.rewrite(&pods(true));
    let idle = |metrics: &str| series(metrics, USED).iter().all(|line| line.ends_with(" 0"));
    let metrics = exporter.wait_for("the end of the client", idle);
    assert_eq!(allocated(&metrics), both(MPS));
}

#[test]
fn node_label_states_the_strategy() {
    for (strategy, mps, expected) in
        [("mps", true, both(MPS)), ("time-slicing", false, both(TIME_SLICING))]
    {
        let fault = "[[fault]]\nfunction = \"nvmlDeviceGetComputeMode\"\ncode = \"UNKNOWN\"\n";
        let scenario = Scenario::new("replicas", &(pods(mps) + &label(strategy) + fault));
        let exporter = Exporter::start(&[&scenario.flag(), WATCH_NODE, "--collect-interval=100"]);
        exporter.wait_for(strategy, |metrics| allocated(metrics) == expected);
    }
    let other = Scenario::new("replicas", &(pods(true) + &label("none")));
    assert_eq!(allocated(&run_once(&[&other.flag(), WATCH_NODE])), [UNKNOWN; 2]);
}
