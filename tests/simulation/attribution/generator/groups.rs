//! Reservation pods of KAI Scheduler, which hold the GPUs that the pods of a group share.

use fastrand::Rng;

use super::super::timeline::{Container, Kind, Ms, Pod, Run, World};

/// Longest time between the creation of a reservation pod and that of the first pod of its group.
const BIND_MAX: Ms = 3_000;
/// Time after the last pod of a group until its reservation pod is deleted, and then to let go of the GPU.
const RELEASE: Ms = 300;

/// Puts the pods that share GPUs by fractions in groups, and returns the reservation pods of these.
/// Some are deleted before those pods, if any `is_lost`.
pub(super) fn reserve(rng: &mut Rng, world: &World, pods: &mut [Pod], is_lost: bool) -> Vec<Pod> {
    let mut reservations: Vec<Pod> = Vec::new();
    for (gpu, _) in world.gpus.iter().enumerate().filter(|(_, gpu)| gpu.instances.is_empty()) {
        let mut last: Option<(String, Ms, usize)> = None;
        let mut members: Vec<&mut Pod> = pods.iter_mut().filter(|pod| shares(pod, gpu)).collect();
        members.sort_by_key(|pod| pod.created);
        for pod in members {
            let left = (pod.gone.into_iter().chain(pod.completed.map(|at| at + pod.lag))).min();
            let left = left.unwrap_or(Ms::MAX);
            // A GPU is not free for another group before that.
            let joins = last.take_if(|(_, end, _)| end.saturating_add(3 * BIND_MAX) >= pod.created);
            let (group, end, index) = joins.unwrap_or_else(|| {
                let group = format!("{:08x}-2222-4222-8222-{gpu:012x}", rng.u32(..));
                reservations.push(reservation(rng, world, (gpu, &group), pod.created));
                (group, 0, reservations.len() - 1)
            });
            let is_of_several = pod.containers.iter().any(|c| c.allocations.len() > 1);
            let suffix = if is_of_several { format!("/{group}") } else { String::new() };
            pod.labels.push((format!("runai-gpu-group{suffix}"), group.clone()));
            let end = end.max(left);
            set_end(world, &mut reservations[index], end);
            last = Some((group, end, index));
        }
    }
    if is_lost {
        for reservation in &mut reservations {
            lose(rng, pods, reservation);
        }
    }
    reservations
}

/// Deletes a reservation pod while pods of its group run. The scheduler deletes these then.
fn lose(rng: &mut Rng, pods: &mut [Pod], reservation: &mut Pod) {
    let group = reservation.labels[0].1.clone();
    let is_in_group = |pod: &Pod| pod.labels.iter().any(|(_, value)| *value == group);
    let members = || pods.iter().filter(|pod| is_in_group(pod));
    let newest = members().map(|pod| pod.admitted).max().unwrap_or_default();
    let at = newest + rng.u64(10_000..60_000);
    if reservation.gone.is_some_and(|gone| gone <= at + 1_000) {
        return;
    }
    (reservation.deleted, reservation.gone) = (Some(at), Some(at));
    reservation.containers[0].runs[0].end = at + RELEASE;
    for pod in pods.iter_mut().filter(|pod| is_in_group(pod) && at + 1_000 < pod.end()) {
        let deleted = at + rng.u64(300..1_000);
        let deleted = pod.deleted.map_or(deleted, |earlier| earlier.min(deleted));
        let stop = pod.last_run_end().min(deleted + rng.u64(5_000..30_000));
        for container in &mut pod.containers {
            container.runs.retain(|run| run.start < deleted);
            for run in &mut container.runs {
                run.end = run.end.min(stop);
            }
        }
        (pod.deleted, pod.completed) = (Some(deleted), None);
        pod.gone = Some(pod.last_run_end().max(deleted) + pod.lag + 500);
    }
}

/// Whether a pod has a fraction of a GPU.
fn shares(pod: &Pod, gpu: usize) -> bool {
    let mut all = pod.containers.iter().flat_map(|container| &container.allocations);
    all.any(|a| a.device.gpu == gpu && a.device.instance.is_none() && a.shared)
}

fn reservation(rng: &mut Rng, world: &World, (gpu, group): (usize, &str), bound: Ms) -> Pod {
    let created = bound.saturating_sub(rng.u64(1_500..BIND_MAX));
    let admitted = created + rng.u64(100..1_000);
    let uuid = &world.gpus[gpu].uuid;
    let number = rng.u32(..);
    let mut annotations = Vec::new();
    if rng.bool() {
        annotations.push(("run.ai/reserve_for_gpu_index".to_owned(), uuid.clone()));
    }
    let start = admitted + rng.u64(100..1_000);
    let run = Run {
        id: format!("{:064x}", u128::from(number) + (1 << 100)),
        start,
        end: world.length * 10,
    };
    Pod {
        uid: format!("{number:08x}-3333-4333-8333-{gpu:012x}"),
        hash: None,
        namespace: "kai-resource-reservation".to_owned(),
        name: format!("gpu-reservation-node-1-{number:08x}"),
        labels: vec![("runai-gpu-group".to_owned(), group.to_owned())],
        annotations,
        forges: false,
        changes_amounts: false,
        sandboxed: false,
        runtime_class: None,
        reserves: true,
        created,
        admitted,
        deleted: None,
        gone: None,
        completed: None,
        lag: rng.u64(300..3_000),
        status_held: None,
        containers: vec![Container {
            name: "resource-reservation".to_owned(),
            kind: Kind::App,
            runs: vec![run],
            foreign_id: None,
            network: None,
            requests: vec![("nvidia.com/gpu", "1".to_owned())],
            listed: vec![("nvidia.com/gpu", vec![uuid.clone()])],
            claims: Vec::new(),
            allocations: Vec::new(),
        }],
    }
}

/// Deletes a reservation pod, without a grace period, after the last pod of its group.
fn set_end(world: &World, reservation: &mut Pod, last: Ms) {
    let gone = (last != Ms::MAX).then(|| last + RELEASE);
    (reservation.deleted, reservation.gone) = (gone, gone);
    let end = gone.map_or(world.length * 10, |gone| gone + RELEASE);
    reservation.containers[0].runs[0].end = end;
}
