//! Framebuffer, by the newest call that the driver has.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlMemory_t, nvmlMemory_v2_t};

use super::{Handle, check, symbol};
use crate::model::Missing;

/// Framebuffer of a device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// In use; what `nvidia-smi` shows where the driver has the v2 call (510 and later), the
    /// reserved part included where it only has v1.
    pub used: u64,
    /// Free for allocations.
    pub free: u64,
    /// Kept by the driver for itself; only the v2 call tells.
    pub reserved: Option<u64>,
}

/// `nvmlDeviceGetMemoryInfo_v2`, or `nvmlDeviceGetMemoryInfo` where the driver has no v2.
///
/// # Errors
/// What the driver answered.
pub fn memory(nvml: &Nvml, handle: Handle) -> Result<Memory, Missing> {
    match memory_v2(nvml.lib(), handle) {
        Err(Missing::Unsupported) => memory_v1(nvml.lib(), handle),
        other => other,
    }
}

fn memory_v2(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo_v2)?;
    let size = u32::try_from(size_of::<nvmlMemory_v2_t>()).unwrap_or_default();
    let mut info =
        nvmlMemory_v2_t { version: size | (2 << 24), total: 0, reserved: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct whose version field tells its size.
    check(unsafe { call(handle.0, &raw mut info) })?;
    let nvmlMemory_v2_t { total, used, free, reserved, .. } = info;
    Ok(Memory { total, used, free, reserved: Some(reserved) })
}

fn memory_v1(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo)?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct of the type that the symbol's signature names.
    check(unsafe { call(handle.0, &raw mut info) })?;
    Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: None })
}
