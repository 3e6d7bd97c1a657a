//! Reasons why an allocation of the cluster is not accepted.

/// A reason, of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllocationProblem {
    /// A device is not on this node, or its id has no known format, or a MIG device is not as an
    /// annotation describes it.
    UnknownDevice,
    /// Several pods match a name.
    AmbiguousPod,
    /// A pod that may hold devices is not in the kubelet's List, and its allocation, or whether it still
    /// exists, is unknown.
    UnlistedPod,
    /// A pod is not in the pod list.
    UnknownPod,
    /// The pod has no container of that name, or several containers match.
    NoContainer,
    /// An annotation does not have the format of its scheduler.
    InvalidAnnotation,
    /// An annotation refers to a container or GPU index that cannot exist.
    InvalidIndex,
    /// An annotation allocates more than the device has, or another amount than the kubelet.
    InvalidAmount,
    /// Units of a shared GPU are allocated, and no annotation contains the device (yet).
    NoAnnotation,
    /// An annotation allocates a GPU to a container that has no unit of the scheduler's resource,
    /// according to the kubelet. Annotations are not trusted: every creator of a pod may write them.
    UnrequestedAnnotation,
    /// An annotation allocates a device that the kubelet has allocated otherwise.
    ContradictedAnnotation,
    /// A device is allocated to two containers or, by annotations, to two pods that cannot share it.
    ContestedDevice,
    /// More memory of a device is allocated than it has.
    Overcommitted,
    /// A claimed device is in no resource slice.
    NoSlice,
    /// A device is claimed, and there is no API server to read resource slices and claims from.
    NoApiServer,
    /// A replica of a device is allocated, and it is not certain whether it is one of time-slicing or
    /// of MPS, or how many replicas there are.
    UnknownReplica,
    /// A pod is in a GPU group of which no reservation pod is known to hold a GPU.
    NoReservation,
    /// The reservation pod of a GPU group does not hold exactly one whole GPU, or holds another one
    /// than its annotation names, or the group has several.
    InvalidReservation,
    /// A reservation pod holds a GPU, and no pod of its group is known.
    NoMember,
    /// A resource claim has not been read, or is not reserved for the pod that uses it.
    UnreadClaim,
}

impl AllocationProblem {
    /// Label value of this reason.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownDevice => "unknown_device",
            Self::AmbiguousPod => "ambiguous_pod",
            Self::UnlistedPod => "unlisted_pod",
            Self::UnknownPod => "unknown_pod",
            Self::NoContainer => "no_container",
            Self::InvalidAnnotation => "invalid_annotation",
            Self::InvalidIndex => "invalid_index",
            Self::InvalidAmount => "invalid_amount",
            Self::NoAnnotation => "no_annotation",
            Self::UnrequestedAnnotation => "unrequested_annotation",
            Self::ContradictedAnnotation => "contradicted_annotation",
            Self::ContestedDevice => "contested_device",
            Self::Overcommitted => "overcommitted",
            Self::NoSlice => "no_slice",
            Self::NoApiServer => "no_api_server",
            Self::UnknownReplica => "unknown_replica",
            Self::NoReservation => "no_reservation",
            Self::InvalidReservation => "invalid_reservation",
            Self::NoMember => "no_member",
            Self::UnreadClaim => "unread_claim",
        }
    }
}
