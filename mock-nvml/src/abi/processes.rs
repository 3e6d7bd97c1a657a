//! Process lists, all versions.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t,
    nvmlProcessInfo_v2_t, nvmlReturn_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, put_rows, versioned},
    },
    numeric::clamp_u32,
    return_code::{NvmlResult, ReturnCode},
    world::board::usage::{ProcessListKind, ProcessRow},
};

/// The instance ids of a process outside MIG instances.
const NO_INSTANCE: c_uint = c_uint::MAX;
/// Drivers of this branch wrote 32-byte rows to the `_v3` lists, of which callers expect 24 bytes.
const WIDE_BRANCH: u32 = 535;
/// The second version number of those drivers: up to the release that fixed it.
const WIDE_RELEASES: std::ops::Range<u32> = 43..99;

/// Functions that return a process list.
macro_rules! lists {
    ($($name:ident: $row:ty = $list:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            infos: *mut $row,
        ) -> nvmlReturn_t {
            tap!(stringify!($name), device, count, infos);
            dispatch(|| {
                let rows = board(stringify!($name), device, |board| Ok(board.processes($list)))?;
                let rows: Vec<_> = rows.into_iter().map(<$row>::of).collect();
                // SAFETY: the caller passes a count, and null or an array of that many rows.
                unsafe { put_rows(count, infos, &rows) }
            })
        }
    )*};
}

/// Functions that return a process list with rows that some drivers wrote too wide.
macro_rules! lists_v3 {
    ($($name:ident = $list:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            infos: *mut nvmlProcessInfo_v2_t,
        ) -> nvmlReturn_t {
            tap!(stringify!($name), device, count, infos);
            dispatch(|| {
                let (rows, wide) = board(stringify!($name), device, |board| {
                    Ok((board.processes($list), wide(&board.driver_version())))
                })?;
                if wide {
                    // SAFETY: the caller passes a count, and null or an array of that many rows.
                    return unsafe { put_wide(count, infos, &rows) };
                }
                let rows: Vec<_> = rows.into_iter().map(nvmlProcessInfo_v2_t::of).collect();
                // SAFETY: as above.
                unsafe { put_rows(count, infos, &rows) }
            })
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses: nvmlProcessInfo_v1_t = ProcessListKind::Compute;
    nvmlDeviceGetComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = ProcessListKind::Compute;
    nvmlDeviceGetGraphicsRunningProcesses: nvmlProcessInfo_v1_t = ProcessListKind::Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2: nvmlProcessInfo_v2_t = ProcessListKind::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses: nvmlProcessInfo_v1_t = ProcessListKind::Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = ProcessListKind::Mps;
}

lists_v3! {
    nvmlDeviceGetComputeRunningProcesses_v3 = ProcessListKind::Compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3 = ProcessListKind::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 = ProcessListKind::Mps;
}

/// A process row as one of NVML's structs.
trait FromRow {
    fn of(row: ProcessRow) -> Self;
}

impl FromRow for nvmlProcessInfo_v1_t {
    fn of(row: ProcessRow) -> Self {
        Self { pid: row.pid, usedGpuMemory: row.memory }
    }
}

impl FromRow for nvmlProcessInfo_v2_t {
    fn of(row: ProcessRow) -> Self {
        let (gpuInstanceId, computeInstanceId) = ids(row);
        Self { pid: row.pid, usedGpuMemory: row.memory, gpuInstanceId, computeInstanceId }
    }
}

impl FromRow for nvmlProcessDetail_v1_t {
    fn of(row: ProcessRow) -> Self {
        let (gpuInstanceId, computeInstanceId) = ids(row);
        Self {
            pid: row.pid,
            usedGpuMemory: row.memory,
            gpuInstanceId,
            computeInstanceId,
            usedGpuCcProtectedMemory: 0,
        }
    }
}

fn ids(row: ProcessRow) -> (c_uint, c_uint) {
    row.place
        .map_or((NO_INSTANCE, NO_INSTANCE), |place| (place.gpu_instance, place.compute_instance))
}

/// Whether a driver of this version writes [`nvmlProcessDetail_v1_t`] rows to the `_v3` lists.
fn wide(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let (branch, release) = (numbers.next().flatten(), numbers.next().flatten());
    branch == Some(WIDE_BRANCH) && release.is_some_and(|release| WIDE_RELEASES.contains(&release))
}

/// Writes rows of 32 bytes where the caller reads 24. Real drivers wrote past the end of a full
/// buffer; this stops there: the client reads wrong rows, but its memory is not corrupted.
///
/// # Safety
/// As for `put_rows`.
unsafe fn put_wide(
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_v2_t,
    rows: &[ProcessRow],
) -> NvmlResult<()> {
    if count.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so the caller's count.
    let capacity = if out.is_null() { 0 } else { unsafe { count.read() } };
    // SAFETY: as above.
    unsafe { count.write(clamp_u32(rows.len())) };
    let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
    if rows.len() > capacity {
        return Err(ReturnCode::INSUFFICIENT_SIZE);
    }
    let bytes: Vec<u8> = rows.iter().copied().flat_map(bytes).collect();
    let fits = bytes.len().min(capacity.saturating_mul(size_of::<nvmlProcessInfo_v2_t>()));
    if fits > 0 {
        // SAFETY: the caller's buffer has that many bytes and does not overlap `bytes`.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(out.cast(), fits) };
    }
    Ok(())
}

/// A row of 32 bytes: [`nvmlProcessDetail_v1_t`] with its padding.
fn bytes(row: ProcessRow) -> Vec<u8> {
    let (gpu_instance, compute_instance) = ids(row);
    let [pid, gpu_instance, compute_instance] =
        [row.pid, gpu_instance, compute_instance].map(u32::to_ne_bytes);
    let (memory, protected) = (row.memory.to_ne_bytes(), 0_u64.to_ne_bytes());
    [&pid[..], &[0; 4], &memory, &gpu_instance, &compute_instance, &protected].concat()
}
const _: () = assert!(size_of::<nvmlProcessDetail_v1_t>() == 32);
const _: () = assert!(size_of::<nvmlProcessInfo_v2_t>() == 24);

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRunningProcessDetailList(
    device: nvmlDevice_t,
    list: *mut nvmlProcessDetailList_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetRunningProcessDetailList", device, list);
    dispatch(|| {
        let board =
            board("nvmlDeviceGetRunningProcessDetailList", device, |board| Ok(board.clone()))?;
        // SAFETY: the caller passes null or a struct in which the input fields are set.
        let mut request = unsafe { versioned(list, 1) }?;
        let kind = match request.mode {
            0 => ProcessListKind::Compute,
            1 => ProcessListKind::Graphics,
            2 => ProcessListKind::Mps,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        let rows: Vec<_> =
            board.processes(kind).into_iter().map(nvmlProcessDetail_v1_t::of).collect();
        let mut count = request.numProcArrayEntries;
        request.numProcArrayEntries = clamp_u32(rows.len());
        // SAFETY: as above.
        unsafe { put(list, request) }?;
        // SAFETY: the caller's array has room for as many rows as its count states.
        unsafe { put_rows(&raw mut count, request.procArray, &rows) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_affected_drivers_write_wide_rows() {
        for version in ["535.43.02", "535.54.03", "535.86.10", "535.98"] {
            assert!(wide(version), "{version}");
        }
        for version in ["535.104.05", "535.161.08", "530.41.03", "545.23.06", "550.54.15", "535"] {
            assert!(!wide(version), "{version}");
        }
    }
}
