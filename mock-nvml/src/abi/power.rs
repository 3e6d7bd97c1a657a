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
    nvmlDeviceGetPowerManagementLimit: c_uint = |board| power_limit(board);
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint = |board| power_limit(board);
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |board| power_limit(board);
    nvmlDeviceGetPowerSource: c_uint = |_| Ok(0);
}

pairs! {
    nvmlDeviceGetPowerManagementLimitConstraints: c_uint = |board| {
        power_limit(board)?;
        let (least, most) = board.model().limit_range_watts;
        Ok((round_u32(least * 1_000.0), round_u32(most * 1_000.0)))
    };
}

/// Systems on chip have no limit that NVML reports.
fn power_limit(board: &Board) -> NvmlResult<c_uint> {
    if board.model().extras.unified_memory {
        Err(ReturnCode::NOT_SUPPORTED)
    } else {
        Ok(board.power_limit())
    }
}
