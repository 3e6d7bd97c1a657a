//! Rates of the counters of each `NVLink` of a GPU.

use std::collections::BTreeMap;

use super::reading_cache::{CounterSum, rate_between};
use crate::model::{LinkFields, Missing, Moment};
use crate::nvml::probe::CounterTime;
use crate::nvml::raw::fields::{Field, FieldReading};

/// The last readings of the counters.
#[derive(Default)]
pub(super) struct LinkRates(BTreeMap<Field, CounterSum>);

impl LinkRates {
    /// Increase per second of each counter since its last reading. `returned` is when the call returned.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn update(
        &mut self,
        readings: Result<Vec<(Field, FieldReading)>, Missing>,
        returned: Moment,
    ) -> Result<LinkFields, Missing> {
        let before = std::mem::take(&mut self.0);
        let mut rates = LinkFields::new();
        for (field, FieldReading { reading, stamp_us }) in readings? {
            let rate = reading.and_then(|sum| {
                let now = CounterSum { sum, time: CounterTime { stamp_us, returned } };
                self.0.insert(field, now);
                rate_between(before.get(&field).copied(), now)
            });
            rates.entry(field.id).or_default().push((field.scope, rate));
        }
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rate_of_each_link_needs_two_readings() {
        let mut rates = LinkRates::default();
        let mut update = |at: u64, counters: &[f64]| {
            let reading = |(link, counter): (u32, &f64)| {
                let reading = FieldReading { reading: Ok(*counter), stamp_us: 0 };
                (Field::of_link(138, link), reading)
            };
            let returned = Moment { mono: Duration::from_secs(at), wall_us: at * 1_000_000 };
            let readings = Ok((0..).zip(counters).map(reading).collect());
            rates.update(readings, returned).unwrap().remove(&138).unwrap()
        };
        let pending = Err(Missing::Pending);
        assert_eq!(update(1, &[10.0, 20.0]), [(0, pending), (1, pending)]);
        assert_eq!(update(3, &[16.0, 20.0, 5.0]), [(0, Ok(3.0)), (1, Ok(0.0)), (2, pending)]);
        assert_eq!(update(4, &[1.0]), [(0, pending)], "the counter was reset");
        assert_eq!(update(5, &[2.0, 30.0]), [(0, Ok(1.0)), (1, pending)], "a link that returned");
        let gone = Moment { mono: Duration::from_secs(9), wall_us: 9 };
        assert_eq!(rates.update(Err(Missing::Lost), gone), Err(Missing::Lost));
    }
}
