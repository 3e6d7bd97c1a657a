//! Samples over time: of the GPU, and of each process since the 550 branch.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_v1_t, nvmlReturn_t,
    nvmlSample_t, nvmlValue_t,
};

use super::{board, dispatch, put, put_rows, versioned};
use crate::{
    code::Code,
    number::clamp_u32,
    ring::{DEPTH, Row},
};

/// `NVML_VALUE_TYPE_UNSIGNED_INT`
const UNSIGNED_INT: c_uint = 1;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetSamples(
    device: nvmlDevice_t,
    kind: c_uint,
    last_seen: c_ulonglong,
    value_type: *mut c_uint,
    count: *mut c_uint,
    samples: *mut nvmlSample_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let found = board("nvmlDeviceGetSamples", device, |board| {
            let last_seen = if samples.is_null() { 0 } else { last_seen };
            board.samples(kind, last_seen)
        });
        if samples.is_null() {
            if let Err(code) = found
                && code != Code::NOT_FOUND
            {
                return Err(code);
            }
            // SAFETY: the caller gives a place for the type.
            unsafe { put(value_type, UNSIGNED_INT) }?;
            let room = c_uint::try_from(DEPTH).unwrap_or(c_uint::MAX);
            // SAFETY: the caller gives a place for the count.
            return unsafe { put(count, room) };
        }
        let rows: Vec<_> = found?
            .into_iter()
            .map(|(timeStamp, value)| nvmlSample_t {
                timeStamp,
                sampleValue: nvmlValue_t { ullVal: c_ulonglong::from(value) },
            })
            .collect();
        // SAFETY: the caller gives a place for the type.
        unsafe { put(value_type, UNSIGNED_INT) }?;
        // SAFETY: the caller gives a count, and room for so many samples.
        unsafe { put_rows(count, samples, &rows) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetProcessesUtilizationInfo(
    device: nvmlDevice_t,
    info: *mut nvmlProcessesUtilizationInfo_v1_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let board =
            board("nvmlDeviceGetProcessesUtilizationInfo", device, |board| Ok(board.clone()))?;
        // SAFETY: the caller gives a struct that it has filled as far as it is asked to.
        let mut asked = unsafe { versioned(info, 1) }?;
        let rows = board.ring(asked.lastSeenTimeStamp)?;
        let rows: Vec<_> = rows.into_iter().map(process).collect();
        let room = if asked.procUtilArray.is_null() { 0 } else { asked.processSamplesCount };
        asked.processSamplesCount = clamp_u32(rows.len());
        // SAFETY: as above.
        unsafe { put(info, asked) }?;
        let mut count = room;
        // SAFETY: the caller's array has room for as many rows as it has said.
        unsafe { put_rows(&raw mut count, asked.procUtilArray, &rows) }
    })
}

fn process(row: Row) -> nvmlProcessUtilizationInfo_v1_t {
    nvmlProcessUtilizationInfo_v1_t {
        timeStamp: row.stamp,
        pid: row.pid,
        smUtil: row.sm,
        memUtil: row.mem,
        encUtil: row.enc,
        decUtil: row.dec,
        jpgUtil: row.jpg,
        ofaUtil: row.ofa,
    }
}
