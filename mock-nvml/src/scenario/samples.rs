//! When the driver takes and delivers utilization samples, and the clock of their stamps.

/// Timing of the samples of a GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleTiming {
    /// Seconds between two samples; that of the model by default.
    pub(crate) period: Option<f64>,
    /// New samples are visible at multiples of this, in seconds of the wall clock; 0 for at once.
    pub(crate) delivery: f64,
    /// Steps of the driver's clock: since when (world time), and its offset from the wall clock, in
    /// seconds.
    pub(crate) clock: Vec<(f64, f64)>,
}

impl SampleTiming {
    /// The stamp of something that happened at a wall clock (µs) and world time.
    pub(crate) fn stamp(&self, wall: u64, world: f64) -> u64 {
        let step = self.clock.iter().rfind(|(from, _)| *from <= world);
        let offset = step.map_or(0.0, |(_, offset)| *offset);
        wall.saturating_add_signed(offset_us(offset))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and is validated")]
fn offset_us(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}
