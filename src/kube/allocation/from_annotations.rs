//! Allocations of GPU sharing schedulers, from the annotations of pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::from_kubelet::{AssignedContainers, ContainerKey, is_shared_by_scheduler};
use super::index::{DeviceMatch, IndexedDevice};
use super::{
    AllocationJoin, AllocationOrigin, AllocationProblem, MemoryUnit, pod_name, positive_mib,
};
use crate::kube::annotations::{
    self, AnnotationAllocation, ContainerPosition, GpuName, GpuShare, MemoryAmount,
};
use crate::kube::device_id::{self, DeviceId};
use crate::kube::pod::Pod;
use crate::kube::pod::container::{Container, ContainerKind};
use crate::kube::pods::{NameLookup, PodSnapshot, TrackedPod};
use crate::model::{AllocateMode, ContainerIdentity, DeviceAllocation};

/// Maximum ratio of allocated to physical memory of a GPU that a scheduler oversubscribes.
const OVERSUBSCRIPTION_MAX: f64 = 16.0;

/// The uncertain device, if it is known, and the reason.
type Uncertainty = (Option<Arc<str>>, AllocationProblem);

/// Whether a container requests a resource of a GPU sharing scheduler. A request of whole GPUs does
/// not confirm an annotation: every creator of a pod may write one.
fn requests_units(container: &Container) -> bool {
    let mut resources = container.resources.iter();
    resources.any(|(resource, quantity)| is_shared_by_scheduler(resource) && &**quantity != "0")
}

