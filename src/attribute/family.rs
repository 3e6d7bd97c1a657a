//! Selects the metric family of a process.

use std::time::Duration;

use super::allocation_table::{AllocationTable, DeviceAllocation};
use super::owner::{Owner, Unresolved};
use crate::model::AllocateMode;
use crate::policy::NON_POD_CONTAINER_DELAY;

/// Metric family of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFamily {
    /// `DCGM_CUSTOM_PROCESS_*`, with this value of the `AllocateMode` label.
    Process(AllocateMode),
    /// `DCGM_CUSTOM_ILLEGAL_PROCESS_*`: the process uses a device that is not allocated to it.
    Illegal,
}

/// Device allocations of the node, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub enum AllocationState<'a> {
    /// No source of allocations is configured.
    NoSource {
        /// Whether the node is in a cluster: then a process has no series until its pod is known.
        in_cluster: bool,
    },
    /// The sources have not responded yet.
    Pending,
    /// Allocations from the kubelet and the pods.
    Known(&'a AllocationTable),
}

impl<'a> AllocationState<'a> {
    /// Allocations of a device; empty if unknown.
    #[must_use]
    pub fn allocations_of(self, device: &str) -> &'a [DeviceAllocation] {
        match self {
            Self::Known(table) => table.of_device(device),
            Self::NoSource { .. } | Self::Pending => &[],
        }
    }
}

