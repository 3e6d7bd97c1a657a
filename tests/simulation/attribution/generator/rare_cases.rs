//! Worlds with sequences of events that random worlds have too seldom.

use fastrand::Rng;

use super::super::timeline::{
    Container, Device, Fault, FaultKind, Kind, Ms, Owner, Pod, Process, ProcessKind, Use, World,
};
use super::chance;
use super::sharing::Sharing;

/// A sequence of events, or a kind of pods, of which a world has at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RareCase {
    /// The exporter starts between the end of a pod and the admission of its successor.
    StartBetween,
    /// A pod without an allocation is replaced while the API server is down, and one of its processes works
    /// on the device of its successor.
    ReplacedByHolder,
    /// The exporter knows a pod from the kubelet only, which restarts then. Its successor works on the device
    /// of the pod.
    UnlistedPredecessor,
    /// A pod works on the device of its predecessor, which the kubelet still lists.
    ListedPredecessor,
    /// Init containers with devices that the kubelet does not list work on the devices of others.
    InitContainers,
    /// The status of a container of another runtime is late.
    LateStatus,
    /// A process has the pid of one that has just ended.
    ReusedPid,
    /// Annotations with more units than the kubelet allocates.
    InflatedUnits,
    /// Some GPUs are allocated whole on a node with a scheduler that shares GPUs.
    WholeGpus,
    /// Annotations with more than a GPU has.
    Overcommitment,
    /// A reservation pod is deleted before the pods of its group.
    LostReservation,
    /// The status of a pod contains the id of another pod's container.
    ForeignId,
    /// Claims of network devices, which have the names of GPUs.
    OtherDriver,
}

use RareCase::{
    ForeignId, InflatedUnits, InitContainers, LateStatus, ListedPredecessor, LostReservation,
    OtherDriver, Overcommitment, ReplacedByHolder, ReusedPid, StartBetween, UnlistedPredecessor,
    WholeGpus,
};

const ALL: [RareCase; 13] = [
    StartBetween,
    ReplacedByHolder,
    UnlistedPredecessor,
    ListedPredecessor,
    InitContainers,
    LateStatus,
    ReusedPid,
    InflatedUnits,
    WholeGpus,
    Overcommitment,
    LostReservation,
    ForeignId,
    OtherDriver,
];

impl RareCase {
    /// The case of a seed: half of all worlds have one.
    pub(super) fn of(seed: u64) -> Option<Self> {
        let number = usize::try_from(seed / 4 * 2 + seed % 4 % 2).unwrap();
        (seed % 4 < 2).then_some(ALL[number % ALL.len()])
    }

    /// How the GPUs of the world are allocated, if that matters.
    pub(super) fn sharing(self, rng: &mut Rng) -> Option<Sharing> {
        let of = |all: &[Sharing], rng: &mut Rng| Some(all[rng.usize(0..all.len())]);
        let units = [Sharing::AckV1, Sharing::AckV2];
        let annotated =
            [Sharing::AckV1, Sharing::AckV2, Sharing::VolcanoMemory, Sharing::Koordinator];
        match self {
            InflatedUnits => of(&units, rng),
            WholeGpus => of(&annotated, rng),
            Overcommitment => of(&[Sharing::Koordinator, Sharing::Kai, Sharing::Hami], rng),
            LostReservation => Some(Sharing::Kai),
            ReusedPid | ForeignId | OtherDriver => None,
            StartBetween | ReplacedByHolder | UnlistedPredecessor | ListedPredecessor
            | InitContainers | LateStatus => Some(Sharing::Exclusive),
        }
    }

    /// Whether the second pod of the world is the successor of the first, which is deleted by force.
    pub(super) fn has_successor(self) -> bool {
        matches!(self, StartBetween | ReplacedByHolder | UnlistedPredecessor | ListedPredecessor)
    }

    /// Whether many pods state an allocation that they do not have.
    pub(super) fn forges(self) -> bool {
        matches!(self, InflatedUnits | WholeGpus | Overcommitment)
    }

