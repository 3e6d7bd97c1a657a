//! The truth of a node over time: its GPUs, pods, processes and faults. All times are milliseconds since the
//! start of the world.

mod pod;

pub(crate) use self::pod::{
    Access, Allocation, Claimed, Container, Holding, Kind, Pod, RELEASE_LAG, Run,
};

/// Milliseconds since the start of the world.
pub(crate) type Ms = u64;

/// Resources of device plugins. They have any of the node's devices.
pub(crate) const RESOURCES: [&str; 4] = [
    "nvidia.com/gpu",
    "nvidia.com/mig-1g.10gb",
    "nvidia.com/mig-1g.10gb.me",
    "nvidia.com/mig-1g.10gb.gfx",
];

/// The name of an MPS server in `/proc`, which any process can give itself.
pub(crate) const MPS_SERVER: &str = "nvidia-cuda-mps";

/// A node and everything that happens on it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct World {
    pub(crate) length: Ms,
    pub(crate) cgroup_v2: bool,
    /// One process series per container instead of one per process.
    pub(crate) per_container: bool,
    /// The kubelet's List contains ended pods (before Kubernetes 1.34).
    pub(crate) lists_ended: bool,
    /// The replicas of its GPUs are those of MPS, not of time-slicing. A label of the node states it.
    pub(crate) has_mps_replicas: bool,
    /// The slices of its MIG devices have no UUID.
    pub(crate) has_dynamic_mig: bool,
    /// The exporter can read the log directories.
    pub(crate) has_logs: bool,
    /// The scheduler does not allocate more of a GPU than it has.
    pub(crate) enforces_shares: bool,
    /// How long after the process lists `/proc` is read.
    pub(crate) proc_delay: Ms,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) processes: Vec<Process>,
    pub(crate) faults: Vec<Fault>,
    /// When the exporter starts, first at 0.
    pub(crate) starts: Vec<Ms>,
}

/// A GPU.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) minor: u32,
    pub(crate) total_mib: u32,
    /// MIG devices; none while MIG is disabled.
    pub(crate) instances: Vec<Instance>,
    pub(crate) mps: Mps,
}

/// Whether containers use a GPU through an MPS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mps {
    Off,
    /// The driver lists the clients.
    Listed,
    /// The driver lists the server only (before Volta).
    Unlisted,
}

/// A MIG device.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) uuid: String,
    /// GPU instance id.
    pub(crate) id: u32,
    pub(crate) profile: &'static str,
    /// Id of the profile.
    pub(crate) profile_id: u32,
    /// First memory slice.
    pub(crate) memory_slice: u32,
    pub(crate) total_mib: u32,
}

/// A GPU, or one of its MIG devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Device {
    pub(crate) gpu: usize,
    pub(crate) instance: Option<usize>,
}

/// A process that uses devices.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) kind: ProcessKind,
    pub(crate) owner: Owner,
    pub(crate) start: Ms,
    pub(crate) end: Ms,
    /// Until when the driver lists the process, at least until its end.
    pub(crate) listed_until: Ms,
    pub(crate) uses: Vec<Use>,
    /// The pod of the cgroup path that the process has made below its own, by index.
    pub(crate) forged: Option<usize>,
}

/// The lists of the driver that contain a process that is no MPS client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessKind {
    Compute,
    Graphics,
    Both,
}

/// A process list of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessList {
    Compute,
    Graphics,
    /// MPS clients.
    Mps,
}

#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) device: Device,
    pub(crate) mib: u32,
    /// SM utilization, percent.
    pub(crate) sm: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Host,
    /// A container without a pod, by its id.
    Docker(String),
    /// Pod, container and run, by index.
    Run(usize, usize, usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) from: Ms,
    pub(crate) to: Ms,
    pub(crate) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The process lists of a GPU fail.
    ListFails(usize),
    ListUnsupported(usize),
    /// The process lists of a GPU are empty although processes work on it.
    ListEmpty(usize),
    /// No call for the GPU returns.
    Hang(usize),
    /// The call for utilization per process fails.
    RowsFail(usize),
    /// The utilization row of the process is impossible.
    RowInvalid(u32),
    /// The driver does not state the memory of the process.
    MemoryUnknown(u32),
    /// The framebuffer has a total of 0.
    TotalZero(usize),
    /// `/proc` denies access to the process.
    Unreadable(u32),
    KubeletDown,
    /// A restarted kubelet: its List is empty, then contains static pods only.
    KubeletRestart,
    /// The API server does not respond.
    ApiDown,
}

impl World {
    pub(crate) fn has_fault(&self, kind: FaultKind, at: Ms) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind && fault.from <= at && at < fault.to)
    }

    /// Faults that were active between `from` and `to`.
    pub(crate) fn faults_within(&self, from: Ms, to: Ms) -> impl Iterator<Item = FaultKind> {
        let overlaps = move |fault: &&Fault| fault.from <= to && from < fault.to;
        self.faults.iter().filter(overlaps).map(|fault| fault.kind)
    }

    /// Framebuffer of a device, MiB.
    pub(crate) fn total_mib(&self, device: Device) -> u32 {
        let gpu = &self.gpus[device.gpu];
        device.instance.map_or(gpu.total_mib, |instance| gpu.instances[instance].total_mib)
    }

    /// The devices with processes of their own: GPUs without MIG, and MIG devices.
    pub(crate) fn devices(&self) -> Vec<Device> {
        let of = |(index, gpu): (usize, &Gpu)| match gpu.instances.len() {
            0 => vec![Device { gpu: index, instance: None }],
            n => (0..n).map(|n| Device { gpu: index, instance: Some(n) }).collect(),
        };
        self.gpus.iter().enumerate().flat_map(of).collect()
    }

    /// The name of a device in resource claims.
    pub(crate) fn claim_name(&self, device: Device) -> String {
        let gpu = &self.gpus[device.gpu];
        let Some(instance) = device.instance else { return format!("gpu-{}", gpu.minor) };
        let Instance { profile, profile_id, memory_slice, .. } = &gpu.instances[instance];
        format!("gpu-{}-mig-{}-{profile_id}-{memory_slice}", gpu.minor, profile.replace('.', ""))
    }

    /// The pod and container of a process.
    pub(crate) fn owner(&self, process: &Process) -> Option<(usize, &Container)> {
        match process.owner {
            Owner::Run(pod, container, _) => Some((pod, &self.pods[pod].containers[container])),
            Owner::Host | Owner::Docker(_) => None,
        }
    }
}

impl FaultKind {
    /// Whether kubelet or API server is affected.
    pub(crate) fn is_of_source(self) -> bool {
        matches!(self, Self::KubeletDown | Self::KubeletRestart | Self::ApiDown)
    }
}

impl Device {
    /// Whether one is the other or contains it.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let whole = self.instance.is_none() || other.instance.is_none();
        self.gpu == other.gpu && (whole || self.instance == other.instance)
    }
}

impl Process {
    pub(crate) fn is_alive(&self, at: Ms) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether this is an MPS server of the node.
    pub(crate) fn is_mps_server(&self) -> bool {
        self.owner == Owner::Host && self.name == MPS_SERVER
    }

    /// Whether a list of the driver contains it, if it is no MPS client.
    pub(crate) fn is_in(&self, list: ProcessList) -> bool {
        match list {
            ProcessList::Compute => self.kind != ProcessKind::Graphics,
            ProcessList::Graphics => self.kind != ProcessKind::Compute,
            ProcessList::Mps => false,
        }
    }

    pub(crate) fn use_of(&self, device: Device) -> Option<&Use> {
        self.uses.iter().find(|used| used.device == device)
    }
}
