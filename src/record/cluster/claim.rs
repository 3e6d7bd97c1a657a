//! Resource slices and claims of DRA drivers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kube::assignments::{SliceDevice, SliceKey, SliceTable};
use crate::kube::resource_claims::claim::{AllocatedClaim, AllocatedDevice, DeviceSharing};
use crate::kube::resource_claims::table::ClaimTable;
use crate::record::names::Names;
use crate::record::object;

/// One slice per pool.
pub(super) fn slices(table: &SliceTable, node: &str, names: &mut Names) -> Vec<Value> {
    let mut pools: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
    for (key, found) in &table.devices {
        let SliceKey { driver, pool, device: name } = key;
        pools.entry((driver, pool)).or_default().push(device(name, found, names));
    }
    let slice = |((driver, pool), devices): ((&str, &str), Vec<Value>)| {
        let pool = names.node(pool);
        json!({
            "kind": "ResourceSlice",
            "metadata": { "name": format!("{pool}-{driver}") },
            "spec": {
                "driver": driver,
                "nodeName": names.node(node),
                "pool": { "name": pool, "generation": 1, "resourceSliceCount": 1 },
                "devices": devices,
            },
        })
    };
    pools.into_iter().map(slice).collect()
}

fn device(name: &str, device: &SliceDevice, names: &mut Names) -> Value {
    let text = |text: &Option<Box<str>>| {
        text.as_deref().map_or(Value::Null, |text| json!({ "string": names.replace_in(text) }))
    };
    let attributes = object([
        ("uuid", text(&device.uuid)),
        ("type", text(&device.kind)),
        ("parentUUID", text(&device.parent)),
        ("profile", text(&device.profile)),
    ]);
    json!({ "name": name, "attributes": attributes })
}

/// The claims that were read.
pub(super) fn claims(table: &ClaimTable, names: &mut Names) -> Vec<Value> {
    table
        .iter()
        .map(|((namespace, name), claim)| object_of(namespace, name, claim, names))
        .collect()
}

fn object_of(namespace: &str, name: &str, claim: &AllocatedClaim, names: &mut Names) -> Value {
    let consumer = |pod| json!({ "resource": "pods", "uid": names.pod_uid(pod) });
    let mut consumers: Vec<Value> = claim.pods.iter().map(AsRef::as_ref).map(consumer).collect();
    if claim.has_other_consumers {
        consumers.push(json!({ "apiGroup": "other", "resource": "others", "uid": "other" }));
    }
    let requests: Vec<(usize, &AllocatedDevice)> = (0..)
        .zip(&claim.devices)
        .map(|(at, device)| (request_of(at, &claim.devices), device))
        .collect();
    let results: Vec<Value> =
        requests.iter().map(|(at, device)| result(*at, device, names)).collect();
    let configs: Vec<Value> =
        requests.iter().filter_map(|(at, device)| config(*at, device, names)).collect();
    json!({
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": names.namespace(namespace),
            "name": names.claim(name),
            "uid": names.replace_in(&claim.uid),
        },
        "status": {
            "allocation": { "devices": { "results": results, "config": configs } },
            "reservedFor": consumers,
        },
    })
}

/// The number of the request of a device: devices that are configured together are of one request.
fn request_of(at: usize, devices: &[AllocatedDevice]) -> usize {
    let own = devices.get(at).map(|device| &device.sharing);
    let is_alone = matches!(own, Some(DeviceSharing::Mps { memory, .. }) if memory.one_device);
    let same = devices.iter().position(|device| Some(&device.sharing) == own);
    same.filter(|_| !is_alone).unwrap_or(at)
}

fn request(at: usize) -> String {
    format!("request-{at}")
}

fn result(at: usize, device: &AllocatedDevice, names: &mut Names) -> Value {
    let capacity =
        device.consumed_memory.map_or(Value::Null, |mib| json!({ "memory": mebibytes(mib) }));
    object([
        ("request", request(at).into()),
        ("driver", (&*device.driver).into()),
        ("pool", names.node(&device.pool).into()),
        ("device", (&*device.device).into()),
        ("adminAccess", if device.admin_access { true.into() } else { Value::Null }),
        (
            "shareID",
            device.share.as_deref().map_or(Value::Null, |share| names.pod_uid(share).into()),
        ),
        ("consumedCapacity", capacity),
    ])
}

fn mebibytes(mib: f64) -> String {
    format!("{mib}Mi")
}

/// The sharing of a device; none if it is the default.
fn config(at: usize, device: &AllocatedDevice, names: &mut Names) -> Option<Value> {
    let sharing = match &device.sharing {
        DeviceSharing::Default => return None,
        DeviceSharing::TimeSlicing => json!({ "strategy": "TimeSlicing" }),
        DeviceSharing::Unknown => json!({ "strategy": "Unknown" }),
        DeviceSharing::Mps { compute, memory } => {
            let limits = memory.by_device.iter().map(|(key, limit)| {
                (
                    names.replace_in(key),
                    limit.map_or_else(|| json!("0"), |mib| json!(mebibytes(mib))),
                )
            });
            let limits: serde_json::Map<String, Value> = limits.collect();
            let config = object([
                ("defaultActiveThreadPercentage", json!(compute * 100.0)),
                (
                    "defaultPinnedDeviceMemoryLimit",
                    memory.default.map_or(Value::Null, |mib| mebibytes(mib).into()),
                ),
                (
                    "defaultPerDevicePinnedMemoryLimit",
                    if limits.is_empty() { Value::Null } else { limits.into() },
                ),
            ]);
            json!({ "strategy": "MPS", "mpsConfig": config })
        }
    };
    let is_mig = device.device.contains("-mig-");
    Some(json!({
        "source": "FromClaim",
        "requests": [request(at)],
        "opaque": {
            "driver": device.driver,
            "parameters": {
                "kind": if is_mig { "MigDeviceConfig" } else { "GpuConfig" },
                "sharing": sharing,
            },
        },
    }))
}
