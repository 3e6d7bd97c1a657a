//! Which functions support partitioned GPUs and MIG devices.

use crate::{
    return_code::{NvmlResult, ReturnCode},
    world::board::{Board, view::BoardView},
};

/// The functions that accept the handle of a MIG device; others return `NOT_SUPPORTED`.
const ON_MIG_DEVICES: &[&str] = &[
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetBrand",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetRunningProcessDetailList",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetAttributes",
    "nvmlDeviceGetAttributes_v2",
];

/// The functions that return `NOT_SUPPORTED` for a GPU in MIG mode.
const NOT_ON_PARTITIONED: &[&str] = &[
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization",
    "nvmlDeviceGetJpgUtilization",
    "nvmlDeviceGetOfaUtilization",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetProcessesUtilizationInfo",
];

/// Checks whether a function accepts this device.
///
/// # Errors
/// `NOT_SUPPORTED`, or `INVALID_ARGUMENT` for a GPU or compute instance.
pub(super) fn check_supported(function: &str, board: &Board) -> NvmlResult<()> {
    let supported = match board.view() {
        BoardView::Board => board.layout().is_none() || !NOT_ON_PARTITIONED.contains(&function),
        BoardView::MigDevice(..) => ON_MIG_DEVICES.contains(&function),
        BoardView::GpuInstance(_) | BoardView::ComputeInstance(..) => {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
    };
    if supported { Ok(()) } else { Err(ReturnCode::NOT_SUPPORTED) }
}
