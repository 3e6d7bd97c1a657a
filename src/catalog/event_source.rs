//! How the samples of an event row are computed.

use super::metric::Metric;
use super::unit::plausible;
use crate::model::{
    ClockEventCounts, HealthState, LinkFields, LinkStates, Missing, Reading, Windows, XidState,
};
use crate::nvml::raw::platform::Platform;

/// Reads the samples of an event family from a GPU's event inputs.
#[derive(Clone, Copy, Debug)]
pub struct EventSource {
    /// Names of the labels that the samples have besides those of the GPU.
    pub labels: &'static [&'static str],
    /// Whether a GPU has exactly one sample.
    pub is_single: bool,
    /// What the samples are computed from.
    pub needs: EventInput,
    /// Computes the samples; empty if the family has no series.
    pub(super) read: fn(&GpuEventInputs<'_>) -> Vec<EventSample>,
}

impl Metric<EventSource> {
    /// The samples; a value that is impossible in the unit of the row is invalid.
    #[must_use]
    pub fn samples(&self, inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
        let mut samples = (self.source.read)(inputs);
        for EventSample { reading, .. } in &mut samples {
            *reading =
                reading.and_then(|value| plausible(self.unit, value).ok_or(Missing::Invalid));
        }
        samples
    }
}

/// Data of a GPU that event rows are computed from. All but XIDs are read only while a selected row
/// needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventInput {
    /// XID errors.
    Xids,
    /// Clock event reasons, read every cycle.
    ClockEvents,
    /// Peer-to-peer status of GPU pairs.
    Peers,
    /// States of `NVLink` links.
    Links,
    /// A field of each `NVLink`.
    NvLinkField(u32),
    /// Increase per second of the sum of fields of each `NVLink`, read every cycle.
    NvLinkRate(&'static [u32]),
    /// An error counter of each `NVLink` (`nvmlNvLinkErrorCounter_t`).
    NvLinkErrors(u32),
    /// A field of each C2C link.
    C2cField(u32),
    /// Place of the GPU in its rack.
    Platform,
    /// Health readings, taken every cycle, with the clock event reasons and link states.
    Health,
    /// The last health readings, which are taken slowly whether a family needs them or not.
    SlowHealth,
}

/// Inputs of a GPU's event families.
#[derive(Clone, Copy, Debug)]
pub struct GpuEventInputs<'a> {
    /// XID errors.
    pub xids: &'a XidState,
    /// Counts of clock event reasons.
    pub clock_events: Result<ClockEventCounts, Missing>,
    /// Peer-to-peer status (`nvmlGpuP2PStatus_t`) by index of the other GPU.
    pub peers: &'a [(u32, Result<u32, Missing>)],
    /// `NVLink` states.
    pub links: Result<&'a LinkStates, Missing>,
    /// Selected fields of each `NVLink`.
    pub nvlink_fields: Result<&'a LinkFields, Missing>,
    /// Increase per second of the selected fields of each `NVLink`.
    pub nvlink_rates: Result<&'a LinkFields, Missing>,
    /// Selected error counters of each `NVLink`.
    pub nvlink_errors: Result<&'a LinkFields, Missing>,
    /// Selected fields of each C2C link.
    pub c2c_fields: Result<&'a LinkFields, Missing>,
    /// Place in the rack.
    pub platform: Result<&'a Platform, Missing>,
    /// Health readings and their changes.
    pub health: Result<&'a HealthState, Missing>,
    /// Whether the GPU can be read.
    pub state: Result<(), Missing>,
    /// Windows over which events are counted.
    pub windows: Windows,
    /// Whether the dialect adds the last XID and its name as labels.
    pub label_last_xid: bool,
}

/// One sample of an event family.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSample {
    /// Labels that distinguish the samples of one family and GPU.
    pub labels: Vec<(&'static str, String)>,
    /// Value of the sample.
    pub reading: Reading,
}

impl From<Reading> for EventSample {
    fn from(reading: Reading) -> Self {
        Self { labels: Vec::new(), reading }
    }
}
