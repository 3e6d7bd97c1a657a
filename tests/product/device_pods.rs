//! Pod labels of device series, as dcgm-exporter deploys it: without access to the API server and without the host
//! PID namespace. Neither is needed, except for the usage per container of a shared GPU.

use std::fs;

use crate::exporter::{Exporter, Scenario, series, value};

const NODE: &str = r#"
now = 30
pid_namespace = "container"
[[gpu]]
model = "T4"
count = 2
[cluster]
node = "node-1"
[[pod]]
name = "train"
namespace = "team-a"
labels = { app = "llama" }
containers = [{ name = "main", gpus = 0 }]
[[process]]
pid = 101
name = "python"
gpus = [0]
memory = "1 GiB"
pod = "team-a/train"
[[cluster_fault]]
source = "api"
effect = "denied"
"#;
const GPU_UTIL: &str = "DCGM_FI_DEV_GPU_UTIL";
const HOST_PIDS: &str = "nvml_exporter_host_pid_namespace";

fn start(scenario: &Scenario, flags: &[&str]) -> Exporter {
    let common =
        ["--dialect=dcgm-exporter", "--enable-exporter-metrics", "-k", "--collect-interval=200"];
    Exporter::start(&[&[&*scenario.flag()], &common[..], flags].concat())
}

#[test]
fn kubelet_names_are_used_when_the_api_server_denies_access() {
    let scenario = Scenario::new("denied", NODE);
    let exporter = start(&scenario, &["--kubernetes-enable-pod-uid"]);
    let train = ["gpu=\"0\"", "container=\"main\",namespace=\"team-a\",pod=\"train\",pod_uid=\"\""];
    let metrics =
        exporter.wait_for("the pod", |metrics| value(metrics, GPU_UTIL, &train).is_some());
    assert!(
        value(&metrics, GPU_UTIL, &["gpu=\"1\"", "namespace=\"\",pod=\"\""]).is_some(),
        "{metrics}"
    );
    let api = value(&metrics, "nvml_exporter_source_up", &["source=\"api\""]);
    assert_eq!(api, Some(0.0), "the failure is still reported");
    assert_eq!(series(&metrics, "nvml_exporter_allocation_problems").len(), 0, "{metrics}");

    // Access is granted: UIDs and labels become available.
    scenario.rewrite(&NODE.replace("effect = \"denied\"", "effect = \"slow\"\nfrom = 9e9"));
    exporter.wait_for("its UID", |metrics| {
        value(metrics, GPU_UTIL, &train[..1]).is_some()
            && !metrics.contains("pod=\"train\",pod_uid=\"\"")
    });
}

#[test]
fn device_series_wait_for_the_labels_of_their_pod() {
    let down = NODE.replace("effect = \"denied\"", "effect = \"hang\"");
    for flag in ["--kubernetes-enable-pod-labels", "--kubernetes-enable-pod-uid"] {
        let scenario = Scenario::new("down", &down);
        let exporter = start(&scenario, &[flag]);
        let free = ["gpu=\"1\"", "namespace=\"\",pod=\"\""];
        let pending = ["gpu=\"0\"", "reason=\"pending\""];
        let metrics = exporter.wait_for("the free GPU", |metrics| {
            value(metrics, GPU_UTIL, &free).is_some()
                && value(metrics, "nvml_exporter_gpu_missing_readings", &pending).is_some()
                && value(metrics, "nvml_exporter_source_up", &["source=\"pod_resources\""])
                    == Some(1.0)
        });
        assert_eq!(value(&metrics, GPU_UTIL, &["gpu=\"0\"", "pod=\"train\""]), None, "{metrics}");

        scenario.rewrite(&down.replace("effect = \"hang\"", "effect = \"slow\"\nfrom = 9e9"));
        let train = ["gpu=\"0\"", "pod=\"train\""];
        let metrics =
            exporter.wait_for("the pod", |metrics| value(metrics, GPU_UTIL, &train).is_some());
        let lines = series(&metrics, GPU_UTIL);
        let line = lines.iter().find(|line| line.contains("pod=\"train\"")).unwrap();
        assert!(
            line.contains("app=\"llama\"")
                || line.contains("pod_uid=\"") && !line.contains("pod_uid=\"\""),
            "{line}"
        );
    }
}

