//! Pods and allocations, as Kubernetes objects.

mod claim;
mod logs;
mod pod;

use std::sync::Arc;

use serde_json::{Value, json};

use super::names::Names;
use super::object;
use super::toml::{inline, quoted};
use crate::cluster::{PodLogNames, SourcesRecord};
use crate::kube::assignments::{
    Assignments, ClaimedDevice, ContainerAssignment, PodName, SliceTable,
};
use crate::kube::pod::Pod;
use crate::kube::resource_claims::table::ClaimTable;
use crate::kube::sharing::SharingStrategy;
use crate::kube::source::{FailureReason, HealthTracker, SourceState};

/// What the sources of a cluster returned.
#[derive(Clone, Default)]
pub struct ClusterRecord {
    /// Name of the node.
    pub node: String,
    /// The pods of the node; `Err` if their source is down.
    pub pods: Option<Result<Vec<Pod>, FailureReason>>,
    /// The allocations; `Err` if the kubelet does not respond.
    pub assignments: Option<Result<Assignments, FailureReason>>,
    /// The devices of DRA drivers.
    pub slices: SliceTable,
    /// Resource claims.
    pub claims: ClaimTable,
    /// How the GPUs are shared, according to the node's labels.
    pub sharing: Option<SharingStrategy>,
    /// Whether the API server rejected a streaming list.
    pub rejects_streaming_lists: bool,
    /// Names from the log directories.
    pub logs: Arc<PodLogNames>,
}

/// What was read, unless the source is down.
fn read<T>(health: &HealthTracker, value: Option<T>) -> Option<Result<T, FailureReason>> {
    match (health.state, value) {
        (SourceState::Down(reason), _) => Some(Err(reason)),
        (_, value) => value.map(Ok),
    }
}

impl ClusterRecord {
    /// What the sources of the node `node` returned last.
    #[must_use]
    pub fn new(node: &str, sources: SourcesRecord) -> Self {
        let SourcesRecord { pods, pod_resources, slices, claims, sharing, logs } = sources;
        let rejects_streaming_lists = pods.as_ref().is_some_and(|pods| {
            let mut failures = pods.health.failures();
            failures.any(|(reason, count)| reason == FailureReason::Unsupported && count > 0)
        });
        let pods = pods.and_then(|pods| {
            let mut list: Vec<Pod> = pods.iter().map(|tracked| tracked.pod.clone()).collect();
            list.sort_by(|one, other| one.id.uid.cmp(&other.id.uid));
            read(&pods.health, Some(list))
        });
        let assignments = pod_resources
            .and_then(|state| read(&state.health, state.assignments.map(Arc::unwrap_or_clone)));
        Self {
            node: node.to_owned(),
            pods,
            assignments,
            slices: slices.map(Arc::unwrap_or_clone).unwrap_or_default(),
            claims: claims.map(Arc::unwrap_or_clone).unwrap_or_default(),
            sharing,
            rejects_streaming_lists,
            logs,
        }
    }

    /// The tables of the cluster in a scenario.
    pub(super) fn to_toml(&self, names: &mut Names) -> Vec<String> {
        let mut lines =
            vec!["[cluster]".to_owned(), format!("node = {}", quoted(&names.node(&self.node)))];
        if let Some(strategy) = self.sharing {
            let label =
                json!({ "key": "nvidia.com/gpu.sharing-strategy", "value": strategy.label() });
            lines.push(format!("labels = [{}]", inline(&label)));
        }
        if self.rejects_streaming_lists {
            lines.push("streaming_lists = false".to_owned());
        }
        // Pods first: their names are part of allocations.
        let mut objects: Vec<Value> = Vec::new();
        if let Some(Ok(pods)) = &self.pods {
            objects.extend(pods.iter().map(|pod| pod::object_of(pod, names)));
        }
        objects.extend(claim::slices(&self.slices, &self.node, names));
        objects.extend(claim::claims(&self.claims, names));
        lines.extend(array("objects", objects.iter().map(inline)));
        if let Some(Ok(assignments)) = &self.assignments {
            let listed = listed(assignments, names);
            lines.extend(array("listed", listed.iter().map(inline)));
            lines.push(format!("allocatable = {}", inline(&allocatable(assignments, names))));
        }
        lines.extend(array("logs", logs::files(&self.logs, names).iter().map(inline)));
        let failed = [
            ("kubelet", self.assignments.as_ref().and_then(|read| read.as_ref().err())),
            ("api", self.pods.as_ref().and_then(|read| read.as_ref().err())),
        ];
        for (source, reason) in failed {
            if let Some(reason) = reason {
                lines.push(String::new());
                lines.push("[[cluster_fault]]".to_owned());
                lines.push(format!("source = \"{source}\""));
                lines.push(format!("effect = \"{}\"", effect(*reason)));
            }
        }
        lines
    }
}

