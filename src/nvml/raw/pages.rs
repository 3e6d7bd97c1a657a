//! Framebuffer pages that the driver has taken out of use.

use std::ptr;

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS as SINGLE_BIT,
    nvmlReturn_t,
};

use super::{Handle, INSUFFICIENT_SIZE, SUCCESS, symbol};
use crate::model::Missing;

/// How many pages are retired because of single-bit errors (`nvmlDeviceGetRetiredPages`, asked for
/// the count alone).
///
/// # Errors
/// What the driver answered; unsupported since Ampere, which remaps rows instead.
pub fn retired_by_single_bit_errors(nvml: &Nvml, handle: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRetiredPages)?;
    let mut count = 0;
    // SAFETY: with a count of 0 the driver only writes the count, and no address.
    let code = unsafe { call(handle.0, SINGLE_BIT, &raw mut count, ptr::null_mut()) };
    counted(code, count)
}

/// A list of no pages fits; any other is too long for no room, and says how long it is.
fn counted(code: nvmlReturn_t, count: u32) -> Result<u32, Missing> {
    match code {
        SUCCESS | INSUFFICIENT_SIZE => Ok(count),
        code => Err(Missing::from_code(code)),
    }
}
