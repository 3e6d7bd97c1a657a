//! Readings of GPU performance monitoring (GPM).

use crate::model::{Missing, Reading};

/// GPM readings of the device, by metric.
#[derive(Clone, Copy, Debug)]
pub struct GpmReadings<'a> {
    /// Requested metrics (`nvmlGpmMetricId_t`).
    pub ids: &'a [u32],
    /// Their readings, in the same order.
    pub readings: Result<&'a [Reading], Missing>,
}

impl GpmReadings<'_> {
    /// No metrics.
    pub const NONE: Self = Self { ids: &[], readings: Err(Missing::Unsupported) };
}
