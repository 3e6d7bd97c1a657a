//! Retired framebuffer pages.

use std::ptr;

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS as SINGLE_BIT,
    nvmlReturn_t,
};

use super::{Handle, INSUFFICIENT_SIZE, SUCCESS, symbol};
use crate::model::Missing;

/// Number of pages retired because of single-bit errors (`nvmlDeviceGetRetiredPages`, called
/// without a buffer).
///
/// # Errors
/// Returns the NVML error; unsupported since Ampere, which remaps rows instead.
pub fn single_bit_retired_pages(nvml: &Nvml, handle: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRetiredPages)?;
    let mut count = 0;
    // SAFETY: with a capacity of 0 the driver writes only the count and no addresses.
    let code = unsafe { call(handle.0, SINGLE_BIT, &raw mut count, ptr::null_mut()) };
    page_count(code, count)
}

/// An empty list fits; any other returns `INSUFFICIENT_SIZE` and the count.
fn page_count(code: nvmlReturn_t, count: u32) -> Result<u32, Missing> {
    match code {
        SUCCESS | INSUFFICIENT_SIZE => Ok(count),
        code => Err(Missing::from_code(code)),
    }
}
