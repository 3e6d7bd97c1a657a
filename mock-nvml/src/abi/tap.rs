//! Records what a driver returns, or plays a recording, in place of the simulated node.
//!
//! Both know functions by their parameters ([`signature`]), so that each value is recorded and played at the
//! C ABI, whatever the board and the driver are.

mod layout;
mod memory;
mod player;
pub(super) mod recorder;
mod request;
mod signature;
mod utilization;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::{abi::call::world, return_code::ReturnCode};

/// An argument, as the register that passes it.
pub(super) trait Word {
    fn word(self) -> usize;
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl Word for u32 {
    fn word(self) -> usize {
        usize::try_from(self).unwrap_or_default()
    }
}

impl Word for i32 {
    fn word(self) -> usize {
        usize::try_from(self.cast_unsigned()).unwrap_or_default()
    }
}

impl Word for u64 {
    fn word(self) -> usize {
        usize::try_from(self).unwrap_or_default()
    }
}

/// The code that `function` returns if it is recorded or played; `None` if the node is simulated.
pub(super) fn answer(function: &'static str, words: &[usize]) -> Option<nvmlReturn_t> {
    let answer = || {
        if let Some(recorder) = recorder::active() {
            return Some(recorder.call(function, words));
        }
        let world = world().ok()?;
        let recording = world.recording()?;
        Some(player::player().call(world, &recording, function, words))
    };
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or(Some(ReturnCode::UNKNOWN.0))
}

/// The pointer that a word is.
fn pointer<T>(word: usize) -> *mut T {
    ptr::with_exposed_provenance_mut(word)
}
