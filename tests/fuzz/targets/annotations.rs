//! GPU allocations in pod annotations written by schedulers.

use nvml_exporter::kube::annotations::{
    AnnotationAllocation, ContainerPosition, GpuName, GpuShare, MemoryAmount, ShareResource, kai,
    parse,
};
use nvml_exporter::kube::pod::{self, ANNOTATIONS, GROUP_ANNOTATIONS, Pod};

/// Input: lines of `name=value`, each an annotation, or with the prefix `limit ` a resource limit of the first
/// container, or with the prefix `label ` a label. Parsed allocations are finite numbers, of existing containers, and bounded by the input length.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let [mut annotations, mut limits, mut labels] = [(); 3].map(|()| serde_json::Map::new());
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let (map, name) = match name.split_once(' ') {
            Some(("limit", resource)) => (&mut limits, resource),
            Some(("label", label)) => (&mut labels, label),
            _ => (&mut annotations, name),
        };
        map.insert(name.to_owned(), value.into());
    }
    let json = serde_json::json!({
        "metadata": {
            "uid": "u", "namespace": "demo", "name": "a", "annotations": annotations, "labels": labels,
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "resources": {"limits": limits}}, {"name": "d"}],
            "initContainers": [{"name": "i"}],
        },
    });
    let pod = pod::parse(json.to_string().as_bytes()).unwrap();
    for (name, value) in &annotations {
        let is_kept = [ANNOTATIONS, GROUP_ANNOTATIONS].concat().contains(&name.as_str());
        assert_eq!(pod.annotation(name), is_kept.then(|| value.as_str().unwrap()));
    }
    check_group(&pod);
    for mode in [
        ShareResource::Hami,
        ShareResource::VolcanoVgpu,
        ShareResource::VolcanoMemory,
        ShareResource::Ack,
        ShareResource::Koordinator,
    ] {
        if let Ok(AnnotationAllocation::Allocated { shares, .. }) = parse(&pod, |one| one == mode) {
            check_shares(&shares, &text, pod.containers.len());
        }
    }
}

fn check_shares(parts: &[GpuShare], text: &str, containers: usize) {
    assert!(parts.len() <= text.len());
    for part in parts {
        assert!((0.0..=1.0).contains(&part.compute));
        if let ContainerPosition::Index(n) = part.container {
            assert!(n < containers);
        }
        if let GpuName::Uuid(uuid) | GpuName::Mig { gpu: uuid, .. } = &part.gpu {
            assert!(text.contains(&**uuid));
        }
        check_amount(part.memory);
    }
}

/// The share of a pod in GPU groups.
fn check_group(pod: &Pod) {
    let groups = pod.gpu_groups();
    assert!(groups.iter().all(|group| pod.labels.values().any(|value| **value == **group)));
    if let Some(gpu) = kai::reserved_gpu(pod) {
        assert!(gpu.starts_with("GPU-"));
    }
    let Ok(share) = kai::parse(pod) else { return };
    assert!(!groups.is_empty());
    check_amount(share.memory);
    let ContainerPosition::Index(n) = share.container else { panic!("no container") };
    assert!(n < pod.containers.len());
}

fn check_amount(memory: MemoryAmount) {
    match memory {
        MemoryAmount::Units { units, total: of } => {
            assert!(units.is_finite() && units > 0.0);
            assert!(of.is_none_or(|of| of.is_finite() && of >= units));
        }
        MemoryAmount::Mib(n) => assert!(n.is_finite() && n > 0.0),
        MemoryAmount::Ratio(n) => assert!(n > 0.0 && n <= 1.0),
        MemoryAmount::Unknown => {}
    }
}
