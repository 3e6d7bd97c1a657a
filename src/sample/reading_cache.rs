//! Cache of the readings of one device: readings that are due are read again, others are kept.

use std::time::Duration;

use crate::catalog::DeviceSource;
use crate::catalog::unit::plausible;
use crate::model::{Missing, Reading};
use crate::nvml::probe::{CounterTime, Probe};
use crate::nvml::raw::fields::Field;
use crate::policy::{Tier, slow_tier_due};
use crate::selection::SelectedFamilies;

/// A reading and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CachedReading {
    /// The value, or the reason why it is missing.
    pub reading: Reading,
    /// When it was taken: after the call (monotonic).
    pub at: Duration,
}

/// One cached reading per row of a catalog slice, in the order of the rows; `None` for a row that
/// was not read.
#[derive(Default)]
pub struct ReadingCache {
    readings: Vec<Option<CachedReading>>,
    counters: Vec<Option<CounterSum>>,
    /// Begin of the last cycle (monotonic).
    last_cycle: Option<Duration>,
    /// Begin of the last cycle in which the rows of a tier were due (monotonic). Rows of one tier are
    /// due together, so that rows of one kind have one age.
    last_second: Option<Duration>,
    last_slow: Option<Duration>,
}

/// The tiers that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DueTiers {
    second: bool,
    slow: bool,
}

/// Sum of the counters of a rate, and when they were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterSum {
    pub(super) sum: f64,
    pub(super) time: CounterTime,
}

impl ReadingCache {
    /// Clears the cache, since the device changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The field ids of all selected rows that are due at `now` (monotonic), for one batch.
    #[must_use]
    pub fn due_fields(
        &self,
        selected: &SelectedFamilies<DeviceSource>,
        now: Duration,
    ) -> Vec<Field> {
        let tiers = self.due_tiers(now);
        let mut fields = Vec::new();
        for family in selected.all() {
            if due(self.cached(family.row), family.metric.tier, tiers) {
                let new = family.metric.source.fields().iter();
                let new: Vec<Field> =
                    new.filter(|field| !fields.contains(*field)).copied().collect();
                fields.extend(new);
            }
        }
        fields
    }

    /// Reads all selected rows that are due at `now` (monotonic), and drops rows that are not
    /// selected.
    pub fn refresh(
        &mut self,
        selected: &SelectedFamilies<DeviceSource>,
        probe: &Probe<'_>,
        now: Duration,
    ) {
        self.readings.resize(selected.row_count(), None);
        self.counters.resize(selected.row_count(), None);
        let tiers = self.due_tiers(now);
        self.last_cycle = Some(now);
        self.last_second = if tiers.second { Some(now) } else { self.last_second };
        self.last_slow = if tiers.slow { Some(now) } else { self.last_slow };
        for (row, (cached, counter)) in self.readings.iter_mut().zip(&mut self.counters).enumerate()
        {
            match selected.metric(row) {
                Some(metric) if due(*cached, metric.tier, tiers) => {
                    let reading = read(&metric.source, probe, counter)
                        .and_then(|value| plausible(metric.unit, value).ok_or(Missing::Invalid));
                    *cached = Some(CachedReading { reading, at: probe.now().mono });
                }
                Some(_) => {}
                None => (*cached, *counter) = (None, None),
            }
        }
    }

    fn due_tiers(&self, now: Duration) -> DueTiers {
        let interval = self.last_cycle.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        DueTiers {
            second: Tier::Second.due(self.last_second, now),
            slow: self.last_slow.is_none_or(|last| slow_tier_due(last, now, interval)),
        }
    }

    /// The cached readings in the order of the rows.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Option<CachedReading>> {
        self.readings.clone()
    }

    fn cached(&self, row: usize) -> Option<CachedReading> {
        self.readings.get(row).copied().flatten()
    }
}

/// Whether a reading is due. An unsupported reading is retried at the rate of the slow tier, any
/// other failed reading in the next cycle.
fn due(cached: Option<CachedReading>, tier: Tier, tiers: DueTiers) -> bool {
    match (cached.map(|cached| cached.reading), tier) {
        (Some(Ok(_)), Tier::Slow) | (Some(Err(Missing::Unsupported)), _) => tiers.slow,
        (Some(Ok(_)), Tier::Second) => tiers.second,
        (Some(Ok(_)), Tier::Cycle) | (Some(Err(_)) | None, _) => true,
    }
}

