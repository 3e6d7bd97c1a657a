//! The cursor in the driver's ring of per-process utilization.
//!
//! A read with cursor `c` answers with one row per process that was busy since `c`: its mean over the
//! samples since `c`, idle ones too, stamped with its own last busy sample. How far the samples reach
//! is not told, only that the newest is at most the ring's latency old. So each read asks from that
//! long before the read before: nothing is lost, what is asked for twice is at most the latency long,
//! and each row counts for the time between the two reads. A process without a row was idle. (The
//! newest stamp would be no better cursor: where work ends it stands before samples that the mean
//! has counted already, and bursts would read too low.)
//!
//! A row of the window that cannot be true says that its process did something, and not what: the
//! process is unknown for that window, not idle.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{Discard, Discards, EngineShares, Missing, Moment};
use crate::nvml::raw::utilization::UtilizationRow;
use crate::policy::{PID_MAX, RING_LATENCY, RING_SPAN, STAMP_TOLERANCE};

/// Microseconds of full use of each engine.
type Busy = [u64; 4];

/// One GPU's cursor, and what was read since the last window closed.
#[derive(Debug, Default)]
pub struct RingCursor {
    read: Option<Moment>,
    failed: Option<Missing>,
    window: Window,
}

/// What the processes of one GPU did over one cycle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Window {
    busy: HashMap<u32, Busy>,
    /// Pids with a row that was refused.
    refused: HashSet<u32>,
    covered_us: u64,
}

/// What a window tells of a device as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watched {
    /// How long it was.
    pub span: Duration,
    /// Mean share of the SMs of pids that are not listed: processes that have ended, above all.
    pub unlisted_sm: f64,
}

impl Window {
    /// What it tells beside the shares of those who are `listed`.
    ///
    /// # Errors
    /// A row was refused of a pid that is not listed.
    pub fn watched(&self, listed: impl Fn(u32) -> bool) -> Result<Watched, Missing> {
        if self.refused.iter().any(|pid| !listed(*pid)) {
            return Err(Missing::Invalid);
        }
        let unlisted = self.busy.iter().filter(|(pid, _)| !listed(**pid));
        let sm = unlisted.map(|(_, [sm, ..])| mean(*sm, self.covered_us)).sum();
        Ok(Watched { span: Duration::from_micros(self.covered_us), unlisted_sm: sm })
    }

