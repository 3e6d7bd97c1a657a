//! Activity of a device in one cycle, the input of the usage accumulators.

use std::sync::Arc;
use std::time::Duration;

use crate::labels::Labels;
use crate::model::{ContainerIdentity, Missing, Owner, OwnerClass, ProcessId, Reading, Usage};
use crate::sample::process_utilization::WindowSummary;

/// Activity of a GPU or a MIG device in one cycle. Exists only if the process list could be read.
#[derive(Clone, Debug)]
pub struct DeviceActivity {
    /// UUID of the GPU or MIG device.
    pub device: Arc<str>,
    /// When the device was read (monotonic).
    pub at: Duration,
    /// The utilization window: its length, and the SM utilization of pids that are not listed.
    pub window: Result<WindowSummary, Missing>,
    /// Energy since the driver was loaded, joules; `Unsupported` for MIG devices.
    pub energy: Reading,
    /// Whether the process list is known to be complete and every listed process has a known owner.
    pub complete: bool,
    /// The listed processes.
    pub processes: Vec<ProcessActivity>,
    /// Containers that the device is allocated to, or that have a process on it.
    pub containers: Vec<ContainerActivity>,
    /// Label sets of the device series that are divided by owner class; empty if not selected.
    pub owner_labels: Vec<(OwnerClass, Labels)>,
}

/// Activity of a process.
#[derive(Clone, Debug)]
pub struct ProcessActivity {
    /// Identity of the process.
    pub id: ProcessId,
    /// Owner of the process.
    pub owner: Owner,
    /// Memory and engine utilization.
    pub usage: Usage,
    /// Labels of its series; `None` if it has no series of its own.
    pub labels: Option<Labels>,
}

/// Activity of all processes of a container together.
#[derive(Clone, Debug)]
pub struct ContainerActivity {
    /// The container.
    pub container: ContainerIdentity,
    /// Memory and engine utilization.
    pub usage: Usage,
    /// Labels of the container's series; `None` if it has none, because they are not certain.
    pub labels: Option<Labels>,
}
