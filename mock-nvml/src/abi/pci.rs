//! Where a GPU sits, and its PCIe link.

use std::{
    ffi::{c_char, c_uint},
    time::Duration,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlPciInfoExt_v1_t, nvmlReturn_t};

use super::{board, dispatch, put};
use crate::{
    clock,
    code::Code,
    scenario::Pci,
    world::{Board, Direction, lane_speed},
};

/// `NVML_BUS_TYPE_PCIE`
const BUS_PCIE: c_uint = 2;
/// PCI's base class of what draws.
const DISPLAY_CONTROLLER: c_uint = 0x03;
/// For how long `nvmlDeviceGetPcieThroughput` watches the link.
const WATCHING: Duration = Duration::from_millis(20);

values! {
    nvmlDeviceGetPcieReplayCounter: c_uint = |board| Ok(board.replays());
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = |board| Ok(board.pcie().generation);
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = |board| Ok(board.pcie().width);
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |board| Ok(board.model().pcie.generation);
    nvmlDeviceGetGpuMaxPcieLinkGeneration: c_uint = |board| Ok(board.model().pcie.generation);
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = |board| Ok(board.model().pcie.width);
    nvmlDeviceGetPcieLinkMaxSpeed: c_uint = |board| Ok(board.pcie_lane_speed());
    nvmlDeviceGetPcieSpeed: c_uint = |board| Ok(lane_speed(board.pcie().generation));
    nvmlDeviceGetBusType: c_uint = |_| Ok(BUS_PCIE);
}

versioned! {
    nvmlDeviceGetPciInfoExt: nvmlPciInfoExt_v1_t, 1 = |board, asked| {
        let PciInfoV1 { domain, bus, device, pci_device, .. } = pci_v1(board);
        Ok(nvmlPciInfoExt_v1_t {
            version: asked.version,
            domain,
            bus,
            device,
            pciDeviceId: pci_device,
            pciSubSystemId: board.model().pci_subsystem,
            baseClass: DISPLAY_CONTROLLER,
            // VGA where a desktop can be, else a 3D controller.
            subClass: if board.model().fans > 0 { 0x00 } else { 0x02 },
            busId: chars(&board.gpu().pci.id()),
        })
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPcieThroughput(
    device: nvmlDevice_t,
    counter: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let rate = board("nvmlDeviceGetPcieThroughput", device, |board| match counter {
            0 => Ok(board.pcie_rate(Direction::Tx)),
            1 => Ok(board.pcie_rate(Direction::Rx)),
            _ => Err(Code::INVALID_ARGUMENT),
        })?;
        clock::pause(WATCHING);
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, rate) }
    })
}

/// PCI device and vendor id of a switch for NVLinks.
const NVSWITCH: c_uint = 0x22A3_10DE;

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

/// What is known of the device at the other end of an NVLink: a switch.
pub(super) fn remote(place: Pci) -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: chars(&place.legacy_id()),
        domain: place.domain,
        bus: place.bus,
        device: place.device,
        pciDeviceId: NVSWITCH,
        pciSubSystemId: 0,
        busId: chars(&place.id()),
    }
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
pub(super) fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    array
}
