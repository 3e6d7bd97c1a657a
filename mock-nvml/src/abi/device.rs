//! What a GPU is, and its readings.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlReturn_t};

use super::{board, dispatch, put, put_text};
use crate::{
    code::{Answer, Code},
    number::clamp_u32,
    world::Board,
};

/// Every reason that a clock may be low for, as a driver of the 550 branch names them.
const ALL_REASONS: c_ulonglong = 0x1ff;

/// Functions that give one value.
macro_rules! values {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $type) -> nvmlReturn_t {
            dispatch(|| {
                let read: fn(&Board) -> Answer<$type> = $read;
                let value = board(stringify!($name), device, read)?;
                // SAFETY: the caller gives a place for the value.
                unsafe { put(out, value) }
            })
        }
    )*};
}

/// Functions that give one value for a number: a clock domain, a sensor, a fan.
macro_rules! chosen {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            which: c_uint,
            out: *mut c_uint,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let read: fn(&Board, c_uint) -> Answer<c_uint> = $read;
                let value = board(stringify!($name), device, |board| read(board, which))?;
                // SAFETY: the caller gives a place for the value.
                unsafe { put(out, value) }
            })
        }
    )*};
}

/// Functions that give a text.
macro_rules! texts {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            out: *mut c_char,
            length: c_uint,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let read: fn(&Board) -> Answer<String> = $read;
                let text = board(stringify!($name), device, read)?;
                // SAFETY: the caller gives a buffer of `length` bytes.
                unsafe { put_text(out, length, &text) }
            })
        }
    )*};
}

/// Functions that give two values.
macro_rules! pairs {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            first: *mut $type,
            second: *mut $type,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let read: fn(&Board) -> Answer<($type, $type)> = $read;
                let pair = board(stringify!($name), device, read)?;
                if second.is_null() {
                    return Err(Code::INVALID_ARGUMENT);
                }
                // SAFETY: the caller gives a place for the first value.
                unsafe { put(first, pair.0) }?;
                // SAFETY: the caller gives a place for the second value.
                unsafe { put(second, pair.1) }
            })
        }
    )*};
}

texts! {
    nvmlDeviceGetName = |board| Ok(board.model().name.to_owned());
    nvmlDeviceGetUUID = |board| Ok(board.gpu().uuid.clone());
    nvmlDeviceGetSerial = |board| {
        if board.model().serial { Ok(board.gpu().serial.clone()) } else { Err(Code::NOT_SUPPORTED) }
    };
}

values! {
    nvmlDeviceGetIndex: c_uint = |board| Ok(clamp_u32(board.gpu().index));
    nvmlDeviceGetMinorNumber: c_uint = |board| Ok(board.gpu().minor);
    nvmlDeviceGetBrand: c_uint = |board| Ok(board.model().brand);
    nvmlDeviceGetArchitecture: c_uint = |board| Ok(board.model().architecture);
    nvmlDeviceGetPersistenceMode: c_uint = |board| Ok(c_uint::from(board.model().persistence));
    nvmlDeviceGetComputeMode: c_uint = |_| Ok(0);
    nvmlDeviceGetPowerUsage: c_uint = |board| Ok(board.power());
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |board| Ok(board.power_limit());
    nvmlDeviceGetPowerManagementLimit: c_uint = |board| Ok(board.power_limit());
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |board| Ok(board.energy());
    nvmlDeviceGetPcieReplayCounter: c_uint = |board| Ok(board.replays());
    nvmlDeviceGetPerformanceState: c_uint = |board| Ok(board.pstate());
    nvmlDeviceGetFanSpeed: c_uint = |board| board.fan(0);
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |board| Ok(board.reasons());
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |board| Ok(board.reasons());
    nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong = |_| Ok(ALL_REASONS);
    nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong = |_| Ok(ALL_REASONS);
}

chosen! {
    nvmlDeviceGetClockInfo = Board::clock;
    nvmlDeviceGetMaxClockInfo = Board::max_clock;
    nvmlDeviceGetFanSpeed_v2 = Board::fan;
    nvmlDeviceGetTemperature = |board, sensor| match sensor {
        0 => Ok(board.temperature()),
        _ => Err(Code::INVALID_ARGUMENT),
    };
}

pairs! {
    nvmlDeviceGetCudaComputeCapability: c_int = |board| Ok(board.model().cuda);
    nvmlDeviceGetEccMode: c_uint = |board| {
        let on = board.model().ecc.map(c_uint::from).ok_or(Code::NOT_SUPPORTED)?;
        Ok((on, on))
    };
    nvmlDeviceGetMigMode: c_uint = |_| Err(Code::NOT_SUPPORTED);
}

/// What `nvmlDeviceGetPciInfo` filled when its struct was young: 32 bytes.
#[repr(C)]
struct PciInfoV1 {
    bus_id: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device: c_uint,
}

/// What `nvmlDeviceGetPciInfo_v2` filled: 52 bytes.
#[repr(C)]
struct PciInfoV2 {
    v1: PciInfoV1,
    pci_subsystem: c_uint,
    reserved: [c_uint; 4],
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPciInfo(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let info = board("nvmlDeviceGetPciInfo", device, |board| Ok(pci_v1(board)))?;
        // SAFETY: the caller gives a place for a struct of this or a later version, which is longer.
        unsafe { put(pci.cast(), info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPciInfo_v2(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let info = board("nvmlDeviceGetPciInfo_v2", device, |board| {
            let pci_subsystem = board.model().pci_subsystem;
            Ok(PciInfoV2 { v1: pci_v1(board), pci_subsystem, reserved: [0; 4] })
        })?;
        // SAFETY: the caller gives a place for a struct of this or a later version, which is longer.
        unsafe { put(pci.cast(), info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let info = board("nvmlDeviceGetPciInfo_v3", device, |board| {
            let PciInfoV1 { bus_id, domain, bus, device, pci_device } = pci_v1(board);
            Ok(nvmlPciInfo_t {
                busIdLegacy: bus_id,
                domain,
                bus,
                device,
                pciDeviceId: pci_device,
                pciSubSystemId: board.model().pci_subsystem,
                busId: chars(&board.gpu().pci.id()),
            })
        })?;
        // SAFETY: the caller gives a place for the struct.
        unsafe { put(pci, info) }
    })
}

fn pci_v1(board: &Board) -> PciInfoV1 {
    let place = board.gpu().pci;
    PciInfoV1 {
        bus_id: chars(&place.legacy_id()),
        domain: place.domain,
        bus: place.bus,
        device: place.device,
        pci_device: board.model().pci_device,
    }
}

/// A text in a C array, cut to leave room for a NUL.
fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    array
}
