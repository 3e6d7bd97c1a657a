//! History of a GPU's XID errors and clock event reasons since the exporter started.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Missing, Reading};

/// XIDs of one GPU that are kept with their time; more than occur in a useful window.
const RECENT_MAX: usize = 4096;

/// Lengths of the windows over which events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Of XID errors.
    pub xids: Duration,
    /// Of clock event reasons.
    pub clock_events: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        let five_minutes = Duration::from_secs(300);
        Self { xids: five_minutes, clock_events: five_minutes }
    }
}

/// XID errors of one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidHistory {
    /// Whether the GPU's XID events are subscribed to, or why not.
    pub subscribed: Result<(), Missing>,
    /// The last XID since the exporter started.
    pub last: Option<u32>,
    /// Number of events since the exporter started, by XID.
    pub counts: BTreeMap<u32, u64>,
    /// The newest events, each with its time (monotonic); at most [`RECENT_MAX`].
    pub recent: VecDeque<(Duration, u32)>,
    /// XIDs since the last reset that was observed: the driver was loaded, or the GPU was lost and
    /// is available again.
    pub since_reset: BTreeSet<u32>,
    /// Whether the GPU is lost.
    pub lost: bool,
}

impl XidHistory {
    /// A history without events and without a subscription.
    #[must_use]
    pub fn new() -> Self {
        Self {
            subscribed: Err(Missing::Pending),
            last: None,
            counts: BTreeMap::new(),
            recent: VecDeque::new(),
            since_reset: BTreeSet::new(),
            lost: false,
        }
    }

    /// The last XID, or 0 if there was none.
    ///
    /// # Errors
    /// Why the events are not subscribed to.
    pub fn last(&self) -> Reading {
        self.subscribed.map(|()| self.last.map_or(0.0, f64::from))
    }

    /// Records one XID, received at `at` (monotonic).
    pub fn record(&mut self, xid: u32, at: Duration) {
        self.last = Some(xid);
        *self.counts.entry(xid).or_default() += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at, xid));
        self.since_reset.insert(xid);
    }

    /// Records the state of the GPU. One that is available again after it was lost has been reset.
    pub fn observe_state(&mut self, state: Result<(), Missing>) {
        match state {
            Err(Missing::Lost) => self.lost = true,
            Ok(()) if self.lost => self.reset(),
            Ok(()) | Err(_) => {}
        }
    }

    /// Clears the XIDs since the last reset: the GPU was reset or its driver was reloaded.
    pub fn reset(&mut self) {
        self.since_reset.clear();
        self.lost = false;
    }

    /// Number of events in the `window` before `now` (monotonic), by XID.
    #[must_use]
    pub fn counts_within(&self, window: Duration, now: Duration) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        let since = now.saturating_sub(window);
        for (_, xid) in self.recent.iter().filter(|(at, _)| *at >= since) {
            *counts.entry(*xid).or_default() += 1;
        }
        counts
    }
}

impl Default for XidHistory {
    fn default() -> Self {
        Self::new()
    }
}

/// Clock event reasons: value of the `clock_event` label and bit of `nvmlClocksEventReasons`.
pub const CLOCK_EVENTS: [(&str, u64); 9] = [
    ("gpu_idle", 0x1),
    ("clocks_setting", 0x2),
    ("power_cap", 0x4),
    ("hw_slowdown", 0x8),
    ("sync_boost", 0x10),
    ("sw_thermal", 0x20),
    ("hw_thermal", 0x40),
    ("hw_power_brake", 0x80),
    ("display_clocks", 0x100),
];

/// Counts of each of [`CLOCK_EVENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEventCounts {
    /// Samples of the window in which the reason was active.
    pub in_window: [u64; CLOCK_EVENTS.len()],
    /// How often the reason became active since the exporter started.
    pub onsets: [u64; CLOCK_EVENTS.len()],
}

/// Samples of one GPU's clock event reasons.
#[derive(Clone, Debug, Default)]
pub struct ClockEventHistory {
    samples: VecDeque<(Duration, u64)>,
    begun: [u64; CLOCK_EVENTS.len()],
    last: Option<Result<u64, Missing>>,
}

impl ClockEventHistory {
    /// Records the bits sampled at `at` (monotonic). A sample that is not newer than the last one
    /// is ignored. After a failed sample the previous state is unknown, so the next one counts no
    /// onset.
    pub fn record(&mut self, bits: Result<u64, Missing>, at: Duration, window: Duration) {
        if self.samples.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        if let (Ok(now), Some(Ok(before))) = (bits, self.last) {
            for (count, (_, bit)) in self.begun.iter_mut().zip(CLOCK_EVENTS) {
                *count += u64::from(now & bit != 0 && before & bit == 0);
            }
        }
        self.last = Some(bits);
        if let Ok(bits) = bits {
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
    pub fn counts(&self) -> Result<ClockEventCounts, Missing> {
        self.last.unwrap_or(Err(Missing::Pending))?;
        let count = |(_, bit): (&str, u64)| {
            let with = self.samples.iter().filter(|(_, bits)| bits & bit != 0).count();
            u64::try_from(with).unwrap_or(u64::MAX)
        };
        Ok(ClockEventCounts { in_window: CLOCK_EVENTS.map(count), onsets: self.begun })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn xids_leave_the_window_and_stay_in_the_total() {
        let mut history = XidHistory::new();
        for (xid, at) in [(31, 1), (79, 5), (31, 6)] {
            history.record(xid, SECOND * at);
        }
        assert_eq!(
            history.counts_within(5 * SECOND, 7 * SECOND),
            BTreeMap::from([(31, 1), (79, 1)])
        );
        assert_eq!(history.counts_within(SECOND, 60 * SECOND), BTreeMap::new());
        assert_eq!(history.counts, BTreeMap::from([(31, 2), (79, 1)]));
        for _ in 0..2 * RECENT_MAX {
            history.record(13, 8 * SECOND);
        }
        assert_eq!(history.recent.len(), RECENT_MAX);
    }

    #[test]
    fn standing_xids_are_cleared_by_a_reset() {
        let mut history = XidHistory::new();
        history.record(79, SECOND);
        history.observe_state(Ok(()));
        assert!(history.since_reset.contains(&79));
        history.observe_state(Err(Missing::Lost));
        history.observe_state(Err(Missing::Hung));
        assert!(history.since_reset.contains(&79));
        history.observe_state(Ok(()));
        assert!(history.since_reset.is_empty());
        history.record(95, SECOND);
        history.reset();
        assert!(history.since_reset.is_empty());
        assert_eq!(history.counts.len(), 2, "the totals are kept");
    }

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
