//! The clock of the rows, compared with that of the samples of the GPU. Usually it is one clock.

use super::row::newest_plausible;
use crate::model::micros;
use crate::nvml::raw::utilization::UtilizationRow;
use crate::policy::CLOCK_AGREEMENT;

/// Converts stamps of samples (`nvmlDeviceGetSamples`) to the clock of the rows
/// (`nvmlDeviceGetProcessUtilization`).
///
/// The last busy sample of the GPU has the same time as the newest row. If their stamps differ, either the clocks do,
/// or the GPU was used without a row since. With different clocks the difference stays, while both stamps advance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowClock {
    agreement: Agreement,
    /// Clock of the rows minus that of the samples, µs; one clock until it is seen.
    shift_us: i64,
    /// The difference of the stamps when they were last compared, if it was not `shift_us`.
    candidate: Option<Difference>,
}

/// Whether the shift is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Agreement {
    /// The GPU has not been busy yet.
    #[default]
    Unknown,
    /// The last busy sample and a row have the same time.
    Same,
    /// They do not.
    Different,
}

/// A stamp of a row minus that of the last busy sample.
#[derive(Clone, Copy, Debug)]
struct Difference {
    shift_us: i64,
    busy_us: u64,
}

impl RowClock {
    /// The time of a sample in the clock of the rows.
    pub(super) fn time_of(&self, sample_us: u64) -> u64 {
        sample_us.saturating_add_signed(self.shift_us)
    }

    /// Whether samples were seen to have the time of rows.
    pub(super) fn is_known(&self) -> bool {
        self.agreement == Agreement::Same
    }

    /// Whether samples do not have the time of rows: their stamps cannot be converted.
    pub(super) fn is_different(&self) -> bool {
        self.agreement == Agreement::Different
    }

    /// Compares the last busy sample since a read with the newest row since then. False if their stamps differ and
    /// never were the same: the clocks may differ.
    pub(super) fn agrees(&mut self, busy_us: Option<u64>, row_us: Option<u64>) -> bool {
        let Some((busy_us, row_us)) = busy_us.zip(row_us) else { return true };
        if is_same_time(self.time_of(busy_us), row_us) {
            self.agreement = Agreement::Same;
        }
        self.is_known()
    }

    /// Compares the last busy sample of the buffer with all rows of the buffer.
    pub(super) fn compare(&mut self, busy_us: Option<u64>, rows: &[UtilizationRow]) {
        let (Some(busy_us), Some(row_us)) = (busy_us, newest_plausible(rows)) else {
            self.agreement = Agreement::Unknown;
            return;
        };
        let fits = |shift_us: i64| {
            let busy_us = busy_us.saturating_add_signed(shift_us);
            rows.iter().any(|row| is_same_time(busy_us, row.stamp_us))
        };
        let again = self.candidate.filter(|seen| seen.is_before(busy_us) && fits(seen.shift_us));
        if let Some(seen) = again.filter(|_| !fits(self.shift_us)) {
            self.shift_us = seen.shift_us;
        }
        if fits(self.shift_us) {
            (self.agreement, self.candidate) = (Agreement::Same, None);
            return;
        }
        let shift_us = i64::try_from(i128::from(row_us) - i128::from(busy_us)).unwrap_or_default();
        self.agreement = Agreement::Different;
        self.candidate = Some(Difference { shift_us, busy_us });
    }

    /// Whether a comparison now can find the difference of the clocks.
    pub(super) fn can_learn(&self, busy_us: Option<u64>) -> bool {
        self.candidate.zip(busy_us).is_some_and(|(seen, busy_us)| seen.is_before(busy_us))
    }
}

impl Difference {
    /// Whether the last busy sample is another one now.
    fn is_before(&self, busy_us: u64) -> bool {
        busy_us > self.busy_us + micros(CLOCK_AGREEMENT)
    }
}

/// Whether two stamps can be those of one sample.
fn is_same_time(one_us: u64, other_us: u64) -> bool {
    one_us.abs_diff(other_us) <= micros(CLOCK_AGREEMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn rows(seconds: &[u64]) -> Vec<UtilizationRow> {
        let row =
            |at: &u64| UtilizationRow { pid: 7, stamp_us: at * SECOND, percent: [1, 0, 0, 0] };
        seconds.iter().map(row).collect()
    }

    #[test]
    fn shift_is_that_of_two_comparisons() {
        let mut clock = RowClock::default();
        clock.compare(Some(100 * SECOND), &rows(&[90, 97]));
        assert!(clock.is_different() && !clock.can_learn(Some(100 * SECOND)));
        assert!(clock.can_learn(Some(130 * SECOND)));
        clock.compare(Some(130 * SECOND), &rows(&[127]));
        assert!(clock.is_known());
        assert_eq!(clock.time_of(140 * SECOND), 137 * SECOND);
    }

    #[test]
    fn use_without_a_row_is_no_shift() {
        let mut clock = RowClock::default();
        for busy in 100..110 {
            clock.compare(Some(busy * SECOND), &rows(&[97]));
            assert!(clock.is_different(), "{clock:?}");
        }
        // One clock as soon as it is seen.
        clock.compare(Some(110 * SECOND), &rows(&[97, 110]));
        assert!(clock.is_known());
        assert_eq!(clock.time_of(SECOND), SECOND);
    }

    #[test]
    fn clocks_of_an_idle_gpu_are_not_known() {
        let mut clock = RowClock::default();
        clock.compare(None, &rows(&[97]));
        clock.compare(Some(SECOND), &[]);
        assert!(!clock.is_known() && !clock.is_different());
    }
}
