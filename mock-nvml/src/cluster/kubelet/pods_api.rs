//! Methods of the kubelet's `Pods` service.

use prost::Message;
use serde_json::Value;

use super::GrpcStatus;
use super::pod_message::{apply_mask, encode};

const INVALID_ARGUMENT: u8 = 3;
const NOT_FOUND: u8 = 5;

/// A method of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodsMethod {
    List,
    Watch,
    Get,
}

/// The types of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added = 1,
    Modified = 2,
    Deleted = 3,
    InitialSyncComplete = 4,
}

/// `WatchPodsEvent`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchPodsEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) pod: Vec<u8>,
}

/// `ListPodsResponse`
#[derive(Clone, PartialEq, Message)]
struct ListPodsResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pods: Vec<Vec<u8>>,
}

/// `GetPodRequest`
#[derive(Clone, PartialEq, Message)]
struct GetPodRequest {
    #[prost(string, tag = "1")]
    uid: String,
}

/// `GetPodResponse`
#[derive(Clone, PartialEq, Message)]
struct GetPodResponse {
    #[prost(bytes = "vec", tag = "1")]
    pod: Vec<u8>,
}

impl PodsMethod {
    /// The method with this path in the version `version` of the service.
    pub(crate) fn parse(path: &str, version: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?.strip_prefix(version)?;
        match path.strip_prefix(".Pods/")? {
            "ListPods" => Some(Self::List),
            "WatchPods" => Some(Self::Watch),
            "GetPod" => Some(Self::Get),
            _ => None,
        }
    }
}

/// The encoded response of `ListPods`.
pub(crate) fn list(pods: &[Value], mask: Option<&str>) -> Vec<u8> {
    let pods = pods.iter().map(|pod| masked(pod, mask)).collect();
    ListPodsResponse { pods }.encode_to_vec()
}

/// The encoded response of `GetPod`.
///
/// # Errors
/// No pod has this UID, or the request is malformed.
pub(crate) fn get(
    pods: &[Value],
    request: &[u8],
    mask: Option<&str>,
) -> Result<Vec<u8>, GrpcStatus> {
    let wanted =
        GetPodRequest::decode(request).map_err(|error| (INVALID_ARGUMENT, error.to_string()))?.uid;
    let pod = pods.iter().find(|pod| uid(pod) == wanted);
    let pod = pod.ok_or_else(|| (NOT_FOUND, format!("pod with UID {wanted} not found")))?;
    Ok(GetPodResponse { pod: masked(pod, mask) }.encode_to_vec())
}

/// An encoded event. A removed pod has only its names.
pub(crate) fn event(kind: EventKind, pod: Option<&Value>, mask: Option<&str>) -> Vec<u8> {
    let names = Some("metadata.uid,metadata.namespace,metadata.name");
    let mask = if kind == EventKind::Deleted { names } else { mask };
    let pod = pod.map(|pod| masked(pod, mask)).unwrap_or_default();
    WatchPodsEvent { kind: kind as i32, pod }.encode_to_vec()
}

/// The events that lead from the pods `before` to the pods `now`.
pub(crate) fn changes(before: &[Value], now: &[Value], mask: Option<&str>) -> Vec<Vec<u8>> {
    let find = |pods: &[Value], pod: &Value| pods.iter().position(|other| uid(other) == uid(pod));
    let deleted = before.iter().filter(|pod| find(now, pod).is_none());
    let mut events: Vec<_> =
        deleted.map(|pod| event(EventKind::Deleted, Some(pod), mask)).collect();
    for pod in now {
        match find(before, pod).and_then(|at| before.get(at)) {
            None => events.push(event(EventKind::Added, Some(pod), mask)),
            Some(old) if old != pod => events.push(event(EventKind::Modified, Some(pod), mask)),
            Some(_) => {}
        }
    }
    events
}

fn masked(pod: &Value, mask: Option<&str>) -> Vec<u8> {
    match mask {
        Some(mask) => encode(&apply_mask(pod, mask)),
        None => encode(pod),
    }
}

fn uid(pod: &Value) -> &str {
    pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
}
