//! Allocations of the kubelet: ids of devices, units of shared GPUs, and resource claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::index::{DeviceMatch, IndexedDevice};
use super::replicas::ReplicaShare;
use super::resource::{is_nvidia_resource, is_of_nvidia, is_shared_by_scheduler};
use super::{AllocationDoubt, AllocationJoin, AllocationOrigin, AllocationProblem, pod_name};
use crate::kube::assignments::{
    Assignments, ClaimedDevice, ContainerAssignment, PodName, SliceDevice,
};
use crate::kube::device_id::{self, DeviceId, DeviceName};
use crate::kube::pod::container::Container;
use crate::kube::pods::{NameLookup, UidLookup};
use crate::model::{AllocateMode, Claim, ContainerIdentity, DeviceAllocation, PodRef};

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

/// One device of one container; fields as in [`DeviceAllocation`].
pub(super) struct AssignedDevice {
    pub(super) evidence: AllocationOrigin,
    pub(super) device: Arc<str>,
    pub(super) mode: AllocateMode,
    pub(super) memory: Option<f64>,
    pub(super) compute: Option<f64>,
    pub(super) reserved: bool,
    pub(super) replica: Option<u32>,
    pub(super) claim: Option<Arc<Claim>>,
}

/// The devices of one container.
#[derive(Default)]
pub(super) struct ResolvedContainer {
    pub(super) devices: BTreeMap<Arc<str>, AssignedDevice>,
    /// Number of units of shared GPUs, by resource.
    pub(super) units: BTreeMap<Box<str>, u32>,
    /// Allocations that cannot be resolved, with their device if it is known.
    pub(super) unresolved: Vec<(Option<Arc<str>>, AllocationProblem)>,
}

impl ResolvedContainer {
    /// Adds the device of an id, or another replica of a device.
    fn add_id(&mut self, device: &IndexedDevice<'_>, replica: Option<u32>, share: ReplicaShare) {
        let earlier = self.devices.remove(device.uuid).filter(|earlier| earlier.replica.is_some());
        let ReplicaShare { memory, compute, reserved } = match &earlier {
            Some(AssignedDevice { memory, compute, reserved: true, .. }) if share.reserved => {
                let sum = |one: Option<f64>, other: Option<f64>| Some(one? + other?);
                ReplicaShare {
                    memory: sum(*memory, share.memory),
                    compute: sum(*compute, share.compute).map(|compute| compute.min(1.0)),
                    reserved: true,
                }
            }
            _ => share,
        };
        let shared = replica.is_some();
        let assigned_device = AssignedDevice {
            evidence: AllocationOrigin::Id,
            device: Arc::clone(device.uuid),
            mode: if shared { AllocateMode::Share } else { AllocateMode::Exclusive },
            memory,
            compute,
            reserved,
            replica: earlier.and_then(|earlier| earlier.replica).into_iter().chain(replica).min(),
            claim: None,
        };
        self.devices.insert(Arc::clone(device.uuid), assigned_device);
    }
}

type DeviceKey<'a> = (&'a str, &'a str, &'a str);
type ClaimantsByDevice<'a> = BTreeMap<DeviceKey<'a>, Claimants<'a>>;

