//! The fields of a pod that attribution and device allocation need, parsed from its JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::model::PodRef;

/// Annotation keys that are kept; all others are dropped during parsing.
pub const ANNOTATIONS: &[&str] = &[
    CONFIG_HASH,
    CONFIG_MIRROR,
    "ALIYUN_COM_GPU_MEM_ASSIGNED",
    "ALIYUN_COM_GPU_MEM_DEV",
    "ALIYUN_COM_GPU_MEM_IDX",
    "ALIYUN_COM_GPU_MEM_POD",
    "gpushare.alibabacloud.com/assigned",
    "gpushare.alibabacloud.com/core-percentage",
    "gpushare.alibabacloud.com/gpumemory",
    "hami.io/bind-phase",
    "hami.io/vgpu-devices-allocated",
    "hami.io/vgpu-mig-allocations",
    "scheduler.framework.gpushare.allocation",
    "scheduler.framework.gpushare.assigned",
    "scheduling.koordinator.sh/device-allocated",
    "volcano.sh/bind-phase",
    "volcano.sh/gpu-index",
    "volcano.sh/vgpu-ids-new",
];
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The parsed fields of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID, namespace and name.
    pub id: PodRef,
    /// Of a static pod, the UID in its cgroup path. Its mirror pod in the API has another UID.
    pub config_hash: Option<Arc<str>>,
    /// `spec.nodeName`.
    pub node: Box<str>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether `status.phase` is `Succeeded` or `Failed`: no container is restarted.
    pub terminal: bool,
    /// Its annotations that are in [`ANNOTATIONS`].
    pub annotations: BTreeMap<Box<str>, Box<str>>,
    /// `metadata.labels`.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Containers of all kinds. Those of `spec.containers` come first, in order.
    pub containers: Vec<Container>,
    /// Resource claims: name in the pod, and name of the `ResourceClaim` once it exists.
    pub claims: BTreeMap<Box<str>, Option<Box<str>>>,
}

/// The list of the pod spec that contains a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// `spec.containers`.
    App,
    /// `spec.initContainers`.
    Init {
        /// A sidecar (`restartPolicy: Always`): it runs as long as the pod.
        restartable: bool,
    },
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

/// A container of a [`Pod`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name, unique in the pod.
    pub name: Arc<str>,
    /// The list of the pod spec that contains it.
    pub kind: ContainerKind,
    /// Quantities of GPU resources ([`is_gpu_resource`]): the limit, or the request if there is no
    /// limit.
    pub resources: BTreeMap<Box<str>, Box<str>>,
    /// The claims it uses, by their name in the pod.
    pub claims: Vec<Box<str>>,
    /// Container ids without the prefix of the runtime: of the current run, then of the last one.
    pub ids: Vec<Arc<str>>,
    /// Whether its current run has ended (`state.terminated`).
    pub terminated: bool,
    /// Whether its status is `state.running`.
    pub running: bool,
}

impl Pod {
    /// The value of an annotation that is in [`ANNOTATIONS`].
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(AsRef::as_ref)
    }

    /// Whether its phase is terminal, or it is being deleted and all of its containers have ended.
    /// Until then it keeps its allocated devices.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.terminal || (self.deleting && self.containers.iter().all(Container::has_ended))
    }

    /// Whether this container runs, and no init container that has to end before it does. Only then
    /// does a container without GPU processes count as idle.
    #[must_use]
    pub fn runs(&self, container: &str) -> bool {
        let initializes = |c: &Container| {
            c.kind == (ContainerKind::Init { restartable: false })
                && c.running
                && *c.name != *container
        };
        let mut containers = self.containers.iter();
        containers.any(|c| *c.name == *container && c.running)
            && !self.containers.iter().any(initializes)
    }

    /// Whether it requests GPUs, or has an annotation that allocates some.
    #[must_use]
    pub fn requests_gpus(&self) -> bool {
        let requests = |c: &Container| c.requests_gpu() || !c.claims.is_empty();
        let is_allocation = |key: &str| key != CONFIG_HASH && key != CONFIG_MIRROR;
        self.containers.iter().any(requests)
            || self.annotations.keys().any(|key| is_allocation(key))
    }

    /// The containers with a matching kind, in the order of the pod's JSON.
    pub fn of_kind(
        &self,
        kind: impl Fn(ContainerKind) -> bool,
    ) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| kind(container.kind))
    }

    /// `spec.containers`. Annotations refer to their positions.
    #[must_use]
    pub fn app_containers(&self) -> Vec<&Container> {
        self.of_kind(|kind| kind == ContainerKind::App).collect()
    }

    /// `spec.initContainers`.
    #[must_use]
    pub fn init_containers(&self) -> Vec<&Container> {
        self.of_kind(|kind| matches!(kind, ContainerKind::Init { .. })).collect()
    }
}

