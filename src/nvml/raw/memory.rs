//! Framebuffer usage, from the newest call that the driver supports.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlMemory_t, nvmlMemory_v2_t};

use super::{Handle, check, symbol, version};
use crate::model::Missing;

/// Framebuffer of a device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Total.
    pub total: u64,
    /// Used: as `nvidia-smi` shows it with the v2 call (driver 510 and later); includes the
    /// reserved part with the v1 call.
    pub used: u64,
    /// Free.
    pub free: u64,
    /// Reserved by the driver; only from the v2 call.
    pub reserved: Option<u64>,
}

/// `nvmlDeviceGetMemoryInfo_v2`, or `nvmlDeviceGetMemoryInfo` if the driver does not support v2.
///
/// # Errors
/// Returns the NVML error.
pub fn memory(nvml: &Nvml, handle: Handle) -> Result<Memory, Missing> {
    match memory_v2(nvml.lib(), handle) {
        Err(Missing::Unsupported) => memory_v1(nvml.lib(), handle),
        other => other,
    }
}

fn memory_v2(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo_v2)?;
    let version = version::<nvmlMemory_v2_t>(2);
    let mut info = nvmlMemory_v2_t { version, total: 0, reserved: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct and its version field contains the size.
    check(unsafe { call(handle.0, &raw mut info) })?;
    let nvmlMemory_v2_t { total, used, free, reserved, .. } = info;
    Ok(Memory { total, used, free, reserved: Some(reserved) })
}

fn memory_v1(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo)?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(handle.0, &raw mut info) })?;
    Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: None })
}
