//! Functions that are newer than the header of nvml-wrapper-sys.

use std::ffi::{c_char, c_uchar, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::{
        call::{board, dispatch},
        pointer::{put, read_str},
    },
    return_code::ReturnCode,
    world::board::{cgroup_memory::CgroupMemory, fabric::Fabric},
};

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
    /// Result of the registration.
    pub status: nvmlReturn_t,
    /// Cliques, sorted by type and id.
    pub cliques: [FabricClique; 64],
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
    /// Input: path of the cgroup.
    pub cgroup: *const c_char,
    /// Soft limit in bytes.
    pub soft: c_ulonglong,
    /// Hard limit in bytes.
    pub hard: c_ulonglong,
    /// Used memory in bytes.
    pub used: c_ulonglong,
}

/// The account of a cgroup; `NOT_FOUND` without limits, and `OPERATING_SYSTEM` of a container that does not run.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryLimits_v1(
    device: nvmlDevice_t,
    out: *mut MemoryLimits,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetMemoryLimits_v1", device, out);
    dispatch(|| {
        let board = board("nvmlDeviceGetMemoryLimits_v1", device, |board| Ok(board.clone()))?;
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct.
        let request = unsafe { out.read() };
        // SAFETY: the caller passes null or a NUL-terminated path.
        let cgroup = unsafe { read_str(request.cgroup) }?;
        let CgroupMemory { soft, hard, used } = board.cgroup_memory(cgroup)?;
        let hard = hard.unwrap_or(c_ulonglong::MAX);
        let filled = MemoryLimits { soft, hard, used, ..request };
        // SAFETY: as above.
        unsafe { put(out, filled) }
    })
}

values! {
    nvmlDeviceGetUnrepairableMemoryFlag_v1: UnrepairableMemoryStatus = |board| {
        Ok(UnrepairableMemoryStatus { unrepairable: c_uint::from(board.repair()?.unrepairable) })
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo_v4(
    device: nvmlDevice_t,
    out: *mut FabricInfo,
) -> nvmlReturn_t {
    tap!("nvmlDeviceGetGpuFabricInfo_v4", device, out);
    dispatch(|| {
        let fabric = board("nvmlDeviceGetGpuFabricInfo_v4", device, |board| Ok(board.fabric()))?;
        let Fabric { cluster_uuid, clique, status, state, health_mask, health_summary } = fabric;
        let mut cliques = [FabricClique { kind: 0, id: 0 }; 64];
        let mut clique_count = 0;
        if let (Some(id), [pointer, multicast, ..]) = (clique, &mut cliques) {
            *pointer = FabricClique { kind: 0, id };
            *multicast = FabricClique { kind: 1, id };
            clique_count = 2;
        }
        let filled = FabricInfo {
            cluster_uuid,
            status,
            cliques,
            clique_count,
            state,
            health_mask,
            health_summary,
        };
        // SAFETY: the caller passes null or a valid pointer to the struct.
        unsafe { put(out, filled) }
    })
}
