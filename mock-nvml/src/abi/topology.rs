//! How two GPUs reach each other.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{board, dispatch, put};
use crate::{
    code::{Answer, Code},
    world::Board,
};

/// `NVML_TOPOLOGY_INTERNAL`, `NVML_TOPOLOGY_NODE`, `NVML_TOPOLOGY_SYSTEM`
const SAME: c_uint = 0;
const SAME_SOCKET: c_uint = 40;
const OTHER_SOCKET: c_uint = 50;
/// `NVML_P2P_CAPS_INDEX_NVLINK`
const NVLINK: c_uint = 2;
/// `NVML_P2P_STATUS_OK`, `NVML_P2P_STATUS_NOT_SUPPORTED`
const P2P_WORKS: c_uint = 0;
const P2P_NOT_SUPPORTED: c_uint = 5;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let (one, other) = both("nvmlDeviceGetTopologyCommonAncestor", first, second)?;
        let level = if one.gpu().index == other.gpu().index {
            SAME
        } else if socket(&one) == socket(&other) {
            SAME_SOCKET
        } else {
            OTHER_SOCKET
        };
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, level) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    which: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let (one, other) = both("nvmlDeviceGetP2PStatus", first, second)?;
        if which > 4 || one.gpu().index == other.gpu().index {
            return Err(Code::INVALID_ARGUMENT);
        }
        let linked = [&one, &other].iter().all(|board| board.model().nvlinks.is_some());
        // Over PCIe, boards for desktops do not.
        let desktop = [&one, &other].iter().any(|board| board.model().ecc != Some(true));
        let works = if which == NVLINK { linked } else { linked || !desktop };
        let status = if works { P2P_WORKS } else { P2P_NOT_SUPPORTED };
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, status) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceOnSameBoard(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_int,
) -> nvmlReturn_t {
    dispatch(|| {
        let (one, other) = both("nvmlDeviceOnSameBoard", first, second)?;
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, c_int::from(one.gpu().index == other.gpu().index)) }
    })
}

fn both(function: &str, first: nvmlDevice_t, second: nvmlDevice_t) -> Answer<(Board, Board)> {
    let ask = |device| board(function, device, |board| Ok(board.clone()));
    Ok((ask(first)?, ask(second)?))
}

/// The processor whose bus it sits on.
fn socket(board: &Board) -> (u32, bool) {
    let place = board.gpu().pci;
    (place.domain, place.bus >= 0x80)
}
