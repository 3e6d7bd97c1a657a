//! Decides from evidence in which metric family a process is, and whether a container is idle.
//!
//! "Illegal" and "idle" are conclusions: without complete evidence the series is withheld, with a
//! reason.

use crate::model::{AllocateMode, Owner, Unresolved, ZeroDoubt};
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
    /// The MPS clients on it.
    pub mps_clients: MpsClients,
    /// The exporter runs in the host's PID namespace, where the driver lists all processes.
    pub lists_all_processes: bool,
    /// A listed process has an unknown owner.
    pub unresolved_process: bool,
    /// Use that no listed process accounts for.
    pub unlisted_use: Option<UnlistedUse>,
}

/// The MPS clients on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpsClients {
    /// None.
    None,
    /// The driver lists them.
    Listed,
    /// An MPS server works, and the driver does not list its clients.
    Hidden,
}

/// State of a container that holds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// Its pod exists, it is running, and no init container of the pod is.
    Running,
    /// Its pod exists, and the container is not running, or an init container of the pod is.
    NotRunning,
    /// Its pod may no longer exist.
    Unconfirmed,
}

/// What is known of a container that is allocated a device without having a process on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleEvidence {
    /// Whether it can be at work.
    pub state: HolderState,
    /// The process list was read after the allocation and the state of the container were known.
    pub listed_since: bool,
    /// It has a process on a device that it was not allocated.
    pub works_elsewhere: bool,
}

/// Metric family of a process of `owner`.
#[must_use]
pub fn verdict(
    process: ProcessEvidence,
    owner: &Owner,
    allocation: AllocationEvidence,
    device: DeviceEvidence,
) -> Verdict {
    if allocation == AllocationEvidence::NoCluster {
        return Verdict::Process(AllocateMode::None);
    }
    if serves_mps_clients(process, owner, device) {
        return Verdict::Withheld(Unresolved::MpsServer);
    }
    match (owner, allocation) {
        (Owner::Unknown(reason), _) => Verdict::Withheld(*reason),
        (_, AllocationEvidence::NoCluster | AllocationEvidence::NoSource) => {
            Verdict::Process(AllocateMode::None)
        }
        // The pod status may not contain a container that has just started.
        (Owner::NonPodContainer, _) if !process.settled => Verdict::Withheld(Unresolved::NoPod),
        (_, AllocationEvidence::Pending) | (Owner::Container(_), AllocationEvidence::Unknown) => {
            Verdict::Withheld(Unresolved::Allocation)
        }
        (Owner::Container(_), AllocationEvidence::Allocated(mode)) => Verdict::Process(mode),
        (Owner::Container(_), AllocationEvidence::NotAllocated)
        | (
            Owner::Host | Owner::NonPodContainer,
            AllocationEvidence::Allocated(_)
            | AllocationEvidence::NotAllocated
            | AllocationEvidence::Unknown,
        ) => Verdict::Illegal,
    }
}

/// Whether a process is an MPS server, which works for its clients and has no allocation of its own.
/// Its name alone is no evidence: any process can change it.
#[must_use]
pub fn serves_mps_clients(process: ProcessEvidence, owner: &Owner, device: DeviceEvidence) -> bool {
    process.mps_server && (*owner == Owner::Host || device.mps_clients == MpsClients::Listed)
}

/// Whether a container without a listed process on a device is idle there.
///
/// # Errors
/// The first reason why this is not certain.
pub fn idle(container: IdleEvidence, device: DeviceEvidence) -> Result<(), ZeroDoubt> {
    let DeviceEvidence { mps_clients, lists_all_processes, unresolved_process, unlisted_use } =
        device;
    let IdleEvidence { state, listed_since, works_elsewhere } = container;
    let unlisted = |kind| unlisted_use == Some(kind);
    let doubts = [
        (!lists_all_processes, ZeroDoubt::HiddenProcesses),
        (unresolved_process, ZeroDoubt::UnresolvedProcess),
        (unlisted(UnlistedUse::Utilization), ZeroDoubt::UnlistedUtilization),
        (unlisted(UnlistedUse::Framebuffer), ZeroDoubt::UnlistedFramebuffer),
        (mps_clients == MpsClients::Hidden, ZeroDoubt::MpsClients),
        (state == HolderState::Unconfirmed, ZeroDoubt::UnconfirmedPod),
        (state == HolderState::NotRunning, ZeroDoubt::NotRunning),
        (!listed_since, ZeroDoubt::StaleProcessList),
        (works_elsewhere, ZeroDoubt::OtherDevice),
    ];
    match doubts.into_iter().find(|(holds, _)| *holds) {
        Some((_, doubt)) => Err(doubt),
        None => Ok(()),
    }
}
