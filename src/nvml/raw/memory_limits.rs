//! Limits of the memory of a GPU that the processes of a cgroup can use, and what they use.

use std::ffi::CStr;

use super::newer::{MemoryLimits, NewerFunctions};
use super::{Handle, NOT_FOUND, check};
use crate::model::Missing;

/// The driver's account of a cgroup on a GPU, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Memory that is guaranteed; 0 if none.
    pub soft: u64,
    /// Memory that it can use at most; `None` without a limit.
    pub hard: Option<u64>,
    /// Memory that it uses.
    pub used: u64,
}

impl CgroupMemory {
    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.soft != 0 || self.hard.is_some()
    }
}

/// The account of a cgroup (`nvmlDeviceGetMemoryLimits_v1`); `None` if the driver has none.
///
/// # Errors
/// Returns the NVML error; unsupported before driver 615, and on GPUs without such limits.
pub fn cgroup_memory(
    newer: &NewerFunctions,
    gpu: Handle,
    cgroup: &CStr,
) -> Result<Option<CgroupMemory>, Missing> {
    let call = newer.memory_limits()?;
    let mut limits = MemoryLimits { cgroup: cgroup.as_ptr(), soft: 0, hard: u64::MAX, used: 0 };
    // SAFETY: `limits` is a live struct of the type in the signature of the symbol, and the path is
    // NUL-terminated.
    match check(unsafe { call(gpu.0, &raw mut limits) }) {
        Ok(()) => {
            let MemoryLimits { cgroup: _, soft, hard, used } = limits;
            Ok(Some(CgroupMemory { soft, hard: (hard != u64::MAX).then_some(hard), used }))
        }
        Err(Missing::Failed(NOT_FOUND)) => Ok(None),
        Err(missing) => Err(missing),
    }
}
