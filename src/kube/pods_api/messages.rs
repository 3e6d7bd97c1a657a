//! The protobuf messages of the kubelet's `Pods` service, with the fields that are read.

use bytes::Bytes;
use prost::Message;

use crate::kube::pod::Pod;
use crate::kube::pod::protobuf::{self, DecodedPod};

/// An event of `WatchPods`.
#[derive(Clone, PartialEq, Message)]
pub struct WatchPodsEvent {
    /// See [`PodEvent`].
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The encoded pod.
    #[prost(bytes = "bytes", tag = "2")]
    pub pod: Bytes,
}

/// The response of `ListPods`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodsResponse {
    /// The encoded pods.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub pods: Vec<Bytes>,
}

/// A decoded event.
#[derive(Debug, PartialEq)]
pub enum PodEvent {
    /// A pod is in this state (`ADDED`, `MODIFIED`).
    Applied(DecodedPod),
    /// The pod with this UID was removed.
    Deleted(Box<str>),
    /// All pods that existed when the watch began have been sent.
    Synced,
    /// An event of another type, or the removal of a pod that cannot be decoded.
    Unknown,
}

impl WatchPodsEvent {
    /// Decodes the event.
    #[must_use]
    pub fn decode_pod(&self) -> PodEvent {
        match self.kind {
            1 | 2 => PodEvent::Applied(protobuf::decode(&self.pod)),
            3 => match protobuf::decode(&self.pod) {
                DecodedPod::Pod(Pod { id, .. }) => PodEvent::Deleted((*id.uid).into()),
                DecodedPod::Undecodable(uid) if !uid.is_empty() => PodEvent::Deleted(uid),
                DecodedPod::Undecodable(_) => PodEvent::Unknown,
            },
            4 => PodEvent::Synced,
            _ => PodEvent::Unknown,
        }
    }
}
