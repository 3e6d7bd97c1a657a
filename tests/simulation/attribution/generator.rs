//! Random worlds: GPUs, the processes on them, and faults. Pods are in [`pods`].

mod claims;
mod forgery;
mod groups;
mod pods;
mod rare_cases;
mod sharing;

use fastrand::Rng;

use self::pods::PodGenerator;
use self::rare_cases::RareCase;
use self::sharing::Sharing;
use super::timeline::{
    Access, Container, Device, Fault, FaultKind, Gpu, Instance, MPS_SERVER, Mps, Ms, Owner, Pod,
    Process, ProcessKind, Use, World,
};

/// The world of a seed.
pub(crate) fn generate(seed: u64) -> World {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    // A process may outlive its pod for 10 minutes, which only a long world shows.
    let length =
        if chance(rng, 10) { rng.u64(900_000..1_500_000) } else { rng.u64(90_000..300_000) };
    let case = RareCase::of(seed);
    let least = if case.is_some() { 2 } else { 1 };
    let gpus: Vec<Gpu> = (0..rng.usize(least..=3)).map(|index| gpu(rng, index)).collect();
    let mut world = World {
        length,
        cgroup_v2: rng.bool(),
        per_container: chance(rng, 30),
        lists_ended: chance(rng, 15),
        has_mps_replicas: seed.is_multiple_of(2),
        has_dynamic_mig: rng.bool(),
        has_logs: true,
        enforces_shares: false,
        proc_delay: 0,
        gpus,
        pods: Vec::new(),
        processes: Vec::new(),
        faults: Vec::new(),
        starts: vec![0],
    };
    let (pods, sharing) = PodGenerator::new(rng, &world, case).generate();
    world.pods = pods;
    world.enforces_shares = sharing.is_enforced();
    let is_time_sliced = sharing == Sharing::TimeSlicing;
    world.has_mps_replicas &= is_time_sliced;
    if is_time_sliced {
        for gpu in world.gpus.iter_mut().filter(|gpu| gpu.instances.is_empty()) {
            gpu.mps = [Mps::Off, Mps::Off, Mps::Listed, Mps::Unlisted][rng.usize(0..4)];
        }
    }
    world.processes = processes(rng, &world);
    world.faults = if chance(rng, 40) { Vec::new() } else { faults(rng, &world) };
    if chance(rng, 35) {
        world.starts.push(near_event(rng, &world));
    }
    if let Some(case) = case {
        case.arrange(rng, &mut world);
    }
    world.starts.sort_unstable();
    forge_cgroups(rng, &mut world);
    world
}

/// Some processes make cgroups below their own with the name of another pod, preferably in pods that the
/// API server cannot state.
fn forge_cgroups(rng: &mut Rng, world: &mut World) {
    let down = |at: Ms| world.has_fault(FaultKind::ApiDown, at);
    let choices: Vec<Option<usize>> = world
        .processes
        .iter()
        .map(|process| {
            let Owner::Run(pod, ..) = process.owner else { return None };
            let percent = if down(world.pods[pod].created) { 50 } else { 3 };
            chance(rng, percent).then(|| rng.usize(0..world.pods.len()))
        })
        .collect();
    for (process, forged) in world.processes.iter_mut().zip(choices) {
        process.forged = forged;
    }
}

/// True in `percent` of all cases.
fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}

fn gpu(rng: &mut Rng, index: usize) -> Gpu {
    let profiles = [("1g.10gb", 19, 9_728), ("2g.20gb", 14, 19_968)];
    let is_mig = chance(rng, 25);
    let instances = if is_mig { rng.usize(1..=3) } else { 0 };
    let instance = |n: usize| {
        let (profile, profile_id, total_mib) = profiles[rng.usize(0..profiles.len())];
        let uuid = format!("MIG-{:08x}-0000-4000-8000-{index:04x}{n:08x}", rng.u32(..));
        // GPU instance ids are neither dense nor in order.
        let id = [7, 1, 13][n];
        let memory_slice = [0, 4, 2][n];
        Instance { uuid, id, profile, profile_id, memory_slice, total_mib }
    };
    let instances = (0..instances).map(instance).collect();
    let uuid = format!("GPU-{:08x}-0000-4000-8000-{index:012x}", rng.u32(..));
    let minor = [1, 0, 2][index];
    let total_mib = if is_mig { 81_920 } else { 16_384 };
    Gpu { uuid, minor, total_mib, instances, mps: Mps::Off }
}

