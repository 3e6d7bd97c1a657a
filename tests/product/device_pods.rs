//! A pod of dcgm-exporter's manifests: it may not ask the API server, and it has a pid namespace of its
//! own. What it shows needs neither.

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
