//! `ResourceSlice` objects: the devices that the NVIDIA DRA driver offers.

use serde_json::{Value, json};

use crate::{
    cluster::api::insert_key,
    scenario::{
        Gpu,
        cluster::{Cluster, Server, ServerFault},
        mig::{ComputeInstance, GpuInstance, MigLayout},
    },
};

/// Name of the DRA driver.
pub(crate) const DRIVER: &str = "gpu.nvidia.com";

/// Device name of a GPU in the pool of the driver; the pool has the name of the node.
pub(crate) fn gpu_device_name(gpu: usize) -> String {
    format!("gpu-{gpu}")
}

/// Device name of a MIG device in that pool. It is a DNS label, which has no dots.
pub(crate) fn mig_device_name(gpu: &Gpu, gi: &GpuInstance, ci: &ComputeInstance) -> String {
    let profile = gi.device_profile(ci).replace('.', "").replace('+', "-");
    format!(
        "{}-mig-{profile}-{}-{}",
        gpu_device_name(gpu.index),
        gi.profile.id,
        gi.start + ci.start
    )
}

/// The slices that a list selects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SliceSelector {
    /// `spec.nodeName`; empty selects slices of no single node.
    pub(crate) node: Option<String>,
    /// `spec.driver`
    pub(crate) driver: Option<String>,
}

impl SliceSelector {
    /// Whether it selects a recorded slice.
    fn selects(&self, slice: &Value) -> bool {
        let is = |selected: &Option<String>, field: &str| {
            let value = slice.pointer(field).and_then(Value::as_str).unwrap_or_default();
            selected.as_ref().is_none_or(|selected| selected == value)
        };
        is(&self.node, "/spec/nodeName") && is(&self.driver, "/spec/driver")
    }
}

/// The `ResourceSliceList` at world time `time`: one slice with all devices if any container of the node
/// has a claim, else none.
pub(crate) fn list(
    cluster: Option<&Cluster>,
    gpus: &[Gpu],
    time: f64,
    selector: &SliceSelector,
) -> Value {
    let is_selected = |cluster: &&Cluster| {
        let node = if cluster.dra.all_nodes { "" } else { &cluster.node };
        has_claims(cluster)
            && cluster.fault_at(Server::Slices, time) != Some(ServerFault::Empty)
            && selector.node.as_ref().is_none_or(|selected| selected == node)
            && selector.driver.as_ref().is_none_or(|selected| selected == DRIVER)
    };
    let recorded = cluster;
    let cluster = cluster.filter(is_selected);
    let recorded = recorded.map(|cluster| &cluster.recorded).into_iter();
    let recorded = recorded.flat_map(|recorded| recorded.of_kind("ResourceSlice"));
    let recorded = recorded.filter(|slice| selector.selects(slice)).cloned();
    let items = cluster.iter().map(|cluster| slice(cluster, gpus, time));
    let items: Vec<_> = items.chain(recorded).collect();
    json!({
        "kind": "ResourceSliceList",
        "apiVersion": "resource.k8s.io/v1",
        "metadata": { "resourceVersion": "1" },
        "items": items,
    })
}

fn has_claims(cluster: &Cluster) -> bool {
    let containers = cluster.pods.iter().flat_map(|pod| &pod.containers);
    let mut claims = containers.filter_map(|container| container.allocation.claim());
    claims.any(|claim| claim.driver == DRIVER)
}

fn slice(cluster: &Cluster, gpus: &[Gpu], time: f64) -> Value {
    let node = &cluster.node;
    let devices = |gpu| {
        if cluster.dra.dynamic_mig { abstract_devices(gpu) } else { devices(gpu, time) }
    };
    let mut spec = json!({
        "driver": DRIVER,
        "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
        "devices": gpus.iter().flat_map(devices).collect::<Vec<_>>(),
    });
    if cluster.dra.all_nodes {
        insert_key(&mut spec, "allNodes", true);
    } else {
        insert_key(&mut spec, "nodeName", node.as_str());
    }
    json!({
        "metadata": { "name": format!("{node}-{DRIVER}"), "resourceVersion": "1" },
        "spec": spec,
    })
}

/// The GPU itself, or its MIG devices while it is partitioned.
fn devices(gpu: &Gpu, time: f64) -> Vec<Value> {
    let Some(layout) = gpu.layout(time) else { return vec![whole_device(gpu)] };
    layout.devices().map(|(gi, ci)| mig_device(gpu, gi, ci, true)).collect()
}

/// The GPU itself, and all MIG devices that it has at some time, whether they exist or not.
fn abstract_devices(gpu: &Gpu) -> Vec<Value> {
    let migs = gpu.mig.iter().flat_map(MigLayout::devices);
    let mut devices = vec![whole_device(gpu)];
    for device in migs.map(|(gi, ci)| mig_device(gpu, gi, ci, false)) {
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    devices
}

fn whole_device(gpu: &Gpu) -> Value {
    json!({
        "name": gpu_device_name(gpu.index),
        "attributes": {
            "type": { "string": "gpu" },
            "uuid": { "string": gpu.uuid },
            "productName": { "string": gpu.model.name },
        },
        "capacity": { "memory": { "value": format!("{}Mi", gpu.model.total_mib) } },
    })
}

fn mig_device(gpu: &Gpu, gi: &GpuInstance, ci: &ComputeInstance, exists: bool) -> Value {
    let mut attributes = json!({
        "type": { "string": "mig" },
        "parentUUID": { "string": gpu.uuid },
        "profile": { "string": gi.device_profile(ci) },
        "productName": { "string": gpu.model.name },
    });
    if exists {
        insert_key(&mut attributes, "uuid", json!({ "string": ci.uuid }));
    }
    json!({
        "name": mig_device_name(gpu, gi, ci),
        "attributes": attributes,
        "capacity": { "memory": { "value": format!("{}Mi", gi.profile.mib) } },
    })
}
