//! Per-process utilization from the ring buffer of the driver, by the newest call that works on the
//! device.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t,
    nvmlProcessesUtilizationInfo_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
};

use super::{Handle, NOT_FOUND, fill, symbol};
use crate::model::Missing;

/// Initial capacity of a buffer.
const ROWS: usize = 256;

/// One unvalidated row of the driver: the mean utilization of a process since the requested time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtilizationRow {
    /// Process id.
    pub pid: u32,
    /// Time of the last busy sample of the process, microseconds since the Unix epoch.
    pub stamp_us: u64,
    /// Utilization of SM, memory interface, encoder, decoder, percent.
    pub percent: [u32; 4],
}

/// Reused buffers of one device, and the call that works on it.
#[derive(Default)]
pub struct UtilizationBuffers {
    rows: Vec<nvmlProcessUtilizationInfo_v1_t>,
    old_rows: Vec<nvmlProcessUtilizationSample_t>,
    working_call: Option<WorkingCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkingCall {
    /// `nvmlDeviceGetProcessesUtilizationInfo`: driver 550 and later; the only one on Blackwell.
    New,
    /// `nvmlDeviceGetProcessUtilization`.
    Old,
}

/// Rows of the processes that were busy after `last_seen_us` (microseconds since the Unix epoch).
/// Empty if none was (`NVML_ERROR_NOT_FOUND`).
///
/// # Errors
/// Returns the NVML error; unsupported if neither call works, for example while MIG is enabled.
pub fn process_utilization(
    nvml: &Nvml,
    handle: Handle,
    last_seen_us: u64,
    buffers: &mut UtilizationBuffers,
) -> Result<Vec<UtilizationRow>, Missing> {
    if buffers.working_call != Some(WorkingCall::Old) {
        match new_call(nvml, handle, last_seen_us, &mut buffers.rows) {
            Err(Missing::Unsupported | Missing::Failed(VERSION_MISMATCH)) => {}
            result => {
                buffers.working_call = Some(WorkingCall::New);
                return result;
            }
        }
    }
    let result = old_call(nvml, handle, last_seen_us, &mut buffers.old_rows);
    if result != Err(Missing::Unsupported) {
        buffers.working_call = Some(WorkingCall::Old);
    }
    result
}

fn new_call(
    nvml: &Nvml,
    handle: Handle,
    last_seen_us: u64,
    buffer: &mut Vec<nvmlProcessUtilizationInfo_v1_t>,
) -> Result<Vec<UtilizationRow>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetProcessesUtilizationInfo)?;
    let size = u32::try_from(size_of::<nvmlProcessesUtilizationInfo_t>()).unwrap_or_default();
    let blank = nvmlProcessUtilizationInfo_v1_t {
        timeStamp: 0,
        pid: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    };
    let filled = fill(buffer, blank, ROWS, |rows, count| {
        let mut request = nvmlProcessesUtilizationInfo_t {
            version: size | (1 << 24),
            processSamplesCount: *count,
            lastSeenTimeStamp: last_seen_us,
            procUtilArray: rows.as_mut_ptr(),
        };
        // SAFETY: the array of the request has capacity for `processSamplesCount` structs.
        let code = unsafe { call(handle.0, &raw mut request) };
        *count = request.processSamplesCount;
        code
    });
    not_found_as_empty(filled.map(|rows| {
        rows.iter()
            .map(|row| UtilizationRow {
                pid: row.pid,
                stamp_us: row.timeStamp,
                percent: [row.smUtil, row.memUtil, row.encUtil, row.decUtil],
            })
            .collect()
    }))
}

fn old_call(
    nvml: &Nvml,
    handle: Handle,
    last_seen_us: u64,
    buffer: &mut Vec<nvmlProcessUtilizationSample_t>,
) -> Result<Vec<UtilizationRow>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetProcessUtilization)?;
    let blank = nvmlProcessUtilizationSample_t {
        pid: 0,
        timeStamp: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    };
    let filled = fill(buffer, blank, ROWS, |rows, count| {
        // SAFETY: `rows` has capacity for `*count` structs of the type in the signature.
        unsafe { call(handle.0, rows.as_mut_ptr(), count, last_seen_us) }
    });
    not_found_as_empty(filled.map(|rows| {
        rows.iter()
            .map(|row| UtilizationRow {
                pid: row.pid,
                stamp_us: row.timeStamp,
                percent: [row.smUtil, row.memUtil, row.encUtil, row.decUtil],
            })
            .collect()
    }))
}

fn not_found_as_empty(
    result: Result<Vec<UtilizationRow>, Missing>,
) -> Result<Vec<UtilizationRow>, Missing> {
    match result {
        Err(Missing::Failed(NOT_FOUND)) => Ok(Vec::new()),
        other => other,
    }
}
