//! The recorded responses of the kubelet's `PodResources` service.

use crate::{
    cluster::kubelet::messages::{
        ClaimResource, ContainerDevices, ContainerResources, DynamicResource, PodResources,
    },
    scenario::recorded::{ListedClaim, ListedContainer, ListedPod, RecordedCluster},
};

/// The pods of a list.
pub(super) fn listed(recorded: &RecordedCluster) -> impl Iterator<Item = PodResources> {
    recorded.listed.iter().map(pod)
}

/// The devices that the plugins offer.
pub(super) fn allocatable(recorded: &RecordedCluster) -> impl Iterator<Item = ContainerDevices> {
    recorded.allocatable.iter().map(|(resource, ids)| devices(resource, ids))
}

fn pod(pod: &ListedPod) -> PodResources {
    let containers = pod.containers.iter().map(container).collect();
    let (name, namespace) = (pod.name.clone(), pod.namespace.clone());
    PodResources { name, namespace, containers, cpu_ids: Vec::new() }
}

fn container(container: &ListedContainer) -> ContainerResources {
    ContainerResources {
        name: container.name.clone(),
        devices: container.devices.iter().map(|(resource, ids)| devices(resource, ids)).collect(),
        cpu_ids: Vec::new(),
        dynamic_resources: container.claims.iter().map(claim).collect(),
    }
}

fn devices(resource: &str, ids: &[String]) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: ids.to_vec(),
        topology: None,
    }
}

fn claim(claim: &ListedClaim) -> DynamicResource {
    let device = ClaimResource {
        driver: claim.driver.clone(),
        pool: claim.pool.clone(),
        device: claim.device.clone(),
        share_id: claim.share.clone(),
    };
    let (name, namespace) = (claim.name.clone(), claim.namespace.clone());
    DynamicResource { name, namespace, devices: vec![device] }
}