/// An array with one item per line.
fn array(key: &str, items: impl Iterator<Item = String>) -> Vec<String> {
    let items = items.map(|item| format!("    {item},"));
    [format!("{key} = [")].into_iter().chain(items).chain(["]".to_owned()]).collect()
}

/// The pods that the kubelet lists, one of an ambiguous name twice.
fn listed(assignments: &Assignments, names: &mut Names) -> Vec<Value> {
    let twice = assignments.ambiguous.iter();
    let pods: Vec<&PodName> = assignments.pods.iter().chain(twice).collect();
    let mut containers: Vec<&ContainerAssignment> = assignments.containers.iter().collect();
    let pod = |name: &PodName| {
        let is_of = |one: &&ContainerAssignment| (&one.namespace, &one.pod) == (&name.0, &name.1);
        let (own, others) = containers.iter().partition(|one| is_of(one));
        containers = others;
        let own: Vec<&ContainerAssignment> = own;
        json!({
            "namespace": names.namespace(&name.0),
            "name": names.pod(&name.1),
            "containers": own.into_iter().map(|one| container(one, names)).collect::<Vec<_>>(),
        })
    };
    pods.into_iter().map(pod).collect()
}

fn container(assignment: &ContainerAssignment, names: &mut Names) -> Value {
    let devices = assignment.devices.iter().map(|(resource, ids)| {
        let ids: Vec<String> = ids.iter().map(|id| names.replace_in(id)).collect();
        json!([resource, ids])
    });
    let devices: Vec<Value> = devices.collect();
    let claims: Vec<Value> = assignment.claims.iter().map(|one| claimed(one, names)).collect();
    json!({
        "name": names.container(&assignment.container),
        "devices": devices,
        "claims": claims,
    })
}

fn claimed(device: &ClaimedDevice, names: &mut Names) -> Value {
    object([
        ("namespace", names.namespace(&device.claim_namespace).into()),
        ("name", names.claim(&device.claim_name).into()),
        ("driver", (&*device.driver).into()),
        ("pool", names.node(&device.pool).into()),
        ("device", (&*device.device).into()),
        ("share", device.share.as_deref().map_or(Value::Null, |share| names.pod_uid(share).into())),
    ])
}

fn allocatable(assignments: &Assignments, names: &mut Names) -> Value {
    let resources = assignments.allocatable.iter().map(|(resource, ids)| {
        let ids: Vec<String> = ids.iter().map(|id| names.replace_in(id)).collect();
        (resource.to_string(), json!(ids))
    });
    Value::Object(resources.collect())
}

/// The effect of a fault with which a source of the mock fails for this reason.
fn effect(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Absent | FailureReason::Config => "absent",
        FailureReason::Denied => "denied",
        FailureReason::Timeout => "hang",
        FailureReason::Throttled => "throttled",
        FailureReason::Garbage => "garbage",
        FailureReason::Expired => "expired",
        FailureReason::Connection
        | FailureReason::TooLarge
        | FailureReason::Unsupported
        | FailureReason::NotReady
        | FailureReason::Refused => "refuse",
    }
}
