//! Annotations and labels that state what their pods were not allocated.

use fastrand::Rng;

use super::super::timeline::{Gpu, Pod, World};
use super::chance;
use super::rare_cases::RareCase;
use super::sharing::{Sharing, text};

const GROUP: &str = "runai-gpu-group";

/// Lets some pods state an allocation that they do not have.
pub(super) fn forge(
    rng: &mut Rng,
    world: &World,
    (sharing, case): (Sharing, Option<RareCase>),
    pods: &mut [Pod],
) {
    let whole = pods.iter().find(|pod| pod.annotations.is_empty() && is_allocated(pod));
    let whole = whole.map(|pod| held_gpu(world, pod).clone());
    let reserved = pods.iter().filter(|pod| pod.reserves).flat_map(|pod| pod.labels.clone());
    let groups: Vec<(String, String)> = reserved.collect();
    for pod in pods.iter_mut().filter(|pod| !pod.reserves) {
        let percent = if case.is_some_and(RareCase::forges) { 50 } else { 15 };
        if !pod.annotations.is_empty() && is_allocated(pod) && chance(rng, percent) {
            let by_units = matches!(sharing, Sharing::AckV1 | Sharing::AckV2);
            match (case, &whole) {
                (Some(RareCase::Overcommitment), _) => overstate(rng, world, pod),
                (Some(RareCase::WholeGpus), Some(gpu)) => replace_gpu(world, pod, gpu),
                (Some(RareCase::InflatedUnits), _) if chance(rng, 80) => inflate(pod),
                _ if by_units && chance(rng, 40) => inflate(pod),
                _ => falsify(rng, world, pod),
            }
        }
        if chance(rng, 12) {
            foreign(rng, world, sharing, pod);
        }
        if sharing == Sharing::Kai && !is_allocated(pod) && chance(rng, 50) {
            join(rng, &groups, pod);
        }
    }
}

fn is_allocated(pod: &Pod) -> bool {
    pod.containers.iter().any(|container| !container.allocations.is_empty())
}

/// Annotations of schedulers of which the pod has no unit at the kubelet: they have no effect.
fn foreign(rng: &mut Rng, world: &World, sharing: Sharing, pod: &mut Pod) {
    let gpu = &world.gpus[rng.usize(0..world.gpus.len())];
    let (units, mut annotations) = match rng.u8(0..5) {
        0 => ("aliyun.com/", ack_v2(gpu)),
        1 => ("aliyun.com/", ack_v1(gpu)),
        2 => ("nvidia.com/gpu", vec![text("hami.io/vgpu-devices-allocated", vgpu(gpu))]),
        3 => ("volcano.sh/", vec![text("volcano.sh/vgpu-ids-new", vgpu(gpu))]),
        _ => ("koordinator.sh/", vec![koordinator(gpu)]),
    };
    let mut requests = pod.containers.iter().flat_map(|container| &container.requests);
    let has_units = requests.any(|(name, _)| name.starts_with(units));
    if has_units && (units != "nvidia.com/gpu" || sharing == Sharing::Hami) {
        return;
    }
    if chance(rng, 30) {
        fuzz(rng, &mut annotations);
    }
    pod.annotations.splice(0..0, annotations);
}

fn ack_v2(gpu: &Gpu) -> Vec<(String, String)> {
    let matrix = format!("{{\"0\":{{\"{}\":8}}}}", gpu.minor);
    vec![
        text("scheduler.framework.gpushare.allocation", matrix),
        text("scheduler.framework.gpushare.assigned", "true"),
    ]
}

fn ack_v1(gpu: &Gpu) -> Vec<(String, String)> {
    vec![
        text("ALIYUN_COM_GPU_MEM_IDX", gpu.minor.to_string()),
        text("ALIYUN_COM_GPU_MEM_POD", "8"),
        text("ALIYUN_COM_GPU_MEM_ASSIGNED", "true"),
    ]
}

fn vgpu(gpu: &Gpu) -> String {
    format!("{},NVIDIA,4000,30:;", gpu.uuid)
}

fn koordinator(gpu: &Gpu) -> (String, String) {
    let json = format!(
        "{{\"gpu\":[{{\"minor\":{},\"resources\":{{\"koordinator.sh/gpu-memory\":\"4000Mi\"}}}}]}}",
        gpu.minor
    );
    text("scheduling.koordinator.sh/device-allocated", json)
}

/// The annotations of the pod's own allocation name another GPU or are broken.
fn falsify(rng: &mut Rng, world: &World, pod: &mut Pod) {
    let other = &world.gpus[rng.usize(0..world.gpus.len())];
    if rng.bool() {
        replace_gpu(world, pod, other);
    } else {
        (pod.forges, pod.changes_amounts) = (true, true);
        fuzz(rng, &mut pod.annotations);
    }
}

