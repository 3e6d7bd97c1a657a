//! NVML calls that nvml-wrapper does not make, or makes in a way that costs or loses something.
//!
//! The exporter's one address of `unsafe`, with a file for each kind of call. Symbols are taken from
//! the fields of `NvmlLib`, whose methods would panic where the driver lacks one; here that is
//! [`Missing::Unsupported`].

#![expect(unsafe_code, reason = "NVML is C; every call that the safe wrapper cannot make is here")]

pub mod clocks;
pub mod events;
pub mod fields;
pub mod gpm;
pub mod health;
pub mod instances;
pub mod memory;
pub mod pages;
pub mod processes;
pub mod samples;
pub mod stage;
pub mod topology;
pub mod utilization;

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::model::Missing;

const SUCCESS: nvmlReturn_t = 0;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const TIMEOUT: nvmlReturn_t = 10;

/// A driver that asks for more than this is lying.
const MAX_ENTRIES: usize = 65_536;

/// A device handle that outlives the frame it was got in, to be used with the session it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(nvmlDevice_t);

// SAFETY: NVML is documented as thread-safe and the handle is an opaque token that is never
// dereferenced on this side.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// A handle to nothing, which every call refuses.
    #[must_use]
    pub const fn none() -> Self {
        Self(std::ptr::null_mut())
    }

    /// The handle inside a wrapped device.
    #[must_use]
    pub fn of(device: &Device<'_>) -> Self {
        // SAFETY: the handle is only ever given back to the library it came from.
        Self(unsafe { device.handle() })
    }

    /// Wraps the handle again, for the safe calls of nvml-wrapper.
    #[must_use]
    pub fn device<'nvml>(&self, nvml: &'nvml Nvml) -> Device<'nvml> {
        // SAFETY: the handle was got from a device of the same session; NVML answers a handle that
        // has gone stale with an error.
        unsafe { Device::new(self.0, nvml) }
    }
}

fn symbol<F: Copy, E>(symbol: &Result<F, E>) -> Result<F, Missing> {
    symbol.as_ref().copied().map_err(|_| Missing::Unsupported)
}

fn check(code: nvmlReturn_t) -> Result<(), Missing> {
    if code == SUCCESS { Ok(()) } else { Err(Missing::from_code(code)) }
}

/// Calls until the buffer is large enough, and returns what was written to it. NVML's count is
/// the room on the way in and the number of entries (or the room it needs) on the way out.
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
                let room = (buffer.len() * 2).max(count as usize).min(MAX_ENTRIES);
                buffer.resize(room, blank);
            }
            code => return Err(Missing::from_code(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_to_what_the_driver_asks_for() {
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
    fn a_driver_that_always_wants_more_is_not_followed_for_ever() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, _| INSUFFICIENT_SIZE);
        assert_eq!(filled, Err(Missing::Failed(INSUFFICIENT_SIZE)));
        assert_eq!(buffer.len(), MAX_ENTRIES);
    }

    #[test]
    fn a_count_beyond_the_buffer_is_not_believed() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, count| {
            *count = 4_000_000_000;
            SUCCESS
        });
        assert_eq!(filled.map(<[u8]>::len), Ok(4));
    }
}
