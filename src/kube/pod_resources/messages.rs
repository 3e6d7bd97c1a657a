//! The messages of `PodResources` v1, as far as they concern us, and what they say.
//!
//! Fields that are not named here (topology, CPUs, memory, what later versions add) are skipped
//! when a message is decoded. The pods of an answer are left encoded until their turn, so that
//! only one of them is unpacked at a time: most were given nothing, and are dropped at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::kube::assignments::{Assigned, ClaimedDevice, PodName};
use crate::policy::PODS_MAX;

/// All ids of each resource that device plugins offer on this node.
pub type Allocatable = BTreeMap<Box<str>, Vec<Box<str>>>;

/// What a List names.
#[derive(Debug, Default)]
pub struct PodResourcesList {
    /// Every pod, with devices or without; the first [`PODS_MAX`].
    pub pods: BTreeSet<PodName>,
    /// The containers that were allocated something, in the order of the response.
    pub containers: Vec<Assigned>,
}

/// The request of both questions, which have no parameters.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// The answer to `List`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodResourcesResponse {
    /// Messages of type [`PodResources`]; on the wire a message is its bytes.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub pod_resources: Vec<Bytes>,
}

/// The answer to `GetAllocatableResources`.
#[derive(Clone, PartialEq, Message)]
pub struct AllocatableResourcesResponse {
    /// One entry or several of each resource.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
}

/// A pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its containers, but those that only initialize it.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One entry or several of each resource.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// Its claims (since 1.27; on by default since 1.34).
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// Devices of one resource, and usually of one NUMA node.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerDevices {
    /// Such as `nvidia.com/gpu`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// As the device plugin names them.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// A claim.
#[derive(Clone, PartialEq, Message)]
pub struct DynamicResource {
    /// Its name.
    #[prost(string, tag = "2")]
    pub claim_name: String,
    /// Its namespace.
    #[prost(string, tag = "3")]
    pub claim_namespace: String,
    /// Its devices.
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

/// A device of a claim.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResource {
    /// Its driver (since 1.31, as the two that follow).
    #[prost(string, tag = "2")]
    pub driver_name: String,
    /// Its pool.
    #[prost(string, tag = "3")]
    pub pool_name: String,
    /// Its name in the pool.
    #[prost(string, tag = "4")]
    pub device_name: String,
    /// Which share of it (since 1.35).
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

impl ListPodResourcesResponse {
    /// The pods, and those of their containers that were allocated something.
    ///
    /// # Errors
    /// A pod cannot be decoded. The rest could be, but a list with a hole is no list.
    pub fn into_list(self) -> Result<PodResourcesList, DecodeError> {
        let mut list = PodResourcesList::default();
        for bytes in self.pod_resources {
            let pod = PodResources::decode(bytes)?;
            let (namespace, name) =
                (Arc::<str>::from(&*pod.namespace), Arc::<str>::from(&*pod.name));
            list.containers.extend(pod.assigned(&namespace, &name));
            if list.pods.len() < PODS_MAX {
                list.pods.insert((namespace, name));
            }
        }
        Ok(list)
    }
}

impl AllocatableResourcesResponse {
    /// The devices by resource.
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
    fn assigned(self, namespace: &Arc<str>, pod: &Arc<str>) -> impl Iterator<Item = Assigned> {
        self.containers.into_iter().filter_map(move |container| {
            let devices = merged(container.devices);
            let claims: Vec<_> =
                container.dynamic_resources.into_iter().flat_map(claimed).collect();
            (!devices.is_empty() || !claims.is_empty()).then(|| Assigned {
                namespace: Arc::clone(namespace),
                pod: Arc::clone(pod),
                container: container.name.into(),
                devices,
                claims,
            })
        })
    }
}

/// The ids of each resource, in the order of the answer.
fn merged(entries: Vec<ContainerDevices>) -> Vec<(Box<str>, Vec<Box<str>>)> {
    let mut merged: Vec<(Box<str>, Vec<Box<str>>)> = Vec::new();
    // Hundreds of entries of two or three resources: the one before is usually the right one.
    for entry in entries {
        if entry.device_ids.is_empty() {
            continue;
        }
        let ids = entry.device_ids.into_iter().map(String::into_boxed_str);
        match merged.iter_mut().rfind(|(resource, _)| **resource == *entry.resource_name) {
            Some((_, known)) => known.extend(ids),
            None => merged.push((entry.resource_name.into(), ids.collect())),
        }
    }
    merged
}

fn claimed(claim: DynamicResource) -> impl Iterator<Item = ClaimedDevice> {
    // Once in memory, however many devices: a long name of thousands of them would be gigabytes.
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
    fn entries_of_one_resource_are_one_and_empty_containers_none() {
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
        let PodResourcesList { pods, containers: assigned } =
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
    fn a_claim_gives_each_of_its_devices() {
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
        assert!(shared, "names are in memory once");
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
    fn a_list_with_a_broken_pod_is_no_list() {
        let mut answer = list(Vec::new());
        answer.pod_resources.push(Bytes::from_static(b"\x0a\xff"));
        assert!(answer.into_list().is_err());
    }

    #[test]
    fn allocatable_ids_are_gathered_by_resource() {
        let answer = AllocatableResourcesResponse {
            devices: vec![devices("b", &["1"]), devices("a", &["2"]), devices("b", &["3"])],
        };
        let expected: Allocatable =
            [("a".into(), vec!["2".into()]), ("b".into(), vec!["1".into(), "3".into()])].into();
        assert_eq!(answer.allocatable(), expected);
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(list) = ListPodResourcesResponse::decode(bytes.as_slice()) {
                let _list = list.into_list();
            }
            let _allocatable = AllocatableResourcesResponse::decode(bytes.as_slice());
        }
    }
}
