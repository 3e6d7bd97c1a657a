//! Values read from the kubelet's `PodResources` service and from `ResourceSlice`s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One List response of the kubelet's `PodResources` service.
///
/// It identifies pods by namespace and name only, and before Kubernetes 1.34 it contains ended pods
/// too. [`super::allocation`] resolves them to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    /// All pods in the List, with or without devices. A pod that is missing may still have devices:
    /// the List of a restarted kubelet is empty at first.
    pub pods: BTreeSet<PodName>,
    /// Names that are those of an ended pod and of its successor in the List, or of which it is not
    /// known which of both they are.
    pub ambiguous: BTreeSet<PodName>,
    /// Pods of `containers` that are not in this List and that may no longer exist.
    pub unconfirmed: BTreeSet<PodName>,
    /// Names with devices in `containers` that may be those of a predecessor only, and when the last List that contains
    /// them was requested (monotonic): a pod that is seen later may be a successor.
    pub unlisted: BTreeMap<PodName, Duration>,
    /// Containers with allocated devices, in the order of the response.
    pub containers: Vec<ContainerAssignment>,
    /// Allocatable device ids on this node, by resource.
    pub allocatable: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// When the List was requested (monotonic).
    pub requested_at: Duration,
    /// The same by the clock of the node, in microseconds since the Unix epoch.
    pub requested_at_wall_us: u64,
}

/// Namespace and name of a pod.
pub type PodName = (Arc<str>, Arc<str>);

/// The devices that are allocated to one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerAssignment {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The container's name.
    pub container: Arc<str>,
    /// Device ids by resource. The entries of one resource (one per NUMA node) are merged.
    pub devices: Vec<(Box<str>, Vec<Box<str>>)>,
    /// Devices of its resource claims (`dynamic_resources`).
    pub claims: Vec<ClaimedDevice>,
}

/// A device of a resource claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimedDevice {
    /// The claim's namespace.
    pub claim_namespace: Arc<str>,
    /// The claim's name.
    pub claim_name: Arc<str>,
    /// The DRA driver of the device.
    pub driver: Box<str>,
    /// Pool of the device; usually the name of the node.
    pub pool: Box<str>,
    /// Name of the device in the pool.
    pub device: Box<str>,
    /// Share id, if several claims share the device.
    pub share: Option<Box<str>>,
}

/// The devices of the `ResourceSlice`s of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceTable {
    /// By driver, pool and name.
    pub devices: BTreeMap<SliceKey, SliceDevice>,
}

/// Driver, pool and name of a device, as a claim refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceKey {
    /// `spec.driver`.
    pub driver: Box<str>,
    /// `spec.pool.name`.
    pub pool: Box<str>,
    /// `spec.devices[].name`.
    pub device: Box<str>,
}

/// A device of a `ResourceSlice`. The attribute names are those of NVIDIA's DRA driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceDevice {
    /// Attribute `uuid`. MIG devices that are created on demand have none.
    pub uuid: Option<Box<str>>,
    /// Attribute `type`: `gpu`, `mig`, `vfio`.
    pub kind: Option<Box<str>>,
    /// Attribute `parentUUID` of a MIG device.
    pub parent: Option<Box<str>>,
    /// Attribute `profile` of a MIG device.
    pub profile: Option<Box<str>>,
}

impl Assignments {
    /// Whether both are equal apart from the time of their requests.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.pods == other.pods
            && self.ambiguous == other.ambiguous
            && self.containers == other.containers
            && self.allocatable == other.allocatable
    }
}

/// The DRA driver of NVIDIA's GPUs.
pub const NVIDIA_DRIVER: &str = "gpu.nvidia.com";

impl ClaimedDevice {
    /// Whether its driver can allocate GPUs. Schedulers for shared GPUs have drivers of their own;
    /// no driver of network devices or storage has `gpu` in its name.
    #[must_use]
    pub fn may_be_gpu(&self) -> bool {
        self.driver.contains("gpu") && is_dns_name(&self.driver)
    }

    /// The key of its device.
    #[must_use]
    pub fn key(&self) -> SliceKey {
        SliceKey {
            driver: self.driver.clone(),
            pool: self.pool.clone(),
            device: self.device.clone(),
        }
    }
}

/// Whether the API server admits `text` as a name; it can then be a part of a URL.
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_valid);
    text.len() <= 253 && text.split('.').all(is_label)
}

impl SliceTable {
    /// The device that a claim refers to.
    #[must_use]
    pub fn get(&self, claimed: &ClaimedDevice) -> Option<&SliceDevice> {
        self.devices.get(&claimed.key())
    }

    /// Keeps what `before` has of the devices of `claimed` that this table lacks: the slices of a
    /// driver vanish while it is restarted, and the device of a claim does not change.
    pub fn retain_claimed(&mut self, before: &Self, claimed: &BTreeSet<SliceKey>) {
        for (key, device) in &before.devices {
            if claimed.contains(key) && !self.devices.contains_key(key) {
                self.devices.insert(key.clone(), device.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_device_matches_by_driver_pool_and_name() {
        let key = |pool: &str| SliceKey {
            driver: "gpu.nvidia.com".into(),
            pool: pool.into(),
            device: "gpu-0".into(),
        };
        let device = |uuid: &str| SliceDevice { uuid: Some(uuid.into()), ..SliceDevice::default() };
        let slices = SliceTable {
            devices: [(key("n1"), device("GPU-1")), (key("n2"), device("GPU-2"))].into(),
        };
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
        for (driver, is_gpu) in [
            (NVIDIA_DRIVER, true),
            ("hami-core-gpu.project-hami.io", true),
            ("compute-domain.nvidia.com", false),
            ("dra.net", false),
            ("gpu&x=1", false),
        ] {
            claimed.driver = driver.into();
            assert_eq!(claimed.may_be_gpu(), is_gpu, "{driver}");
        }
    }

    #[test]
    fn device_of_a_claim_is_kept_when_its_slice_vanishes() {
        let key = |device: &str| SliceKey {
            driver: NVIDIA_DRIVER.into(),
            pool: "n1".into(),
            device: device.into(),
        };
        let device = |uuid: &str| SliceDevice { uuid: Some(uuid.into()), ..SliceDevice::default() };
        let of = |devices: &[(&str, &str)]| SliceTable {
            devices: devices.iter().map(|(name, uuid)| (key(name), device(uuid))).collect(),
        };
        let before = of(&[("gpu-0", "GPU-0"), ("gpu-1", "GPU-1"), ("gpu-2", "GPU-2")]);
        let mut slices = of(&[("gpu-1", "GPU-new")]);
        slices.retain_claimed(&before, &[key("gpu-0"), key("gpu-1"), key("gpu-9")].into());
        assert_eq!(slices, of(&[("gpu-0", "GPU-0"), ("gpu-1", "GPU-new")]));
    }
}
