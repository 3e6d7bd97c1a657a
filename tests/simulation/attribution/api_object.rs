//! A pod as the API server returns it.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::exporter::WALL_US;
use super::timeline::{Access, Claimed, Container, Kind, Ms, Pod, World};

/// Delay of a watch event.
const EVENT_DELAY: Ms = 200;

/// When watch events of the pod arrive, in order.
pub(crate) fn changes(pod: &Pod) -> Vec<Ms> {
    let runs = pod.containers.iter().flat_map(|container| &container.runs);
    let status = runs.flat_map(|run| [run.start, run.end]).chain(pod.completed);
    let object = [Some(pod.created), pod.deleted, pod.gone].into_iter().flatten();
    let removed = removed(pod);
    let mut all: Vec<Ms> = status.map(|at| at + pod.lag).collect();
    all.extend(object.map(|at| at + EVENT_DELAY));
    all.extend(pod.status_held.map(|(_, to)| to));
    all.retain(|at| *at >= pod.created && *at <= removed);
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether the object exists at `at`.
pub(crate) fn exists(pod: &Pod, at: Ms) -> bool {
    pod.created + EVENT_DELAY <= at && at < removed(pod)
}

fn removed(pod: &Pod) -> Ms {
    pod.gone.map_or(Ms::MAX, |gone| gone + EVENT_DELAY)
}

/// The object at `at`.
pub(crate) fn object(pod: &Pod, at: Ms) -> Value {
    let mut annotations: Map<String, Value> =
        pod.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    if let Some(hash) = &pod.hash {
        annotations.insert("kubernetes.io/config.hash".to_owned(), json!(hash));
        annotations.insert("kubernetes.io/config.mirror".to_owned(), json!(hash));
    }
    let labels: Map<String, Value> =
        pod.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut metadata = json!({
        "uid": pod.uid, "namespace": pod.namespace, "name": pod.name,
        "labels": labels, "annotations": annotations, "resourceVersion": at.to_string(),
        "creationTimestamp": stamp(pod.created),
    });
    if let Some(deleted) = pod.deleted.filter(|deleted| deleted + EVENT_DELAY <= at) {
        metadata["deletionTimestamp"] = json!(stamp(deleted));
    }
    let of = |kinds: &[Kind]| -> Vec<&Container> {
        pod.containers.iter().filter(|container| kinds.contains(&container.kind)).collect()
    };
    let (apps, inits) = (of(&[Kind::App]), of(&[Kind::Init, Kind::Sidecar]));
    let ephemeral = of(&[Kind::Ephemeral]);
    let held = pod.status_held.filter(|(from, to)| (*from..*to).contains(&at));
    let seen = held.map_or(at, |(from, _)| from).saturating_sub(pod.lag);
    let specs = |all: &[&Container]| all.iter().map(|c| spec(c)).collect::<Vec<_>>();
    let statuses = |all: &[&Container]| all.iter().map(|c| status(c, seen)).collect::<Vec<_>>();
    let completed = pod.completed.is_some_and(|completed| completed <= seen);
    json!({
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": "node-1",
            "runtimeClassName": pod.runtime_class,
            "resourceClaims": claims(pod),
            "containers": specs(&apps),
            "initContainers": specs(&inits),
            "ephemeralContainers": specs(&ephemeral),
        },
        "status": {
            "startTime": (pod.admitted <= seen).then(|| stamp(pod.admitted)),
            "phase": if completed { "Succeeded" } else { "Running" },
            "containerStatuses": statuses(&apps),
            "initContainerStatuses": statuses(&inits),
            "ephemeralContainerStatuses": statuses(&ephemeral),
        },
    })
}

/// The time on the clock of the node, as Kubernetes states it: to the second.
fn stamp(at: Ms) -> String {
    let seconds = i64::try_from(WALL_US / 1_000_000 + at / 1000).unwrap();
    Timestamp::from_second(seconds).unwrap().to_string()
}

/// The claims that the spec of a container states: none for an extended resource.
fn stated_claims(container: &Container) -> &[Claimed] {
    if container.requests.is_empty() { &container.claims } else { &[] }
}

