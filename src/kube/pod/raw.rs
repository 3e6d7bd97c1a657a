//! The JSON of a pod, as the API server and the kubelet send it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::container::{Container, ContainerKind, is_gpu_resource};
use super::filtered_map::{FilteredMap, KeyFilter};
use super::{ANNOTATIONS, CONFIG_HASH, CONFIG_MIRROR, GROUP_ANNOTATIONS, Pod};
use crate::model::PodRef;

/// Reads `null` as the default: Go encodes an empty list as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads an RFC 3339 time as seconds since the Unix epoch; none if it is not a time.
fn unix_seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NonZeroU64>, D::Error> {
    let text: Box<str> = or_default(deserializer)?;
    Ok(text.parse::<Timestamp>().ok().and_then(|time| positive(time.as_second())))
}

/// A number of seconds that is above zero.
pub(super) fn positive(seconds: i64) -> Option<NonZeroU64> {
    u64::try_from(seconds).ok().and_then(NonZeroU64::new)
}

#[derive(Debug)]
pub(super) struct KeptAnnotation;

impl KeyFilter for KeptAnnotation {
    fn matches(key: &str) -> bool {
        ANNOTATIONS.contains(&key) || GROUP_ANNOTATIONS.contains(&key)
    }
}

#[derive(Debug)]
pub(super) struct GpuResource;

impl KeyFilter for GpuResource {
    fn matches(key: &str) -> bool {
        is_gpu_resource(key)
    }
}

/// A pod of the Kubernetes API, with the fields that are read.
#[derive(Deserialize)]
pub(super) struct RawPod {
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) spec: PodSpec,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) uid: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    #[serde(default, deserialize_with = "unix_seconds")]
    pub(super) creation_timestamp: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) deletion_timestamp: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: FilteredMap<KeptAnnotation>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub(super) node_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub(super) runtime_class_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub(super) containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(super) init_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ephemeral_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_claims: Vec<ClaimSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerSpec {
    pub(super) name: Arc<str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) restart_policy: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    #[serde(deserialize_with = "or_default")]
    pub(super) limits: FilteredMap<GpuResource>,
    #[serde(deserialize_with = "or_default")]
    pub(super) requests: FilteredMap<GpuResource>,
    #[serde(deserialize_with = "or_default")]
    pub(super) claims: Vec<ContainerClaim>,
}

#[derive(Deserialize)]
pub(super) struct ContainerClaim {
    pub(super) name: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimSpec {
    pub(super) name: Box<str>,
    #[serde(default)]
    pub(super) resource_claim_name: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    pub(super) phase: Box<str>,
    #[serde(deserialize_with = "unix_seconds")]
    pub(super) start_time: Option<NonZeroU64>,
    #[serde(deserialize_with = "or_default")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_claim_statuses: Vec<ClaimSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: Arc<str>,
    #[serde(default, rename = "containerID", deserialize_with = "or_default")]
    pub(super) container_id: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) state: ContainerState,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) last_state: ContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) running: Option<IgnoredAny>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Terminated {
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub(super) container_id: Box<str>,
}

impl From<RawPod> for Pod {
    fn from(RawPod { metadata, spec, status }: RawPod) -> Self {
        let config_hash = config_hash(&metadata);
        let PodStatus { container_statuses, init_container_statuses, .. } = &status;
        let ephemeral = &status.ephemeral_container_statuses;
        let app = |_: &ContainerSpec| ContainerKind::App;
        let init = |c: &ContainerSpec| {
            let restartable = &*c.restart_policy == "Always";
            ContainerKind::Init { restartable }
        };
        let containers = [
            containers(spec.containers, container_statuses, app),
            containers(spec.init_containers, init_container_statuses, init),
            containers(spec.ephemeral_containers, ephemeral, |_| ContainerKind::Ephemeral),
        ];
        let mut claims: BTreeMap<_, _> =
            spec.resource_claims.into_iter().map(|c| (c.name, c.resource_claim_name)).collect();
        for claim in status.resource_claim_statuses {
            claims.insert(claim.name, claim.resource_claim_name);
        }
        Self {
            id: PodRef { uid: metadata.uid, namespace: metadata.namespace, name: metadata.name },
            config_hash,
            node: spec.node_name,
            created: metadata.creation_timestamp,
            admitted: status.start_time,
            runtime_class: spec.runtime_class_name,
            deleting: metadata.deletion_timestamp.is_some(),
            terminal: matches!(&*status.phase, "Succeeded" | "Failed"),
            annotations: metadata.annotations.0,
            labels: metadata.labels,
            containers: containers.into_iter().flatten().collect(),
            claims,
        }
    }
}

/// The hash identifies cgroups of this node, and every creator of a pod may write annotations. It
/// is therefore accepted only in the form of the kubelet: on a mirror pod both annotations contain
/// it. A static pod in the kubelet's own list has it as its UID and needs no second key.
fn config_hash(metadata: &Metadata) -> Option<Arc<str>> {
    let annotations = &metadata.annotations.0;
    let hash = annotations.get(CONFIG_HASH)?;
    let mirrored = annotations.get(CONFIG_MIRROR) == Some(hash);
    let hex = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (mirrored && hex).then(|| Arc::from(&**hash))
}

fn containers(
    specs: Vec<ContainerSpec>,
    statuses: &[ContainerStatus],
    kind: impl Fn(&ContainerSpec) -> ContainerKind,
) -> Vec<Container> {
    specs
        .into_iter()
        .map(|spec| {
            let status = statuses.iter().find(|status| status.name == spec.name);
            let kind = kind(&spec);
            let mut resources = spec.resources.requests.0;
            resources.extend(spec.resources.limits.0);
            Container {
                name: spec.name,
                kind,
                resources,
                claims: spec.resources.claims.into_iter().map(|claim| claim.name).collect(),
                ids: status.map(ids).unwrap_or_default(),
                terminated: status.is_some_and(|status| status.state.terminated.is_some()),
                running: status.is_some_and(|status| status.state.running.is_some()),
            }
        })
        .collect()
}

fn ids(status: &ContainerStatus) -> Vec<Arc<str>> {
    let container_id_of = |state: &ContainerState| {
        state.terminated.as_ref().map(|ended| ended.container_id.clone()).unwrap_or_default()
    };
    let mut ids = Vec::new();
    for id in [
        status.container_id.clone(),
        container_id_of(&status.state),
        container_id_of(&status.last_state),
    ] {
        // `containerd://<id>`: the runtime's name is not part of the id.
        let id = id.rsplit("//").next().unwrap_or_default();
        if !id.is_empty() && !ids.iter().any(|known: &Arc<str>| &**known == id) {
            ids.push(Arc::from(id));
        }
    }
    ids
}
