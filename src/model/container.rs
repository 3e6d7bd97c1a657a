//! Pods and their containers.

use std::sync::Arc;

/// Identity of a pod. The name alone is not unique over time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.uid` as the API server, or the kubelet's pod list, returns it.
    pub uid: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerIdentity {
    /// The pod.
    pub pod: PodRef,
    /// The container's name.
    pub name: Arc<str>,
}

impl ContainerIdentity {
    /// Whether both are the same container. Pods are compared by UID and name, or by name alone if
    /// one UID is empty: the kubelet lists pods without UIDs.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.is_in_pod_of(other) && self.name == other.name
    }

    /// Whether both containers are in the same pod; pods are compared as in [`Self::matches`].
    #[must_use]
    pub fn is_in_pod_of(&self, other: &Self) -> bool {
        let (one, two) = (&self.pod, &other.pod);
        if one.uid.is_empty() || two.uid.is_empty() {
            return one.name == two.name && one.namespace == two.namespace;
        }
        one.uid == two.uid
    }

    /// Namespace, pod and container.
    #[must_use]
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.pod.namespace, &self.pod.name, &self.name)
    }
}
