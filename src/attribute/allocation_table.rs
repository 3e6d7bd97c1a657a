//! Device allocations of the node, indexed by device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::kube::allocation::{AllocationCompleteness, AllocationDoubt, Coverage};
use crate::kube::assignments::PodName;
use crate::model::{AllocateMode, ContainerIdentity, DeviceAllocation, PodRef};

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
    completeness: AllocationCompleteness,
}

impl AllocationTable {
    /// Indexes `allocations`, which are incomplete as in `completeness`.
    #[must_use]
    pub fn new(
        allocations: impl IntoIterator<Item = DeviceAllocation>,
        completeness: AllocationCompleteness,
    ) -> Self {
        let mut by_device: BTreeMap<Arc<str>, Vec<DeviceAllocation>> = BTreeMap::new();
        for allocation in allocations {
            by_device.entry(Arc::clone(&allocation.device)).or_default().push(allocation);
        }
        for allocations in by_device.values_mut() {
            allocations.sort_unstable_by(|a, b| a.container.names().cmp(&b.container.names()));
        }
        let index = AllocationIndex { by_device, completeness };
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
    /// [`AllocateMode::None`] with administrative access, and `None` without either. The kubelet does
    /// not list init containers and ephemeral
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
            .or_else(|| self.init_candidate(container, device))
            .or_else(|| self.has_admin_access(container, device).then_some(AllocateMode::None))
    }

    /// Whether the allocations of a pod with this name may be those of its predecessor: a process of
    /// `container` was first seen at `first_seen` (monotonic), after the last List with this name.
    #[must_use]
    pub fn may_be_of_predecessor(
        &self,
        container: &ContainerIdentity,
        first_seen: Duration,
    ) -> bool {
        let unlisted = &self.index.completeness.unlisted;
        !unlisted.is_empty()
            && unlisted.get(&pod_name(container)).is_some_and(|listed| *listed < first_seen)
    }

    /// Whether the pod of `container` has administrative access to `device`: it may use it, although
    /// nothing of it is allocated to the pod.
    fn has_admin_access(&self, container: &ContainerIdentity, device: &str) -> bool {
        let admin_access = &self.index.completeness.admin_access;
        admin_access.get(&container.pod.uid).is_some_and(|devices| devices.contains(device))
    }

    /// Mode of a device that `container`, an init container, can have been allocated: the kubelet
    /// lists the device for no container.
    fn init_candidate(&self, container: &ContainerIdentity, device: &str) -> Option<AllocateMode> {
        let candidates = &self.index.completeness.init_candidates;
        if candidates.is_empty() {
            return None;
        }
        candidates.get(&(pod_name(container), Arc::clone(&container.name)))?.get(device).copied()
    }

    /// The container of a pod that holds `device`, if it runs and it is certain that no other container
    /// of the pod holds it.
    #[must_use]
    pub fn only_holder(&self, pod: &PodRef, device: &str) -> Option<&ContainerIdentity> {
        let is_own = |allocation: &&DeviceAllocation| allocation.container.pod.uid == pod.uid;
        let mut holders = self.of_device(device).iter().filter(is_own);
        let holder = holders.next().filter(|_| holders.next().is_none())?;
        let is_certain = holder.confirmed && self.knows_all_of(&holder.container, device);
        (is_certain && holder.running).then_some(&holder.container)
    }

    /// Whether it is known what the pod of `container` was allocated of `device`.
    #[must_use]
    pub fn knows_all_of(&self, container: &ContainerIdentity, device: &str) -> bool {
        let name = pod_name(container);
        let AllocationCompleteness { coverage, doubts, .. } = &self.index.completeness;
        let is_covered = match coverage {
            Coverage::None => false,
            Coverage::Listed(pods) => pods.contains(&name),
            Coverage::Pods { known, .. } => known.contains(&container.pod.uid),
        };
        let in_doubt = |doubt: &AllocationDoubt| doubt.concerns(device);
        is_covered && !doubts.get(&name).is_some_and(|doubts| doubts.iter().any(in_doubt))
    }

    /// Whether the allocations of the pod of `container`, which was running at `since`, are
    /// confirmed.
    #[must_use]
    pub fn is_current(&self, container: &ContainerIdentity, since: Duration) -> bool {
        let known_from = self.index.completeness.unreserved.get(&pod_name(container));
        self.fresh && self.as_of >= since.max(known_from.copied().unwrap_or_default())
    }

