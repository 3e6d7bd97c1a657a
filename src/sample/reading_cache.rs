//! Cache of the readings of one device: readings that are due are read again, others are kept.

use std::time::Duration;

use crate::catalog::DeviceSource;
use crate::catalog::unit::max_plausible;
use crate::model::{Missing, Reading};
use crate::nvml::probe::{CounterTime, Probe};
use crate::nvml::raw::fields::Field;
use crate::policy::Tier;
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
    video_idle: bool,
    counters: Vec<Option<CounterSum>>,
}

/// Sum of the counters of a rate, and when they were read.
#[derive(Clone, Copy, Debug)]
struct CounterSum {
    sum: f64,
    time: CounterTime,
}

impl ReadingCache {
    /// Clears the cache, since the device changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sets whether the video engines are known to be idle.
    pub fn set_video_idle(&mut self, idle: bool) {
        self.video_idle = idle;
    }

    /// The field ids of all selected rows that are due at `now` (monotonic), for one batch.
    #[must_use]
    pub fn due_fields(
        &self,
        selected: &SelectedFamilies<DeviceSource>,
        now: Duration,
    ) -> Vec<Field> {
        let mut fields = Vec::new();
        for family in selected.families() {
            if self.due(self.cached(family.row), family.metric.tier, now) {
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
        let idle = self.video_idle;
        for (row, (cached, counter)) in self.readings.iter_mut().zip(&mut self.counters).enumerate()
        {
            match selected.metric(row) {
                Some(metric) if due(*cached, metric.tier, idle, now) => {
                    let reading = read(&metric.source, probe, counter)
                        .and_then(|value| check_plausible(metric.unit, value));
                    *cached = Some(CachedReading { reading, at: probe.now().mono });
                }
                Some(_) => {}
                None => (*cached, *counter) = (None, None),
            }
        }
    }

    fn due(&self, cached: Option<CachedReading>, tier: Tier, now: Duration) -> bool {
        due(cached, tier, self.video_idle, now)
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
fn due(cached: Option<CachedReading>, tier: Tier, video_idle: bool, now: Duration) -> bool {
    match cached {
        Some(CachedReading { reading: Ok(0.0), at }) if tier == Tier::Video && video_idle => {
            Tier::Slow.due(Some(at), now)
        }
        Some(CachedReading { reading: Ok(_), at }) => tier.due(Some(at), now),
        Some(CachedReading { reading: Err(Missing::Unsupported), at }) => {
            Tier::Slow.due(Some(at), now)
        }
        None | Some(CachedReading { reading: Err(_), .. }) => true,
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
fn rate_between(before: Option<CounterSum>, now: CounterSum) -> Reading {
    match before {
        Some(before) if before.sum <= now.sum => {
            let elapsed = now.time.since(before.time).ok_or(Missing::Pending)?;
            Ok((now.sum - before.sum) / elapsed.as_secs_f64())
        }
        _ => Err(Missing::Pending),
    }
}

/// Rejects values above the maximum of their unit: drivers set all bits for an unknown value.
fn check_plausible(unit: &str, value: f64) -> Reading {
    if value.is_finite() && value <= max_plausible(unit) {
        Ok(value)
    } else {
        Err(Missing::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;
    use crate::policy::SLOW_TIER;

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
    fn all_bits_set_is_invalid() {
        let ones = f64::from(u32::MAX);
        for (unit, value) in [("W", ones / 1000.0), ("Hz", ones * 1e6), ("count", ones)] {
            assert_eq!(check_plausible(unit, value), Err(Missing::Invalid), "{unit}");
            assert_eq!(check_plausible(unit, 700.0), Ok(700.0), "{unit}");
        }
        assert_eq!(check_plausible("bitmask", 18_446_744_073_709_551_615.0), Err(Missing::Invalid));
        assert_eq!(check_plausible("mJ", 1e15), Ok(1e15));
        assert_eq!(check_plausible("%", f64::INFINITY), Err(Missing::Invalid));
    }

    #[test]
    fn unsupported_reading_is_retried_rarely() {
        let cached = |reading| Some(CachedReading { reading, at: SECOND });
        let due = |cached, tier, now| due(cached, tier, false, now);
        assert!(due(None, Tier::Slow, SECOND));
        assert!(due(cached(Ok(1.0)), Tier::Cycle, 2 * SECOND));
        assert!(!due(cached(Ok(1.0)), Tier::Slow, 2 * SECOND));
        assert!(!due(cached(Err(Missing::Unsupported)), Tier::Cycle, 2 * SECOND));
        assert!(due(cached(Err(Missing::Unsupported)), Tier::Cycle, SECOND + SLOW_TIER));
        assert!(due(cached(Err(Missing::Failed(999))), Tier::Slow, 2 * SECOND));
    }

    #[test]
    fn idle_video_engines_are_read_rarely() {
        let due = |reading, idle, at| {
            due(Some(CachedReading { reading, at: SECOND }), Tier::Video, idle, at)
        };
        assert!(!due(Ok(0.0), true, 2 * SECOND));
        assert!(due(Ok(0.0), true, SECOND + SLOW_TIER));
        assert!(due(Ok(0.0), false, 2 * SECOND), "in use or unknown");
        assert!(due(Ok(5.0), true, 2 * SECOND), "not idle at the last read");
    }
}
