//! Per-process utilization from the driver's sample buffer (`nvmlDeviceGetProcessUtilization`).
//!
//! A read with the cursor `lastSeenTimeStamp` returns one row per process that was busy since then:
//! the mean over all samples since the cursor, idle ones included, with the time stamp of the last
//! busy sample of the process. Windows must follow each other without overlap or gap, or a load that
//! is in step with the reads has a constant error. The end of a window is therefore the stamp of the
//! newest sample, which is the cursor of the next read. It is not in the rows, since all processes
//! may be idle then; `nvmlDeviceGetSamples` returns it from the same buffer, in the driver's time. A
//! row counts for the time that the samples cover, and a process without a row was idle.
//!
//! The samples may have another clock than the rows, once its difference is known. Without these
//! samples, and until the difference is known, the newest stamp is that of the last busy row while
//! the GPU is busy, and is estimated by the offset of the driver's clock otherwise. The offset is
//! learnt while the GPU is busy at a read. A load that never is has no value at all: its busy windows
//! are not known, and its idle ones alone would be a mean without them.
//!
//! An invalid row proves that its process was active, but not how much: the utilization of the
//! process is unknown for that window, not 0.

mod row;
mod row_clock;
mod window;

use std::collections::HashMap;
use std::time::Duration;

use self::row::{Bounds, RowClass, newest_plausible};
use self::row_clock::RowClock;
use self::window::RowsSeen;
pub use self::window::{UtilizationWindow, WindowSummary};
use super::driver_clock::DriverClock;
use super::gpu_utilization::{GpuUtilizationSampler, SampleProgress};
use super::utilization_source::UtilizationSource;
use crate::model::{Discards, Missing, Moment, micros};
use crate::nvml::raw::utilization::UtilizationRow;
use crate::policy::{
    IDLE_LIST_UTILIZATION_MAX, LATE_CALL, REFUSED_WINDOWS, RING_SPAN, SAMPLE_STALL,
    STAMP_TOLERANCE, UNSEEN_LOAD_PERIOD, WALL_CLOCK_STEP,
};

/// Cursor of one GPU, and the rows since the last window ended.
#[derive(Debug, Default)]
pub struct UtilizationCursor {
    /// End of the time that the rows so far cover, in driver time.
    last_seen_us: Option<u64>,
    /// Time that samples after the cursor cover.
    uncovered_us: u64,
    clock: DriverClock,
    row_clock: RowClock,
    /// When the cursor last advanced.
    advanced_at: Option<Moment>,
    /// Why the last read covered nothing.
    failed: Option<Missing>,
    window: UtilizationWindow,
    /// The last window, until a newer one has a sample.
    previous: Option<UtilizationWindow>,
    /// Number of windows in a row in which the GPU was busy, and no row was valid.
    refused_windows: u32,
    /// Last busy row of a GPU that was idle at the read, while the clock of the driver was not known.
    unseen_us: Option<u64>,
    /// When the GPU was last seen to be busy only between the reads (monotonic).
    unseen_at: Option<Duration>,
}

impl UtilizationCursor {
    /// Reads the rows since the last read. The first read only sets the cursor, because its rows may
    /// cover time before the exporter started.
    pub fn read(
        &mut self,
        source: &mut impl UtilizationSource,
        sampler: &mut GpuUtilizationSampler,
        discards: &mut Discards,
    ) {
        let result = match sampler.read(source) {
            Err(missing @ (Missing::Lost | Missing::DriverGone)) => Err(missing),
            Ok(progress) if self.is_stalled(progress, source.now()) => {
                self.read_to_estimate(source, discards)
            }
            Ok(progress) if !self.row_clock.is_different() => {
                self.read_to_newest(source, sampler, progress, discards)
            }
            Ok(progress) if self.row_clock.can_learn(recent_busy_us(progress)) => {
                self.read_to_learn(source, sampler, progress, discards)
            }
            Ok(_) | Err(_) => self.read_to_estimate(source, discards),
        };
        self.failed = result.err();
    }

    /// Drops all that was read, because the rows cannot be read at present.
    pub fn reset(&mut self, missing: Missing) {
        *self = Self { failed: Some(missing), ..Self::default() };
    }

    /// Offset of the driver's clock from the wall clock, seconds; `None` until it is known.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an offset of a century fits in 2^53 µs")]
    pub fn clock_offset(&self) -> Option<f64> {
        self.clock.offset_us().map(|offset| offset as f64 / 1e6)
    }

