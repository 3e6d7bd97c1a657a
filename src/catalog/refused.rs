//! Fields of DCGM that have no row, and why.

/// Why there is no row for a field of DCGM; `None` for a name that is not known.
#[must_use]
pub fn reason(name: &str) -> Option<&'static str> {
    let covers = |pattern: &str| match pattern.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => name == pattern,
    };
    REFUSED
        .iter()
        .find(|(patterns, _)| patterns.iter().any(|pattern| covers(pattern)))
        .map(|(_, why)| *why)
}

/// Names with the same reason; `*` stands for any end of a name. The first that covers a name holds, unless it is
/// that of a row.
pub const REFUSED: &[(&[&str], &str)] = &[
    (
        &["DCGM_FI_DEV_ENC_STATS"],
        "binary in DCGM; its numbers are DCGM_CUSTOM_DEV_ENC_SESSIONS, DCGM_CUSTOM_DEV_ENC_AVERAGE_FPS and DCGM_CUSTOM_DEV_ENC_AVERAGE_LATENCY",
    ),
    (
        &["DCGM_FI_DEV_FBC_STATS"],
        "binary in DCGM; its numbers are DCGM_CUSTOM_DEV_FBC_SESSIONS, DCGM_CUSTOM_DEV_FBC_AVERAGE_FPS and DCGM_CUSTOM_DEV_FBC_AVERAGE_LATENCY",
    ),
    (
        &["DCGM_FI_DEV_ACCOUNTING_DATA", "DCGM_FI_DEV_PROCESS_ACCOUNTING_STATS"],
        "binary in DCGM, and needs the accounting mode, which root has to enable; the use of processes and containers is in DCGM_CUSTOM_PROCESS_* and DCGM_CUSTOM_CONTAINER_*",
    ),
    (
        &[
            "DCGM_FI_DEV_COMPUTE_PIDS",
            "DCGM_FI_DEV_GRAPHICS_PIDS",
            "DCGM_FI_PROCESS_NAME",
            "DCGM_FI_SYSTEM_PROCESS_NAME",
        ],
        "of a process, which is a label of DCGM_CUSTOM_PROCESS_MEM_USED",
    ),
    (
        &[
            "DCGM_FI_DEV_FBC_SESSIONS_INFO",
            "DCGM_FI_DEV_CLOCKS_SUPPORTED",
            "DCGM_FI_DEV_SUPPORTED_CLOCKS",
            "DCGM_FI_DEV_MIG_ATTRIBUTES",
            "DCGM_FI_DEV_MIG_GI_INFO",
            "DCGM_FI_DEV_MIG_CI_INFO",
            "DCGM_FI_GPU_TOPOLOGY_*",
            "DCGM_FI_SYSTEM_PCI_TOPOLOGY",
            "DCGM_FI_SYSTEM_NVLINK_TOPOLOGY",
            "DCGM_FI_SYSTEM_GPU_AFFINITY",
        ],
        "binary in DCGM: a list or a matrix, not a number",
    ),
    (
        &[
            "DCGM_FI_DEV_CPU_AFFINITY_*",
            "DCGM_FI_DEV_MEM_AFFINITY_*",
            "DCGM_FI_DEV_MEMORY_AFFINITY_*",
        ],
        "a mask of 64 bits, which no sample holds exactly",
    ),
    (
        &["DCGM_FI_DEV_NVLINK_P2P_STATUS", "DCGM_FI_DEV_P2P_NVLINK_STATUS"],
        "a mask of all GPUs; DCGM_EXP_P2P_STATUS has the status of each pair",
    ),
    (
        &["DCGM_FI_DEV_INFOROM_CHECKSUM", "DCGM_FI_DEV_INFOROM_CONFIG_CHECK"],
        "a checksum is no measurement; DCGM_FI_DEV_INFOROM_VALID states whether it is right",
    ),
    (
        &["DCGM_FI_DEV_AUTOBOOST", "DCGM_FI_DEV_CLOCKS_AUTOBOOST_MODE"],
        "a setting of Kepler and Maxwell only",
    ),
    (
        &["DCGM_FI_DEV_CUDA_VISIBLE_DEVICES_STR", "DCGM_FI_CUDA_GPU_VISIBLE_DEVICES"],
        "the label UUID has the same text",
    ),
    (
        &["DCGM_FI_PROF_HOSTMEM_CACHE_*", "DCGM_FI_PROF_PEERMEM_CACHE_*"],
        "NVML documents a percentage, DCGM an integer without a unit",
    ),
    (
        &["DCGM_FI_DEV_NVLINK_PPCNT_*", "DCGM_FI_DEV_NVLINK_PPRM_*"],
        "registers of the port of a link; DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL and the other counters of links are read from the driver",
    ),
    (
        &["DCGM_FI_BIND_UNBIND_EVENT", "DCGM_FI_SYSTEM_GPU_BIND_EVENT"],
        "an event of the driver; see nvml_exporter_driver_up and DCGM_FI_DEV_COUNT",
    ),
    (
        &["DCGM_FI_DEV_GPU_NVLINK_ERRORS", "DCGM_FI_DEV_NVLINK_ERROR"],
        "an event of DCGM itself; DCGM_EXP_GPU_HEALTH_STATUS has the watch NVLINK",
    ),
    (&["DCGM_FI_SYNC_BOOST", "DCGM_FI_SYSTEM_GPU_SYNC_BOOST"], "a setting of a group in DCGM"),
    (&["DCGM_FI_DEV_DIAG_*"], "a result of DCGM's diagnostics"),
    (
        &[
            "DCGM_FI_DEV_VGPU_*",
            "DCGM_FI_DEV_SUPPORTED_TYPE_INFO",
            "DCGM_FI_DEV_SUPPORTED_VGPU_TYPE_IDS",
            "DCGM_FI_DEV_CREATABLE_VGPU_TYPE_IDS",
        ],
        "of the vGPUs of a hypervisor, which this exporter does not read",
    ),
    (
        &["DCGM_FI_DEV_CPU_*", "DCGM_FI_DEV_SYSIO_POWER_*", "DCGM_FI_DEV_MODULE_POWER_*"],
        "of a CPU, which NVML does not read",
    ),
    (&["DCGM_FI_DEV_NVSWITCH_*", "DCGM_FI_DEV_SXID_*"], "of an NVSwitch, which NVML does not read"),
    (&["DCGM_FI_DEV_CONNECTX_*"], "of a network card, which NVML does not read"),
    (&["DCGM_FI_IMEX_*"], "of the IMEX daemon, which NVML does not read"),
    (
        &[
            "DCGM_FI_UNKNOWN",
            "DCGM_FI_SYSTEM_FIELD_UNKNOWN",
            "DCGM_FI_INTERNAL_*",
            "DCGM_FI_MAX_*",
            "DCGM_FI_FIRST_*",
            "DCGM_FI_LAST_*",
            "DCGM_FI_DEV_FIRST_*",
            "DCGM_FI_DEV_LAST_*",
        ],
        "a limit of the numbers of fields, not a field",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::find;

    #[test]
    fn reason_is_that_of_the_first_pattern() {
        assert!(reason("DCGM_FI_DEV_ENC_STATS").unwrap().contains("DCGM_CUSTOM_DEV_ENC_SESSIONS"));
        assert_eq!(reason("DCGM_FI_DEV_CPU_AFFINITY_3"), reason("DCGM_FI_DEV_MEM_AFFINITY_0"));
        assert_eq!(
            reason("DCGM_FI_DEV_CPU_UTIL_TOTAL"),
            Some("of a CPU, which NVML does not read")
        );
        assert_eq!(reason("DCGM_FI_DEV_GPU_TEMPERATURE"), None);
    }

    #[test]
    fn refused_names_have_no_row_and_named_series_exist() {
        for (patterns, why) in REFUSED {
            for pattern in *patterns {
                assert!(pattern.starts_with("DCGM_") && find(pattern).is_none(), "{pattern}");
            }
            let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            let names = why.split(word).filter(|word| word.starts_with("DCGM_"));
            for name in names.filter(|name| !name.ends_with('_')) {
                assert!(find(name).is_some(), "{name} in {why:?}");
            }
        }
    }
}
