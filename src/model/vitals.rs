//! What tells of a GPU's health: what is read each cycle, and how it has changed in the last minute.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Missing, Reading};

/// The states of a GPU's links (`NVLink`), by link: 0 inactive, 1 active, 2 asleep.
pub type LinkStates = Vec<(u32, Result<u32, Missing>)>;

/// What is read of a GPU in one cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Signs {
    /// What only grows until the driver is loaded anew.
    pub counts: Counts,
    /// Generation of the PCIe link as it runs (`nvmlDeviceGetCurrPcieLinkGeneration`).
    pub pcie_generation: Reading,
    /// Lanes of the PCIe link as it runs (`nvmlDeviceGetCurrPcieLinkWidth`).
    pub pcie_lanes: Reading,
    /// The links between GPUs.
    pub links: Result<LinkStates, Missing>,
    /// Uncorrected memory errors since the driver was loaded (`NVML_FI_DEV_ECC_DBE_VOL_TOTAL`).
    pub uncorrected: Reading,
    /// Pages retired in the board's life (`NVML_FI_DEV_RETIRED_SBE`, `_DBE`).
    pub retired_pages: Reading,
    /// Whether pages wait to be retired (`NVML_FI_DEV_RETIRED_PENDING`).
    pub retirement_pending: Reading,
    /// Whether rows wait to be remapped (`NVML_FI_DEV_REMAPPED_PENDING`).
    pub remap_pending: Reading,
    /// Whether rows could not be remapped (`NVML_FI_DEV_REMAPPED_FAILURE`).
    pub remap_failure: Reading,
    /// Whether the board's own record of itself is sound (`nvmlDeviceValidateInforom`).
    pub inforom_valid: Result<bool, Missing>,
    /// Why the clocks are lower than they could be (`nvmlDeviceGetCurrentClocksEventReasons`).
    pub clock_events: Result<u64, Missing>,
}

/// Counts of which the growth tells more than the number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// PCIe retries (`NVML_FI_DEV_PCIE_REPLAY_COUNTER`).
    pub pcie_replays: Reading,
    /// Checksum errors of all links (`NVLink`).
    pub link_checksums: Reading,
    /// Retries and recoveries of all links (`NVLink`).
    pub link_retries: Reading,
    /// Nanoseconds of clocks held down by heat (`NVML_FI_DEV_PERF_POLICY_THERMAL`).
    pub thermal_violation: Reading,
}

/// A GPU's signs, and what has become of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Vitals {
    /// The newest.
    pub signs: Signs,
    /// How much each count has grown within the window, as far back as it is known; pending before
    /// there are two samples, and after a count that went back. Of samples further apart, as much as
    /// falls to the window.
    pub growth: Counts,
    /// Links that have been up since the exporter started and are inactive now.
    pub fallen_links: Vec<u32>,
}

/// The signs of one GPU, cycle by cycle. It outlives sessions.
#[derive(Clone, Debug, Default)]
pub struct VitalsRecord {
    counts: VecDeque<(Duration, Counts)>,
    window: Duration,
    links_seen_up: BTreeSet<u32>,
    last: Option<Signs>,
}

impl VitalsRecord {
    /// Takes the signs of `at` (monotonic) down, and forgets counts from before `window`; signs that
    /// it has already change nothing.
    pub fn take(&mut self, signs: &Signs, at: Duration, window: Duration) {
        if self.counts.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        self.counts.push_back((at, signs.counts));
        self.window = window;
        let since = at.saturating_sub(window);
        while self.counts.len() > 2 && self.counts.front().is_some_and(|(at, _)| *at < since) {
            self.counts.pop_front();
        }
        let up = signs.links.iter().flatten().filter(|(_, state)| state.is_ok_and(|s| s != 0));
        self.links_seen_up.extend(up.map(|(link, _)| *link));
        self.last = Some(signs.clone());
    }

