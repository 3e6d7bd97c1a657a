//! Process lists, in all their versions.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t,
    nvmlProcessInfo_v2_t, nvmlReturn_t,
};

use super::{board, dispatch, put, put_rows, versioned};
use crate::{
    code::{Answer, Code},
    number::clamp_u32,
    world::{List, ProcessRow},
};

/// Where a process runs that runs in no MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;
/// Those drivers wrote wider rows to the third version's list than its callers knew.
const WIDE_BRANCH: u32 = 535;
/// Their second number: up to the release that mended it.
const WIDE_RELEASES: std::ops::Range<u32> = 43..99;

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

/// Functions that give a process list whose rows some drivers made too wide.
macro_rules! lists_v3 {
    ($($name:ident = $list:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            infos: *mut nvmlProcessInfo_v2_t,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let (rows, wide) = board(stringify!($name), device, |board| {
                    Ok((board.processes($list), wide(&board.driver_version())))
                })?;
                if wide {
                    // SAFETY: the caller gives a count, and room for so many rows or a null.
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
    nvmlDeviceGetComputeRunningProcesses: nvmlProcessInfo_v1_t = List::Compute;
    nvmlDeviceGetComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Compute;
    nvmlDeviceGetGraphicsRunningProcesses: nvmlProcessInfo_v1_t = List::Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses: nvmlProcessInfo_v1_t = List::Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: nvmlProcessInfo_v2_t = List::Mps;
}

lists_v3! {
    nvmlDeviceGetComputeRunningProcesses_v3 = List::Compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3 = List::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 = List::Mps;
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
        let (gpuInstanceId, computeInstanceId) = ids(row);
        Self { pid: row.pid, usedGpuMemory: row.memory, gpuInstanceId, computeInstanceId }
    }
}

impl Layout for nvmlProcessDetail_v1_t {
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

/// Whether a driver of this version writes the rows of [`nvmlProcessDetail_v1_t`] to the third list.
fn wide(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let (branch, release) = (numbers.next().flatten(), numbers.next().flatten());
    branch == Some(WIDE_BRANCH) && release.is_some_and(|release| WIDE_RELEASES.contains(&release))
}

/// Writes rows of 32 bytes where the caller reads 24. Real drivers wrote past the end of a buffer that
/// was full; this ends with it, so that a mistake is seen and nobody's memory is spoilt.
///
/// # Safety
/// As that of `put_rows`.
unsafe fn put_wide(
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_v2_t,
    rows: &[ProcessRow],
) -> Answer<()> {
    if count.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so the caller's count.
    let room = if out.is_null() { 0 } else { unsafe { count.read() } };
    // SAFETY: as above.
    unsafe { count.write(clamp_u32(rows.len())) };
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if rows.len() > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    let bytes: Vec<u8> = rows.iter().copied().flat_map(bytes).collect();
    let fits = bytes.len().min(room.saturating_mul(size_of::<nvmlProcessInfo_v2_t>()));
    if fits > 0 {
        // SAFETY: so many bytes are in the caller's buffer, which is not ours.
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
    dispatch(|| {
        let board =
            board("nvmlDeviceGetRunningProcessDetailList", device, |board| Ok(board.clone()))?;
        // SAFETY: the caller gives a struct that it has filled as far as it is asked to.
        let mut asked = unsafe { versioned(list, 1) }?;
        let kind = match asked.mode {
            0 => List::Compute,
            1 => List::Graphics,
            2 => List::Mps,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        let rows: Vec<_> =
            board.processes(kind).into_iter().map(nvmlProcessDetail_v1_t::of).collect();
        let mut count = asked.numProcArrayEntries;
        asked.numProcArrayEntries = clamp_u32(rows.len());
        // SAFETY: as above.
        unsafe { put(list, asked) }?;
        // SAFETY: the caller's array has room for as many rows as it has said.
        unsafe { put_rows(&raw mut count, asked.procArray, &rows) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drivers_that_did_so_write_wide_rows() {
        for version in ["535.43.02", "535.54.03", "535.86.10", "535.98"] {
            assert!(wide(version), "{version}");
        }
        for version in ["535.104.05", "535.161.08", "530.41.03", "545.23.06", "550.54.15", "535"] {
            assert!(!wide(version), "{version}");
        }
    }
}
