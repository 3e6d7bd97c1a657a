//! Pod annotations in which GPU-sharing schedulers record an allocation.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    cluster::resources::gib_units,
    scenario::{
        Gpu,
        cluster::{Container, ContainerKind, GpuAllocation, GpuShare, Pod},
        mig::{MigForm, SchedulerMig},
    },
};

/// Annotations of a pod: those derived from its allocations, overridden by those of the scenario.
pub(crate) fn pod_annotations(pod: &Pod, gpus: &[Gpu]) -> BTreeMap<String, String> {
    let containers: Vec<_> = pod.containers_of_kind(ContainerKind::App).collect();
    let mut annotations = BTreeMap::new();
    ack(&containers, gpus, &mut annotations);
    ack_v1(&containers, gpus, &mut annotations);
    let entries = |is_volcano: bool, allocation: &GpuAllocation| {
        if let GpuAllocation::SchedulerMig(form, devices) = allocation
            && is_volcano == (*form == MigForm::Volcano)
        {
            return mig_entries(*form, devices, gpus);
        }
        match (is_volcano, allocation) {
            (false, GpuAllocation::Hami(shares)) | (true, GpuAllocation::Volcano(shares)) => {
                share_entries(shares, gpus)
            }
            _ => String::new(),
        }
    };
    let hami = |allocation: &GpuAllocation| entries(false, allocation);
    let volcano = |allocation: &GpuAllocation| entries(true, allocation);
    if let Some(text) = share_list(&containers, hami) {
        for key in ["hami.io/vgpu-devices-allocated", "hami.io/vgpu-devices-to-allocate"] {
            annotations.insert(key.into(), text.clone());
        }
        annotations.insert("hami.io/bind-phase".into(), "success".into());
    }
    if let Some(text) = share_list(&containers, volcano) {
        annotations.insert("volcano.sh/vgpu-ids-new".into(), text);
    }
    hami_mig(&containers, gpus, &mut annotations);
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

fn uuid(gpus: &[Gpu], index: usize) -> &str {
    gpus.get(index).map(|gpu| gpu.uuid.as_str()).unwrap_or_default()
}

/// `UUID,NVIDIA,<MiB>,<percent>:` per device.
fn share_entries(shares: &[GpuShare], gpus: &[Gpu]) -> String {
    let entry = |share: &GpuShare| {
        format!("{},NVIDIA,{},{}:", uuid(gpus, share.gpu), share.mib, share.cores)
    };
    shares.iter().map(entry).collect()
}

/// The same for MIG devices. Before `HAMi` 2.10, and in Volcano, the UUID has a suffix: template of the
/// layout, and index of the MIG device.
fn mig_entries(form: MigForm, devices: &[SchedulerMig], gpus: &[Gpu]) -> String {
    let entry = |device: &SchedulerMig| {
        let (suffix, mib) = match form {
            MigForm::HamiIdentity => (String::new(), device.profile.mib),
            MigForm::HamiIndex => (format!("[0-{}]", device.index), device.template_mib()),
            MigForm::Volcano => (format!("[group1-{}]", device.index), device.template_mib()),
        };
        format!("{}{suffix},NVIDIA,{mib},0:", uuid(gpus, device.gpu))
    };
    devices.iter().map(entry).collect()
}

/// The MIG devices of `HAMi` since 2.10.
fn hami_mig(containers: &[&Container], gpus: &[Gpu], annotations: &mut BTreeMap<String, String>) {
    let mut all = vec![];
    for (at, container) in containers.iter().enumerate() {
        let GpuAllocation::SchedulerMig(MigForm::HamiIdentity, devices) = &container.allocation
        else {
            continue;
        };
        for (n, device) in devices.iter().enumerate() {
            all.push(json!({
                "containerIndex": at,
                "deviceIndex": n,
                "gpuUUID": uuid(gpus, device.gpu),
                "profile": device.profile.name,
                "placement": { "start": device.start, "size": device.profile.memory_slices },
                "migUUID": device.uuid,
                "gpuInstanceID": device.ids.gpu_instance,
                "computeInstanceID": device.ids.compute_instance,
            }));
        }
    }
    if !all.is_empty() {
        annotations.insert("hami.io/vgpu-mig-allocations".into(), json!(all).to_string());
    }
}

/// The entries of each container, with `;` after each, including one without devices.
fn share_list(
    containers: &[&Container],
    entries: impl Fn(&GpuAllocation) -> String,
) -> Option<String> {
    let texts: Vec<String> =
        containers.iter().map(|container| entries(&container.allocation)).collect();
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
    use crate::scenario::Scenario;

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
    fn mig_devices_have_an_index_or_an_identity() {
        let annotations = |key: &str| {
            let scenario = Scenario::parse("test", &format!(
                "[[gpu]]\nmodel = \"A100\"\n\
                 mig = [{{ instances = [{{ profile = \"3g.40gb\" }}, {{ profile = \"1g.10gb\", gi = 9, slot = 4 }}] }}]\n\
                 [cluster]\n[[pod]]\nname = \"p\"\n\
                 containers = [{{ name = \"a\" }}, {{ name = \"b\", {key} = [\"0/9\"] }}]\n"
            ))
            .unwrap();
            let gpu = scenario.gpus[0].uuid.clone();
            (pod_annotations(&cluster(&scenario).pods[0], &scenario.gpus), gpu)
        };
        let (older, gpu) = annotations("hami_mig_index");
        let entry = format!(";{gpu}[0-4],NVIDIA,10240,0:;");
        assert_eq!(older["hami.io/vgpu-devices-allocated"], entry);
        assert!(!older.contains_key("hami.io/vgpu-mig-allocations"));
        let (volcano, gpu) = annotations("volcano_mig");
        let entry = format!(";{gpu}[group1-4],NVIDIA,10240,0:;");
        assert_eq!(volcano["volcano.sh/vgpu-ids-new"], entry);
        let (newer, gpu) = annotations("hami_mig");
        let text = &newer["hami.io/vgpu-devices-allocated"];
        assert!(text.starts_with(&format!(";{gpu},NVIDIA,")), "{text}");
        let mig: serde_json::Value =
            serde_json::from_str(&newer["hami.io/vgpu-mig-allocations"]).unwrap();
        let [mig] = &mig.as_array().unwrap()[..] else { panic!("one device") };
        assert_eq!((&mig["containerIndex"], &mig["gpuInstanceID"]), (&json!(1), &json!(9)));
        assert_eq!((&mig["gpuUUID"], &mig["profile"]), (&json!(gpu), &json!("1g.10gb")));
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
