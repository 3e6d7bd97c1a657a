//! NVLinks.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pci::switch_pci_info,
        pointer::put,
    },
    return_code::ReturnCode,
    world::board::links::LinkError,
};

/// `NVML_NVLINK_DEVICE_TYPE_SWITCH`
const SWITCH: c_uint = 2;

indexed! {
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
    tap!("nvmlDeviceGetNvLinkCapability", device, link, capability, out);
    dispatch(|| {
        let capable = board("nvmlDeviceGetNvLinkCapability", device, |board| {
            board.nvlink(link)?;
            match capability {
                // `NVML_NVLINK_CAP_SLI_BRIDGE`
                4 => Ok(0),
                0..=5 => Ok(1),
                _ => Err(ReturnCode::INVALID_ARGUMENT),
            }
        })?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, capable) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetNvLinkErrorCounter", device, link, counter, out);
    dispatch(|| {
        let errors = board("nvmlDeviceGetNvLinkErrorCounter", device, |board| {
            board.nvlink(link)?;
            board.nvlink_errors(link, LinkError::from_number(counter)?)
        })?;
        // SAFETY: the caller passes null or a valid pointer to the value.
        unsafe { put(out, errors) }
    })
}

/// Functions that return the PCI info of the device at the other end.
macro_rules! remotes {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            link: c_uint,
            out: *mut nvmlPciInfo_t,
        ) -> nvmlReturn_t {
            tap!(stringify!($name), device, link, out);
            dispatch(|| {
                let address = board(stringify!($name), device, |board| board.nvlink_remote(link))?;
                // SAFETY: the caller passes null or a valid pointer to the struct.
                unsafe { put(out, switch_pci_info(address)) }
            })
        }
    )*};
}

remotes! { nvmlDeviceGetNvLinkRemotePciInfo_v2 }
