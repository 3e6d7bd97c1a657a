//! Clock event (throttle) reasons.

use nvml_wrapper::Nvml;

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `nvmlDeviceGetCurrentClocksEventReasons`, or its older name `…ThrottleReasons`: all bits,
/// unknown ones included.
///
/// # Errors
/// Returns the NVML error.
pub fn clock_event_reasons(nvml: &Nvml, handle: Handle) -> Result<u64, Missing> {
    let lib = nvml.lib();
    let call = symbol(&lib.nvmlDeviceGetCurrentClocksEventReasons)
        .or_else(|_| symbol(&lib.nvmlDeviceGetCurrentClocksThrottleReasons))?;
    let mut bits = 0;
    // SAFETY: `bits` is a live u64, which both symbols write.
    check(unsafe { call(handle.0, &raw mut bits) })?;
    Ok(bits)
}
