//! Protobuf messages of the kubelet's Pods API.

use nvml_exporter::kube::pod::protobuf::{DecodedPod, decode};
use nvml_exporter::kube::pods_api::messages::{ListPodsResponse, PodEvent, WatchPodsEvent};
use prost::Message;

/// The texts of a decoded pod are bounded by its length, and it has an identity.
pub(crate) fn check(bytes: &[u8]) {
    check_pod(bytes);
    if let Ok(list) = ListPodsResponse::decode(bytes) {
        list.pods.iter().for_each(|pod| check_pod(pod));
    }
    if let Ok(event) = WatchPodsEvent::decode(bytes) {
        match event.decode_pod() {
            PodEvent::Applied(pod) => assert_eq!(pod, decode(&event.pod)),
            PodEvent::Deleted(uid) => assert!(!uid.is_empty() && uid.len() <= bytes.len()),
            PodEvent::Synced | PodEvent::Unknown => {}
        }
    }
}

fn check_pod(bytes: &[u8]) {
    match decode(bytes) {
        DecodedPod::Undecodable(uid) => assert!(uid.len() <= bytes.len()),
        DecodedPod::Pod(pod) => {
            let id = &pod.id;
            assert!(!id.uid.is_empty() && !id.namespace.is_empty() && !id.name.is_empty());
            let labels: usize = pod.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
            let names: usize = pod.containers.iter().map(|container| container.name.len()).sum();
            let texts = labels + names + id.uid.len() + id.namespace.len() + id.name.len();
            assert!(texts <= bytes.len());
        }
    }
}
