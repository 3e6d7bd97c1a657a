//! The messages of the kubelet's `PodResources`.

use nvml_exporter::kube::pod_resources::messages::{
    AllocatableResourcesResponse, ListPodResourcesResponse, PodResources,
};
use prost::Message;

/// A message that was decoded is the same once it is encoded and decoded again, and what it says is no
/// more than what stands in it.
pub(crate) fn check(bytes: &[u8]) {
    if let Some(list) = again::<ListPodResourcesResponse>(bytes) {
        for pod in &list.pod_resources {
            again::<PodResources>(pod);
        }
        if let Ok(list) = list.into_list() {
            let assigned = list.containers;
            for one in &assigned {
                assert!(!one.devices.is_empty() || !one.claims.is_empty());
                assert!(one.devices.iter().all(|(_, ids)| !ids.is_empty()));
            }
            let ids = assigned.iter().flat_map(|one| &one.devices).flat_map(|(_, ids)| ids);
            let claimed = assigned.iter().flat_map(|one| &one.claims);
            let texts: usize = ids.map(|id| id.len()).sum::<usize>()
                + claimed.map(|c| c.driver.len() + c.pool.len() + c.device.len()).sum::<usize>();
            assert!(texts <= bytes.len());
        }
    }
    if let Some(answer) = again::<AllocatableResourcesResponse>(bytes) {
        let told: usize = answer.devices.iter().map(|entry| entry.device_ids.len()).sum();
        let kept: usize = answer.allocatable().values().map(Vec::len).sum();
        assert_eq!(kept, told);
    }
}

fn again<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).unwrap(), message);
    Some(message)
}
