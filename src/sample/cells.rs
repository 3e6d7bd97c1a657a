//! The readings of one device from cycle to cycle: what is due is read anew, what is not is kept.

use std::time::Duration;

use crate::catalog::DeviceSource;
use crate::catalog::unit::most;
use crate::model::{Missing, Reading};
use crate::nvml::probe::Probe;
use crate::nvml::raw::fields::Field;
use crate::policy::Tier;
use crate::selection::Chosen;

/// One reading and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The number, or why there is none.
    pub reading: Reading,
    /// Monotonic time at which the device was asked.
    pub at: Duration,
}

/// One cell per row of a slice of the catalogue, none for a row that was not read.
#[derive(Default)]
pub struct Cells {
    read: Vec<Option<Cell>>,
    video_idle: bool,
    counts: Vec<Option<Count>>,
}

/// What a rate's fields summed up to, and when.
#[derive(Clone, Copy, Debug)]
struct Count {
    sum: f64,
    at: Duration,
}

impl Cells {
    /// Forgets everything: the device is another than before.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes down whether nobody has used the video engines lately, as far as that is known.
    pub fn video_idle(&mut self, idle: bool) {
        self.video_idle = idle;
    }

    /// The fields of all rows that are chosen and due at `now` (monotonic), for one batch.
    #[must_use]
    pub fn due_fields(&self, chosen: &Chosen<DeviceSource>, now: Duration) -> Vec<Field> {
        let mut fields = Vec::new();
        for family in chosen.families() {
            if self.due(self.cell(family.row), family.metric.tier, now) {
                let new = family.metric.source.fields().iter();
                let new: Vec<Field> =
                    new.filter(|field| !fields.contains(*field)).copied().collect();
                fields.extend(new);
            }
        }
        fields
    }

    /// Reads every row that is chosen and due at `now` (monotonic), and forgets those that are not
    /// chosen.
    pub fn read(&mut self, chosen: &Chosen<DeviceSource>, probe: &Probe<'_>, now: Duration) {
        self.read.resize(chosen.slice_len(), None);
        self.counts.resize(chosen.slice_len(), None);
        let idle = self.video_idle;
        for (row, (cell, count)) in self.read.iter_mut().zip(&mut self.counts).enumerate() {
            match chosen.metric(row) {
                Some(metric) if due(*cell, metric.tier, idle, now) => {
                    let reading = read(&metric.source, probe, count, now)
                        .and_then(|value| believed(metric.unit, value));
                    *cell = Some(Cell { reading, at: now });
                }
                Some(_) => {}
                None => (*cell, *count) = (None, None),
            }
        }
    }

    fn due(&self, cell: Option<Cell>, tier: Tier, now: Duration) -> bool {
        due(cell, tier, self.video_idle, now)
    }

    /// The cells in the order of their rows.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Option<Cell>> {
        self.read.clone()
    }

    fn cell(&self, row: usize) -> Option<Cell> {
        self.read.get(row).copied().flatten()
    }
}

/// What a device does not have is asked for as rarely as what moves slowly; any other reading that
/// failed is asked for again at once.
fn due(cell: Option<Cell>, tier: Tier, video_idle: bool, now: Duration) -> bool {
    match cell {
        Some(Cell { reading: Ok(0.0), at }) if tier == Tier::Video && video_idle => {
            Tier::Slow.due(Some(at), now)
        }
        Some(Cell { reading: Ok(_), at }) => tier.due(Some(at), now),
        Some(Cell { reading: Err(Missing::Unsupported), at }) => Tier::Slow.due(Some(at), now),
        None | Some(Cell { reading: Err(_), .. }) => true,
    }
}

fn read(
    source: &DeviceSource,
    probe: &Probe<'_>,
    count: &mut Option<Count>,
    now: Duration,
) -> Reading {
    match source {
        DeviceSource::Field(field, convert) => probe.field(*field).and_then(convert),
        DeviceSource::Read(read) => read(probe),
        DeviceSource::Rate(fields, convert) => rate(fields, probe, count, now).map(convert),
        DeviceSource::Gpm(id, convert) => probe.gpm(*id).map(convert),
        DeviceSource::GpmOrRate(id, convert, fields, rate_convert) => match probe.gpm(*id) {
            Err(Missing::Unsupported) => rate(fields, probe, count, now).map(rate_convert),
            measured => measured.map(convert),
        },
    }
}

