//! Reads the health sample of a GPU and the states of its `NVLink`s.

use std::time::Duration;

use nvml_wrapper_sys::bindings::field_id;

use super::cached::{Cached, is_fresh_slow};
use super::link_errors::{LinkErrorReader, LinkErrors};
use crate::model::{HealthCounters, HealthSample, LinkStates, Missing, Reading};
use crate::nvml::Session;
use crate::nvml::probe::Probe;
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;
use crate::policy::{INFOROM_EVERY, Tier};
use crate::selection::Selection;

const UNCORRECTED: Field = Field::of(field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL);
const RETIRED_SINGLE: Field = Field::of(field_id::NVML_FI_DEV_RETIRED_SBE);
const RETIRED_DOUBLE: Field = Field::of(field_id::NVML_FI_DEV_RETIRED_DBE);
const RETIREMENT_PENDING: Field = Field::of(field_id::NVML_FI_DEV_RETIRED_PENDING);
const FLIT_ERRORS: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL);
const DATA_ERRORS: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL);
const REPLAYS: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL);
const RECOVERIES: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL);
const THERMAL_VIOLATION: Field = Field::of(field_id::NVML_FI_DEV_PERF_POLICY_THERMAL);
const PCIE_REPLAYS: Field = Field::of(field_id::NVML_FI_DEV_PCIE_REPLAY_COUNTER);
const REMAP_PENDING: Field = Field::of(field_id::NVML_FI_DEV_REMAPPED_PENDING);
const REMAP_FAILURE: Field = Field::of(field_id::NVML_FI_DEV_REMAPPED_FAILURE);
const UNCORRECTABLE_ROWS: Field = Field::of(field_id::NVML_FI_DEV_REMAPPED_UNC);
/// Newer than the header of nvml-wrapper-sys.
const BANK_REMAP_PENDING: Field = Field::of(307);
const RECOVERY_ACTION: Field = Field::of(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
/// Replacements of the `NVLink` counters since Hopper.
const HOPPER_REPLAYS: Field = Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY);
const HOPPER_RECOVERIES: Field =
    Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY);
const HOPPER_CHECKSUMS: Field = Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC);

/// All field ids of a health sample, for one batch.
pub const FIELDS: &[Field] = &[
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
    UNCORRECTABLE_ROWS,
    BANK_REMAP_PENDING,
    RECOVERY_ACTION,
    HOPPER_REPLAYS,
    HOPPER_RECOVERIES,
    HOPPER_CHECKSUMS,
];

/// Cache of the readings that are not read in each cycle.
#[derive(Default)]
pub struct HealthReader {
    /// Number of health samples, and when the last one was read (monotonic).
    samples: (u64, Option<Duration>),
    links: Cached<Result<LinkStates, Missing>>,
    pcie: Cached<(Reading, Reading)>,
    inforom: Cached<Result<bool, Missing>>,
    repairs: Cached<Repairs>,
    link_errors: LinkErrorReader,
}

/// Repairs of a GPU that are pending or impossible, the threshold of its SRAM, and its temperature margin.
#[derive(Clone, Copy)]
struct Repairs {
    unrepairable_memory: Result<bool, Missing>,
    pending: Result<bool, Missing>,
    sram_threshold_exceeded: Result<bool, Missing>,
    temperature_margin: Reading,
}

impl Repairs {
    fn read(probe: &Probe<'_>) -> Self {
        Self {
            unrepairable_memory: probe.has_unrepairable_memory(),
            pending: probe.pending_repairs().map(|pending| pending.channel || pending.tpc),
            sram_threshold_exceeded: probe.exceeds_sram_threshold(),
            temperature_margin: probe.temperature_margin(),
        }
    }
}

impl HealthReader {
    /// Whether a health sample is to be read at `now`: in each cycle if a family needs it, else slowly, but at
    /// once until there are two, of which the increase of counters is known.
    #[must_use]
    pub fn is_due(&self, selection: &Selection, now: Duration) -> bool {
        let (samples, last) = self.samples;
        selection.needs_health() || samples < 2 || Tier::Slow.due(last, now)
    }

