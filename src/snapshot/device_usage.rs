//! Containers and processes of a GPU, and its allocations, as the web page, `/api/v1/node` and `top` show
//! them; the series in [`Tables`](super::Tables) contain the same data.

use std::sync::Arc;

use crate::model::{
    AllocateMode, ContainerAllocation, ContainerIdentity, Limits, MigDevice, Missing, Owner,
    ProcessKind, Reading, Usage,
};
use crate::nvml::raw::memory::Memory;

/// Use of one GPU.
#[derive(Clone, Debug)]
pub struct DeviceUsage {
    /// Limits of power and temperature.
    pub limits: Limits,
    /// Whether all MIG devices could be enumerated, or why not.
    pub partitions_complete: Result<(), Missing>,
    /// The GPU itself, or its MIG devices while MIG is on.
    pub partitions: Vec<PartitionUsage>,
}

/// Use of a GPU, or of a MIG device.
#[derive(Clone, Debug)]
pub struct PartitionUsage {
    /// The MIG device; none for a GPU.
    pub mig: Option<Arc<MigDevice>>,
    /// The framebuffer, in bytes.
    pub framebuffer: Result<Memory, Missing>,
    /// Readings, one per family of the instance slice; empty if another MIG device of the same GPU
    /// instance has them.
    pub readings: Vec<Reading>,
    /// Containers that the device is allocated to, or that use it without an allocation.
    pub containers: Vec<ContainerUsage>,
    /// All processes that the driver lists on the device, or why the list is absent.
    pub processes: Result<Vec<ProcessUsage>, Missing>,
}

/// Use of a device by one container.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// The container.
    pub container: ContainerIdentity,
    /// How the device is allocated to the container; none while that is unknown.
    pub mode: Option<AllocateMode>,
    /// The allocation; none for a container that uses the device without one.
    pub allocation: Option<ContainerAllocation>,
    /// Usage of all processes of the container together.
    pub usage: Usage,
}

/// An entry of the driver's process list.
#[derive(Clone, Debug)]
pub struct ProcessUsage {
    /// The process; none for a stale entry (the process has ended).
    pub process: Option<ProcessInfo>,
    /// The owner of the process.
    pub owner: Owner,
    /// Usage of the process.
    pub usage: Usage,
}

/// A process that the driver lists.
#[derive(Clone, Debug)]
pub struct ProcessInfo {
    /// The pid in the host's PID namespace.
    pub pid: u32,
    /// The name (`comm`).
    pub name: Arc<str>,
    /// How it uses the device: compute, graphics, both or MPS.
    pub kind: ProcessKind,
}
