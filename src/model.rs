//! The nouns that every other module speaks of.

mod claim;
mod placement;
mod record;
mod vitals;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use claim::{Claim, NO_CLAIM};
pub use placement::{ContainerId, Placement, PodPath, PodUid};
pub use record::{CLOCK_EVENTS, ClockCounts, ClockRecord, Windows, XidRecord};
pub use vitals::{Counts, LinkStates, Signs, Vitals, VitalsRecord};

/// Why a number is not there. Absent is never zero: only `Ok` becomes a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The GPU, the driver or its library does not have it (`NOT_SUPPORTED`, or no such symbol).
    Unsupported,
    /// The driver refuses us (`NO_PERMISSION`).
    Denied,
    /// The GPU fell off the bus or waits for a reset (`GPU_IS_LOST`, `RESET_REQUIRED`).
    Lost,
    /// The driver went away under the session (`UNINITIALIZED`, `DRIVER_NOT_LOADED`, `LIB_RM_VERSION_MISMATCH`).
    DriverGone,
    /// The driver did not answer and the last number is older than the maximum age.
    Hung,
    /// Too early: a mean needs a window, and the first one has not closed.
    Pending,
    /// The driver answered with something that cannot be true (a sentinel, a percentage above 100).
    Invalid,
    /// Any other `nvmlReturn_t`.
    Failed(u32),
}

impl Missing {
    /// Every `reason()`, in order.
    pub const REASONS: [&'static str; 8] =
        ["unsupported", "denied", "lost", "driver_gone", "hung", "pending", "invalid", "failed"];

    /// What an `nvmlReturn_t` other than `NVML_SUCCESS` means for a reading.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            3 | 13 | 26 => Self::Unsupported,
            4 => Self::Denied,
            15 | 16 | 28 => Self::Lost,
            1 | 9 | 18 => Self::DriverGone,
            other => Self::Failed(other),
        }
    }

    /// The fixed label of this reason, one of [`Missing::REASONS`].
    #[must_use]
    pub fn reason(self) -> &'static str {
        Self::REASONS.get(self.position()).copied().unwrap_or_default()
    }

    /// Where `reason()` stands in [`Missing::REASONS`].
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

/// A number in the unit that is exported, or why there is none.
pub type Reading = Result<f64, Missing>;

/// What a board's readings are measured by; read once per session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The highest limit of power that can be set, watts (`nvmlDeviceGetPowerManagementLimitConstraints`).
    pub power: Reading,
    /// The temperature above which clocks are lowered, °C (`nvmlDeviceGetTemperatureThreshold`).
    pub temperature: Reading,
}

impl Default for Limits {
    fn default() -> Self {
        Self { power: Err(Missing::Pending), temperature: Err(Missing::Pending) }
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time since the process began: for ages and deadlines.
    pub mono: Duration,
    /// Microseconds since the Unix epoch: the clock of NVML's time stamps.
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

/// What identifies a GPU; read once per session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's index (`nvmlDeviceGetHandleByIndex_v2`), the `gpu` label.
    pub index: u32,
    /// Minor number of `/dev/nvidiaN` (`nvmlDeviceGetMinorNumber`); absent where the platform has none.
    pub minor: Option<u32>,
    /// `nvmlDeviceGetUUID`. A GPU without one has no series.
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
    /// Profile of its GPU instance, as `1g.10gb` (from `nvmlDeviceGetName`); empty where the name
    /// does not tell.
    pub profile: Arc<str>,
    /// `nvmlDeviceGetGpuInstanceId`: reused as soon as an instance is destroyed.
    pub gpu_instance: u32,
    /// `nvmlDeviceGetComputeInstanceId`, within the GPU instance.
    pub compute_instance: u32,
    /// Streaming multiprocessors (`nvmlDeviceGetAttributes_v2`), where the driver tells.
    pub multiprocessors: Option<u32>,
    /// Whether its GPU instance has other compute instances too, which share its framebuffer.
    pub shares_instance: bool,
}

/// A process for as long as it lives: a pid alone is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Process id in the exporter's pid namespace.
    pub pid: u32,
    /// Clock ticks from boot to the start of the process (`/proc/<pid>/stat`, field 22).
    pub started: u64,
}

/// How a process uses a GPU: which of NVML's running lists it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessKind {
    /// Compute list only.
    Compute,
    /// Graphics list only.
    Graphics,
    /// Both lists, with the same memory.
    ComputeAndGraphics,
    /// Client of an MPS server.
    Mps,
}

