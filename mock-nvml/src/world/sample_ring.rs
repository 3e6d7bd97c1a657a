//! The ring buffer of utilization samples that the driver keeps for each GPU.

use std::collections::BTreeMap;

use crate::{
    clock::Now,
    numeric::{float, floor_u32, floor_u64, round_u32},
    return_code::{NvmlResult, ReturnCode},
    scenario::samples::SampleTiming,
    world::load::Load,
};

/// Capacity of the buffer, in samples.
pub(crate) const CAPACITY: u64 = 72;

/// The utilization of one process (`nvmlProcessUtilizationSample_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UtilizationRow {
    /// Process id.
    pub(crate) pid: u32,
    /// Time stamp of the process's last busy sample (wall clock, µs).
    pub(crate) stamp: u64,
    /// Mean SM utilization in percent over all samples requested, including idle ones.
    pub(crate) sm: u32,
    /// Mean of the memory controller.
    pub(crate) mem: u32,
    /// Mean of the encoder.
    pub(crate) enc: u32,
    /// Mean of the decoder.
    pub(crate) dec: u32,
    /// Mean of the JPEG decoder.
    pub(crate) jpg: u32,
    /// Mean of the optical flow engine.
    pub(crate) ofa: u32,
}

/// Sampling period and start of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleRing<'a> {
    /// Seconds between two samples.
    pub(crate) period: f64,
    /// World time at which the driver was loaded: no sample is older.
    pub(crate) since: f64,
    /// Delivery and clock of the samples.
    pub(crate) timing: &'a SampleTiming,
}

impl SampleRing<'_> {
    /// One row per process that was busy in a sample newer than `last_seen` (wall µs), by pid.
    ///
    /// `loads(time, emit)` passes the load of each process that runs at a world time to `emit`.
    /// With fixed world time, all samples have the present state.
    ///
    /// # Errors
    /// `NOT_FOUND` when no process was busy.
    pub(crate) fn rows(
        self,
        now: Now,
        last_seen: u64,
        loads: impl Fn(f64, &mut dyn FnMut(u32, Load)),
    ) -> NvmlResult<Vec<UtilizationRow>> {
        let mut samples = 0_u64;
        let mut sums = BTreeMap::<u32, (u64, Load)>::new();
        for (stamp, time) in self.samples(now).filter(|sample| sample.0 > last_seen) {
            samples += 1;
            loads(time, &mut |pid, load| {
                if load.is_busy() {
                    let sum = sums.entry(pid).or_default();
                    *sum = (stamp, sum.1 + load);
                }
            });
        }
        if sums.is_empty() {
            return Err(ReturnCode::NOT_FOUND);
        }
        Ok(sums.into_iter().map(|(pid, (stamp, sum))| row(pid, stamp, sum, samples)).collect())
    }

    /// Time stamp (wall clock, µs) and world time of each sample, oldest first. Time stamps are
    /// multiples of the period, also if world time is fixed.
    pub(crate) fn samples(self, now: Now) -> impl Iterator<Item = (u64, f64)> {
        let period = u64::from(round_u32(self.period * 1e6)).max(1);
        let delivery = u64::from(round_u32(self.timing.delivery * 1e6)).max(1);
        let newest = now.wall / delivery * delivery / period;
        (newest.saturating_sub(CAPACITY - 1)..=newest)
            .map(move |step| step * period)
            .map(move |taken| (taken, if now.fixed { now.world } else { world_at(now, taken) }))
            .filter(move |sample| sample.1 >= self.since)
            .map(move |(taken, world)| (self.timing.stamp(taken, world), world))
    }
}

/// The time stamp (wall clock, µs) of `age` seconds ago; a negative age is in the future.
pub(crate) fn stamp_of_age(now: Now, age: f64) -> u64 {
    floor_u64((float(now.wall) - age * 1e6).max(0.0))
}

fn world_at(now: Now, stamp: u64) -> f64 {
    now.world - float(now.wall.saturating_sub(stamp)) / 1e6
}

