//! What kubelet, driver and `/proc` of the node return at a time.

use super::timeline::{
    Container, Device, Fault, FaultKind, Kind, Mps, Ms, Owner, Pod, Process, ProcessList, World,
};

/// Time for which a restarted kubelet does not respond, and for which its List is empty then.
const KUBELET_STARTUP: Ms = 2_000;
/// Time after which the kubelet removes the logs of a pod that is gone.
const LOGS_KEPT: Ms = 90_000;
/// Framebuffer that no process accounts for, MiB.
const DRIVER_MIB: u32 = 300;

/// A pod in the kubelet's List.
pub(crate) struct ListedPod<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) containers: Vec<&'a Container>,
}

/// A row of the driver: the mean SM utilization of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) pid: u32,
    pub(crate) at: Ms,
    pub(crate) sm: u32,
}

/// A process list: pids with their memory in MiB.
pub(crate) type Listing = Vec<(u32, Option<u32>)>;

/// Why a call of the driver failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    Failed,
    Unsupported,
}

/// A process in `/proc`.
pub(crate) struct ProcEntry<'a> {
    pub(crate) name: &'a str,
    /// Clock ticks since boot.
    pub(crate) started: u64,
    /// Content of `cgroup`.
    pub(crate) cgroup: String,
}

/// Why `/proc` has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcError {
    Gone,
    Denied,
}

/// The node at one time.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) world: &'a World,
    pub(crate) at: Ms,
}

impl<'a> Node<'a> {
    fn has(&self, kind: FaultKind) -> bool {
        self.world.has_fault(kind, self.at)
    }

    pub(crate) fn api_responds(&self) -> bool {
        !self.has(FaultKind::ApiDown)
    }

