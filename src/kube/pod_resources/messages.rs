//! The protobuf messages of `PodResources` v1, with the fields that are read.
//!
//! Other fields (topology, CPUs, memory, additions of later versions) are skipped when a message is
//! decoded. The pods of a response stay encoded and are decoded one at a time: most have no devices
//! and are dropped at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::kube::assignments::{ClaimedDevice, ContainerAssignment, PodName};
use crate::policy::PODS_MAX;

/// The device ids that device plugins advertise on this node, by resource.
pub type Allocatable = BTreeMap<Box<str>, Vec<Box<str>>>;

/// What a List names.
#[derive(Debug, Default)]
pub struct PodResourcesList {
    /// Every pod, with devices or without; only the first [`PODS_MAX`], which is more than any
    /// kubelet runs.
    pub pods: BTreeSet<PodName>,
    /// Names that several pods have: an ended pod and its successor.
    pub ambiguous: BTreeSet<PodName>,
    /// The containers of these pods with allocated devices, in the order of the response.
    pub containers: Vec<ContainerAssignment>,
}

/// The request of both methods, without parameters.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// The response of `List`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodResourcesResponse {
    /// Encoded messages of type [`PodResources`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub pod_resources: Vec<Bytes>,
}

/// The response of `GetAllocatableResources`.
#[derive(Clone, PartialEq, Message)]
pub struct AllocatableResourcesResponse {
    /// One or more entries for each resource.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
}

/// The resources of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodResources {
    /// Name of the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Namespace of the pod.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its containers, without init containers other than sidecars.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// The resources of a container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerResources {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One or more entries for each resource.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// Its resource claims (since Kubernetes 1.27, enabled by default since 1.34).
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// Devices of one resource, usually of one NUMA node.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerDevices {
    /// Resource name, such as `nvidia.com/gpu`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// Ids of the device plugin.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// A resource claim.