#[test]
fn host_pid_namespace_is_required_only_for_process_series() {
    let scenario = Scenario::new("denied", NODE);
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.csv");
    fs::write(&counters, "DCGM_FI_DEV_GPU_UTIL,gauge,x\n").unwrap();
    let exporter = start(&scenario, &["-f", &counters.display().to_string()]);
    let metrics = exporter.wait_for("utilization", |metrics| !series(metrics, GPU_UTIL).is_empty());
    assert_eq!(value(&metrics, HOST_PIDS, &[]), None);
    assert!(!exporter.get("/readyz").text().contains("hostPID"));
    assert!(!exporter.log().contains("hostPID"), "{}", exporter.log());

    // The warning appears as soon as a process family is selected.
    fs::write(&counters, "DCGM_FI_DEV_GPU_UTIL,gauge,x\nDCGM_CUSTOM_PROCESS_SM_UTIL,gauge,x\n")
        .unwrap();
    exporter.send_sighup();
    exporter.wait_for("the warning", |metrics| value(metrics, HOST_PIDS, &[]) == Some(0.0));
    assert!(exporter.get("/readyz").text().contains("set hostPID: true"));
    assert_eq!(exporter.log().matches("set hostPID: true").count(), 1, "{}", exporter.log());
}

const SHARED: &str = r#"
now = 30
[[gpu]]
model = "T4"
count = 2
[cluster]
node = "node-1"
[[pod]]
name = "busy"
namespace = "team-a"
containers = [{ name = "main", slices = { gpus = 0, replicas = 4 } }]
[[pod]]
name = "idle"
namespace = "team-a"
containers = [{ name = "main", slices = { gpus = 0, replicas = 4 } }]
[[pod]]
name = "alone"
namespace = "team-b"
containers = [{ name = "main", gpus = 1 }]
[[process]]
pid = 101
name = "python"
gpus = [0]
count = 2
memory = "1 GiB"
sm = 30
pod = "team-a/busy"
[[process]]
pid = 201
name = "x"
gpus = [0, 1]
memory = "2 GiB"
sm = 10
"#;

#[test]
fn device_series_of_a_shared_gpu_are_repeated_per_container() {
    let scenario = Scenario::new("shared", SHARED);
    let exporter = start(&scenario, &["--kubernetes-virtual-gpus"]);
    let busy = ["gpu=\"0\"", "pod=\"busy\""];
    let metrics = exporter.wait_for("both", |metrics| {
        value(metrics, GPU_UTIL, &busy).is_some()
            && value(metrics, GPU_UTIL, &["pod=\"idle\""]).is_some()
    });
    let idle = ["gpu=\"0\"", "pod=\"idle\""];
    let whole = ["gpu=\"0\"", "pod=\"\",vgpu=\"\""];
    let used = "DCGM_FI_DEV_FB_USED";
    // Per container its own usage; the series of the whole GPU is unchanged.
    for (labels, percent, mib) in [(busy, 60.0, 2048.0), (idle, 0.0, 0.0)] {
        assert_eq!(value(&metrics, GPU_UTIL, &labels), Some(percent), "{labels:?}");
        assert_eq!(value(&metrics, used, &labels), Some(mib), "{labels:?}");
    }
    assert_eq!(value(&metrics, GPU_UTIL, &whole), Some(70.0));
    assert!(value(&metrics, used, &whole).is_some_and(|mib| mib > 4096.0));
    let temperature = |labels: &[&str]| value(&metrics, "DCGM_FI_DEV_GPU_TEMP", labels);
    assert!(temperature(&whole).is_some() && temperature(&busy) == temperature(&whole));

    let replicas: Vec<_> = (0..4).map(|n| format!("vgpu=\"{n}\"")).collect();
    let replica = |labels: &[&str; 2]| {
        replicas
            .iter()
            .find(|vgpu| value(&metrics, GPU_UTIL, &[labels[0], labels[1], vgpu]).is_some())
    };
    assert!(replica(&busy).is_some() && replica(&idle).is_some());
    assert_ne!(replica(&busy), replica(&idle));
    let alone = series(&metrics, GPU_UTIL).into_iter().filter(|line| line.contains("gpu=\"1\""));
    assert_eq!(alone.filter(|line| line.contains("pod=\"alone\",vgpu=\"\"")).count(), 1);
    assert_eq!(series(&metrics, GPU_UTIL).len(), 4, "{metrics}");

    // Without the host PID namespace the process list is incomplete: no usage per container, not even 0.
    scenario.rewrite(&SHARED.replace("now = 30", "now = 30\npid_namespace = \"container\""));
    let without_host_pid = start(&scenario, &["--kubernetes-virtual-gpus"]);
    let metrics = without_host_pid.wait_for("both", |metrics| {
        let has_temperature = |labels| value(metrics, "DCGM_FI_DEV_GPU_TEMP", labels).is_some();
        has_temperature(&busy) && has_temperature(&idle)
    });
    assert_eq!((value(&metrics, GPU_UTIL, &busy), value(&metrics, GPU_UTIL, &idle)), (None, None));
    assert_eq!(value(&metrics, GPU_UTIL, &whole), Some(70.0));
}
