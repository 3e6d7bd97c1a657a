//! Protobuf messages of the kubelet's `PodResources` API.

use nvml_exporter::kube::pod_resources::messages::{
    AllocatableResourcesResponse, ListPodResourcesResponse, PodResources,
};
use prost::Message;

/// A decoded message survives encoding and decoding, and the data extracted from it is bounded by its length.
pub(crate) fn check(bytes: &[u8]) {
    if let Some(list) = round_trip::<ListPodResourcesResponse>(bytes) {
        for pod in &list.pod_resources {
            round_trip::<PodResources>(pod);
        }
        if let Ok(list) = list.into_list() {
            let assigned = list.containers;
            for container in &assigned {
                assert!(!container.devices.is_empty() || !container.claims.is_empty());
                assert!(container.devices.iter().all(|(_, ids)| !ids.is_empty()));
            }
            let ids =
                assigned.iter().flat_map(|container| &container.devices).flat_map(|(_, ids)| ids);
            let claimed = assigned.iter().flat_map(|container| &container.claims);
            let texts: usize = ids.map(|id| id.len()).sum::<usize>()
                + claimed.map(|c| c.driver.len() + c.pool.len() + c.device.len()).sum::<usize>();
            assert!(texts <= bytes.len());
        }
    }
    if let Some(response) = round_trip::<AllocatableResourcesResponse>(bytes) {
        let listed: usize = response.devices.iter().map(|entry| entry.device_ids.len()).sum();
        let kept: usize = response.allocatable().values().map(Vec::len).sum();
        assert_eq!(kept, listed);
    }
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).unwrap(), message);
    Some(message)
}