    /// Mean share of each engine that `pid` used; zero for a process without a row.
    ///
    /// # Errors
    /// A row of it was refused.
    pub fn shares(&self, pid: u32) -> Result<EngineShares, Missing> {
        if self.refused.contains(&pid) {
            return Err(Missing::Invalid);
        }
        let [sm, memory, encoder, decoder] =
            self.busy.get(&pid).map_or([0.0; 4], |busy| busy.map(|b| mean(b, self.covered_us)));
        Ok(EngineShares { sm, memory, encoder, decoder })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a window of a century fits in 2^53 µs")]
fn mean(busy: u64, covered_us: u64) -> f64 {
    if covered_us == 0 { 0.0 } else { busy as f64 / covered_us as f64 }
}

impl RingCursor {
    /// The `lastSeenTimeStamp` to ask with.
    #[must_use]
    pub fn last_seen_us(&self, now: Moment) -> u64 {
        // A clock that was set back would ask for what is still to come, and hear that nothing ran.
        let since = self.read.filter(|read| read.wall_us <= now.wall_us).unwrap_or(now);
        since.wall_us.saturating_sub(micros(RING_LATENCY))
    }

    /// Takes in one answer. The first one only sets the cursor: how much of it is older than the
    /// exporter is not known.
    pub fn absorb(&mut self, rows: &[UtilizationRow], now: Moment, discards: &mut Discards) {
        let from_us = self.last_seen_us(now);
        let mut believed: HashMap<u32, UtilizationRow> = HashMap::with_capacity(rows.len());
        for row in rows {
            let verdict = judge(row, from_us, now.wall_us, believed.get(&row.pid));
            if let Some(reason) = verdict.discard() {
                discards.count(reason);
            }
            match verdict {
                Verdict::Reading => drop(believed.insert(row.pid, *row)),
                Verdict::Nothing(_) => {}
                Verdict::UnknownProcess(_) => drop(self.window.refused.insert(row.pid)),
                Verdict::UnknownDevice(_) => {
                    self.failed.get_or_insert(Missing::Invalid);
                }
            }
        }
        match self.read.replace(now) {
            Some(read) if read.wall_us <= now.wall_us => {
                let span = now.mono.saturating_sub(read.mono);
                if span > RING_SPAN {
                    self.failed.get_or_insert(Missing::Pending);
                }
                self.window.add(believed.values(), micros(span));
            }
            _ => {
                self.failed.get_or_insert(Missing::Pending);
            }
        }
    }

    /// Takes in a read that failed: the window has a hole, and no mean of it would be true.
    pub fn fail(&mut self, missing: Missing) {
        self.read = None;
        self.failed = Some(missing);
    }

    /// Whether the window so far is known, and nobody has used a video engine in it.
    #[must_use]
    pub fn video_idle(&self) -> bool {
        let idle = |busy: &Busy| matches!(busy, [_, _, 0, 0]);
        let Window { busy, refused, covered_us } = &self.window;
        let known = self.failed.is_none() && refused.is_empty() && *covered_us > 0;
        known && busy.values().all(idle)
    }

    /// Closes the window and begins the next one.
    ///
    /// # Errors
    /// The window has a hole, or is the first.
    pub fn close(&mut self) -> Result<Window, Missing> {
        let window = std::mem::take(&mut self.window);
        match self.failed.take() {
            Some(missing) => Err(missing),
            None => Ok(window),
        }
    }
}

impl Window {
    fn add<'a>(&mut self, rows: impl Iterator<Item = &'a UtilizationRow>, for_us: u64) {
        self.covered_us += for_us;
        for row in rows {
            let busy = self.busy.entry(row.pid).or_default();
            for (sum, percent) in busy.iter_mut().zip(row.percent) {
                *sum += u64::from(percent) * for_us;
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What a row says.
#[derive(Clone, Copy)]
enum Verdict {
    /// What its process used.
    Reading,
    /// Nothing: it is an empty slot, older than the window, or stands there twice.
    Nothing(Discard),
    /// That its process did something in the window, and not what.
    UnknownProcess(Discard),
    /// That some process did.
    UnknownDevice(Discard),
}

impl Verdict {
    fn discard(self) -> Option<Discard> {
        match self {
            Self::Reading => None,
            Self::Nothing(why) | Self::UnknownProcess(why) | Self::UnknownDevice(why) => Some(why),
        }
    }
}

/// Judges a row of a window from `from_us` to `now_us`; `same` is another row of its process.
fn judge(
    row: &UtilizationRow,
    from_us: u64,
    now_us: u64,
    same: Option<&UtilizationRow>,
) -> Verdict {
    if row.pid == 0 {
        Verdict::Nothing(Discard::Pid)
    } else if row.stamp_us <= from_us {
        Verdict::Nothing(Discard::OldStamp)
    } else if row.pid > PID_MAX {
        let used = row.percent.iter().any(|percent| *percent > 0);
        if used { Verdict::UnknownDevice(Discard::Pid) } else { Verdict::Nothing(Discard::Pid) }
    } else if row.stamp_us > now_us.saturating_add(micros(STAMP_TOLERANCE)) {
        Verdict::UnknownProcess(Discard::FutureStamp)
    } else if row.percent.iter().any(|percent| *percent > 100) {
        Verdict::UnknownProcess(Discard::Percentage)
    } else {
        match same {
            None => Verdict::Reading,
            Some(same) if same.percent == row.percent => Verdict::Nothing(Discard::Duplicate),
            Some(_) => Verdict::UnknownProcess(Discard::Duplicate),
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

    /// So many µs after the start, on both clocks.
    fn at(us: u64) -> Moment {
        Moment { mono: Duration::from_micros(us), wall_us: START + us }
    }

    fn primed() -> (RingCursor, Discards) {
        let (mut ring, mut discards) = (RingCursor::default(), Discards::default());
        ring.absorb(&[row(1, START, 50)], at(0), &mut discards);
        assert_eq!(ring.close(), Err(Missing::Pending));
        (ring, discards)
    }

    fn sm(window: &Window, pid: u32) -> f64 {
        window.shares(pid).unwrap().sm
    }

    #[test]
    fn the_cursor_is_the_latency_before_the_last_read() {
        let (mut ring, mut discards) = primed();
        assert_eq!(ring.last_seen_us(at(5 * SECOND)), START - SECOND);
        ring.absorb(&[row(1, START + SECOND, 10)], at(5 * SECOND), &mut discards);
        assert_eq!(ring.last_seen_us(at(9 * SECOND)), START + 4 * SECOND);
    }

    #[test]
    fn a_window_is_the_time_weighted_mean_of_its_reads() {
        let (mut ring, mut discards) = primed();
        ring.absorb(
            &[row(1, START + SECOND, 100), row(2, START + SECOND, 30)],
            at(SECOND),
            &mut discards,
        );
        ring.absorb(&[row(2, START + 4 * SECOND, 30)], at(4 * SECOND), &mut discards);
        let window = ring.close().unwrap();
        assert!((sm(&window, 1) - 25.0).abs() < 1e-9, "one of four seconds");
        assert!((sm(&window, 2) - 30.0).abs() < 1e-9);
        assert_eq!(window.shares(3), Ok(EngineShares::default()), "no row: idle");
    }

    #[test]
    fn video_engines_are_idle_only_where_that_is_known() {
        let mut ring = RingCursor::default();
        let mut discards = Discards::default();
        assert!(!ring.video_idle());
        ring.absorb(&[], at(0), &mut discards);
        assert!(!ring.video_idle(), "the first read only sets the cursor");
        let _first = ring.close();
        let row = |stamp_us, percent| UtilizationRow { pid: 7, stamp_us, percent };
        ring.absorb(&[row(START + 900_000, [50, 10, 0, 0])], at(1_000_000), &mut discards);
        assert!(ring.video_idle());
        ring.absorb(&[row(START + 1_900_000, [50, 10, 0, 3])], at(2_000_000), &mut discards);
        assert!(!ring.video_idle());
    }

    #[test]
    fn a_failed_read_spoils_its_window_and_the_next_begins_anew() {
        let (mut ring, mut discards) = primed();
        ring.absorb(&[row(1, START + SECOND, 50)], at(SECOND), &mut discards);
        ring.fail(Missing::Failed(999));
        assert_eq!(ring.close(), Err(Missing::Failed(999)));
        ring.absorb(&[row(1, START + 9 * SECOND, 50)], at(9 * SECOND), &mut discards);
        assert_eq!(ring.close(), Err(Missing::Pending));
        ring.absorb(&[row(1, START + 10 * SECOND, 50)], at(10 * SECOND), &mut discards);
        assert!((sm(&ring.close().unwrap(), 1) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_idle() {
        let (mut ring, mut discards) = primed();
        ring.absorb(&[row(1, START + SECOND, 50)], at(SECOND), &mut discards);
        let back = |us: u64| Moment { mono: at(us).mono, wall_us: START + us - 3600 * SECOND };
        assert_eq!(ring.last_seen_us(back(2 * SECOND)), back(SECOND).wall_us);
        ring.absorb(&[], back(2 * SECOND), &mut discards);
        assert_eq!(ring.close(), Err(Missing::Pending));
        ring.absorb(&[row(1, back(3 * SECOND).wall_us, 50)], back(3 * SECOND), &mut discards);
        assert!((sm(&ring.close().unwrap(), 1) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_refused_row_is_counted_and_makes_its_process_unknown_not_idle() {
        let (mut ring, mut discards) = primed();
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
        ring.absorb(&rows, at(SECOND), &mut discards);
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
        let window = ring.close().unwrap();
        assert!((sm(&window, 5) - 60.0).abs() < 1e-9);
        assert_eq!(window.shares(2), Ok(EngineShares::default()), "it is of an earlier window");
        for pid in [3, 4, 6] {
            assert_eq!(window.shares(pid), Err(Missing::Invalid), "{pid}");
        }
        assert!(window.watched(|_| true).is_ok());
        assert_eq!(window.watched(|pid| pid != 4), Err(Missing::Invalid));
        ring.absorb(&[row(4, now + SECOND, 40)], at(2 * SECOND), &mut discards);
        assert!((sm(&ring.close().unwrap(), 4) - 40.0).abs() < 1e-9, "the next window is whole");
    }

    #[test]
    fn a_use_that_no_process_can_have_makes_all_of_them_unknown_for_one_window() {
        let (mut ring, mut discards) = primed();
        let rows = [row(u32::MAX, START + SECOND, 7), row(5, START + SECOND, 60)];
        ring.absorb(&rows, at(SECOND), &mut discards);
        assert!(!ring.video_idle());
        assert_eq!(ring.close(), Err(Missing::Invalid));
        ring.absorb(&[row(5, START + 2 * SECOND, 60)], at(2 * SECOND), &mut discards);
        assert!((sm(&ring.close().unwrap(), 5) - 60.0).abs() < 1e-9);
    }

    /// A driver's ring: samples of 1/6 s, handed over once a second, each naming one process's use.
    struct Driver {
        samples: Vec<(u64, u32)>,
    }

    impl Driver {
        const PERIOD: u64 = SECOND / 6;

        /// One process that works at `percent` while `busy` says so, for `seconds`.
        fn working(percent: u32, seconds: u64, busy: impl Fn(u64) -> bool) -> Self {
            let steps = 0..seconds * SECOND / Self::PERIOD;
            let sample = |at: u64| (START + at, if busy(at) { percent } else { 0 });
            Self { samples: steps.map(|step| sample(step * Self::PERIOD)).collect() }
        }

        fn read(&self, last_seen_us: u64, now_us: u64) -> Vec<UtilizationRow> {
            let handed_over = now_us / SECOND * SECOND;
            let known: Vec<_> = self.samples.iter().filter(|(at, _)| *at <= handed_over).collect();
            let ring = &known[known.len().saturating_sub(72)..];
            let asked: Vec<_> = ring.iter().filter(|(at, _)| *at > last_seen_us).collect();
            let Some(last_busy) = asked.iter().rev().find(|(_, sm)| *sm > 0) else {
                return Vec::new();
            };
            let sum: u32 = asked.iter().map(|(_, sm)| sm).sum();
            vec![row(1, last_busy.0, sum / u32::try_from(asked.len()).unwrap())]
        }

        /// What the cursor makes of it: the mean of each window of `reads` reads, `step` µs apart.
        fn observed(&self, seconds: u64, step: u64, reads: u64) -> Vec<f64> {
            let (mut ring, mut discards) = (RingCursor::default(), Discards::default());
            let mut means = Vec::new();
            for n in 0..seconds * SECOND / step {
                let now = at(n * step);
                let rows = self.read(ring.last_seen_us(now), now.wall_us);
                ring.absorb(&rows, now, &mut discards);
                if n % reads == 0
                    && let Ok(window) = ring.close()
                {
                    means.push(sm(&window, 1));
                }
            }
            assert_eq!(discards, Discards::default());
            means
        }
    }

    #[test]
    fn a_steady_load_is_told_exactly_however_it_is_read() {
        let driver = Driver::working(37, 300, |_| true);
        for (step, reads) in [(SECOND, 1), (1_300_000, 1), (5 * SECOND, 1), (5 * SECOND, 6)] {
            let means = driver.observed(300, step, reads);
            assert!(means.len() > 5);
            // The first reads meet a ring that has just begun to fill.
            assert!(means.iter().skip(2).all(|mean| (mean - 37.0).abs() < 1e-9), "{means:?}");
        }
    }

    proptest! {
        #[test]
        fn work_in_bursts_is_neither_lost_nor_counted_twice(
            on in 2_u64..40, off in 2_u64..40, step in 800_000_u64..5_000_000, reads in 1_u64..7,
        ) {
            let seconds = 600;
            let driver =
                Driver::working(100, seconds, |at| at % ((on + off) * SECOND) < on * SECOND);
            let means = driver.observed(seconds, step, reads);
            let mean = means.iter().sum::<f64>() / u32::try_from(means.len()).map(f64::from).unwrap();
            let work: u32 = driver.samples.iter().map(|(_, sm)| sm).sum();
            let truth = f64::from(work) / u32::try_from(driver.samples.len()).map(f64::from).unwrap();
            prop_assert!((mean - truth).abs() < 0.1 * truth + 1.0, "{mean} for {truth}");
        }

        #[test]
        fn no_answer_makes_a_share_that_is_not_a_percentage(
            reads in prop::collection::vec(
                (prop::collection::vec((0_u32..6, -5_i64..5, any::<u32>()), 0..8), 0_u64..4),
                1..12,
            )
        ) {
            let (mut ring, mut discards) = primed();
            let mut since = 0;
            for (rows, step) in reads {
                since += step * SECOND;
                let now = START + since;
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(pid, at, sm)| row(*pid, now.saturating_add_signed(at * 500_000), sm % 130))
                    .collect();
                let before = ring.last_seen_us(at(since));
                ring.absorb(&rows, at(since), &mut discards);
                prop_assert!(ring.last_seen_us(at(since)) >= before, "the cursor never goes back");
            }
            let window = ring.close().unwrap();
            for pid in 0..6 {
                let sm = window.shares(pid).map_or(0.0, |shares| shares.sm);
                prop_assert!((0.0..=100.0).contains(&sm), "{sm}");
            }
        }
    }
}
