//! Resolves device allocations: joins the kubelet's assignments, the pods and their annotations,
//! and the devices of the node. No I/O, no clock.
//!
//! There are three kinds of evidence, strongest first: a device id that identifies its device; a
//! resource claim with a device in a resource slice; an annotation of a GPU sharing scheduler. A
//! unit of a shared GPU ([`DeviceId::SharedUnit`]) only shows that there must be such an
//! annotation, and an annotation counts only with such units. If the pod or the amount of an allocation is unknown, its device is marked as
//! uncertain; if the device is unknown too, the node is. Then no container is reported as having
//! no allocation.
//!
//! Limits: the amount of a replica is unknown until it is certain whether it is one of time-slicing
//! or of MPS; claims with administrative access are not marked (a device of two claims is therefore
//! contested); allocations without a device plugin are invisible while the pods are unknown.
//!
//! [`DeviceId::SharedUnit`]: super::device_id::DeviceId::SharedUnit

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignments::{Assignments, PodName, SliceTable};
use super::pods::PodSnapshot;
use super::problem::AllocationProblem;
use super::sharing::SharingEvidence;
use crate::model::{AllocateMode, DeviceAllocation, PodRef};

mod conflicts;
mod coverage;
mod from_annotations;
mod from_kubelet;
mod index;
mod replicas;
mod resource;

pub use coverage::Coverage;
use index::DeviceIndex;

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
    /// Memory of its GPU instance, MiB.
    pub framebuffer_mib: Option<f64>,
    /// Its fraction of the GPU's SMs, 0 to 1.
    pub compute: Option<f64>,
}

/// Unit of `aliyun.com/gpu-mem`, for when neither annotations nor device ids contain the number of
/// units of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryUnit {
    /// GiB, or MiB if more units are allocated than the GPU has GiB.
    #[default]
    Auto,
    /// GiB.
    Gib,
    /// MiB.
    Mib,
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
}

/// Where the allocations of a node are incomplete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocationCompleteness {
    /// The pods with known allocations.
    pub coverage: Coverage,
    /// Allocations that are not known, by pod.
    pub doubts: BTreeMap<PodName, BTreeSet<AllocationDoubt>>,
    /// Devices that an init container can have been allocated, and how, by pod and container.
    pub init_candidates: BTreeMap<(PodName, Arc<str>), BTreeMap<Arc<str>, AllocateMode>>,
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

/// Resolves the allocations of `devices`. `pods` is None if the pods are unknown, `slices` if no
/// resource slices were read.
#[must_use]
pub fn resolve_allocations(
    devices: &[AllocatableGpu],
    assignments: &Assignments,
    pods: Option<&PodSnapshot>,
    slices: Option<&SliceTable>,
    unit: MemoryUnit,
) -> AllocationResult {
    let mut join = AllocationJoin {
        index: DeviceIndex::new(devices),
        assignments,
        pods,
        slices,
        unit,
        candidates: Vec::new(),
        whole_devices: BTreeSet::new(),
        result: AllocationResult::default(),
    };
    join.result.completeness.node_uncertain = pods.is_some_and(|pods| !pods.synced);
    let assigned = join.join_assignments();
    join.whole_devices = join.devices_allocated_whole();
    join.join_annotations(&assigned);
    join.result.completeness.coverage = join.coverage();
    join.resolve_conflicts()
}

/// Where an allocation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AllocationOrigin {
    Id,
    Claim,
    Annotation { oversubscribes: bool },
}

struct AllocationJoin<'a> {
    index: DeviceIndex<'a>,
    assignments: &'a Assignments,
    pods: Option<&'a PodSnapshot>,
    slices: Option<&'a SliceTable>,
    unit: MemoryUnit,
    candidates: Vec<(AllocationOrigin, DeviceAllocation)>,
    /// Devices that the kubelet has allocated whole to one container. Set before the annotations are
    /// joined.
    whole_devices: BTreeSet<Arc<str>>,
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