    /// Whether the GPU was busy in the last windows, and none of their rows was valid.
    #[must_use]
    pub fn refuses_all_rows(&self) -> bool {
        self.refused_windows >= REFUSED_WINDOWS
    }

    /// Whether the driver has taken no sample for longer than any period: some stop while the GPU is
    /// idle.
    fn is_stalled(&self, progress: SampleProgress, now: Moment) -> bool {
        let has_new = !progress.is_continuous
            || self
                .last_seen_us
                .is_none_or(|seen_us| self.row_clock.time_of(progress.newest_us) > seen_us);
        let since = self.advanced_at.map(|at| now.wall_us.saturating_sub(at.wall_us));
        !has_new && since.is_some_and(|since| since > micros(SAMPLE_STALL))
    }

    /// Reads the rows up to the newest sample.
    ///
    /// # Errors
    /// Returns the NVML error; pending if the cursor was only set.
    fn read_to_newest(
        &mut self,
        source: &mut impl UtilizationSource,
        sampler: &mut GpuUtilizationSampler,
        mut progress: SampleProgress,
        discards: &mut Discards,
    ) -> Result<(), Missing> {
        let Some(since_us) = self.last_seen_us.filter(|_| progress.is_continuous) else {
            return self.set_to_newest(source, sampler, progress);
        };
        self.uncovered_us += progress.covered_us;
        let mut newest_us = self.row_clock.time_of(progress.newest_us);
        if newest_us <= since_us {
            return Ok(());
        }
        let called_at = source.now();
        self.clock.observe(newest_us, called_at);
        let rows = source.rows(since_us)?;
        if source.now().mono.saturating_sub(called_at.mono) > LATE_CALL {
            // The rows are as new as the late answer, not as the samples before it.
            progress = sampler.read(source)?;
            self.uncovered_us += progress.covered_us;
            newest_us = self.row_clock.time_of(progress.newest_us);
            if !progress.is_continuous || newest_us <= since_us {
                // The clock of the driver was set meanwhile.
                return self.set_to_newest(source, sampler, progress);
            }
        }
        // A sample can have been taken between the two calls.
        let ahead = rows.iter().map(|row| row.stamp_us.saturating_sub(newest_us));
        let ahead_us = ahead.filter(|ahead| *ahead <= micros(STAMP_TOLERANCE)).max().unwrap_or(0);
        let bounds = Bounds { since_us, newest_us: newest_us + ahead_us };
        let (valid, refused) = self.classify(&rows, bounds, discards);
        let busy_us = progress.last_busy_us.filter(|busy| self.row_clock.time_of(*busy) > since_us);
        let row_us = valid.values().map(|row| row.stamp_us).max();
        if busy_us.is_some() && row_us.is_none() && self.contradicts(progress.mean, refused) {
            self.window.rows.refused = true;
            self.window.unknown = Some(Missing::Invalid);
            let set = self.set_to_newest(source, sampler, progress);
            return Err(set
                .err()
                .filter(|why| *why != Missing::Pending)
                .unwrap_or(Missing::Invalid));
        }
        if !self.row_clock.agrees(busy_us, row_us) {
            self.window.unknown = Some(Missing::Pending);
            return self.set_to_newest(source, sampler, progress);
        }
        let covered_us = std::mem::take(&mut self.uncovered_us) + ahead_us;
        self.window.add(valid.values(), covered_us.min(bounds.newest_us - since_us));
        self.advance(bounds.newest_us, source.now());
        Ok(())
    }

    /// Whether it is a contradiction that the GPU was busy for a mean of `percent`, without a valid
    /// row. A low use can be that of the driver itself, if the rows have the clock of the samples.
    fn contradicts(&self, percent: f64, refused: bool) -> bool {
        !self.row_clock.is_known() || !refused && percent > IDLE_LIST_UTILIZATION_MAX
    }

    /// Sets the cursor to the newest sample, and compares the clocks of samples and rows.
    ///
    /// # Errors
    /// Returns the NVML error, otherwise pending.
    fn set_to_newest(
        &mut self,
        source: &mut impl UtilizationSource,
        sampler: &mut GpuUtilizationSampler,
        mut progress: SampleProgress,
    ) -> Result<(), Missing> {
        let called_at = source.now();
        let rows = source.rows(0)?;
        let now = source.now();
        if now.mono.saturating_sub(called_at.mono) > LATE_CALL {
            progress = sampler.read(source)?;
        }
        self.row_clock.compare(recent_busy_us(progress), &rows);
        let newest_us = self.row_clock.time_of(progress.newest_us);
        self.clock = DriverClock::default();
        if !self.row_clock.is_different() {
            self.clock.observe(newest_us, now);
        }
        self.advance(newest_us, now);
        Err(Missing::Pending)
    }

