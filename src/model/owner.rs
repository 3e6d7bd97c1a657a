//! Owners of processes.

use super::{ContainerIdentity, Discard};

/// Owner of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container of a pod of this node.
    Container(ContainerIdentity),
    /// The host: the process is in no container.
    Host,
    /// A container without a pod.
    NonPodContainer,
    /// The owner is unknown, or not known yet.
    Unknown(Unresolved),
}

/// Why a process has no known owner, or no family yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unresolved {
    /// The cgroup lines name different pods, or the container is one of another pod.
    Conflict,
    /// No source has the pod (yet).
    NoPod,
    /// The pod ended or was deleted recently; its processes are about to exit.
    Deleted,
    /// Two pods have the UID.
    Ambiguous,
    /// The pod is known, but not (yet) which of its containers it is.
    NoContainer,
    /// No permission to read the `/proc` entry.
    Denied,
    /// The `/proc` entry cannot be read or parsed.
    Unreadable,
    /// The driver lists the process, but `/proc` has no entry for it, or it is a zombie.
    Exited,
    /// The entry in the driver's list is invalid.
    Invalid,
    /// It is not known (yet) whether the device is allocated to the container.
    Allocation,
    /// An MPS server. It works for its clients.
    MpsServer,
}

impl Owner {
    /// The container, if the owner is one of a pod.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerIdentity> {
        match self {
            Self::Container(container) => Some(container),
            Self::Host | Self::NonPodContainer | Self::Unknown(_) => None,
        }
    }

    /// The kind of owner.
    #[must_use]
    pub fn kind(&self) -> OwnerKind {
        match self {
            Self::Container(_) => OwnerKind::Container,
            Self::Host => OwnerKind::Host,
            Self::NonPodContainer => OwnerKind::ContainerWithoutPod,
            Self::Unknown(_) => OwnerKind::Unknown,
        }
    }
}

/// A kind of owner.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
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

impl OwnerKind {
    /// Value of the `result` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
            Self::ContainerWithoutPod => "container_without_pod",
            Self::Unknown => "unknown",
        }
    }
}

impl Unresolved {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Conflict,
        Self::NoPod,
        Self::Deleted,
        Self::Ambiguous,
        Self::NoContainer,
        Self::Denied,
        Self::Unreadable,
        Self::Exited,
        Self::Invalid,
        Self::Allocation,
        Self::MpsServer,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::NoPod => "no_pod",
            Self::Deleted => "deleted",
            Self::Ambiguous => "ambiguous",
            Self::NoContainer => "no_container",
            Self::Denied => "denied",
            Self::Unreadable => "unreadable",
            Self::Exited => "exited",
            Self::Invalid => "invalid",
            Self::Allocation => "allocation",
            Self::MpsServer => "mps_server",
        }
    }
}

impl From<Discard> for Unresolved {
    fn from(discard: Discard) -> Self {
        match discard {
            Discard::Denied => Self::Denied,
            Discard::Unreadable => Self::Unreadable,
            Discard::Gone | Discard::Zombie => Self::Exited,
            Discard::Pid
            | Discard::Duplicate
            | Discard::OldStamp
            | Discard::FutureStamp
            | Discard::Percentage
            | Discard::Memory => Self::Invalid,
        }
    }
}

/// How an owner was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerEvidence {
    /// From the cgroup alone: the host, or a container without a pod.
    Cgroup,
    /// The pod status contains the container id.
    Status,
    /// It is the only container of the pod; or of a sandboxed pod, the only one that holds the device.
    Inferred,
    /// From the names of the kubelet's log directories and links.
    Logs,
}

impl OwnerEvidence {
    /// All kinds of evidence.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Status, Self::Inferred, Self::Logs];

    /// Value of the `source` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Status => "status",
            Self::Inferred => "inferred",
            Self::Logs => "logs",
        }
    }
}

/// Class of owner that the use of a device is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerClass {
    /// Containers of pods.
    Container,
    /// Host processes, and containers without a pod.
    Host,
    /// An MPS server itself: its memory is not distributed over its clients.
    MpsServer,
    /// The owner is unknown, or the process list is incomplete.
    Unknown,
    /// No process.
    None,
}

impl OwnerClass {
    /// Classes that the energy of a device is divided by.
    pub const OF_ENERGY: [Self; 4] = [Self::Container, Self::Host, Self::None, Self::Unknown];

    /// Value of the `owner` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
            Self::MpsServer => "mps_server",
            Self::Unknown => "unknown",
            Self::None => "none",
        }
    }
}

impl From<&Owner> for OwnerClass {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Container(_) => Self::Container,
            Owner::Host | Owner::NonPodContainer => Self::Host,
            Owner::Unknown(_) => Self::Unknown,
        }
    }
}