fn processes(rng: &mut Rng, world: &World) -> Vec<Process> {
    let mut all = Vec::new();
    for (pod_index, pod) in world.pods.iter().enumerate().filter(|(_, pod)| !pod.reserves) {
        for (container_index, container) in pod.containers.iter().enumerate() {
            for (run_index, run) in container.runs.iter().enumerate() {
                let owner = Owner::Run(pod_index, container_index, run_index);
                for _ in 0..[0, 1, 1, 1, 2, 3][rng.usize(0..6)] {
                    let start = run.start + rng.u64(200..6_000);
                    let uses = uses(rng, world, pod, container);
                    if start >= run.end || start > world.length || uses.is_empty() {
                        continue;
                    }
                    let is_restarted = run_index + 1 < container.runs.len();
                    let outlives = chance(rng, if is_restarted { 30 } else { 12 });
                    // Other runtimes end what is left of a container.
                    let end = if outlives && pod.runtime_class.is_none() {
                        run.end + rng.u64(2_000..1_000_000)
                    } else if chance(rng, 25) {
                        run.end.min(start + rng.u64(1_000..60_000))
                    } else {
                        run.end
                    };
                    all.push((owner.clone(), start, end, uses));
                }
            }
        }
    }
    for n in 0..[0, 0, 0, 1, 2][rng.usize(0..5)] {
        let start = rng.u64(0..world.length);
        let devices = world.devices();
        let device = devices[rng.usize(0..devices.len())];
        let owner = if rng.bool() { Owner::Host } else { Owner::Docker(format!("{n:064x}")) };
        let end = start + rng.u64(1_000..400_000);
        all.push((owner, start, end, vec![used(rng, device)]));
    }
    all.sort_by_key(|(_, start, ..)| *start);
    named(rng, world, all)
}

/// Gives pids and names to processes in the order of their starts.
fn named(rng: &mut Rng, world: &World, all: Vec<(Owner, Ms, Ms, Vec<Use>)>) -> Vec<Process> {
    let mut processes: Vec<Process> = Vec::new();
    for (gpu, _) in world.gpus.iter().enumerate().filter(|(_, gpu)| gpu.mps != Mps::Off) {
        let uses = vec![Use { device: Device { gpu, instance: None }, mib: 30, sm: 0 }];
        let (pid, end) = (900 + u32::try_from(gpu).unwrap(), world.length * 10);
        let (name, owner) = (MPS_SERVER.to_owned(), Owner::Host);
        let (kind, listed_until, forged) = (ProcessKind::Compute, end, None);
        let start = 0;
        let process = Process { pid, name, kind, owner, start, end, listed_until, uses, forged };
        processes.push(process);
    }
    for (n, (owner, start, end, uses)) in (1_000..).zip(all) {
        let is_free = |earlier: &&Process| earlier.listed_until + 3_000 < start;
        let newest = processes.iter().filter(is_free).max_by_key(|process| process.listed_until);
        let reused = newest.map(|process| process.pid);
        let taken = |pid: u32| processes.iter().any(|p| p.pid == pid && !is_free(&p));
        let reused = reused.filter(|pid| !taken(*pid) && chance(rng, 40));
        let has_mps = uses.iter().any(|used| world.gpus[used.device.gpu].mps != Mps::Off);
        let renamed = matches!(owner, Owner::Run(..)) && !has_mps && chance(rng, 3);
        let name = if renamed { MPS_SERVER.to_owned() } else { format!("worker-{n}") };
        let listed_until = if chance(rng, 10) { end + rng.u64(1_000..12_000) } else { end };
        let pid = reused.unwrap_or(n);
        let forged = None;
        let kind = match rng.u8(0..10) {
            0 => ProcessKind::Graphics,
            1 => ProcessKind::Both,
            _ => ProcessKind::Compute,
        };
        processes.push(Process { pid, name, kind, owner, start, end, listed_until, uses, forged });
    }
    processes
}

