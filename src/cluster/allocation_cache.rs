//! The allocation table, resolved again only if one of its inputs has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attribute::allocation_table::AllocationTable;
use crate::kube::allocation::{
    AllocatableGpu, AllocationOptions, AllocationResult, DraObjects, DraRequests,
    resolve_allocations,
};
use crate::kube::assignments::{Assignments, SliceTable};
use crate::kube::pods::PodSnapshot;
use crate::kube::resource_claims::table::ClaimTable;
use crate::kube::retention::AllocationRetention;

/// What a table is resolved from.
pub(super) struct AllocationInputs {
    pub(super) pods: Option<PodSnapshot>,
    pub(super) assignments: Arc<Assignments>,
    pub(super) slices: Option<Arc<SliceTable>>,
    pub(super) claims: Option<Arc<ClaimTable>>,
    pub(super) devices: Vec<AllocatableGpu>,
}

/// The last table with its inputs.
pub(super) struct AllocationCache {
    options: AllocationOptions,
    retention: AllocationRetention,
    latest: Option<CachedAllocations>,
}

struct CachedAllocations {
    inputs: AllocationInputs,
    /// Whether it also depends on when the List was requested: a name is ambiguous, is not confirmed, or may be
    /// that of a predecessor.
    depends_on_time: bool,
    resolved: ResolvedAllocations,
}

/// The allocations of the node.
#[derive(Clone)]
pub(super) struct ResolvedAllocations {
    pub(super) table: AllocationTable,
    /// Number of allocations that were not accepted, by reason.
    pub(super) problems: BTreeMap<&'static str, u64>,
    /// What the claims of the node refer to.
    pub(super) requests: Arc<DraRequests>,
}

impl AllocationInputs {
    fn same_as(&self, other: &Self) -> bool {
        let same_pods = match (&self.pods, &other.pods) {
            (Some(pods), Some(others)) => {
                pods.same_as(others) && pods.is_current() == others.is_current()
            }
            (pods, others) => pods.is_none() && others.is_none(),
        };
        same_pods
            && self.assignments.same_content(&other.assignments)
            && self.slices.as_ref().map(Arc::as_ptr) == other.slices.as_ref().map(Arc::as_ptr)
            && self.claims.as_ref().map(Arc::as_ptr) == other.claims.as_ref().map(Arc::as_ptr)
            && self.devices == other.devices
    }
}

impl AllocationCache {
    /// An empty cache.
    pub(super) fn new(options: AllocationOptions) -> Self {
        Self { options, retention: AllocationRetention::default(), latest: None }
    }

    /// Whether the next List should be requested early: the last one is older than a pod that it may be about.
    pub(super) fn awaits_list(&self) -> bool {
        let pods = self.latest.as_ref().and_then(|latest| latest.inputs.pods.as_ref());
        self.retention.awaits_list(pods)
    }

    /// The allocations of `inputs` at `now` (monotonic).
    pub(super) fn resolve(
        &mut self,
        mut inputs: AllocationInputs,
        now: Duration,
    ) -> ResolvedAllocations {
        if let Some(latest) = &self.latest {
            keep_sizes(&mut inputs.devices, &latest.inputs.devices);
        }
        let is_current = |cached: &&CachedAllocations| {
            let same_list =
                cached.inputs.assignments.requested_at == inputs.assignments.requested_at;
            cached.inputs.same_as(&inputs)
                && (same_list || !cached.depends_on_time && !self.awaits_list())
        };
        if let Some(cached) = self.latest.as_ref().filter(is_current) {
            return cached.resolved.clone();
        }
        let AllocationInputs { pods, assignments, slices, claims, devices } = &inputs;
        let merged = self.retention.apply(assignments, pods.as_ref());
        let dra = DraObjects { slices: slices.as_deref(), claims: claims.as_deref() };
        let result = resolve_allocations(devices, &merged, pods.as_ref(), dra, &self.options);
        let depends_on_time = !merged.unconfirmed.is_empty()
            || !result.completeness.unlisted.is_empty()
            || !result.problems.is_empty();
        let problems = result.problems.clone();
        let requests = Arc::new(result.requests.clone());
        let previous = self.latest.as_ref().map(|latest| &latest.resolved.table);
        let table = build_table(result, previous, now);
        let resolved = ResolvedAllocations { table, problems, requests };
        self.latest =
            Some(CachedAllocations { inputs, depends_on_time, resolved: resolved.clone() });
        resolved
    }
}

