//! Memory that cannot be repaired, and repairs that take effect at the next reset.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::nvmlRepairStatus_v1_t;

use super::newer::{NewerFunctions, UnrepairableMemoryStatus};
use super::{Handle, check, symbol, version};
use crate::model::Missing;

/// Repairs that take effect at the next reset of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRepairs {
    /// Of memory channels.
    pub channel: bool,
    /// Of TPCs.
    pub tpc: bool,
}

/// Whether a GPU has memory that cannot be repaired (`nvmlDeviceGetUnrepairableMemoryFlag_v1`).
///
/// # Errors
/// Returns the NVML error; unsupported before Hopper and before driver 590.
pub fn has_unrepairable_memory(newer: &NewerFunctions, gpu: Handle) -> Result<bool, Missing> {
    let call = newer.unrepairable_memory()?;
    let mut status = UnrepairableMemoryStatus { unrepairable: 0 };
    // SAFETY: `status` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(gpu.0, &raw mut status) })?;
    flag(status.unrepairable)
}

/// `nvmlDeviceGetRepairStatus`.
///
/// # Errors
/// Returns the NVML error; unsupported before Ampere and before driver 580.
pub fn pending_repairs(nvml: &Nvml, gpu: Handle) -> Result<PendingRepairs, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRepairStatus)?;
    let mut status = nvmlRepairStatus_v1_t {
        version: version::<nvmlRepairStatus_v1_t>(1),
        bChannelRepairPending: 0,
        bTpcRepairPending: 0,
    };
    // SAFETY: `status` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut status) })?;
    Ok(PendingRepairs {
        channel: flag(status.bChannelRepairPending)?,
        tpc: flag(status.bTpcRepairPending)?,
    })
}

/// A flag of a C struct; all bits set means unknown.
fn flag(value: u32) -> Result<bool, Missing> {
    if value == u32::MAX { Err(Missing::Invalid) } else { Ok(value != 0) }
}
