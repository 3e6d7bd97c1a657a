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
    /// Whether remappings of memory banks are pending, since Rubin.
    pub bank_remap_pending: Reading,
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
    /// Largest bit error rate of an `NVLink` after error correction, since `NVLink` 5.
    pub link_effective_error_rate: Reading,
    /// Largest bit error rate of the symbols of an `NVLink`, since `NVLink` 5.
    pub link_symbol_error_rate: Reading,
    /// C2C link states: 0 inactive, 1 active.
    pub c2c_links: Result<LinkStates, Missing>,
    /// State of the GPU in its `NVLink` fabric.
    pub fabric: Result<FabricHealth, Missing>,
    /// Whether the SRAM errors exceed their threshold (`nvmlDeviceGetSramEccErrorStatus`).
    pub sram_threshold_exceeded: Result<bool, Missing>,
    /// Rows remapped because of uncorrectable errors (`NVML_FI_DEV_REMAPPED_UNC`).
    pub uncorrectable_remapped_rows: Reading,
}

/// State of a GPU in its `NVLink` fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricHealth {
    /// Registered, and nothing is wrong.
    Healthy,
    /// The registration is in progress.
    Registering,
    /// The registration has not begun or has failed, or the fabric reports a fault.
    Faulty,
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
    /// Errors and recoveries of all `NVLink` links, since `NVLink` 5.
    pub link_errors: Reading,
    /// CRC errors and replays of all C2C links.
    pub c2c_errors: Reading,
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
    /// `NVLink` links that were active since the exporter started and are inactive now.
    pub down_links: Vec<u32>,
    /// C2C links of which the same holds.
    pub down_c2c_links: Vec<u32>,
}
