//! The lookup tables of a snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::TrackedPod;
use crate::kube::assignments::PodName;
use crate::model::PodRef;

/// Pods by UID, container id and name.
#[derive(Debug, Default)]
pub(super) struct PodIndex {
    pub(super) pods: HashMap<Arc<str>, Arc<TrackedPod>>,
    /// Static pods by the UID in their cgroup path; None if several pods have the same.
    pub(super) hashes: HashMap<Arc<str>, Option<Arc<TrackedPod>>>,
    /// Pod and container name by container id; None if several pods or containers state it.
    pub(super) containers: HashMap<Arc<str>, Option<NamedContainer>>,
    pub(super) names: HashMap<PodName, Vec<Arc<TrackedPod>>>,
    pub(super) tombstones: HashMap<Arc<str>, Tombstone>,
}

/// A pod and the name of one of its containers.
pub(super) type NamedContainer = (Arc<TrackedPod>, Arc<str>);

/// A deleted pod.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) id: PodRef,
    pub(super) hash: Option<Arc<str>>,
    pub(super) gpu_group: Option<Box<str>>,
    pub(super) ended: Duration,
    pub(super) at: Duration,
}

impl PodIndex {
    pub(super) fn add(&mut self, uid: &Arc<str>, tracked: &Arc<TrackedPod>) {
        let pod = &tracked.pod;
        self.pods.insert(Arc::clone(uid), Arc::clone(tracked));
        if let Some(hash) = &pod.config_hash {
            self.hashes
                .entry(Arc::clone(hash))
                .and_modify(|claimed| *claimed = None)
                .or_insert_with(|| Some(Arc::clone(tracked)));
        }
        for (id, name) in tracked.container_ids() {
            self.containers
                .entry(Arc::clone(id))
                .and_modify(|stated| {
                    let is_same = |(other, container): &NamedContainer| {
                        Arc::ptr_eq(other, tracked) && container == name
                    };
                    if !stated.as_ref().is_some_and(is_same) {
                        *stated = None;
                    }
                })
                .or_insert_with(|| Some((Arc::clone(tracked), Arc::clone(name))));
        }
        let name = (Arc::clone(&pod.id.namespace), Arc::clone(&pod.id.name));
        self.names.entry(name).or_default().push(Arc::clone(tracked));
    }
}
