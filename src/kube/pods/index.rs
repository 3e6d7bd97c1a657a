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
    pub(super) containers: HashMap<Arc<str>, (Arc<TrackedPod>, Arc<str>)>,
    pub(super) names: HashMap<PodName, Vec<Arc<TrackedPod>>>,
    pub(super) tombstones: HashMap<Arc<str>, Tombstone>,
}

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
        for container in &pod.containers {
            for id in &container.ids {
                self.add_container(id, tracked, &container.name);
            }
        }
        for (id, name) in &tracked.earlier {
            self.add_container(id, tracked, name);
        }
        let name = (Arc::clone(&pod.id.namespace), Arc::clone(&pod.id.name));
        self.names.entry(name).or_default().push(Arc::clone(tracked));
    }

    fn add_container(&mut self, id: &Arc<str>, tracked: &Arc<TrackedPod>, name: &Arc<str>) {
        self.containers.insert(Arc::clone(id), (Arc::clone(tracked), Arc::clone(name)));
    }
}