/// The claims and containers of a claimed device.
#[derive(Default)]
struct Claimants<'a> {
    /// Namespace and name of the claims without a share id. If there are several, all but one have
    /// administrative access, which allocates nothing; which of them have it is unknown here.
    claims: BTreeSet<(&'a str, &'a str)>,
    /// Namespace, pod and name of the containers that use it. All containers of a claim may.
    containers: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl AllocationJoin<'_> {
    pub(super) fn join_assignments(&mut self) -> AssignedContainers {
        let mut assigned_containers = AssignedContainers::default();
        let assignments = self.assignments;
        let claimants = claimants_by_device(assignments);
        for assigned in &assignments.containers {
            let resolved = self.resolve(assigned, &claimants);
            if resolved.devices.is_empty()
                && resolved.units.is_empty()
                && resolved.unresolved.is_empty()
            {
                continue;
            }
            match self.find_pod(assigned) {
                Ok(Some(pod)) if self.is_reservation(&pod) => self.add_reservation(&pod, &resolved),
                Ok(Some(pod)) => self.add_candidates(
                    &pod,
                    &assigned.container,
                    resolved,
                    &mut assigned_containers,
                ),
                Ok(None) => {}
                Err(problem) => {
                    let pod = (Arc::clone(&assigned.namespace), Arc::clone(&assigned.pod));
                    self.hidden_reservation |= self.options.is_reservation_namespace(&pod.0);
                    self.mark_all_unknown(&pod, &resolved, problem);
                }
            }
        }
        assigned_containers
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
        if !resolved.units.is_empty() {
            let key = (pod.clone(), Arc::clone(container));
            assigned_containers.with_units.insert(key, resolved.units);
        }
        if !resolved.devices.is_empty() {
            assigned_containers.with_devices.insert((pod.clone(), Arc::clone(container)));
        }
        let confirmed = self.is_confirmed(pod);
        let lookup = self.pods.map(|pods| pods.by_uid(&pod.uid));
        let running =
            matches!(lookup, Some(UidLookup::Live(tracked)) if tracked.pod.runs(container));
        for assigned_device in resolved.devices.into_values() {
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
        completeness.uncertain_devices.extend(resolved.devices.keys().cloned());
        let unresolved = resolved.unresolved.iter().filter_map(|(device, _)| device.as_ref());
        for device in unresolved {
            completeness.uncertain_devices.extend(self.index.with_partitions(device));
        }
        completeness.node_uncertain |=
            !resolved.units.is_empty() || resolved.unresolved.iter().any(|(d, _)| d.is_none());
    }

    fn resolve(
        &self,
        assigned: &ContainerAssignment,
        claimants: &ClaimantsByDevice<'_>,
    ) -> ResolvedContainer {
        let mut resolved = ResolvedContainer::default();
        for (resource, ids) in &assigned.devices {
            for id in ids {
                self.resolve_id(resource, id, &mut resolved);
            }
        }
        for claimed in &assigned.claims {
            self.resolve_claimed(claimed, claimants.get(&device_key(claimed)), &mut resolved);
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

    fn resolve_claimed(
        &self,
        claimed: &ClaimedDevice,
        claimants: Option<&Claimants<'_>>,
        resolved: &mut ResolvedContainer,
    ) {
        let contested = claimants.is_some_and(|all| all.claims.len() > 1);
        let multiple = claimants.is_some_and(|all| all.containers.len() > 1);
        let is_nvidia = &*claimed.driver == "gpu.nvidia.com";
        let slice = self.slices.and_then(|slices| slices.get(claimed));
        let Some(slice) = slice else {
            if is_nvidia {
                resolved.unresolved.push((None, AllocationProblem::NoSlice));
            }
            return;
        };
        let SliceDevice { uuid, kind, parent, .. } = slice;
        if kind.as_deref() == Some("vfio") {
            return;
        }
        let lookup = |uuid: &Option<Box<str>>| {
            uuid.as_deref().map_or(DeviceMatch::Unknown, |uuid| self.index.by_uuid(uuid))
        };
        match (lookup(uuid), lookup(parent)) {
            (DeviceMatch::Found(device), _) if contested => {
                resolved
                    .unresolved
                    .push((Some(Arc::clone(device.uuid)), AllocationProblem::ContestedDevice));
            }
            (DeviceMatch::Found(device), _) => {
                let shared = claimed.share.is_some() || multiple;
                let assigned_device = AssignedDevice {
                    evidence: AllocationOrigin::Claim,
                    device: Arc::clone(device.uuid),
                    mode: if shared { AllocateMode::Share } else { AllocateMode::Exclusive },
                    // The memory of a share is only in the claim.
                    memory: device.framebuffer.filter(|_| claimed.share.is_none()),
                    compute: Some(0.0),
                    reserved: !shared,
                    replica: None,
                    claim: Some(Arc::new(claim(claimed, slice))),
                };
                resolved.devices.insert(Arc::clone(device.uuid), assigned_device);
            }
            (DeviceMatch::PartitionOf(gpu), _)
            | (
                _,
                DeviceMatch::PartitionOf(gpu) | DeviceMatch::Found(IndexedDevice { uuid: gpu, .. }),
            ) => {
                resolved.unresolved.push((Some(Arc::clone(gpu)), AllocationProblem::UnknownDevice));
            }
            _ if is_nvidia => resolved.unresolved.push((None, AllocationProblem::UnknownDevice)),
            _ => {}
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

fn claim(claimed: &ClaimedDevice, slice: &SliceDevice) -> Claim {
    let is_mig = slice.kind.as_deref() == Some("mig");
    let of_mig = |text: &Option<Box<str>>| match text {
        Some(text) if is_mig => text.to_string(),
        _ => String::new(),
    };
    Claim {
        name: claimed.claim_name.to_string(),
        namespace: claimed.claim_namespace.to_string(),
        driver: claimed.driver.to_string(),
        pool: claimed.pool.to_string(),
        device: claimed.device.to_string(),
        mig_profile: of_mig(&slice.profile),
        mig_uuid: of_mig(&slice.uuid),
    }
}

fn claimants_by_device(assignments: &Assignments) -> ClaimantsByDevice<'_> {
    let mut by_device = ClaimantsByDevice::new();
    for assigned in &assignments.containers {
        for claimed in &assigned.claims {
            let claimants = by_device.entry(device_key(claimed)).or_default();
            let ContainerAssignment { namespace, pod, container, .. } = assigned;
            claimants.containers.insert((namespace, pod, container));
            if claimed.share.is_none() {
                claimants.claims.insert((&claimed.claim_namespace, &claimed.claim_name));
            }
        }
    }
    by_device
}

fn device_key(claimed: &ClaimedDevice) -> DeviceKey<'_> {
    (&claimed.driver, &claimed.pool, &claimed.device)
}
