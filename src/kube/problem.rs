//! Why something that the cluster says of devices could not be taken at its word.

/// A reason, of a fixed and finite set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// A device is named that is not on this node, or an id has no known form.
    UnknownDevice,
    /// More than one pod may be meant by a name.
    AmbiguousPod,
    /// A pod that may hold devices is not named by the kubelet's List, and it is not known what it was
    /// allocated, or whether it still exists.
    UnlistedPod,
    /// A pod is named that the pods' source does not know.
    UnknownPod,
    /// The pod has no container of that name, or more than one could be meant.
    NoContainer,
    /// An annotation is not of the form that its scheduler writes.
    BrokenAnnotation,
    /// An annotation speaks of a container or GPU that cannot be.
    AbsurdIndex,
    /// An annotation gives more than there is.
    AbsurdAmount,
    /// Units of divided GPUs were given, and no annotation tells which.
    NoAnnotation,
    /// An annotation gives what its pod never asked for: anybody may write annotations.
    UnaskedAnnotation,
    /// An annotation gives a device that the kubelet says was given whole to another.
    ContradictedAnnotation,
    /// One device was given to two that cannot both have it.
    ContestedDevice,
    /// More memory of a device was given than it has.
    Overcommitted,
    /// A claimed device of which no slice tells what it is.
    NoSlice,
}

impl Problem {
    /// The fixed label of this reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownDevice => "unknown_device",
            Self::AmbiguousPod => "ambiguous_pod",
            Self::UnlistedPod => "unlisted_pod",
            Self::UnknownPod => "unknown_pod",
            Self::NoContainer => "no_container",
            Self::BrokenAnnotation => "broken_annotation",
            Self::AbsurdIndex => "absurd_index",
            Self::AbsurdAmount => "absurd_amount",
            Self::NoAnnotation => "no_annotation",
            Self::UnaskedAnnotation => "unasked_annotation",
            Self::ContradictedAnnotation => "contradicted_annotation",
            Self::ContestedDevice => "contested_device",
            Self::Overcommitted => "overcommitted",
            Self::NoSlice => "no_slice",
        }
    }
}