/// The annotations of the pod's own allocation name `other`.
fn replace_gpu(world: &World, pod: &mut Pod, other: &Gpu) {
    (pod.forges, pod.changes_amounts) = (true, true);
    let held = held_gpu(world, pod);
    for (key, value) in &mut pod.annotations {
        *value = redirect(key, value, held, other);
    }
}

/// The GPU that a pod was allocated first.
fn held_gpu<'a>(world: &'a World, pod: &Pod) -> &'a Gpu {
    let mut devices = pod.containers.iter().flat_map(|container| &container.allocations);
    &world.gpus[devices.next().map_or(0, |allocation| allocation.device.gpu)]
}

/// The annotations state nearly all of the GPU, or another MIG device of it.
fn overstate(rng: &mut Rng, world: &World, pod: &mut Pod) {
    (pod.forges, pod.changes_amounts) = (true, true);
    let gpu = held_gpu(world, pod);
    let slot = gpu.total_mib / 3;
    let most = gpu.total_mib - 100;
    let instances = gpu.instances.len();
    let mut held = pod.containers.iter().flat_map(|container| &container.allocations);
    let from = held.find_map(|allocation| allocation.device.instance);
    for (key, value) in &mut pod.annotations {
        *value = match from {
            Some(from) => another_instance(value, gpu, (from, rng.usize(0..instances))),
            None if key == "gpu-fraction" => "0.9".to_owned(),
            None => value.replace(&slot.to_string(), &most.to_string()),
        };
    }
}

/// The annotation of a MIG device with another one.
fn another_instance(text: &str, gpu: &Gpu, (from, to): (usize, usize)) -> String {
    let id = |n: usize| format!("\"gpuInstanceID\":{},", gpu.instances[n].id);
    let index = |n: usize| format!("-{n}],");
    let text = text.replace(&gpu.instances[from].uuid, &gpu.instances[to].uuid);
    text.replace(&id(from), &id(to)).replace(&index(from), &index(to))
}

/// The annotations state more units than the kubelet, which is noticed: no amount changes.
fn inflate(pod: &mut Pod) {
    pod.forges = true;
    for (key, value) in &mut pod.annotations {
        match key.as_str() {
            "ALIYUN_COM_GPU_MEM_POD" => "8".clone_into(value),
            "scheduler.framework.gpushare.allocation" => *value = value.replace(":5}", ":8}"),
            _ => {}
        }
    }
}

/// The annotation with `other` in the place of `held`.
fn redirect(key: &str, value: &str, held: &Gpu, other: &Gpu) -> String {
    if ["ALIYUN_COM_GPU_MEM_IDX", "volcano.sh/gpu-index"].contains(&key) {
        return other.minor.to_string();
    }
    let minor = |gpu: &Gpu| format!("\"minor\":{}", gpu.minor);
    let of_matrix = |gpu: &Gpu| format!(":{{\"{}\":", gpu.minor);
    let text = value.replace(&held.uuid, &other.uuid).replace(&minor(held), &minor(other));
    text.replace(&of_matrix(held), &of_matrix(other))
}

/// The pod adds itself to a group, which may exist.
fn join(rng: &mut Rng, groups: &[(String, String)], pod: &mut Pod) {
    pod.forges = true;
    let group = if groups.is_empty() || rng.bool() {
        text(GROUP, "no-group")
    } else {
        pod.changes_amounts = true;
        groups[rng.usize(0..groups.len())].clone()
    };
    pod.labels.push(group);
    let mut annotations = vec![text("gpu-fraction", ["0.5", "0.1", "1", "7"][rng.usize(0..4)])];
    if chance(rng, 30) {
        fuzz(rng, &mut annotations);
    }
    pod.annotations.extend(annotations);
}

/// Breaks one of the values.
fn fuzz(rng: &mut Rng, annotations: &mut [(String, String)]) {
    let (_, value) = &mut annotations[rng.usize(0..annotations.len())];
    let mut text: Vec<char> = value.chars().collect();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(0..=text.len());
        let pieces = [
            "",
            "0",
            "-1",
            "99999999999",
            "1e308",
            "NaN",
            "\u{0}",
            "é",
            "\"",
            "}",
            ":",
            ";",
            ",",
            "[0-9]",
        ];
        let piece: Vec<char> = pieces[rng.usize(0..pieces.len())].chars().collect();
        let end = (at + rng.usize(0..4)).min(text.len());
        text.splice(at..end, piece);
    }
    if chance(rng, 10) {
        text.clear();
    }
    *value = text.into_iter().collect();
}
