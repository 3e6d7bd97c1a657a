//! NVLinks.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlReturn_t};

use super::{board, dispatch, pci::remote, put};
use crate::{code::Code, world::LinkError};

/// `NVML_NVLINK_DEVICE_TYPE_SWITCH`
const SWITCH: c_uint = 2;

chosen! {
    nvmlDeviceGetNvLinkState = |board, link| board.nvlink_active(link).map(c_uint::from);
    nvmlDeviceGetNvLinkVersion = |board, link| board.nvlink(link).map(|links| links.version);
    nvmlDeviceGetNvLinkRemoteDeviceType = |board, link| board.nvlink_remote(link).map(|_| SWITCH);
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetNvLinkCapability(
    device: nvmlDevice_t,
    link: c_uint,
    capability: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let can = board("nvmlDeviceGetNvLinkCapability", device, |board| {
            board.nvlink(link)?;
            match capability {
                // An SLI bridge.
                4 => Ok(0),
                0..=5 => Ok(1),
                _ => Err(Code::INVALID_ARGUMENT),
            }
        })?;
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, can) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch(|| {
        let errors = board("nvmlDeviceGetNvLinkErrorCounter", device, |board| {
            board.nvlink(link)?;
            board.nvlink_errors(link, LinkError::numbered(counter)?)
        })?;
        // SAFETY: the caller gives a place for the value.
        unsafe { put(out, errors) }
    })
}

/// Functions that tell the place of the device at the other end.
macro_rules! remotes {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            link: c_uint,
            out: *mut nvmlPciInfo_t,
        ) -> nvmlReturn_t {
            dispatch(|| {
                let place = board(stringify!($name), device, |board| board.nvlink_remote(link))?;
                // SAFETY: the caller gives a place for the struct.
                unsafe { put(out, remote(place)) }
            })
        }
    )*};
}

remotes! { nvmlDeviceGetNvLinkRemotePciInfo_v2 }