    /// Adds the processes, faults and starts of the case.
    pub(super) fn arrange(self, rng: &mut Rng, world: &mut World) {
        match self {
            StartBetween => start_between(rng, world),
            ReplacedByHolder => replaced_by_holder(rng, world),
            UnlistedPredecessor => unlisted_predecessor(rng, world),
            ListedPredecessor => {
                if let Some((_, device)) = successor(world) {
                    world.faults.clear();
                    work(rng, world, (1, 0, 0), device);
                }
            }
            InitContainers => init_containers(rng, world),
            LateStatus => late_status(rng, world),
            ReusedPid => reused_pids(rng, world),
            LostReservation => {
                let lost = world.pods.iter().filter(|pod| pod.reserves).filter_map(|pod| pod.gone);
                let lost: Vec<Ms> = lost.filter(|at| *at < world.length).collect();
                if !lost.is_empty() && rng.bool() {
                    world.starts = vec![0, lost[rng.usize(0..lost.len())] + rng.u64(300..3_000)];
                }
            }
            ForeignId => foreign_ids(rng, world),
            OtherDriver => other_driver(rng, world),
            InflatedUnits | WholeGpus | Overcommitment => {}
        }
    }
}

/// The first run of the successor's main container, and the device of its predecessor.
fn successor(world: &World) -> Option<(Ms, Device)> {
    let [first, second, ..] = world.pods.as_slice() else { return None };
    let device = first.containers[0].allocations.first()?.device;
    let is_other =
        second.containers[0].allocations.first().is_some_and(|held| held.device != device);
    let start = second.containers[0].runs.first()?.start;
    (is_other && world.devices().contains(&device)).then_some((start, device))
}

/// Adds a process of a run (pod, container and run) on `device`.
fn work(rng: &mut Rng, world: &mut World, run: (usize, usize, usize), device: Device) {
    let (pod, container, number) = run;
    let of = &world.pods[pod].containers[container].runs[number];
    let (start, end) = (of.start + rng.u64(100..600), of.end);
    if start < end {
        add(world, Owner::Run(pod, container, number), (start, end), device);
    }
}

fn add(world: &mut World, owner: Owner, (start, end): (Ms, Ms), device: Device) {
    let number = u32::try_from(world.processes.len()).unwrap();
    world.processes.push(Process {
        pid: 5_000 + number,
        name: format!("extra-{number}"),
        kind: ProcessKind::Compute,
        owner,
        start,
        end,
        listed_until: end,
        uses: vec![Use { device, mib: 150 + number, sm: 5 }],
        forged: None,
    });
}

fn start_between(rng: &mut Rng, world: &mut World) {
    if successor(world).is_none() {
        return;
    }
    let admitted = world.pods[1].admitted;
    world.faults.clear();
    world.starts = vec![0, admitted - rng.u64(1_100..1_700)];
    if let Some(device) = world.pods[1].containers[0].allocations.first().map(|held| held.device) {
        work(rng, world, (1, 0, 0), device);
    }
}

fn replaced_by_holder(rng: &mut Rng, world: &mut World) {
    let [first, second, ..] = world.pods.as_slice() else { return };
    let device = second.containers[0].allocations.first().map(|held| held.device);
    let device = device.filter(|device| world.devices().contains(device));
    let (Some(device), Some(run), Some(gone)) =
        (device, first.containers[0].runs.first(), first.gone)
    else {
        return;
    };
    let time = (run.start + 500, second.admitted + 200_000);
    add(world, Owner::Run(0, 0, 0), time, device);
    let from = gone.saturating_sub(rng.u64(500..3_000));
    let to = gone + rng.u64(60_000..150_000);
    world.faults = vec![Fault { from, to, kind: FaultKind::ApiDown }];
}

fn unlisted_predecessor(rng: &mut Rng, world: &mut World) {
    let Some((start, device)) = successor(world) else { return };
    let (first, second) = (&world.pods[0], &world.pods[1]);
    let gone = first.gone.unwrap_or_default();
    let started = gone.saturating_sub(rng.u64(3_000..8_000)).max(first.admitted + 1_000);
    let connected = second.created + rng.u64(700..2_500);
    // A later List can contain the first pod, of which the exporter knows nothing, beside the second.
    let restarted = (second.admitted - rng.u64(200..1_000)).min(connected - 600);
    if started + 1_000 > restarted {
        return;
    }
    let fault = |from, to, kind| Fault { from, to, kind };
    world.faults = vec![
        fault(started.saturating_sub(1_000), connected, FaultKind::ApiDown),
        fault(restarted, start + 25_000, FaultKind::KubeletRestart),
    ];
    world.starts = vec![0, started];
    work(rng, world, (1, 0, 0), device);
}

