//! Aliases of rows for counters files: the field names of DCGM since 4.6, the names before, and the
//! lower-case names of the first dcgm-exporter.
//!
//! Since DCGM 4.7 fields that changed their unit have names of their own, which are rows: in DCGM 4.6
//! `DCGM_FI_DEV_GPU_UTIL_RATIO` was another name of the percentage.

/// Name of the row with the alias `name`.
#[must_use]
pub fn row_of(name: &str) -> Option<String> {
    let listed = |list: &[(&str, &str)]| {
        list.iter().find(|(alias, _)| *alias == name).map(|(_, row)| (*row).to_owned())
    };
    listed(NEWER_OR_OLDER).or_else(|| listed(FIRST_EXPORTER)).or_else(|| numbered(name))
}

/// Resolves aliases of families with one member per link or engine.
fn numbered(name: &str) -> Option<String> {
    NUMBERED.iter().find_map(|(alias, row)| {
        let (head, tail) = alias.split_once('#')?;
        let number = name.strip_prefix(head)?.strip_suffix(tail)?;
        let canonical = number.parse::<u32>().ok()?.to_string() == number;
        canonical.then(|| row.replace('#', number))
    })
}

/// All aliases with their rows; `#` stands for a number.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    [NEWER_OR_OLDER, FIRST_EXPORTER, NUMBERED].into_iter().flatten().copied()
}

