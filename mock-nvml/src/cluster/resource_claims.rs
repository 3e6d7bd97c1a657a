//! `ResourceClaim` objects, with their allocations.

use serde_json::{Value, json};

use crate::{
    cluster::api::insert_key,
    scenario::{
        claim::{ClaimSharing, ClaimedDevice, ResourceClaim},
        cluster::{Cluster, Pod},
    },
};

/// Name of the only request of a claim.
const REQUEST: &str = "gpu";

/// The claim of this name at world time `time`: it exists while a pod uses it.
pub(crate) fn object(cluster: &Cluster, namespace: &str, name: &str, time: f64) -> Option<Value> {
    let is_named = |claim: &&Value| {
        let field = |path| claim.pointer(path).and_then(Value::as_str);
        field("/metadata/namespace") == Some(namespace) && field("/metadata/name") == Some(name)
    };
    if let Some(recorded) = cluster.recorded.of_kind("ResourceClaim").find(is_named) {
        return Some(recorded.clone());
    }
    let claim_of = |pod: &Pod| -> Option<ResourceClaim> {
        let mut claims = pod.containers.iter().filter_map(|one| one.allocation.claim());
        claims.find(|claim| claim.name == name).cloned()
    };
    let exists = |pod: &&Pod| pod.namespace == namespace && pod.object_lifetime().contains(time);
    let users = cluster.pods.iter().filter(exists);
    let users: Vec<_> = users.filter_map(|pod| Some((pod, claim_of(pod)?))).collect();
    let (first, claim) = users.first()?;
    let reserved = users.iter().filter(|(pod, _)| pod.active_lifetime().contains(time));
    let consumer = |(pod, _): &(&Pod, ResourceClaim)| json!({ "resource": "pods", "name": pod.name, "uid": pod.uid });
    Some(json!({
        "kind": "ResourceClaim",
        "apiVersion": "resource.k8s.io/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            // A claim that is created again has other pods.
            "uid": format!("claim-of-{}", first.uid),
            "resourceVersion": "1",
        },
        "spec": {},
        "status": {
            "allocation": {
                "devices": {
                    "results": claim.devices.iter().map(|one| result(cluster, claim, one)).collect::<Vec<_>>(),
                    "config": claim.sharing.iter().map(|sharing| config(claim, *sharing)).collect::<Vec<_>>(),
                },
            },
            "reservedFor": reserved.map(consumer).collect::<Vec<_>>(),
        },
    }))
}

fn result(cluster: &Cluster, claim: &ResourceClaim, device: &ClaimedDevice) -> Value {
    let mut result = json!({
        "request": REQUEST,
        "driver": claim.driver,
        "pool": cluster.node,
        "device": device.name,
    });
    if claim.admin {
        insert_key(&mut result, "adminAccess", true);
    }
    if let (Some(share), Some(mib)) = (&device.share, claim.share_mib) {
        insert_key(&mut result, "shareID", share.as_str());
        insert_key(&mut result, "consumedCapacity", json!({ "memory": format!("{mib}Mi") }));
    }
    result
}

fn config(claim: &ResourceClaim, sharing: ClaimSharing) -> Value {
    let sharing = match sharing {
        ClaimSharing::TimeSlicing => {
            json!({ "strategy": "TimeSlicing", "timeSlicingConfig": { "interval": "Long" } })
        }
        ClaimSharing::Mps { threads, mib } => {
            let mut mps = json!({});
            if let Some(threads) = threads {
                insert_key(&mut mps, "defaultActiveThreadPercentage", threads);
            }
            if let Some(mib) = mib {
                insert_key(&mut mps, "defaultPinnedDeviceMemoryLimit", format!("{mib}Mi"));
            }
            json!({ "strategy": "MPS", "mpsConfig": mps })
        }
    };
    json!({
        "source": "FromClaim",
        "requests": [REQUEST],
        "opaque": {
            "driver": claim.driver,
            "parameters": {
                "apiVersion": "resource.nvidia.com/v1beta1",
                "kind": if claim.devices.iter().all(|device| device.gpu.is_none()) { "MigDeviceConfig" } else { "GpuConfig" },
                "sharing": sharing,
            },
        },
    })
}
