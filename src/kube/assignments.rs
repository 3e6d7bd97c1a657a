//! What the kubelet says it has given to whom, and what drivers say of the devices they offer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One answer of the kubelet's `PodResources` service.
///
/// It names pods by namespace and name only, and before Kubernetes 1.34 it names ended pods too:
/// who is meant is for [`super::allocation`] to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    /// Every pod that the List names, with devices or without. A pod that it does not name may hold
    /// devices all the same: a kubelet that restarts names no pods at first.
    pub pods: BTreeSet<PodName>,
    /// Pods of `containers` that this List does not name, and of which it is not known whether they
    /// still exist.
    pub unconfirmed: BTreeSet<PodName>,
    /// Containers that were given something, in the order of the answer.
    pub containers: Vec<Assigned>,
    /// All ids of each resource that device plugins offer on this node.
    pub allocatable: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// When the list that says so was asked for, on the monotonic clock.
    pub taken: Duration,
}

/// Namespace and name of a pod.
pub type PodName = (Arc<str>, Arc<str>);

/// A container and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The container's name.
    pub container: Arc<str>,
    /// Ids by resource, the entries of one resource (one per NUMA node) merged.
    pub devices: Vec<(Box<str>, Vec<Box<str>>)>,
    /// Devices that were claimed dynamically.
    pub claims: Vec<ClaimedDevice>,
}

/// A device of a claim (`dynamic_resources`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDevice {
    /// The claim's namespace.
    pub claim_namespace: Arc<str>,
    /// The claim's name.
    pub claim_name: Arc<str>,
    /// The driver that offers the device.
    pub driver: Box<str>,
    /// The pool it is of; for devices of a node usually the node's name.
    pub pool: Box<str>,
    /// Its name in the pool.
    pub device: Box<str>,
    /// Which share of a device that several claims use.
    pub share: Option<Box<str>>,
}

/// The devices of the `ResourceSlice`s of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// By driver, pool and name.
    pub devices: BTreeMap<SliceKey, SliceDevice>,
}

/// Driver, pool and name of a device: what a claim says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceKey {
    /// `spec.driver`.
    pub driver: Box<str>,
    /// `spec.pool.name`.
    pub pool: Box<str>,
    /// `spec.devices[].name`.
    pub device: Box<str>,
}

/// What a driver says of a device that it offers; the names are those of NVIDIA's driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceDevice {
    /// Attribute `uuid`. MIG devices that are made on demand have none.
    pub uuid: Option<Box<str>>,
    /// Attribute `type`: `gpu`, `mig`, `vfio`.
    pub kind: Option<Box<str>>,
    /// Attribute `parentUUID` of a MIG device.
    pub parent: Option<Box<str>>,
    /// Attribute `profile` of a MIG device.
    pub profile: Option<Box<str>>,
}

impl Assignments {
    /// Whether both answers say the same, whenever they were given.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.pods == other.pods
            && self.containers == other.containers
            && self.allocatable == other.allocatable
    }
}

impl Slices {
    /// The device that a claim names.
    #[must_use]
    pub fn get(&self, claimed: &ClaimedDevice) -> Option<&SliceDevice> {
        self.devices.get(&SliceKey {
            driver: claimed.driver.clone(),
            pool: claimed.pool.clone(),
            device: claimed.device.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_device_is_found_by_its_whole_name_only() {
        let key = |pool: &str| SliceKey {
            driver: "gpu.nvidia.com".into(),
            pool: pool.into(),
            device: "gpu-0".into(),
        };
        let device = |uuid: &str| SliceDevice { uuid: Some(uuid.into()), ..SliceDevice::default() };
        let slices =
            Slices { devices: [(key("n1"), device("GPU-1")), (key("n2"), device("GPU-2"))].into() };
        let mut claimed = ClaimedDevice {
            claim_namespace: "demo".into(),
            claim_name: "train".into(),
            driver: "gpu.nvidia.com".into(),
            pool: "n2".into(),
            device: "gpu-0".into(),
            share: None,
        };
        assert_eq!(slices.get(&claimed).unwrap().uuid.as_deref(), Some("GPU-2"));
        claimed.driver = "gpu.example.com".into();
        assert_eq!(slices.get(&claimed), None);
    }
}
