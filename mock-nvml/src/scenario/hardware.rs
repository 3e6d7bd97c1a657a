//! Hardware faults of a GPU, and its XIDs.

use crate::window::Window;

/// Hardware faults of one GPU; none by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct HardwareFaults {
    /// ECC errors.
    pub(crate) ecc: EccErrors,
    pub(crate) retired: RetiredPages,
    pub(crate) remapped: RemappedRows,
    pub(crate) repair: RepairState,
    /// NVLinks that are down or have errors.
    pub(crate) nvlink: NvLinkFaults,
    pub(crate) c2c: C2cFaults,
    /// Performance policies that limit the clocks, besides power and temperature.
    pub(crate) throttles: Vec<ThrottleWindow>,
}

/// ECC error counters, all of the device memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EccErrors {
    /// Corrected errors (`sbe_…` keys).
    pub(crate) corrected: ErrorCounts,
    /// Uncorrected errors (`dbe_…` keys).
    pub(crate) uncorrected: ErrorCounts,
    /// World time of the volatile errors.
    pub(crate) from: EventTime,
}

/// A world time in seconds; minus infinity by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EventTime(pub(crate) f64);

impl Default for EventTime {
    fn default() -> Self {
        Self(f64::NEG_INFINITY)
    }
}

/// Counters of one kind of ECC error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorCounts {
    /// Since the driver was loaded.
    pub(crate) volatile: u32,
    /// In the lifetime of the board, including the volatile ones.
    pub(crate) aggregate: u32,
}

/// Numbers of retired pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetiredPages {
    /// Because of several single-bit errors.
    pub(crate) sbe: u32,
    /// Because of a double-bit error.
    pub(crate) dbe: u32,
    /// Whether another page is retired at the next reset.
    pub(crate) pending: bool,
}

/// Numbers of remapped rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemappedRows {
    /// Because of correctable errors.
    pub(crate) correctable: u32,
    /// Because of uncorrectable errors.
    pub(crate) uncorrectable: u32,
    /// Whether another row is remapped at the next reset.
    pub(crate) pending: bool,
    /// Whether a remapping has failed.
    pub(crate) failure: bool,
}

/// Repairs that are pending or impossible, and the recovery action.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct RepairState {
    /// `nvmlDeviceGpuRecoveryAction_t`.
    pub(crate) action: u32,
    /// Whether memory cannot be repaired.
    pub(crate) unrepairable: bool,
    /// Whether a memory channel is repaired at the next reset.
    pub(crate) channel: bool,
    /// Whether a TPC is repaired at the next reset.
    pub(crate) tpc: bool,
    /// Whether the SRAM errors exceed their threshold.
    pub(crate) sram: bool,
    /// World time from which on this is the state.
    pub(crate) from: EventTime,
}

/// Faults of NVLinks.
#[derive(Clone, Debug, Default)]
pub(crate) struct NvLinkFaults {
    /// Indexes of links that are down.
    pub(crate) down: Vec<u32>,
    /// Index of the link with errors.
    pub(crate) link: u32,
    /// Flit CRC errors.
    pub(crate) crc_flit: u32,
    /// Data CRC errors.
    pub(crate) crc_data: u32,
    /// Replay errors.
    pub(crate) replay: u32,
    /// Recovery errors.
    pub(crate) recovery: u32,
    /// ECC errors of data.
    pub(crate) ecc: u32,
    /// Errors in received symbols, of boards with NVLink 5.
    pub(crate) symbol: u32,
    /// Errors that remain after error correction, of boards with NVLink 5.
    pub(crate) effective: u32,
    /// Packets with errors, of boards with NVLink 5.
    pub(crate) packet: u32,
    /// State in the fabric.
    pub(crate) fabric: FabricFault,
    /// Number of links, if it is not that of the model.
    pub(crate) count: Option<u32>,
    /// World time of the errors.
    pub(crate) from: EventTime,
}

/// Faults of C2C links.
#[derive(Clone, Debug, Default)]
pub(crate) struct C2cFaults {
    /// CRC errors and replays of each link.
    pub(crate) errors: u32,
    /// Indexes of links that are down.
    pub(crate) down: Vec<u32>,
    /// World time from which on this is the state.
    pub(crate) from: EventTime,
}

/// State of a GPU in its fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FabricFault {
    /// Registered, and healthy.
    #[default]
    None,
    /// The registration is in progress.
    Registering,
    /// The registration has failed.
    Failed,
    /// Registered, with less bandwidth.
    Degraded,
}

/// A performance policy that limits the clocks (`nvmlPerfPolicyType_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PerfPolicy {
    /// Sync boost: the slowest GPU of a group limits all of them.
    SyncBoost,
    /// Board limit: the power supply.
    BoardLimit,
    /// Reliability: the voltage.
    Reliability,
}

/// A time window in which a policy limits the clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ThrottleWindow {
    pub(crate) policy: PerfPolicy,
    pub(crate) during: Window,
}

/// An XID that the driver reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Xid {
    /// Index of the GPU.
    pub(crate) gpu: usize,
    /// World time in seconds.
    pub(crate) at: f64,
    pub(crate) code: u32,
    /// GPU instance, if the XID concerns one.
    pub(crate) gpu_instance: Option<u32>,
    /// Compute instance, if the XID concerns one.
    pub(crate) compute_instance: Option<u32>,
}
