//! History of a GPU's XID errors since the exporter started.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Missing, XidState};

/// XIDs of one GPU that are kept with their time; more than occur in a useful window.
const RECENT_MAX: usize = 4096;

/// XIDs that report the end of the state that another XID reports: power smoothing is engaged again (162)
/// after it was disengaged (163).
const ENDS: [(u32, u32); 1] = [(162, 163)];

/// XID errors of all GPUs, by UUID.
pub type XidHistories = BTreeMap<Arc<str>, XidHistory>;

/// XID errors of one GPU. Kept when the NVML session is reopened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidHistory {
    /// Whether the GPU's XID events are subscribed to, or why not.
    pub subscribed: Result<(), Missing>,
    /// The last XID since the exporter started.
    last: Option<u32>,
    /// Number of events since the exporter started, by XID.
    counts: BTreeMap<u32, u64>,
    /// The newest events, each with its time (monotonic); at most [`RECENT_MAX`].
    recent: VecDeque<(Duration, u32)>,
    /// XIDs since the last reset that was observed: the driver was loaded, or the GPU was lost and
    /// is available again.
    since_reset: BTreeSet<u32>,
    /// Whether the GPU is lost.
    lost: bool,
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

    /// Records one XID, received at `at` (monotonic).
    pub fn record(&mut self, xid: u32, at: Duration) {
        self.last = Some(xid);
        *self.counts.entry(xid).or_default() += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at, xid));
        if let Some((_, ended)) = ENDS.iter().find(|(end, _)| *end == xid) {
            self.since_reset.remove(ended);
        }
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

    /// The state at `now` (monotonic), with the counts of the `window` before.
    #[must_use]
    pub fn state(&self, window: Duration, now: Duration) -> XidState {
        XidState {
            subscribed: self.subscribed,
            last: self.last,
            counts: self.counts.clone(),
            in_window: self.counts_within(window, now),
            since_reset: self.since_reset.clone(),
        }
    }

    fn counts_within(&self, window: Duration, now: Duration) -> BTreeMap<u32, u64> {
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
}
