//! Processes of a device and their usage.

use std::sync::Arc;
use std::time::Duration;

use super::{CgroupLocation, Discard, Missing, Reading};

/// Identity of a process. A PID alone is not unique, because PIDs are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// PID in the exporter's PID namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub started: u64,
}

/// How a process uses a GPU, from NVML's lists of running processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessKind {
    /// In the compute list only.
    Compute,
    /// In the graphics list only.
    Graphics,
    /// In both lists, with the same memory.
    ComputeAndGraphics,
    /// Client of an MPS server.
    Mps,
}

impl ProcessKind {
    /// Value of the `ProcessType` label, as in `nvidia-smi`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Compute => "C",
            Self::Graphics => "G",
            Self::ComputeAndGraphics => "C+G",
            Self::Mps => "M",
        }
    }
}

/// One process on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSample {
    /// PID and start time.
    pub id: ProcessId,
    /// Name when it was first seen (`/proc/<pid>/stat`, `comm`).
    pub name: Arc<str>,
    /// Kind of use when it was first seen.
    pub kind: ProcessKind,
    /// When it was first seen on the device (monotonic).
    pub first_seen: Duration,
    /// Location in the cgroup hierarchy (`/proc/<pid>/cgroup`), or why it is unknown.
    pub location: Result<Arc<CgroupLocation>, Discard>,
    /// Usage of the device.
    pub usage: Usage,
}

/// Usage of a device by a process, or by all processes of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Framebuffer used, bytes.
    pub memory: Result<u64, Missing>,
    /// Mean utilization of each engine over the cycle, percent.
    pub utilization: Result<EngineUtilization, Missing>,
}

impl Usage {
    /// Mean SM utilization, percent.
    ///
    /// # Errors
    /// Why the utilization is missing.
    pub fn sm(&self) -> Reading {
        self.utilization.map(|shares| shares.sm)
    }

    /// The sum of both, at most 100 percent of each engine. A value that is missing in one is
    /// missing in the sum.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let memory = match (self.memory, other.memory) {
            (Ok(a), Ok(b)) => Ok(a.saturating_add(b)),
            (Err(missing), _) | (_, Err(missing)) => Err(missing),
        };
        let utilization = match (self.utilization, other.utilization) {
            (Ok(a), Ok(b)) => Ok(a.with(b)),
            (Err(missing), _) | (_, Err(missing)) => Err(missing),
        };
        Self { memory, utilization }
    }
}

/// An entry of NVML's process list without a live process.
#[derive(Clone, Debug, PartialEq)]
pub struct StaleProcessEntry {
    /// Why the entry is not a process sample.
    pub reason: Discard,
    /// Last known location in the cgroup hierarchy.
    pub location: Option<Arc<CgroupLocation>>,
    /// Framebuffer that the driver reports for the entry, bytes.
    pub memory: Result<u64, Missing>,
}

/// NVML's process list of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceProcesses {
    /// Live processes, ordered by PID.
    pub processes: Vec<ProcessSample>,
    /// All other entries.
    pub stale_entries: Vec<StaleProcessEntry>,
    /// Whether the list of MPS clients was read; false if the driver does not support it.
    pub lists_mps_clients: bool,
    /// Whether MPS clients are listed.
    pub has_mps_clients: bool,
}

/// Utilization of each engine, percent (0 to 100).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineUtilization {
    /// Streaming multiprocessors.
    pub sm: f64,
    /// Memory interface.
    pub memory: f64,
    /// Video encoder.
    pub encoder: f64,
    /// Video decoder.
    pub decoder: f64,
}

impl EngineUtilization {
    fn with(self, other: Self) -> Self {
        let sum = |a: f64, b: f64| (a + b).min(100.0);
        Self {
            sm: sum(self.sm, other.sm),
            memory: sum(self.memory, other.memory),
            encoder: sum(self.encoder, other.encoder),
            decoder: sum(self.decoder, other.decoder),
        }
    }
}
