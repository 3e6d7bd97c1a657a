//! A pod of dcgm-exporter's manifests: it may not ask the API server, and it has a pid namespace of its
//! own. What it shows needs neither, unless it is asked who of several uses how much.

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
const UTIL: &str = "DCGM_FI_DEV_GPU_UTIL";
const HOST_PIDS: &str = "nvml_exporter_host_pid_namespace";

fn start(scenario: &Scenario, flags: &[&str]) -> Exporter {
    let ours = ["--dialect=dcgm-exporter", "-k", "--collect-interval=200"];
    Exporter::start(&[&[&*scenario.flag()], &ours[..], flags].concat())
}

#[test]
fn where_the_api_server_shuts_it_out_the_kubelets_names_stand() {
    let scenario = Scenario::new("shut-out", NODE);
    let exporter = start(&scenario, &["--kubernetes-enable-pod-uid"]);
    let train = ["gpu=\"0\"", "container=\"main\",namespace=\"team-a\",pod=\"train\",pod_uid=\"\""];
    let page = exporter.wait_for("the pod", |page| value(page, UTIL, &train).is_some());
    assert!(value(&page, UTIL, &["gpu=\"1\"", "namespace=\"\",pod=\"\""]).is_some(), "{page}");
    let api = value(&page, "nvml_exporter_source_up", &["source=\"api\""]);
    assert_eq!(api, Some(0.0), "it is told all the same");
    assert_eq!(series(&page, "nvml_exporter_allocation_problems").len(), 0, "{page}");

    // It is let in: UIDs and labels are known then.
    scenario.rewrite(&NODE.replace("effect = \"denied\"", "effect = \"slow\"\nfrom = 9e9"));
    exporter.wait_for("its UID", |page| {
        value(page, UTIL, &train[..1]).is_some() && !page.contains("pod=\"train\",pod_uid=\"\"")
    });
}

#[test]
fn whoever_looks_for_no_process_needs_no_pid_namespace_of_the_host() {
    let scenario = Scenario::new("shut-out", NODE);
    let folder = tempfile::tempdir().unwrap();
    let counters = folder.path().join("counters.csv");
    fs::write(&counters, "DCGM_FI_DEV_GPU_UTIL,gauge,x\n").unwrap();
    let exporter = start(&scenario, &["-f", &counters.display().to_string()]);
    let page = exporter.wait_for("a page", |page| !series(page, UTIL).is_empty());
    assert_eq!(value(&page, HOST_PIDS, &[]), None);
    assert!(!exporter.get("/readyz").text().contains("hostPID"));
    assert!(!exporter.log().contains("hostPID"), "{}", exporter.log());

    // As soon as somebody asks for processes, it is told.
    fs::write(&counters, "DCGM_FI_DEV_GPU_UTIL,gauge,x\nDCGM_CUSTOM_PROCESS_SM_UTIL,gauge,x\n")
        .unwrap();
    exporter.hang_up();
    exporter.wait_for("the warning", |page| value(page, HOST_PIDS, &[]) == Some(0.0));
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
fn the_series_of_a_shared_gpu_are_repeated_for_those_who_share_it() {
    let scenario = Scenario::new("shared", SHARED);
    let exporter = start(&scenario, &["--kubernetes-virtual-gpus"]);
    let busy = ["gpu=\"0\"", "pod=\"busy\""];
    let page = exporter.wait_for("both", |page| {
        value(page, UTIL, &busy).is_some() && value(page, UTIL, &["pod=\"idle\""]).is_some()
    });
    let idle = ["gpu=\"0\"", "pod=\"idle\""];
    let whole = ["gpu=\"0\"", "pod=\"\",vgpu=\"\""];
    let used = "DCGM_FI_DEV_FB_USED";
    // What each uses itself, where that is known; and of the GPU as a whole what it was.
    for (labels, percent, mib) in [(busy, 60.0, 2048.0), (idle, 0.0, 0.0)] {
        assert_eq!(value(&page, UTIL, &labels), Some(percent), "{labels:?}");
        assert_eq!(value(&page, used, &labels), Some(mib), "{labels:?}");
    }
    assert_eq!(value(&page, UTIL, &whole), Some(70.0));
    assert!(value(&page, used, &whole).is_some_and(|mib| mib > 4096.0));
    let temperature = |labels: &[&str]| value(&page, "DCGM_FI_DEV_GPU_TEMP", labels);
    assert!(temperature(&whole).is_some() && temperature(&busy) == temperature(&whole));

    let replicas: Vec<_> = (0..4).map(|n| format!("vgpu=\"{n}\"")).collect();
    let of = |labels: &[&str; 2]| {
        replicas.iter().find(|vgpu| value(&page, UTIL, &[labels[0], labels[1], vgpu]).is_some())
    };
    assert!(of(&busy).is_some() && of(&idle).is_some() && of(&busy) != of(&idle));
    let alone = series(&page, UTIL).into_iter().filter(|line| line.contains("gpu=\"1\""));
    assert_eq!(alone.filter(|line| line.contains("pod=\"alone\",vgpu=\"\"")).count(), 1);
    assert_eq!(series(&page, UTIL).len(), 4, "{page}");

    // In a pid namespace of its own it sees nobody, and nobody is called idle.
    scenario.rewrite(&SHARED.replace("now = 30", "now = 30\npid_namespace = \"container\""));
    let blind = start(&scenario, &["--kubernetes-virtual-gpus"]);
    let page = blind.wait_for("both", |page| {
        let of = |labels| value(page, "DCGM_FI_DEV_GPU_TEMP", labels).is_some();
        of(&busy) && of(&idle)
    });
    assert_eq!((value(&page, UTIL, &busy), value(&page, UTIL, &idle)), (None, None));
    assert_eq!(value(&page, UTIL, &whole), Some(70.0));
}