    /// `NVLink` states of the GPU, if a link family is selected or health is read.
    pub fn link_states(
        &mut self,
        needs_health: bool,
        selection: &Selection,
        session: &Session,
        gpu: Handle,
        now: Duration,
    ) -> Option<Result<LinkStates, Missing>> {
        let needed = selection.needs_link_states() || needs_health;
        needed.then(|| self.links.get_or_read(now, is_fresh_slow, || session.link_states(gpu)))
    }

    /// Reads the health sample of the GPU. `probe` must have been created with [`FIELDS`].
    pub fn read_health(
        &mut self,
        probe: &Probe<'_>,
        links: Result<LinkStates, Missing>,
        clock_events: Result<u64, Missing>,
        now: Duration,
    ) -> HealthSample {
        self.samples = (self.samples.0 + 1, Some(now));
        let field = |field| probe.field(field);
        let sum = |one, other| Ok(field(one)? + field(other)?);
        let pcie = || (probe.pcie_generation(), probe.pcie_width());
        let (pcie_generation, pcie_lanes) = self.pcie.get_or_read(now, is_fresh_slow, pcie);
        let is_fresh = |valid: &Result<bool, Missing>, age| match valid {
            Ok(_) | Err(Missing::Unsupported) => age < INFOROM_EVERY,
            Err(_) => is_fresh_slow(&(), age),
        };
        let repairs = self.repairs.get_or_read(now, is_fresh_slow, || Repairs::read(probe));
        let LinkErrors { nvlink, effective_rate, symbol_rate, fabric, c2c, c2c_links } =
            self.link_errors.read(probe, &links, now);
        HealthSample {
            counters: HealthCounters {
                pcie_replays: field(PCIE_REPLAYS),
                link_crc_errors: first_supported(
                    sum(FLIT_ERRORS, DATA_ERRORS),
                    field(HOPPER_CHECKSUMS),
                ),
                link_retries: first_supported(
                    sum(REPLAYS, RECOVERIES),
                    sum(HOPPER_REPLAYS, HOPPER_RECOVERIES),
                ),
                thermal_violation: field(THERMAL_VIOLATION),
                link_errors: nvlink,
                c2c_errors: c2c,
            },
            pcie_generation,
            pcie_lanes,
            links,
            uncorrected_ecc_errors: field(UNCORRECTED),
            retired_pages: sum(RETIRED_SINGLE, RETIRED_DOUBLE),
            retirement_pending: field(RETIREMENT_PENDING),
            remap_pending: field(REMAP_PENDING),
            bank_remap_pending: field(BANK_REMAP_PENDING),
            remap_failure: field(REMAP_FAILURE),
            unrepairable_memory: repairs.unrepairable_memory,
            repair_pending: repairs.pending,
            recovery_action: field(RECOVERY_ACTION),
            temperature_margin: repairs.temperature_margin,
            inforom_valid: self.inforom.get_or_read(now, is_fresh, || probe.inforom_valid()),
            clock_events,
            link_effective_error_rate: effective_rate,
            link_symbol_error_rate: symbol_rate,
            c2c_links,
            fabric,
            sram_threshold_exceeded: repairs.sram_threshold_exceeded,
            uncorrectable_remapped_rows: field(UNCORRECTABLE_ROWS),
        }
    }
}

/// The first supported of two alternative counters; if both fail, an error other than unsupported
/// takes precedence.
fn first_supported(one: Reading, other: Reading) -> Reading {
    match one {
        Ok(count) => Ok(count),
        Err(Missing::Unsupported) => other,
        Err(missing) => other.map_err(|_| missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternative_counters_are_tried_in_order() {
        let (none, failed) = (Err(Missing::Unsupported), Err(Missing::Failed(999)));
        assert_eq!(first_supported(Ok(1.0), none), Ok(1.0));
        assert_eq!(first_supported(none, Ok(2.0)), Ok(2.0));
        assert_eq!(first_supported(none, none), none);
        assert_eq!(
            (first_supported(none, failed), first_supported(failed, none)),
            (failed, failed)
        );
    }
}
