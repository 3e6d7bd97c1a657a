//! PCI addresses and the PCIe link.

use std::{
    ffi::{c_char, c_uint},
    time::Duration,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlPciInfoExt_v1_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::put,
    },
    clock,
    return_code::ReturnCode,
    scenario::Pci,
    world::{
        board::{Board, links::Direction},
        traffic::lane_speed,
    },
};

/// `NVML_BUS_TYPE_PCIE`
const BUS_PCIE: c_uint = 2;
/// PCI base class of display controllers.
const DISPLAY_CONTROLLER: c_uint = 0x03;
/// For how long `nvmlDeviceGetPcieThroughput` measures the link.
const MEASURING: Duration = Duration::from_millis(20);

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
    nvmlDeviceGetPciInfoExt: nvmlPciInfoExt_v1_t, 1 = |board, request| {
        let PciInfoV1 { domain, bus, device, pci_device, .. } = pci_v1(board);
        Ok(nvmlPciInfoExt_v1_t {
            version: request.version,
            domain,
            bus,
            device,
            pciDeviceId: pci_device,
            pciSubSystemId: board.model().pci_subsystem,
            baseClass: DISPLAY_CONTROLLER,
            // A VGA controller on boards for desktops, which have fans; else a 3D controller.
            subClass: if board.model().fans > 0 { 0x00 } else { 0x02 },
            busId: c_array(&board.gpu().pci.id()),
        })
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPcieThroughput(
    device: nvmlDevice_t,
    counter: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetPcieThroughput", device, counter, out);
    dispatch(|| {
        let rate = board("nvmlDeviceGetPcieThroughput", device, |board| match counter {
            0 => Ok(board.pcie_rate(Direction::Tx)),
            1 => Ok(board.pcie_rate(Direction::Rx)),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        })?;
        clock::sleep(MEASURING);
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, rate) }
    })
}

/// PCI device and vendor id of an NVLink switch.
const NVSWITCH: c_uint = 0x22A3_10DE;

/// The struct of the first `nvmlDeviceGetPciInfo`: 32 bytes.
#[repr(C)]
struct PciInfoV1 {
    bus_id: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device: c_uint,
}

/// The struct of `nvmlDeviceGetPciInfo_v2`: 52 bytes.
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
    tap!("nvmlDeviceGetPciInfo", device, pci);
    dispatch(|| {
        let info = board("nvmlDeviceGetPciInfo", device, |board| Ok(pci_v1(board)))?;
        // SAFETY: the caller passes null or a valid pointer to this or a later, longer version.
        unsafe { put(pci.cast(), info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPciInfo_v2(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetPciInfo_v2", device, pci);
    dispatch(|| {
        let info = board("nvmlDeviceGetPciInfo_v2", device, |board| {
            let pci_subsystem = board.model().pci_subsystem;
            Ok(PciInfoV2 { v1: pci_v1(board), pci_subsystem, reserved: [0; 4] })
        })?;
        // SAFETY: the caller passes null or a valid pointer to this or a later, longer version.
        unsafe { put(pci.cast(), info) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetPciInfo_v3", device, pci);
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
                busId: c_array(&board.gpu().pci.id()),
            })
        })?;
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(pci, info) }
    })
}

/// PCI info of the switch at the other end of an NVLink.
pub(super) fn switch_pci_info(address: Pci) -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: c_array(&address.legacy_id()),
        domain: address.domain,
        bus: address.bus,
        device: address.device,
        pciDeviceId: NVSWITCH,
        pciSubSystemId: 0,
        busId: c_array(&address.id()),
    }
}

fn pci_v1(board: &Board) -> PciInfoV1 {
    let address = board.gpu().pci;
    PciInfoV1 {
        bus_id: c_array(&address.legacy_id()),
        domain: address.domain,
        bus: address.bus,
        device: address.device,
        pci_device: board.model().pci_device,
    }
}

/// The text as a C array, truncated to leave a NUL at the end.
pub(super) fn c_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    array
}
