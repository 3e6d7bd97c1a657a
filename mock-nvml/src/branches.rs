//! Which driver branch brought which symbol.
//!
//! What the 470, 525, 535 and 550 branches have is what their libraries export. Of a symbol that came
//! between two of them, the exact branch may be another one.

/// Symbols that not every branch has, and the first that does. Older ones are in all of them. It names
/// some that this library does not have, so that they need no thought when they come.
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
    (570, &["nvmlDeviceGetTemperatureV"]),
];

/// The CUDA version, as [`crate::scenario::Driver`] keeps it, that each branch from the first named on
/// came with.
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
];

/// Those of `symbols` that a driver of this branch does not have.
pub(crate) fn lacking<'a>(
    branch: u32,
    symbols: &'a [&'static str],
) -> impl Iterator<Item = &'static str> + 'a {
    symbols.iter().copied().filter(move |symbol| {
        SINCE.iter().any(|(since, those)| branch < *since && those.contains(symbol))
    })
}

/// The CUDA version that a driver of this branch came with.
pub(crate) fn cuda(branch: u32) -> i32 {
    let before = CUDA.iter().take_while(|(since, _)| *since <= branch);
    before.last().or(CUDA.first()).map_or(12_000, |(_, cuda)| *cuda)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::abi::FUNCTIONS;

    #[test]
    fn a_branch_lacks_what_came_after_it() {
        let lacks = |branch: u32, symbol: &str| lacking(branch, FUNCTIONS).any(|one| one == symbol);
        assert!(
            lacks(470, "nvmlDeviceGetMemoryInfo_v2") && !lacks(525, "nvmlDeviceGetMemoryInfo_v2")
        );
        let lists = "nvmlDeviceGetComputeRunningProcesses_v3";
        assert!(lacks(470, lists) && !lacks(525, lists));
        let rows = "nvmlDeviceGetProcessesUtilizationInfo";
        assert!(lacks(470, rows) && lacks(535, rows) && !lacks(550, rows));
        let old = ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses_v2"];
        assert!(old.iter().all(|symbol| !lacks(470, symbol)));
        assert_eq!(lacking(u32::MAX, FUNCTIONS).count(), 0);
    }

    #[test]
    fn the_tables_are_in_order_and_name_each_symbol_once() {
        assert!(SINCE.is_sorted_by(|a, b| a.0 < b.0) && CUDA.is_sorted());
        let mut seen = HashSet::new();
        assert!(SINCE.iter().flat_map(|(_, symbols)| *symbols).all(|symbol| seen.insert(symbol)));
        assert_eq!([cuda(390), cuda(470), cuda(550), cuda(590)], [11_040, 11_040, 12_040, 13_000]);
    }
}
