//! Power and energy.

use std::ffi::{c_uint, c_ulonglong};

use crate::{
    numeric::round_u32,
    return_code::{NvmlResult, ReturnCode},
    world::board::Board,
};

values! {
    nvmlDeviceGetPowerUsage: c_uint = |board| Ok(board.power());
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |board| Ok(board.energy());
    nvmlDeviceGetPowerManagementMode: c_uint = |_| Ok(1);
    nvmlDeviceGetPowerManagementLimit: c_uint = |board| limit(board, board.power_limit());
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint = |board| limit(board, board.default_power_limit());
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |board| limit(board, board.power_limit());
    nvmlDeviceGetPowerSource: c_uint = |_| Ok(0);
}

pairs! {
    nvmlDeviceGetPowerManagementLimitConstraints: c_uint = |board| {
        limit(board, board.power_limit())?;
        let (least, most) = board.model().limit_range_watts;
        Ok((round_u32(least * 1_000.0), round_u32(most * 1_000.0)))
    };
}

/// A limit in mW. Systems on chip have none that NVML reports.
fn limit(board: &Board, milliwatts: u32) -> NvmlResult<c_uint> {
    if board.model().extras.unified_memory {
        return Err(ReturnCode::NOT_SUPPORTED);
    }
    Ok(milliwatts)
}
