//! The share of a device that its replicas are.

use super::AllocationJoin;
use super::index::IndexedDevice;
use crate::kube::device_id::{self, DeviceId, DeviceName};
use crate::kube::sharing::SharingStrategy;

/// Memory and compute of one replica, as in [`DeviceAllocation`](crate::model::DeviceAllocation).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ReplicaShare {
    pub(super) memory: Option<f64>,
    pub(super) compute: Option<f64>,
    pub(super) reserved: bool,
}

impl ReplicaShare {
    /// All of a device that is not shared. Nothing limits the compute within it.
    pub(super) fn whole(device: &IndexedDevice<'_>) -> Self {
        Self { memory: device.framebuffer, compute: Some(0.0), reserved: true }
    }
}

impl AllocationJoin<'_> {
    /// The share of `replica` of a device: all of it with time-slicing, which limits nothing, and an
    /// equal part with MPS. Unknown if it is not certain which of them it is.
    pub(super) fn replica_share(
        &self,
        resource: &str,
        (name, replica): (DeviceName<'_>, u32),
        device: &IndexedDevice<'_>,
    ) -> ReplicaShare {
        match device.sharing.strategy(name) {
            None => ReplicaShare::default(),
            Some(SharingStrategy::TimeSlicing) => {
                ReplicaShare { memory: device.framebuffer, compute: Some(0.0), reserved: false }
            }
            Some(SharingStrategy::Mps) => {
                let count = self.replica_count(resource, name).filter(|count| replica < *count);
                let fraction = count.map(|count| 1.0 / f64::from(count));
                ReplicaShare {
                    memory: fraction.zip(device.framebuffer).map(|(part, total)| part * total),
                    compute: fraction,
                    reserved: true,
                }
            }
        }
    }

    /// Number of replicas of a device, which the kubelet numbers from 0; `None` if it does not list
    /// all of them as allocatable, as while some are unhealthy.
    fn replica_count(&self, resource: &str, name: DeviceName<'_>) -> Option<u32> {
        let ids = self.assignments.allocatable.get(resource)?;
        let number = |id: &str| match device_id::parse(id) {
            DeviceId::Device { name: other, replica } if other == name => replica,
            DeviceId::Device { .. }
            | DeviceId::SharedUnit { .. }
            | DeviceId::Pci
            | DeviceId::Unknown => None,
        };
        let (mut count, mut highest) = (0_u32, 0);
        for replica in ids.iter().filter_map(|id| number(id)) {
            (count, highest) = (count + 1, highest.max(replica));
        }
        (count > 0 && count - 1 == highest).then_some(count)
    }
}