impl ProcessKind {
    /// The `ProcessType` label, as `nvidia-smi` writes it.
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
    /// Which process.
    pub id: ProcessId,
    /// Its name when it was first seen (`/proc/<pid>/stat`, `comm`).
    pub name: Arc<str>,
    /// How it used the device when it was first seen.
    pub kind: ProcessKind,
    /// When it was first seen there, on the monotonic clock.
    pub seen: Duration,
    /// Where it runs (`/proc/<pid>/cgroup`), or why that is not known.
    pub placement: Result<Arc<Placement>, Discard>,
    /// What it uses of the device.
    pub usage: Usage,
}

/// What somebody uses of a device: a process, or all processes of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Framebuffer held, bytes.
    pub memory: Result<u64, Missing>,
    /// Mean over the cycle of the share of each engine, percent.
    pub utilization: Result<EngineShares, Missing>,
}

impl Usage {
    /// Mean share of the SMs, percent.
    ///
    /// # Errors
    /// It is not known.
    pub fn sm(&self) -> Reading {
        self.utilization.map(|shares| shares.sm)
    }

    /// What both use together, at most all of each engine. What is not known of one is not known
    /// of both.
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

/// Something that the driver lists on a device and that is no process to be told of.
#[derive(Clone, Debug, PartialEq)]
pub struct Residue {
    /// Why not.
    pub why: Discard,
    /// Where it ran while it lived, if that is remembered.
    pub placement: Option<Arc<Placement>>,
    /// Framebuffer that the driver says it holds, bytes.
    pub memory: Result<u64, Missing>,
}

/// Who is on a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The living, in the order of their pids.
    pub processes: Vec<ProcessSample>,
    /// The rest.
    pub residues: Vec<Residue>,
}

/// Percent of each engine, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineShares {
    /// Streaming multiprocessors.
    pub sm: f64,
    /// Memory interface.
    pub memory: f64,
    /// Video encoder.
    pub encoder: f64,
    /// Video decoder.
    pub decoder: f64,
}

impl EngineShares {
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

/// What a container was given of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// Framebuffer, MiB.
    pub memory: Reading,
    /// Share of the compute, 0 to 1; 0 is unlimited.
    pub compute: Reading,
}

/// What was given away of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allotted {
    /// Part of the framebuffer, 0 to 1.
    pub framebuffer: Reading,
}

/// A pod, for as long as it lives: a name alone is reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.uid` as the API server (or, asked directly, the kubelet) writes it.
    pub uid: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// How a GPU is given to containers; ordered, so that a node's mode is the greatest of its shares'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllocateMode {
    /// Nobody holds it.
    #[default]
    None,
    /// One container holds the whole GPU or MIG device.
    Exclusive,
    /// Containers hold shares of it.
    Share,
}

impl AllocateMode {
    /// The `AllocateMode` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exclusive => "exclusive",
            Self::Share => "share",
        }
    }

    /// The value of the node's mode: 0, 1 or 2.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Exclusive => 1.0,
            Self::Share => 2.0,
        }
    }
}

/// What is told once for the whole node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeSample {
    /// GPUs that the driver counts (`nvmlDeviceGetCount_v2`), lost ones included.
    pub gpu_count: Reading,
    /// [`AllocateMode`] of the node, as a number.
    pub allocate_mode: Reading,
}

/// Why something that the driver or `/proc` told was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// A pid of 0 or above the kernel's limit.
    Pid,
    /// A second utilization row of one pid in one answer.
    Duplicate,
    /// A utilization row stamped at or before the cursor that was asked for.
    OldStamp,
    /// A utilization row stamped in the future.
    FutureStamp,
    /// A utilization above 100 percent.
    Percentage,
    /// More framebuffer than the GPU has.
    Memory,
    /// A listed process that `/proc` does not know: it has died, or lives in a foreign pid namespace.
    Gone,
    /// A listed process that is dead and not yet reaped.
    Zombie,
    /// A listed process whose `/proc` entry cannot be read or parsed.
    Unreadable,
    /// A listed process whose `/proc` entry we may not read (`EACCES`, `EPERM`).
    Denied,
}

impl Discard {
    /// Every reason, in the order of [`Discards`].
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

    /// The fixed label of this reason.
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

/// How many rows were thrown away since the session began, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    /// Counts one row.
    pub fn count(&mut self, reason: Discard) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n += 1;
        }
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_has_its_own_reason() {
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
    fn discards_are_counted_under_their_own_reason() {
        for reason in Discard::ALL {
            let mut discards = Discards::default();
            discards.count(reason);
            let counted: Vec<_> = discards.iter().filter(|(_, n)| *n == 1).collect();
            assert_eq!(counted, [(reason, 1)]);
        }
    }
}
