//! Device allocations of the node, indexed by device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::owner::ContainerIdentity;
use crate::kube::allocation::Coverage;
use crate::model::{AllocateMode, Claim, ContainerAllocation, Missing, PodRef};

/// Allocation of one device to one container.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceAllocation {
    /// The container.
    pub container: ContainerIdentity,
    /// UUID of the GPU or MIG device.
    pub device: Arc<str>,
    /// Exclusive or shared.
    pub mode: AllocateMode,
    /// Allocated framebuffer, MiB; `None` if unknown.
    pub memory: Option<f64>,
    /// Allocated fraction of the device's compute, 0 to 1; 0 is unlimited.
    pub compute: f64,
    /// Number of the replica, or of the first of several; empty without replicas.
    pub replica: Arc<str>,
    /// The resource claim (DRA) that allocated the device.
    pub claim: Option<Arc<Claim>>,
    /// Whether the pod is known to still exist.
    pub confirmed: bool,
    /// Whether the container is known to run, with no init container that still has to end before
    /// it.
    pub running: bool,
}

impl DeviceAllocation {
    /// Values of the allocation series of the container; absent if the pod may no longer exist.
    #[must_use]
    pub fn series_values(&self) -> ContainerAllocation {
        let known = if self.confirmed { Ok(()) } else { Err(Missing::Pending) };
        ContainerAllocation {
            memory: known.and(self.memory.ok_or(Missing::Pending)),
            compute: known.map(|()| self.compute),
        }
    }
}

/// All device allocations of a node at one time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AllocationTable {
    index: Arc<AllocationIndex>,
    as_of: Duration,
    fresh: bool,
}

#[derive(Debug, Default)]
struct AllocationIndex {
    by_device: BTreeMap<Arc<str>, Vec<DeviceAllocation>>,
    uncertain_devices: BTreeSet<Arc<str>>,
    node_uncertain: bool,
    coverage: Coverage,
}

impl AllocationTable {
    /// Indexes `allocations`. `uncertain_devices` are devices with an allocation to an unknown
    /// container or of an unknown size; with `node_uncertain` a container has an allocation of an
    /// unknown device.
    #[must_use]
    pub fn new(
        allocations: impl IntoIterator<Item = DeviceAllocation>,
        uncertain_devices: BTreeSet<Arc<str>>,
        node_uncertain: bool,
        coverage: Coverage,
    ) -> Self {
        let mut by_device: BTreeMap<Arc<str>, Vec<DeviceAllocation>> = BTreeMap::new();
        for allocation in allocations {
            by_device.entry(Arc::clone(&allocation.device)).or_default().push(allocation);
        }
        for allocations in by_device.values_mut() {
            allocations.sort_unstable_by(|a, b| a.container.names().cmp(&b.container.names()));
        }
        let index = AllocationIndex { by_device, uncertain_devices, node_uncertain, coverage };
        Self { index: Arc::new(index), as_of: Duration::ZERO, fresh: false }
    }

    /// Sets the time of the last confirmation (monotonic), and whether the sources are current.
    #[must_use]
    pub fn as_of(self, as_of: Duration, fresh: bool) -> Self {
        Self { as_of, fresh, ..self }
    }

    /// Allocations of a device, ordered by pod and container.
    #[must_use]
    pub fn of_device(&self, device: &str) -> &[DeviceAllocation] {
        self.index.by_device.get(device).map_or(&[], Vec::as_slice)
    }

    /// Mode in which `device` is allocated to `container`, or else to another container of its pod;
    /// `None` without an allocation. The kubelet does not list init containers and ephemeral
    /// containers; they may use the devices of their pod.
    #[must_use]
    pub fn mode_of(&self, container: &ContainerIdentity, device: &str) -> Option<AllocateMode> {
        let allocations = self.of_device(device).iter();
        let mut of_pod =
            allocations.filter(|allocation| allocation.container.is_in_pod_of(container));
        let first = of_pod.clone().next();
        of_pod
            .find(|allocation| allocation.container.matches(container))
            .or(first)
            .map(|allocation| allocation.mode)
    }

    /// Whether the allocations of the pod of `container` are known.
    #[must_use]
    pub fn covers(&self, container: &ContainerIdentity) -> bool {
        let PodRef { uid, namespace, name } = &container.pod;
        match &self.index.coverage {
            Coverage::Listed(pods) => pods.contains(&(Arc::clone(namespace), Arc::clone(name))),
            Coverage::AllBut { unlisted, .. } => !unlisted.contains(uid),
        }
    }

    /// Whether a pod with unknown allocations may hold devices.
    fn has_unknown_holders(&self) -> bool {
        matches!(self.index.coverage, Coverage::AllBut { unknown_holders: true, .. })
    }

    /// Whether a container that ran at `since` and is not listed for `device` certainly has no
    /// allocation of it.
    #[must_use]
    pub fn is_certain_since(&self, since: Duration, device: &str) -> bool {
        self.is_certain(device) && self.as_of >= since
    }

    /// Whether all allocations of `device` are known.
    #[must_use]
    pub fn is_certain(&self, device: &str) -> bool {
        self.fresh && !self.index.node_uncertain && !self.index.uncertain_devices.contains(device)
    }

    /// Allocation mode of the node: the maximum over its allocations; `None` if one is unknown.
    #[must_use]
    pub fn mode(&self) -> Option<AllocateMode> {
        let known = self.fresh && !self.index.node_uncertain;
        let modes = self.index.by_device.values().flatten().map(|allocation| allocation.mode);
        let mode = modes.max().unwrap_or_default();
        let certain = known && (mode == AllocateMode::Share || !self.has_unknown_holders());
        certain.then_some(mode)
    }

    /// Allocated fraction of a device with `total` MiB of framebuffer, 0 to 1; `None` if unknown.
    #[must_use]
    pub fn allocated(&self, device: &str, total: f64) -> Option<f64> {
        if !self.is_certain(device) || total <= 0.0 {
            return None;
        }
        let allocations = self.of_device(device);
        let memory = allocations.iter().map(|allocation| allocation.memory).sum::<Option<f64>>()?;
        let whole = allocations.iter().any(|allocation| allocation.mode == AllocateMode::Exclusive);
        if self.has_unknown_holders() && !whole && memory < total {
            return None;
        }
        // The sum can exceed the total: with time-slicing every container may use all of the
        // memory, and a scheduler may allocate the memory of a pod that is still being deleted.
        Some((memory / total).clamp(0.0, 1.0))
    }
}
