//! Memory and utilization.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlProcessUtilizationSample_t,
    nvmlReturn_t, nvmlUtilization_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, put_rows},
    },
    models::table::BLACKWELL,
    return_code::{NvmlResult, ReturnCode},
    world::{board::Board, sample_ring::UtilizationRow},
};

/// The count that `nvmlDeviceGetProcessUtilization` returns to a call without a buffer, in rows.
const SIZE_HINT: c_uint = 100;
/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_V2: c_uint = (2 << 24) | 0x28;
const _: () = assert!(size_of::<nvmlMemory_v2_t>() == 40);

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetMemoryInfo", device, out);
    dispatch(|| {
        let memory = board("nvmlDeviceGetMemoryInfo", device, Board::framebuffer)?;
        // Version 1 counts the reserved memory as used.
        let used = memory.used + memory.reserved;
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, nvmlMemory_t { total: memory.total, free: memory.free, used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetMemoryInfo_v2", device, out);
    dispatch(|| {
        let memory = board("nvmlDeviceGetMemoryInfo_v2", device, Board::framebuffer)?;
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins with its version.
        let version = unsafe { out.cast::<c_uint>().read() };
        if version != MEMORY_V2 {
            return Err(ReturnCode::ARGUMENT_VERSION_MISMATCH);
        }
        let crate::world::board::usage::Memory { total, reserved, used, free } = memory;
        // SAFETY: as above.
        unsafe { put(out, nvmlMemory_v2_t { version, total, reserved, free, used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlBAR1Memory_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetBAR1MemoryInfo", device, out);
    dispatch(|| {
        let bar1 = board("nvmlDeviceGetBAR1MemoryInfo", device, |board| {
            board.framebuffer().map(|_| board.bar1())
        })?;
        let (bar1Total, bar1Free, bar1Used) = (bar1.total, bar1.free, bar1.used);
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, nvmlBAR1Memory_t { bar1Total, bar1Free, bar1Used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    out: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetUtilizationRates", device, out);
    dispatch(|| {
        let (gpu, memory) =
            board("nvmlDeviceGetUtilizationRates", device, |board| Ok(board.utilization()))?;
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, nvmlUtilization_t { gpu, memory }) }
    })
}

/// Functions that return an engine's utilization in percent and its sampling period in µs.
macro_rules! engines {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            utilization: *mut c_uint,
            period: *mut c_uint,
        ) -> nvmlReturn_t {
            tap!(stringify!($name), device, utilization, period);
            dispatch(|| {
                let read: fn(&Board) -> NvmlResult<c_uint> = $read;
                let (percent, micros) = board(stringify!($name), device, |board| {
                    Ok((read(board)?, board.sample_period_us()))
                })?;
                if period.is_null() {
                    return Err(ReturnCode::INVALID_ARGUMENT);
                }
                // SAFETY: the caller passes null or a valid pointer to the percentage.
                unsafe { put(utilization, percent) }?;
                // SAFETY: the caller passes null or a valid pointer to the period.
                unsafe { put(period, micros) }
            })
        }
    )*};
}

engines! {
    nvmlDeviceGetEncoderUtilization = |board| Ok(board.encoder());
    nvmlDeviceGetDecoderUtilization = |board| Ok(board.decoder());
    nvmlDeviceGetJpgUtilization = Board::jpg;
    nvmlDeviceGetOfaUtilization = Board::ofa;
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    samples: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetProcessUtilization", device, samples, count, last_seen);
    dispatch(|| {
        if count.is_null() {
            // The handle is checked first, as in all other functions.
            return board("nvmlDeviceGetProcessUtilization", device, |_| Ok(()))
                .and(Err(ReturnCode::INVALID_ARGUMENT));
        }
        // SAFETY: not null, so the caller's count.
        let capacity = unsafe { count.read() };
        let sized = !samples.is_null() && capacity > 0;
        let rows = board("nvmlDeviceGetProcessUtilization", device, |board| {
            // From Blackwell on, only `nvmlDeviceGetProcessesUtilizationInfo` is supported.
            if board.model().architecture >= BLACKWELL {
                return Err(ReturnCode::NOT_SUPPORTED);
            }
            if sized { board.process_utilization(last_seen) } else { Ok(vec![]) }
        })?;
        if !sized {
            // SAFETY: as above.
            unsafe { count.write(SIZE_HINT) };
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        let rows: Vec<_> = rows.into_iter().map(sample).collect();
        // SAFETY: the caller's array has room for as many rows as the count states.
        unsafe { put_rows(count, samples, &rows) }
    })
}

fn sample(row: UtilizationRow) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid: row.pid,
        timeStamp: row.stamp,
        smUtil: row.sm,
        memUtil: row.mem,
        encUtil: row.enc,
        decUtil: row.dec,
    }
}
