//! Reads what tells of a GPU's health, and the states of its links.

use std::time::Duration;

use crate::model::{Counts, LinkStates, Missing, Reading, Signs};
use crate::nvml::Session;
use crate::nvml::probe::Probe;
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;
use crate::nvml::raw::health::inforom_valid;
use crate::policy::{INFOROM_EVERY, Tier};
use crate::selection::Selection;

/// A field that the driver does not know (`NVML_ERROR_INVALID_ARGUMENT`).
const UNKNOWN_FIELD: Missing = Missing::Failed(2);

const UNCORRECTED: Field = Field::of(4);
const RETIRED_SINGLE: Field = Field::of(29);
const RETIRED_DOUBLE: Field = Field::of(30);
const RETIREMENT_PENDING: Field = Field::of(31);
const FLIT_ERRORS: Field = Field::of(38);
const DATA_ERRORS: Field = Field::of(45);
const REPLAYS: Field = Field::of(52);
const RECOVERIES: Field = Field::of(59);
const THERMAL_VIOLATION: Field = Field::of(75);
const PCIE_REPLAYS: Field = Field::of(94);
const REMAP_PENDING: Field = Field::of(144);
const REMAP_FAILURE: Field = Field::of(145);
/// The same of links since Hopper, which counts them otherwise.
const HOPPER_REPLAYS: Field = Field::of_all_links(161);
const HOPPER_RECOVERIES: Field = Field::of_all_links(162);
const HOPPER_CHECKSUMS: Field = Field::of_all_links(163);

/// All of them, for one batch.
pub const FIELDS: [Field; 15] = [
    UNCORRECTED,
    RETIRED_SINGLE,
    RETIRED_DOUBLE,
    RETIREMENT_PENDING,
    FLIT_ERRORS,
    DATA_ERRORS,
    REPLAYS,
    RECOVERIES,
    THERMAL_VIOLATION,
    PCIE_REPLAYS,
    REMAP_PENDING,
    REMAP_FAILURE,
    HOPPER_REPLAYS,
    HOPPER_RECOVERIES,
    HOPPER_CHECKSUMS,
];

/// What of a GPU is not asked each cycle, as it was last told.
#[derive(Default)]
pub struct SignReader {
    links: Kept<Result<LinkStates, Missing>>,
    pcie: Kept<(Reading, Reading)>,
    inforom: Kept<Result<bool, Missing>>,
}

/// An answer that is kept for a while.
struct Kept<T>(Option<(Duration, T)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Kept<T> {
    /// The answer, asked for anew if it is no longer `good` after so long.
    fn or_ask(
        &mut self,
        now: Duration,
        good: impl Fn(&T, Duration) -> bool,
        ask: impl FnOnce() -> T,
    ) -> T {
        let kept = self.0.take().filter(|(at, kept)| good(kept, now.saturating_sub(*at)));
        self.0.insert(kept.unwrap_or_else(|| (now, ask()))).1.clone()
    }
}

fn slow<T>(_: &T, age: Duration) -> bool {
    !Tier::Slow.due(Some(Duration::ZERO), age)
}

impl SignReader {
    /// The states of the GPU's links, where they are shown or its health is.
    pub fn links(
        &mut self,
        selection: &Selection,
        session: &Session,
        gpu: Handle,
        now: Duration,
    ) -> Option<Result<LinkStates, Missing>> {
        let wanted = selection.wants_links() || selection.wants_health();
        if !wanted {
            self.links = Kept::default();
        }
        wanted.then(|| self.links.or_ask(now, slow, || session.link_states(gpu)))
    }

    /// The signs of the GPU's health, where that is shown. `probe` was made with [`FIELDS`].
    pub fn signs(
        &mut self,
        session: &Session,
        gpu: Handle,
        probe: &Probe<'_>,
        links: Result<LinkStates, Missing>,
        clock_events: Result<u64, Missing>,
        now: Duration,
    ) -> Signs {
        let field = |field| known(probe.field(field));
        let sum = |one, other| Ok(field(one)? + field(other)?);
        let pcie = || (probe.pcie_generation(), probe.pcie_width());
        let (pcie_generation, pcie_lanes) = self.pcie.or_ask(now, slow, pcie);
        let settled = |valid: &Result<bool, Missing>, age| match valid {
            Ok(_) | Err(Missing::Unsupported) => age < INFOROM_EVERY,
            Err(_) => slow(&(), age),
        };
        let validate = || inforom_valid(session.nvml(), gpu);
        Signs {
            counts: Counts {
                pcie_replays: field(PCIE_REPLAYS),
                link_checksums: either(sum(FLIT_ERRORS, DATA_ERRORS), field(HOPPER_CHECKSUMS)),
                link_retries: either(
                    sum(REPLAYS, RECOVERIES),
                    sum(HOPPER_REPLAYS, HOPPER_RECOVERIES),
                ),
                thermal_violation: field(THERMAL_VIOLATION),
            },
            pcie_generation,
            pcie_lanes,
            links,
            uncorrected: field(UNCORRECTED),
            retired_pages: sum(RETIRED_SINGLE, RETIRED_DOUBLE),
            retirement_pending: field(RETIREMENT_PENDING),
            remap_pending: field(REMAP_PENDING),
            remap_failure: field(REMAP_FAILURE),
            inforom_valid: self.inforom.or_ask(now, settled, validate),
            clock_events,
        }
    }
}

fn known(reading: Reading) -> Reading {
    if reading == Err(UNKNOWN_FIELD) { Err(Missing::Unsupported) } else { reading }
}

/// Which of two ways of counting a board has; if neither answers, what is not just unsupported.
fn either(one: Reading, other: Reading) -> Reading {
    match one {
        Ok(count) => Ok(count),
        Err(Missing::Unsupported) => other,
        Err(missing) => other.map_err(|_| missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SLOW_TIER;

    #[test]
    fn a_board_counts_in_one_way_or_the_other() {
        let (none, failed) = (Err(Missing::Unsupported), Err(Missing::Failed(999)));
        assert_eq!(either(Ok(1.0), none), Ok(1.0));
        assert_eq!(either(none, Ok(2.0)), Ok(2.0));
        assert_eq!(either(none, none), none);
        assert_eq!((either(none, failed), either(failed, none)), (failed, failed));
        assert_eq!(known(Err(Missing::Failed(2))), none, "a driver from before the field");
    }

    #[test]
    fn an_answer_is_kept_as_long_as_it_is_good() {
        let mut kept = Kept::default();
        let start = Duration::from_secs(100);
        assert_eq!(kept.or_ask(start, slow, || 1), 1);
        assert_eq!(kept.or_ask(start + SLOW_TIER / 2, slow, || 2), 1);
        assert_eq!(kept.or_ask(start + SLOW_TIER, slow, || 3), 3);
    }
}
