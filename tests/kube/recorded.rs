//! Tests with recorded responses of real kubelets and API servers. The recordings are large and not
//! in the repository; `NVML_EXPORTER_KUBELET_DATA` is their directory, with one directory per node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_exporter::attribute::owner::OwnerResolver;
use nvml_exporter::host::cgroup;
use nvml_exporter::kube::json_stream::ListReader;
use nvml_exporter::kube::pod_resources::messages::{
    AllocatableResourcesResponse, ListPodResourcesResponse,
};
use nvml_exporter::kube::pods::PodSnapshot;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::kube::source::SkippedObjects;
use nvml_exporter::kube::watch_event::PodWatchState;
use nvml_exporter::model::{ContainerIdentity, Owner, Unresolved};
use prost::Message;
use serde_json::Value;

/// The node directories that contain `file`.
fn nodes(file: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("NVML_EXPORTER_KUBELET_DATA")
        .expect("NVML_EXPORTER_KUBELET_DATA is the directory of the recorded responses");
    let directories = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = directories.filter(|path| path.join(file).exists()).collect();
    assert!(!found.is_empty(), "no directory contains {file}");
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Resource and id of each device.
fn ids(devices: &Value) -> Vec<(String, String)> {
    let entries = array(devices).iter();
    let ids = entries.flat_map(|entry| {
        let resource = text(&entry["resource_name"]);
        array(&entry["device_ids"]).iter().map(move |id| (resource.clone(), text(id)))
    });
    ids.collect()
}

#[test]
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn decoded_assignments_equal_the_json_copy() {
    for node in nodes("podresources-list.pb") {
        let bytes = fs::read(node.join("podresources-list.pb")).unwrap();
        let list = ListPodResourcesResponse::decode(bytes.as_slice()).unwrap();
        let mut decoded = BTreeSet::new();
        for assigned in list.into_list().unwrap().containers {
            for (resource, ids) in assigned.devices {
                for id in ids {
                    let row = (&assigned.namespace, &assigned.pod, &assigned.container);
                    decoded.insert(format!("{row:?} {resource} {id}"));
                }
            }
        }
        let mut expected = BTreeSet::new();
        for pod in array(&json(&node.join("podresources-list.json"))["pod_resources"]) {
            for container in array(&pod["containers"]) {
                let row = (text(&pod["namespace"]), text(&pod["name"]), text(&container["name"]));
                for (resource, id) in ids(&container["devices"]) {
                    expected.insert(format!("{row:?} {resource} {id}"));
                }
            }
        }
        assert_eq!(decoded, expected, "{}", node.display());
        assert!(!expected.is_empty() || node.ends_with("cgroup2-cgroupfs-static-only"));
    }
}

#[test]
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn decoded_allocatable_devices_equal_the_json_copy() {
    for node in nodes("podresources-allocatable.pb") {
        let bytes = fs::read(node.join("podresources-allocatable.pb")).unwrap();
        let response = AllocatableResourcesResponse::decode(bytes.as_slice()).unwrap();
        let decoded: BTreeSet<(String, String)> = response
            .allocatable()
            .into_iter()
            .flat_map(|(resource, ids)| {
                ids.into_iter().map(move |id| (resource.to_string(), id.to_string()))
            })
            .collect();
        let json = json(&node.join("podresources-allocatable.json"));
        let expected: BTreeSet<_> = ids(&json["devices"]).into_iter().collect();
        assert_eq!(decoded, expected, "{}", node.display());
    }
}

/// The pods of a list that is read in chunks.
fn pods(list: &Path) -> PodSnapshot {
    let bytes = fs::read(list).unwrap();
    let json = json(list);
    let node = text(&array(&json["items"])[0]["spec"]["nodeName"]);
    let mut state = PodWatchState::new(PodStore::new("test", &node));
    state.begin_list();
    let mut items = ListReader::new(1 << 20);
    for chunk in bytes.chunks(1000) {
        for frame in items.feed(chunk) {
            state.apply_list_item(&frame, Duration::ZERO);
        }
    }
    state.end_list(&items.rest(), Duration::ZERO).unwrap();
    let pods = state.store.snapshot(Duration::ZERO);
    assert_eq!(pods.health.skipped, SkippedObjects::default());
    pods
}

/// Checks that every process of the node is attributed to its container, and a sandbox process to no
/// container or to the only one of its pod.
fn check_processes(node: &Path, list: &str) {
    let pods = pods(&node.join(list));
    let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
    let (mut containers, mut sandboxes) = (0, 0);
    for line in fs::read_to_string(node.join("procs.jsonl")).unwrap().lines() {
        let process: Value = serde_json::from_str(line).unwrap();
        let context = format!("{list} of {}: {process}", node.display());
        let lines: Vec<_> = array(&process["cgroup"]).iter().map(text).collect();
        let (owner, _) = resolver.resolve(&cgroup::parse(lines.join("\n").as_bytes()));
        if process["kind"] == "sandbox" {
            let in_pod =
                |container: &ContainerIdentity| *container.pod.name == *text(&process["pod"]);
            let expected = matches!(&owner, Owner::Container(container) if in_pod(container))
                || owner == Owner::Unknown(Unresolved::NoContainer);
            assert!(expected, "{context}: {owner:?}");
            sandboxes += 1;
        } else {
            let Owner::Container(found) = owner else { panic!("{context}: {owner:?}") };
            let names = ["namespace", "pod", "container"].map(|name| text(&process[name]));
            let (namespace, pod, container) = found.names();
            assert_eq!([namespace, pod, container], names.each_ref().map(|n| &**n), "{context}");
            containers += 1;
        }
    }
    assert!(containers > 0 && sandboxes > 0);
}

#[test]
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn processes_are_attributed_with_the_list_of_the_api_server() {
    for node in nodes("api-pods.json") {
        check_processes(&node, "api-pods.json");
    }
}

#[test]
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn processes_are_attributed_with_the_list_of_the_kubelet() {
    for node in nodes("kubelet-pods.json") {
        check_processes(&node, "kubelet-pods.json");
    }
}