/// The names of the claims that the spec of a container states.
fn claim_names(container: &Container) -> impl Iterator<Item = &str> {
    let network = container.network.iter().map(|(claim, _)| claim.as_str());
    stated_claims(container).iter().map(|claimed| claimed.claim.as_str()).take(1).chain(network)
}

/// The claims of a pod, under their own names.
fn claims(pod: &Pod) -> Vec<Value> {
    let mut names: Vec<&str> = pod.containers.iter().flat_map(claim_names).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().map(|name| json!({ "name": name, "resourceClaimName": name })).collect()
}

/// The resource claim of a pod with this name.
pub(crate) fn claim(world: &World, pod: &Pod, name: &str) -> Option<Value> {
    let all = pod.containers.iter().flat_map(|container| &container.claims);
    let mut devices: Vec<&Claimed> = all.filter(|claimed| claimed.claim == name).collect();
    devices.dedup();
    let first = devices.first()?;
    let result = |claimed: &&Claimed| {
        let mut result = json!({
            "request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-1",
            "device": world.claim_name(claimed.device),
        });
        match &claimed.access {
            Access::Share(id, mib) => {
                result["shareID"] = json!(id);
                result["consumedCapacity"] = json!({ "memory": format!("{mib}Mi") });
            }
            Access::Admin => result["adminAccess"] = json!(true),
            Access::Whole | Access::TimeSlicing | Access::Mps(..) => {}
        }
        result
    };
    let sharing = match first.access {
        Access::TimeSlicing => Some(json!({ "strategy": "TimeSlicing" })),
        Access::Mps(percent, mib) => {
            let mut limits = json!({ "defaultPinnedDeviceMemoryLimit": format!("{mib}Mi") });
            if percent > 0 {
                limits["defaultActiveThreadPercentage"] = json!(percent);
            }
            Some(json!({ "strategy": "MPS", "mpsConfig": limits }))
        }
        Access::Whole | Access::Share(..) | Access::Admin => None,
    };
    let kind = if first.device.instance.is_some() { "MigDeviceConfig" } else { "GpuConfig" };
    let config = sharing.map(|sharing| {
        json!({
            "source": "FromClaim",
            "opaque": {
                "driver": "gpu.nvidia.com", "parameters": { "kind": kind, "sharing": sharing },
            },
        })
    });
    let config: Vec<Value> = config.into_iter().collect();
    let results: Vec<Value> = devices.iter().map(result).collect();
    Some(json!({
        "metadata": { "uid": format!("uid-of-{name}") },
        "status": {
            "reservedFor": [{ "resource": "pods", "name": pod.name, "uid": pod.uid }],
            "allocation": { "devices": { "results": results, "config": config } },
        },
    }))
}

fn spec(container: &Container) -> Value {
    let limits: Map<String, Value> =
        container.requests.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let claims: Vec<Value> = claim_names(container).map(|name| json!({ "name": name })).collect();
    let mut spec = json!({
        "name": container.name, "resources": { "limits": limits, "claims": claims },
    });
    if container.kind == Kind::Sidecar {
        spec["restartPolicy"] = json!("Always");
    }
    spec
}

/// The status that was reported for the time `seen`.
fn status(container: &Container, seen: Ms) -> Value {
    let started = container.runs.iter().filter(|run| run.start <= seen);
    let mut ids = started.rev();
    let (current, last) = (ids.next(), ids.next());
    let Some(run) = current else {
        return json!({ "name": container.name, "state": { "waiting": {} } });
    };
    let id = |id: &str| format!("containerd://{id}");
    let state = if seen < run.end {
        json!({ "running": {} })
    } else {
        json!({ "terminated": { "containerID": id(&run.id) } })
    };
    let last = container.foreign_id.as_ref().or(last.map(|run| &run.id));
    let last =
        last.map_or_else(|| json!({}), |last| json!({ "terminated": { "containerID": id(last) } }));
    json!({
        "name": container.name, "containerID": id(&run.id), "state": state, "lastState": last,
    })
}
