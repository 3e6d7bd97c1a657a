//! The kind of a process' owner in the view of the node.

use serde::{Deserialize, Serialize};

/// What a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// A container of a pod.
    Container,
    /// The host.
    Host,
    /// A container without a pod.
    ContainerWithoutPod,
    /// Unknown.
    Unknown,
}
