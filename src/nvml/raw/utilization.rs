//! Per-process utilization: the driver's ring, by the newest call that works on the device.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t, nvmlProcessesUtilizationInfo_t,
};

use super::{Handle, NOT_FOUND, fill, symbol};
use crate::model::Missing;

/// Rows that a buffer starts with.
const ROWS: usize = 256;
/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`.
const VERSION_MISMATCH: u32 = 25;

/// One row, as the driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtilizationRow {
    /// Process id.
    pub pid: u32,
    /// Microseconds since the epoch: the process's own last busy sample.
    pub stamp_us: u64,
    /// Percent of SM, memory interface, encoder, decoder.
    pub percent: [u32; 4],
}

/// Buffers of one device, and which call works on it.
#[derive(Default)]
pub struct UtilizationBuffers {
    rows: Vec<nvmlProcessUtilizationInfo_v1_t>,
    old_rows: Vec<nvmlProcessUtilizationSample_t>,
    works: Option<Works>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Works {
    /// `nvmlDeviceGetProcessesUtilizationInfo`: drivers from 550 on, the only one on Blackwell.
    New,
    /// `nvmlDeviceGetProcessUtilization`.
    Old,
}

/// The ring's rows since `last_seen_us`. "Not found" means that nothing ran: no rows.
///
/// # Errors
/// What the driver answered; unsupported where neither call works, as while MIG is on.
pub fn process_utilization(
    nvml: &Nvml,
    handle: Handle,
    last_seen_us: u64,
    buffers: &mut UtilizationBuffers,
) -> Result<Vec<UtilizationRow>, Missing> {
    if buffers.works != Some(Works::Old) {
        match new_call(nvml, handle, last_seen_us, &mut buffers.rows) {
            Err(Missing::Unsupported | Missing::Failed(VERSION_MISMATCH)) => {}
            answer => {
                buffers.works = Some(Works::New);
                return answer;
            }
        }
    }
    let answer = old_call(nvml, handle, last_seen_us, &mut buffers.old_rows);
    if answer != Err(Missing::Unsupported) {
        buffers.works = Some(Works::Old);
    }
    answer
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
        let mut question = nvmlProcessesUtilizationInfo_t {
            version: size | (1 << 24),
            processSamplesCount: *count,
            lastSeenTimeStamp: last_seen_us,
            procUtilArray: rows.as_mut_ptr(),
        };
        // SAFETY: the question's array has room for as many structs as it says.
        let code = unsafe { call(handle.0, &raw mut question) };
        *count = question.processSamplesCount;
        code
    });
    nothing_ran(filled.map(|rows| {
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
        // SAFETY: `rows` has room for `*count` structs of the type that the signature names.
        unsafe { call(handle.0, rows.as_mut_ptr(), count, last_seen_us) }
    });
    nothing_ran(filled.map(|rows| {
        rows.iter()
            .map(|row| UtilizationRow {
                pid: row.pid,
                stamp_us: row.timeStamp,
                percent: [row.smUtil, row.memUtil, row.encUtil, row.decUtil],
            })
            .collect()
    }))
}

fn nothing_ran(
    answer: Result<Vec<UtilizationRow>, Missing>,
) -> Result<Vec<UtilizationRow>, Missing> {
    match answer {
        Err(Missing::Failed(NOT_FOUND)) => Ok(Vec::new()),
        other => other,
    }
}
