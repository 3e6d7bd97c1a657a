//! What has befallen a GPU since the exporter started: XIDs, and reasons for lower clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Missing, Reading};

/// XIDs that are remembered with their time, of one GPU: more do not come within any window that is
/// worth looking at.
const RECENT_MAX: usize = 4096;

/// How far back counts of a window look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// For XIDs.
    pub xids: Duration,
    /// For reasons of lower clocks.
    pub clocks: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        let five_minutes = Duration::from_secs(300);
        Self { xids: five_minutes, clocks: five_minutes }
    }
}

/// What the driver has told of one GPU's XIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidRecord {
    /// Whether the driver is being listened to, and why not.
    pub listening: Result<(), Missing>,
    /// The last XID.
    pub last: Option<u32>,
    /// How often each came.
    pub counts: BTreeMap<u32, u64>,
    /// The newest, each with its time (monotonic); at most [`RECENT_MAX`].
    pub recent: VecDeque<(Duration, u32)>,
    /// Those that came since the GPU last began anew, as far as that was seen: its driver was loaded,
    /// or it came back after it was lost.
    pub standing: BTreeSet<u32>,
    /// Whether it is lost, and has not come back.
    pub lost: bool,
}

impl XidRecord {
    /// Nothing heard, and nobody listening yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listening: Err(Missing::Pending),
            last: None,
            counts: BTreeMap::new(),
            recent: VecDeque::new(),
            standing: BTreeSet::new(),
            lost: false,
        }
    }

    /// The last XID, or 0: none came while somebody listened.
    ///
    /// # Errors
    /// Nobody listens, so nobody knows.
    pub fn last(&self) -> Reading {
        self.listening.map(|()| self.last.map_or(0.0, f64::from))
    }

    /// Takes one XID down, which was heard at `at` (monotonic).
    pub fn count(&mut self, xid: u32, at: Duration) {
        self.last = Some(xid);
        *self.counts.entry(xid).or_default() += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at, xid));
        self.standing.insert(xid);
    }

    /// Takes down how the GPU is. One that has come back has been reset.
    pub fn see(&mut self, state: Result<(), Missing>) {
        match state {
            Err(Missing::Lost) => self.lost = true,
            Ok(()) if self.lost => self.begin_anew(),
            Ok(()) | Err(_) => {}
        }
    }

    /// What was wrong with the GPU has been mended by loading its driver anew.
    pub fn begin_anew(&mut self) {
        self.standing.clear();
        self.lost = false;
    }

    /// How often each came within `window` before `now` (monotonic).
    #[must_use]
    pub fn within(&self, window: Duration, now: Duration) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        let since = now.saturating_sub(window);
        for (_, xid) in self.recent.iter().filter(|(at, _)| *at >= since) {
            *counts.entry(*xid).or_default() += 1;
        }
        counts
    }
}

impl Default for XidRecord {
    fn default() -> Self {
        Self::new()
    }
}

/// Reasons for lower clocks, as labels name them, each with its bit of `nvmlClocksEventReasons`.
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

/// How often each of [`CLOCK_EVENTS`] was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockCounts {
    /// In how many samples of the window.
    pub within: [u64; CLOCK_EVENTS.len()],
    /// How often it began since the exporter started.
    pub begun: [u64; CLOCK_EVENTS.len()],
}

/// The reasons for one GPU's lower clocks, sample by sample.
#[derive(Clone, Debug, Default)]
pub struct ClockRecord {
    samples: VecDeque<(Duration, u64)>,
    begun: [u64; CLOCK_EVENTS.len()],
    last: Option<Result<u64, Missing>>,
}

impl ClockRecord {
    /// Takes one sample down, of the bits at `at` (monotonic); one that it has already changes nothing.
    /// What was before a sample that failed is not known, so nothing begins with the next one.
    pub fn take(&mut self, bits: Result<u64, Missing>, at: Duration, window: Duration) {
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

    /// The counts as of the last sample.
    ///
    /// # Errors
    /// The last sample failed, or there was none.
    pub fn counts(&self) -> Result<ClockCounts, Missing> {
        self.last.unwrap_or(Err(Missing::Pending))?;
        let count = |(_, bit): (&str, u64)| {
            let with = self.samples.iter().filter(|(_, bits)| bits & bit != 0).count();
            u64::try_from(with).unwrap_or(u64::MAX)
        };
        Ok(ClockCounts { within: CLOCK_EVENTS.map(count), begun: self.begun })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn xids_leave_their_window_and_stay_in_the_total() {
        let mut record = XidRecord::new();
        for (xid, at) in [(31, 1), (79, 5), (31, 6)] {
            record.count(xid, SECOND * at);
        }
        assert_eq!(record.within(5 * SECOND, 7 * SECOND), BTreeMap::from([(31, 1), (79, 1)]));
        assert_eq!(record.within(SECOND, 60 * SECOND), BTreeMap::new());
        assert_eq!(record.counts, BTreeMap::from([(31, 2), (79, 1)]));
        for _ in 0..2 * RECENT_MAX {
            record.count(13, 8 * SECOND);
        }
        assert_eq!(record.recent.len(), RECENT_MAX);
    }

    #[test]
    fn xids_stand_until_the_gpu_begins_anew() {
        let mut record = XidRecord::new();
        record.count(79, SECOND);
        record.see(Ok(()));
        assert!(record.standing.contains(&79));
        record.see(Err(Missing::Lost));
        record.see(Err(Missing::Hung));
        assert!(record.standing.contains(&79));
        record.see(Ok(()));
        assert!(record.standing.is_empty());
        record.count(95, SECOND);
        record.begin_anew();
        assert!(record.standing.is_empty());
        assert_eq!(record.counts.len(), 2, "what was counted stays counted");
    }

    #[test]
    fn reasons_are_counted_by_sample_and_by_beginning() {
        let mut record = ClockRecord::default();
        assert_eq!(record.counts(), Err(Missing::Pending));
        let of = |record: &ClockRecord, event: usize| {
            let counts = record.counts().unwrap();
            (counts.within[event], counts.begun[event])
        };
        for (at, bits) in [(1, 0x4), (2, 0x0), (3, 0x4), (3, 0x0), (4, 0x4), (5, 0x44)] {
            record.take(Ok(bits), SECOND * at, 10 * SECOND);
        }
        assert_eq!(of(&record, 2), (4, 1), "the first sample begins nothing");
        assert_eq!(of(&record, 6), (1, 1));
        // What is out of the window is forgotten; what has begun is not.
        record.take(Ok(0), SECOND * 14, 10 * SECOND);
        assert_eq!(of(&record, 2), (2, 1));
    }

    #[test]
    fn a_sample_that_failed_ends_the_counts_and_begins_nothing() {
        let mut record = ClockRecord::default();
        record.take(Ok(0), SECOND, 10 * SECOND);
        record.take(Err(Missing::Lost), 2 * SECOND, 10 * SECOND);
        assert_eq!(record.counts(), Err(Missing::Lost));
        record.take(Ok(0x8), 3 * SECOND, 10 * SECOND);
        assert_eq!(record.counts().unwrap().begun[3], 0);
    }
}
