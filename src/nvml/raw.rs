//! NVML calls that nvml-wrapper does not provide, or provides with overhead or loss of information.
//!
//! The only module of the exporter with `unsafe` code; one file per group of calls. Symbols are
//! read from the fields of `NvmlLib`, since its methods panic if the driver lacks a symbol; here a
//! missing symbol is [`Missing::Unsupported`].

#![expect(
    unsafe_code,
    reason = "NVML is a C library; calls that the safe wrapper does not provide are here"
)]

pub mod clocks;
pub mod events;
pub mod fabric;
pub mod fields;
pub mod gpm;
pub mod health;
pub mod instances;
pub mod library;
pub mod memory;
pub mod memory_limits;
pub mod mock_env;
pub mod modes;
pub mod newer;
pub mod platform;
pub mod process;
pub mod processes;
pub mod repair;
pub mod retired_pages;
pub mod samples;
pub mod texts;
pub mod thermal;
pub mod topology;
pub mod utilization;

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_TIMEOUT as TIMEOUT, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
    nvmlReturn_t,
};

use crate::model::Missing;

/// Maximum number of entries; a driver that requests more returned an invalid count.
const MAX_ENTRIES: usize = 65_536;

/// A device handle without a lifetime, to be used only with the session that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(nvmlDevice_t);

// SAFETY: NVML is documented as thread-safe and the handle is an opaque token that is never
// dereferenced here.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// A null handle, which every NVML call rejects.
    #[must_use]
    pub const fn none() -> Self {
        Self(std::ptr::null_mut())
    }

    /// The handle of a wrapped device.
    #[must_use]
    pub fn of(device: &Device<'_>) -> Self {
        // SAFETY: the handle is only passed to the library that returned it.
        Self(unsafe { device.handle() })
    }

    /// Wraps the handle again, for the safe calls of nvml-wrapper.
    #[must_use]
    pub fn device<'nvml>(&self, nvml: &'nvml Nvml) -> Device<'nvml> {
        // SAFETY: the handle is from a device of the same session; NVML returns an error for a
        // stale handle.
        unsafe { Device::new(self.0, nvml) }
    }
}

fn symbol<F: Copy, E>(symbol: &Result<F, E>) -> Result<F, Missing> {
    symbol.as_ref().copied().map_err(|_| Missing::Unsupported)
}

/// `NVML_STRUCT_VERSION`: the size of a struct and its version number.
fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or_default() | (number << 24)
}

fn check(code: nvmlReturn_t) -> Result<(), Missing> {
    if code == SUCCESS { Ok(()) } else { Err(Missing::from_code(code)) }
}

/// Repeats `call` with a growing buffer until it is large enough, and returns the written entries.
/// The count is the capacity on input and the number of entries (or the required capacity) on
/// output.
fn fill<T: Copy>(
    buffer: &mut Vec<T>,
    blank: T,
    first: usize,
    mut call: impl FnMut(&mut [T], &mut u32) -> nvmlReturn_t,
) -> Result<&[T], Missing> {
    if buffer.is_empty() {
        buffer.resize(first, blank);
    }
    loop {
        let mut count = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        match call(buffer, &mut count) {
            SUCCESS => return Ok(buffer.get(..count as usize).unwrap_or(buffer)),
            INSUFFICIENT_SIZE if buffer.len() < MAX_ENTRIES => {
                let capacity = (buffer.len() * 2).max(count as usize).min(MAX_ENTRIES);
                buffer.resize(capacity, blank);
            }
            code => return Err(Missing::from_code(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_grows_to_the_requested_size() {
        let mut buffer = Vec::new();
        let mut calls = 0;
        let filled = fill(&mut buffer, 0_u32, 4, |entries, count| {
            calls += 1;
            if entries.len() < 9 {
                *count = 9;
                return INSUFFICIENT_SIZE;
            }
            entries[..3].copy_from_slice(&[7, 8, 9]);
            *count = 3;
            SUCCESS
        });
        assert_eq!(filled, Ok([7, 8, 9].as_slice()));
        assert_eq!((calls, buffer.len()), (2, 9));
    }

    #[test]
    fn buffer_growth_is_bounded() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, _| INSUFFICIENT_SIZE);
        assert_eq!(filled, Err(Missing::Failed(INSUFFICIENT_SIZE)));
        assert_eq!(buffer.len(), MAX_ENTRIES);
    }

    #[test]
    fn count_beyond_the_buffer_is_clamped() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, count| {
            *count = 4_000_000_000;
            SUCCESS
        });
        assert_eq!(filled.map(<[u8]>::len), Ok(4));
    }
}
