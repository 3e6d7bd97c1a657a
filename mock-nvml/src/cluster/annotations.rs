//! Pod annotations in which GPU-sharing schedulers record an allocation.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    cluster::resources::gib_units,
    scenario::{
        Gpu,
        cluster::{Container, ContainerKind, GpuAllocation, GpuShare, Pod},
    },
};

/// Annotations of a pod: those derived from its allocations, overridden by those of the scenario.
pub(crate) fn pod_annotations(pod: &Pod, gpus: &[Gpu]) -> BTreeMap<String, String> {
    let containers: Vec<_> = pod.containers_of_kind(ContainerKind::App).collect();
    let mut annotations = BTreeMap::new();
    ack(&containers, gpus, &mut annotations);
    ack_v1(&containers, gpus, &mut annotations);
    let hami = |allocation: &GpuAllocation| {
        if let GpuAllocation::Hami(shares) = allocation { shares.clone() } else { vec![] }
    };
    let volcano = |allocation: &GpuAllocation| {
        if let GpuAllocation::Volcano(shares) = allocation { shares.clone() } else { vec![] }
    };
    if let Some(text) = share_list(&containers, gpus, hami) {
        for key in ["hami.io/vgpu-devices-allocated", "hami.io/vgpu-devices-to-allocate"] {
            annotations.insert(key.into(), text.clone());
        }
        annotations.insert("hami.io/bind-phase".into(), "success".into());
    }
    if let Some(text) = share_list(&containers, gpus, volcano) {
        annotations.insert("volcano.sh/vgpu-ids-new".into(), text);
    }
    koordinator(&containers, gpus, &mut annotations);
    annotations.extend(pod.annotations.clone());
    annotations
}

fn minor(gpus: &[Gpu], index: usize) -> u32 {
    gpus.get(index).map(|gpu| gpu.minor).unwrap_or_default()
}

/// ACK GPU sharing, version 2: `{"<container index>":{"<GPU minor>":amount}}`.
fn ack(containers: &[&Container], gpus: &[Gpu], annotations: &mut BTreeMap<String, String>) {
    let mut memory = BTreeMap::new();
    let mut percent = BTreeMap::new();
    for (at, container) in containers.iter().enumerate() {
        let GpuAllocation::Ack(indexes, gib, cores) = &container.allocation else { continue };
        let by_minor = |amount: u32| {
            let entry = |index: &usize| (minor(gpus, *index).to_string(), amount);
            indexes.iter().map(entry).collect::<BTreeMap<_, _>>()
        };
        memory.insert(at.to_string(), by_minor(*gib));
        if let Some(cores) = cores {
            percent.insert(at.to_string(), by_minor(*cores));
        }
    }
    if !memory.is_empty() {
        let key = "scheduler.framework.gpushare.allocation";
        annotations.insert(key.into(), json!(memory).to_string());
    }
    if !percent.is_empty() {
        let key = "gpushare.alibabacloud.com/core-percentage";
        annotations.insert(key.into(), json!(percent).to_string());
    }
}

/// ACK GPU sharing, version 1: one GPU for the whole pod, memory in GiB.
fn ack_v1(containers: &[&Container], gpus: &[Gpu], annotations: &mut BTreeMap<String, String>) {
    let allocated = || {
        containers.iter().filter_map(|container| {
            let GpuAllocation::AckV1(gpu, gib) = container.allocation else { return None };
            Some((gpu, gib))
        })
    };
    let Some((gpu, _)) = allocated().next() else { return };
    let sum: u32 = allocated().map(|(_, gib)| gib).sum();
    let card_gib = gpus.get(gpu).map(gib_units).unwrap_or_default();
    for (key, value) in [
        ("IDX", minor(gpus, gpu).to_string()),
        ("POD", sum.to_string()),
        ("DEV", card_gib.to_string()),
        ("ASSIGNED", "true".into()),
        ("ASSUME_TIME", "1700000000000000000".into()),
    ] {
        annotations.insert(format!("ALIYUN_COM_GPU_MEM_{key}"), value);
    }
}

