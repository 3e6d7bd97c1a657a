//! Resolves device allocations: joins the kubelet's assignments, the pods and their annotations,
//! and the devices of the node. No I/O, no clock.
//!
//! There are four kinds of evidence, strongest first: a device id that identifies its device; a
//! resource claim with a device in a resource slice; a GPU group, for which a reservation pod holds
//! such a device id; an annotation of a GPU sharing scheduler. A unit of a shared GPU
//! ([`DeviceId::SharedUnit`]) only shows that there must be such an annotation, and an annotation
//! counts only with such units. If the pod or the amount of an allocation is unknown, its device is marked as
//! uncertain; if the device is unknown too, the node is. Then no container is reported as having
//! no allocation.
//!
//! Limits: the amount of a replica is unknown until it is certain whether it is one of time-slicing
//! or of MPS; allocations without a device plugin are invisible while the pods are unknown.
//!
//! [`DeviceId::SharedUnit`]: super::device_id::DeviceId::SharedUnit

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::assignments::{Assignments, PodName, SliceKey, SliceTable};
use super::pods::PodSnapshot;
use super::problem::AllocationProblem;
use super::resource_claims::table::{ClaimRequest, ClaimTable};
use super::sharing::SharingEvidence;
use crate::model::{AllocateMode, DeviceAllocation, MigPlacement, PodRef};

mod conflicts;
mod coverage;
mod from_annotations;
mod from_claims;
mod from_groups;
mod from_kubelet;
mod index;
mod options;
mod replicas;
mod resolved_container;
mod resource;

pub use coverage::Coverage;
use from_groups::Reservation;
use index::DeviceIndex;
pub use options::{AllocationOptions, MemoryUnit, RESERVATION_NAMESPACES};

/// A GPU of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatableGpu {
    /// `nvmlDeviceGetUUID`.
    pub uuid: Arc<str>,
    /// Minor number of its device file.
    pub minor: Option<u32>,
    /// Size of its framebuffer, MiB.
    pub framebuffer_mib: Option<f64>,
    /// Whether the node has no other GPU.
    pub is_only: bool,
    /// Evidence of how its replicas are shared.
    pub sharing: SharingEvidence,
    /// Its MIG devices.
    pub migs: Vec<AllocatableMig>,
}

/// A MIG device of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatableMig {
    /// `nvmlDeviceGetUUID` of the MIG device.
    pub uuid: Arc<str>,
    /// Its index on the GPU.
    pub index: u32,
    /// Id of its GPU instance.
    pub gpu_instance: u32,
    /// Id of its compute instance.
    pub compute_instance: u32,
    /// Placement of its GPU instance, if it could be read.
    pub placement: Option<MigPlacement>,
    /// Memory of its GPU instance, MiB.
    pub framebuffer_mib: Option<f64>,
    /// Its fraction of the GPU's SMs, 0 to 1.
    pub compute: Option<f64>,
}

/// All allocations of the node, and where they are incomplete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocationResult {
    /// Sorted by pod, container and device; at most one entry for each combination.
    pub allocations: Vec<DeviceAllocation>,
    /// Where they are incomplete.
    pub completeness: AllocationCompleteness,
    /// Number of allocations that were not accepted, by [`AllocationProblem::label`].
    pub problems: BTreeMap<&'static str, u64>,
    /// What the claims of the node refer to.
    pub requests: DraRequests,
}

/// Objects of dynamic resource allocation (DRA).
#[derive(Clone, Copy, Debug, Default)]
pub struct DraObjects<'a> {
    /// The devices of the resource slices; `None` if none were read.
    pub slices: Option<&'a SliceTable>,
    /// The resource claims; `None` if there is no source of them.
    pub claims: Option<&'a ClaimTable>,
}

/// The objects that the claims of a node refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraRequests {
    /// The claimed devices.
    pub devices: BTreeSet<SliceKey>,
    /// The claims, by the pods that use them.
    pub claims: BTreeSet<ClaimRequest>,
}

/// Where the allocations of a node are incomplete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocationCompleteness {
    /// The pods with known allocations.
    pub coverage: Coverage,
    /// Allocations that are not known, by pod.
    pub doubts: BTreeMap<PodName, BTreeSet<AllocationDoubt>>,
    /// Pods in a GPU group without a reservation pod: their allocations are known only from this
    /// time on (monotonic).
    pub unreserved: BTreeMap<PodName, Duration>,
    /// Until when a pod may hold a device of a reservation pod that is gone (monotonic).
    pub reservation_lost_until: Duration,
    /// Names with devices that may be those of a predecessor, and when the last List that has them was requested
    /// (monotonic): a process that was seen later may be one of the successor.
    pub unlisted: BTreeMap<PodName, Duration>,
    /// Devices that an init container can have been allocated, and how, by pod and container.
    pub init_candidates: BTreeMap<(PodName, Arc<str>), BTreeMap<Arc<str>, AllocateMode>>,
    /// Devices to which a pod has administrative access, which allocates nothing, by UID of the pod.
    pub admin_access: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Devices of which the allocated amount is unknown.
    pub uncertain_devices: BTreeSet<Arc<str>>,
    /// Whether an amount of an unknown device is allocated.
    pub node_uncertain: bool,
}

