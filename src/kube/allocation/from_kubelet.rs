//! Allocations of the kubelet: ids of devices and units of shared GPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::from_claims::Claimants;
use super::index::DeviceMatch;
use super::replicas::ReplicaShare;
use super::resolved_container::{AssignedDevice, LocatedContainer, ResolvedContainer};
use super::resource::{is_nvidia_resource, is_of_nvidia, is_shared_by_scheduler};
use super::{AllocationDoubt, AllocationJoin, AllocationProblem, pod_name};
use crate::kube::assignments::{Assignments, ContainerAssignment, PodName};
use crate::kube::device_id::{self, DeviceId, DeviceName};
use crate::kube::pod::container::Container;
use crate::kube::pods::{NameLookup, TrackedPod, UidLookup};
use crate::model::{ContainerIdentity, DeviceAllocation, PodRef};
use crate::policy;

/// Pod and container name.
pub(super) type ContainerKey = (PodRef, Arc<str>);

/// Containers with allocations of the kubelet.
#[derive(Debug, Default)]
pub(super) struct AssignedContainers {
    /// Containers with ids or claims that identify their devices.
    pub(super) with_devices: BTreeSet<ContainerKey>,
    /// Containers with units of shared GPUs: the number of units by resource.
    pub(super) with_units: BTreeMap<ContainerKey, BTreeMap<Box<str>, u32>>,
}

