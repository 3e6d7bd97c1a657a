//! Memory, utilization, processes and fields.

use std::{
    ffi::{c_int, c_longlong, c_uint, c_ulonglong},
    slice,
};

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlFieldValue_t, nvmlMemory_t, nvmlMemory_v2_t,
    nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, nvmlProcessUtilizationSample_t, nvmlReturn_t,
    nvmlUtilization_t, nvmlValue_t,
};

use super::{board, dispatch, put};
use crate::{
    code::{Answer, Code},
    number::clamp_u32,
    ring::Row,
    world::{Board, FieldValue, List, ProcessRow},
};

/// Where a process runs that runs in no MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;
/// Rows that a first call of `nvmlDeviceGetProcessUtilization` is told to make room for, whatever runs.
const RING_ROWS: c_uint = 100;
/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_V2: c_uint = (2 << 24) | 0x28;
const _: () = assert!(size_of::<nvmlMemory_v2_t>() == 40);

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let memory = board("nvmlDeviceGetMemoryInfo", device, |board| Ok(board.memory()))?;
        // This older view does not tell the reserved apart.
        let used = memory.used + memory.reserved;
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, nvmlMemory_t { total: memory.total, free: memory.free, used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let memory = board("nvmlDeviceGetMemoryInfo_v2", device, |board| Ok(board.memory()))?;
        if out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins with the version that it has set.
        let version = unsafe { out.cast::<c_uint>().read() };
        if version != MEMORY_V2 {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let crate::world::Memory { total, reserved, used, free } = memory;
        // SAFETY: as above.
        unsafe { put(out, nvmlMemory_v2_t { version, total, reserved, free, used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlBAR1Memory_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let bar1 = board("nvmlDeviceGetBAR1MemoryInfo", device, |board| Ok(board.bar1()))?;
        let (bar1Total, bar1Free, bar1Used) = (bar1.total, bar1.free, bar1.used);
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, nvmlBAR1Memory_t { bar1Total, bar1Free, bar1Used }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    out: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let (gpu, memory) =
            board("nvmlDeviceGetUtilizationRates", device, |board| Ok(board.utilization()))?;
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(out, nvmlUtilization_t { gpu, memory }) }
    })
}

/// Functions that give an engine's utilization and the period of its samples.
macro_rules! engines {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            utilization: *mut c_uint,
            period: *mut c_uint,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let read: fn(&Board) -> c_uint = $read;
                let (percent, micros) = board(stringify!($name), device, |board| {
                    Ok((read(board), board.sample_period_us()))
                })?;
                if period.is_null() {
                    return Err(Code::INVALID_ARGUMENT);
                }
                // SAFETY: the caller gives a place for the percentage.
                unsafe { put(utilization, percent) }?;
                // SAFETY: the caller gives a place for the period.
                unsafe { put(period, micros) }
            })
        }
    )*};
}

engines! {
    nvmlDeviceGetEncoderUtilization = Board::encoder;
    nvmlDeviceGetDecoderUtilization = Board::decoder;
}

/// Functions that give a process list.
macro_rules! lists {
    ($($name:ident: $row:ty = $list:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            infos: *mut $row,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let rows = board(stringify!($name), device, |board| Ok(board.processes($list)))?;
                let rows: Vec<_> = rows.into_iter().map(<$row>::of).collect();
                // SAFETY: the caller gives a count, and room for so many rows or a null.
                unsafe { put_rows(count, infos, &rows) }
            })
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses: nvmlProcessInfo_v1_t = List::Compute;
    nvmlDeviceGetComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Compute;
    nvmlDeviceGetComputeRunningProcesses_v3: nvmlProcessInfo_v2_t = List::Compute;
    nvmlDeviceGetGraphicsRunningProcesses: nvmlProcessInfo_v1_t = List::Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v3: nvmlProcessInfo_v2_t = List::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses: nvmlProcessInfo_v1_t = List::Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v3: nvmlProcessInfo_v2_t = List::Mps;
}

/// A process row in one of NVML's layouts.
trait Layout {
    /// The row.
    fn of(row: ProcessRow) -> Self;
}

impl Layout for nvmlProcessInfo_v1_t {
    fn of(row: ProcessRow) -> Self {
        Self { pid: row.pid, usedGpuMemory: row.memory }
    }
}

impl Layout for nvmlProcessInfo_v2_t {
    fn of(row: ProcessRow) -> Self {
        Self {
            pid: row.pid,
            usedGpuMemory: row.memory,
            gpuInstanceId: NO_INSTANCE,
            computeInstanceId: NO_INSTANCE,
        }
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    samples: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> nvmlReturn_t {
    dispatch(|| {
        if count.is_null() {
            // Whose handle it is comes first, as for all other arguments.
            return board("nvmlDeviceGetProcessUtilization", device, |_| Ok(()))
                .and(Err(Code::INVALID_ARGUMENT));
        }
        // SAFETY: not null, so the caller's count.
        let room = unsafe { count.read() };
        let sized = !samples.is_null() && room > 0;
        let rows = board("nvmlDeviceGetProcessUtilization", device, |board| {
            if sized { board.ring(last_seen) } else { Ok(vec![]) }
        })?;
        if !sized {
            // SAFETY: as above.
            unsafe { count.write(RING_ROWS) };
            return Err(Code::INSUFFICIENT_SIZE);
        }
        let rows: Vec<_> = rows.into_iter().map(sample).collect();
        // SAFETY: the caller gives room for as many rows as the count says.
        unsafe { put_rows(count, samples, &rows) }
    })
}

fn sample(row: Row) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid: row.pid,
        timeStamp: row.stamp,
        smUtil: row.sm,
        memUtil: row.mem,
        encUtil: row.enc,
        decUtil: row.dec,
    }
}

/// Writes the rows if there is room for all of them, and in any case how many there are.
///
/// # Safety
/// `count` is null or valid for reads and writes; `out` is null or valid for writes of so many rows.
unsafe fn put_rows<R: Copy>(count: *mut c_uint, out: *mut R, rows: &[R]) -> Answer<()> {
    if count.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so the caller's count.
    let room = if out.is_null() { 0 } else { unsafe { count.read() } };
    let needed = clamp_u32(rows.len());
    // SAFETY: as above.
    unsafe { count.write(needed) };
    if needed > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if needed > 0 {
        // SAFETY: there is room for `room` rows, which is no less; the caller's rows are not ours.
        unsafe { rows.as_ptr().copy_to_nonoverlapping(out, rows.len()) };
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let board = board("nvmlDeviceGetFieldValues", device, |board| Ok(board.clone()))?;
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        if count == 0 || values.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: the caller gives so many structs, which nobody else uses during the call.
        for value in unsafe { slice::from_raw_parts_mut(values, count) } {
            fill(value, &board);
        }
        Ok(())
    })
}

fn fill(value: &mut nvmlFieldValue_t, board: &Board) {
    let answer = board.field(value.fieldId);
    value.nvmlReturn = answer.err().map_or(0, |code| code.0);
    value.timestamp = c_longlong::try_from(board.now().wall).unwrap_or(c_longlong::MAX);
    value.latencyUsec = 1;
    // All of the union is written, so that nothing stale is left beside a short value.
    (value.valueType, value.value) = match answer {
        Ok(FieldValue::U32(number)) => (1, nvmlValue_t { ullVal: c_ulonglong::from(number) }),
        Ok(FieldValue::U64(number)) => (3, nvmlValue_t { ullVal: number }),
        Err(_) => (0, nvmlValue_t { ullVal: 0 }),
    };
}
