//! What a GPU is.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlAccountingStats_t, nvmlDevice_t, nvmlReturn_t};

use super::{board, dispatch, put, put_text};
use crate::{
    code::{Answer, Code},
    number::clamp_u32,
    world::{Board, List},
};

/// Processes that accounting has room for.
const ACCOUNTED: c_uint = 4_000;
/// Bytes that a caller of `nvmlDeviceGetGspFirmwareVersion` has room for.
const GSP_VERSION: c_uint = 64;

texts! {
    nvmlDeviceGetName = |board| Ok(board.name());
    nvmlDeviceGetUUID = |board| Ok(board.uuid());
    nvmlDeviceGetSerial = |board| {
        if board.model().serial { Ok(board.gpu().serial.clone()) } else { Err(Code::NOT_SUPPORTED) }
    };
    nvmlDeviceGetBoardPartNumber = |board| told(board.model().part);
    nvmlDeviceGetVbiosVersion = |board| Ok(board.model().vbios.to_owned());
    nvmlDeviceGetInforomImageVersion = |board| told(board.model().inforom);
}

values! {
    nvmlDeviceGetIndex: c_uint = |board| {
        Ok(board.mig_device().map_or_else(|_| clamp_u32(board.gpu().index), |(_, ci)| ci.slot))
    };
    nvmlDeviceGetMinorNumber: c_uint = |board| Ok(board.gpu().minor);
    nvmlDeviceGetBrand: c_uint = |board| Ok(board.model().brand);
    nvmlDeviceGetArchitecture: c_uint = |board| Ok(board.model().architecture);
    nvmlDeviceGetPersistenceMode: c_uint = |board| Ok(c_uint::from(board.model().persistence));
    nvmlDeviceGetComputeMode: c_uint = |_| Ok(0);
    nvmlDeviceGetDisplayMode: c_uint = |board| Ok(c_uint::from(has_display(board)));
    nvmlDeviceGetDisplayActive: c_uint = |board| Ok(c_uint::from(has_display(board)));
    nvmlDeviceGetBoardId: c_uint = |board| Ok(board.gpu().pci.bus << 8 | board.gpu().pci.device);
    nvmlDeviceGetMultiGpuBoard: c_uint = |_| Ok(0);
    nvmlDeviceGetNumGpuCores: c_uint = |board| Ok(board.model().cores);
    nvmlDeviceGetMemoryBusWidth: c_uint = |board| Ok(board.model().bus_width);
    nvmlDeviceGetVirtualizationMode: c_uint = |_| Ok(0);
    nvmlDeviceGetAccountingMode: c_uint = |_| Ok(0);
    nvmlDeviceGetAccountingBufferSize: c_uint = |_| Ok(ACCOUNTED);
}

pairs! {
    nvmlDeviceGetCudaComputeCapability: c_int = |board| Ok(board.model().cuda);
    // A thing of Windows.
    nvmlDeviceGetDriverModel: c_uint = |_| Err(Code::NOT_SUPPORTED);
    nvmlDeviceGetDriverModel_v2: c_uint = |_| Err(Code::NOT_SUPPORTED);
    nvmlDeviceGetGspFirmwareMode: c_uint = |board| {
        let on = c_uint::from(board.model().gsp);
        Ok((on, on))
    };
    nvmlDeviceGetMigMode: c_uint = |board| {
        // A change of layout is a change of both at once.
        let on = c_uint::from(board.mig_mode()?);
        Ok((on, on))
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetInforomVersion(
    device: nvmlDevice_t,
    object: c_uint,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let version = board("nvmlDeviceGetInforomVersion", device, |board| {
            told(board.model().inforom)?;
            match (object, board.model().counts_errors()) {
                (0, _) => Ok("2.1"),
                (1, true) => Ok("6.16"),
                (1..=3, _) => Err(Code::NOT_SUPPORTED),
                _ => Err(Code::INVALID_ARGUMENT),
            }
        })?;
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { put_text(out, length, version) }
    })
}

/// No board's InfoROM is broken, unless a fault of the scenario says so.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceValidateInforom(device: nvmlDevice_t) -> nvmlReturn_t {
    dispatch(|| {
        board("nvmlDeviceValidateInforom", device, |board| told(board.model().inforom).map(drop))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGspFirmwareVersion(
    device: nvmlDevice_t,
    out: *mut c_char,
) -> nvmlReturn_t {
    dispatch(|| {
        let version = board("nvmlDeviceGetGspFirmwareVersion", device, |board| {
            if board.model().gsp { Ok(board.driver_version()) } else { Err(Code::NOT_SUPPORTED) }
        })?;
        // SAFETY: the header asks the caller for a buffer of that size.
        unsafe { put_text(out, GSP_VERSION, &version) }
    })
}

/// Accounting is off, as it is after a driver has been loaded: nobody is in its list.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetAccountingPids(
    device: nvmlDevice_t,
    count: *mut c_uint,
    _pids: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        board("nvmlDeviceGetAccountingPids", device, |_| Ok(()))?;
        // SAFETY: the caller gives a place for the count.
        unsafe { put(count, 0) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetAccountingStats(
    device: nvmlDevice_t,
    _pid: c_uint,
    stats: *mut nvmlAccountingStats_t,
) -> nvmlReturn_t {
    dispatch(|| {
        board("nvmlDeviceGetAccountingStats", device, |_| Ok(()))?;
        Err(if stats.is_null() { Code::INVALID_ARGUMENT } else { Code::NOT_FOUND })
    })
}

/// Whether a desktop is on this board: some process draws on it.
fn has_display(board: &Board) -> bool {
    !board.processes(List::Graphics).is_empty()
}

fn told(text: Option<&str>) -> Answer<String> {
    text.map(str::to_owned).ok_or(Code::NOT_SUPPORTED)
}
