//! Decides from evidence in which metric family a process is, and whether a container is idle.
//!
//! "Illegal" and "idle" are conclusions: without complete evidence the series is withheld, with a
//! reason.

use crate::model::{AllocateMode, Owner, Unresolved};
use crate::sample::unlisted_use::UnlistedUse;

/// Metric family of a process, or why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `DCGM_CUSTOM_PROCESS_*`, with this value of the `AllocateMode` label.
    Process(AllocateMode),
    /// `DCGM_CUSTOM_ILLEGAL_PROCESS_*`: the process uses a device that is not allocated to it.
    Illegal,
    /// No series. If it were published now, its family or labels could change later.
    Withheld(Unresolved),
}

/// What is known of a process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvidence {
    /// Its name is that of an MPS server.
    pub mps_server: bool,
    /// It was first seen so long ago that the pod status would contain its container.
    pub settled: bool,
}

/// What is known of the allocation of the device to the pod of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocationEvidence {
    /// No source of allocations is configured, and the node is in no cluster.
    NoCluster,
    /// No source of allocations is configured or available, but one of pods is.
    NoSource,
    /// The source has not responded yet.
    Pending,
    /// The device is allocated to the container, or to another container of its pod.
    Allocated(AllocateMode),
    /// All allocations of the pod were read after the process was first seen; the device is none of
    /// them.
    NotAllocated,
    /// It is not known whether the device is allocated to the pod.
    Unknown,
}

/// What is known of a device besides its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEvidence {
    /// The driver lists MPS clients.
    pub mps_clients: bool,
    /// The driver lists an MPS server at work, without clients.
    pub hidden_mps_clients: bool,
    /// The exporter runs in the host's PID namespace, where the driver lists all processes.
    pub lists_all_processes: bool,
    /// A listed process has an unknown owner.
    pub unresolved_process: bool,
    /// Use that no listed process accounts for.
    pub unlisted_use: Option<UnlistedUse>,
}

/// What is known of a container that is allocated a device without having a process on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleEvidence {
    /// Its pod still exists, and its allocation is known.
    pub confirmed: bool,
    /// It is running, and no init container of its pod is.
    pub running: bool,
    /// The process list was read after the allocation and the state of the container were known.
    pub listed_since: bool,
    /// It has a process on a device that it was not allocated.
    pub works_elsewhere: bool,
}

/// Why an idle container has no 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZeroDoubt {
    /// The process list of the device cannot be read.
    NoProcessList,
    /// The driver hides processes from the exporter's PID namespace.
    HiddenProcesses,
    /// A process on the device has an unknown owner.
    UnresolvedProcess,
    /// The device is busy, and no listed process accounts for it.
    UnlistedUtilization,
    /// Framebuffer of the device is in use, and no listed process accounts for it.
    UnlistedFramebuffer,
    /// An MPS server works on the device, and its clients are not listed.
    MpsClients,
    /// The pod may no longer exist.
    UnconfirmedPod,
    /// The container is not running, or an init container of its pod is.
    NotRunning,
    /// The process list is older than the allocation or the start of the container.
    StaleProcessList,
    /// The container has a process on a device that it was not allocated.
    OtherDevice,
}

impl ZeroDoubt {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::NoProcessList,
        Self::HiddenProcesses,
        Self::UnresolvedProcess,
        Self::UnlistedUtilization,
        Self::UnlistedFramebuffer,
        Self::MpsClients,
        Self::UnconfirmedPod,
        Self::NotRunning,
        Self::StaleProcessList,
        Self::OtherDevice,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoProcessList => "no_process_list",
            Self::HiddenProcesses => "hidden_processes",
            Self::UnresolvedProcess => "unresolved_process",
            Self::UnlistedUtilization => "unlisted_utilization",
            Self::UnlistedFramebuffer => "unlisted_framebuffer",
            Self::MpsClients => "mps_clients",
            Self::UnconfirmedPod => "unconfirmed_pod",
            Self::NotRunning => "not_running",
            Self::StaleProcessList => "stale_process_list",
            Self::OtherDevice => "other_device",
        }
    }
}

/// Metric family of a process of `owner`.
#[must_use]
pub fn verdict(
    process: ProcessEvidence,
    owner: &Owner,
    allocation: AllocationEvidence,
    device: DeviceEvidence,
) -> Verdict {
    let mode = match allocation {
        AllocationEvidence::NoCluster => return Verdict::Process(AllocateMode::None),
        AllocationEvidence::Allocated(mode) => Some(mode),
        AllocationEvidence::NoSource
        | AllocationEvidence::Pending
        | AllocationEvidence::NotAllocated
        | AllocationEvidence::Unknown => None,
    };
    if serves_mps_clients(process, owner, device) {
        return Verdict::Withheld(Unresolved::MpsServer);
    }
    let is_container = match owner {
        Owner::Unknown(reason) => return Verdict::Withheld(*reason),
        Owner::NonPodContainer
            if allocation != AllocationEvidence::NoSource && !process.settled =>
        {
            // The pod status may not contain a container that has just started.
            return Verdict::Withheld(Unresolved::NoPod);
        }
        Owner::Host | Owner::NonPodContainer => false,
        Owner::Container(_) => true,
    };
    match (allocation, mode) {
        (AllocationEvidence::NoCluster | AllocationEvidence::NoSource, _) => {
            Verdict::Process(AllocateMode::None)
        }
        (AllocationEvidence::Pending, _) => Verdict::Withheld(Unresolved::Allocation),
        (_, Some(mode)) if is_container => Verdict::Process(mode),
        (AllocationEvidence::Unknown, _) if is_container => {
            Verdict::Withheld(Unresolved::Allocation)
        }
        _ => Verdict::Illegal,
    }
}

/// Whether a process is an MPS server, which works for its clients and has no allocation of its own.
/// Its name alone is no evidence: any process can change it.
#[must_use]
pub fn serves_mps_clients(process: ProcessEvidence, owner: &Owner, device: DeviceEvidence) -> bool {
    process.mps_server && (*owner == Owner::Host || device.mps_clients)
}

/// Whether a container without a listed process on a device is idle there.
///
/// # Errors
/// The first reason why this is not certain.
pub fn idle(container: IdleEvidence, device: DeviceEvidence) -> Result<(), ZeroDoubt> {
    let DeviceEvidence {
        mps_clients: _,
        hidden_mps_clients,
        lists_all_processes,
        unresolved_process,
        unlisted_use,
    } = device;
    let IdleEvidence { confirmed, running, listed_since, works_elsewhere } = container;
    let unlisted = |kind| unlisted_use == Some(kind);
    let doubts = [
        (!lists_all_processes, ZeroDoubt::HiddenProcesses),
        (unresolved_process, ZeroDoubt::UnresolvedProcess),
        (unlisted(UnlistedUse::Utilization), ZeroDoubt::UnlistedUtilization),
        (unlisted(UnlistedUse::Framebuffer), ZeroDoubt::UnlistedFramebuffer),
        (hidden_mps_clients, ZeroDoubt::MpsClients),
        (!confirmed, ZeroDoubt::UnconfirmedPod),
        (!running, ZeroDoubt::NotRunning),
        (!listed_since, ZeroDoubt::StaleProcessList),
        (works_elsewhere, ZeroDoubt::OtherDevice),
    ];
    match doubts.into_iter().find(|(holds, _)| *holds) {
        Some((_, doubt)) => Err(doubt),
        None => Ok(()),
    }
}