/// Family of a process of `owner` on `device`. `first_seen` is the time when the first process of
/// the owner was seen on the device.
///
/// # Errors
/// Why the process has no family yet. If it were published now, its labels would change later.
pub fn process_family(
    owner: &Owner,
    device: &str,
    first_seen: Duration,
    now: Duration,
    allocation: AllocationState<'_>,
) -> Result<ProcessFamily, Unresolved> {
    let no_cluster = matches!(allocation, AllocationState::NoSource { in_cluster: false });
    if let (Owner::Unknown(unresolved), false) = (owner, no_cluster) {
        return Err(*unresolved);
    }
    let table = match allocation {
        AllocationState::NoSource { .. } => return Ok(ProcessFamily::Process(AllocateMode::None)),
        AllocationState::Pending => return Err(Unresolved::Allocation),
        AllocationState::Known(table) => table,
    };
    match owner {
        // The pod status may not contain a container that has just started.
        Owner::NonPodContainer if now.saturating_sub(first_seen) < NON_POD_CONTAINER_DELAY => {
            Err(Unresolved::NoPod)
        }
        Owner::Host | Owner::NonPodContainer | Owner::Unknown(_) => Ok(ProcessFamily::Illegal),
        Owner::Container(container) => match table.mode_of(container, device) {
            Some(mode) => Ok(ProcessFamily::Process(mode)),
            // A device is allocated before the container starts.
            None if table.covers(container) && table.is_certain_since(first_seen, device) => {
                Ok(ProcessFamily::Illegal)
            }
            None => Err(Unresolved::Allocation),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::allocation_table::DeviceAllocation;
    use crate::attribute::owner::ContainerIdentity;
    use crate::kube::allocation::Coverage;
    use crate::model::PodRef;
    use std::collections::BTreeSet;

    const GPU: &str = "GPU-0";

    fn container(pod: &str) -> ContainerIdentity {
        let pod = PodRef { uid: pod.into(), namespace: "team".into(), name: pod.into() };
        ContainerIdentity { pod, container: "main".into() }
    }

    fn table(as_of: u64, fresh: bool) -> AllocationTable {
        let allocation = DeviceAllocation {
            container: container("train"),
            device: GPU.into(),
            mode: AllocateMode::Exclusive,
            memory: Some(80.0),
            compute: 0.0,
            replica: "".into(),
            claim: None,
            confirmed: true,
            running: true,
        };
        let none = BTreeSet::new();
        let unlisted =
            Coverage::AllBut { unlisted: ["unlisted".into()].into(), unknown_holders: true };
        AllocationTable::new([allocation], none, false, unlisted)
            .as_of(Duration::from_secs(as_of), fresh)
    }

    /// Family at 120 s of a process that was first seen at 100 s.
    fn of(owner: &Owner, allocation: AllocationState<'_>) -> Result<ProcessFamily, Unresolved> {
        process_family(owner, GPU, Duration::from_secs(100), Duration::from_secs(120), allocation)
    }

    #[test]
    fn process_with_allocation_has_its_mode() {
        let table = table(0, false);
        let owner = Owner::Container(container("train"));
        let exclusive = Ok(ProcessFamily::Process(AllocateMode::Exclusive));
        assert_eq!(of(&owner, AllocationState::Known(&table)), exclusive, "of any age");
    }

    #[test]
    fn process_without_allocation_is_illegal_once_that_is_certain() {
        let owner = Owner::Container(container("intruder"));
        let of = |table: &AllocationTable| of(&owner, AllocationState::Known(table));
        assert_eq!(of(&table(100, true)), Ok(ProcessFamily::Illegal));
        assert_eq!(
            of(&table(99, true)),
            Err(Unresolved::Allocation),
            "confirmed before the process was first_seen"
        );
        assert_eq!(of(&table(100, false)), Err(Unresolved::Allocation), "not confirmed");
        let uncertain = AllocationTable::new([], [GPU.into()].into(), false, Coverage::default());
        let uncertain = uncertain.as_of(Duration::from_secs(100), true);
        assert_eq!(of(&uncertain), Err(Unresolved::Allocation));
        let unlisted = Owner::Container(container("unlisted"));
        let of = process_family(
            &unlisted,
            GPU,
            Duration::from_secs(100),
            Duration::from_secs(120),
            AllocationState::Known(&table(100, true)),
        );
        assert_eq!(of, Err(Unresolved::Allocation), "the kubelet List does not contain its pod");
    }

    #[test]
    fn init_container_uses_the_allocation_of_its_pod() {
        let table = table(100, true);
        let init =
            Owner::Container(ContainerIdentity { container: "init".into(), ..container("train") });
        let process = Ok(ProcessFamily::Process(AllocateMode::Exclusive));
        assert_eq!(of(&init, AllocationState::Known(&table)), process);
    }

    #[test]
    fn host_and_containers_without_a_pod_have_no_allocation() {
        let table = table(0, false);
        let known = AllocationState::Known(&table);
        assert_eq!(of(&Owner::Host, known), Ok(ProcessFamily::Illegal));
        assert_eq!(of(&Owner::NonPodContainer, known), Ok(ProcessFamily::Illegal));
        let just_now = Duration::from_secs(119);
        let early =
            process_family(&Owner::NonPodContainer, GPU, just_now, Duration::from_secs(120), known);
        assert_eq!(early, Err(Unresolved::NoPod), "the pod status may contain it soon");
    }

    #[test]
    fn no_process_is_illegal_without_a_source_of_allocations() {
        let no_mode = Ok(ProcessFamily::Process(AllocateMode::None));
        let unknown = Owner::Unknown(Unresolved::NoPod);
        for owner in [&Owner::Host, &Owner::NonPodContainer, &Owner::Container(container("train"))]
        {
            assert_eq!(of(owner, AllocationState::NoSource { in_cluster: false }), no_mode);
            assert_eq!(of(owner, AllocationState::NoSource { in_cluster: true }), no_mode);
            assert_eq!(of(owner, AllocationState::Pending), Err(Unresolved::Allocation));
        }
        assert_eq!(of(&unknown, AllocationState::NoSource { in_cluster: false }), no_mode);
        let pending = of(&unknown, AllocationState::NoSource { in_cluster: true });
        assert_eq!(pending, Err(Unresolved::NoPod), "its pod is not known yet");
    }
}
