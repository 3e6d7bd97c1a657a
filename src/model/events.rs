//! Events of a GPU since the exporter started, as of a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Missing, Reading};

/// Lengths of the windows over which events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Of XID errors.
    pub xids: Duration,
    /// Of clock event reasons.
    pub clock_events: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        let five_minutes = Duration::from_secs(300);
        Self { xids: five_minutes, clock_events: five_minutes }
    }
}

/// XID errors of one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidState {
    /// Whether the GPU's XID events are subscribed to, or why not.
    pub subscribed: Result<(), Missing>,
    /// The last XID since the exporter started.
    pub last: Option<u32>,
    /// Number of events since the exporter started, by XID.
    pub counts: BTreeMap<u32, u64>,
    /// Number of events within [`Windows::xids`], by XID.
    pub in_window: BTreeMap<u32, u64>,
    /// XIDs since the last reset that was observed: the driver was loaded, or the GPU was lost and
    /// is available again.
    pub since_reset: BTreeSet<u32>,
}

impl XidState {
    /// The last XID, or 0 if there was none.
    ///
    /// # Errors
    /// Why the events are not subscribed to.
    pub fn last(&self) -> Reading {
        self.subscribed.map(|()| self.last.map_or(0.0, f64::from))
    }
}

impl Default for XidState {
    fn default() -> Self {
        Self {
            subscribed: Err(Missing::Pending),
            last: None,
            counts: BTreeMap::new(),
            in_window: BTreeMap::new(),
            since_reset: BTreeSet::new(),
        }
    }
}

/// Clock event reasons: value of the `clock_event` label and bits of `nvmlClocksEventReasons`.
pub const CLOCK_EVENTS: [(&str, u64); 12] = [
    ("gpu_idle", 0x1),
    ("clocks_setting", 0x2),
    ("power_cap", 0x4),
    ("hw_slowdown", 0x8),
    ("sync_boost", 0x10),
    ("sw_thermal", 0x20),
    ("hw_thermal", 0x40),
    ("hw_power_brake", 0x80),
    ("display_clocks", 0x100),
    ("board_limit", 0x200),
    ("reliability", 0x400),
    ("other", !0x7FF),
];

/// The reasons of [`CLOCK_EVENTS`] that every driver reports. Of the others, which only newer drivers
/// report, no event is evidence of a driver that does not report them: they count from the first on.
pub const ALWAYS_REPORTED: usize = 9;

/// Counts of each of [`CLOCK_EVENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEventCounts {
    /// Samples of the window in which the reason was active.
    pub in_window: [u64; CLOCK_EVENTS.len()],
    /// All bits that were active since the exporter started.
    pub seen: u64,
    /// How often the reason became active since the exporter started.
    pub onsets: [u64; CLOCK_EVENTS.len()],
}
