//! `nvmlDeviceGetFieldValues`: several values in one call.

use std::{
    ffi::{c_int, c_longlong, c_ulonglong},
    slice,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t};

use crate::{
    abi::call::{board, dispatch},
    return_code::ReturnCode,
    world::board::{Board, fields::FieldValue},
};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetFieldValues", device, count, values);
    dispatch(|| {
        let board = board("nvmlDeviceGetFieldValues", device, |board| Ok(board.clone()))?;
        let count = usize::try_from(count).map_err(|_| ReturnCode::INVALID_ARGUMENT)?;
        if count == 0 || values.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: the caller passes that many structs, not aliased during the call.
        for value in unsafe { slice::from_raw_parts_mut(values, count) } {
            fill(value, &board);
        }
        Ok(())
    })
}

fn fill(value: &mut nvmlFieldValue_t, board: &Board) {
    let result = board.field(value.fieldId, value.scopeId);
    value.nvmlReturn = result.err().map_or(0, |code| code.0);
    value.timestamp = c_longlong::try_from(board.driver_time()).unwrap_or(c_longlong::MAX);
    value.latencyUsec = 1;
    // Writes the whole union: a short value must leave no stale bytes.
    (value.valueType, value.value) = match result {
        Ok(FieldValue::U32(number)) => (1, nvmlValue_t { ullVal: c_ulonglong::from(number) }),
        Ok(FieldValue::U64(number)) => (3, nvmlValue_t { ullVal: number }),
        // Sign-extended to the upper half.
        Ok(FieldValue::I32(number)) => (5, nvmlValue_t { sllVal: c_longlong::from(number) }),
        Err(_) => (0, nvmlValue_t { ullVal: 0 }),
    };
}
