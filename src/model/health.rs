//! Inputs of a GPU's health: the readings of each cycle, and their increase within a window.

use std::collections::BTreeMap;

use super::{Missing, Reading};

/// `NVLink` states of a GPU, by link: 0 inactive, 1 active, 2 sleep.
pub type LinkStates = Vec<(u32, Result<u32, Missing>)>;

/// Readings of fields of each link of a GPU: by field, then by link.
pub type LinkFields = BTreeMap<u32, Vec<(u32, Reading)>>;

/// Health readings of a GPU in one cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSample {
    /// Counters since the driver was loaded.
    pub counters: HealthCounters,
    /// Current generation of the PCIe link (`nvmlDeviceGetCurrPcieLinkGeneration`).
    pub pcie_generation: Reading,
    /// Current number of lanes of the PCIe link (`nvmlDeviceGetCurrPcieLinkWidth`).
    pub pcie_lanes: Reading,
    /// `NVLink` states.
    pub links: Result<LinkStates, Missing>,
    /// Uncorrected ECC errors since the driver was loaded (`NVML_FI_DEV_ECC_DBE_VOL_TOTAL`).
    pub uncorrected_ecc_errors: Reading,
    /// Pages retired in the lifetime of the board (`NVML_FI_DEV_RETIRED_SBE`, `_DBE`).
    pub retired_pages: Reading,
    /// Whether page retirements are pending (`NVML_FI_DEV_RETIRED_PENDING`).
    pub retirement_pending: Reading,
    /// Whether row remappings are pending (`NVML_FI_DEV_REMAPPED_PENDING`).
    pub remap_pending: Reading,
    /// Whether a row remapping failed (`NVML_FI_DEV_REMAPPED_FAILURE`).
    pub remap_failure: Reading,
    /// Whether the GPU has memory that cannot be repaired
    /// (`nvmlDeviceGetUnrepairableMemoryFlag_v1`).
    pub unrepairable_memory: Result<bool, Missing>,
    /// Whether a repair of a memory channel or of a TPC is pending (`nvmlDeviceGetRepairStatus`).
    pub repair_pending: Result<bool, Missing>,
    /// What the driver asks for to recover the GPU, an `nvmlDeviceGpuRecoveryAction_t`
    /// (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
    pub recovery_action: Reading,
    /// Distance to the nearest slowdown temperature, °C (`nvmlDeviceGetMarginTemperature`).
    pub temperature_margin: Reading,
    /// Whether the checksum of the InfoROM is valid (`nvmlDeviceValidateInforom`).
    pub inforom_valid: Result<bool, Missing>,
    /// Clock event reasons, bitmask (`nvmlDeviceGetCurrentClocksEventReasons`).
    pub clock_events: Result<u64, Missing>,
}

/// Counters that are judged by their increase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthCounters {
    /// PCIe replays (`NVML_FI_DEV_PCIE_REPLAY_COUNTER`).
    pub pcie_replays: Reading,
    /// CRC errors of all `NVLink` links.
    pub link_crc_errors: Reading,
    /// Replays and recoveries of all `NVLink` links.
    pub link_retries: Reading,
    /// Time of thermal clock slowdown, nanoseconds (`NVML_FI_DEV_PERF_POLICY_THERMAL`).
    pub thermal_violation: Reading,
}

/// Health readings of a GPU and their changes.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthState {
    /// The last readings.
    pub sample: HealthSample,
    /// Increase of each counter within the window. [`Missing::Pending`] until there are two
    /// samples, and after a counter reset. The increase of samples further apart is scaled to the
    /// window.
    pub growth: HealthCounters,
    /// Links that were active since the exporter started and are inactive now.
    pub down_links: Vec<u32>,
}
