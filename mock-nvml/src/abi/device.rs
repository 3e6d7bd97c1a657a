//! Identity, modes and firmware of a device.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlAccountingStats_t, nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, put_text},
    },
    numeric::clamp_u32,
    return_code::{NvmlResult, ReturnCode},
    world::board::{Board, usage::ProcessListKind},
};

/// Capacity of the accounting buffer, in processes.
const ACCOUNTING_BUFFER: c_uint = 4_000;
/// Size in bytes of the buffer that callers pass to `nvmlDeviceGetGspFirmwareVersion`.
const GSP_VERSION: c_uint = 64;

strings! {
    nvmlDeviceGetName = |board| Ok(board.name());
    nvmlDeviceGetUUID = |board| Ok(board.uuid());
    nvmlDeviceGetSerial = |board| {
        if board.model().serial { Ok(board.gpu().serial.clone()) } else { Err(ReturnCode::NOT_SUPPORTED) }
    };
    nvmlDeviceGetBoardPartNumber = |board| or_unsupported(board.model().part);
    nvmlDeviceGetVbiosVersion = |board| Ok(board.model().vbios.to_owned());
    nvmlDeviceGetInforomImageVersion = |board| or_unsupported(board.model().inforom);
}

values! {
    nvmlDeviceGetIndex: c_uint = |board| {
        Ok(board.mig_device().map_or_else(|_| clamp_u32(board.gpu().index), |(_, ci)| ci.slot))
    };
    nvmlDeviceGetMinorNumber: c_uint = |board| Ok(board.gpu().minor);
    nvmlDeviceGetBrand: c_uint = |board| Ok(board.model().brand);
    nvmlDeviceGetArchitecture: c_uint = |board| Ok(board.model().architecture);
    nvmlDeviceGetPersistenceMode: c_uint = |board| Ok(c_uint::from(board.model().persistence));
    nvmlDeviceGetComputeMode: c_uint = |board| Ok(compute_mode(board));
    nvmlDeviceGetDisplayMode: c_uint = |board| Ok(c_uint::from(has_display(board)));
    nvmlDeviceGetDisplayActive: c_uint = |board| Ok(c_uint::from(has_display(board)));
    nvmlDeviceGetBoardId: c_uint = |board| Ok(board.gpu().pci.bus << 8 | board.gpu().pci.device);
    nvmlDeviceGetMultiGpuBoard: c_uint = |_| Ok(0);
    nvmlDeviceGetNumGpuCores: c_uint = |board| Ok(board.model().cores);
    nvmlDeviceGetMemoryBusWidth: c_uint = |board| Ok(board.model().bus_width);
    nvmlDeviceGetVirtualizationMode: c_uint = |_| Ok(0);
    nvmlDeviceGetAccountingMode: c_uint = |_| Ok(0);
    nvmlDeviceGetAccountingBufferSize: c_uint = |_| Ok(ACCOUNTING_BUFFER);
}

pairs! {
    nvmlDeviceGetCudaComputeCapability: c_int = |board| Ok(board.model().cuda);
    // Only Windows has driver models.
    nvmlDeviceGetDriverModel: c_uint = |_| Err(ReturnCode::NOT_SUPPORTED);
    nvmlDeviceGetDriverModel_v2: c_uint = |_| Err(ReturnCode::NOT_SUPPORTED);
    nvmlDeviceGetGspFirmwareMode: c_uint = |board| {
        let on = c_uint::from(board.model().gsp);
        Ok((on, on))
    };
    nvmlDeviceGetMigMode: c_uint = |board| {
        // The current and the pending mode change together.
        let on = c_uint::from(board.mig_mode()?);
        Ok((on, on))
    };
}

/// `NVML_COMPUTEMODE_DEFAULT`, or `NVML_COMPUTEMODE_EXCLUSIVE_PROCESS` with the device plugin's MPS daemon.
fn compute_mode(board: &Board) -> c_uint {
    if board.gpu().exclusive_process { 3 } else { 0 }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetInforomVersion(
    device: nvmlDevice_t,
    object: c_uint,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetInforomVersion", device, object, out, length);
    dispatch(|| {
        let version = board("nvmlDeviceGetInforomVersion", device, |board| {
            or_unsupported(board.model().inforom)?;
            match (object, board.model().counts_errors()) {
                (0, _) => Ok("2.1"),
                (1, true) => Ok("6.16"),
                (1..=3, _) => Err(ReturnCode::NOT_SUPPORTED),
                _ => Err(ReturnCode::INVALID_ARGUMENT),
            }
        })?;
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        unsafe { put_text(out, length, version) }
    })
}

/// The InfoROM is valid, unless the scenario injects a fault here.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceValidateInforom(device: nvmlDevice_t) -> nvmlReturn_t {
    tap!("nvmlDeviceValidateInforom", device);
    dispatch(|| {
        board("nvmlDeviceValidateInforom", device, |board| {
            or_unsupported(board.model().inforom).map(drop)
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGspFirmwareVersion(
    device: nvmlDevice_t,
    out: *mut c_char,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGspFirmwareVersion", device, out);
    dispatch(|| {
        let version = board("nvmlDeviceGetGspFirmwareVersion", device, |board| {
            if board.model().gsp {
                Ok(board.driver_version())
            } else {
                Err(ReturnCode::NOT_SUPPORTED)
            }
        })?;
        // SAFETY: the header requires a buffer of that size, or null is passed.
        unsafe { put_text(out, GSP_VERSION, &version) }
    })
}

/// Accounting mode is off, as after loading a driver, so its list is empty.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetAccountingPids(
    device: nvmlDevice_t,
    count: *mut c_uint,
    _pids: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetAccountingPids", device, count);
    dispatch(|| {
        board("nvmlDeviceGetAccountingPids", device, |_| Ok(()))?;
        // SAFETY: the caller passes null or a valid pointer to the count.
        unsafe { put(count, 0) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetAccountingStats(
    device: nvmlDevice_t,
    _pid: c_uint,
    stats: *mut nvmlAccountingStats_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetAccountingStats", device, stats);
    dispatch(|| {
        board("nvmlDeviceGetAccountingStats", device, |_| Ok(()))?;
        Err(if stats.is_null() { ReturnCode::INVALID_ARGUMENT } else { ReturnCode::NOT_FOUND })
    })
}

/// Whether a display is attached: a graphics process runs on the board.
fn has_display(board: &Board) -> bool {
    !board.processes(ProcessListKind::Graphics).is_empty()
}

fn or_unsupported(text: Option<&str>) -> NvmlResult<String> {
    text.map(str::to_owned).ok_or(ReturnCode::NOT_SUPPORTED)
}