impl Container {
    /// Whether its run has ended, or it is an init or ephemeral container that never ran. Only
    /// valid for a pod that is being deleted: in any other, an ended container may be restarted.
    fn has_ended(&self) -> bool {
        self.terminated || (self.kind != ContainerKind::App && self.ids.is_empty())
    }

    /// Whether it requests a GPU resource with a quantity other than 0.
    #[must_use]
    pub fn requests_gpu(&self) -> bool {
        self.resources.values().any(|quantity| &**quantity != "0")
    }
}

/// Whether this is the name of a GPU resource.
#[must_use]
pub fn is_gpu_resource(resource: &str) -> bool {
    let domains = ["nvidia.com/", "aliyun.com/", "koordinator.sh/", "volcano.sh/"];
    domains.iter().any(|domain| resource.contains(domain))
        || resource.contains("gpu")
        || resource.contains("mig")
}

/// Parses a pod from the JSON of the API server or the kubelet.
///
/// # Errors
/// The text is not JSON, or a parsed field does not have the type of the Kubernetes API.
pub fn parse(json: &[u8]) -> Result<Pod, serde_json::Error> {
    serde_json::from_slice::<RawPod>(json).map(Pod::from)
}

/// Reads `null` as the default: Go encodes an empty list as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A map that keeps the keys that match `F`. Values of other keys are not copied.
#[derive(Debug)]
struct FilteredMap<F>(BTreeMap<Box<str>, Box<str>>, PhantomData<F>);

impl<F> Default for FilteredMap<F> {
    fn default() -> Self {
        Self(BTreeMap::new(), PhantomData)
    }
}

trait KeyFilter {
    fn matches(key: &str) -> bool;
}

#[derive(Debug)]
struct Annotation;

impl KeyFilter for Annotation {
    fn matches(key: &str) -> bool {
        ANNOTATIONS.contains(&key)
    }
}

#[derive(Debug)]
struct GpuResource;

impl KeyFilter for GpuResource {
    fn matches(key: &str) -> bool {
        is_gpu_resource(key)
    }
}

/// A quantity, which may be a JSON string or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawQuantity {
    String(Box<str>),
    Number(serde_json::Number),
}

impl<'de, F: KeyFilter> Deserialize<'de> for FilteredMap<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Filter<F>(PhantomData<F>);
        impl<'de, F: KeyFilter> Visitor<'de> for Filter<F> {
            type Value = FilteredMap<F>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FilteredMap<F>, A::Error> {
                let mut filtered = FilteredMap::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    if !F::matches(&key) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let text = match map.next_value()? {
                        RawQuantity::String(text) => text,
                        RawQuantity::Number(number) => number.to_string().into(),
                    };
                    filtered.0.insert(key.into(), text);
                }
                Ok(filtered)
            }
        }
        deserializer.deserialize_map(Filter(PhantomData))
    }
}

#[derive(Deserialize)]
struct RawPod {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: PodSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: Arc<str>,
    namespace: Arc<str>,
    name: Arc<str>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: FilteredMap<Annotation>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    node_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    resource_claims: Vec<ClaimSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerSpec {
    name: Arc<str>,
    #[serde(default, deserialize_with = "or_default")]
    restart_policy: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "or_default")]
    limits: FilteredMap<GpuResource>,
    #[serde(deserialize_with = "or_default")]
    requests: FilteredMap<GpuResource>,
    #[serde(deserialize_with = "or_default")]
    claims: Vec<ContainerClaim>,
}

