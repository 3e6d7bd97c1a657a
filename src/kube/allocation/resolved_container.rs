//! What the kubelet has allocated to one container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::IndexedDevice;
use super::replicas::ReplicaShare;
use super::{AllocationDoubt, AllocationOrigin, AllocationProblem};
use crate::kube::assignments::ContainerAssignment;
use crate::model::{AllocateMode, Claim, PodRef};

/// One device of one container; fields as in `DeviceAllocation`.
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

/// A container of the List, and its pod; `None` if that has ended.
pub(super) type LocatedContainer<'a> =
    (&'a ContainerAssignment, Result<Option<PodRef>, AllocationProblem>);

/// The devices of one container.
#[derive(Default)]
pub(super) struct ResolvedContainer {
    pub(super) devices: BTreeMap<Arc<str>, AssignedDevice>,
    /// Devices and shares of its claims; several shares of one device add up.
    pub(super) claimed: Vec<AssignedDevice>,
    /// Devices to which it has administrative access, with their MIG devices.
    pub(super) admin_access: BTreeSet<Arc<str>>,
    /// Number of units of shared GPUs, by resource.
    pub(super) units: BTreeMap<Box<str>, u32>,
    /// Allocations that cannot be resolved, with their device if it is known.
    pub(super) unresolved: Vec<(Option<Arc<str>>, AllocationProblem)>,
    /// What is unknown of this pod only, and makes no device uncertain.
    pub(super) pod_doubts: BTreeSet<AllocationDoubt>,
    /// Problems that make nothing uncertain.
    pub(super) counted: Vec<AllocationProblem>,
}

impl ResolvedContainer {
    /// Adds the device of an id, or another replica of a device.
    pub(super) fn add_id(
        &mut self,
        device: &IndexedDevice<'_>,
        replica: Option<u32>,
        share: ReplicaShare,
    ) {
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

    /// Whether nothing is allocated to it, and nothing is unknown.
    pub(super) fn is_empty(&self) -> bool {
        let Self { devices, claimed, admin_access, units, unresolved, pod_doubts, counted } = self;
        devices.is_empty()
            && claimed.is_empty()
            && admin_access.is_empty()
            && units.is_empty()
            && unresolved.is_empty()
            && pod_doubts.is_empty()
            && counted.is_empty()
    }
}
