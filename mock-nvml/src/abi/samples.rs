//! `nvmlDeviceGetSamples`, and `nvmlDeviceGetProcessesUtilizationInfo` of the 550 branch.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_v1_t, nvmlReturn_t,
    nvmlSample_t, nvmlValue_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, put_rows, versioned},
    },
    numeric::clamp_u32,
    return_code::ReturnCode,
    world::sample_ring::{CAPACITY, UtilizationRow},
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
    tap!("nvmlDeviceGetSamples", device, kind, last_seen, value_type, count, samples);
    dispatch(|| {
        let found = board("nvmlDeviceGetSamples", device, |board| {
            let last_seen = if samples.is_null() { 0 } else { last_seen };
            board.samples(kind, last_seen)
        });
        if samples.is_null() {
            if let Err(code) = found
                && code != ReturnCode::NOT_FOUND
            {
                return Err(code);
            }
            // SAFETY: the caller passes null or a valid pointer to the type.
            unsafe { put(value_type, UNSIGNED_INT) }?;
            let capacity = c_uint::try_from(CAPACITY).unwrap_or(c_uint::MAX);
            // SAFETY: the caller passes null or a valid pointer to the count.
            return unsafe { put(count, capacity) };
        }
        let rows: Vec<_> = found?
            .into_iter()
            .map(|(timeStamp, value)| nvmlSample_t {
                timeStamp,
                sampleValue: nvmlValue_t { ullVal: c_ulonglong::from(value) },
            })
            .collect();
        // SAFETY: the caller passes null or a valid pointer to the type.
        unsafe { put(value_type, UNSIGNED_INT) }?;
        // SAFETY: the caller passes a count and an array of that many samples.
        unsafe { put_rows(count, samples, &rows) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetProcessesUtilizationInfo(
    device: nvmlDevice_t,
    info: *mut nvmlProcessesUtilizationInfo_v1_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetProcessesUtilizationInfo", device, info);
    dispatch(|| {
        let board =
            board("nvmlDeviceGetProcessesUtilizationInfo", device, |board| Ok(board.clone()))?;
        // SAFETY: the caller passes null or a struct in which the input fields are set.
        let mut request = unsafe { versioned(info, 1) }?;
        let rows = board.process_utilization(request.lastSeenTimeStamp)?;
        let rows: Vec<_> = rows.into_iter().map(process).collect();
        let capacity =
            if request.procUtilArray.is_null() { 0 } else { request.processSamplesCount };
        request.processSamplesCount = clamp_u32(rows.len());
        // SAFETY: as above.
        unsafe { put(info, request) }?;
        let mut count = capacity;
        // SAFETY: the caller's array has room for as many rows as its count states.
        unsafe { put_rows(&raw mut count, request.procUtilArray, &rows) }
    })
}

fn process(row: UtilizationRow) -> nvmlProcessUtilizationInfo_v1_t {
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
