//! Functions that are newer than the header of nvml-wrapper-sys (CUDA 13.0), looked up by name when the
//! library is opened. `tests/nvml_header.rs` compares structs and signatures with NVIDIA's header.

use std::ffi::{c_char, c_uchar, c_uint, c_ulonglong};

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::model::Missing;

/// `NVML_GPU_FABRIC_CLIQUE_MAX`.
pub const CLIQUES_MAX: usize = 64;

/// `nvmlUnrepairableMemoryStatus_v1_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct UnrepairableMemoryStatus {
    /// Whether the GPU has memory that cannot be repaired.
    pub unrepairable: c_uint,
}

/// `nvmlGpuFabricClique_v1_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FabricClique {
    /// `NVML_GPU_FABRIC_CLIQUE_TYPE_*`.
    pub kind: c_uchar,
    /// Id within the cluster.
    pub id: c_uint,
}

/// `nvmlGpuFabricInfo_v4_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FabricInfo {
    /// UUID of the cluster.
    pub cluster_uuid: [c_uchar; 16],
    /// Result of the registration, if `state` is completed.
    pub status: nvmlReturn_t,
    /// Cliques, sorted by type and id.
    pub cliques: [FabricClique; CLIQUES_MAX],
    /// Number of cliques.
    pub clique_count: c_uint,
    /// `NVML_GPU_FABRIC_STATE_*`.
    pub state: c_uchar,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub health_mask: c_uint,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`.
    pub health_summary: c_uchar,
}

/// `nvmlGetMemoryLimits_v1_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryLimits {
    /// Input: path of the cgroup, NUL-terminated.
    pub cgroup: *const c_char,
    /// Soft limit, bytes; 0 if none.
    pub soft: c_ulonglong,
    /// Hard limit, bytes; all bits set if none.
    pub hard: c_ulonglong,
    /// Use of the cgroup, bytes.
    pub used: c_ulonglong,
}

/// A function that fills a struct for a device.
type Fill<T> = unsafe extern "C" fn(nvmlDevice_t, *mut T) -> nvmlReturn_t;

/// The functions that the library has; to be used only with its session.
pub struct NewerFunctions {
    unrepairable_memory: Option<Fill<UnrepairableMemoryStatus>>,
    fabric_info: Option<Fill<FabricInfo>>,
    memory_limits: Option<Fill<MemoryLimits>>,
}

impl NewerFunctions {
    /// Looks up the functions in the library of a session.
    #[must_use]
    pub fn of(nvml: &Nvml) -> Self {
        Self {
            unrepairable_memory: look_up(nvml, "nvmlDeviceGetUnrepairableMemoryFlag_v1"),
            fabric_info: look_up(nvml, "nvmlDeviceGetGpuFabricInfo_v4"),
            memory_limits: look_up(nvml, "nvmlDeviceGetMemoryLimits_v1"),
        }
    }

    /// `nvmlDeviceGetUnrepairableMemoryFlag_v1`: drivers since 590.
    pub(super) fn unrepairable_memory(&self) -> Result<Fill<UnrepairableMemoryStatus>, Missing> {
        self.unrepairable_memory.ok_or(Missing::Unsupported)
    }

    /// `nvmlDeviceGetGpuFabricInfo_v4`: drivers since 615.
    pub(super) fn fabric_info(&self) -> Result<Fill<FabricInfo>, Missing> {
        self.fabric_info.ok_or(Missing::Unsupported)
    }

    /// `nvmlDeviceGetMemoryLimits_v1`: drivers since 615.
    pub(super) fn memory_limits(&self) -> Result<Fill<MemoryLimits>, Missing> {
        self.memory_limits.ok_or(Missing::Unsupported)
    }

    /// Whether the driver can limit the memory of a cgroup.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.memory_limits.is_some()
    }
}

fn look_up<T>(nvml: &Nvml, name: &str) -> Option<Fill<T>> {
    // SAFETY: the header declares the function with this signature, and the pointer is used only
    // with the session, which keeps the library loaded.
    unsafe { nvml.lib().__library.get(name.as_bytes()) }.ok().map(|function| *function)
}
