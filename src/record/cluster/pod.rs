//! Pods, with the fields that the exporter reads.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::kube::pod::container::{Container, ContainerKind};
use crate::kube::pod::{CONFIG_HASH, CONFIG_MIRROR, GPU_GROUP, Pod};
use crate::record::names::Names;
use crate::record::{object, texts};

/// The object of a pod.
pub(super) fn object_of(pod: &Pod, names: &mut Names) -> Value {
    let node = names.node(&pod.node);
    let phase = if pod.terminal { "Succeeded" } else { "Running" };
    let of = |kinds: &dyn Fn(ContainerKind) -> bool| -> Vec<&Container> {
        pod.containers.iter().filter(|container| kinds(container.kind)).collect()
    };
    let app = of(&|kind| kind == ContainerKind::App);
    let init = of(&|kind| matches!(kind, ContainerKind::Init { .. }));
    let ephemeral = of(&|kind| kind == ContainerKind::Ephemeral);
    let claims = claims(pod, names);
    let metadata = metadata(pod, names);
    let mut spec = |containers: &[&Container]| list(containers, |one| container(one, names));
    let spec = object([
        ("nodeName", node.into()),
        ("runtimeClassName", non_empty(&pod.runtime_class)),
        ("containers", spec(&app)),
        ("initContainers", spec(&init)),
        ("ephemeralContainers", spec(&ephemeral)),
        ("resourceClaims", claims),
    ]);
    let mut status = |containers: &[&Container]| list(containers, |one| status(one, names));
    let status = object([
        ("phase", phase.into()),
        ("startTime", non_empty(&rfc3339(pod.admitted))),
        ("containerStatuses", status(&app)),
        ("initContainerStatuses", status(&init)),
        ("ephemeralContainerStatuses", status(&ephemeral)),
    ]);
    json!({ "kind": "Pod", "metadata": metadata, "spec": spec, "status": status })
}

/// A list; null if it is empty.
fn list(containers: &[&Container], value: impl FnMut(&Container) -> Value) -> Value {
    let values: Vec<Value> = containers.iter().copied().map(value).collect();
    if values.is_empty() { Value::Null } else { Value::Array(values) }
}

/// A time in seconds since the Unix epoch; empty if there is none.
fn rfc3339(seconds: Option<NonZeroU64>) -> String {
    let seconds = seconds.and_then(|seconds| i64::try_from(seconds.get()).ok());
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

fn non_empty(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

fn metadata(pod: &Pod, names: &mut Names) -> Value {
    let uid = names.pod_uid(&pod.id.uid);
    let name = names.pod(&pod.id.name);
    let namespace = names.namespace(&pod.id.namespace);
    // Annotations contain names of containers.
    for container in &pod.containers {
        names.container(&container.name);
    }
    let labels = pod.labels.iter().map(|(key, value)| label(key, value, names));
    let labels: BTreeMap<_, _> = labels.collect();
    let mut annotations: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
    for (key, value) in &pod.annotations {
        let is_hash = &**key == CONFIG_HASH || &**key == CONFIG_MIRROR;
        let value = if is_hash { names.pod_uid(value) } else { names.replace_in(value) };
        annotations.insert(key.clone(), value.into());
    }
    let created = rfc3339(pod.created);
    object([
        ("name", name.into()),
        ("namespace", namespace.into()),
        ("uid", uid.into()),
        ("creationTimestamp", non_empty(&created)),
        ("deletionTimestamp", if pod.deleting { created.as_str().into() } else { Value::Null }),
        ("annotations", texts(&annotations)),
        ("labels", texts(&labels)),
    ])
}

/// The key of a label of a GPU group can have the name of the group.
fn label(key: &str, value: &str, names: &mut Names) -> (Box<str>, Box<str>) {
    let group = key.strip_prefix(GPU_GROUP).and_then(|rest| rest.strip_prefix('/'));
    let key = match group {
        Some(group) => format!("{GPU_GROUP}/{}", names.label(group)),
        None => key.to_owned(),
    };
    (key.into(), names.label(value).into())
}

fn claims(pod: &Pod, names: &mut Names) -> Value {
    let mut claims = Vec::new();
    for (name, claim) in &pod.claims {
        let claim = claim.as_deref().map_or(Value::Null, |claim| names.claim(claim).into());
        claims.push(object([("name", names.claim(name).into()), ("resourceClaimName", claim)]));
    }
    if claims.is_empty() { Value::Null } else { claims.into() }
}

fn container(container: &Container, names: &mut Names) -> Value {
    let restartable = container.kind == ContainerKind::Init { restartable: true };
    let claims = container.claims.iter().map(|claim| json!({ "name": names.claim(claim) }));
    let claims: Vec<Value> = claims.collect();
    object([
        ("name", names.container(&container.name).into()),
        ("restartPolicy", if restartable { "Always".into() } else { Value::Null }),
        ("resources", json!({ "limits": texts(&container.resources), "claims": claims })),
    ])
}

fn status(container: &Container, names: &mut Names) -> Value {
    let ids: Vec<String> = container.ids.iter().map(|id| names.container_id(id)).collect();
    let id = |at: usize| ids.get(at).map(|id| format!("containerd://{id}"));
    let terminated = |id: Option<String>| json!({ "terminated": { "containerID": id } });
    let state = if container.running {
        json!({ "running": {} })
    } else if container.terminated {
        terminated(id(0))
    } else {
        json!({ "waiting": {} })
    };
    object([
        ("name", names.container(&container.name).into()),
        ("containerID", id(0).map_or(Value::Null, Value::from)),
        ("state", state),
        ("lastState", id(1).map_or(Value::Null, |id| terminated(Some(id)))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pod::parse;

    #[test]
    fn pod_is_the_same_when_it_is_read_again() {
        let json = json!({
            "metadata": {
                "uid": "0ef39ceb-a62d-45a4-987a-8a9a5b4e9e2a", "namespace": "ml", "name": "train",
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": { "app": "x", "runai-gpu-group/g": "g" },
                "annotations": { "gpu-fraction": "0.5", "other": "y" },
            },
            "spec": {
                "nodeName": "n", "runtimeClassName": "gvisor",
                "containers": [{ "name": "a", "resources": {
                    "limits": { "nvidia.com/gpu": "1" }, "claims": [{ "name": "c" }] } }],
                "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
                "ephemeralContainers": [{ "name": "e" }],
                "resourceClaims": [{ "name": "c", "resourceClaimName": "claim" }, { "name": "d" }],
            },
            "status": {
                "phase": "Failed", "startTime": "2026-01-01T00:00:01Z",
                "containerStatuses": [{ "name": "a", "containerID": "containerd://2",
                    "state": { "running": {} }, "lastState": { "terminated": { "containerID": "cri-o://1" } } }],
                "initContainerStatuses": [{ "name": "i", "containerID": "containerd://3",
                    "state": { "terminated": {} } }, { "name": "s", "state": { "waiting": {} } }],
            },
        });
        let pod = parse(json.to_string().as_bytes()).unwrap();
        let object = object_of(&pod, &mut Names::new(true, []));
        assert_eq!(parse(object.to_string().as_bytes()).unwrap(), pod);
        let replaced = object_of(&pod, &mut Names::new(false, [])).to_string();
        for original in ["0ef39ceb", "train", "\"a\"", "\"x\"", "group/g", "\"claim\""] {
            assert!(!replaced.contains(original), "{original}: {replaced}");
        }
    }
}
