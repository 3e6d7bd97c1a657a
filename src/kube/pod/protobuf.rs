//! The protobuf encoding of a pod, as the kubelet's Pods API sends it.
//!
//! The numbers are those of `k8s.io/api/core/v1/generated.proto`. Fields that are not read are skipped.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use prost::Message;
use serde::de::IgnoredAny;

use super::Pod;
use super::filtered_map::{FilteredMap, KeyFilter};
use super::raw::{
    ClaimSpec, ContainerClaim, ContainerSpec, ContainerState, ContainerStatus, Metadata, PodSpec,
    PodStatus, RawPod, Resources, Terminated, positive,
};

/// The fields that are read, as a field mask with the names of the JSON encoding.
pub const FIELD_MASK: &str = "metadata.uid,metadata.namespace,metadata.name,\
    metadata.creationTimestamp,metadata.deletionTimestamp,metadata.annotations,metadata.labels,\
    spec.nodeName,spec.runtimeClassName,spec.resourceClaims,\
    spec.containers.name,spec.containers.resources,\
    spec.initContainers.name,spec.initContainers.resources,spec.initContainers.restartPolicy,\
    spec.ephemeralContainers.name,spec.ephemeralContainers.resources,\
    status.phase,status.startTime,status.resourceClaimStatuses,\
    status.containerStatuses.name,status.containerStatuses.containerID,\
    status.containerStatuses.state,status.containerStatuses.lastState,\
    status.initContainerStatuses.name,status.initContainerStatuses.containerID,\
    status.initContainerStatuses.state,status.initContainerStatuses.lastState,\
    status.ephemeralContainerStatuses.name,status.ephemeralContainerStatuses.containerID,\
    status.ephemeralContainerStatuses.state,status.ephemeralContainerStatuses.lastState";

/// A pod, or what is known of one that cannot be decoded.
#[derive(Debug, PartialEq)]
pub enum DecodedPod {
    /// The pod.
    Pod(Pod),
    /// The UID of a pod that cannot be decoded; empty if unknown.
    Undecodable(Box<str>),
}

impl DecodedPod {
    /// The UID; empty if unknown.
    #[must_use]
    pub fn uid(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.id.uid,
            Self::Undecodable(uid) => uid,
        }
    }
}

/// Decodes a pod.
#[must_use]
pub fn decode(bytes: &[u8]) -> DecodedPod {
    let Ok(PodMessage { metadata, spec, status }) = PodMessage::decode(bytes) else {
        return DecodedPod::Undecodable(Box::default());
    };
    let metadata = metadata.unwrap_or_default();
    if [&metadata.uid, &metadata.namespace, &metadata.name].into_iter().any(String::is_empty) {
        return DecodedPod::Undecodable(metadata.uid.into());
    }
    let raw = RawPod {
        metadata: metadata.into(),
        spec: spec.unwrap_or_default().into(),
        status: status.unwrap_or_default().into(),
    };
    DecodedPod::Pod(raw.into())
}

#[derive(Clone, PartialEq, Message)]
struct PodMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<MetadataMessage>,
    #[prost(message, optional, tag = "2")]
    spec: Option<SpecMessage>,
    #[prost(message, optional, tag = "3")]
    status: Option<StatusMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MetadataMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
    #[prost(message, optional, tag = "9")]
    deletion_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

impl Time {
    /// Seconds since the Unix epoch; Go encodes no time as a negative number.
    fn seconds(self) -> Option<NonZeroU64> {
        positive(self.seconds)
    }
}

#[derive(Clone, PartialEq, Message)]
struct SpecMessage {
    #[prost(message, repeated, tag = "2")]
    containers: Vec<ContainerMessage>,
    #[prost(string, tag = "10")]
    node_name: String,
    #[prost(message, repeated, tag = "20")]
    init_containers: Vec<ContainerMessage>,
    #[prost(string, tag = "29")]
    runtime_class_name: String,
    #[prost(message, repeated, tag = "34")]
    ephemeral_containers: Vec<EphemeralMessage>,
    #[prost(message, repeated, tag = "39")]
    resource_claims: Vec<ClaimMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "8")]
    resources: Option<ResourcesMessage>,
    #[prost(string, tag = "24")]
    restart_policy: String,
}

