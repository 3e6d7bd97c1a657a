//! Immutable snapshots of the pods of this node, and lookups in them.

mod index;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use self::index::{PodIndex, Tombstone};
use super::pod::Pod;
use super::pod::container::Container;
use super::source::{FailureReason, HealthTracker, SourceState};
use crate::model::PodRef;

/// The pods of this node at one time. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PodSnapshot {
    /// Whether a complete list was received. Only then does a missing pod not exist.
    pub synced: bool,
    /// Health of the source. While it is down, its last data is kept.
    pub health: HealthTracker,
    /// Whether all objects of pods were decoded. If not, the state of a pod is unknown.
    pub decoded: bool,
    index: Arc<PodIndex>,
}

/// A pod, and its state from earlier lists and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedPod {
    /// The newest version of the pod.
    pub pod: Pod,
    /// When it was first received (monotonic).
    pub first_seen: Duration,
    /// When its annotations and GPU groups became what they are now (monotonic); zero if the first list had them.
    pub annotated: Duration,
    /// Whether they may have been so for longer: a list after a gap, or the first list, had them.
    pub annotated_in_gap: bool,
    /// When it was first received as ended ([`Pod::has_ended`]).
    pub ended: Option<Duration>,
    /// Whether the newest list contains it. False only for a source with incomplete lists
    /// (`keep_unlisted` of [`PodStore`](store::PodStore)).
    pub listed: bool,
    /// Container ids that are no longer in its status, with the container's name; newest first.
    earlier: Vec<(Arc<str>, Arc<str>)>,
}

/// Result of a lookup by UID.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UidLookup<'a> {
    /// A pod of this node.
    Live(&'a TrackedPod),
    /// The pod was deleted recently ([`POD_OUTLIVED_MAX`](crate::policy::POD_OUTLIVED_MAX)).
    Deleted(&'a PodRef),
    /// Several pods have this config hash.
    Ambiguous,
    /// No pod with this UID.
    Unknown,
}

/// Result of a lookup by namespace and name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NameLookup<'a> {
    /// Exactly one pod.
    One(&'a TrackedPod),
    /// Several pods; the name is ambiguous.
    Ambiguous,
    /// No pod; the last one with this name was deleted recently ([`POD_OUTLIVED_MAX`](crate::policy::POD_OUTLIVED_MAX)).
    Deleted(&'a PodRef),
    /// No pod with this name.
    Unknown,
}

/// Result of a lookup by container id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ContainerLookup<'a> {
    /// The pod and the name of its container with this id, of the current run or an earlier one.
    One(&'a TrackedPod, &'a Arc<str>),
    /// Several containers have this id.
    Ambiguous,
    /// No container has this id.
    Unknown,
}

impl PodSnapshot {
    /// The state before the first response of the source.
    #[must_use]
    pub fn unknown(source: &'static str) -> Self {
        Self {
            synced: false,
            health: HealthTracker::new(source),
            decoded: true,
            index: Arc::default(),
        }
    }

    /// The pod with this UID in the API, or in its cgroup path if it is a static pod.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> UidLookup<'_> {
        let index = &*self.index;
        if let Some(tracked) = index.pods.get(uid) {
            return UidLookup::Live(tracked);
        }
        match index.hashes.get(uid) {
            Some(Some(tracked)) => UidLookup::Live(tracked),
            Some(None) => UidLookup::Ambiguous,
            None => {
                index.tombstones.get(uid).map_or(UidLookup::Unknown, |t| UidLookup::Deleted(&t.id))
            }
        }
    }

    /// The container with this id in the status of its pod.
    #[must_use]
    pub fn by_container(&self, id: &str) -> ContainerLookup<'_> {
        match self.index.containers.get(id) {
            Some(Some((tracked, name))) => ContainerLookup::One(tracked, name),
            Some(None) => ContainerLookup::Ambiguous,
            None => ContainerLookup::Unknown,
        }
    }

    /// The pod with this namespace and name.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> NameLookup<'_> {
        let index = &*self.index;
        match index.names.get(&(namespace.into(), name.into())).map(Vec::as_slice) {
            Some([one]) => NameLookup::One(one),
            Some([_, _, ..]) => NameLookup::Ambiguous,
            Some([]) | None => index
                .tombstones
                .values()
                .find(|t| &*t.id.namespace == namespace && &*t.id.name == name)
                .map_or(NameLookup::Unknown, |t| NameLookup::Deleted(&t.id)),
        }
    }

    /// When the pod with this UID ended, or was deleted without an observed end (monotonic). None
    /// if neither has happened.
    #[must_use]
    pub fn ended(&self, uid: &str) -> Option<Duration> {
        match self.by_uid(uid) {
            UidLookup::Live(tracked) => tracked.ended,
            UidLookup::Deleted(_) => self.index.tombstones.get(uid).map(|t| t.ended),
            UidLookup::Ambiguous | UidLookup::Unknown => None,
        }
    }

    /// When a pod of this name was last deleted (monotonic).
    #[must_use]
    pub fn name_deleted_at(&self, namespace: &str, name: &str) -> Option<Duration> {
        let tombstones = self.index.tombstones.values();
        tombstones
            .filter(|t| &*t.id.namespace == namespace && &*t.id.name == name)
            .map(|t| t.at)
            .max()
    }

    /// When a pod of this GPU group was last deleted in one of these namespaces (monotonic).
    #[must_use]
    pub fn group_deleted_at(&self, group: &str, namespaces: &[Box<str>]) -> Option<Duration> {
        let is_in_group = |t: &&Tombstone| {
            t.gpu_group.as_deref() == Some(group)
                && namespaces.iter().any(|namespace| **namespace == *t.id.namespace)
        };
        self.index.tombstones.values().filter(is_in_group).map(|t| t.at).max()
    }

    /// All pods, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = &TrackedPod> {
        self.index.pods.values().map(|tracked| &**tracked)
    }

    /// Whether both are clones of one snapshot.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
    }

    /// Whether it contains all pods of the node as they are now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.synced && self.decoded && self.health.state == SourceState::Up
    }

    /// Whether pods that are missing are expected once the source responds. A source that denies
    /// access, or has no usable address, does not respond before its configuration is changed.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let refused = [FailureReason::Denied, FailureReason::Config].map(SourceState::Down);
        !refused.contains(&self.health.state)
    }

    /// Number of pods.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.pods.len()
    }

    /// Whether there are no pods.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TrackedPod {
    /// The container of this name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.pod.containers.iter().find(|container| &*container.name == name)
    }

    /// The container ids of its status, and of earlier ones, with the name of the container.
    fn container_ids(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let containers = self.pod.containers.iter();
        let current = containers.flat_map(|c| c.ids.iter().map(|id| (id, &c.name)));
        current.chain(self.earlier.iter().map(|(id, name)| (id, name)))
    }

    /// The container of this pod with this id, whatever other pods state.
    #[must_use]
    pub fn by_container(&self, id: &str) -> ContainerLookup<'_> {
        let mut names =
            self.container_ids().filter(|(other, _)| &***other == id).map(|(_, name)| name);
        match names.next() {
            Some(name) if names.all(|other| other == name) => ContainerLookup::One(self, name),
            Some(_) => ContainerLookup::Ambiguous,
            None => ContainerLookup::Unknown,
        }
    }
}