    /// The kubelet's List; `None` if the kubelet does not respond.
    pub(crate) fn list(&self) -> Option<Vec<ListedPod<'a>>> {
        let restarts = self.world.faults.iter().filter(|f| f.kind == FaultKind::KubeletRestart);
        let mut current = restarts.filter(|fault| fault.from <= self.at);
        // The kubelet reads the pods from the API server.
        let waits = |to: Ms| {
            let down = |f: &&Fault| f.kind == FaultKind::ApiDown;
            let mut down = self.world.faults.iter().filter(down);
            self.at < to || down.any(|f| f.from <= to && self.at < f.to)
        };
        let restarting = current.find(|fault| waits(fault.to)).map(|fault| self.at - fault.from);
        if self.has(FaultKind::KubeletDown) || restarting.is_some_and(|age| age < KUBELET_STARTUP) {
            return None;
        }
        let is_listed = |pod: &&Pod| {
            let end = if self.world.lists_ended && pod.completed.is_some() {
                pod.gone.unwrap_or(Ms::MAX)
            } else {
                pod.released()
            };
            let known = match restarting {
                Some(age) => age >= 2 * KUBELET_STARTUP && pod.hash.is_some(),
                None => true,
            };
            known && pod.admitted <= self.at && self.at < end
        };
        Some(self.world.pods.iter().filter(is_listed).map(listed).collect())
    }

    /// Pods in the log directories, with the names and ids of their started containers.
    pub(crate) fn logged(&self) -> Vec<(&'a Pod, Vec<(&'a str, &'a str)>)> {
        let removed = |pod: &Pod| pod.released().saturating_add(LOGS_KEPT);
        let exists = |pod: &&Pod| pod.admitted <= self.at && self.at < removed(pod);
        // The kubelet removes the logs of all runs but the last two.
        let started = |container: &'a Container| {
            let runs = container.runs.iter().rev().filter(|run| run.start + 50 <= self.at).take(2);
            runs.map(|run| (container.name.as_str(), run.id.as_str()))
        };
        let of = |pod: &'a Pod| (pod, pod.containers.iter().flat_map(started).collect());
        self.world.pods.iter().filter(exists).map(of).collect()
    }

    pub(crate) fn hangs(&self, gpu: usize) -> bool {
        self.has(FaultKind::Hang(gpu))
    }

    fn alive(&self) -> impl Iterator<Item = &'a Process> {
        let at = self.at;
        self.world.processes.iter().filter(move |process| process.is_alive(at))
    }

    /// A process list of a device.
    pub(crate) fn running(&self, device: Device, list: ProcessList) -> Result<Listing, CallError> {
        let gpu = device.gpu;
        if self.has(FaultKind::ListFails(gpu)) {
            return Err(CallError::Failed);
        }
        if self.has(FaultKind::ListUnsupported(gpu)) {
            return Err(CallError::Unsupported);
        }
        if self.has(FaultKind::ListEmpty(gpu)) {
            return Ok(Vec::new());
        }
        let mps = self.world.gpus[gpu].mps;
        let entry = |process: &Process| {
            let used = process.use_of(device)?;
            let is_client = mps != Mps::Off && matches!(process.owner, Owner::Run(..));
            let is_listed = process.start <= self.at && self.at < process.listed_until;
            let is_in = if is_client { list == ProcessList::Mps } else { process.is_in(list) };
            (is_listed && is_in).then_some(())?;
            let known = !self.has(FaultKind::MemoryUnknown(process.pid));
            let clients = self.alive().filter(|other| self.is_hidden(other, device));
            let of_clients = clients.filter_map(|other| other.use_of(device)).map(|used| used.mib);
            let hidden = if process.is_mps_server() { of_clients.sum() } else { 0 };
            Some((process.pid, known.then_some(used.mib + hidden)))
        };
        if list == ProcessList::Mps && mps == Mps::Unlisted {
            return Ok(Vec::new());
        }
        Ok(self.world.processes.iter().filter_map(entry).collect())
    }

    /// Utilization rows of a GPU since `since`.
    pub(crate) fn rows(&self, gpu: usize, since: Ms) -> Result<Vec<Row>, CallError> {
        if !self.world.gpus[gpu].instances.is_empty() {
            return Err(CallError::Unsupported);
        }
        if self.has(FaultKind::RowsFail(gpu)) {
            return Err(CallError::Failed);
        }
        let device = Device { gpu, instance: None };
        let row = |process: &Process| {
            let used = process.use_of(device)?;
            let (from, to) = (process.start.max(since), process.end.min(self.at));
            (to > from && used.sm > 0).then_some(())?;
            let busy = u64::from(used.sm) * (to - from);
            let mean = u32::try_from(busy / (self.at - since).max(1)).unwrap();
            let invalid = self.has(FaultKind::RowInvalid(process.pid));
            Some(Row { pid: process.pid, at: to, sm: if invalid { 4_000_000 } else { mean } })
        };
        let rows = self.world.processes.iter().filter(|process| !self.is_hidden(process, device));
        let mut rows: Vec<Row> = rows.filter_map(row).collect();
        // The server works in the place of its unlisted clients.
        let clients = self.world.processes.iter().filter(|process| self.is_hidden(process, device));
        let clients: Vec<Row> = clients.filter_map(row).collect();
        let server = self.alive().find(|p| p.is_mps_server() && p.use_of(device).is_some());
        if let (Some(server), Some(at)) = (server, clients.iter().map(|row| row.at).max()) {
            let sm = clients.iter().map(|row| row.sm).sum::<u32>().min(100);
            rows.push(Row { pid: server.pid, at, sm });
        }
        Ok(rows)
    }

    /// Whether the process is an unlisted client of an MPS server.
    fn is_hidden(&self, process: &Process, device: Device) -> bool {
        self.world.gpus[device.gpu].mps == Mps::Unlisted && matches!(process.owner, Owner::Run(..))
    }

    /// Total and used framebuffer of a device, MiB.
    pub(crate) fn framebuffer(&self, device: Device) -> (u32, u32) {
        let used = self.alive().filter_map(|process| process.use_of(device)).map(|used| used.mib);
        let used = used.sum::<u32>() + DRIVER_MIB;
        let total = self.world.total_mib(device);
        if self.has(FaultKind::TotalZero(device.gpu)) { (0, used) } else { (total, used) }
    }

    /// Time and utilization of the samples of a GPU since `since`: each half second, and now.
    pub(crate) fn samples(&self, gpu: usize, since: Ms) -> Result<Vec<(Ms, u32)>, CallError> {
        if !self.world.gpus[gpu].instances.is_empty() {
            return Err(CallError::Unsupported);
        }
        let oldest = self.at.saturating_sub(36_000) / 500;
        let grid = (oldest..=self.at / 500).map(|step| step * 500).filter(|at| *at < self.at);
        let used_at = |at: Ms| {
            let ran = |process: &&Process| process.start < at && at <= process.end;
            let uses = self.world.processes.iter().filter(ran).flat_map(|process| &process.uses);
            uses.filter(|used| used.device.gpu == gpu).map(|used| used.sm).sum::<u32>().min(100)
        };
        let stamps = grid.chain([self.at]).filter(|at| *at > since);
        Ok(stamps.map(|at| (at, used_at(at))).collect())
    }

    /// Utilization of a GPU, percent.
    pub(crate) fn utilization(&self, gpu: usize) -> u32 {
        let uses = self.alive().flat_map(|process| &process.uses);
        uses.filter(|used| used.device.gpu == gpu).map(|used| used.sm).sum::<u32>().min(100)
    }

    pub(crate) fn process(&self, pid: u32) -> Result<ProcEntry<'a>, ProcError> {
        let process = self.alive().find(|process| process.pid == pid).ok_or(ProcError::Gone)?;
        if self.has(FaultKind::Unreadable(pid)) {
            return Err(ProcError::Denied);
        }
        let started = ticks(process.start);
        Ok(ProcEntry { name: &process.name, started, cgroup: self.cgroup(process) })
    }

    fn cgroup(&self, process: &Process) -> String {
        let v2 = self.world.cgroup_v2;
        let path = match &process.owner {
            Owner::Host => "/system.slice/trainer.service".to_owned(),
            Owner::Docker(id) if v2 => format!("/system.slice/docker-{id}.scope"),
            Owner::Docker(id) => format!("/docker/{id}"),
            Owner::Run(pod, container, run) => {
                let pod = &self.world.pods[*pod];
                let run = &pod.containers[*container].runs[*run];
                let sandbox = format!("{:064x}", u128::from_str_radix(&pod.uid[..8], 16).unwrap());
                let id = if pod.sandboxed { &sandbox } else { &run.id };
                let forged = process.forged.map(|other| &self.world.pods[other]);
                let inner = forged.map(|other| self.container_path(other, &run.id));
                let deleted = if v2 && run.end <= self.at { " (deleted)" } else { "" };
                self.container_path(pod, id) + &inner.unwrap_or_default() + deleted
            }
        };
        if v2 {
            return format!("0::{path}\n");
        }
        format!(
            "12:memory:{path}\n5:devices:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:/\n\
             0::/system.slice/containerd.service\n"
        )
    }

    /// The cgroup of a container.
    fn container_path(&self, pod: &Pod, id: &str) -> String {
        let uid = pod.hash.as_deref().unwrap_or(&pod.uid);
        if !self.world.cgroup_v2 {
            return format!("/kubepods/burstable/pod{uid}/{id}");
        }
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/\
             cri-containerd-{id}.scope",
            uid.replace('-', "_")
        )
    }
}

/// A time in clock ticks since boot.
pub(crate) fn ticks(at: Ms) -> u64 {
    100_000 + at / 10
}

fn listed(pod: &Pod) -> ListedPod<'_> {
    let is_listed = |c: &&Container| matches!(c.kind, Kind::App | Kind::Sidecar);
    ListedPod {
        namespace: &pod.namespace,
        name: &pod.name,
        containers: pod.containers.iter().filter(is_listed).collect(),
    }
}
