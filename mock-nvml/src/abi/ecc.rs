//! Memory errors, retired pages and remapped rows.

use std::{
    ffi::{c_uint, c_ulonglong},
    slice,
};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEccErrorCounts_t, nvmlEccSramErrorStatus_v1_t, nvmlRepairStatus_v1_t,
    nvmlReturn_t, nvmlRowRemapperHistogramValues_t,
};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, put_rows},
    },
    return_code::{NvmlResult, ReturnCode},
    world::board::Board,
};

pairs! {
    nvmlDeviceGetEccMode: c_uint = |board| board.ecc().map(|on| (c_uint::from(on), c_uint::from(on)));
}

values! {
    nvmlDeviceGetDefaultEccMode: c_uint = |board| board.ecc().map(c_uint::from);
    nvmlDeviceGetRetiredPagesPendingStatus: c_uint = |board| {
        board.retired().map(|retired| c_uint::from(retired.pending))
    };
    nvmlDeviceGetRowRemapperHistogram: nvmlRowRemapperHistogramValues_t = |board| {
        let crate::world::board::memory_errors::SpareRows { max, high, partial, low, none } = board.spare_rows()?;
        Ok(nvmlRowRemapperHistogramValues_t { max, high, partial, low, none })
    };
}

versioned! {
    nvmlDeviceGetRepairStatus: nvmlRepairStatus_v1_t, 1 = |board, request| {
        let repair = board.repair()?;
        Ok(nvmlRepairStatus_v1_t {
            bChannelRepairPending: c_uint::from(repair.channel),
            bTpcRepairPending: c_uint::from(repair.tpc),
            ..request
        })
    };
    // The errors of a scenario are in device memory, none in SRAM; whether their threshold is exceeded is a key.
    nvmlDeviceGetSramEccErrorStatus: nvmlEccSramErrorStatus_v1_t, 1 = |board, request| {
        board.ecc_errors(0, 0)?;
        board.spare_rows()?;
        Ok(nvmlEccSramErrorStatus_v1_t {
            version: request.version,
            aggregateUncParity: 0,
            aggregateUncSecDed: 0,
            aggregateCor: 0,
            volatileUncParity: 0,
            volatileUncSecDed: 0,
            volatileCor: 0,
            aggregateUncBucketL2: 0,
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: c_uint::from(board.repair()?.sram),
        })
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetTotalEccErrors", device, kind, counter, out);
    dispatch(|| {
        let errors =
            board("nvmlDeviceGetTotalEccErrors", device, |board| board.ecc_errors(kind, counter))?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, errors) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    location: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetMemoryErrorCounter", device, kind, counter, location, out);
    dispatch(|| {
        let errors = board("nvmlDeviceGetMemoryErrorCounter", device, |board| {
            board.ecc_errors_at(kind, counter, location)
        })?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, errors) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetDetailedEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    out: *mut nvmlEccErrorCounts_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetDetailedEccErrors", device, kind, counter, out);
    dispatch(|| {
        let counts = board("nvmlDeviceGetDetailedEccErrors", device, |board| {
            let deviceMemory = board.ecc_errors(kind, counter)?;
            Ok(nvmlEccErrorCounts_t { l1Cache: 0, l2Cache: 0, deviceMemory, registerFile: 0 })
        })?;
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, counts) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetRetiredPages", device, cause, count, addresses);
    dispatch(|| {
        let pages = pages("nvmlDeviceGetRetiredPages", device, cause)?;
        // SAFETY: the caller passes a count, and null or an array of that many addresses.
        unsafe { put_rows(count, addresses, &pages) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    stamps: *mut c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetRetiredPages_v2", device, cause, count, addresses, stamps);
    dispatch(|| {
        let pages = pages("nvmlDeviceGetRetiredPages_v2", device, cause)?;
        // SAFETY: the caller passes a count, and null or an array of that many addresses.
        unsafe { put_rows(count, addresses, &pages) }?;
        if !stamps.is_null() {
            // SAFETY: the addresses fitted, and the caller's array of stamps has the same capacity.
            let stamps = unsafe { slice::from_raw_parts_mut(stamps, pages.len()) };
            // A day apart, long before the simulation starts.
            (1..).zip(stamps).for_each(|(day, stamp)| *stamp = 1_700_000_000 + day * 86_400);
        }
        Ok(())
    })
}

fn pages(function: &str, device: nvmlDevice_t, cause: c_uint) -> NvmlResult<Vec<c_ulonglong>> {
    board(function, device, |board| board.retired_pages(cause))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetRemappedRows", device, correctable, uncorrectable, pending, failure);
    dispatch(|| {
        let rows = board("nvmlDeviceGetRemappedRows", device, Board::remapped)?;
        if [correctable, uncorrectable, pending, failure].iter().any(|out| out.is_null()) {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(correctable, rows.correctable) }?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(uncorrectable, rows.uncorrectable) }?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(pending, c_uint::from(rows.pending)) }?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(failure, c_uint::from(rows.failure)) }
    })
}
