//! Allocations of one device that cannot all be true.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::{AllocationJoin, AllocationOrigin, AllocationProblem, AllocationResult, pod_name};
use crate::kube::pods::{TrackedPod, UidLookup};
use crate::model::{AllocateMode, ContainerIdentity, DeviceAllocation, PodRef};

/// The accepted allocations of one device.
type DeviceAllocations = BTreeMap<ContainerIdentity, DeviceAllocation>;

/// Age of a pod's annotations, oldest first: pods being deleted last, then by the time of the last change,
/// then by creation.
type AnnotationAge = (bool, Duration, Option<NonZeroU64>, Arc<str>);

impl AllocationJoin<'_> {
    /// Devices of which one container was allocated all by the kubelet. Call it before the annotations
    /// are joined.
    pub(super) fn devices_allocated_whole(&self) -> BTreeSet<Arc<str>> {
        let exclusive = self.candidates.iter().map(|(_, allocation)| allocation);
        exclusive
            .filter(|allocation| allocation.mode == AllocateMode::Exclusive)
            .map(|allocation| Arc::clone(&allocation.device))
            .collect()
    }

    /// Records that the allocated amount of a device is unknown.
    pub(super) fn mark_uncertain(&mut self, device: &Arc<str>, problem: AllocationProblem) {
        self.count_problem(problem);
        self.result.completeness.uncertain_devices.insert(Arc::clone(device));
    }

    /// Resolves the candidates of each device together.
    pub(super) fn resolve_conflicts(mut self) -> AllocationResult {
        let mut by_device = BTreeMap::<_, Vec<_>>::new();
        for (evidence, allocation) in std::mem::take(&mut self.candidates) {
            by_device
                .entry(Arc::clone(&allocation.device))
                .or_default()
                .push((evidence, allocation));
        }
        for (device, allocations) in by_device {
            self.resolve_device(&device, allocations);
        }
        let key = |s: &DeviceAllocation| (s.container.clone(), Arc::clone(&s.device));
        self.result.allocations.sort_by_cached_key(key);
        self.result
    }

    fn resolve_device(
        &mut self,
        device: &Arc<str>,
        allocations: Vec<(AllocationOrigin, DeviceAllocation)>,
    ) {
        // A reservation pod holds the device of a group at the kubelet.
        let is_annotation =
            |evidence: AllocationOrigin| matches!(evidence, AllocationOrigin::Annotation { .. });
        let allocated_by_kubelet =
            allocations.iter().any(|(evidence, _)| !is_annotation(*evidence));
        let mut accepted = DeviceAllocations::new();
        let (mut strict, mut ids, mut claims) = (true, false, false);
        for (evidence, allocation) in allocations {
            match evidence {
                AllocationOrigin::Annotation { .. } if allocated_by_kubelet => {
                    // It holds units of some other device.
                    let pod = pod_name(&allocation.container.pod);
                    self.mark_unknown(pod, None, AllocationProblem::ContradictedAnnotation);
                    continue;
                }
                AllocationOrigin::Annotation { oversubscribes } => strict &= !oversubscribes,
                AllocationOrigin::Group => {}
                AllocationOrigin::Id => ids = true,
                AllocationOrigin::Claim => claims = true,
            }
            let container = allocation.container.clone();
            accepted
                .entry(container)
                .and_modify(|merged| merge(merged, &allocation))
                .or_insert(allocation);
        }
        let exclusive =
            accepted.values().any(|allocation| allocation.mode == AllocateMode::Exclusive);
        if !ids && !claims && (strict || exclusive) {
            self.withhold_newest(device, &mut accepted, exclusive);
        } else if (ids && claims) || (exclusive && accepted.len() > 1) {
            self.count_problem(AllocationProblem::ContestedDevice);
            for container in accepted.keys() {
                self.add_doubt(pod_name(&container.pod), Some(device));
                self.result.completeness.uncertain_devices.insert(Arc::clone(device));
            }
            return;
        }
        // The scheduler has made each claim: no share is rejected, but their sum is wrong.
        let sizes = accepted.values().filter(|allocation| allocation.reserved);
        let size: f64 = sizes.filter_map(|allocation| allocation.memory).sum();
        if claims && size > self.capacity(device) {
            self.mark_uncertain(device, AllocationProblem::Overcommitted);
        }
        if accepted.values().any(|allocation| !allocation.confirmed) {
            self.mark_uncertain(device, AllocationProblem::UnlistedPod);
        }
        self.result.allocations.extend(accepted.into_values());
    }

    /// MiB that can be allocated of a device; unlimited if its size is unknown.
    fn capacity(&self, device: &Arc<str>) -> f64 {
        self.index.framebuffer(device).unwrap_or(f64::INFINITY) * (1.0 + 1e-6)
    }

    /// Withholds the newest shares that a device has no memory for; of an `exclusive`
    /// device, which only one pod can have, those of all pods but the first.
    fn withhold_newest(
        &mut self,
        device: &Arc<str>,
        accepted: &mut DeviceAllocations,
        exclusive: bool,
    ) {
        let mut pods = BTreeMap::<AnnotationAge, (&PodRef, f64)>::new();
        for (container, allocation) in &*accepted {
            let age = self.annotation_age(&container.pod);
            pods.entry(age).or_insert((&container.pod, 0.0)).1 += allocation.memory.unwrap_or(0.0);
        }
        let total = self.capacity(device);
        let (mut sum, mut withheld) = (0.0, Vec::new());
        for (n, ((is_deleting, ..), (pod, memory))) in pods.into_iter().enumerate() {
            // A scheduler may allocate the memory of a pod again while that pod is being deleted.
            let fits = if exclusive { n == 0 } else { is_deleting || sum + memory <= total };
            if fits {
                sum += memory;
            } else {
                withheld.push(pod.clone());
            }
        }
        for pod in withheld {
            accepted.retain(|container, _| container.pod != pod);
            let problem = if exclusive {
                AllocationProblem::ContestedDevice
            } else {
                AllocationProblem::Overcommitted
            };
            self.mark_unknown(pod_name(&pod), Some(device), problem);
        }
        if exclusive && accepted.len() > 1 {
            for allocation in accepted.values_mut() {
                (allocation.mode, allocation.reserved) = (AllocateMode::Share, false);
            }
        }
    }

    fn annotation_age(&self, pod: &PodRef) -> AnnotationAge {
        let uid = Arc::clone(&pod.uid);
        match self.pods.map(|pods| pods.by_uid(&pod.uid)) {
            Some(UidLookup::Live(TrackedPod { pod, annotated, .. })) => {
                (pod.deleting, *annotated, pod.created, uid)
            }
            _ => (true, Duration::MAX, None, uid),
        }
    }
}

/// Merges two allocations of one device to one container.
fn merge(into: &mut DeviceAllocation, other: &DeviceAllocation) {
    into.memory = match (into.memory, other.memory) {
        (Some(a), Some(b)) if into.reserved && other.reserved => Some(a + b),
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    };
    into.compute = match (into.compute, other.compute) {
        (Some(a), Some(b)) if a > 0.0 && b > 0.0 => Some((a + b).min(1.0)),
        (Some(_), Some(_)) => Some(0.0),
        _ => None,
    };
    into.mode = into.mode.max(other.mode);
    into.reserved &= other.reserved;
    into.replica = into.replica.into_iter().chain(other.replica).min();
}