const NUMBERED: &[(&str, &str)] = &[
    ("DCGM_FI_DEV_NVLINK_THROUGHPUT_L#", "DCGM_FI_DEV_NVLINK_BANDWIDTH_L#"),
    ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_L#_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L#"),
    ("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_L#_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L#"),
    ("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_L#_TOTAL", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L#"),
    ("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_L#_TOTAL", "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L#"),
    ("DCGM_FI_PROF_NVDEC_UTIL_#_RATIO", "DCGM_FI_PROF_NVDEC#_ACTIVE"),
    ("DCGM_FI_PROF_NVJPG_UTIL_#_RATIO", "DCGM_FI_PROF_NVJPG#_ACTIVE"),
    ("DCGM_FI_PROF_NVOFA_UTIL_#_RATIO", "DCGM_FI_PROF_NVOFA#_ACTIVE"),
];

const NEWER_OR_OLDER: &[(&str, &str)] = &[
    ("DCGM_FI_CUDA_GPU_COMPUTE_CAPABILITY", "DCGM_FI_DEV_CUDA_COMPUTE_CAPABILITY"),
    ("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_HIGH", "DCGM_FI_DEV_BANK_REMAP_AVAIL_HIGH"),
    ("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_LOW", "DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW"),
    ("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_MAX", "DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX"),
    ("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_NONE", "DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE"),
    ("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_PARTIAL", "DCGM_FI_DEV_BANK_REMAP_AVAIL_PARTIAL"),
    ("DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS", "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF"),
    ("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", "DCGM_FI_DEV_ENFORCED_POWER_LIMIT"),
    ("DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS", "DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX"),
    ("DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS", "DCGM_FI_DEV_POWER_MGMT_LIMIT_MIN"),
    ("DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS", "DCGM_FI_DEV_POWER_MGMT_LIMIT"),
    ("DCGM_FI_DEV_BOARD_POWER_RAW_WATTS", "DCGM_FI_DEV_POWER_USAGE_INSTANT"),
    ("DCGM_FI_DEV_BOARD_POWER_WATTS", "DCGM_FI_DEV_POWER_USAGE"),
    ("DCGM_FI_DEV_BOARD_SERIAL", "DCGM_FI_DEV_SERIAL"),
    ("DCGM_FI_DEV_ECC_MODE", "DCGM_FI_DEV_ECC_CURRENT"),
    ("DCGM_FI_DEV_FB_USED_RATIO", "DCGM_FI_DEV_FB_USED_PERCENT"),
    ("DCGM_FI_DEV_GPU_BRAND", "DCGM_FI_DEV_BRAND"),
    ("DCGM_FI_DEV_GPU_COMPUTE_MODE", "DCGM_FI_DEV_COMPUTE_MODE"),
    ("DCGM_FI_DEV_GPU_MAX_OP_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_MAX_OP_TEMP"),
    ("DCGM_FI_DEV_GPU_MINOR_NUMBER", "DCGM_FI_DEV_MINOR_NUMBER"),
    ("DCGM_FI_DEV_GPU_NAME", "DCGM_FI_DEV_NAME"),
    ("DCGM_FI_DEV_GPU_PERSISTENCE_MODE", "DCGM_FI_DEV_PERSISTENCE_MODE"),
    ("DCGM_FI_DEV_GPU_PSTATE", "DCGM_FI_DEV_PSTATE"),
    ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_TEMP"),
    ("DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS", "DCGM_FI_DEV_SHUTDOWN_TEMP"),
    ("DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS", "DCGM_FI_DEV_SLOWDOWN_TEMP"),
    ("DCGM_FI_DEV_GPU_UUID", "DCGM_FI_DEV_UUID"),
    ("DCGM_FI_DEV_GPU_VIRTUAL_MODE", "DCGM_FI_DEV_VIRTUAL_MODE"),
    ("DCGM_FI_DEV_INFOROM_ECC_VERSION", "DCGM_FI_DEV_ECC_INFOROM_VER"),
    ("DCGM_FI_DEV_INFOROM_IMAGE_VERSION", "DCGM_FI_DEV_INFOROM_IMAGE_VER"),
    ("DCGM_FI_DEV_INFOROM_OEM_VERSION", "DCGM_FI_DEV_OEM_INFOROM_VER"),
    ("DCGM_FI_DEV_INFOROM_POWER_VERSION", "DCGM_FI_DEV_POWER_INFOROM_VER"),
    ("DCGM_FI_DEV_MEMORY_MAX_OP_TEMP_CELSIUS", "DCGM_FI_DEV_MEM_MAX_OP_TEMP"),
    ("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", "DCGM_FI_DEV_MEMORY_TEMP"),
    ("DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS", "DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL"),
    (
        "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS",
        "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL",
    ),
    (
        "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS",
        "DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL",
    ),
    ("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_ERROR_DL_CRC", "DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_ERROR_DL_RECOVERY", "DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_ERROR_DL_REPLAY", "DCGM_FI_DEV_NVLINK_REPLAY_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_LINK_STATUS", "DCGM_FI_DEV_NVLINK_GET_STATE"),
    ("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL", "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_TOTAL", "DCGM_FI_DEV_NVLINK_RX_BANDWIDTH_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL", "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),
    ("DCGM_FI_DEV_NVLINK_TX_THROUGHPUT_TOTAL", "DCGM_FI_DEV_NVLINK_TX_BANDWIDTH_TOTAL"),
    ("DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL", "DCGM_FI_DEV_RETIRED_DBE"),
    ("DCGM_FI_DEV_PAGE_RETIRED_PENDING", "DCGM_FI_DEV_RETIRED_PENDING"),
    ("DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL", "DCGM_FI_DEV_RETIRED_SBE"),
    ("DCGM_FI_DEV_PCIE_REPLAY_TOTAL", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    ("DCGM_FI_DEV_PCI_BUS_ID", "DCGM_FI_DEV_PCI_BUSID"),
    ("DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"),
    ("DCGM_FI_DEV_ROW_REMAP_FAILED", "DCGM_FI_DEV_ROW_REMAP_FAILURE"),
    ("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"),
    ("DCGM_FI_DEV_SRAM_EXCEEDED", "DCGM_FI_DEV_THRESHOLD_SRM"),
    ("DCGM_FI_DEV_XID_ERROR", "DCGM_FI_DEV_XID_ERRORS"),
    ("DCGM_FI_PROF_DFMA_UTIL_RATIO", "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE"),
    ("DCGM_FI_PROF_DRAM_UTIL_RATIO", "DCGM_FI_PROF_DRAM_ACTIVE"),
    ("DCGM_FI_PROF_FP16_UTIL_RATIO", "DCGM_FI_PROF_PIPE_FP16_ACTIVE"),
    ("DCGM_FI_PROF_FP32_UTIL_RATIO", "DCGM_FI_PROF_PIPE_FP32_ACTIVE"),
    ("DCGM_FI_PROF_FP64_UTIL_RATIO", "DCGM_FI_PROF_PIPE_FP64_ACTIVE"),
    ("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    ("DCGM_FI_PROF_HMMA_UTIL_RATIO", "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE"),
    ("DCGM_FI_PROF_IMMA_UTIL_RATIO", "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE"),
    ("DCGM_FI_PROF_INT_UTIL_RATIO", "DCGM_FI_PROF_PIPE_INT_ACTIVE"),
    ("DCGM_FI_PROF_SM_OCCUPANCY_RATIO", "DCGM_FI_PROF_SM_OCCUPANCY"),
    ("DCGM_FI_PROF_SM_UTIL_RATIO", "DCGM_FI_PROF_SM_ACTIVE"),
    ("DCGM_FI_PROF_TENSOR_UTIL_RATIO", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
    ("DCGM_FI_SYSTEM_DRIVER_VERSION", "DCGM_FI_DRIVER_VERSION"),
    ("DCGM_FI_SYSTEM_GPU_QUANTITY", "DCGM_FI_DEV_COUNT"),
    ("DCGM_FI_SYSTEM_NVML_VERSION", "DCGM_FI_NVML_VERSION"),
];

const FIRST_EXPORTER: &[(&str, &str)] = &[
    ("dcgm_board_limit_violation", "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION"),
    ("dcgm_dec_utilization", "DCGM_FI_DEV_DEC_UTIL"),
    ("dcgm_ecc_dbe_aggregate_total", "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"),
    ("dcgm_ecc_dbe_volatile_total", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
    ("dcgm_ecc_sbe_aggregate_total", "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL"),
    ("dcgm_ecc_sbe_volatile_total", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
    ("dcgm_enc_utilization", "DCGM_FI_DEV_ENC_UTIL"),
    ("dcgm_fb_free", "DCGM_FI_DEV_FB_FREE"),
    ("dcgm_fb_used", "DCGM_FI_DEV_FB_USED"),
    ("dcgm_gpu_temp", "DCGM_FI_DEV_GPU_TEMP"),
    ("dcgm_gpu_utilization", "DCGM_FI_DEV_GPU_UTIL"),
    ("dcgm_low_util_violation", "DCGM_FI_DEV_LOW_UTIL_VIOLATION"),
    ("dcgm_mem_copy_utilization", "DCGM_FI_DEV_MEM_COPY_UTIL"),
    ("dcgm_memory_clock", "DCGM_FI_DEV_MEM_CLOCK"),
    ("dcgm_memory_temp", "DCGM_FI_DEV_MEMORY_TEMP"),
    ("dcgm_nvlink_bandwidth_total", "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),
    ("dcgm_nvlink_data_crc_error_count_total", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL"),
    ("dcgm_nvlink_flit_crc_error_count_total", "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"),
    ("dcgm_nvlink_recovery_error_count_total", "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"),
    ("dcgm_nvlink_replay_error_count_total", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"),
    ("dcgm_pcie_replay_counter", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    ("dcgm_pcie_rx_throughput", "DCGM_FI_DEV_PCIE_RX_THROUGHPUT"),
    ("dcgm_pcie_tx_throughput", "DCGM_FI_DEV_PCIE_TX_THROUGHPUT"),
    ("dcgm_power_usage", "DCGM_FI_DEV_POWER_USAGE"),
    ("dcgm_power_violation", "DCGM_FI_DEV_POWER_VIOLATION"),
    ("dcgm_reliability_violation", "DCGM_FI_DEV_RELIABILITY_VIOLATION"),
    ("dcgm_retired_pages_dbe", "DCGM_FI_DEV_RETIRED_DBE"),
    ("dcgm_retired_pages_pending", "DCGM_FI_DEV_RETIRED_PENDING"),
    ("dcgm_retired_pages_sbe", "DCGM_FI_DEV_RETIRED_SBE"),
    ("dcgm_sm_clock", "DCGM_FI_DEV_SM_CLOCK"),
    ("dcgm_sync_boost_violation", "DCGM_FI_DEV_SYNC_BOOST_VIOLATION"),
    ("dcgm_thermal_violation", "DCGM_FI_DEV_THERMAL_VIOLATION"),
    ("dcgm_total_energy_consumption", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
    ("dcgm_xid_errors", "DCGM_FI_DEV_XID_ERRORS"),
    ("dcgm_fi_prof_gr_engine_active", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    ("dcgm_fi_prof_sm_active", "DCGM_FI_PROF_SM_ACTIVE"),
    ("dcgm_fi_prof_sm_occupancy", "DCGM_FI_PROF_SM_OCCUPANCY"),
    ("dcgm_fi_prof_pipe_tensor_active", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
    ("dcgm_fi_prof_dram_active", "DCGM_FI_PROF_DRAM_ACTIVE"),
    ("dcgm_fi_prof_pipe_fp64_active", "DCGM_FI_PROF_PIPE_FP64_ACTIVE"),
    ("dcgm_fi_prof_pipe_fp32_active", "DCGM_FI_PROF_PIPE_FP32_ACTIVE"),
    ("dcgm_fi_prof_pipe_fp16_active", "DCGM_FI_PROF_PIPE_FP16_ACTIVE"),
    ("dcgm_fi_prof_pcie_tx_bytes", "DCGM_FI_PROF_PCIE_TX_BYTES"),
    ("dcgm_fi_prof_pcie_rx_bytes", "DCGM_FI_PROF_PCIE_RX_BYTES"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_the_alias_is_kept() {
        let row = |name| row_of(name).unwrap_or_default();
        assert_eq!(row("DCGM_FI_PROF_NVDEC_UTIL_3_RATIO"), "DCGM_FI_PROF_NVDEC3_ACTIVE");
        assert_eq!(row("DCGM_FI_DEV_NVLINK_THROUGHPUT_L17"), "DCGM_FI_DEV_NVLINK_BANDWIDTH_L17");
        assert_eq!(row("DCGM_FI_DEV_NVLINK_THROUGHPUT_L07"), "");
        assert_eq!(row("dcgm_gpu_utilization"), "DCGM_FI_DEV_GPU_UTIL");
    }
}
