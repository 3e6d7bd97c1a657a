//! `ResourceSlice` objects: the devices that the NVIDIA DRA driver offers.

use serde_json::{Value, json};

use crate::scenario::{
    Gpu,
    cluster::Cluster,
    mig::{ComputeInstance, GpuInstance},
};

/// Name of the DRA driver.
pub(crate) const DRIVER: &str = "gpu.nvidia.com";

/// Device name of a GPU in the pool of the driver; the pool has the name of the node.
pub(crate) fn gpu_device_name(gpu: usize) -> String {
    format!("gpu-{gpu}")
}

/// Device name of a MIG device in that pool.
pub(crate) fn mig_device_name(gpu: &Gpu, gi: &GpuInstance, ci: &ComputeInstance) -> String {
    let profile = gi.device_profile(ci);
    format!(
        "{}-mig-{profile}-{}-{}",
        gpu_device_name(gpu.index),
        gi.profile.id,
        gi.start + ci.start
    )
}

/// The `ResourceSliceList` at world time `time`: one slice with all devices if any container of the node
/// has a claim, else none.
pub(crate) fn list(cluster: Option<&Cluster>, gpus: &[Gpu], time: f64) -> Value {
    let cluster = cluster.filter(|cluster| has_claims(cluster));
    let items: Vec<_> = cluster.iter().map(|cluster| slice(cluster, gpus, time)).collect();
    json!({
        "kind": "ResourceSliceList",
        "apiVersion": "resource.k8s.io/v1",
        "metadata": { "resourceVersion": "1" },
        "items": items,
    })
}

fn has_claims(cluster: &Cluster) -> bool {
    let mut containers = cluster.pods.iter().flat_map(|pod| &pod.containers);
    containers.any(|container| container.allocation.claim().is_some())
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

/// The GPU itself, or its MIG devices while it is partitioned.
fn devices(gpu: &Gpu, time: f64) -> Vec<Value> {
    let Some(layout) = gpu.layout(time) else {
        return vec![json!({
            "name": gpu_device_name(gpu.index),
            "attributes": {
                "type": { "string": "gpu" },
                "uuid": { "string": gpu.uuid },
                "productName": { "string": gpu.model.name },
            },
            "capacity": { "memory": { "value": format!("{}Mi", gpu.model.total_mib) } },
        })];
    };
    let device = |(gi, ci): (&GpuInstance, &ComputeInstance)| {
        json!({
            "name": mig_device_name(gpu, gi, ci),
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
    layout.devices().map(device).collect()
}
