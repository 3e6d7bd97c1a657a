//! GPU fractions of KAI Scheduler and Run:ai: members of a GPU group share the GPU of its reservation pod.

use std::fmt::Write as _;

use crate::exporter::{Exporter, Scenario, run_once, series, value};

const GROUP: &str = "4f0c7c1e-0000-4000-8000-0000000000aa";
const OTHER: &str = "4f0c7c1e-0000-4000-8000-0000000000bb";
const ALLOCATED: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const MODE: &str = "DCGM_CUSTOM_ALLOCATE_MODE";
const UTILIZATION: &str = "DCGM_CUSTOM_PROCESS_SM_UTIL";
const ILLEGAL: &str = "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL";
const PROBLEMS: &str = "nvml_exporter_allocation_problems";

/// Two A100 of 81,920 MiB each.
const NODE: &str = "now = 40\n[[gpu]]\nmodel = \"A100\"\ncount = 2\n[cluster]\nnode = \"node-1\"\n";

fn reservation(namespace: &str, group: &str, gpu: u32) -> String {
    format!(
        "[[pod]]\nname = \"gpu-reservation-node-1-{gpu}\"\nnamespace = \"{namespace}\"\n\
         labels = {{ runai-gpu-group = \"{group}\" }}\n\
         containers = [{{ name = \"resource-reservation\", gpus = {gpu} }}]\n"
    )
}

fn kai_reservation(group: &str, gpu: u32) -> String {
    reservation("kai-resource-reservation", group, gpu)
}

/// A pod of two containers, `proxy` and `server`, in these groups.
fn member(name: &str, groups: &[&str], annotations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[[pod]]\nname = \"{name}\"\ncontainers = [{{ name = \"proxy\" }}, {{ name = \"server\" }}]\n"
    );
    text.push_str("[pod.labels]\n");
    for group in groups {
        let key = if groups.len() > 1 { format!("/{group}") } else { String::new() };
        writeln!(text, "\"runai-gpu-group{key}\" = \"{group}\"").unwrap();
    }
    text.push_str("[pod.annotations]\n");
    for (key, value) in annotations {
        writeln!(text, "\"{key}\" = \"{value}\"").unwrap();
    }
    text
}

/// A process of the container `server` of a pod.
fn process(pid: u32, pod: &str, gpu: u32) -> String {
    format!(
        "[[process]]\npid = {pid}\nname = \"vllm\"\npod = \"default/{pod}\"\ncontainer = \"server\"\n\
         gpus = [{gpu}]\nmemory = \"10 GiB\"\nsm = 30\n"
    )
}

fn metrics_of(scenario: &str, flags: &[&str]) -> String {
    let scenario = Scenario::new("kai", &format!("{NODE}{scenario}"));
    run_once(&[&[scenario.flag().as_str(), "--node-name", "node-1"], flags].concat())
}

/// Series of a family as `labels value`, with the values of these labels.
fn rows(metrics: &str, family: &str, labels: &[&str]) -> Vec<String> {
    let label = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("{key}=\"")).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let row = |line: &&str| {
        let values = labels.iter().map(|key| label(line, key));
        let value = line.rsplit(' ').next().unwrap_or_default().to_owned();
        values.chain([value]).collect::<Vec<_>>().join(" ")
    };
    let mut rows: Vec<_> = series(metrics, family).iter().map(row).collect();
    rows.sort_unstable();
    rows
}

fn of_containers(metrics: &str, family: &str) -> Vec<String> {
    rows(metrics, family, &["AllocateMode", "PodName", "ContainerName", "gpu"])
}

fn of_processes(metrics: &str, family: &str) -> Vec<String> {
    rows(metrics, family, &["AllocateMode", "PodName", "ContainerName", "ProcessId", "gpu"])
}

fn problems(metrics: &str) -> Vec<String> {
    rows(metrics, PROBLEMS, &["reason"])
}

