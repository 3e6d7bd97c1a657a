//! History of a GPU's health readings: the increase of its counters, and links that went down.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::NVML_NVLINK_STATE_INACTIVE as INACTIVE;

use crate::model::{HealthCounters, HealthSample, HealthState, LinkStates, Missing, Reading};

/// Health readings of one GPU over time. Kept when the NVML session is reopened.
#[derive(Clone, Debug, Default)]
pub(super) struct HealthHistory {
    /// Counters by time (monotonic), oldest first.
    counters: VecDeque<(Duration, HealthCounters)>,
    window: Duration,
    links_seen_active: BTreeSet<u32>,
    c2c_links_seen_active: BTreeSet<u32>,
    state: Option<Arc<HealthState>>,
}

impl HealthHistory {
    /// Records the readings of `at` (monotonic) and drops counters that are older than `window`.
    /// Readings that are not newer than the last ones are ignored.
    pub(super) fn record(&mut self, sample: &HealthSample, at: Duration, window: Duration) {
        if self.counters.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        self.counters.push_back((at, sample.counters));
        self.window = window;
        let since = at.saturating_sub(window);
        while self.counters.len() > 2 && self.counters.front().is_some_and(|(at, _)| *at < since) {
            self.counters.pop_front();
        }
        self.links_seen_active.extend(active(&sample.links));
        self.c2c_links_seen_active.extend(active(&sample.c2c_links));
        self.state = Some(Arc::new(self.state_of(sample)));
    }

    /// The state as of the last readings; `None` before the first.
    pub(super) fn state(&self) -> Option<Arc<HealthState>> {
        self.state.clone()
    }

    fn state_of(&self, latest: &HealthSample) -> HealthState {
        HealthState {
            growth: HealthCounters {
                pcie_replays: self.growth(|counts| counts.pcie_replays),
                link_crc_errors: self.growth(|counts| counts.link_crc_errors),
                link_retries: self.growth(|counts| counts.link_retries),
                thermal_violation: self.growth(|counts| counts.thermal_violation),
                link_errors: self.growth(|counts| counts.link_errors),
                c2c_errors: self.growth(|counts| counts.c2c_errors),
            },
            down_links: down(&latest.links, &self.links_seen_active),
            down_c2c_links: down(&latest.c2c_links, &self.c2c_links_seen_active),
            sample: latest.clone(),
        }
    }

    /// Increase of a counter since the oldest sample after its last reset.
    fn growth(&self, of: fn(&HealthCounters) -> Reading) -> Reading {
        let mut newest_first = self.counters.iter().rev().map(|(at, counts)| (*at, of(counts)));
        let (now_at, now) = newest_first.next().ok_or(Missing::Pending)?;
        let now = now?;
        let mut oldest = (now_at, now);
        for (at, count) in newest_first {
            let Ok(count) = count else { continue };
            if count > oldest.1 {
                break;
            }
            oldest = (at, count);
        }
        let span = now_at.saturating_sub(oldest.0);
        if span.is_zero() {
            return Err(Missing::Pending);
        }
        let scale = (self.window.as_secs_f64() / span.as_secs_f64()).min(1.0);
        Ok((now - oldest.1) * scale)
    }
}

/// The links that are active or asleep.
fn active(links: &Result<LinkStates, Missing>) -> impl Iterator<Item = u32> {
    let active = links.iter().flatten().filter(|(_, state)| state.is_ok_and(|s| s != INACTIVE));
    active.map(|(link, _)| *link)
}

/// The inactive links that were active before.
fn down(links: &Result<LinkStates, Missing>, seen_active: &BTreeSet<u32>) -> Vec<u32> {
    let inactive = links.iter().flatten().filter(|(_, state)| *state == Ok(INACTIVE));
    inactive.map(|(link, _)| *link).filter(|link| seen_active.contains(link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn sample(replays: Reading, links: &[u32]) -> HealthSample {
        let none = Err(Missing::Unsupported);
        let links = (0..).zip(links).map(|(link, state)| (link, Ok(*state)));
        HealthSample {
            counters: HealthCounters {
                pcie_replays: replays,
                link_crc_errors: none,
                link_retries: none,
                thermal_violation: none,
                link_errors: none,
                c2c_errors: none,
            },
            pcie_generation: none,
            pcie_lanes: none,
            links: Ok(links.collect()),
            uncorrected_ecc_errors: none,
            retired_pages: none,
            retirement_pending: none,
            remap_pending: none,
            bank_remap_pending: none,
            remap_failure: none,
            unrepairable_memory: Err(Missing::Unsupported),
            repair_pending: Err(Missing::Unsupported),
            recovery_action: none,
            temperature_margin: none,
            inforom_valid: Err(Missing::Unsupported),
            clock_events: Ok(0),
            link_effective_error_rate: none,
            link_symbol_error_rate: none,
            c2c_links: Err(Missing::Unsupported),
            fabric: Err(Missing::Unsupported),
            sram_threshold_exceeded: Err(Missing::Unsupported),
            uncorrectable_remapped_rows: none,
        }
    }

    fn history(replays: &[(u64, Reading)]) -> HealthHistory {
        let mut history = HealthHistory::default();
        for (at, replays) in replays {
            history.record(&sample(*replays, &[]), Duration::from_secs(*at), WINDOW);
        }
        history
    }

    fn growth(replays: &[(u64, Reading)]) -> Reading {
        history(replays).state().unwrap().growth.pcie_replays
    }

    #[test]
    fn growth_is_the_increase_within_the_window() {
        assert_eq!(HealthHistory::default().state(), None);
        assert_eq!(growth(&[(1, Ok(5.0))]), Err(Missing::Pending));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, Ok(5.0)), (3, Ok(9.0))]), Ok(4.0));
        assert_eq!(growth(&[(1, Ok(5.0)), (1, Ok(9.0))]), Err(Missing::Pending), "same time");
        assert_eq!(growth(&[(1, Ok(5.0)), (50, Ok(8.0)), (100, Ok(9.0))]), Ok(1.0));
        assert_eq!(
            growth(&[(1, Ok(5.0)), (121, Ok(8.0)), (241, Ok(9.0))]),
            Ok(0.5),
            "samples further apart than the window"
        );
        let unread = Err(Missing::Failed(999));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, unread), (3, Ok(9.0))]), Ok(4.0));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, unread)]), unread);
    }

    #[test]
    fn decreased_counter_counts_as_reset() {
        assert_eq!(growth(&[(1, Ok(7.0)), (2, Ok(0.0))]), Err(Missing::Pending));
        assert_eq!(growth(&[(1, Ok(7.0)), (2, Ok(0.0)), (3, Ok(2.0))]), Ok(2.0));
    }

    #[test]
    fn inactive_link_is_reported_only_if_it_was_active() {
        let mut history = HealthHistory::default();
        let mut inactive = |at, links: &[u32]| {
            history.record(&sample(Ok(0.0), links), Duration::from_secs(at), WINDOW);
            history.state().unwrap().down_links.clone()
        };
        assert_eq!(inactive(1, &[1, 0, 2]), [0_u32; 0]);
        assert_eq!(inactive(2, &[0, 0, 2]), [0]);
        assert_eq!(inactive(900, &[1, 0, 0]), [2]);
    }
}
