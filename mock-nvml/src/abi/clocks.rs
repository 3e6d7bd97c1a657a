//! Clocks, P-states and clock event reasons.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t, nvmlViolationTime_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::put,
    },
    return_code::ReturnCode,
    world::board::Board,
};

/// All clock event reasons (`nvmlClocksEventReason…`) of a driver of the 550 branch.
const ALL_REASONS: c_ulonglong = 0x1ff;

values! {
    nvmlDeviceGetPerformanceState: c_uint = |board| Ok(board.pstate());
    nvmlDeviceGetPowerState: c_uint = |board| Ok(board.pstate());
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |board| Ok(board.clock_event_reasons());
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |board| Ok(board.clock_event_reasons());
    nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong = |_| Ok(ALL_REASONS);
    nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong = |_| Ok(ALL_REASONS);
    nvmlDeviceGetAdaptiveClockInfoStatus: c_uint = |_| Ok(1);
}

indexed! {
    nvmlDeviceGetClockInfo = Board::clock;
    nvmlDeviceGetMaxClockInfo = Board::max_clock;
    nvmlDeviceGetApplicationsClock = Board::applications_clock;
    nvmlDeviceGetDefaultApplicationsClock = Board::applications_clock;
    nvmlDeviceGetMaxCustomerBoostClock = |board, domain| {
        board.applications_clock(domain)?;
        board.max_clock(domain)
    };
}

pairs! {
    // Only boards before Pascal have it.
    nvmlDeviceGetAutoBoostedClocksEnabled: c_uint = |_| Err(ReturnCode::NOT_SUPPORTED);
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetClock(
    device: nvmlDevice_t,
    domain: c_uint,
    clock_id: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetClock", device, domain, clock_id, out);
    dispatch(|| {
        let clock = board("nvmlDeviceGetClock", device, |board| match clock_id {
            0 => board.clock(domain),
            1 | 2 => board.applications_clock(domain),
            3 => board.applications_clock(domain).and_then(|_| board.max_clock(domain)),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        })?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, clock) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetViolationStatus(
    device: nvmlDevice_t,
    policy: c_uint,
    out: *mut nvmlViolationTime_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetViolationStatus", device, policy, out);
    dispatch(|| {
        let (reference, nanoseconds) = board("nvmlDeviceGetViolationStatus", device, |board| {
            Ok((board.now().wall, board.violation(policy)?))
        })?;
        let times = nvmlViolationTime_t { referenceTime: reference, violationTime: nanoseconds };
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, times) }
    })
}
