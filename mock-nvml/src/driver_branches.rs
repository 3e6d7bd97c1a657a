//! The first driver branch of each NVML symbol, and the CUDA version of each branch.
//!
//! The symbols of the 470, 525, 535 and 550 branches are those that their libraries export. The
//! exact branch of a symbol that came between two of them is not verified. Those of 570, 575, 580, 590,
//! 595, 610 and 615 are what the headers of CUDA 12.8 to 13.5 declare, which a test compares; no library of
//! these branches was seen. Releases of a branch after its header may have more: some of 580 have
//! `nvmlDeviceGetUnrepairableMemoryFlag_v1`.

/// Symbols that some branches lack, by the first branch that has them. All other symbols are in
/// every branch. Includes symbols that this library does not export yet.
const SINCE: &[(u32, &[&str])] = &[
    (
        510,
        &[
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
            "nvmlDeviceGetMPSComputeRunningProcesses_v3",
            "nvmlDeviceGetDefaultEccMode",
            "nvmlDeviceGetNumGpuCores",
            "nvmlDeviceGetMemoryBusWidth",
            "nvmlDeviceGetPowerSource",
            "nvmlDeviceGetBusType",
            "nvmlDeviceGetAdaptiveClockInfoStatus",
            "nvmlDeviceGetPcieLinkMaxSpeed",
            "nvmlDeviceGetPcieSpeed",
            "nvmlDeviceGetGpuMaxPcieLinkGeneration",
            "nvmlDeviceGetNumFans",
        ],
    ),
    (
        515,
        &[
            "nvmlDeviceGetGspFirmwareVersion",
            "nvmlDeviceGetGspFirmwareMode",
            "nvmlDeviceGetTargetFanSpeed",
            "nvmlDeviceGetMinMaxFanSpeed",
        ],
    ),
    (
        520,
        &[
            "nvmlGpmMetricsGet",
            "nvmlGpmSampleAlloc",
            "nvmlGpmSampleFree",
            "nvmlGpmSampleGet",
            "nvmlGpmMigSampleGet",
            "nvmlGpmQueryDeviceSupport",
        ],
    ),
    (
        525,
        &[
            "nvmlDeviceGetGpuInstanceProfileInfoV",
            "nvmlGpuInstanceGetComputeInstanceProfileInfoV",
            "nvmlGpuInstanceGetComputeInstancePossiblePlacements",
            "nvmlDeviceGetGpuFabricInfo",
            "nvmlDeviceGetIrqNum",
            "nvmlDeviceClearFieldValues",
        ],
    ),
    (530, &["nvmlGpmQueryIfStreamingEnabled", "nvmlGpmSetStreamingEnabled"]),
    (
        535,
        &[
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetSupportedClocksEventReasons",
            "nvmlDeviceGetRunningProcessDetailList",
            "nvmlDeviceGetModuleId",
            "nvmlDeviceGetJpgUtilization",
            "nvmlDeviceGetOfaUtilization",
            "nvmlDeviceGetSramEccErrorStatus",
            "nvmlSystemGetConfComputeState",
        ],
    ),
    (
        550,
        &[
            "nvmlDeviceGetProcessesUtilizationInfo",
            "nvmlDeviceGetPciInfoExt",
            "nvmlDeviceGetGpuFabricInfoV",
        ],
    ),
    (560, &["nvmlSystemGetDriverBranch", "nvmlDeviceGetDriverModel_v2"]),
    (
        570,
        &[
            "nvmlDeviceGetTemperatureV",
            "nvmlDeviceGetMarginTemperature",
            "nvmlDeviceGetPlatformInfo",
            "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles",
        ],
    ),
    (580, &["nvmlDeviceGetRepairStatus"]),
    (590, &["nvmlDeviceGetUnrepairableMemoryFlag_v1"]),
    (615, &["nvmlDeviceGetGpuFabricInfo_v4", "nvmlDeviceGetMemoryLimits_v1"]),
];

/// The first branch of each CUDA version, and that version as in [`crate::scenario::Driver`].
const CUDA: &[(u32, i32)] = &[
    (470, 11_040),
    (510, 11_060),
    (515, 11_070),
    (520, 11_080),
    (525, 12_000),
    (530, 12_010),
    (535, 12_020),
    (545, 12_030),
    (550, 12_040),
    (555, 12_050),
    (560, 12_060),
    (565, 12_070),
    (570, 12_080),
    (575, 12_090),
    (580, 13_000),
    (590, 13_010),
    (595, 13_020),
    (610, 13_030),
    (615, 13_040),
];

/// The symbols that a driver of this branch does not have.
pub(crate) fn missing_symbols<'a>(
    branch: u32,
    symbols: &'a [&'static str],
) -> impl Iterator<Item = &'static str> + 'a {
    symbols.iter().copied().filter(move |symbol| {
        SINCE.iter().any(|(since, names)| branch < *since && names.contains(symbol))
    })
}

/// The CUDA version of a driver of this branch.
pub(crate) fn cuda_version(branch: u32) -> i32 {
    let older = CUDA.iter().take_while(|(since, _)| *since <= branch);
    older.last().or(CUDA.first()).map_or(12_000, |(_, cuda)| *cuda)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::exported_functions::FUNCTIONS;

    #[test]
    fn branch_lacks_symbols_of_later_branches() {
        let lacks =
            |branch: u32, symbol: &str| missing_symbols(branch, FUNCTIONS).any(|one| one == symbol);
        assert!(
            lacks(470, "nvmlDeviceGetMemoryInfo_v2") && !lacks(525, "nvmlDeviceGetMemoryInfo_v2")
        );
        let lists = "nvmlDeviceGetComputeRunningProcesses_v3";
        assert!(lacks(470, lists) && !lacks(525, lists));
        let rows = "nvmlDeviceGetProcessesUtilizationInfo";
        assert!(lacks(470, rows) && lacks(535, rows) && !lacks(550, rows));
        let old = ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses_v2"];
        assert!(old.iter().all(|symbol| !lacks(470, symbol)));
        assert_eq!(missing_symbols(u32::MAX, FUNCTIONS).count(), 0);
    }

    #[test]
    fn tables_are_sorted_and_symbols_unique() {
        assert!(SINCE.is_sorted_by(|a, b| a.0 < b.0) && CUDA.is_sorted());
        let mut seen = HashSet::new();
        assert!(SINCE.iter().flat_map(|(_, symbols)| *symbols).all(|symbol| seen.insert(symbol)));
        assert_eq!(
            [cuda_version(390), cuda_version(470), cuda_version(550), cuda_version(590)],
            [11_040, 11_040, 12_040, 13_010]
        );
    }
}
