//! A model of the driver's utilization samples, in virtual time: one process, a ring buffer of 72 samples, a
//! clock of its own, and calls that are late.

use std::time::Duration;

use nvml_exporter::model::{Missing, Moment};
use nvml_exporter::nvml::raw::samples::UtilizationSample;
use nvml_exporter::nvml::raw::utilization::UtilizationRow;
use nvml_exporter::sample::utilization_source::UtilizationSource;

pub(crate) const SECOND: u64 = 1_000_000;
/// Wall clock at time 0.
pub(crate) const WALL: u64 = 1_700_000_000 * SECOND;
pub(crate) const PID: u32 = 7;
const CAPACITY: u64 = 72;

/// A periodic load of one process, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    Constant(f64),
    /// 100 % for a part of each period.
    Square {
        period: f64,
        duty: f64,
    },
    /// Rises from 0 to 100 % in each period.
    Saw {
        period: f64,
    },
}

impl Load {
    /// Percent × seconds from 0 to `time`.
    pub(crate) fn integral(self, time: f64) -> f64 {
        match self {
            Self::Constant(percent) => percent * time,
            Self::Square { period, duty } => {
                let (whole, rest) = ((time / period).floor(), time.rem_euclid(period));
                100.0 * (whole * duty * period + rest.min(duty * period))
            }
            Self::Saw { period } => {
                let (whole, rest) = ((time / period).floor(), time.rem_euclid(period));
                100.0 * (whole * period / 2.0 + rest * rest / (2.0 * period))
            }
        }
    }

    pub(crate) fn mean(self, from: f64, to: f64) -> f64 {
        (self.integral(to) - self.integral(from)) / (to - from)
    }
}

/// How the driver returns its samples (`nvmlDeviceGetSamples`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    Supported,
    Unsupported,
    /// With stamps of the wall clock, whatever the clock of the rows is.
    WallClock,
}

/// The driver, and the time.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) load: Load,
    /// The load is `phase` seconds ahead.
    pub(crate) phase: f64,
    pub(crate) period_us: u64,
    /// New samples are visible at multiples of this; 0 for at once.
    pub(crate) delivery_us: u64,
    pub(crate) samples: Samples,
    /// Time since the start, µs: the monotonic clock.
    pub(crate) now_us: u64,
    /// The wall clock is ahead of [`WALL`] by this more than the monotonic clock, µs.
    pub(crate) wall_step_us: i64,
    /// Since when (µs since the start) the driver's clock is ahead of the monotonic clock, and by how much.
    pub(crate) offsets: Vec<(u64, i64)>,
    /// How late each call is.
    pub(crate) rows_late_us: u64,
    pub(crate) samples_late_us: u64,
    /// The rows have an impossible value.
    pub(crate) refused: bool,
    pub(crate) rows_fail: bool,
    /// No sample is taken from this time on, µs.
    pub(crate) stopped_us: Option<u64>,
    /// Number of calls.
    pub(crate) calls: u64,
}

impl Driver {
    pub(crate) fn new(load: Load) -> Self {
        Self {
            load,
            phase: 0.0,
            period_us: SECOND / 6,
            delivery_us: 0,
            samples: Samples::Supported,
            // The buffer has been filled.
            now_us: 100 * SECOND,
            wall_step_us: 0,
            offsets: vec![(0, 0)],
            rows_late_us: 0,
            samples_late_us: 0,
            refused: false,
            rows_fail: false,
            stopped_us: None,
            calls: 0,
        }
    }

    /// Percent × seconds of the load until now.
    pub(crate) fn done(&self) -> f64 {
        self.load.integral(seconds(self.now_us) + self.phase)
    }

    /// Mean of the load in the last `length` seconds.
    pub(crate) fn recent(&self, length: f64) -> f64 {
        let now = seconds(self.now_us) + self.phase;
        self.load.mean(now - length, now)
    }

    /// Stamp and percent of each visible sample newer than `last_seen_us`, oldest first.
    fn visible(&self, last_seen_us: u64, offset: impl Fn(u64) -> i64) -> Vec<(u64, f64)> {
        let stopped = self.stopped_us.unwrap_or(u64::MAX);
        let delivered =
            self.now_us.min(stopped) / self.delivery_us.max(1) * self.delivery_us.max(1);
        let newest = delivered / self.period_us;
        let taken =
            (newest.saturating_sub(CAPACITY - 1)..=newest).map(|step| step * self.period_us);
        let sample = |taken: u64| {
            let to = seconds(taken) + self.phase;
            let percent = self.load.mean(to - seconds(self.period_us), to);
            ((WALL + taken).saturating_add_signed(offset(taken)), percent)
        };
        taken.map(sample).filter(|(stamp, _)| *stamp > last_seen_us).collect()
    }

    fn offset_at(&self, at_us: u64) -> i64 {
        let step = self.offsets.iter().rfind(|(from, _)| *from <= at_us);
        step.map_or(0, |(_, offset)| *offset)
    }
}

impl UtilizationSource for Driver {
    fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing> {
        self.calls += 1;
        self.now_us += self.samples_late_us;
        let visible = match self.samples {
            Samples::Supported => self.visible(last_seen_us, |at| self.offset_at(at)),
            Samples::WallClock => self.visible(last_seen_us, |_| self.wall_step_us),
            Samples::Unsupported => return Err(Missing::Unsupported),
        };
        let sample = |(stamp_us, percent): (u64, f64)| UtilizationSample {
            stamp_us,
            percent: whole(percent),
        };
        Ok(visible.into_iter().map(sample).collect())
    }

    fn rows(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationRow>, Missing> {
        self.calls += 1;
        self.now_us += self.rows_late_us;
        if self.rows_fail {
            return Err(Missing::Failed(999));
        }
        let visible = self.visible(last_seen_us, |at| self.offset_at(at));
        // Samples are whole percentages.
        let Some((stamp_us, _)) = visible.iter().rfind(|(_, percent)| whole(*percent) > 0) else {
            return Ok(Vec::new());
        };
        let count = f64::from(u32::try_from(visible.len()).unwrap());
        let mean = visible.iter().map(|(_, percent)| percent).sum::<f64>() / count;
        let sm = if self.refused { u32::MAX } else { whole(mean) };
        Ok(vec![UtilizationRow { pid: PID, stamp_us: *stamp_us, percent: [sm, 0, 0, 0] }])
    }

    fn is_busy(&mut self) -> Result<bool, Missing> {
        self.calls += 1;
        Ok(self.recent(seconds(self.period_us)) >= 1.0)
    }

    fn now(&self) -> Moment {
        let wall_us = (WALL + self.now_us).saturating_add_signed(self.wall_step_us);
        Moment { mono: Duration::from_micros(self.now_us), wall_us }
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
fn whole(percent: f64) -> u32 {
    // A sum of samples of 100 may be slightly less.
    (percent + 1e-9) as u32
}