    /// Compares the clocks of samples and rows again, and reads the rows up to an estimate if they still differ.
    ///
    /// # Errors
    /// Returns the NVML error; pending if the difference of the clocks is known from now on.
    fn read_to_learn(
        &mut self,
        source: &mut impl UtilizationSource,
        sampler: &mut GpuUtilizationSampler,
        progress: SampleProgress,
        discards: &mut Discards,
    ) -> Result<(), Missing> {
        self.row_clock.compare(recent_busy_us(progress), &source.rows(0)?);
        if self.row_clock.is_different() {
            return self.read_to_estimate(source, discards);
        }
        self.window.unknown = Some(Missing::Pending);
        self.set_to_newest(source, sampler, progress)
    }

    /// Reads the rows up to an estimate of the newest sample.
    ///
    /// # Errors
    /// Returns the NVML error; pending if the offset of the clock is not known, and if samples were
    /// lost.
    fn read_to_estimate(
        &mut self,
        source: &mut impl UtilizationSource,
        discards: &mut Discards,
    ) -> Result<(), Missing> {
        let is_busy = source.is_busy()?;
        let is_steady = self.advanced_at.is_some_and(|at| !was_set(at, source.now()));
        let since_us = self.last_seen_us.filter(|_| is_steady && self.clock.offset_us().is_some());
        let Some(since_us) = since_us else { return self.set_by_rows(source, is_busy) };
        let rows = source.rows(since_us)?;
        let now = source.now();
        let estimate_us = self.clock.newest_us(now).unwrap_or_default();
        let newest_us = match newest_plausible(&rows) {
            Some(row_us) if is_busy && self.clock.observe(row_us, now) => row_us,
            Some(row_us) if !is_busy && row_us <= estimate_us + micros(STAMP_TOLERANCE) => {
                row_us.max(estimate_us)
            }
            None if !is_busy => estimate_us,
            Some(_) | None => return self.set_by_rows(source, is_busy),
        };
        if newest_us <= since_us {
            return Ok(());
        }
        self.advance(newest_us, now);
        if newest_us - since_us > micros(RING_SPAN) {
            return Err(Missing::Pending);
        }
        let (valid, _) = self.classify(&rows, Bounds { since_us, newest_us }, discards);
        self.window.add(valid.values(), newest_us - since_us);
        Ok(())
    }

    /// Learns the offset of the clock and sets the cursor by the newest row, which is that of the
    /// newest sample while the GPU is busy. If the whole buffer is idle, all processes are, whatever
    /// the offset is.
    ///
    /// # Errors
    /// Returns the NVML error; pending if the GPU is not busy; invalid if it is, and has no rows.
    fn set_by_rows(
        &mut self,
        source: &mut impl UtilizationSource,
        is_busy: bool,
    ) -> Result<(), Missing> {
        (self.clock, self.last_seen_us, self.uncovered_us) = (DriverClock::default(), None, 0);
        let rows = source.rows(0)?;
        let now = source.now();
        let before = self.advanced_at.replace(now);
        match newest_plausible(&rows) {
            Some(row_us) if is_busy => {
                self.clock.observe(row_us, now);
                self.last_seen_us = Some(row_us);
                Err(Missing::Pending)
            }
            None if is_busy => {
                self.window.rows.refused = true;
                Err(Missing::Invalid)
            }
            None if rows.is_empty() && !self.is_in_step(now) => {
                let elapsed = before.and_then(|at| now.mono.checked_sub(at.mono));
                let elapsed = elapsed.filter(|elapsed| *elapsed <= RING_SPAN);
                self.window.add([].iter(), micros(elapsed.ok_or(Missing::Pending)?));
                Ok(())
            }
            Some(row_us) => {
                // A second row that no read coincided with.
                if self.unseen_us.replace(row_us).is_some_and(|before_us| before_us != row_us) {
                    self.unseen_at = Some(now.mono);
                }
                Err(Missing::Pending)
            }
            None => Err(Missing::Pending),
        }
    }