#[derive(Clone, PartialEq, Message)]
pub struct DynamicResource {
    /// Name of the claim.
    #[prost(string, tag = "2")]
    pub claim_name: String,
    /// Namespace of the claim.
    #[prost(string, tag = "3")]
    pub claim_namespace: String,
    /// Allocated devices.
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

/// A device of a claim.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResource {
    /// DRA driver (this and the next two fields since Kubernetes 1.31).
    #[prost(string, tag = "2")]
    pub driver_name: String,
    /// Pool of the driver.
    #[prost(string, tag = "3")]
    pub pool_name: String,
    /// Name of the device in the pool.
    #[prost(string, tag = "4")]
    pub device_name: String,
    /// Id of the share, if the device is shared by several claims (since 1.35).
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

impl ListPodResourcesResponse {
    /// The pods, and the containers with allocated devices.
    ///
    /// # Errors
    /// A pod cannot be decoded. The whole list is rejected then, because it would be incomplete.
    pub fn into_list(self) -> Result<PodResourcesList, DecodeError> {
        let mut list = PodResourcesList::default();
        for bytes in self.pod_resources {
            let pod = PodResources::decode(bytes)?;
            let name = (Arc::<str>::from(&*pod.namespace), Arc::<str>::from(&*pod.name));
            if list.pods.len() >= PODS_MAX && !list.pods.contains(&name) {
                continue;
            }
            list.containers.extend(pod.assigned(&name.0, &name.1));
            if let Some(name) = list.pods.replace(name) {
                list.ambiguous.insert(name);
            }
        }
        Ok(list)
    }
}

impl AllocatableResourcesResponse {
    /// The device ids by resource.
    #[must_use]
    pub fn allocatable(self) -> Allocatable {
        let mut all = Allocatable::new();
        for entry in self.devices {
            let ids = entry.device_ids.into_iter().map(String::into_boxed_str);
            all.entry(entry.resource_name.into()).or_default().extend(ids);
        }
        all
    }
}

impl PodResources {
    fn assigned(
        self,
        namespace: &Arc<str>,
        pod: &Arc<str>,
    ) -> impl Iterator<Item = ContainerAssignment> {
        self.containers.into_iter().filter_map(move |container| {
            let devices = merged(container.devices);
            let claims: Vec<_> =
                container.dynamic_resources.into_iter().flat_map(claimed).collect();
            (!devices.is_empty() || !claims.is_empty()).then(|| ContainerAssignment {
                namespace: Arc::clone(namespace),
                pod: Arc::clone(pod),
                container: container.name.into(),
                devices,
                claims,
            })
        })
    }
}

/// The ids by resource, in the order of the response.
fn merged(entries: Vec<ContainerDevices>) -> Vec<(Box<str>, Vec<Box<str>>)> {
    let mut merged: Vec<(Box<str>, Vec<Box<str>>)> = Vec::new();
    // There are hundreds of entries of two or three resources: the previous one usually matches.
    for entry in entries {
        if entry.device_ids.is_empty() {
            continue;
        }
        let ids = entry.device_ids.into_iter().map(String::into_boxed_str);
        match merged.iter_mut().rfind(|(resource, _)| **resource == *entry.resource_name) {
            Some((_, merged_ids)) => merged_ids.extend(ids),
            None => merged.push((entry.resource_name.into(), ids.collect())),
        }
    }
    merged
}

fn claimed(claim: DynamicResource) -> impl Iterator<Item = ClaimedDevice> {
    // Shared by all devices of the claim: copies of a long name for thousands of devices would need
    // gigabytes.
    let namespace: Arc<str> = claim.claim_namespace.into();
    let name: Arc<str> = claim.claim_name.into();
    claim.claim_resources.into_iter().map(move |device| ClaimedDevice {
        claim_namespace: Arc::clone(&namespace),
        claim_name: Arc::clone(&name),
        driver: device.driver_name.into(),
        pool: device.pool_name.into(),
        device: device.device_name.into(),
        share: device.share_id.filter(|id| !id.is_empty()).map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
        ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn list(containers: Vec<ContainerResources>) -> ListPodResourcesResponse {
        let pod = PodResources { name: "train".into(), namespace: "demo".into(), containers };
        ListPodResourcesResponse { pod_resources: vec![pod.encode_to_vec().into()] }
    }

    #[test]
    fn entries_of_a_resource_are_merged_and_empty_containers_dropped() {
        let container = ContainerResources {
            name: "main".into(),
            devices: vec![
                devices("nvidia.com/gpu", &["GPU-1"]),
                devices("example.com/nic", &["a"]),
                devices("example.com/none", &[]),
                devices("nvidia.com/gpu", &["GPU-2", "GPU-3"]),
            ],
            dynamic_resources: Vec::new(),
        };
        let idle = ContainerResources { name: "side".into(), ..ContainerResources::default() };
        let PodResourcesList { pods, containers: assigned, ambiguous: _ } =
            list(vec![idle, container]).into_list().unwrap();
        assert_eq!(pods, BTreeSet::from([("demo".into(), "train".into())]));
        assert_eq!(assigned.len(), 1);
        assert_eq!((&*assigned[0].pod, &*assigned[0].container), ("train", "main"));
        let gpus: Vec<Box<str>> = vec!["GPU-1".into(), "GPU-2".into(), "GPU-3".into()];
        let expected =
            [("nvidia.com/gpu".into(), gpus), ("example.com/nic".into(), vec!["a".into()])];
        assert_eq!(assigned[0].devices, expected);
    }

    #[test]
    fn claim_is_expanded_to_its_devices() {
        let device = |name: &str, share: Option<&str>| ClaimResource {
            driver_name: "gpu.nvidia.com".into(),
            pool_name: "n1".into(),
            device_name: name.into(),
            share_id: share.map(str::to_owned),
        };
        let claim = DynamicResource {
            claim_name: "gpus".into(),
            claim_namespace: "demo".into(),
            claim_resources: vec![
                device("gpu-0", None),
                device("gpu-1", Some("s")),
                device("gpu-2", Some("")),
            ],
        };
        let container = ContainerResources {
            name: "main".into(),
            devices: Vec::new(),
            dynamic_resources: vec![claim],
        };
        let assigned = list(vec![container]).into_list().unwrap().containers;
        let shared = assigned[0].claims.iter().all(|claim| {
            let first = &assigned[0].claims[0];
            Arc::ptr_eq(&claim.claim_name, &first.claim_name)
                && Arc::ptr_eq(&claim.claim_namespace, &first.claim_namespace)
        });
        assert!(shared, "the names are stored once");
        let claims: Vec<_> = assigned[0]
            .claims
            .iter()
            .map(|c| (&*c.claim_name, &*c.device, c.share.as_deref()))
            .collect();
        assert_eq!(
            claims,
            [("gpus", "gpu-0", None), ("gpus", "gpu-1", Some("s")), ("gpus", "gpu-2", None)]
        );
    }

    #[test]
    fn list_with_a_malformed_pod_is_rejected() {
        let mut response = list(Vec::new());
        response.pod_resources.push(Bytes::from_static(b"\x0a\xff"));
        assert!(response.into_list().is_err());
    }

    #[test]
    fn allocatable_ids_are_grouped_by_resource() {
        let response = AllocatableResourcesResponse {
            devices: vec![devices("b", &["1"]), devices("a", &["2"]), devices("b", &["3"])],
        };
        let expected: Allocatable =
            [("a".into(), vec!["2".into()]), ("b".into(), vec!["1".into(), "3".into()])].into();
        assert_eq!(response.allocatable(), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(list) = ListPodResourcesResponse::decode(bytes.as_slice()) {
                let _list = list.into_list();
            }
            let _allocatable = AllocatableResourcesResponse::decode(bytes.as_slice());
        }
    }
}