    /// Whether a pod with unknown allocations may hold devices.
    fn has_unknown_holders(&self) -> bool {
        let AllocationCompleteness { coverage, node_uncertain, reservation_lost_until, .. } =
            &self.index.completeness;
        *node_uncertain
            || *reservation_lost_until > self.as_of
            || matches!(coverage, Coverage::Pods { unknown_holders: true, .. })
    }

    /// Allocation mode of the node: the maximum over its allocations; `None` if one is unknown.
    #[must_use]
    pub fn mode(&self) -> Option<AllocateMode> {
        let all = || self.index.by_device.values().flatten();
        let confirmed = all().filter(|allocation| allocation.confirmed);
        let mode = confirmed.map(|allocation| allocation.mode).max().unwrap_or_default();
        let known = self.index.completeness.uncertain_devices.is_empty()
            && !self.has_unknown_holders()
            && all().all(|allocation| allocation.confirmed);
        let certain = self.fresh && (mode == AllocateMode::Share || known);
        certain.then_some(mode)
    }

    /// Allocated fraction of a device with `total` MiB of framebuffer, 0 to 1; `None` if unknown.
    #[must_use]
    pub fn allocated(&self, device: &str, total: f64) -> Option<f64> {
        let is_certain = self.fresh && !self.index.completeness.uncertain_devices.contains(device);
        if !is_certain || total <= 0.0 {
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

fn pod_name(container: &ContainerIdentity) -> PodName {
    (Arc::clone(&container.pod.namespace), Arc::clone(&container.pod.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::allocation::AllocationDoubt;

    const GPU: &str = "GPU-0";

    fn container(pod: &str, name: &str) -> ContainerIdentity {
        let pod = PodRef { uid: pod.into(), namespace: "team".into(), name: pod.into() };
        ContainerIdentity { pod, name: name.into() }
    }

    fn allocation(pod: &str, mode: AllocateMode, memory: Option<f64>) -> DeviceAllocation {
        DeviceAllocation {
            container: container(pod, "main"),
            device: GPU.into(),
            mode,
            memory,
            compute: Some(0.0),
            reserved: true,
            replica: None,
            claim: None,
            confirmed: true,
            running: true,
            known_since: Duration::ZERO,
        }
    }

    fn shared(memory: f64) -> DeviceAllocation {
        allocation("share", AllocateMode::Share, Some(memory))
    }

    fn exclusive(memory: f64) -> DeviceAllocation {
        allocation("whole", AllocateMode::Exclusive, Some(memory))
    }

    fn table(
        allocations: &[DeviceAllocation],
        change: impl Fn(&mut AllocationCompleteness),
    ) -> AllocationTable {
        let mut completeness = AllocationCompleteness::default();
        change(&mut completeness);
        AllocationTable::new(allocations.to_vec(), completeness).as_of(Duration::ZERO, true)
    }

    fn certain(_: &mut AllocationCompleteness) {}

    fn node_uncertain(completeness: &mut AllocationCompleteness) {
        completeness.node_uncertain = true;
    }

    fn device_uncertain(completeness: &mut AllocationCompleteness) {
        completeness.uncertain_devices.insert(GPU.into());
    }

    fn unknown_holders(completeness: &mut AllocationCompleteness) {
        let known = ["share", "whole", "admin"].map(Into::into).into();
        completeness.coverage = Coverage::Pods { known, unknown_holders: true };
    }

    #[test]
    fn mode_of_the_node_is_the_highest_and_a_share_is_certain_whatever_else_is_unknown() {
        let modes = |allocations: &[DeviceAllocation]| {
            [certain, node_uncertain, device_uncertain, unknown_holders]
                .map(|change| table(allocations, change).mode())
        };
        let none = Some(AllocateMode::None);
        assert_eq!(modes(&[]), [none, None, None, None]);
        let whole = Some(AllocateMode::Exclusive);
        assert_eq!(modes(&[exclusive(80.0)]), [whole, None, None, None]);
        let share = Some(AllocateMode::Share);
        assert_eq!(modes(&[exclusive(80.0), shared(8.0)]), [share; 4]);
        let unconfirmed = DeviceAllocation { confirmed: false, ..shared(8.0) };
        assert_eq!(table(&[unconfirmed], certain).mode(), None);
        assert_eq!(table(&[shared(8.0)], certain).as_of(Duration::ZERO, false).mode(), None);
    }

    #[test]
    fn allocated_fraction_needs_known_amounts_of_all_holders() {
        let fractions = |allocations: &[DeviceAllocation]| {
            [certain, node_uncertain, device_uncertain, unknown_holders]
                .map(|change| table(allocations, change).allocated(GPU, 80.0))
        };
        assert_eq!(fractions(&[]), [Some(0.0), None, None, None]);
        assert_eq!(fractions(&[shared(20.0), shared(20.0)]), [Some(0.5), None, None, None]);
        // Nothing is left that another pod could have.
        let full = [Some(1.0), Some(1.0), None, Some(1.0)];
        assert_eq!(fractions(&[shared(40.0), shared(40.0)]), full);
        assert_eq!(fractions(&[shared(80.0), shared(80.0)]), full, "each may use all of it");
        let half = Some(0.5);
        assert_eq!(fractions(&[exclusive(40.0)]), [half, half, None, half]);
        let unknown = allocation("share", AllocateMode::Share, None);
        assert_eq!(fractions(&[shared(20.0), unknown]), [None; 4]);
        let of_total = |total| table(&[shared(20.0)], certain).allocated(GPU, total);
        assert_eq!([0.0, -1.0, 80.0].map(of_total), [None, None, Some(0.25)]);
        let stale = table(&[shared(20.0)], certain).as_of(Duration::ZERO, false);
        assert_eq!(stale.allocated(GPU, 80.0), None);
        assert_eq!(table(&[shared(20.0)], certain).allocated("GPU-1", 80.0), Some(0.0));
    }

    #[test]
    fn a_device_of_the_pod_is_that_of_all_its_containers_and_those_of_others_are_not() {
        let pod_name = |pod: &str| -> PodName { ("team".into(), pod.into()) };
        let both = [
            DeviceAllocation { container: container("pod", "a"), ..exclusive(80.0) },
            DeviceAllocation { container: container("pod", "b"), ..shared(80.0) },
        ];
        let table = table(&both, |completeness| {
            let admin = [("admin".into(), [GPU.into()].into())];
            completeness.admin_access = admin.into();
            let candidates = [(GPU.into(), AllocateMode::Exclusive)].into();
            completeness.init_candidates = [((pod_name("init"), "init".into()), candidates)].into();
        });
        for (pod, name, device, mode) in [
            ("pod", "a", GPU, Some(AllocateMode::Exclusive)),
            ("pod", "b", GPU, Some(AllocateMode::Share)),
            ("pod", "debug", GPU, Some(AllocateMode::Exclusive)),
            ("pod", "a", "GPU-1", None),
            ("other", "a", GPU, None),
            ("admin", "main", GPU, Some(AllocateMode::None)),
            ("admin", "main", "GPU-1", None),
            ("init", "init", GPU, Some(AllocateMode::Exclusive)),
            ("init", "main", GPU, None),
            ("init", "init", "GPU-1", None),
            ("other", "init", GPU, None),
        ] {
            let found = table.mode_of(&container(pod, name), device);
            assert_eq!(found, mode, "{pod}/{name} {device}");
        }
    }

    #[test]
    fn what_a_pod_was_allocated_is_known_if_it_is_covered_and_not_in_doubt() {
        let all = |coverage: &Coverage, doubt: Option<AllocationDoubt>| {
            let table = table(&[], |completeness| {
                completeness.coverage = coverage.clone();
                let doubts = doubt.iter().cloned().collect();
                completeness.doubts = [(("team".into(), "pod".into()), doubts)].into();
            });
            ["pod", "other"].map(|pod| table.knows_all_of(&container(pod, "main"), GPU))
        };
        let of_pods = Coverage::Pods { known: ["pod".into()].into(), unknown_holders: true };
        let listed = Coverage::Listed([("team".into(), "pod".into())].into());
        for coverage in [of_pods, listed] {
            assert_eq!(all(&coverage, None), [true, false]);
            assert_eq!(all(&coverage, Some(AllocationDoubt::Any)), [false, false]);
            let of_gpu = |gpu: &str| Some(AllocationDoubt::Device(gpu.into()));
            assert_eq!(all(&coverage, of_gpu(GPU)), [false, false]);
            assert_eq!(all(&coverage, of_gpu("GPU-1")), [true, false]);
        }
        assert_eq!(all(&Coverage::None, None), [false, false]);
    }
}