#[test]
fn members_have_their_shares_and_the_reservation_pod_has_no_series() {
    let half = ("gpu-fraction", "0.5");
    let named = ("gpu-fraction-container-name", "server");
    let scenario = kai_reservation(GROUP, 0)
        + &member("busy", &[GROUP], &[half, named])
        + &member("idle", &[GROUP], &[("gpu-memory", "20480")])
        + &process(900, "busy", 0);
    let metrics = metrics_of(&scenario, &[]);
    let allocated = of_containers(&metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED");
    assert_eq!(allocated, ["share busy server 0 40960", "share idle proxy 0 20480"]);
    let compute = of_containers(&metrics, "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED");
    assert_eq!(compute, ["share busy server 0 0", "share idle proxy 0 0"]);
    let use_ = of_processes(&metrics, UTILIZATION);
    assert_eq!(use_, ["share busy server 900 0 30", "share idle proxy 0 0 0"]);
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["0 0.75", "1 0"]);
    assert_eq!(rows(&metrics, MODE, &[]), ["2"]);
    assert_eq!(problems(&metrics), Vec::<String>::new());
    assert!(!metrics.contains("resource-reservation"), "{metrics}");
    assert!(series(&metrics, ILLEGAL).is_empty());
    // Pod labels of devices.
    let flags = ["--dialect", "dcgm-exporter", "-k"];
    let metrics = metrics_of(&scenario, &flags);
    assert!(!metrics.contains("resource-reservation"), "{metrics}");
}

#[test]
fn a_process_of_another_container_of_a_member_is_not_illegal() {
    let scenario = kai_reservation(GROUP, 0)
        + &member("busy", &[GROUP], &[("gpu-fraction", "0.5")])
        + &process(900, "busy", 0);
    let metrics = metrics_of(&scenario, &[]);
    assert_eq!(of_processes(&metrics, UTILIZATION)[1..], ["share busy server 900 0 30"]);
    assert!(series(&metrics, ILLEGAL).is_empty());
}

#[test]
fn a_share_of_several_gpus_is_allocated_on_each() {
    let annotations = [("gpu-fraction", "0.25"), ("gpu-fraction-num-devices", "2")];
    let scenario = kai_reservation(GROUP, 0)
        + &reservation("runai-reservation", OTHER, 1)
        + &member("train", &[GROUP, OTHER], &annotations);
    let metrics = metrics_of(&scenario, &[]);
    let allocated = of_containers(&metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED");
    assert_eq!(allocated, ["share train proxy 0 20480", "share train proxy 1 20480"]);
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["0 0.25", "1 0.25"]);
}

#[test]
fn a_forged_share_is_counted_and_changes_no_share_of_others() {
    let honest = kai_reservation(GROUP, 0)
        + &member("busy", &[GROUP], &[("gpu-fraction", "0.5")])
        + &process(900, "busy", 0);
    let forger = |groups: &[&str], annotations: &[(&str, &str)]| {
        // Of shares that were claimed before the exporter started, the newest is that of the newest pod.
        let forger = member("forger", groups, annotations)
            .replace("name = \"forger\"", "name = \"forger\"\nstart = 20");
        let forger = forger + &process(901, "forger", 0);
        metrics_of(&(honest.clone() + &forger), &[])
    };
    let is_unchanged = |metrics: &str| {
        let allocated = of_containers(metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED");
        let use_ = of_processes(metrics, UTILIZATION);
        allocated.contains(&"share busy proxy 0 40960".to_owned())
            && use_.contains(&"share busy server 900 0 30".to_owned())
    };
    // In the group of others, with more than what is left of the GPU.
    let metrics = forger(&[GROUP], &[("gpu-fraction", "0.75")]);
    assert!(is_unchanged(&metrics), "{metrics}");
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["1 0"]);
    assert_eq!(problems(&metrics), ["overcommitted 1"]);
    // In the group of others, without a share.
    let metrics = forger(&[GROUP], &[]);
    assert!(is_unchanged(&metrics), "{metrics}");
    assert_eq!(
        (series(&metrics, ILLEGAL).len(), problems(&metrics)),
        (0, vec!["no_annotation 1".to_owned()])
    );
    // A share without a group.
    let metrics = forger(&[], &[("gpu-fraction", "0.5")]);
    assert!(is_unchanged(&metrics), "{metrics}");
    assert_eq!(of_processes(&metrics, ILLEGAL), ["none forger server 901 0 30"]);
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["0 0.5", "1 0"]);
    // A group without a reservation pod: not illegal yet, and all others have their values. When the exporter
    // starts, the reservation pod may just have been deleted, and the pod may still have a share of any GPU.
    let metrics = forger(&[OTHER], &[("gpu-fraction", "0.5")]);
    assert!(is_unchanged(&metrics), "{metrics}");
    assert_eq!(series(&metrics, ILLEGAL).len(), 0);
    assert_eq!(series(&metrics, ALLOCATED).len(), 0);
    assert_eq!(rows(&metrics, MODE, &[]), ["2"]);
    assert_eq!(problems(&metrics), ["no_reservation 1"]);
}