fn read(source: &DeviceSource, probe: &Probe<'_>, counter: &mut Option<CounterSum>) -> Reading {
    match source {
        DeviceSource::Field(field, convert) => probe.field(*field).and_then(convert),
        DeviceSource::Read(read) | DeviceSource::ReadOrUsage(read, _) => read(probe),
        DeviceSource::Sampled(of) => probe.sampled_utilization().map(of),
        DeviceSource::Rate(fields, convert) => rate(fields, probe, counter).map(convert),
        DeviceSource::Gpm(id, convert) => probe.gpm(*id).map(convert),
        DeviceSource::GpmOrRate(id, convert, fields, rate_convert) => match probe.gpm(*id) {
            Err(Missing::Unsupported) => rate(fields, probe, counter).map(rate_convert),
            measured => measured.map(convert),
        },
    }
}

fn rate(fields: &[Field], probe: &Probe<'_>, counter: &mut Option<CounterSum>) -> Reading {
    let mut now: Option<CounterSum> = None;
    for field in fields {
        let (value, time) = probe.counter(*field)?;
        let sum = now.map_or(0.0, |before| before.sum) + value?;
        now = Some(CounterSum { sum, time });
    }
    let now = now.ok_or(Missing::Unsupported)?;
    rate_between(counter.replace(now), now)
}

/// Rate per second between two counter sums. Pending if there is no previous sum or the counter was
/// reset.
pub(super) fn rate_between(before: Option<CounterSum>, now: CounterSum) -> Reading {
    match before {
        Some(before) if before.sum <= now.sum => {
            let elapsed = now.time.since(before.time).ok_or(Missing::Pending)?;
            Ok((now.sum - before.sum) / elapsed.as_secs_f64())
        }
        _ => Err(Missing::Pending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;

    const SECOND: Duration = Duration::from_secs(1);

    fn counter_sum(sum: f64, seconds: u32) -> CounterSum {
        let mono = SECOND * seconds;
        let returned = Moment { mono, wall_us: u64::from(seconds) * 1_000_000 };
        CounterSum { sum, time: CounterTime { stamp_us: 0, returned } }
    }

    #[test]
    fn rate_needs_two_increasing_counter_sums() {
        assert_eq!(rate_between(None, counter_sum(5.0, 1)), Err(Missing::Pending));
        assert_eq!(rate_between(Some(counter_sum(5.0, 1)), counter_sum(25.0, 5)), Ok(5.0));
        assert_eq!(rate_between(Some(counter_sum(5.0, 1)), counter_sum(5.0, 2)), Ok(0.0));
        assert_eq!(
            rate_between(Some(counter_sum(5.0, 1)), counter_sum(4.0, 2)),
            Err(Missing::Pending),
            "reset"
        );
        assert_eq!(
            rate_between(Some(counter_sum(5.0, 1)), counter_sum(6.0, 1)),
            Err(Missing::Pending),
            "no time between the sums"
        );
    }

    #[test]
    fn rows_of_one_tier_are_due_together() {
        let mut cache = ReadingCache::default();
        let mut read_at = |at: Duration| {
            let tiers = cache.due_tiers(at);
            cache.last_cycle = Some(at);
            cache.last_second = if tiers.second { Some(at) } else { cache.last_second };
            cache.last_slow = if tiers.slow { Some(at) } else { cache.last_slow };
            (tiers.second, tiers.slow)
        };
        assert_eq!(read_at(SECOND), (true, true));
        assert_eq!(read_at(SECOND * 3 / 2), (false, false));
        assert_eq!(read_at(SECOND * 199 / 100), (true, false), "the cycle before was late");
        assert_eq!(read_at(SECOND * 5), (true, false));
        assert_eq!(read_at(SECOND * 9), (true, true), "in the next cycle they would be too old");
    }

    #[test]
    fn failed_reading_is_retried_and_an_unsupported_one_rarely() {
        let cached = |reading| Some(CachedReading { reading, at: SECOND });
        let neither = DueTiers { second: false, slow: false };
        let slow = DueTiers { second: false, slow: true };
        assert!(due(None, Tier::Slow, neither));
        assert!(due(cached(Ok(1.0)), Tier::Cycle, neither));
        assert!(!due(cached(Ok(1.0)), Tier::Second, slow));
        assert!(!due(cached(Ok(1.0)), Tier::Slow, neither));
        assert!(!due(cached(Err(Missing::Unsupported)), Tier::Cycle, neither));
        assert!(due(cached(Err(Missing::Unsupported)), Tier::Cycle, slow));
        assert!(due(cached(Err(Missing::Failed(999))), Tier::Slow, neither));
    }
}
