//! Answers that real kubelets and API servers gave. They are large and live outside of the
//! repository; `NVML_EXPORTER_KUBELET_DATA` names their directory, which has one folder a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_exporter::attribute::owner::{Directory, Holder, Owner, Unresolved};
use nvml_exporter::host::cgroup;
use nvml_exporter::kube::event::Follower;
use nvml_exporter::kube::framing::Items;
use nvml_exporter::kube::pod_resources::messages::{
    AllocatableResourcesResponse, ListPodResourcesResponse,
};
use nvml_exporter::kube::pods::{PodMap, Pods};
use prost::Message;
use serde_json::Value;

/// Folders that hold this file.
fn nodes(file: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("NVML_EXPORTER_KUBELET_DATA")
        .expect("NVML_EXPORTER_KUBELET_DATA names the directory of the recorded answers");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = folders.filter(|folder| folder.join(file).exists()).collect();
    assert!(!found.is_empty(), "no folder with {file}");
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

/// A row for each id: resource and id.
fn ids(devices: &Value) -> Vec<(String, String)> {
    let entries = array(devices).iter();
    let ids = entries.flat_map(|entry| {
        let resource = text(&entry["resource_name"]);
        array(&entry["device_ids"]).iter().map(move |id| (resource.clone(), text(id)))
    });
    ids.collect()
}

#[test]
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn assignments_are_what_the_readable_copy_says() {
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
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn allocatable_devices_are_what_the_readable_copy_says() {
    for node in nodes("podresources-allocatable.pb") {
        let bytes = fs::read(node.join("podresources-allocatable.pb")).unwrap();
        let answer = AllocatableResourcesResponse::decode(bytes.as_slice()).unwrap();
        let decoded: BTreeSet<(String, String)> = answer
            .allocatable()
            .into_iter()
            .flat_map(|(resource, ids)| {
                ids.into_iter().map(move |id| (resource.to_string(), id.to_string()))
            })
            .collect();
        let readable = json(&node.join("podresources-allocatable.json"));
        let expected: BTreeSet<_> = ids(&readable["devices"]).into_iter().collect();
        assert_eq!(decoded, expected, "{}", node.display());
    }
}

/// The list as it would come over the wire, in pieces.
fn pods(list: &Path) -> Pods {
    let bytes = fs::read(list).unwrap();
    let readable = json(list);
    let node = text(&array(&readable["items"])[0]["spec"]["nodeName"]);
    let mut follower = Follower::new(PodMap::new("test", &node));
    follower.begin_list();
    let mut items = Items::new(1 << 20);
    for piece in bytes.chunks(1000) {
        for frame in items.feed(piece) {
            follower.element(&frame, Duration::ZERO);
        }
    }
    follower.end_list(&items.rest(), Duration::ZERO).unwrap();
    let pods = follower.map.picture(Duration::ZERO);
    assert_eq!(pods.discards, nvml_exporter::kube::pods::Discards::default());
    pods
}

/// Every process of the node is under its pod and container; a sandbox is under no container, or
/// under the only one that its pod has.
fn check_processes(node: &Path, list: &str) {
    let pods = pods(&node.join(list));
    let directory = Directory { pods: Some(&pods), ..Directory::default() };
    let (mut containers, mut sandboxes) = (0, 0);
    for line in fs::read_to_string(node.join("procs.jsonl")).unwrap().lines() {
        let process: Value = serde_json::from_str(line).unwrap();
        let place = format!("{list} of {}: {process}", node.display());
        let lines: Vec<_> = array(&process["cgroup"]).iter().map(text).collect();
        let (owner, _) =
            directory.owner(&cgroup::parse(lines.join("\n").as_bytes()), Duration::ZERO);
        if process["kind"] == "sandbox" {
            let of_it = |holder: &Holder| *holder.pod.name == *text(&process["pod"]);
            let right = matches!(&owner, Owner::Container(holder) if of_it(holder))
                || owner == Owner::Unknown(Unresolved::NoContainer);
            assert!(right, "{place}: {owner:?}");
            sandboxes += 1;
        } else {
            let Owner::Container(holder) = owner else { panic!("{place}: {owner:?}") };
            let names = ["namespace", "pod", "container"].map(|name| text(&process[name]));
            let (namespace, pod, container) = holder.names();
            assert_eq!([namespace, pod, container], names.each_ref().map(|n| &**n), "{place}");
            containers += 1;
        }
    }
    assert!(containers > 0 && sandboxes > 0);
}

#[test]
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn every_process_is_found_through_the_api_servers_list() {
    for node in nodes("api-pods.json") {
        check_processes(&node, "api-pods.json");
    }
}

#[test]
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn every_process_is_found_through_the_kubelets_list() {
    for node in nodes("kubelet-pods.json") {
        check_processes(&node, "kubelet-pods.json");
    }
}