/// Init containers work on the devices of other pods.
fn init_containers(rng: &mut Rng, world: &mut World) {
    let mut all = Vec::new();
    for (index, pod) in world.pods.iter().enumerate() {
        let is_init = |(_, c): &(usize, &Container)| c.kind == Kind::Init;
        let Some((number, init)) = pod.containers.iter().enumerate().find(is_init) else {
            continue;
        };
        let holds = |other: &&Pod| {
            other.uid != pod.uid
                && other.admitted < init.runs[0].start
                && other.released() > init.runs[0].end
        };
        let held = world.pods.iter().filter(holds).flat_map(|other| &other.containers);
        let devices = held.flat_map(|container| &container.allocations).map(|held| held.device);
        let devices: Vec<Device> =
            devices.filter(|device| world.devices().contains(device)).collect();
        if !devices.is_empty() && chance(rng, 70) {
            all.push(((index, number, 0), devices[rng.usize(0..devices.len())]));
        }
    }
    for (run, device) in all {
        work(rng, world, run, device);
    }
}

/// The second container of the first pod works on the device of the main container.
fn late_status(rng: &mut Rng, world: &mut World) {
    let [main, second, ..] = world.pods[0].containers.as_slice() else { return };
    let Some(device) = main.allocations.first().map(|held| held.device) else { return };
    let runs = second.runs.len();
    if !world.devices().contains(&device) || runs < 2 {
        return;
    }
    world.faults.clear();
    if second.runs[0].end + world.pods[0].lag < second.runs[1].start {
        let from = second.runs[1].start - rng.u64(100..300);
        world.pods[0].status_held = Some((from, from + rng.u64(14_000..16_000)));
        world.has_logs = false;
    }
    for run in 1..runs {
        work(rng, world, (0, 1, run), device);
    }
}

/// Processes end shortly after a cycle, and others get their pids.
fn reused_pids(rng: &mut Rng, world: &mut World) {
    let mut added = Vec::new();
    for n in 0..world.processes.len() {
        let process = &world.processes[n];
        let end = (process.start + rng.u64(5_000..40_000)) / 5_000 * 5_000 + rng.u64(10..60);
        let next = &world.processes[rng.usize(0..world.processes.len())];
        let start = end + rng.u64(10..70);
        let to = next.end.min(start + 60_000);
        let is_taken = world.processes.iter().filter(|other| other.pid == process.pid).count() > 1;
        if is_taken || end >= process.end || next.start >= start || to < start + 5_000 {
            continue;
        }
        let name = format!("next-{n}");
        let mut uses = next.uses.clone();
        for used in &mut uses {
            used.sm = 1;
        }
        let pid = process.pid;
        let next = Process { pid, name, start, end: to, listed_until: to, uses, ..next.clone() };
        if !process.is_mps_server() && !next.is_mps_server() {
            added.push(next);
            let process = &mut world.processes[n];
            (process.end, process.listed_until) = (end, end);
            for used in &mut process.uses {
                used.sm = 25;
            }
        }
    }
    world.processes.extend(added);
    world.proc_delay = if rng.bool() { 150 } else { 0 };
}

/// Containers use claims of network devices.
fn other_driver(rng: &mut Rng, world: &mut World) {
    let devices = world.devices();
    let pods = world.pods.iter_mut().filter(|pod| pod.hash.is_none() && !pod.reserves);
    for container in pods.flat_map(|pod| &mut pod.containers) {
        if container.kind == Kind::App && rng.bool() {
            let device = devices[rng.usize(0..devices.len())];
            container.network = Some((format!("network-{:08x}", rng.u32(..)), device));
        }
    }
}

/// The status of a container contains the id of a container of another pod.
fn foreign_ids(rng: &mut Rng, world: &mut World) {
    for index in 0..world.pods.len() {
        let other = &world.pods[rng.usize(0..world.pods.len())];
        let container = &other.containers[rng.usize(0..other.containers.len())];
        let id = container.runs.last().map(|run| run.id.clone());
        let (uid, name) = (other.uid.clone(), container.name.clone());
        let pod = &mut world.pods[index];
        if pod.uid == uid || pod.reserves {
            continue;
        }
        if let Some(container) = pod.containers.iter_mut().find(|c| c.name != name) {
            container.foreign_id = id;
        }
    }
}
