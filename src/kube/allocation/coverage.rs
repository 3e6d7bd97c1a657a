//! The pods with known allocations, and the devices that an init container can have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::DeviceMatch;
use super::resource::is_of_nvidia;
use super::{AllocationDoubt, AllocationJoin, AllocationProblem, pod_name};
use crate::kube::assignments::PodName;
use crate::kube::device_id::{self, DeviceId, DeviceName};
use crate::kube::pod::Pod;
use crate::kube::pod::container::{Container, ContainerKind};
use crate::model::AllocateMode;

/// The pods with known allocations.
#[derive(Clone, Debug, PartialEq)]
pub enum Coverage {
    /// No pod: the pod list is not complete yet, and a pod may have allocations that only its
    /// annotations contain.
    None,
    /// The pods in the kubelet's List, if no pod source is available.
    Listed(BTreeSet<PodName>),
    /// These pods of the pod list.
    Pods {
        /// Their UIDs: they request no GPUs, or the kubelet's List has all their devices.
        known: BTreeSet<Arc<str>>,
        /// Whether the allocations of another pod of the list are unknown: it may have any device
        /// that is not exclusively allocated.
        unknown_holders: bool,
    },
}

impl Default for Coverage {
    fn default() -> Self {
        Self::Pods { known: BTreeSet::new(), unknown_holders: false }
    }
}

impl AllocationJoin<'_> {
    /// The pods with known allocations. Call it after the candidates are complete.
    pub(super) fn coverage(&mut self) -> Coverage {
        let assignments = self.assignments;
        let Some(pods) = self.pods else { return Coverage::Listed(assignments.pods.clone()) };
        if !pods.synced {
            return Coverage::None;
        }
        let retained = |(namespace, name): &PodName| {
            assignments.containers.iter().any(|c| c.namespace == *namespace && c.pod == *name)
        };
        let allocated: BTreeSet<_> = self
            .candidates
            .iter()
            .filter(|(_, allocation)| allocation.confirmed)
            .map(|(_, allocation)| Arc::clone(&allocation.container.pod.uid))
            .collect();
        // While the API server is down, there may be pods that no source has.
        let (mut known, mut unknown_holders) = (BTreeSet::new(), !pods.is_current());
        let mut initializing = Vec::new();
        for pod in pods.iter().map(|tracked| &tracked.pod) {
            let name = pod_name(&pod.id);
            if pod.has_ended() || !pod.requests_gpus() {
                known.insert(Arc::clone(&pod.id.uid));
                continue;
            }
            let unlisted = pod.unlisted_resources();
            if !unlisted.is_empty() {
                initializing.push((pod, unlisted));
            } else if self.lists_all_requests(pod) {
                known.insert(Arc::clone(&pod.id.uid));
            } else if !allocated.contains(&pod.id.uid)
                && (self.may_hold_any(&name) || !retained(&name) && !self.has_doubt(&name))
            {
                unknown_holders = true;
                self.count_problem(AllocationProblem::UnlistedPod);
            }
        }
        // A device that the List lacks may be that of another pod, if the List lacks one.
        if !unknown_holders {
            for (pod, resources) in &initializing {
                self.add_init_candidates(pod, resources);
            }
        }
        let unknown_holders = unknown_holders || !initializing.is_empty();
        Coverage::Pods { known, unknown_holders }
    }

    fn has_doubt(&self, name: &PodName) -> bool {
        self.result.completeness.doubts.contains_key(name)
    }

    /// Whether the List lacks a pod, and what it has or is retained of its name may be that of a predecessor.
    fn may_hold_any(&self, name: &PodName) -> bool {
        let doubts = self.result.completeness.doubts.get(name);
        let is_ambiguous = doubts.is_some_and(|doubts| doubts.contains(&AllocationDoubt::Any));
        is_ambiguous && !self.assignments.pods.contains(name)
            || self.assignments.unlisted.contains_key(name)
    }

    /// Whether the kubelet's List has a pod with all of its containers that request GPUs or use claims.
    fn lists_all_requests(&self, pod: &Pod) -> bool {
        let name = pod_name(&pod.id);
        let is_assigned = |container: &Container| {
            let mut assigned = self.assignments.containers.iter().filter(|assigned| {
                assigned.container == container.name
                    && (&assigned.namespace, &assigned.pod) == (&name.0, &name.1)
            });
            assigned.any(|assigned| container.claims.is_empty() || !assigned.claims.is_empty())
        };
        let requests = |c: &Container| c.requests_gpu() || !c.claims.is_empty();
        let is_listable = |container: &&Container| match container.kind {
            ContainerKind::App => true,
            ContainerKind::Init { restartable } => restartable,
            ContainerKind::Ephemeral => false,
        };
        let mut requesting = pod.containers.iter().filter(is_listable);
        self.assignments.pods.contains(&name)
            && !self.assignments.unlisted.contains_key(&name)
            && requesting.all(|container| !requests(container) || is_assigned(container))
    }

    /// Records the devices of `resources` that the kubelet can have allocated to an init container:
    /// those that it lists for no container.
    fn add_init_candidates(&mut self, pod: &Pod, resources: &BTreeSet<&str>) {
        let assignments = self.assignments;
        let device_match = |resource: &str, id: &str| match device_id::parse(id) {
            DeviceId::Device { name: DeviceName::OnlyGpu, .. } if !is_of_nvidia(resource) => None,
            DeviceId::Device { name, replica } => Some((self.index.by_name(name), replica)),
            DeviceId::SharedUnit { .. } | DeviceId::Pci | DeviceId::Unknown => None,
        };
        let (mut listed, mut divided) = (BTreeSet::new(), BTreeSet::new());
        let devices = assignments.containers.iter().flat_map(|container| &container.devices);
        for (name, id) in devices.flat_map(|(name, ids)| ids.iter().map(move |id| (name, id))) {
            match device_match(name, id) {
                Some((DeviceMatch::Found(device), replica)) => {
                    listed.insert((device.uuid, replica));
                }
                // It may be any of its MIG devices.
                Some((DeviceMatch::PartitionOf(gpu), _)) => {
                    divided.extend(self.index.with_partitions(gpu));
                }
                Some((DeviceMatch::Unknown, _)) | None => {}
            }
        }
        let allocatable = assignments.allocatable.iter();
        let allocatable = allocatable.filter(|(resource, _)| resources.contains(&***resource));
        let free = allocatable
            .flat_map(|(name, ids)| ids.iter().filter_map(|id| device_match(name, id)))
            .filter_map(|(found, replica)| match found {
                DeviceMatch::Found(device) => Some((device.uuid, replica)),
                DeviceMatch::PartitionOf(_) | DeviceMatch::Unknown => None,
            })
            .filter(|device| !listed.contains(device) && !divided.contains(&**device.0))
            .map(|(uuid, replica)| {
                let shared = replica.is_some();
                let mode = if shared { AllocateMode::Share } else { AllocateMode::Exclusive };
                (Arc::clone(uuid), mode)
            });
        let candidates: BTreeMap<_, _> = free.collect();
        let is_init = |container: &&Container| {
            container.kind == (ContainerKind::Init { restartable: false })
                && container.resources.keys().any(|resource| resources.contains(&**resource))
        };
        for container in pod.containers.iter().filter(is_init) {
            let key = (pod_name(&pod.id), Arc::clone(&container.name));
            self.result.completeness.init_candidates.insert(key, candidates.clone());
        }
    }
}
