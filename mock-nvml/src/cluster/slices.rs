//! The devices that NVIDIA's driver for dynamic allocation offers, as the API server tells them.

use serde_json::{Value, json};

use crate::scenario::{Gpu, cluster::Cluster};

/// The driver.
pub(super) const DRIVER: &str = "gpu.nvidia.com";

/// How the driver names a GPU in its pool, which is called after the node.
pub(super) fn device(gpu: usize) -> String {
    format!("gpu-{gpu}")
}

/// The list of resource slices: one with all GPUs, on a node where anybody has a claim.
pub(super) fn list(cluster: Option<&Cluster>, gpus: &[Gpu]) -> Value {
    let items: Vec<_> = cluster
        .filter(|cluster| claims(cluster))
        .map(|cluster| slice(cluster, gpus))
        .into_iter()
        .collect();
    json!({
        "kind": "ResourceSliceList",
        "apiVersion": "resource.k8s.io/v1",
        "metadata": { "resourceVersion": "1" },
        "items": items,
    })
}

fn claims(cluster: &Cluster) -> bool {
    let mut containers = cluster.pods.iter().flat_map(|pod| &pod.containers);
    containers.any(|container| container.holding.claim().is_some())
}

fn slice(cluster: &Cluster, gpus: &[Gpu]) -> Value {
    let node = &cluster.node;
    json!({
        "metadata": { "name": format!("{node}-{DRIVER}"), "resourceVersion": "1" },
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
            "devices": gpus.iter().map(told).collect::<Vec<_>>(),
        },
    })
}

fn told(gpu: &Gpu) -> Value {
    json!({
        "name": device(gpu.index),
        "attributes": {
            "type": { "string": "gpu" },
            "uuid": { "string": gpu.uuid },
            "productName": { "string": gpu.model.name },
        },
        "capacity": { "memory": { "value": format!("{}Mi", gpu.model.total_mib) } },
    })
}