    /// What is known as of the last signs; none before the first.
    #[must_use]
    pub fn vitals(&self) -> Option<Vitals> {
        let signs = self.last.clone()?;
        let links = signs.links.iter().flatten();
        let inactive = links.filter(|(_, state)| *state == Ok(0)).map(|(link, _)| *link);
        Some(Vitals {
            growth: Counts {
                pcie_replays: self.growth(|counts| counts.pcie_replays),
                link_checksums: self.growth(|counts| counts.link_checksums),
                link_retries: self.growth(|counts| counts.link_retries),
                thermal_violation: self.growth(|counts| counts.thermal_violation),
            },
            fallen_links: inactive.filter(|link| self.links_seen_up.contains(link)).collect(),
            signs,
        })
    }

    /// How much a count has grown since the oldest sample from which on it only grew.
    fn growth(&self, of: fn(&Counts) -> Reading) -> Reading {
        let mut newest_first = self.counts.iter().rev().map(|(at, counts)| (*at, of(counts)));
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
        let part = (self.window.as_secs_f64() / span.as_secs_f64()).min(1.0);
        Ok((now - oldest.1) * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn signs(replays: Reading, links: &[u32]) -> Signs {
        let none = Err(Missing::Unsupported);
        let links = (0..).zip(links).map(|(link, state)| (link, Ok(*state)));
        Signs {
            counts: Counts {
                pcie_replays: replays,
                link_checksums: none,
                link_retries: none,
                thermal_violation: none,
            },
            pcie_generation: none,
            pcie_lanes: none,
            links: Ok(links.collect()),
            uncorrected: none,
            retired_pages: none,
            retirement_pending: none,
            remap_pending: none,
            remap_failure: none,
            inforom_valid: Err(Missing::Unsupported),
            clock_events: Ok(0),
        }
    }

    fn record(replays: &[(u64, Reading)]) -> VitalsRecord {
        let mut record = VitalsRecord::default();
        for (at, replays) in replays {
            record.take(&signs(*replays, &[]), Duration::from_secs(*at), WINDOW);
        }
        record
    }

    fn growth(replays: &[(u64, Reading)]) -> Reading {
        record(replays).vitals().unwrap().growth.pcie_replays
    }

    #[test]
    fn a_count_grows_from_one_sample_to_the_next_within_the_window() {
        assert_eq!(VitalsRecord::default().vitals(), None);
        assert_eq!(growth(&[(1, Ok(5.0))]), Err(Missing::Pending));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, Ok(5.0)), (3, Ok(9.0))]), Ok(4.0));
        assert_eq!(growth(&[(1, Ok(5.0)), (1, Ok(9.0))]), Err(Missing::Pending), "the same one");
        assert_eq!(growth(&[(1, Ok(5.0)), (50, Ok(8.0)), (100, Ok(9.0))]), Ok(1.0));
        assert_eq!(
            growth(&[(1, Ok(5.0)), (121, Ok(8.0)), (241, Ok(9.0))]),
            Ok(0.5),
            "rare samples"
        );
        let unread = Err(Missing::Failed(999));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, unread), (3, Ok(9.0))]), Ok(4.0));
        assert_eq!(growth(&[(1, Ok(5.0)), (2, unread)]), unread);
    }

    #[test]
    fn a_count_that_went_back_began_anew() {
        assert_eq!(growth(&[(1, Ok(7.0)), (2, Ok(0.0))]), Err(Missing::Pending));
        assert_eq!(growth(&[(1, Ok(7.0)), (2, Ok(0.0)), (3, Ok(2.0))]), Ok(2.0));
    }

    #[test]
    fn a_link_has_fallen_only_if_it_was_up() {
        let mut record = VitalsRecord::default();
        let mut fallen = |at, links: &[u32]| {
            record.take(&signs(Ok(0.0), links), Duration::from_secs(at), WINDOW);
            record.vitals().unwrap().fallen_links
        };
        assert_eq!(fallen(1, &[1, 0, 2]), [0_u32; 0]);
        assert_eq!(fallen(2, &[0, 0, 2]), [0]);
        assert_eq!(fallen(900, &[1, 0, 0]), [2]);
    }
}
