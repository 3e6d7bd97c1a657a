//! The devices that NVIDIA's driver for dynamic allocation offers, as the API server tells them.

use serde_json::{Value, json};

use crate::scenario::{
    Gpu,
    cluster::Cluster,
    mig::{ComputeInstance, GpuInstance},
};

/// The driver.
pub(super) const DRIVER: &str = "gpu.nvidia.com";

/// How the driver names a GPU in its pool, which is called after the node.
pub(crate) fn whole(gpu: usize) -> String {
    format!("gpu-{gpu}")
}

/// How it names a MIG device.
pub(crate) fn part(gpu: &Gpu, gi: &GpuInstance, ci: &ComputeInstance) -> String {
    let profile = gi.device_profile(ci);
    format!("{}-mig-{profile}-{}-{}", whole(gpu.index), gi.profile.id, gi.start + ci.start)
}

/// The list of resource slices at world time `time`: one with all devices, on a node where anybody has
/// a claim.
pub(super) fn list(cluster: Option<&Cluster>, gpus: &[Gpu], time: f64) -> Value {
    let cluster = cluster.filter(|cluster| claims(cluster));
    let items: Vec<_> = cluster.iter().map(|cluster| slice(cluster, gpus, time)).collect();
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

fn slice(cluster: &Cluster, gpus: &[Gpu], time: f64) -> Value {
    let node = &cluster.node;
    json!({
        "metadata": { "name": format!("{node}-{DRIVER}"), "resourceVersion": "1" },
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
            "devices": gpus.iter().flat_map(|gpu| devices(gpu, time)).collect::<Vec<_>>(),
        },
    })
}

/// A GPU, or its MIG devices while it is partitioned.
fn devices(gpu: &Gpu, time: f64) -> Vec<Value> {
    let Some(layout) = gpu.layout(time) else {
        return vec![json!({
            "name": whole(gpu.index),
            "attributes": {
                "type": { "string": "gpu" },
                "uuid": { "string": gpu.uuid },
                "productName": { "string": gpu.model.name },
            },
            "capacity": { "memory": { "value": format!("{}Mi", gpu.model.total_mib) } },
        })];
    };
    let told = |(gi, ci): (&GpuInstance, &ComputeInstance)| {
        json!({
            "name": part(gpu, gi, ci),
            "attributes": {
                "type": { "string": "mig" },
                "uuid": { "string": ci.uuid },
                "parentUUID": { "string": gpu.uuid },
                "profile": { "string": gi.device_profile(ci) },
                "productName": { "string": gpu.model.name },
            },
            "capacity": { "memory": { "value": format!("{}Mi", gi.profile.mib) } },
        })
    };
    layout.devices().map(told).collect()
}
