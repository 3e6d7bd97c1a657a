//! The three lists of running processes, from the newest call version that the driver supports
//! correctly.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessInfo_v1_t, nvmlReturn_t,
};

use super::{Handle, fill, symbol};
use crate::model::Missing;
use crate::policy::PID_MAX;

/// Initial capacity of a list; the kernel module lists at most 950 processes.
const ENTRIES: usize = 1024;

/// One of NVML's three lists of running processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessList {
    /// `nvmlDeviceGetComputeRunningProcesses_v3` and its older versions.
    Compute,
    /// `nvmlDeviceGetGraphicsRunningProcesses_v3` and its older versions.
    Graphics,
    /// `nvmlDeviceGetMPSComputeRunningProcesses_v3` and its older versions.
    Mps,
}

/// One entry of a [`ProcessList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningProcess {
    /// Process id in the PID namespace of the exporter.
    pub pid: u32,
    /// Used framebuffer in bytes; `None` if the driver reports it as not available.
    pub memory: Option<u64>,
}

/// Reused buffers of one device, so that each list costs one call, and the call version in use.
#[derive(Default)]
pub struct ProcessBuffers {
    entries: Vec<nvmlProcessInfo_t>,
    old_entries: Vec<nvmlProcessInfo_v1_t>,
    version: ListVersion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ListVersion {
    #[default]
    V3,
    /// Drivers before 510, and those with an incorrect version 3.
    V2,
    /// Drivers before 460.
    V1,
}

type Call = unsafe extern "C" fn(nvmlDevice_t, *mut u32, *mut nvmlProcessInfo_t) -> nvmlReturn_t;
type OldCall =
    unsafe extern "C" fn(nvmlDevice_t, *mut u32, *mut nvmlProcessInfo_v1_t) -> nvmlReturn_t;

/// Reads one list of running processes, in one call unless the buffer is too small. `total` is the
/// framebuffer of the device in bytes, if known.
///
/// # Errors
/// Returns the NVML error.
pub fn running_processes(
    nvml: &Nvml,
    handle: Handle,
    list: ProcessList,
    total: Option<u64>,
    buffers: &mut ProcessBuffers,
) -> Result<Vec<RunningProcess>, Missing> {
    let lib = nvml.lib();
    if buffers.version == ListVersion::V3 {
        match version_3(lib, list) {
            Err(_) => buffers.version = ListVersion::V2,
            Ok(call) => {
                let found = entries(call, handle, &mut buffers.entries)?;
                if found.iter().all(|process| plausible(process, total)) {
                    return Ok(found);
                }
                // Drivers 535.43 to 535.98 write longer entries than version 3 defines, so that
                // entries are decoded at wrong offsets.
                buffers.version = ListVersion::V2;
            }
        }
    }
    if buffers.version == ListVersion::V2 {
        match version_2(lib, list) {
            Err(_) => buffers.version = ListVersion::V1,
            Ok(call) => {
                let found = entries(call, handle, &mut buffers.entries)?;
                if found.iter().all(|process| plausible(process, total)) {
                    return Ok(found);
                }
                // Drivers before 460 may export version 2 and write the entries of 16 bytes of
                // version 1.
                buffers.version = ListVersion::V1;
            }
        }
    }
    old_entries(version_1(lib, list)?, handle, &mut buffers.old_entries)
}

fn plausible(process: &RunningProcess, total: Option<u64>) -> bool {
    let used = process.memory.unwrap_or_default();
    process.pid != 0 && process.pid <= PID_MAX && total.is_none_or(|total| used <= total)
}

fn version_3(lib: &NvmlLib, list: ProcessList) -> Result<Call, Missing> {
    match list {
        ProcessList::Compute => symbol(&lib.nvmlDeviceGetComputeRunningProcesses_v3),
        ProcessList::Graphics => symbol(&lib.nvmlDeviceGetGraphicsRunningProcesses_v3),
        ProcessList::Mps => symbol(&lib.nvmlDeviceGetMPSComputeRunningProcesses_v3),
    }
}

fn version_2(lib: &NvmlLib, list: ProcessList) -> Result<Call, Missing> {
    match list {
        ProcessList::Compute => symbol(&lib.nvmlDeviceGetComputeRunningProcesses_v2),
        ProcessList::Graphics => symbol(&lib.nvmlDeviceGetGraphicsRunningProcesses_v2),
        ProcessList::Mps => symbol(&lib.nvmlDeviceGetMPSComputeRunningProcesses_v2),
    }
}

fn version_1(lib: &NvmlLib, list: ProcessList) -> Result<OldCall, Missing> {
    match list {
        ProcessList::Compute => symbol(&lib.nvmlDeviceGetComputeRunningProcesses),
        ProcessList::Graphics => symbol(&lib.nvmlDeviceGetGraphicsRunningProcesses),
        ProcessList::Mps => symbol(&lib.nvmlDeviceGetMPSComputeRunningProcesses),
    }
}

fn entries(
    call: Call,
    handle: Handle,
    buffer: &mut Vec<nvmlProcessInfo_t>,
) -> Result<Vec<RunningProcess>, Missing> {
    let blank = nvmlProcessInfo_t {
        pid: 0,
        usedGpuMemory: 0,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    };
    let filled = fill(buffer, blank, ENTRIES, |entries, count| {
        // A quarter is reserved for drivers that write entries of 32 bytes instead of 24.
        *count = *count / 4 * 3;
        // SAFETY: `entries` has capacity for `*count` structs of this version, also for longer
        // ones.
        unsafe { call(handle.0, count, entries.as_mut_ptr()) }
    })?;
    Ok(filled.iter().map(|entry| running(entry.pid, entry.usedGpuMemory)).collect())
}

fn old_entries(
    call: OldCall,
    handle: Handle,
    buffer: &mut Vec<nvmlProcessInfo_v1_t>,
) -> Result<Vec<RunningProcess>, Missing> {
    let blank = nvmlProcessInfo_v1_t { pid: 0, usedGpuMemory: 0 };
    let filled = fill(buffer, blank, ENTRIES, |entries, count| {
        // SAFETY: `entries` has capacity for `*count` structs of this version.
        unsafe { call(handle.0, count, entries.as_mut_ptr()) }
    })?;
    Ok(filled.iter().map(|entry| running(entry.pid, entry.usedGpuMemory)).collect())
}

fn running(pid: u32, memory: u64) -> RunningProcess {
    RunningProcess { pid, memory: (memory != u64::MAX).then_some(memory) }
}
