//! History of a GPU's clock event reasons.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{CLOCK_EVENTS, ClockEventCounts, Missing};

/// Samples of one GPU's clock event reasons.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockEventHistory {
    samples: VecDeque<(Duration, u64)>,
    onsets: [u64; CLOCK_EVENTS.len()],
    seen: u64,
    last: Option<Result<u64, Missing>>,
}

impl ClockEventHistory {
    /// Records the bits sampled at `at` (monotonic). A sample that is not newer than the last one
    /// is ignored. After a failed sample the previous state is unknown, so the next one counts no
    /// onset.
    pub(super) fn record(&mut self, bits: Result<u64, Missing>, at: Duration, window: Duration) {
        if self.samples.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        if let (Ok(now), Some(Ok(before))) = (bits, self.last) {
            for (count, (_, bit)) in self.onsets.iter_mut().zip(CLOCK_EVENTS) {
                *count += u64::from(now & bit != 0 && before & bit == 0);
            }
        }
        self.last = Some(bits);
        if let Ok(bits) = bits {
            self.seen |= bits;
            self.samples.push_back((at, bits));
        }
        let since = at.saturating_sub(window);
        while self.samples.front().is_some_and(|(at, _)| *at < since) {
            self.samples.pop_front();
        }
    }

    /// The counts up to the last sample.
    ///
    /// # Errors
    /// The last sample failed, or there is none yet.
    pub(super) fn counts(&self) -> Result<ClockEventCounts, Missing> {
        self.last.unwrap_or(Err(Missing::Pending))?;
        let count = |(_, bit): (&str, u64)| {
            let with = self.samples.iter().filter(|(_, bits)| bits & bit != 0).count();
            u64::try_from(with).unwrap_or(u64::MAX)
        };
        let in_window = CLOCK_EVENTS.map(count);
        Ok(ClockEventCounts { in_window, seen: self.seen, onsets: self.onsets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn clock_events_are_counted_by_sample_and_by_onset() {
        let mut history = ClockEventHistory::default();
        assert_eq!(history.counts(), Err(Missing::Pending));
        let of = |history: &ClockEventHistory, event: usize| {
            let counts = history.counts().unwrap();
            (counts.in_window[event], counts.onsets[event])
        };
        for (at, bits) in [(1, 0x4), (2, 0x0), (3, 0x4), (3, 0x0), (4, 0x4), (5, 0x44)] {
            history.record(Ok(bits), SECOND * at, 10 * SECOND);
        }
        assert_eq!(of(&history, 2), (4, 1), "the first sample is no onset");
        assert_eq!(of(&history, 6), (1, 1));
        // Samples outside the window are dropped; onsets are kept.
        history.record(Ok(0), SECOND * 14, 10 * SECOND);
        assert_eq!(of(&history, 2), (2, 1));
    }

    #[test]
    fn failed_sample_withholds_the_counts_and_the_next_one_is_no_onset() {
        let mut history = ClockEventHistory::default();
        history.record(Ok(0), SECOND, 10 * SECOND);
        history.record(Err(Missing::Lost), 2 * SECOND, 10 * SECOND);
        assert_eq!(history.counts(), Err(Missing::Lost));
        history.record(Ok(0x8), 3 * SECOND, 10 * SECOND);
        assert_eq!(history.counts().unwrap().onsets[3], 0);
    }
}
