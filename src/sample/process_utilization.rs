//! Per-process utilization from the driver's sample buffer (`nvmlDeviceGetProcessUtilization`).
//!
//! A read with the cursor `lastSeenTimeStamp` returns one row per process that was busy since then:
//! the mean over all samples since the cursor, idle ones included, with the time stamp of the last
//! busy sample of the process. The time of the newest sample is not returned; it is at most
//! [`RING_LATENCY`] ago. Therefore the cursor is [`RING_LATENCY`] before the previous read: no
//! sample is lost, the overlap of two reads is at most the latency, and a row counts for the time
//! between the two reads. A process without a row was idle. The newest time stamp would be a worse
//! cursor: after the end of a burst it is older than samples that the mean already contains, and
//! bursts would read too low.
//!
//! An invalid row proves that its process was active, but not how much: the utilization of the
//! process is unknown for that window, not 0.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{Discard, Discards, EngineUtilization, Missing, Moment};
use crate::nvml::raw::utilization::UtilizationRow;
use crate::policy::{PID_MAX, RING_LATENCY, RING_SPAN, STAMP_TOLERANCE};

/// Use of each engine (SM, memory, encoder, decoder), as percent × µs.
type EngineTime = [u64; 4];

/// Cursor of one GPU, and the rows since the last window ended.
#[derive(Debug, Default)]
pub struct UtilizationCursor {
    last_read: Option<Moment>,
    failed: Option<Missing>,
    window: UtilizationWindow,
}

/// Utilization of the processes of one GPU in one cycle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UtilizationWindow {
    engine_times: HashMap<u32, EngineTime>,
    /// Pids with an invalid row.
    invalid: HashSet<u32>,
    covered_us: u64,
}

/// Length of a window, and the use that belongs to no listed process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowSummary {
    /// Length of the window.
    pub span: Duration,
    /// Mean SM utilization of all pids that are not listed, percent; mostly of processes that have
    /// exited.
    pub unlisted_sm: f64,
}

impl UtilizationWindow {
    /// Summary of the window; `listed` returns whether a pid is in the process list.
    ///
    /// # Errors
    /// [`Missing::Invalid`] if a pid that is not listed has an invalid row.
    pub fn summary(&self, listed: impl Fn(u32) -> bool) -> Result<WindowSummary, Missing> {
        if self.invalid.iter().any(|pid| !listed(*pid)) {
            return Err(Missing::Invalid);
        }
        let unlisted = self.engine_times.iter().filter(|(pid, _)| !listed(**pid));
        let sm = unlisted.map(|(_, [sm, ..])| mean(*sm, self.covered_us)).sum();
        Ok(WindowSummary { span: Duration::from_micros(self.covered_us), unlisted_sm: sm })
    }