#[derive(Clone, PartialEq, Message)]
struct EphemeralMessage {
    #[prost(message, optional, tag = "1")]
    container: Option<ContainerMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourcesMessage {
    #[prost(btree_map = "string, message", tag = "1")]
    limits: BTreeMap<String, Quantity>,
    #[prost(btree_map = "string, message", tag = "2")]
    requests: BTreeMap<String, Quantity>,
    #[prost(message, repeated, tag = "3")]
    claims: Vec<NameMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantity {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct NameMessage {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ClaimMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "3")]
    claim: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusMessage {
    #[prost(string, tag = "1")]
    phase: String,
    #[prost(message, optional, tag = "7")]
    start_time: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    containers: Vec<ContainerStatusMessage>,
    #[prost(message, repeated, tag = "10")]
    init_containers: Vec<ContainerStatusMessage>,
    #[prost(message, repeated, tag = "13")]
    ephemeral_containers: Vec<ContainerStatusMessage>,
    #[prost(message, repeated, tag = "15")]
    resource_claims: Vec<ClaimStatusMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ClaimStatusMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    claim: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    state: Option<StateMessage>,
    #[prost(message, optional, tag = "3")]
    last_state: Option<StateMessage>,
    #[prost(string, tag = "8")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StateMessage {
    #[prost(message, optional, tag = "2")]
    running: Option<RunningMessage>,
    #[prost(message, optional, tag = "3")]
    terminated: Option<TerminatedMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RunningMessage {}

#[derive(Clone, PartialEq, Message)]
struct TerminatedMessage {
    #[prost(string, tag = "7")]
    container_id: String,
}

impl From<MetadataMessage> for Metadata {
    fn from(message: MetadataMessage) -> Self {
        let labels = message.labels.into_iter();
        Self {
            uid: message.uid.into(),
            namespace: message.namespace.into(),
            name: message.name.into(),
            creation_timestamp: message.creation_timestamp.and_then(Time::seconds),
            deletion_timestamp: message.deletion_timestamp.map(|_| IgnoredAny),
            annotations: FilteredMap::of(message.annotations),
            labels: labels.map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }
}

impl From<SpecMessage> for PodSpec {
    fn from(message: SpecMessage) -> Self {
        let ephemeral = message.ephemeral_containers.into_iter();
        let claim = |claim: ClaimMessage| ClaimSpec {
            name: claim.name.into(),
            resource_claim_name: claim.claim.map(Into::into),
        };
        Self {
            node_name: message.node_name.into(),
            runtime_class_name: message.runtime_class_name.into(),
            containers: all(message.containers),
            init_containers: all(message.init_containers),
            ephemeral_containers: all(ephemeral.filter_map(|one| one.container)),
            resource_claims: message.resource_claims.into_iter().map(claim).collect(),
        }
    }
}

fn all<M, T: From<M>>(messages: impl IntoIterator<Item = M>) -> Vec<T> {
    messages.into_iter().map(T::from).collect()
}

impl From<ContainerMessage> for ContainerSpec {
    fn from(message: ContainerMessage) -> Self {
        Self {
            name: message.name.into(),
            restart_policy: message.restart_policy.into(),
            resources: message.resources.unwrap_or_default().into(),
        }
    }
}

impl From<ResourcesMessage> for Resources {
    fn from(message: ResourcesMessage) -> Self {
        let claims = message.claims.into_iter();
        Self {
            limits: quantities(message.limits),
            requests: quantities(message.requests),
            claims: claims.map(|claim| ContainerClaim { name: claim.name.into() }).collect(),
        }
    }
}

fn quantities<F: KeyFilter>(quantities: BTreeMap<String, Quantity>) -> FilteredMap<F> {
    FilteredMap::of(quantities.into_iter().map(|(key, quantity)| (key, quantity.text)))
}

impl From<StatusMessage> for PodStatus {
    fn from(message: StatusMessage) -> Self {
        let claim = |claim: ClaimStatusMessage| ClaimSpec {
            name: claim.name.into(),
            resource_claim_name: claim.claim.map(Into::into),
        };
        Self {
            phase: message.phase.into(),
            start_time: message.start_time.and_then(Time::seconds),
            container_statuses: all(message.containers),
            init_container_statuses: all(message.init_containers),
            ephemeral_container_statuses: all(message.ephemeral_containers),
            resource_claim_statuses: message.resource_claims.into_iter().map(claim).collect(),
        }
    }
}

impl From<ContainerStatusMessage> for ContainerStatus {
    fn from(message: ContainerStatusMessage) -> Self {
        Self {
            name: message.name.into(),
            container_id: message.container_id.into(),
            state: message.state.unwrap_or_default().into(),
            last_state: message.last_state.unwrap_or_default().into(),
        }
    }
}

impl From<StateMessage> for ContainerState {
    fn from(message: StateMessage) -> Self {
        let terminated =
            |ended: TerminatedMessage| Terminated { container_id: ended.container_id.into() };
        Self {
            running: message.running.map(|_| IgnoredAny),
            terminated: message.terminated.map(terminated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pod;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn container(name: &str, restart_policy: &str) -> ContainerMessage {
        let one = || Quantity { text: "1".to_owned() };
        let limits = [("nvidia.com/gpu".to_owned(), one()), ("cpu".to_owned(), one())];
        let resources = ResourcesMessage {
            limits: limits.into(),
            requests: BTreeMap::new(),
            claims: vec![NameMessage { name: "gpu".to_owned() }],
        };
        ContainerMessage {
            name: name.to_owned(),
            resources: Some(resources),
            restart_policy: restart_policy.to_owned(),
        }
    }

    fn message() -> PodMessage {
        let metadata = MetadataMessage {
            name: "train".to_owned(),
            namespace: "demo".to_owned(),
            uid: "u-1".to_owned(),
            creation_timestamp: Some(Time { seconds: 1_767_225_600 }),
            deletion_timestamp: Some(Time { seconds: 1_767_225_630 }),
            labels: map(&[("app", "x")]),
            annotations: map(&[("gpu-fraction", "0.5"), ("other", "y")]),
        };
        let spec = SpecMessage {
            containers: vec![container("main", "")],
            node_name: "n1".to_owned(),
            init_containers: vec![container("side", "Always")],
            runtime_class_name: "gvisor".to_owned(),
            ephemeral_containers: vec![EphemeralMessage {
                container: Some(container("debug", "")),
            }],
            resource_claims: vec![ClaimMessage { name: "gpu".to_owned(), claim: None }],
        };
        let running = StateMessage { running: Some(RunningMessage {}), terminated: None };
        let container_id = "containerd://c0".to_owned();
        let ended =
            StateMessage { running: None, terminated: Some(TerminatedMessage { container_id }) };
        let status = |name: &str| ContainerStatusMessage {
            name: name.to_owned(),
            state: Some(running.clone()),
            last_state: Some(ended.clone()),
            container_id: "containerd://c1".to_owned(),
        };
        let claim = Some("train-gpu-x".to_owned());
        let status = StatusMessage {
            phase: "Failed".to_owned(),
            start_time: Some(Time { seconds: 1_767_225_601 }),
            containers: vec![status("main")],
            init_containers: vec![status("side")],
            ephemeral_containers: vec![status("debug")],
            resource_claims: vec![ClaimStatusMessage { name: "gpu".to_owned(), claim }],
        };
        PodMessage { metadata: Some(metadata), spec: Some(spec), status: Some(status) }
    }

    #[test]
    fn pod_is_that_of_its_json() {
        let resources =
            r#""resources":{"limits":{"nvidia.com/gpu":"1","cpu":"1"},"claims":[{"name":"gpu"}]}"#;
        let state = r#""containerID":"containerd://c1","state":{"running":{}},"lastState":{"terminated":{"containerID":"containerd://c0"}}"#;
        let json = format!(
            r#"{{"metadata":{{"name":"train","namespace":"demo","uid":"u-1",
                "creationTimestamp":"2026-01-01T00:00:00Z","deletionTimestamp":"2026-01-01T00:00:30Z",
                "labels":{{"app":"x"}},"annotations":{{"gpu-fraction":"0.5","other":"y"}}}},
              "spec":{{"nodeName":"n1","runtimeClassName":"gvisor",
                "containers":[{{"name":"main",{resources}}}],
                "initContainers":[{{"name":"side","restartPolicy":"Always",{resources}}}],
                "ephemeralContainers":[{{"name":"debug",{resources}}}],
                "resourceClaims":[{{"name":"gpu"}}]}},
              "status":{{"phase":"Failed","startTime":"2026-01-01T00:00:01Z",
                "containerStatuses":[{{"name":"main",{state}}}],
                "initContainerStatuses":[{{"name":"side",{state}}}],
                "ephemeralContainerStatuses":[{{"name":"debug",{state}}}],
                "resourceClaimStatuses":[{{"name":"gpu","resourceClaimName":"train-gpu-x"}}]}}}}"#
        );
        let expected = pod::parse(json.as_bytes()).unwrap();
        assert_eq!(decode(&message().encode_to_vec()), DecodedPod::Pod(expected));
    }

    #[test]
    fn pod_without_an_identity_is_not_decoded() {
        let undecodable = |uid: &str| DecodedPod::Undecodable(uid.into());
        assert_eq!(decode(&[]), undecodable(""));
        assert_eq!(decode(&[0xff; 3]), undecodable(""));
        let mut message = message();
        message.metadata.get_or_insert_default().name.clear();
        assert_eq!(decode(&message.encode_to_vec()), undecodable("u-1"));
    }
}