/// What a pod may have been allocated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllocationDoubt {
    /// Any device.
    Any,
    /// This device.
    Device(Arc<str>),
}

impl AllocationDoubt {
    /// Whether the pod may have been allocated `device`.
    #[must_use]
    pub fn concerns(&self, device: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Device(uuid) => **uuid == *device,
        }
    }
}

/// Resolves the allocations of `devices`. `pods` is None if the pods are unknown.
#[must_use]
pub fn resolve_allocations(
    devices: &[AllocatableGpu],
    assignments: &Assignments,
    pods: Option<&PodSnapshot>,
    dra: DraObjects<'_>,
    options: &AllocationOptions,
) -> AllocationResult {
    let mut join = AllocationJoin {
        index: DeviceIndex::new(devices),
        assignments,
        pods,
        dra,
        options,
        candidates: Vec::new(),
        whole_devices: BTreeSet::new(),
        reservations: Vec::new(),
        hidden_reservation: false,
        result: AllocationResult::default(),
    };
    join.result.completeness.node_uncertain = pods.is_some_and(|pods| !pods.synced);
    join.result.completeness.unlisted.clone_from(&assignments.unlisted);
    let assigned = join.join_assignments();
    join.whole_devices = join.devices_allocated_whole();
    join.join_annotations(&assigned);
    join.join_groups();
    join.result.completeness.coverage = join.coverage();
    join.resolve_conflicts()
}

/// Where an allocation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AllocationOrigin {
    Id,
    Claim,
    Annotation {
        oversubscribes: bool,
    },
    /// The GPU of a reservation pod, by its group.
    Group,
}

struct AllocationJoin<'a> {
    index: DeviceIndex<'a>,
    assignments: &'a Assignments,
    pods: Option<&'a PodSnapshot>,
    dra: DraObjects<'a>,
    options: &'a AllocationOptions,
    candidates: Vec<(AllocationOrigin, DeviceAllocation)>,
    /// Devices that the kubelet has allocated whole to one container. Set before the annotations are
    /// joined.
    whole_devices: BTreeSet<Arc<str>>,
    reservations: Vec<Reservation>,
    /// Whether the kubelet lists a pod in a reservation namespace that cannot be identified.
    hidden_reservation: bool,
    result: AllocationResult,
}

impl AllocationJoin<'_> {
    fn count_problem(&mut self, problem: AllocationProblem) {
        *self.result.problems.entry(problem.label()).or_default() += 1;
    }

    /// Records that it is unknown what a pod was allocated: of `gpu` with its MIG devices, or of the
    /// node.
    fn mark_unknown(&mut self, pod: PodName, gpu: Option<&Arc<str>>, problem: AllocationProblem) {
        self.count_problem(problem);
        self.add_doubt(pod, gpu);
    }

    fn add_doubt(&mut self, pod: PodName, gpu: Option<&Arc<str>>) {
        let completeness = &mut self.result.completeness;
        let doubts = completeness.doubts.entry(pod).or_default();
        if let Some(gpu) = gpu {
            let devices = self.index.with_partitions(gpu);
            doubts.extend(devices.iter().cloned().map(AllocationDoubt::Device));
            // No other pod can hold a device that the kubelet has allocated whole.
            let whole = &self.whole_devices;
            let devices = devices.into_iter().filter(|device| !whole.contains(device));
            completeness.uncertain_devices.extend(devices);
        } else {
            doubts.insert(AllocationDoubt::Any);
            completeness.node_uncertain = true;
        }
    }

    /// Records that it is unknown what a pod was allocated, of devices that are accounted for without
    /// it.
    fn add_pod_doubt(&mut self, pod: PodName, doubt: AllocationDoubt) {
        self.result.completeness.doubts.entry(pod).or_default().insert(doubt);
    }
}

fn pod_name(pod: &PodRef) -> PodName {
    (Arc::clone(&pod.namespace), Arc::clone(&pod.name))
}

/// A memory size that is a positive number; None for any other value.
fn positive_mib(mib: Option<f64>) -> Option<f64> {
    mib.filter(|mib| mib.is_finite() && *mib > 0.0)
}

#[cfg(test)]
mod tests;