    /// Mean utilization of each engine by `pid`, percent; 0 for a process without a row.
    ///
    /// # Errors
    /// [`Missing::Invalid`] if the process has an invalid row.
    pub fn utilization(&self, pid: u32) -> Result<EngineUtilization, Missing> {
        if self.invalid.contains(&pid) {
            return Err(Missing::Invalid);
        }
        let [sm, memory, encoder, decoder] = self
            .engine_times
            .get(&pid)
            .map_or([0.0; 4], |times| times.map(|time| mean(time, self.covered_us)));
        Ok(EngineUtilization { sm, memory, encoder, decoder })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a window of a century fits in 2^53 µs")]
fn mean(time: u64, covered_us: u64) -> f64 {
    if covered_us == 0 { 0.0 } else { time as f64 / covered_us as f64 }
}

impl UtilizationCursor {
    /// Value of `lastSeenTimeStamp` for the next read, µs since the Unix epoch.
    #[must_use]
    pub fn last_seen_us(&self, now: Moment) -> u64 {
        // After the clock was set back, the old cursor is in the future and would return no rows.
        let since = self.last_read.filter(|read| read.wall_us <= now.wall_us).unwrap_or(now);
        since.wall_us.saturating_sub(micros(RING_LATENCY))
    }

    /// Adds the rows of one read. The first read only sets the cursor, because its rows may cover
    /// time before the exporter started.
    pub fn add_rows(&mut self, rows: &[UtilizationRow], now: Moment, discards: &mut Discards) {
        let from_us = self.last_seen_us(now);
        let mut valid: HashMap<u32, UtilizationRow> = HashMap::with_capacity(rows.len());
        for row in rows {
            let class = classify(row, from_us, now.wall_us, valid.get(&row.pid));
            if let Some(reason) = class.discard() {
                discards.count(reason);
            }
            match class {
                RowClass::Valid => drop(valid.insert(row.pid, *row)),
                RowClass::Ignored(_) => {}
                RowClass::UnknownProcess(_) => drop(self.window.invalid.insert(row.pid)),
                RowClass::UnknownDevice(_) => {
                    self.failed.get_or_insert(Missing::Invalid);
                }
            }
        }
        match self.last_read.replace(now) {
            Some(read) if read.wall_us <= now.wall_us => {
                let span = now.mono.saturating_sub(read.mono);
                if span > RING_SPAN {
                    self.failed.get_or_insert(Missing::Pending);
                }
                self.window.add(valid.values(), micros(span));
            }
            _ => {
                self.failed.get_or_insert(Missing::Pending);
            }
        }
    }

    /// Records a failed read. The window has a gap, so it has no valid mean.
    pub fn mark_failed(&mut self, missing: Missing) {
        self.last_read = None;
        self.failed = Some(missing);
    }

    /// Whether no process has used a video engine in the window so far; false if that is unknown.
    #[must_use]
    pub fn video_idle(&self) -> bool {
        let idle = |times: &EngineTime| matches!(times, [_, _, 0, 0]);
        let UtilizationWindow { engine_times, invalid, covered_us } = &self.window;
        let known = self.failed.is_none() && invalid.is_empty() && *covered_us > 0;
        known && engine_times.values().all(idle)
    }

    /// Ends the window and begins the next one.
    ///
    /// # Errors
    /// The reason of a failed read or an invalid row; [`Missing::Pending`] for the first window and
    /// after a gap.
    pub fn finish_window(&mut self) -> Result<UtilizationWindow, Missing> {
        let window = std::mem::take(&mut self.window);
        match self.failed.take() {
            Some(missing) => Err(missing),
            None => Ok(window),
        }
    }
}

impl UtilizationWindow {
    fn add<'a>(&mut self, rows: impl Iterator<Item = &'a UtilizationRow>, span_us: u64) {
        self.covered_us += span_us;
        for row in rows {
            let times = self.engine_times.entry(row.pid).or_default();
            for (sum, percent) in times.iter_mut().zip(row.percent) {
                *sum += u64::from(percent) * span_us;
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Classification of a row.
#[derive(Clone, Copy)]
enum RowClass {
    /// Valid utilization of its process.
    Valid,
    /// No information: an empty slot, older than the window, or a duplicate.
    Ignored(Discard),
    /// Invalid: the process was active in the window, its utilization is unknown.
    UnknownProcess(Discard),
    /// Invalid: an unknown process was active, so the utilization of all processes is unknown.
    UnknownDevice(Discard),
}

impl RowClass {
    fn discard(self) -> Option<Discard> {
        match self {
            Self::Valid => None,
            Self::Ignored(reason) | Self::UnknownProcess(reason) | Self::UnknownDevice(reason) => {
                Some(reason)
            }
        }
    }
}

/// Classifies a row of the window from `from_us` to `now_us`. `same` is an earlier row of the same
/// process.
fn classify(
    row: &UtilizationRow,
    from_us: u64,
    now_us: u64,
    same: Option<&UtilizationRow>,
) -> RowClass {
    if row.pid == 0 {
        RowClass::Ignored(Discard::Pid)
    } else if row.stamp_us <= from_us {
        RowClass::Ignored(Discard::OldStamp)
    } else if row.pid > PID_MAX {
        let used = row.percent.iter().any(|percent| *percent > 0);
        if used { RowClass::UnknownDevice(Discard::Pid) } else { RowClass::Ignored(Discard::Pid) }
    } else if row.stamp_us > now_us.saturating_add(micros(STAMP_TOLERANCE)) {
        RowClass::UnknownProcess(Discard::FutureStamp)
    } else if row.percent.iter().any(|percent| *percent > 100) {
        RowClass::UnknownProcess(Discard::Percentage)
    } else {
        match same {
            None => RowClass::Valid,
            Some(same) if same.percent == row.percent => RowClass::Ignored(Discard::Duplicate),
            Some(_) => RowClass::UnknownProcess(Discard::Duplicate),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn row(pid: u32, stamp_us: u64, sm: u32) -> UtilizationRow {
        UtilizationRow { pid, stamp_us, percent: [sm, 0, 0, 0] }
    }

    /// The moment `us` µs after the start, on both clocks.
    fn at(us: u64) -> Moment {
        Moment { mono: Duration::from_micros(us), wall_us: START + us }
    }

    fn primed() -> (UtilizationCursor, Discards) {
        let (mut cursor, mut discards) = (UtilizationCursor::default(), Discards::default());
        cursor.add_rows(&[row(1, START, 50)], at(0), &mut discards);
        assert_eq!(cursor.finish_window(), Err(Missing::Pending));
        (cursor, discards)
    }

    fn sm(window: &UtilizationWindow, pid: u32) -> f64 {
        window.utilization(pid).unwrap().sm
    }

    #[test]
    fn cursor_is_the_latency_before_the_last_read() {
        let (mut cursor, mut discards) = primed();
        assert_eq!(cursor.last_seen_us(at(5 * SECOND)), START - SECOND);
        cursor.add_rows(&[row(1, START + SECOND, 10)], at(5 * SECOND), &mut discards);
        assert_eq!(cursor.last_seen_us(at(9 * SECOND)), START + 4 * SECOND);
    }

    #[test]
    fn window_is_the_time_weighted_mean_of_its_reads() {
        let (mut cursor, mut discards) = primed();
        cursor.add_rows(
            &[row(1, START + SECOND, 100), row(2, START + SECOND, 30)],
            at(SECOND),
            &mut discards,
        );
        cursor.add_rows(&[row(2, START + 4 * SECOND, 30)], at(4 * SECOND), &mut discards);
        let window = cursor.finish_window().unwrap();
        assert!((sm(&window, 1) - 25.0).abs() < 1e-9, "one of four seconds");
        assert!((sm(&window, 2) - 30.0).abs() < 1e-9);
        assert_eq!(window.utilization(3), Ok(EngineUtilization::default()), "no row: idle");
    }

    #[test]
    fn video_engines_are_idle_only_if_the_window_is_known() {
        let mut cursor = UtilizationCursor::default();
        let mut discards = Discards::default();
        assert!(!cursor.video_idle());
        cursor.add_rows(&[], at(0), &mut discards);
        assert!(!cursor.video_idle(), "the first read only sets the cursor");
        let _first = cursor.finish_window();
        let row = |stamp_us, percent| UtilizationRow { pid: 7, stamp_us, percent };
        cursor.add_rows(&[row(START + 900_000, [50, 10, 0, 0])], at(1_000_000), &mut discards);
        assert!(cursor.video_idle());
        cursor.add_rows(&[row(START + 1_900_000, [50, 10, 0, 3])], at(2_000_000), &mut discards);
        assert!(!cursor.video_idle());
    }

    #[test]
    fn failed_read_invalidates_its_window_and_the_cursor() {
        let (mut cursor, mut discards) = primed();
        cursor.add_rows(&[row(1, START + SECOND, 50)], at(SECOND), &mut discards);
        cursor.mark_failed(Missing::Failed(999));
        assert_eq!(cursor.finish_window(), Err(Missing::Failed(999)));
        cursor.add_rows(&[row(1, START + 9 * SECOND, 50)], at(9 * SECOND), &mut discards);
        assert_eq!(cursor.finish_window(), Err(Missing::Pending));
        cursor.add_rows(&[row(1, START + 10 * SECOND, 50)], at(10 * SECOND), &mut discards);
        assert!((sm(&cursor.finish_window().unwrap(), 1) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn clock_set_back_reports_no_process_as_idle() {
        let (mut cursor, mut discards) = primed();
        cursor.add_rows(&[row(1, START + SECOND, 50)], at(SECOND), &mut discards);
        let back = |us: u64| Moment { mono: at(us).mono, wall_us: START + us - 3600 * SECOND };
        assert_eq!(cursor.last_seen_us(back(2 * SECOND)), back(SECOND).wall_us);
        cursor.add_rows(&[], back(2 * SECOND), &mut discards);
        assert_eq!(cursor.finish_window(), Err(Missing::Pending));
        cursor.add_rows(&[row(1, back(3 * SECOND).wall_us, 50)], back(3 * SECOND), &mut discards);
        assert!((sm(&cursor.finish_window().unwrap(), 1) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn invalid_row_is_counted_and_its_process_is_unknown_not_idle() {
        let (mut cursor, mut discards) = primed();
        let now = START + SECOND;
        let rows = [
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
        cursor.add_rows(&rows, at(SECOND), &mut discards);
        let counted: Vec<_> = discards.iter().filter(|(_, n)| *n > 0).collect();
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
        let window = cursor.finish_window().unwrap();
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
        cursor.add_rows(&[row(4, now + SECOND, 40)], at(2 * SECOND), &mut discards);
        assert!(
            (sm(&cursor.finish_window().unwrap(), 4) - 40.0).abs() < 1e-9,
            "the next window is valid"
        );
    }

    #[test]
    fn use_of_an_impossible_pid_makes_all_processes_unknown_for_one_window() {
        let (mut cursor, mut discards) = primed();
        let rows = [row(u32::MAX, START + SECOND, 7), row(5, START + SECOND, 60)];
        cursor.add_rows(&rows, at(SECOND), &mut discards);
        assert!(!cursor.video_idle());
        assert_eq!(cursor.finish_window(), Err(Missing::Invalid));
        cursor.add_rows(&[row(5, START + 2 * SECOND, 60)], at(2 * SECOND), &mut discards);
        assert!((sm(&cursor.finish_window().unwrap(), 5) - 60.0).abs() < 1e-9);
    }

    /// A driver's sample buffer: samples of 1/6 s of one process, delivered once a second.
    struct FakeDriver {
        samples: Vec<(u64, u32)>,
    }

    impl FakeDriver {
        const PERIOD: u64 = SECOND / 6;

        /// One process with an SM utilization of `percent` while `busy` is true, for `seconds`.
        fn working(percent: u32, seconds: u64, busy: impl Fn(u64) -> bool) -> Self {
            let steps = 0..seconds * SECOND / Self::PERIOD;
            let sample = |at: u64| (START + at, if busy(at) { percent } else { 0 });
            Self { samples: steps.map(|step| sample(step * Self::PERIOD)).collect() }
        }

        fn read(&self, last_seen_us: u64, now_us: u64) -> Vec<UtilizationRow> {
            let delivered = now_us / SECOND * SECOND;
            let known: Vec<_> = self.samples.iter().filter(|(at, _)| *at <= delivered).collect();
            let buffer = &known[known.len().saturating_sub(72)..];
            let returned: Vec<_> = buffer.iter().filter(|(at, _)| *at > last_seen_us).collect();
            let Some(last_busy) = returned.iter().rev().find(|(_, sm)| *sm > 0) else {
                return Vec::new();
            };
            let sum: u32 = returned.iter().map(|(_, sm)| sm).sum();
            vec![row(1, last_busy.0, sum / u32::try_from(returned.len()).unwrap())]
        }

        /// Mean of each window of `reads` reads that are `step` µs apart.
        fn observed(&self, seconds: u64, step: u64, reads: u64) -> Vec<f64> {
            let (mut cursor, mut discards) = (UtilizationCursor::default(), Discards::default());
            let mut means = Vec::new();
            for n in 0..seconds * SECOND / step {
                let now = at(n * step);
                let rows = self.read(cursor.last_seen_us(now), now.wall_us);
                cursor.add_rows(&rows, now, &mut discards);
                if n % reads == 0
                    && let Ok(window) = cursor.finish_window()
                {
                    means.push(sm(&window, 1));
                }
            }
            assert_eq!(discards, Discards::default());
            means
        }
    }

    #[test]
    fn steady_load_is_exact_at_any_read_interval() {
        let driver = FakeDriver::working(37, 300, |_| true);
        for (step, reads) in [(SECOND, 1), (1_300_000, 1), (5 * SECOND, 1), (5 * SECOND, 6)] {
            let means = driver.observed(300, step, reads);
            assert!(means.len() > 5);
            // At the first reads the buffer has only begun to fill.
            assert!(means.iter().skip(2).all(|mean| (mean - 37.0).abs() < 1e-9), "{means:?}");
        }
    }

    proptest! {
        #[test]
        fn bursts_are_neither_lost_nor_counted_twice(
            on in 2_u64..40, off in 2_u64..40, step in 800_000_u64..5_000_000, reads in 1_u64..7,
        ) {
            let seconds = 600;
            let driver =
                FakeDriver::working(100, seconds, |at| at % ((on + off) * SECOND) < on * SECOND);
            let means = driver.observed(seconds, step, reads);
            let mean = means.iter().sum::<f64>() / u32::try_from(means.len()).map(f64::from).unwrap();
            let total: u32 = driver.samples.iter().map(|(_, sm)| sm).sum();
            let count = u32::try_from(driver.samples.len()).unwrap();
            let expected = f64::from(total) / f64::from(count);
            let error = (mean - expected).abs();
            prop_assert!(error < 0.1 * expected + 1.0, "{mean}, expected {expected}");
        }

        #[test]
        fn utilization_is_always_a_percentage(
            reads in prop::collection::vec(
                (prop::collection::vec((0_u32..6, -5_i64..5, any::<u32>()), 0..8), 0_u64..4),
                1..12,
            )
        ) {
            let (mut cursor, mut discards) = primed();
            let mut since = 0;
            for (rows, step) in reads {
                since += step * SECOND;
                let now = START + since;
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(pid, at, sm)| row(*pid, now.saturating_add_signed(at * 500_000), sm % 130))
                    .collect();
                let before = cursor.last_seen_us(at(since));
                cursor.add_rows(&rows, at(since), &mut discards);
                let after = cursor.last_seen_us(at(since));
                prop_assert!(after >= before, "the cursor never moves back");
            }
            let window = cursor.finish_window().unwrap();
            for pid in 0..6 {
                let sm = window.utilization(pid).map_or(0.0, |utilization| utilization.sm);
                prop_assert!((0.0..=100.0).contains(&sm), "{sm}");
            }
        }
    }
}