    /// Whether the load may be in step with the reads: its busy windows have no value, and without them the idle
    /// ones would read as if there was no load.
    fn is_in_step(&self, now: Moment) -> bool {
        self.unseen_at.is_some_and(|at| now.mono.saturating_sub(at) < UNSEEN_LOAD_PERIOD)
    }

    fn advance(&mut self, newest_us: u64, now: Moment) {
        self.last_seen_us = Some(newest_us);
        self.uncovered_us = 0;
        self.advanced_at = Some(now);
    }

    /// The valid row of each process, and whether a row was refused.
    fn classify(
        &mut self,
        rows: &[UtilizationRow],
        bounds: Bounds,
        discards: &mut Discards,
    ) -> (HashMap<u32, UtilizationRow>, bool) {
        let mut valid: HashMap<u32, UtilizationRow> = HashMap::with_capacity(rows.len());
        let mut refused = false;
        for row in rows {
            let class = row::classify(row, bounds, valid.get(&row.pid));
            if let Some(reason) = class.discard() {
                discards.count(reason);
            }
            match class {
                RowClass::Valid => drop(valid.insert(row.pid, *row)),
                RowClass::Ignored(_) => {}
                RowClass::UnknownProcess(_) => {
                    refused = true;
                    self.window.invalid.insert(row.pid);
                }
                RowClass::UnknownDevice(_) => {
                    refused = true;
                    self.window.unknown = Some(Missing::Invalid);
                }
            }
        }
        self.window.rows.valid |= !valid.is_empty();
        self.window.rows.refused |= refused;
        (valid, refused)
    }

    /// Ends the window and begins the next one. Without a newer sample it is the last one again.
    ///
    /// # Errors
    /// The reason of a failed read or an invalid row; [`Missing::Pending`] for the first window and
    /// after a gap.
    pub fn finish_window(&mut self) -> Result<UtilizationWindow, Missing> {
        let window = std::mem::take(&mut self.window);
        match window.rows {
            RowsSeen { valid: true, .. } => self.refused_windows = 0,
            RowsSeen { refused: true, .. } => self.refused_windows += 1,
            RowsSeen { .. } => {}
        }
        if let Some(missing) = self.failed.or(window.unknown) {
            self.previous = None;
            if window.unknown.is_none() {
                // The value is absent; what was read is part of the next window.
                self.window = UtilizationWindow { rows: RowsSeen::default(), ..window };
            }
            return Err(missing);
        }
        if window.covered_us > 0 {
            self.previous = Some(window.clone());
            return Ok(window);
        }
        let previous = self.previous.clone().ok_or(Missing::Pending)?;
        Ok(UtilizationWindow { is_repeated: true, ..previous })
    }
}

/// The last busy sample, if it is still in the buffer.
fn recent_busy_us(progress: SampleProgress) -> Option<u64> {
    let oldest_us = progress.newest_us.saturating_sub(micros(RING_SPAN));
    progress.last_busy_us.filter(|busy_us| *busy_us > oldest_us)
}

