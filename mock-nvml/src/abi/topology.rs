//! Topology and peer-to-peer status of two GPUs.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::put,
    },
    return_code::{NvmlResult, ReturnCode},
    world::board::Board,
};

/// `NVML_TOPOLOGY_INTERNAL`, `NVML_TOPOLOGY_NODE`, `NVML_TOPOLOGY_SYSTEM`
const SAME: c_uint = 0;
const SAME_SOCKET: c_uint = 40;
const OTHER_SOCKET: c_uint = 50;
/// `NVML_P2P_CAPS_INDEX_NVLINK`
const NVLINK: c_uint = 2;
/// `NVML_P2P_STATUS_OK`, `NVML_P2P_STATUS_NOT_SUPPORTED`
const P2P_OK: c_uint = 0;
const P2P_NOT_SUPPORTED: c_uint = 5;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetTopologyCommonAncestor", first, second, out);
    dispatch(|| {
        let (one, other) = both("nvmlDeviceGetTopologyCommonAncestor", first, second)?;
        let level = if one.gpu().index == other.gpu().index {
            SAME
        } else if socket(&one) == socket(&other) {
            SAME_SOCKET
        } else {
            OTHER_SOCKET
        };
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, level) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    capability: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetP2PStatus", first, second, capability, out);
    dispatch(|| {
        let (one, other) = both("nvmlDeviceGetP2PStatus", first, second)?;
        if capability > 4 || one.gpu().index == other.gpu().index {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let linked = [&one, &other].iter().all(|board| board.model().nvlinks.is_some());
        // Desktop boards, on which ECC is off, do not support it over PCIe.
        let desktop = [&one, &other].iter().any(|board| board.model().ecc != Some(true));
        let supported = if capability == NVLINK { linked } else { linked || !desktop };
        let status = if supported { P2P_OK } else { P2P_NOT_SUPPORTED };
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, status) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceOnSameBoard(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_int,
) -> nvmlReturn_t {
    tap!("nvmlDeviceOnSameBoard", first, second, out);
    dispatch(|| {
        let (one, other) = both("nvmlDeviceOnSameBoard", first, second)?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, c_int::from(one.gpu().index == other.gpu().index)) }
    })
}

fn both(function: &str, first: nvmlDevice_t, second: nvmlDevice_t) -> NvmlResult<(Board, Board)> {
    let read = |device| board(function, device, |board| Ok(board.clone()));
    Ok((read(first)?, read(second)?))
}

/// The CPU socket of the board: its PCI domain, and the lower or upper half of the bus numbers.
fn socket(board: &Board) -> (u32, bool) {
    let address = board.gpu().pci;
    (address.domain, address.bus >= 0x80)
}