#[test]
fn only_configured_namespaces_reserve_gpus() {
    let scenario = reservation("team-gpus", GROUP, 0)
        + &member("busy", &[GROUP], &[("gpu-fraction", "0.5")])
        + &process(900, "busy", 0);
    let metrics = metrics_of(&scenario, &[]);
    let allocated = of_containers(&metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED");
    assert_eq!(allocated, ["exclusive gpu-reservation-node-1-0 resource-reservation 0 81920"]);
    let metrics = metrics_of(&scenario, &["--gpu-reservation-namespaces=a,team-gpus"]);
    let allocated = of_containers(&metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED");
    assert_eq!(allocated, ["share busy proxy 0 40960"]);
}

#[test]
fn a_gpu_that_is_reserved_for_no_pod_is_not_free() {
    let metrics = metrics_of(&kai_reservation(GROUP, 0), &[]);
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["1 0"]);
    assert_eq!(rows(&metrics, MODE, &[]), Vec::<String>::new());
    assert_eq!(problems(&metrics), ["no_member 1"]);
    assert!(!metrics.contains("resource-reservation"), "{metrics}");
}

#[test]
fn members_are_withheld_until_the_kubelet_lists_their_reservation_pod() {
    let group = kai_reservation(GROUP, 0)
        + &member("busy", &[GROUP], &[("gpu-fraction", "0.5")])
        + &process(900, "busy", 0);
    let fault = "[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"no_pods\"\n";
    let scenario = Scenario::new("kai", &format!("{NODE}{group}{fault}"));
    let flags = [&*scenario.flag(), "--node-name=node-1", "--collect-interval=200"];
    let exporter = Exporter::start(&flags);
    let up = "nvml_exporter_source_up";
    let metrics = exporter.wait_for("both sources", |metrics| {
        ["api", "pod_resources"]
            .iter()
            .all(|source| value(metrics, up, &[&format!("source=\"{source}\"")]) == Some(1.0))
            && problems(metrics).contains(&"no_reservation 1".to_owned())
    });
    for family in [UTILIZATION, ILLEGAL, ALLOCATED, MODE] {
        assert_eq!(series(&metrics, family).len(), 0, "{family}: {metrics}");
    }
    let unresolved = ["reason=\"allocation\""];
    assert_eq!(value(&metrics, "nvml_exporter_unresolved_processes", &unresolved), Some(1.0));
    scenario.rewrite(&format!("{NODE}{group}"));
    let metrics = exporter.wait_for("the share", |metrics| {
        of_processes(metrics, UTILIZATION).contains(&"share busy server 900 0 30".to_owned())
    });
    assert_eq!(rows(&metrics, ALLOCATED, &["gpu"]), ["0 0.5", "1 0"]);
    // The reservation pod is deleted while its member works.
    let reserved = kai_reservation(GROUP, 0);
    let node = NODE.replace("now = 40", "now = 42");
    scenario.rewrite(&format!(
        "{node}{}",
        group.replace(&reserved, &reserved.replace("containers", "end = 41\ncontainers"))
    ));
    let metrics =
        exporter.wait_for("the deletion", |metrics| of_processes(metrics, UTILIZATION).is_empty());
    assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{metrics}");
}