/// Whether the wall clock was set between two moments.
fn was_set(before: Moment, now: Moment) -> bool {
    let wall = now.wall_us.checked_sub(before.wall_us).map(Duration::from_micros);
    let mono = now.mono.saturating_sub(before.mono);
    wall.is_none_or(|wall| wall.abs_diff(mono) > WALL_CLOCK_STEP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Discard, EngineUtilization};
    use crate::nvml::raw::samples::UtilizationSample;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    /// A driver with a GPU that is always busy, a sample each second and the given rows.
    struct FixedRows {
        seconds: u64,
        rows: Vec<UtilizationRow>,
    }

    impl UtilizationSource for FixedRows {
        fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing> {
            let stamps = (0..=self.seconds).map(|second| START + second * SECOND);
            let sample = |stamp_us| UtilizationSample { stamp_us, percent: 60 };
            Ok(stamps.filter(|stamp| *stamp > last_seen_us).map(sample).collect())
        }

        fn rows(&mut self, _: u64) -> Result<Vec<UtilizationRow>, Missing> {
            Ok(self.rows.clone())
        }

        fn is_busy(&mut self) -> Result<bool, Missing> {
            Ok(true)
        }

        fn now(&self) -> Moment {
            let wall_us = START + self.seconds * SECOND;
            Moment { mono: Duration::from_secs(self.seconds), wall_us }
        }
    }

    #[derive(Default)]
    struct Reader {
        cursor: UtilizationCursor,
        sampler: GpuUtilizationSampler,
        discards: Discards,
    }

    impl Reader {
        /// A reader that has read the first second.
        fn primed() -> Self {
            let mut reader = Self::default();
            assert_eq!(reader.read(0, vec![row(1, START, 50)]), Err(Missing::Pending));
            reader
        }

        fn read(
            &mut self,
            seconds: u64,
            rows: Vec<UtilizationRow>,
        ) -> Result<UtilizationWindow, Missing> {
            let mut source = FixedRows { seconds, rows };
            self.cursor.read(&mut source, &mut self.sampler, &mut self.discards);
            self.cursor.finish_window()
        }
    }

    fn row(pid: u32, stamp_us: u64, sm: u32) -> UtilizationRow {
        UtilizationRow { pid, stamp_us, percent: [sm, 0, 0, 0] }
    }

    fn sm(window: &UtilizationWindow, pid: u32) -> f64 {
        window.utilization(pid).unwrap().sm
    }

    #[test]
    fn invalid_row_is_counted_and_its_process_is_unknown_not_idle() {
        let mut reader = Reader::primed();
        let now = START + SECOND;
        let rows = vec![
            row(0, now, 1),
            row(u32::MAX, now, 0),
            row(2, START - SECOND, 200),
            row(3, now + 2 * SECOND, 1),
            row(4, now, 2_147_483_632),
            row(5, now, 60),
            row(5, now, 60),
            row(6, now, 60),
            row(6, now, 90),
        ];
        let window = reader.read(1, rows).unwrap();
        let counted: Vec<_> = reader.discards.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            counted,
            [
                (Discard::Pid, 2),
                (Discard::Duplicate, 2),
                (Discard::OldStamp, 1),
                (Discard::FutureStamp, 1),
                (Discard::Percentage, 1)
            ]
        );
        assert!((sm(&window, 5) - 60.0).abs() < 1e-9);
        assert_eq!(
            window.utilization(2),
            Ok(EngineUtilization::default()),
            "the invalid row is of an earlier window"
        );
        for pid in [3, 4, 6] {
            assert_eq!(window.utilization(pid), Err(Missing::Invalid), "{pid}");
        }
        assert!(window.summary(|_| true).is_ok());
        assert_eq!(window.summary(|pid| pid != 4), Err(Missing::Invalid));
        let next = reader.read(2, vec![row(4, now + SECOND, 40)]).unwrap();
        assert!((sm(&next, 4) - 40.0).abs() < 1e-9, "the next window is valid");
    }

    #[test]
    fn use_of_an_impossible_pid_makes_all_processes_unknown_for_one_window() {
        let mut reader = Reader::primed();
        let rows = vec![row(u32::MAX, START + SECOND, 7), row(5, START + SECOND, 60)];
        assert_eq!(reader.read(1, rows), Err(Missing::Invalid));
        let window = reader.read(2, vec![row(5, START + 2 * SECOND, 60)]).unwrap();
        assert!((sm(&window, 5) - 60.0).abs() < 1e-9);
    }

    #[test]
    fn process_without_a_row_is_idle() {
        let mut reader = Reader::primed();
        let window = reader.read(1, vec![row(5, START + SECOND, 60)]).unwrap();
        assert_eq!(window.utilization(6), Ok(EngineUtilization::default()));
    }

    proptest! {
        #[test]
        fn utilization_is_always_a_percentage(
            reads in prop::collection::vec(
                (prop::collection::vec((0_u32..6, -5_i64..5, any::<u32>()), 0..8), 0_u64..4),
                1..12,
            )
        ) {
            let mut reader = Reader::primed();
            let mut seconds = 0;
            for (rows, step) in reads {
                seconds += step;
                let now = START + seconds * SECOND;
                let rows = rows
                    .iter()
                    .map(|(pid, at, sm)| row(*pid, now.saturating_add_signed(at * 500_000), sm % 130))
                    .collect();
                let before = reader.cursor.last_seen_us;
                let Ok(window) = reader.read(seconds, rows) else { continue };
                prop_assert!(reader.cursor.last_seen_us >= before, "the cursor never moves back");
                for pid in 0..6 {
                    let sm = window.utilization(pid).map_or(0.0, |utilization| utilization.sm);
                    prop_assert!((0.0..=100.0).contains(&sm), "{sm}");
                }
            }
        }
    }
}
