//! Platforms with device ids, PCI information or cgroups of their own: GKE, Jetson, WSL, gVisor.

use crate::exporter::{Exporter, Scenario, WATCH_NODE, built_in_scenario, run_once, series, value};

const MEMORY: &str = "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
const COMPUTE: &str = "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED";
const FRACTION: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const TOTAL: &str = "DCGM_CUSTOM_DEV_FB_TOTAL";
const USED: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";

fn of_pod(metrics: &str, family: &str, pod: &str) -> Option<f64> {
    value(metrics, family, &[&format!("PodName=\"{pod}\"")])
}

#[test]
fn gke_device_ids_are_gpus_replicas_and_mig_devices() {
    let exporter = Exporter::start(&["--mock=gke", WATCH_NODE, "--collect-interval=100"]);
    let metrics = exporter.wait_for("the node label and an idle container", |metrics| {
        of_pod(metrics, MEMORY, "serve").is_some() && of_pod(metrics, USED, "spare").is_some()
    });
    let t4 = value(&metrics, TOTAL, &["gpu=\"0\""]).unwrap();
    let gi = value(&metrics, TOTAL, &["gpu=\"1\"", "GPU_I_ID=\"1\""]).unwrap();
    for (pod, memory, compute, used) in [
        ("serve", t4 / 4.0, 0.25, 3072.0),
        ("spare", t4 / 4.0, 0.25, 0.0),
        ("train", gi, 0.0, 30720.0),
    ] {
        assert_eq!(of_pod(&metrics, MEMORY, pod), Some(memory), "{pod}");
        assert_eq!(of_pod(&metrics, COMPUTE, pod), Some(compute), "{pod}");
        assert_eq!(of_pod(&metrics, USED, pod), Some(used), "{pod}");
    }
    assert_eq!(value(&metrics, FRACTION, &["gpu=\"0\""]), Some(0.5));
    assert_eq!(value(&metrics, FRACTION, &["GPU_I_ID=\"1\""]), Some(1.0));
    assert_eq!(value(&metrics, FRACTION, &["GPU_I_ID=\"5\""]), Some(0.0));
}

#[test]
fn time_shared_mig_device_of_gke_is_shared() {
    let scenario = built_in_scenario("gke").replace("value = \"mps\"", "value = \"time-sharing\"");
    let scenario = scenario.replace("[\"nvidia1/gi1\"]", "[\"nvidia1/gi1/vgpu1\"]");
    let scenario = Scenario::new("gke", &scenario);
    let exporter = Exporter::start(&[&scenario.flag(), WATCH_NODE, "--collect-interval=100"]);
    let metrics = exporter.wait_for("the node label", |metrics| {
        of_pod(metrics, MEMORY, "train").is_some() && of_pod(metrics, USED, "serve").is_some()
    });
    for (pod, gpu) in [("train", "GPU_I_ID=\"1\""), ("serve", "gpu=\"0\"")] {
        assert_eq!(of_pod(&metrics, MEMORY, pod), value(&metrics, TOTAL, &[gpu]), "{pod}");
        assert_eq!(of_pod(&metrics, COMPUTE, pod), Some(0.0), "{pod}");
        let mode = [&*format!("PodName=\"{pod}\""), "AllocateMode=\"share\""];
        assert!(value(&metrics, USED, &mode).is_some(), "{pod}");
    }
}

#[test]
fn gpu_without_pci_information_is_published_and_is_the_only_gpu() {
    let metrics = run_once(&["--mock=jetson"]);
    let total = value(&metrics, TOTAL, &["gpu=\"0\""]);
    assert!(total.is_some());
    assert_eq!(of_pod(&metrics, MEMORY, "vision"), total);
    assert_eq!(of_pod(&metrics, COMPUTE, "vision"), Some(0.0));
    assert_eq!(of_pod(&metrics, USED, "vision"), Some(3072.0));
    assert_eq!(value(&metrics, FRACTION, &[]), Some(1.0));
    let metrics = run_once(&["--mock=jetson", "--dialect=dcgm-exporter", "-k"]);
    assert!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &["pod=\"vision\""]).is_some());
    assert!(!metrics.contains("pci_bus_id=\"0"), "{metrics}");
}

#[test]
fn id_of_the_only_gpu_is_in_doubt_with_two_gpus() {
    for (id, gpus, expected) in [("all", 1, true), ("tegra", 2, false), ("all", 2, false)] {
        let scenario = built_in_scenario("jetson").replace("[\"tegra\"]", &format!("[\"{id}\"]"));
        let scenario = scenario.replace("pcie_replays_per_hour = 0", &format!("count = {gpus}"));
        let scenario = Scenario::new("jetson", &scenario);
        let metrics = run_once(&[&scenario.flag()]);
        assert_eq!(of_pod(&metrics, MEMORY, "vision").is_some(), expected, "{id} {gpus}");
        assert_eq!(of_pod(&metrics, USED, "vision").is_some(), expected, "{id} {gpus}");
        assert_eq!(series(&metrics, FRACTION).len(), usize::from(expected), "{id} {gpus}");
        assert!(series(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED").is_empty(), "{id} {gpus}");
    }
}

/// With both cgroup drivers the process of a sandbox is in a cgroup of no container.
#[test]
fn process_of_a_sandbox_is_that_of_the_only_container_with_the_gpu() {
    std::thread::scope(|scope| {
        for cgroups in ["systemd-v2", "cgroupfs-v1"] {
            scope.spawn(move || {
                let cluster = format!("[cluster]\ncgroups = \"{cgroups}\"\n");
                let text = format!("now = 40\n{}{cluster}", built_in_scenario("gvisor"));
                let scenario = Scenario::new("gvisor", &text);
                let exporter =
                    Exporter::start(&[&scenario.flag(), WATCH_NODE, "--collect-interval=100"]);
                let metrics = exporter.wait_for(cgroups, |m| of_pod(m, USED, "notebook").is_some());
                let container = ["PodName=\"notebook\"", "ContainerName=\"jupyter\""];
                assert_eq!(value(&metrics, USED, &container), Some(4096.0));
                assert_eq!(value(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &container), Some(60.0));
                assert_eq!(series(&metrics, USED).len(), 1, "{metrics}");
                assert_eq!(of_pod(&metrics, USED, "pair"), None, "either of its containers");
                let unresolved = ["reason=\"no_container\""];
                let count = value(&metrics, "nvml_exporter_unresolved_processes", &unresolved);
                assert_eq!(count, Some(1.0), "{metrics}");
            });
        }
    });
}