fn row(pid: u32, stamp: u64, sum: Load, samples: u64) -> UtilizationRow {
    // Rounded down: the rows of a fully used engine must not sum to more than 100.
    let mean = |sum: f64| floor_u32(sum / float(samples));
    UtilizationRow {
        pid,
        stamp,
        sm: mean(sum.sm),
        mem: mean(sum.mem),
        enc: mean(sum.enc),
        dec: mean(sum.dec),
        jpg: mean(sum.jpg),
        ofa: mean(sum.ofa),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: &SampleTiming = &SampleTiming { period: None, delivery: 0.0, clock: Vec::new() };
    const RING: SampleRing = SampleRing { period: 0.1, since: f64::NEG_INFINITY, timing: AT_ONCE };
    /// A whole second, so that the newest sample is taken at exactly this time.
    const NOW: Now = Now { real: 50.0, wall: 1_000_000_000, world: 50.0, fixed: false };

    fn sm(sm: f64) -> Load {
        Load { sm, ..Load::default() }
    }

    #[test]
    fn not_found_if_no_process_is_busy() {
        assert_eq!(RING.rows(NOW, 0, |_, _| ()), Err(ReturnCode::NOT_FOUND));
        assert_eq!(RING.rows(NOW, 0, |_, emit| emit(7, sm(0.0))), Err(ReturnCode::NOT_FOUND));
        assert_eq!(
            RING.rows(NOW, NOW.wall, |_, emit| emit(7, sm(9.0))),
            Err(ReturnCode::NOT_FOUND)
        );
    }

    #[test]
    fn each_process_has_one_row_with_the_mean_over_all_samples() {
        // Process 7 is busy in the last second only: in ten of the twenty samples requested.
        let rows = RING.rows(NOW, NOW.wall - 2_000_000, |time, emit| {
            emit(9, sm(30.0));
            emit(7, sm(if time > 49.05 { 80.0 } else { 0.0 }));
        });
        let found: Vec<_> = rows.unwrap().iter().map(|row| (row.pid, row.sm, row.stamp)).collect();
        assert_eq!(found, [(7, 40, NOW.wall), (9, 30, NOW.wall)]);
    }

    #[test]
    fn ended_process_is_listed_while_its_samples_are_buffered() {
        let loads = |time: f64, emit: &mut dyn FnMut(u32, Load)| {
            if time < 45.0 {
                emit(7, sm(100.0));
            }
        };
        let rows = RING.rows(NOW, 0, loads).unwrap();
        assert_eq!(rows.first().unwrap().stamp, NOW.wall - 5_100_000);
        let after = Now { wall: NOW.wall + 3_000_000, world: 53.0, ..NOW };
        assert_eq!(RING.rows(after, 0, loads), Err(ReturnCode::NOT_FOUND));
    }

    #[test]
    fn cursor_older_than_the_buffer_returns_the_whole_buffer() {
        let loads = |time: f64, emit: &mut dyn FnMut(u32, Load)| emit(7, sm(time));
        let whole = RING.rows(NOW, 0, loads);
        assert_eq!(whole, RING.rows(NOW, NOW.wall - 60_000_000, loads));
        assert_ne!(whole, RING.rows(NOW, NOW.wall - 1_000_000, loads));
    }

    #[test]
    fn fixed_world_time_has_constant_history_and_a_new_stamp_each_period() {
        let mut now = Now { fixed: true, ..NOW };
        let loads = |time: f64, emit: &mut dyn FnMut(u32, Load)| emit(7, sm(time));
        let first = *RING.rows(now, 0, loads).unwrap().first().unwrap();
        assert_eq!((first.sm, first.stamp), (50, now.wall));
        now.wall += 99_999;
        assert_eq!(RING.rows(now, first.stamp, loads), Err(ReturnCode::NOT_FOUND));
        now.wall += 1;
        let next = *RING.rows(now, first.stamp, loads).unwrap().first().unwrap();
        assert_eq!((next.sm, next.stamp), (50, first.stamp + 100_000));
    }

    #[test]
    fn reloaded_driver_starts_with_an_empty_buffer() {
        let reloaded = SampleRing { since: 50.0, ..RING };
        let rows = reloaded.rows(NOW, 0, |_, emit| emit(7, sm(60.0))).unwrap();
        assert_eq!(rows.first().unwrap().sm, 60);
        let later = SampleRing { since: 50.1, ..RING };
        assert_eq!(later.rows(NOW, 0, |_, emit| emit(7, sm(60.0))), Err(ReturnCode::NOT_FOUND));
    }

    #[test]
    fn samples_are_delivered_together_with_the_stamps_of_the_drivers_clock() {
        let timing =
            SampleTiming { period: None, delivery: 1.0, clock: vec![(0.0, 1.5), (50.0, -3.0)] };
        let ring = SampleRing { timing: &timing, ..RING };
        let later = Now { wall: NOW.wall + 900_000, world: 50.9, ..NOW };
        let newest = |now| ring.samples(now).last().unwrap().0;
        assert_eq!(newest(NOW), NOW.wall - 3_000_000, "the clock was set back at 50 s");
        assert_eq!(newest(later), NOW.wall - 3_000_000, "nothing is delivered before 51 s");
        let before = ring.samples(NOW).nth(70).unwrap().0;
        assert_eq!(before, NOW.wall - 100_000 + 1_500_000);
    }

    #[test]
    fn stamp_may_be_in_the_past_or_future() {
        assert_eq!(stamp_of_age(NOW, 2.5), NOW.wall - 2_500_000);
        assert_eq!(stamp_of_age(NOW, -1.0), NOW.wall + 1_000_000);
        assert_eq!(stamp_of_age(NOW, 1e9), 0);
    }
}
