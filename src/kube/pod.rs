//! The fields of a pod that attribution and device allocation need, parsed from its JSON.

pub mod container;
mod filtered_map;
pub mod protobuf;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::Arc;

use self::container::{Container, ContainerKind};
use self::raw::RawPod;
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
/// Annotation keys of pods in GPU groups, which are kept too. Alone they allocate nothing: many
/// workloads have keys like these, and a reservation pod decides.
pub const GROUP_ANNOTATIONS: &[&str] = &[
    "gpu-fraction",
    "gpu-fraction-container-name",
    "gpu-fraction-num-devices",
    "gpu-memory",
    "run.ai/reserve_for_gpu_index",
];
/// Label with the GPU group of a pod (KAI Scheduler, Run:ai).
pub const GPU_GROUP: &str = "runai-gpu-group";
/// Annotation with the hash of a static pod.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation of a mirror pod with the hash of its static pod.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The parsed fields of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID, namespace and name.
    pub id: PodRef,
    /// Of a static pod, the UID in its cgroup path. Its mirror pod in the API has another UID.
    pub config_hash: Option<Arc<str>>,
    /// `spec.nodeName`.
    pub node: Box<str>,
    /// `metadata.creationTimestamp`, which the API server sets, in seconds since the Unix epoch.
    pub created: Option<NonZeroU64>,
    /// `status.startTime`, in seconds since the Unix epoch by the clock of the node: when its kubelet admitted
    /// it. None before.
    pub admitted: Option<NonZeroU64>,
    /// `spec.runtimeClassName`; empty for the default runtime.
    pub runtime_class: Box<str>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether `status.phase` is `Succeeded` or `Failed`: no container is restarted.
    pub terminal: bool,
    /// Its annotations that are in [`ANNOTATIONS`] or [`GROUP_ANNOTATIONS`].
    pub annotations: BTreeMap<Box<str>, Box<str>>,
    /// `metadata.labels`.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Containers of all kinds. Those of `spec.containers` come first, in order.
    pub containers: Vec<Container>,
    /// Resource claims: name in the pod, and name of the `ResourceClaim` once it exists.
    pub claims: BTreeMap<Box<str>, Option<Box<str>>>,
}

impl Pod {
    /// The value of an annotation that is in [`ANNOTATIONS`] or [`GROUP_ANNOTATIONS`].
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

    /// Whether its runtime may run all containers in one sandbox, and thus in one cgroup. The classes
    /// of NVIDIA's GPU operator are those of a runtime that does not.
    #[must_use]
    pub fn may_be_sandboxed(&self) -> bool {
        !matches!(&*self.runtime_class, "" | "nvidia" | "nvidia-cdi" | "nvidia-legacy")
    }

    /// Whether it requests GPUs, uses a claim, which may be one of a GPU, or has an annotation that allocates some.
    #[must_use]
    pub fn requests_gpus(&self) -> bool {
        let is_allocation =
            |key: &str| ANNOTATIONS.contains(&key) && key != CONFIG_HASH && key != CONFIG_MIRROR;
        self.containers.iter().any(|c| c.requests_gpu() || !c.claims.is_empty())
            || self.annotations.keys().any(|key| is_allocation(key))
    }

    /// The GPU groups that its labels name: one in `runai-gpu-group`, or several, each in
    /// `runai-gpu-group/<group>`.
    #[must_use]
    pub fn gpu_groups(&self) -> BTreeSet<&str> {
        let labels = self.labels.range::<str, _>((Bound::Included(GPU_GROUP), Bound::Unbounded));
        labels
            .map_while(|(key, value)| Some((key.strip_prefix(GPU_GROUP)?, &**value)))
            .filter(|(rest, group)| (rest.is_empty() || rest.starts_with('/')) && !group.is_empty())
            .map(|(_, group)| group)
            .collect()
    }

    /// GPU resources of which its init containers request more than its other containers. The
    /// kubelet does not list what it allocates to init containers that do not restart; the other
    /// containers get the same devices.
    #[must_use]
    pub fn unlisted_resources(&self) -> BTreeSet<&str> {
        let initializes = |c: &&Container| c.kind == (ContainerKind::Init { restartable: false });
        let quantity = |container: &Container, resource: &str| {
            let text = container.resources.get(resource)?;
            Some(text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let init = self.containers.iter().filter(initializes);
        let requested = init.flat_map(|c| c.resources.keys().map(move |name| (c, &**name)));
        let is_unlisted = |(init, resource): &(&Container, &str)| {
            let others = self.containers.iter().filter(|c| !initializes(c));
            let listed: u64 =
                others.filter_map(|other| quantity(other, resource)).fold(0, u64::saturating_add);
            quantity(init, resource).is_some_and(|init| init > listed)
        };
        requested.filter(is_unlisted).map(|(_, resource)| resource).collect()
    }

    /// `spec.containers`. Annotations refer to their positions.
    #[must_use]
    pub fn app_containers(&self) -> Vec<&Container> {
        self.containers.iter().filter(|container| container.kind == ContainerKind::App).collect()
    }
}

/// Parses a pod from the JSON of the API server or the kubelet.
///
/// # Errors
/// The text is not JSON, or a parsed field does not have the type of the Kubernetes API.
pub fn parse(json: &[u8]) -> Result<Pod, serde_json::Error> {
    serde_json::from_slice::<RawPod>(json).map(Pod::from)
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
            "nodeName": "node-1", "runtimeClassName": "gvisor",
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
        assert!(pod.may_be_sandboxed());
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
        let bare = parse(bare).unwrap();
        assert!(!bare.has_ended() && !bare.may_be_sandboxed());
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
    fn gpu_groups_are_the_values_of_their_labels() {
        let groups = |labels: &str| {
            let text = format!(
                r#"{{"metadata":{{"uid":"u","name":"x","namespace":"y","labels":{labels}}}}}"#
            );
            let pod = parse(text.as_bytes()).unwrap();
            pod.gpu_groups().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(groups(r#"{"app":"x"}"#), Vec::<String>::new());
        assert_eq!(groups(r#"{"runai-gpu-group":"g","zone":"b"}"#), ["g"]);
        assert_eq!(
            groups(r#"{"runai-gpu-group/h":"h","runai-gpu-group/g":"g","runai-gpu-group":"g"}"#),
            ["g", "h"]
        );
        let others = r#"{"runai-gpu-groups":"a","runai-gpu-group-x":"b","runai-gpu-group":""}"#;
        assert_eq!(groups(others), Vec::<String>::new());
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
