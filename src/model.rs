//! Shared data types: readings, devices, processes, pods and allocations.

mod cgroup_location;
mod claim;
mod down_reason;
mod events;
mod health;
mod problem;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cgroup_location::{CgroupLocation, ContainerId, PodPath, PodUid};
pub use claim::{Claim, NO_CLAIM};
pub use down_reason::DownReason;
pub use events::{CLOCK_EVENTS, ClockEventCounts, Windows, XidState};
pub use health::{HealthCounters, HealthSample, HealthState, LinkStates};
use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_DEPRECATED as DEPRECATED,
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED as DRIVER_NOT_LOADED,
    nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND as FUNCTION_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND as GPU_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH as LIB_RM_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_NO_PERMISSION as NO_PERMISSION,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED as RESET_REQUIRED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
};
pub use problem::Problem;

/// Why a reading has no value. Absent is not zero: only `Ok` becomes a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Not supported by the GPU, the driver or the library (`NOT_SUPPORTED`, or the symbol is
    /// missing).
    Unsupported,
    /// Permission denied (`NO_PERMISSION`).
    Denied,
    /// The GPU fell off the bus or needs a reset (`GPU_IS_LOST`, `RESET_REQUIRED`).
    Lost,
    /// The driver was unloaded or replaced during the session (`UNINITIALIZED`,
    /// `DRIVER_NOT_LOADED`, `LIB_RM_VERSION_MISMATCH`).
    DriverGone,
    /// The call has not returned and the last reading is older than the maximum age.
    Hung,
    /// Not available yet: the first window of a mean has not ended.
    Pending,
    /// The driver returned an impossible value (a sentinel, a percentage above 100).
    Invalid,
    /// Any other `nvmlReturn_t`.
    Failed(u32),
}

impl Missing {
    /// Every value of [`Missing::reason`], in the order of [`Missing::position`].
    pub const REASONS: [&'static str; 8] =
        ["unsupported", "denied", "lost", "driver_gone", "hung", "pending", "invalid", "failed"];

    /// Maps an `nvmlReturn_t` other than `NVML_SUCCESS`.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            NOT_SUPPORTED | FUNCTION_NOT_FOUND | DEPRECATED => Self::Unsupported,
            NO_PERMISSION => Self::Denied,
            GPU_IS_LOST | RESET_REQUIRED | GPU_NOT_FOUND => Self::Lost,
            UNINITIALIZED | DRIVER_NOT_LOADED | LIB_RM_VERSION_MISMATCH => Self::DriverGone,
            other => Self::Failed(other),
        }
    }

    /// Value of the `reason` label, one of [`Missing::REASONS`].
    #[must_use]
    pub fn reason(self) -> &'static str {
        Self::REASONS.get(self.position()).copied().unwrap_or_default()
    }

    /// Index in [`Missing::REASONS`].
    #[must_use]
    pub fn position(self) -> usize {
        match self {
            Self::Unsupported => 0,
            Self::Denied => 1,
            Self::Lost => 2,
            Self::DriverGone => 3,
            Self::Hung => 4,
            Self::Pending => 5,
            Self::Invalid => 6,
            Self::Failed(_) => 7,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(code) => write!(f, "failed (nvmlReturn_t {code})"),
            Self::Unsupported
            | Self::Denied
            | Self::Lost
            | Self::DriverGone
            | Self::Hung
            | Self::Pending
            | Self::Invalid => f.write_str(self.reason()),
        }
    }
}

/// A value in the exported unit, or why it is missing.
pub type Reading = Result<f64, Missing>;

/// Limits of a board; read once per session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Highest power limit that can be set, watts (`nvmlDeviceGetPowerManagementLimitConstraints`).
    pub power: Reading,
    /// Slowdown temperature, °C (`nvmlDeviceGetTemperatureThreshold`).
    pub temperature: Reading,
}

impl Default for Limits {
    fn default() -> Self {
        Self { power: Err(Missing::Pending), temperature: Err(Missing::Pending) }
    }
}

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time since process start; for ages and deadlines.
    pub mono: Duration,
    /// Microseconds since the Unix epoch; comparable with NVML's time stamps.
    pub wall_us: u64,
}

impl Moment {
    /// Seconds since the Unix epoch, to the millisecond.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds since the epoch fit in 2^53 until 2255"
    )]
    pub fn unix_seconds(self) -> f64 {
        (self.wall_us / 1000) as f64 / 1000.0
    }
}

/// Identity of a GPU; read once per session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML index (`nvmlDeviceGetHandleByIndex_v2`); the `gpu` label.
    pub index: u32,
    /// Minor number of `/dev/nvidiaN` (`nvmlDeviceGetMinorNumber`); `None` on platforms without
    /// one.
    pub minor: Option<u32>,
    /// `nvmlDeviceGetUUID`; a GPU without one has no series.
    pub uuid: Arc<str>,
    /// `nvmlDeviceGetName`.
    pub name: Arc<str>,
    /// `nvmlDeviceGetPciInfo_v3`, as `00000000:1B:00.0`.
    pub pci_bus_id: Arc<str>,
}

