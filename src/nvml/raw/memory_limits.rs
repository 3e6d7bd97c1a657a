//! Limits of the memory of a GPU that the processes of a cgroup can use.

use std::ffi::CStr;

use super::newer::{MemoryLimits, NewerFunctions};
use super::{Handle, NOT_FOUND, check};
use crate::model::Missing;

/// Whether the driver limits the memory of a GPU for a cgroup (`nvmlDeviceGetMemoryLimits_v1`).
///
/// # Errors
/// Returns the NVML error; unsupported before driver 615, and on GPUs without such limits.
pub fn is_limited(newer: &NewerFunctions, gpu: Handle, cgroup: &CStr) -> Result<bool, Missing> {
    let call = newer.memory_limits()?;
    let mut limits = MemoryLimits { cgroup: cgroup.as_ptr(), soft: 0, hard: u64::MAX, used: 0 };
    // SAFETY: `limits` is a live struct of the type in the signature of the symbol, and the path is
    // NUL-terminated.
    match check(unsafe { call(gpu.0, &raw mut limits) }) {
        Ok(()) => Ok(limits.soft != 0 || limits.hard != u64::MAX),
        // There are no limits of this cgroup.
        Err(Missing::Failed(NOT_FOUND)) => Ok(false),
        Err(missing) => Err(missing),
    }
}