fn rate(fields: &[Field], probe: &Probe<'_>, count: &mut Option<Count>, now: Duration) -> Reading {
    let sum = fields.iter().map(|field| probe.field(*field)).sum::<Reading>()?;
    growth(count.replace(Count { sum, at: now }), Count { sum, at: now })
}

/// Growth a second from one count to the next. A counter that has gone back was reset: how much it
/// grew is not known.
fn growth(before: Option<Count>, now: Count) -> Reading {
    match before {
        Some(before) if before.at < now.at && before.sum <= now.sum => {
            Ok((now.sum - before.sum) / now.at.saturating_sub(before.at).as_secs_f64())
        }
        _ => Err(Missing::Pending),
    }
}

/// A number, unless it is more than any board has of its unit: drivers set all bits where they know
/// nothing.
fn believed(unit: &str, value: f64) -> Reading {
    if value.is_finite() && value <= most(unit) { Ok(value) } else { Err(Missing::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SLOW_TIER;

    const SECOND: Duration = Duration::from_secs(1);

    fn count(sum: f64, seconds: u32) -> Count {
        Count { sum, at: SECOND * seconds }
    }

    #[test]
    fn a_rate_needs_two_counts_that_grow() {
        assert_eq!(growth(None, count(5.0, 1)), Err(Missing::Pending));
        assert_eq!(growth(Some(count(5.0, 1)), count(25.0, 5)), Ok(5.0));
        assert_eq!(growth(Some(count(5.0, 1)), count(5.0, 2)), Ok(0.0));
        assert_eq!(growth(Some(count(5.0, 1)), count(4.0, 2)), Err(Missing::Pending), "reset");
        assert_eq!(growth(Some(count(5.0, 1)), count(6.0, 1)), Err(Missing::Pending), "no time");
    }

    #[test]
    fn a_number_with_all_bits_set_is_none() {
        let ones = f64::from(u32::MAX);
        for (unit, told) in [("W", ones / 1000.0), ("Hz", ones * 1e6), ("count", ones)] {
            assert_eq!(believed(unit, told), Err(Missing::Invalid), "{unit}");
            assert_eq!(believed(unit, 700.0), Ok(700.0), "{unit}");
        }
        assert_eq!(believed("bitmask", 18_446_744_073_709_551_615.0), Err(Missing::Invalid));
        assert_eq!(believed("mJ", 1e15), Ok(1e15));
        assert_eq!(believed("%", f64::INFINITY), Err(Missing::Invalid));
    }

    #[test]
    fn what_is_not_there_is_not_asked_for_each_time() {
        let cell = |reading| Some(Cell { reading, at: SECOND });
        let due = |cell, tier, now| due(cell, tier, false, now);
        assert!(due(None, Tier::Slow, SECOND));
        assert!(due(cell(Ok(1.0)), Tier::Cycle, 2 * SECOND));
        assert!(!due(cell(Ok(1.0)), Tier::Slow, 2 * SECOND));
        assert!(!due(cell(Err(Missing::Unsupported)), Tier::Cycle, 2 * SECOND));
        assert!(due(cell(Err(Missing::Unsupported)), Tier::Cycle, SECOND + SLOW_TIER));
        assert!(due(cell(Err(Missing::Failed(999))), Tier::Slow, 2 * SECOND));
    }

    #[test]
    fn video_engines_are_asked_rarely_while_nobody_uses_them() {
        let due =
            |reading, idle, at| due(Some(Cell { reading, at: SECOND }), Tier::Video, idle, at);
        assert!(!due(Ok(0.0), true, 2 * SECOND));
        assert!(due(Ok(0.0), true, SECOND + SLOW_TIER));
        assert!(due(Ok(0.0), false, 2 * SECOND), "somebody uses them, or that is not known");
        assert!(due(Ok(5.0), true, 2 * SECOND), "until they are told to be idle");
    }
}