impl AllocationJoin<'_> {
    pub(super) fn join_assignments(&mut self) -> AssignedContainers {
        let mut assigned_containers = AssignedContainers::default();
        let assignments = self.assignments;
        let containers = assignments.containers.iter();
        let located: Vec<LocatedContainer<'_>> =
            containers.map(|assigned| (assigned, self.find_pod(assigned))).collect();
        self.request_claims(&located);
        let claimants = self.claimants(&located);
        for (assigned, located) in &located {
            let resolved = self.resolve(assigned, located.as_ref().ok(), &claimants);
            if resolved.is_empty() {
                continue;
            }
            if let Ok(Some(pod)) = located {
                self.mark_replaced(pod, assigned);
            }
            match located {
                Ok(Some(pod)) if self.is_reservation(pod) => self.add_reservation(pod, &resolved),
                Ok(Some(pod)) => self.add_candidates(
                    pod,
                    &assigned.container,
                    resolved,
                    &mut assigned_containers,
                ),
                Ok(None) => {}
                Err(problem) => {
                    let pod = (Arc::clone(&assigned.namespace), Arc::clone(&assigned.pod));
                    self.hidden_reservation |= self.options.is_reservation_namespace(&pod.0);
                    self.mark_all_unknown(&pod, &resolved, *problem);
                }
            }
        }
        assigned_containers
    }

    /// A List that is newer than a pod may still be about a predecessor with containers that end: what it lists is that
    /// of containers that were seen before it. The predecessor was deleted lately, or it is not known that the pod
    /// has started.
    fn mark_replaced(&mut self, pod: &PodRef, assigned: &ContainerAssignment) {
        let Some(pods) = self.pods else { return };
        let ContainerAssignment { namespace, pod: name, container, .. } = assigned;
        let requested_at = self.assignments.requested_at;
        let deleted_at = pods.name_deleted_at(namespace, name);
        let is_started = match pods.by_uid(&pod.uid) {
            UidLookup::Live(tracked) => {
                tracked.container(container).is_none_or(|container| !container.ids.is_empty())
            }
            UidLookup::Deleted(_) | UidLookup::Ambiguous | UidLookup::Unknown => true,
        };
        if !is_started || deleted_at.is_some_and(|at| requested_at < at + policy::POD_END_MAX) {
            let name = (Arc::clone(namespace), Arc::clone(name));
            self.result.completeness.unlisted.entry(name).or_insert(requested_at);
        }
    }

    /// The pod of an assignment; None if it has ended and has no devices any more.
    fn find_pod(
        &self,
        assigned: &ContainerAssignment,
    ) -> Result<Option<PodRef>, AllocationProblem> {
        let ContainerAssignment { namespace, pod: name, .. } = assigned;
        let by_name = || {
            let (namespace, name) = (Arc::clone(namespace), Arc::clone(name));
            Ok(Some(PodRef { uid: "".into(), namespace, name }))
        };
        // An ended pod and its successor.
        if self.assignments.ambiguous.contains(&(Arc::clone(namespace), Arc::clone(name))) {
            return Err(AllocationProblem::AmbiguousPod);
        }
        let Some(pods) = self.pods else { return by_name() };
        let requested_at = self.assignments.requested_at;
        let deleted_at = pods.name_deleted_at(namespace, name);
        match pods.by_name(namespace, name) {
            // The List may be about the deleted pod with this name.
            NameLookup::One(_)
                if deleted_at.is_some_and(|deleted_at| deleted_at >= requested_at) =>
            {
                Err(AllocationProblem::AmbiguousPod)
            }
            NameLookup::One(tracked) if tracked.pod.has_ended() => Ok(None),
            NameLookup::One(tracked) if self.is_older(tracked) => {
                Err(AllocationProblem::AmbiguousPod)
            }
            NameLookup::One(tracked) => match tracked.container(&assigned.container) {
                None => Err(AllocationProblem::NoContainer),
                // The List is about a successor that the pod list does not have yet.
                Some(container) if !requests_all(container, assigned) => {
                    Err(AllocationProblem::AmbiguousPod)
                }
                Some(_) => Ok(Some(tracked.pod.id.clone())),
            },
            NameLookup::Ambiguous => Err(AllocationProblem::AmbiguousPod),
            // Requested after the deletion: it may be a new pod that is not listed yet.
            NameLookup::Deleted(_)
                if deleted_at.is_some_and(|deleted_at| deleted_at < requested_at) =>
            {
                Err(AllocationProblem::UnknownPod)
            }
            NameLookup::Deleted(_) => Ok(None),
            // The pod list is not complete yet. The kubelet lists pods that exist.
            NameLookup::Unknown if !pods.synced => by_name(),
            NameLookup::Unknown => Err(AllocationProblem::UnknownPod),
        }
    }

    /// Whether the List is older than a pod, and thus about an earlier one with its name: the pod was first seen
    /// after it, and the kubelet admitted it later, or it was seen much later.
    fn is_older(&self, tracked: &TrackedPod) -> bool {
        let Assignments { requested_at, requested_at_wall_us, .. } = *self.assignments;
        let TrackedPod { pod, first_seen, .. } = tracked;
        let is_admitted_later =
            pod.admitted.is_some_and(|seconds| seconds.get() > requested_at_wall_us / 1_000_000);
        *first_seen > requested_at
            && (is_admitted_later || *first_seen > requested_at + policy::ALLOCATION_MAX_AGE)
    }

    fn add_candidates(
        &mut self,
        pod: &PodRef,
        container: &Arc<str>,
        resolved: ResolvedContainer,
        assigned_containers: &mut AssignedContainers,
    ) {
        for (device, problem) in &resolved.unresolved {
            self.mark_unknown(pod_name(pod), device.as_ref(), *problem);
        }
        resolved.counted.iter().for_each(|problem| self.count_problem(*problem));
        if !resolved.pod_doubts.is_empty() {
            let doubts = &mut self.result.completeness.doubts;
            doubts.entry(pod_name(pod)).or_default().extend(resolved.pod_doubts);
        }
        if !resolved.admin_access.is_empty() {
            let admin_access = &mut self.result.completeness.admin_access;
            let uid = Arc::clone(&pod.uid);
            admin_access.entry(uid).or_default().extend(resolved.admin_access);
        }
        if !resolved.units.is_empty() {
            let key = (pod.clone(), Arc::clone(container));
            assigned_containers.with_units.insert(key, resolved.units);
        }
        if !resolved.devices.is_empty() || !resolved.claimed.is_empty() {
            assigned_containers.with_devices.insert((pod.clone(), Arc::clone(container)));
        }
        let confirmed = self.is_confirmed(pod);
        let lookup = self.pods.map(|pods| pods.by_uid(&pod.uid));
        let running =
            matches!(lookup, Some(UidLookup::Live(tracked)) if tracked.pod.runs(container));
        for assigned_device in resolved.devices.into_values().chain(resolved.claimed) {
            let AssignedDevice { evidence, device, mode, memory, compute, .. } = assigned_device;
            let AssignedDevice { reserved, replica, claim, .. } = assigned_device;
            if replica.is_some() && compute.is_none() {
                self.count_problem(AllocationProblem::UnknownReplica);
            }
            let allocation = DeviceAllocation {
                container: ContainerIdentity { pod: pod.clone(), name: Arc::clone(container) },
                device,
                mode,
                memory,
                compute,
                reserved,
                replica,
                claim,
                confirmed,
                running,
                known_since: Duration::ZERO,
            };
            self.candidates.push((evidence, allocation));
        }
    }

    /// Whether a pod with an assignment is known to still exist.
    pub(super) fn is_confirmed(&self, pod: &PodRef) -> bool {
        // Until the pods are listed, the name may be that of an ended pod.
        let is_listed = self.pods.is_none_or(|pods| pods.synced);
        is_listed && !self.assignments.unconfirmed.contains(&pod_name(pod))
    }

    /// Records an assignment to a pod that cannot be identified.
    fn mark_all_unknown(
        &mut self,
        pod: &PodName,
        resolved: &ResolvedContainer,
        problem: AllocationProblem,
    ) {
        self.count_problem(problem);
        let completeness = &mut self.result.completeness;
        completeness.doubts.entry(pod.clone()).or_default().insert(AllocationDoubt::Any);
        let devices = resolved.devices.values().chain(&resolved.claimed);
        let devices = devices.map(|assigned| Arc::clone(&assigned.device));
        completeness.uncertain_devices.extend(devices);
        let unresolved = resolved.unresolved.iter().filter_map(|(device, _)| device.as_ref());
        for device in unresolved {
            completeness.uncertain_devices.extend(self.index.with_partitions(device));
        }
        completeness.node_uncertain |=
            !resolved.units.is_empty() || resolved.unresolved.iter().any(|(d, _)| d.is_none());
    }

    /// `pod` is `None` if the pod cannot be identified.
    fn resolve(
        &self,
        assigned: &ContainerAssignment,
        pod: Option<&Option<PodRef>>,
        claimants: &Claimants<'_>,
    ) -> ResolvedContainer {
        let mut resolved = ResolvedContainer::default();
        for (resource, ids) in &assigned.devices {
            for id in ids {
                self.resolve_id(resource, id, &mut resolved);
            }
        }
        let pod = pod.and_then(Option::as_ref);
        // A container that refers to several requests of a claim lists its devices as often.
        for claimed in assigned.claims.iter().collect::<BTreeSet<_>>() {
            self.resolve_claimed(claimed, pod, claimants, &mut resolved);
        }
        resolved
    }

    fn resolve_id(&self, resource: &str, id: &str, resolved: &mut ResolvedContainer) {
        let mut add_unit = || *resolved.units.entry(resource.into()).or_default() += 1;
        match device_id::parse(id) {
            _ if is_shared_by_scheduler(resource) => add_unit(),
            // Device ids of other vendors may be the same words.
            DeviceId::Device { name: DeviceName::OnlyGpu, .. } if !is_of_nvidia(resource) => {}
            DeviceId::SharedUnit { .. } => add_unit(),
            DeviceId::Device { name, replica } => match self.index.by_name(name) {
                DeviceMatch::Found(device) => {
                    let share = match replica {
                        None => ReplicaShare::whole(&device),
                        Some(replica) => self.replica_share(resource, (name, replica), &device),
                    };
                    resolved.add_id(&device, replica, share);
                }
                DeviceMatch::PartitionOf(gpu) => {
                    resolved
                        .unresolved
                        .push((Some(Arc::clone(gpu)), AllocationProblem::UnknownDevice));
                }
                DeviceMatch::Unknown => {
                    resolved.unresolved.push((None, AllocationProblem::UnknownDevice));
                }
            },
            DeviceId::Unknown if is_nvidia_resource(resource) => {
                resolved.unresolved.push((None, AllocationProblem::UnknownDevice));
            }
            // A device of another vendor, or one that is passed through and invisible in NVML.
            DeviceId::Unknown | DeviceId::Pci => {}
        }
    }
}

/// Whether a container requests the GPU resources of which it is assigned devices. The device plugin
/// can be configured with any name, such as `nvidia.com/a100-40g`.
fn requests_all(container: &Container, assigned: &ContainerAssignment) -> bool {
    let is_gpu = |id: &str| matches!(device_id::parse(id), DeviceId::Device { .. });
    assigned.devices.iter().all(|(resource, ids)| {
        let is_gpu_resource = is_nvidia_resource(resource)
            || (is_of_nvidia(resource) && ids.iter().any(|id| is_gpu(id)));
        !is_gpu_resource || container.resources.contains_key(resource)
    })
}