/// The devices that a process of `container` uses.
fn uses(rng: &mut Rng, world: &World, pod: &Pod, container: &Container) -> Vec<Use> {
    let of_pod = pod.containers.iter().flat_map(|container| &container.allocations);
    let administered = container.claims.iter().filter(|claimed| claimed.access == Access::Admin);
    let administered = administered.map(|claimed| claimed.device);
    let allocated = container.allocations.iter().map(|allocation| allocation.device);
    let own: Vec<Device> = administered.chain(allocated).collect();
    // A sandbox gives each container its own devices only.
    if pod.sandboxed && own.is_empty() && container.requests.is_empty() {
        return Vec::new();
    }
    let mut devices = if own.is_empty() { of_pod.map(|a| a.device).collect() } else { own };
    devices.dedup();
    let is_visible =
        |device: &Device| device.instance.is_some() || world.gpus[device.gpu].instances.is_empty();
    let all = world.devices();
    // With MIG, a container that was allocated the whole GPU works on one of its MIG devices.
    for device in &mut devices {
        if !is_visible(device) {
            device.instance = Some(0);
        }
    }
    let intrudes = if devices.is_empty() { chance(rng, 25) } else { chance(rng, 4) };
    if intrudes && !pod.sandboxed {
        let device = all[rng.usize(0..all.len())];
        return vec![used(rng, device)];
    }
    if devices.len() > 1 && rng.bool() {
        devices.truncate(1);
    }
    devices.into_iter().map(|device| used(rng, device)).collect()
}

fn used(rng: &mut Rng, device: Device) -> Use {
    let mib = if chance(rng, 20) { rng.u32(400..900) } else { rng.u32(100..400) };
    let sm = if chance(rng, 20) { 0 } else { rng.u32(1..30) };
    Use { device, mib, sm }
}

/// A time shortly before or after something happens to a pod.
fn near_event(rng: &mut Rng, world: &World) -> Ms {
    let replaced = |pod: &&Pod| {
        let same = |other: &&Pod| (&other.namespace, &other.name) == (&pod.namespace, &pod.name);
        world.pods.iter().filter(same).count() > 1
    };
    let mut events: Vec<Ms> = if chance(rng, 40) {
        world.pods.iter().filter(replaced).filter_map(|pod| pod.gone).collect()
    } else {
        world.pods.iter().flat_map(Pod::events).collect()
    };
    events.retain(|at| *at < world.length);
    if events.is_empty() || chance(rng, 30) {
        return rng.u64(1_000..world.length);
    }
    let event = events[rng.usize(0..events.len())];
    (event + rng.u64(0..6_000)).saturating_sub(rng.u64(0..6_000)).max(1_000)
}

fn faults(rng: &mut Rng, world: &World) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..rng.usize(1..=4) {
        let from = near_event(rng, world);
        let gpu = rng.usize(0..world.gpus.len());
        let pids: Vec<u32> = world.processes.iter().map(|process| process.pid).collect();
        let pid = if pids.is_empty() { 1 } else { pids[rng.usize(0..pids.len())] };
        let (short, long) = (rng.u64(5_000..40_000), rng.u64(30_000..world.length));
        let (kind, length) = match rng.u8(0..22) {
            0 => (FaultKind::ListFails(gpu), short),
            1 => (FaultKind::ListUnsupported(gpu), short),
            2 | 3 => (FaultKind::ListEmpty(gpu), short),
            4 | 5 => (FaultKind::Hang(gpu), short),
            6 => (FaultKind::RowsFail(gpu), short),
            7 => (FaultKind::RowInvalid(pid), short),
            8 => (FaultKind::MemoryUnknown(pid), long),
            9 => (FaultKind::TotalZero(gpu), short),
            10 => (FaultKind::Unreadable(pid), long),
            11..=13 => (FaultKind::KubeletDown, if rng.bool() { short } else { long }),
            14..=16 => (FaultKind::KubeletRestart, short),
            _ => (FaultKind::ApiDown, if rng.bool() { short } else { long }),
        };
        // Sources that are down when the exporter starts.
        let is_source =
            matches!(kind, FaultKind::KubeletDown | FaultKind::KubeletRestart | FaultKind::ApiDown);
        let from = if is_source && chance(rng, 30) { 0 } else { from };
        faults.push(Fault { from, to: from + length, kind });
    }
    faults
}

#[test]
fn seed_reproduces_its_world() {
    let text = |seed| format!("{:?}", generate(seed));
    for seed in 0..20 {
        assert_eq!(text(seed), text(seed));
    }
    assert_ne!(text(1), text(2));
}
