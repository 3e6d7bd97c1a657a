//! Allocations of GPU sharing schedulers, from the annotations of pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::from_kubelet::AssignedContainers;
use super::index::{DeviceMatch, IndexedDevice};
use super::{
    AllocationJoin, AllocationOrigin, AllocationProblem, MemoryUnit, pod_name, positive_mib,
};
use crate::kube::annotations::{
    self, AnnotationAllocation, ContainerPosition, GpuName, GpuShare, MemoryAmount, MigName,
    ShareResource,
};
use crate::kube::device_id::{self, DeviceId};
use crate::kube::pod::Pod;
use crate::kube::pod::container::{Container, ContainerKind};
use crate::kube::pods::{NameLookup, PodSnapshot, TrackedPod};
use crate::model::{AllocateMode, ContainerIdentity, DeviceAllocation, PodRef};

/// Maximum ratio of allocated to physical memory of a GPU that a scheduler oversubscribes.
const OVERSUBSCRIPTION_MAX: f64 = 16.0;

/// The uncertain device, if it is known, and the reason.
pub(super) type Uncertainty = (Option<Arc<str>>, AllocationProblem);

/// What the kubelet reports of a resource for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldUnits {
    None,
    Number(u32),
    /// The kubelet cannot report the resource, and the pod requests it.
    Requested,
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
        let with_units = assigned.with_units.keys();
        for container in with_units.filter(|key| !assigned.with_devices.contains(key)) {
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
        let id = &pod.id;
        let holds = |resource| {
            let mut containers = pod.containers.iter();
            containers.any(|c| self.units(assigned, id, c, resource) != HeldUnits::None)
        };
        let parsed = annotations::parse(pod, holds).and_then(|allocation| {
            self.check_amounts(pod, &allocation, assigned).map(|()| allocation)
        });
        match parsed {
            Ok(AnnotationAllocation::Pending) => {}
            Ok(AnnotationAllocation::Absent) => {
                self.count_unrequested(pod, assigned);
            }
            Ok(AnnotationAllocation::Allocated { resource, shares, oversubscribes }) => {
                let origin = AllocationOrigin::Annotation { oversubscribes };
                let unique = matches!(pods.by_name(&id.namespace, &id.name), NameLookup::One(_));
                let mut accepted = Some(());
                for share in shares {
                    // The kubelet does not report which of several pods has the units.
                    let result = if unique {
                        self.resolve_share(tracked, &share, (resource, oversubscribes), assigned)
                    } else {
                        let found = self.find_device(&share).map(|gpu| Arc::clone(gpu.uuid));
                        Err((found.map_or_else(|gpu| gpu, Some), AllocationProblem::AmbiguousPod))
                    };
                    match result {
                        Ok(allocation) => {
                            self.candidates.extend(allocation.map(|found| (origin, found)));
                        }
                        Err((device, problem)) => {
                            self.mark_unknown(pod_name(id), device.as_ref(), problem);
                            accepted = None;
                        }
                    }
                }
                return accepted;
            }
            Err(problem) => {
                self.mark_unknown(pod_name(id), None, problem);
                return None;
            }
        }
        Some(())
    }

    /// Counts a pod with an annotation, but without a resource of its scheduler at the kubelet. A pod
    /// that the List does not have yet may get one, and one with whole devices needs no annotation.
    fn count_unrequested(&mut self, pod: &Pod, assigned: &AssignedContainers) {
        let key = |c: &Container| (pod.id.clone(), Arc::clone(&c.name));
        let is_assigned = |c: &Container| {
            let key = key(c);
            assigned.with_devices.contains(&key) || assigned.with_units.contains_key(&key)
        };
        let annotation = annotations::parse(pod, |_| true);
        let is_empty = |found: &AnnotationAllocation| {
            matches!(found, AnnotationAllocation::Absent | AnnotationAllocation::Pending)
        };
        let is_listed = self.assignments.pods.contains(&pod_name(&pod.id));
        if is_listed
            && !annotation.is_ok_and(|a| is_empty(&a))
            && !pod.containers.iter().any(is_assigned)
        {
            self.count_problem(AllocationProblem::UnrequestedAnnotation);
        }
    }

    /// The units of `resource` that a container holds at the kubelet. A request in the spec of a pod
    /// is not enough: the kubelet ignores those of resources that its node does not have.
    fn units(
        &self,
        assigned: &AssignedContainers,
        pod: &PodRef,
        container: &Container,
        resource: ShareResource,
    ) -> HeldUnits {
        let is_of = |name: &str| ShareResource::of(name) == Some(resource);
        let key = (pod.clone(), Arc::clone(&container.name));
        let held = assigned.with_units.get(&key).into_iter().flatten();
        let count: u32 = held.filter(|(name, _)| is_of(name)).map(|(_, units)| units).sum();
        // Without a device plugin, the kubelet only compares the request with what its node has.
        let is_listable = self.assignments.allocatable.keys().any(|name| is_of(name));
        let mut requests = container.resources.iter();
        if count > 0 {
            HeldUnits::Number(count)
        } else if resource == ShareResource::Koordinator
            && !is_listable
            && requests.any(|(name, quantity)| is_of(name) && &**quantity != "0")
        {
            HeldUnits::Requested
        } else {
            HeldUnits::None
        }
    }

    /// Whether the annotation allocates to each container as many units as the kubelet.
    ///
    /// # Errors
    /// It allocates more or fewer.
    fn check_amounts(
        &self,
        pod: &Pod,
        allocation: &AnnotationAllocation,
        assigned: &AssignedContainers,
    ) -> Result<(), AllocationProblem> {
        let AnnotationAllocation::Allocated { resource, shares, .. } = allocation else {
            return Ok(());
        };
        for (n, container) in pod.containers.iter().enumerate() {
            let of_container = shares.iter().filter(|s| s.container == ContainerPosition::Index(n));
            let units: f64 = of_container.filter_map(|share| resource.units_of(share)).sum();
            let held = self.units(assigned, &pod.id, container, *resource);
            let HeldUnits::Number(held) = held else { continue };
            if units > 0.0 && (units - f64::from(held)).abs() > 1e-6 {
                return Err(AllocationProblem::InvalidAmount);
            }
        }
        Ok(())
    }

    /// The device of a share.
    ///
    /// # Errors
    /// The GPU, if it has MIG devices, which cannot be shared; `None` if it is unknown.
    fn find_device(&self, share: &GpuShare) -> Result<IndexedDevice<'_>, Option<Arc<str>>> {
        let lookup = match &share.gpu {
            GpuName::Minor(minor) => self.index.by_minor(*minor),
            GpuName::Uuid(uuid) => self.index.by_uuid(uuid),
            GpuName::Mig { gpu, mig } => {
                let mib = if let MemoryAmount::Mib(mib) = share.memory { Some(mib) } else { None };
                self.index.by_mig(gpu, mig, mib)
            }
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
        (resource, oversubscribes): (ShareResource, bool),
        assigned: &AssignedContainers,
    ) -> Result<Option<DeviceAllocation>, Uncertainty> {
        let pod = &tracked.pod;
        let is_pending = matches!(&share.gpu, GpuName::Mig { mig: MigName::Pending, .. });
        let unknown = |gpu| {
            let pending = AllocationProblem::NoAnnotation;
            (gpu, if is_pending { pending } else { AllocationProblem::UnknownDevice })
        };
        let target = self.find_device(share).map_err(unknown)?;
        let device = Arc::clone(target.uuid);
        let uncertain = |problem| (Some(Arc::clone(&device)), problem);
        let container = find_container(pod, share.container)
            .ok_or(uncertain(AllocationProblem::NoContainer))?;
        let key = (pod.id.clone(), Arc::clone(&container.name));
        if assigned.with_devices.contains(&key) {
            return Ok(None);
        }
        if self.units(assigned, &pod.id, container, resource) == HeldUnits::None {
            return Err(uncertain(AllocationProblem::UnrequestedAnnotation));
        }
        self.share_allocation(tracked, share, oversubscribes).map(Some)
    }

    /// The allocation of a share.
    ///
    /// # Errors
    /// The uncertain device, if it is known, and the reason.
    pub(super) fn share_allocation(
        &self,
        tracked: &TrackedPod,
        share: &GpuShare,
        oversubscribes: bool,
    ) -> Result<DeviceAllocation, Uncertainty> {
        let pod = &tracked.pod;
        let unknown = |gpu| (gpu, AllocationProblem::UnknownDevice);
        let target = self.find_device(share).map_err(unknown)?;
        let device = Arc::clone(target.uuid);
        let uncertain = |problem| (Some(Arc::clone(&device)), problem);
        let container = find_container(pod, share.container)
            .ok_or(uncertain(AllocationProblem::NoContainer))?;
        let (mode, memory, compute) = if let GpuName::Mig { .. } = share.gpu {
            (AllocateMode::Exclusive, target.framebuffer, Some(0.0))
        } else {
            let memory = self.memory_mib(&target, share.memory, oversubscribes);
            (AllocateMode::Share, memory.map_err(uncertain)?, Some(share.compute))
        };
        let (id, name) = (pod.id.clone(), Arc::clone(&container.name));
        Ok(DeviceAllocation {
            container: ContainerIdentity { pod: id, name },
            device,
            mode,
            memory,
            compute,
            reserved: true,
            replica: None,
            claim: None,
            // A pod of the same name may have replaced it while the API server is down.
            confirmed: tracked.listed && self.pods.is_some_and(PodSnapshot::is_current),
            running: pod.runs(&container.name),
            known_since: Duration::ZERO,
        })
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
        match self.options.memory_unit {
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
