//! The ring of utilization samples that the driver keeps for each GPU.

use std::collections::BTreeMap;

use crate::{
    clock::Now,
    code::{Answer, Code},
    number::{float, floor_u32, floor_u64, round_u32},
    world::load::Load,
};

/// Samples in a ring.
pub(crate) const DEPTH: u64 = 72;

/// What the ring tells of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Process id.
    pub(crate) pid: u32,
    /// Wall clock of its own last busy sample, in µs.
    pub(crate) stamp: u64,
    /// Mean of the SM, in percent, over all samples asked for, idle ones too.
    pub(crate) sm: u32,
    /// The same of the memory controller.
    pub(crate) mem: u32,
    /// The same of the encoder.
    pub(crate) enc: u32,
    /// The same of the decoder.
    pub(crate) dec: u32,
    /// The same of the JPEG decoder.
    pub(crate) jpg: u32,
    /// The same of the optical flow accelerator.
    pub(crate) ofa: u32,
}

/// When and since when a ring has been sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    /// Seconds between two samples.
    pub(crate) period: f64,
    /// World time at which the driver was loaded: no sample is older.
    pub(crate) since: f64,
}

impl Ring {
    /// One row per process that was busy in a sample newer than `last_seen` (wall µs), by pid.
    ///
    /// `loads(time, tell)` tells the load of each process that runs at a world time. A held world
    /// has had its present state for ever.
    ///
    /// # Errors
    /// `NOT_FOUND` when no process was busy.
    pub(crate) fn rows(
        self,
        now: Now,
        last_seen: u64,
        loads: impl Fn(f64, &mut dyn FnMut(u32, Load)),
    ) -> Answer<Vec<Row>> {
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
            return Err(Code::NOT_FOUND);
        }
        Ok(sums.into_iter().map(|(pid, (stamp, sum))| row(pid, stamp, sum, samples)).collect())
    }

    /// The stamp (wall µs) and world time of each sample, oldest first. Stamps lie on the grid of
    /// the period, whatever world time does.
    pub(crate) fn samples(self, now: Now) -> impl Iterator<Item = (u64, f64)> {
        let period = u64::from(round_u32(self.period * 1e6)).max(1);
        let newest = now.wall / period;
        (newest.saturating_sub(DEPTH - 1)..=newest)
            .map(move |step| step * period)
            .map(move |stamp| (stamp, if now.held { now.world } else { world_at(now, stamp) }))
            .filter(move |sample| sample.1 >= self.since)
    }
}

/// The stamp (wall µs) of a moment `age` seconds ago, or to come if it is negative.
pub(crate) fn stamp_of_age(now: Now, age: f64) -> u64 {
    floor_u64((float(now.wall) - age * 1e6).max(0.0))
}

fn world_at(now: Now, stamp: u64) -> f64 {
    now.world - float(now.wall.saturating_sub(stamp)) / 1e6
}

fn row(pid: u32, stamp: u64, sum: Load, samples: u64) -> Row {
    // Rounded down, as integers divide: the rows of a full engine must not sum to more than 100.
    let mean = |sum: f64| floor_u32(sum / float(samples));
    Row {
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

    const RING: Ring = Ring { period: 0.1, since: f64::NEG_INFINITY };
    /// A whole second, so that the newest sample is taken at that very moment.
    const NOW: Now = Now { real: 50.0, wall: 1_000_000_000, world: 50.0, held: false };

    fn sm(sm: f64) -> Load {
        Load { sm, ..Load::default() }
    }

    #[test]
    fn nothing_busy_is_not_found() {
        assert_eq!(RING.rows(NOW, 0, |_, _| ()), Err(Code::NOT_FOUND));
        assert_eq!(RING.rows(NOW, 0, |_, tell| tell(7, sm(0.0))), Err(Code::NOT_FOUND));
        assert_eq!(RING.rows(NOW, NOW.wall, |_, tell| tell(7, sm(9.0))), Err(Code::NOT_FOUND));
    }

    #[test]
    fn one_row_a_process_with_the_mean_over_all_samples() {
        // 7 works at 80 % in the last second only: ten of the twenty samples asked for.
        let rows = RING.rows(NOW, NOW.wall - 2_000_000, |time, tell| {
            tell(9, sm(30.0));
            tell(7, sm(if time > 49.05 { 80.0 } else { 0.0 }));
        });
        let found: Vec<_> = rows.unwrap().iter().map(|row| (row.pid, row.sm, row.stamp)).collect();
        assert_eq!(found, [(7, 40, NOW.wall), (9, 30, NOW.wall)]);
    }

    #[test]
    fn a_dead_process_stays_until_it_leaves_the_ring() {
        let loads = |time: f64, tell: &mut dyn FnMut(u32, Load)| {
            if time < 45.0 {
                tell(7, sm(100.0));
            }
        };
        let rows = RING.rows(NOW, 0, loads).unwrap();
        assert_eq!(rows.first().unwrap().stamp, NOW.wall - 5_100_000);
        let after = Now { wall: NOW.wall + 3_000_000, world: 53.0, ..NOW };
        assert_eq!(RING.rows(after, 0, loads), Err(Code::NOT_FOUND));
    }

    #[test]
    fn a_cursor_older_than_the_ring_gets_the_whole_ring() {
        let loads = |time: f64, tell: &mut dyn FnMut(u32, Load)| tell(7, sm(time));
        let whole = RING.rows(NOW, 0, loads);
        assert_eq!(whole, RING.rows(NOW, NOW.wall - 60_000_000, loads));
        assert_ne!(whole, RING.rows(NOW, NOW.wall - 1_000_000, loads));
    }

    #[test]
    fn a_held_world_has_a_constant_history_and_a_new_stamp_each_period() {
        let mut now = Now { held: true, ..NOW };
        let loads = |time: f64, tell: &mut dyn FnMut(u32, Load)| tell(7, sm(time));
        let first = *RING.rows(now, 0, loads).unwrap().first().unwrap();
        assert_eq!((first.sm, first.stamp), (50, now.wall));
        now.wall += 99_999;
        assert_eq!(RING.rows(now, first.stamp, loads), Err(Code::NOT_FOUND));
        now.wall += 1;
        let next = *RING.rows(now, first.stamp, loads).unwrap().first().unwrap();
        assert_eq!((next.sm, next.stamp), (50, first.stamp + 100_000));
    }

    #[test]
    fn a_reloaded_driver_begins_an_empty_ring() {
        let fresh = Ring { since: 50.0, ..RING };
        let rows = fresh.rows(NOW, 0, |_, tell| tell(7, sm(60.0))).unwrap();
        assert_eq!(rows.first().unwrap().sm, 60);
        let unborn = Ring { since: 50.1, ..RING };
        assert_eq!(unborn.rows(NOW, 0, |_, tell| tell(7, sm(60.0))), Err(Code::NOT_FOUND));
    }

    #[test]
    fn a_stamp_may_be_old_or_to_come() {
        assert_eq!(stamp_of_age(NOW, 2.5), NOW.wall - 2_500_000);
        assert_eq!(stamp_of_age(NOW, -1.0), NOW.wall + 1_000_000);
        assert_eq!(stamp_of_age(NOW, 1e9), 0);
    }
}
