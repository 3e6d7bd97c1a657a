//! What is wrong with a GPU's hardware, and the XIDs that it reports.

use super::Window;

/// What is wrong with one GPU; nothing by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hardware {
    /// Memory errors.
    pub(crate) ecc: Ecc,
    /// Pages that the driver has retired.
    pub(crate) retired: Retired,
    /// Rows that the board has remapped.
    pub(crate) remapped: Remapped,
    /// NVLinks that are down or err.
    pub(crate) nvlink: LinkFaults,
    /// When something else than load and heat holds the clocks down.
    pub(crate) slowed: Vec<Slowed>,
}

/// Memory errors that ECC has counted, all of them in the device memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ecc {
    /// Corrected.
    pub(crate) corrected: Errors,
    /// Uncorrected.
    pub(crate) uncorrected: Errors,
    /// When those of this driver's life happened; minus infinity before the world began.
    pub(crate) from: Moment,
}

/// A world time that is minus infinity unless it is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment(pub(crate) f64);

impl Default for Moment {
    fn default() -> Self {
        Self(f64::NEG_INFINITY)
    }
}

/// One kind of memory error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Since the driver was loaded.
    pub(crate) volatile: u32,
    /// In the life of the board, those included.
    pub(crate) aggregate: u32,
}

/// Retired pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    /// For several corrected errors.
    pub(crate) sbe: u32,
    /// For an uncorrected one.
    pub(crate) dbe: u32,
    /// Whether one more will be at the next reset.
    pub(crate) pending: bool,
}

/// Remapped rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remapped {
    /// For corrected errors.
    pub(crate) correctable: u32,
    /// For uncorrected ones.
    pub(crate) uncorrectable: u32,
    /// Whether one more will be at the next reset.
    pub(crate) pending: bool,
    /// Whether a remapping has failed.
    pub(crate) failure: bool,
}

/// NVLinks that do not do what they should.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkFaults {
    /// Those that are down.
    pub(crate) down: Vec<u32>,
    /// The one that errs.
    pub(crate) link: u32,
    /// Its flits with a bad checksum.
    pub(crate) crc_flit: u32,
    /// Its data with a bad checksum.
    pub(crate) crc_data: u32,
    /// Its replays.
    pub(crate) replay: u32,
    /// Its recoveries.
    pub(crate) recovery: u32,
    /// When all that happened.
    pub(crate) from: Moment,
}

/// What holds the clocks down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Another GPU of a group that is to run at one speed.
    SyncBoost,
    /// The power supply's limit for the board.
    BoardLimit,
    /// What the board's voltage bears.
    Reliability,
}

/// A time for which something holds the clocks down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slowed {
    /// What.
    pub(crate) by: Policy,
    /// When.
    pub(crate) during: Window,
}

/// An XID that the driver reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Xid {
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// When.
    pub(crate) at: f64,
    /// Which.
    pub(crate) code: u32,
    /// GPU instance, if it is about one.
    pub(crate) gpu_instance: Option<u32>,
    /// Compute instance, if it is about one.
    pub(crate) compute_instance: Option<u32>,
}