#[derive(Deserialize)]
struct ContainerClaim {
    name: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec {
    name: Box<str>,
    #[serde(default)]
    resource_claim_name: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    phase: Box<str>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    resource_claim_statuses: Vec<ClaimSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: Arc<str>,
    #[serde(default, rename = "containerID", deserialize_with = "or_default")]
    container_id: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    state: ContainerState,
    #[serde(default, deserialize_with = "or_default")]
    last_state: ContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    container_id: Box<str>,
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

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{
        "kind": "Pod",
        "metadata": {
            "uid": "u-1", "namespace": "demo", "name": "train", "labels": {"app": "x"},
            "annotations": {"hami.io/bind-phase": "success", "team": "x"},
            "managedFields": [{"manager": "kubelet"}]
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {"name": "a", "resources": {
                    "limits": {"nvidia.com/gpu": "1", "cpu": "2"},
                    "requests": {"nvidia.com/gpu": "1", "aliyun.com/gpu-mem": 4},
                    "claims": [{"name": "gpu", "request": "r"}]
                }},
                {"name": "b", "resources": {}}
            ],
            "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}],
            "ephemeralContainers": null,
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "a", "containerID": "containerd://c2", "state": {"running": {}},
                "lastState": {"terminated": {"containerID": "containerd://c1", "exitCode": 1}}
            }],
            "initContainerStatuses": [{
                "name": "init", "containerID": "cri-o://i1",
                "state": {"terminated": {"containerID": "cri-o://i1"}}
            }],
            "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "train-gpu-x"}]
        }
    }"#;

    #[test]
    fn only_needed_fields_are_kept() {
        let pod = parse(FULL.as_bytes()).unwrap();
        assert_eq!((&*pod.id.uid, &*pod.node, pod.has_ended()), ("u-1", "node-1", false));
        assert_eq!(pod.annotations.len(), 1);
        assert_eq!(pod.annotation("hami.io/bind-phase"), Some("success"));
        let names: Vec<_> = pod.containers.iter().map(|c| (&*c.name, c.kind)).collect();
        assert_eq!(
            names,
            [
                ("a", ContainerKind::App),
                ("b", ContainerKind::App),
                ("side", ContainerKind::Init { restartable: true }),
                ("init", ContainerKind::Init { restartable: false }),
            ]
        );
        let a = &pod.containers[0];
        let resources: Vec<_> = a.resources.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(resources, [("aliyun.com/gpu-mem", "4"), ("nvidia.com/gpu", "1")]);
        assert_eq!(a.ids, ["c2".into(), "c1".into()]);
        assert_eq!(&*a.claims[0], "gpu");
        assert!(!pod.containers[1].requests_gpu());
        assert!(pod.containers[3].terminated);
        assert_eq!(pod.containers[3].ids, ["i1".into()]);
        assert_eq!(pod.claims["gpu"].as_deref(), Some("train-gpu-x"));
    }

    #[test]
    fn pod_without_uid_is_rejected() {
        for invalid in ["", "{}", "[]", r#"{"metadata":{"name":"x","namespace":"y"}}"#] {
            assert!(parse(invalid.as_bytes()).is_err(), "{invalid}");
        }
        let bare = br#"{"metadata":{"uid":"u","name":"x","namespace":"y","annotations":null},"spec":null,"status":null}"#;
        assert!(!parse(bare).unwrap().has_ended());
    }

    #[test]
    fn pod_has_ended_in_terminal_phase_or_when_deleted_and_all_containers_ended() {
        for phase in ["Succeeded", "Failed"] {
            let text = FULL.replace(r#""phase": "Running""#, &format!(r#""phase": "{phase}""#));
            assert!(parse(text.as_bytes()).unwrap().has_ended(), "{phase}");
        }
        let deleted = FULL.replace(
            r#""uid": "u-1""#,
            r#""uid": "u-1", "deletionTimestamp": "2026-01-01T00:00:00Z""#,
        );
        assert!(!parse(deleted.as_bytes()).unwrap().has_ended(), "a container is running");
        let ended = |text: &str| {
            text.replace(r#""state": {"running": {}}"#, r#""state": {"terminated": {}}"#)
                .replace(r#""containers": ["#, r#""containers": [{"name": "a"}], "other": ["#)
        };
        assert!(parse(ended(&deleted).as_bytes()).unwrap().has_ended());
        assert!(!parse(ended(FULL).as_bytes()).unwrap().has_ended(), "it may be restarted");
        let never_started = deleted.replace(r#""containerStatuses""#, r#""other""#);
        assert!(!parse(never_started.as_bytes()).unwrap().has_ended(), "its status may be late");
    }

    #[test]
    fn config_hash_is_accepted_only_on_a_mirror_pod() {
        let with = |annotations: &str| {
            let text = format!(
                r#"{{"metadata":{{"uid":"u","name":"x","namespace":"y","annotations":{annotations}}}}}"#
            );
            parse(text.as_bytes()).unwrap().config_hash
        };
        let hash = "a55e52cb9c4a2d75b46842070b391f86";
        let mirror = format!(r#"{{"{CONFIG_HASH}":"{hash}","{CONFIG_MIRROR}":"{hash}"}}"#);
        assert_eq!(with(&mirror).as_deref(), Some(hash));
        assert_eq!(with(&format!(r#"{{"{CONFIG_HASH}":"{hash}"}}"#)), None, "not a mirror pod");
        let victim = "27387a60-bb05-49c9-bb6c-e2bdfa79ca40";
        let forged = format!(r#"{{"{CONFIG_HASH}":"{victim}","{CONFIG_MIRROR}":"{victim}"}}"#);
        assert_eq!(with(&forged), None, "UID of another pod");
    }
}