/// A MIG device: a compute instance inside a GPU instance of its GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigDevice {
    /// `nvmlDeviceGetUUID` of the MIG device, as `MIG-…`.
    pub uuid: Arc<str>,
    /// Profile of its GPU instance, as `1g.10gb` (parsed from `nvmlDeviceGetName`); empty if the
    /// name has none.
    pub profile: Arc<str>,
    /// `nvmlDeviceGetGpuInstanceId`; reused after an instance is destroyed.
    pub gpu_instance: u32,
    /// `nvmlDeviceGetComputeInstanceId`; unique within the GPU instance.
    pub compute_instance: u32,
    /// Number of streaming multiprocessors (`nvmlDeviceGetAttributes_v2`), if known.
    pub multiprocessors: Option<u32>,
    /// Whether other compute instances share the framebuffer of its GPU instance.
    pub shares_instance: bool,
}

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

/// The amount of a device that is allocated to a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContainerAllocation {
    /// Framebuffer, MiB.
    pub memory: Reading,
    /// Fraction of the compute, 0 to 1; 0 is unlimited.
    pub compute: Reading,
}

/// The fraction of a device that is allocated to containers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AllocatedFraction {
    /// Fraction of the framebuffer, 0 to 1.
    pub framebuffer: Reading,
}

/// Identity of a pod. The name alone is not unique over time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.uid` as the API server, or the kubelet's pod list, returns it.
    pub uid: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// How a GPU is allocated to containers. Ordered: the mode of a node is the maximum of its devices.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AllocateMode {
    /// Not allocated.
    #[default]
    None,
    /// One container is allocated the whole GPU or MIG device.
    Exclusive,
    /// Containers are allocated shares of it.
    Share,
}

impl AllocateMode {
    /// Value of the `AllocateMode` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exclusive => "exclusive",
            Self::Share => "share",
        }
    }

    /// Value of the node's series: 0, 1 or 2.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Exclusive => 1.0,
            Self::Share => 2.0,
        }
    }
}

/// Readings of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeSample {
    /// Number of GPUs, including lost ones (`nvmlDeviceGetCount_v2`).
    pub gpu_count: Reading,
    /// [`AllocateMode`] of the node, as a number.
    pub allocate_mode: Reading,
}

/// Why data of the driver or of `/proc` was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// A PID of 0 or above the kernel's limit.
    Pid,
    /// A second utilization row of one PID in one response.
    Duplicate,
    /// A utilization row stamped at or before the requested time.
    OldStamp,
    /// A utilization row stamped in the future.
    FutureStamp,
    /// A utilization above 100 percent.
    Percentage,
    /// More framebuffer than the GPU has.
    Memory,
    /// A listed process without a `/proc` entry: it has exited, or is in another PID namespace.
    Gone,
    /// A listed process that has exited and is not yet reaped.
    Zombie,
    /// The `/proc` entry of a listed process cannot be read or parsed.
    Unreadable,
    /// Permission to read the `/proc` entry of a listed process is denied (`EACCES`, `EPERM`).
    Denied,
}

impl Discard {
    /// All reasons, in the order of [`Discards`].
    pub const ALL: [Self; 10] = [
        Self::Pid,
        Self::Duplicate,
        Self::OldStamp,
        Self::FutureStamp,
        Self::Percentage,
        Self::Memory,
        Self::Gone,
        Self::Zombie,
        Self::Unreadable,
        Self::Denied,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Duplicate => "duplicate",
            Self::OldStamp => "old_stamp",
            Self::FutureStamp => "future_stamp",
            Self::Percentage => "percentage",
            Self::Memory => "memory",
            Self::Gone => "gone",
            Self::Zombie => "zombie",
            Self::Unreadable => "unreadable",
            Self::Denied => "denied",
        }
    }
}

/// Number of rows discarded since the session began, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    /// Counts one discarded row.
    pub fn count(&mut self, reason: Discard) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n += 1;
        }
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_variant_has_its_own_reason() {
        let all = [
            Missing::Unsupported,
            Missing::Denied,
            Missing::Lost,
            Missing::DriverGone,
            Missing::Hung,
            Missing::Pending,
            Missing::Invalid,
            Missing::Failed(999),
        ];
        assert_eq!(all.map(Missing::reason), Missing::REASONS);
    }

    #[test]
    fn discards_are_counted_by_reason() {
        for reason in Discard::ALL {
            let mut discards = Discards::default();
            discards.count(reason);
            let counted: Vec<_> = discards.iter().filter(|(_, n)| *n == 1).collect();
            assert_eq!(counted, [(reason, 1)]);
        }
    }
}