/// `UUID,NVIDIA,<MiB>,<percent>:` per device, `;` after each container, including one without devices.
fn share_list(
    containers: &[&Container],
    gpus: &[Gpu],
    shares: impl Fn(&GpuAllocation) -> Vec<GpuShare>,
) -> Option<String> {
    let entry = |share: &GpuShare| {
        let uuid = gpus.get(share.gpu).map(|gpu| gpu.uuid.as_str()).unwrap_or_default();
        format!("{uuid},NVIDIA,{},{}:", share.mib, share.cores)
    };
    let texts: Vec<String> = containers
        .iter()
        .map(|container| shares(&container.allocation).iter().map(entry).collect())
        .collect();
    texts.iter().any(|text| !text.is_empty()).then(|| texts.join(";") + ";")
}

/// One annotation for the whole pod; shares of the same GPU are summed.
fn koordinator(
    containers: &[&Container],
    gpus: &[Gpu],
    annotations: &mut BTreeMap<String, String>,
) {
    let mut totals = BTreeMap::<usize, (u32, u32)>::new();
    for container in containers {
        let GpuAllocation::Koordinator(shares) = &container.allocation else { continue };
        for share in shares {
            let (mib, cores) = totals.entry(share.gpu).or_default();
            *mib = mib.saturating_add(share.mib);
            *cores = cores.saturating_add(share.cores);
        }
    }
    let devices: Vec<_> = totals
        .iter()
        .filter_map(|(index, (mib, cores))| {
            let gpu = gpus.get(*index)?;
            let ratio = u64::from(*mib) * 100 / gpu.model.total_mib.max(1);
            Some(json!({
                "minor": gpu.minor,
                "id": gpu.uuid,
                "resources": {
                    "koordinator.sh/gpu-core": cores.to_string(),
                    "koordinator.sh/gpu-memory": format!("{mib}Mi"),
                    "koordinator.sh/gpu-memory-ratio": ratio.to_string(),
                },
            }))
        })
        .collect();
    if !devices.is_empty() {
        let text = json!({ "gpu": devices }).to_string();
        annotations.insert("scheduling.koordinator.sh/device-allocated".into(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};

    fn annotations(containers: &str) -> (BTreeMap<String, String>, String) {
        let scenario = scenario(&format!("[[pod]]\nname = \"p\"\ncontainers = [{containers}]\n"));
        (
            pod_annotations(&cluster(&scenario).pods[0], &scenario.gpus),
            scenario.gpus[0].uuid.clone(),
        )
    }

    #[test]
    fn ack_keys_are_container_indexes_and_gpu_minors() {
        let (found, _) = annotations(
            "{ name = \"a\" }, { name = \"b\", ack = { gpu = [0, 1], gib = 4, cores = 30 } }, \
             { name = \"c\", ack = { gpu = 1, gib = 2 } }",
        );
        assert_eq!(
            found["scheduler.framework.gpushare.allocation"],
            r#"{"1":{"0":4,"1":4},"2":{"1":2}}"#
        );
        assert_eq!(found["gpushare.alibabacloud.com/core-percentage"], r#"{"1":{"0":30,"1":30}}"#);
        let (found, _) = annotations(
            "{ name = \"a\", ack_v1 = { gpu = 1, gib = 4 } }, \
             { name = \"b\", ack_v1 = { gpu = 1, gib = 3 } }",
        );
        let value = |key: &str| found[&format!("ALIYUN_COM_GPU_MEM_{key}")].as_str();
        assert_eq!(["IDX", "POD", "DEV", "ASSIGNED"].map(value), ["1", "7", "15", "true"]);
    }

    #[test]
    fn container_without_devices_keeps_its_position_in_the_list() {
        let share = "[{ gpu = 0, mib = 3000, cores = 30 }]";
        for (scheduler, key) in
            [("hami", "hami.io/vgpu-devices-allocated"), ("volcano", "volcano.sh/vgpu-ids-new")]
        {
            let (found, uuid) = annotations(&format!(
                "{{ name = \"a\" }}, {{ name = \"b\", {scheduler} = {share} }}"
            ));
            assert_eq!(found[key], format!(";{uuid},NVIDIA,3000,30:;"));
        }
        let (found, uuid) = annotations(&format!("{{ name = \"a\", koordinator = {share} }}"));
        assert_eq!(
            found["scheduling.koordinator.sh/device-allocated"],
            format!(
                r#"{{"gpu":[{{"id":"{uuid}","minor":0,"resources":{{"koordinator.sh/gpu-core":"30","koordinator.sh/gpu-memory":"3000Mi","koordinator.sh/gpu-memory-ratio":"19"}}}}]}}"#
            )
        );
    }
}