impl AllocationJoin<'_> {
    /// Adds the allocations of annotations. `assigned` are the containers with allocations of the
    /// kubelet, which take precedence.
    pub(super) fn join_annotations(&mut self, assigned: &AssignedContainers) {
        // Pods with an annotation problem, which is counted already.
        let mut already_counted = BTreeSet::new();
        if let Some(pods) = self.pods {
            for tracked in pods.iter().filter(|tracked| !tracked.pod.has_ended()) {
                if self.join_pod(tracked, assigned, pods).is_none() {
                    already_counted.insert(&tracked.pod.id);
                }
            }
        }
        let key = |(_, allocation): &(_, DeviceAllocation)| {
            (allocation.container.pod.clone(), Arc::clone(&allocation.container.name))
        };
        let allocated: BTreeSet<_> = self.candidates.iter().map(key).collect();
        for container in assigned.with_units.difference(&assigned.with_devices) {
            if !already_counted.contains(&container.0) && !allocated.contains(container) {
                self.mark_unknown(pod_name(&container.0), None, AllocationProblem::NoAnnotation);
            }
        }
    }

    /// Adds the allocations of one pod; None if the annotation had a problem.
    fn join_pod(
        &mut self,
        tracked: &TrackedPod,
        assigned: &AssignedContainers,
        pods: &PodSnapshot,
    ) -> Option<()> {
        let pod = &tracked.pod;
        let annotation = annotations::parse(pod);
        if matches!(annotation, Ok(AnnotationAllocation::Absent | AnnotationAllocation::Pending)) {
            return Some(());
        }
        let id = &pod.id;
        let is_in = |containers: &BTreeSet<ContainerKey>| {
            pod.containers.iter().any(|c| containers.contains(&(id.clone(), Arc::clone(&c.name))))
        };
        if !is_in(&assigned.with_units) {
            // The kubelet allocated whole devices: the annotation is ignored.
            if is_in(&assigned.with_devices) {
                return Some(());
            }
            if !pod.containers.iter().any(requests_units) {
                self.count_problem(AllocationProblem::UnrequestedAnnotation);
                return Some(());
            }
        }
        let unique_name = matches!(pods.by_name(&id.namespace, &id.name), NameLookup::One(_));
        let mut accepted = Some(());
        match annotation {
            Ok(AnnotationAllocation::Allocated { shares, oversubscribes }) => {
                for share in shares {
                    // The kubelet does not report which of several pods has the units.
                    let result = if unique_name {
                        self.resolve_share(tracked, &share, oversubscribes, assigned)
                    } else {
                        let found = self.find_device(&share).map(|gpu| Arc::clone(gpu.uuid));
                        Err((found.map_or_else(|gpu| gpu, Some), AllocationProblem::AmbiguousPod))
                    };
                    match result {
                        Ok(allocation) => self.candidates.extend(allocation.map(|allocation| {
                            (AllocationOrigin::Annotation { oversubscribes }, allocation)
                        })),
                        Err((device, problem)) => {
                            self.mark_unknown(pod_name(id), device.as_ref(), problem);
                            accepted = None;
                        }
                    }
                }
            }
            Ok(AnnotationAllocation::Absent | AnnotationAllocation::Pending) => {}
            Err(problem) => {
                self.mark_unknown(pod_name(id), None, problem);
                accepted = None;
            }
        }
        accepted
    }

    /// The device of a share.
    ///
    /// # Errors
    /// The GPU, if it has MIG devices, which cannot be shared; `None` if it is unknown.
    fn find_device(&self, share: &GpuShare) -> Result<IndexedDevice<'_>, Option<Arc<str>>> {
        let lookup = match &share.gpu {
            GpuName::Minor(minor) => self.index.by_minor(*minor),
            GpuName::Uuid(uuid) => self.index.by_uuid(uuid),
        };
        match lookup {
            DeviceMatch::Found(device) => Ok(device),
            DeviceMatch::PartitionOf(gpu) => Err(Some(Arc::clone(gpu))),
            DeviceMatch::Unknown => Err(None),
        }
    }

    /// The allocation of a share; None if the kubelet allocated devices to the container.
    fn resolve_share(
        &self,
        tracked: &TrackedPod,
        share: &GpuShare,
        oversubscribes: bool,
        assigned: &AssignedContainers,
    ) -> Result<Option<DeviceAllocation>, Uncertainty> {
        let pod = &tracked.pod;
        let unknown = |gpu| (gpu, AllocationProblem::UnknownDevice);
        let target = self.find_device(share).map_err(unknown)?;
        let device = Arc::clone(target.uuid);
        let uncertain = |problem| (Some(Arc::clone(&device)), problem);
        let container = find_container(pod, share.container)
            .ok_or(uncertain(AllocationProblem::NoContainer))?;
        let key = (pod.id.clone(), Arc::clone(&container.name));
        if assigned.with_devices.contains(&key) {
            return Ok(None);
        }
        if !requests_units(container) && !assigned.with_units.contains(&key) {
            return Err(uncertain(AllocationProblem::UnrequestedAnnotation));
        }
        let memory = self.memory_mib(&target, share.memory, oversubscribes).map_err(uncertain)?;
        let running = pod.runs(&container.name);
        let (pod, container) = key;
        let (mode, compute) = (AllocateMode::Share, share.compute);
        Ok(Some(DeviceAllocation {
            container: ContainerIdentity { pod, name: container },
            device,
            mode,
            memory,
            compute,
            reserved: true,
            replica: None,
            claim: None,
            // A pod of the same name may have replaced it while the API server is down.
            confirmed: tracked.listed && self.pods.is_some_and(PodSnapshot::is_current),
            running,
            known_since: Duration::ZERO,
        }))
    }

    /// The amount in MiB; None if it is unknown.
    fn memory_mib(
        &self,
        device: &IndexedDevice<'_>,
        amount: MemoryAmount,
        oversubscribes: bool,
    ) -> Result<Option<f64>, AllocationProblem> {
        let mib = match amount {
            MemoryAmount::Mib(mib) => Some(mib),
            MemoryAmount::Ratio(ratio) => device.framebuffer.map(|framebuffer| framebuffer * ratio),
            MemoryAmount::Unknown => None,
            MemoryAmount::Units { units, total } => match (device.framebuffer, total) {
                (None, _) => None,
                (Some(framebuffer), Some(total)) => Some(units / total * framebuffer),
                (Some(framebuffer), None) => {
                    Some(units / self.units_per_gpu(device, framebuffer, units) * framebuffer)
                }
            },
        };
        let max_ratio = if oversubscribes { OVERSUBSCRIPTION_MAX } else { 1.0 + 1e-9 };
        match (mib, device.framebuffer) {
            (Some(mib), Some(framebuffer)) if mib > framebuffer * max_ratio => {
                Err(AllocationProblem::InvalidAmount)
            }
            (mib, _) => Ok(positive_mib(mib)),
        }
    }

    /// Number of `aliyun.com/gpu-mem` units of a GPU with `framebuffer` MiB, of which `units` are
    /// allocated.
    fn units_per_gpu(&self, device: &IndexedDevice<'_>, framebuffer: f64, units: f64) -> f64 {
        let ids = self.assignments.allocatable.get("aliyun.com/gpu-mem");
        let unit = DeviceId::SharedUnit { gpu: device.uuid };
        let is_unit = |id: &str| device_id::parse(id) == unit;
        let ids = ids.map_or(0, |ids| ids.iter().filter(|id| is_unit(id)).count());
        if let Some(ids) = u32::try_from(ids).ok().filter(|ids| *ids > 0) {
            return f64::from(ids);
        }
        let gib = (framebuffer / 1024.0).floor();
        match self.unit {
            MemoryUnit::Gib => gib,
            MemoryUnit::Auto if units <= gib => gib,
            // More units than GiB: they are MiB. An allocation of only a few MiB is too small for a
            // CUDA context.
            MemoryUnit::Auto | MemoryUnit::Mib => framebuffer.floor(),
        }
    }
}

/// The container at a position; for the whole pod, the only container that requests GPUs.
fn find_container(pod: &Pod, position: ContainerPosition) -> Option<&Container> {
    match position {
        ContainerPosition::Index(n) => pod.containers.get(n),
        ContainerPosition::WholePod => {
            let ended = |c: &Container| {
                c.terminated && c.kind == (ContainerKind::Init { restartable: false })
            };
            let mut requesting = pod.containers.iter().filter(|c| c.requests_gpu() && !ended(c));
            requesting.next().filter(|_| requesting.next().is_none())
        }
    }
}