/// Completes `devices` with what is known from `before`: the size of a device does not change, and the
/// driver may not state it for a while.
fn keep_sizes(devices: &mut [AllocatableGpu], before: &[AllocatableGpu]) {
    let lacks_size = |gpu: &&mut AllocatableGpu| {
        gpu.framebuffer_mib.is_none() || gpu.migs.iter().any(|mig| mig.framebuffer_mib.is_none())
    };
    for gpu in devices.iter_mut().filter(lacks_size) {
        let Some(before) = before.iter().find(|before| before.uuid == gpu.uuid) else { continue };
        gpu.framebuffer_mib = gpu.framebuffer_mib.or(before.framebuffer_mib);
        for mig in &mut gpu.migs {
            // A UUID may return with another instance and profile.
            let instance = (mig.gpu_instance, mig.compute_instance, mig.placement);
            let same = before.migs.iter().find(|before| {
                before.uuid == mig.uuid
                    && (before.gpu_instance, before.compute_instance, before.placement) == instance
            });
            let size = same.and_then(|before| before.framebuffer_mib);
            mig.framebuffer_mib = mig.framebuffer_mib.or(size);
        }
    }
}

/// Indexes the allocations of `result` at `now` (monotonic); those that `previous` has, too, keep
/// their time.
fn build_table(
    result: AllocationResult,
    previous: Option<&AllocationTable>,
    now: Duration,
) -> AllocationTable {
    let AllocationResult { mut allocations, completeness, .. } = result;
    for allocation in &mut allocations {
        let before = previous.into_iter().flat_map(|table| table.of_device(&allocation.device));
        let mut same = before.filter(|before| {
            before.container.matches(&allocation.container)
                && (before.confirmed, before.running) == (allocation.confirmed, allocation.running)
        });
        allocation.known_since = same.next().map_or(now, |before| before.known_since);
    }
    AllocationTable::new(allocations, completeness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::allocation::AllocatableMig;

    fn gpu(uuid: &str, size: Option<f64>, migs: &[(&str, Option<f64>)]) -> AllocatableGpu {
        let mig = |(uuid, size): &(&str, Option<f64>)| AllocatableMig {
            uuid: (*uuid).into(),
            index: 0,
            gpu_instance: 1,
            compute_instance: 0,
            placement: None,
            framebuffer_mib: *size,
            compute: None,
        };
        AllocatableGpu {
            uuid: uuid.into(),
            minor: Some(0),
            framebuffer_mib: size,
            is_only: false,
            sharing: crate::kube::sharing::SharingEvidence::default(),
            migs: migs.iter().map(mig).collect(),
        }
    }

    #[test]
    fn a_size_that_the_driver_does_not_state_any_more_is_that_of_before() {
        let before = [
            gpu("GPU-0", Some(80.0), &[("MIG-a", Some(10.0)), ("MIG-b", None)]),
            gpu("GPU-1", Some(40.0), &[]),
        ];
        let mut now = [
            gpu("GPU-0", None, &[("MIG-a", None), ("MIG-b", None), ("MIG-c", None)]),
            gpu("GPU-1", Some(20.0), &[]),
            gpu("GPU-2", None, &[]),
        ];
        keep_sizes(&mut now, &before);
        let kept = [("MIG-a", Some(10.0)), ("MIG-b", None), ("MIG-c", None)];
        assert_eq!(now[0], gpu("GPU-0", Some(80.0), &kept));
        assert_eq!(now[1], gpu("GPU-1", Some(20.0), &[]), "a new size replaces the old one");
        assert_eq!(now[2].framebuffer_mib, None);
        let mut other = [gpu("GPU-0", None, &[("MIG-a", None)])];
        other[0].migs[0].gpu_instance = 2;
        keep_sizes(&mut other, &before);
        assert_eq!(
            other[0].migs[0].framebuffer_mib, None,
            "its UUID returned with another instance"
        );
    }
}
