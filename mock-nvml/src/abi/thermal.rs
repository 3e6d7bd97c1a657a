//! Temperatures and fans.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlMarginTemperature_v1_t, nvmlTemperature_v1_t};

use crate::{
    return_code::{NvmlResult, ReturnCode},
    world::board::Board,
};

indexed! {
    nvmlDeviceGetTemperature = temperature;
    nvmlDeviceGetTemperatureThreshold = Board::threshold;
    nvmlDeviceGetFanSpeed_v2 = Board::fan;
    nvmlDeviceGetTargetFanSpeed = Board::fan;
}

values! {
    nvmlDeviceGetFanSpeed: c_uint = |board| board.fan(0);
    nvmlDeviceGetNumFans: c_uint = |board| Ok(board.model().fans);
}

pairs! {
    nvmlDeviceGetMinMaxFanSpeed: c_uint = |board| board.fan(0).map(|_| (30, 100));
}

versioned! {
    nvmlDeviceGetTemperatureV: nvmlTemperature_v1_t, 1 = |board, request| {
        let celsius = temperature(board, request.sensorType)?;
        let temperature = c_int::try_from(celsius).map_err(|_| ReturnCode::UNKNOWN)?;
        Ok(nvmlTemperature_v1_t { temperature, ..request })
    };
    nvmlDeviceGetMarginTemperature: nvmlMarginTemperature_v1_t, 1 = |board, request| {
        Ok(nvmlMarginTemperature_v1_t { marginTemperature: board.temperature_margin()?, ..request })
    };
}

fn temperature(board: &Board, sensor: c_uint) -> NvmlResult<c_uint> {
    match sensor {
        0 => Ok(board.temperature()),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}
