//! `NVLink` fabric of a GPU, from the newest call that the driver supports.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH, nvmlReturn_t,
};

use super::newer::{CLIQUES_MAX, FabricClique, FabricInfo, NewerFunctions};
use super::{Handle, SUCCESS, check, symbol, version};
use crate::model::{FabricHealth, Missing};

/// `NVML_GPU_FABRIC_STATE_NOT_SUPPORTED`.
const NOT_SUPPORTED: u8 = 0;
/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;
/// `NVML_GPU_FABRIC_STATE_IN_PROGRESS`.
const IN_PROGRESS: u32 = 2;
/// `NVML_GPU_FABRIC_HEALTH_MASK_*_TRUE`.
const FAULT: u32 = 1;
/// `NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NONE`.
const CORRECTLY_CONFIGURED: u32 = 1;
/// `NVML_GPU_FABRIC_CLIQUE_TYPE_UNICAST_POINTER`: the type of the clique of older versions.
const UNICAST_POINTER: u8 = 0;

/// Membership of a GPU in an `NVLink` fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// Registration: 1 not started, 2 in progress, 3 completed.
    pub state: u32,
    /// Result of the registration, an `nvmlReturn_t`; `None` before it is completed.
    pub status: Option<u32>,
    /// Cluster and clique; `None` before a successful registration.
    pub membership: Option<Membership>,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub health_mask: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`; `None` before driver 570.
    pub health_summary: Option<u32>,
}

impl Fabric {
    /// Whether the GPU is registered, and whether a fault is reported.
    #[must_use]
    pub fn health(&self) -> FabricHealth {
        let part = |shift: u32, bits: u32| (self.health_mask >> shift) & bits;
        // Degraded bandwidth, recovery of a route, unhealthy route, recovery from a timeout.
        let has_fault = [0, 2, 4, 6].into_iter().any(|shift| part(shift, 0b11) == FAULT);
        // 0 is not supported.
        let is_misconfigured = part(8, 0b1111) > CORRECTLY_CONFIGURED;
        match (self.state, self.status) {
            (IN_PROGRESS, _) => FabricHealth::Registering,
            (_, Some(SUCCESS)) if !has_fault && !is_misconfigured => FabricHealth::Healthy,
            _ => FabricHealth::Faulty,
        }
    }
}

/// Cluster and clique of a GPU: GPUs with the same ones reach each other's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// UUID of the cluster; zeros outside of a multi-node system.
    pub cluster_uuid: [u8; 16],
    /// Clique within the cluster; `None` if the driver reports none.
    pub clique: Option<u32>,
}

/// The fabric of a GPU with `NVSwitch`: `nvmlDeviceGetGpuFabricInfo_v4`, or
/// `nvmlDeviceGetGpuFabricInfoV` in version 3 or 2.
///
/// # Errors
/// Returns the NVML error; unsupported if the board is not in a fabric.
pub fn fabric(nvml: &Nvml, newer: &NewerFunctions, gpu: Handle) -> Result<Fabric, Missing> {
    match version_4(newer, gpu) {
        Err(Missing::Unsupported) => match version_3(nvml, gpu) {
            Err(Missing::Failed(VERSION_MISMATCH)) => version_2(nvml, gpu),
            result => result,
        },
        result => result,
    }
}

fn version_4(newer: &NewerFunctions, gpu: Handle) -> Result<Fabric, Missing> {
    let call = newer.fabric_info()?;
    let mut info = FabricInfo {
        cluster_uuid: [0; 16],
        status: 0,
        cliques: [FabricClique { kind: 0, id: 0 }; CLIQUES_MAX],
        clique_count: 0,
        state: NOT_SUPPORTED,
        health_mask: 0,
        health_summary: 0,
    };
    // SAFETY: `info` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(gpu.0, &raw mut info) })?;
    let count = usize::try_from(info.clique_count).unwrap_or(CLIQUES_MAX);
    let mut cliques = info.cliques.iter().take(count);
    let clique = cliques.find(|clique| clique.kind == UNICAST_POINTER).map(|clique| clique.id);
    let membership = Membership { cluster_uuid: info.cluster_uuid, clique };
    let fabric = registered(info.state, info.status, membership)?;
    let health_summary = Some(u32::from(info.health_summary));
    Ok(Fabric { health_mask: info.health_mask, health_summary, ..fabric })
}

fn version_3(nvml: &Nvml, gpu: Handle) -> Result<Fabric, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuFabricInfoV)?;
    let mut info = nvmlGpuFabricInfo_v3_t {
        version: version::<nvmlGpuFabricInfo_v3_t>(3),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: `info` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut info) })?;
    let membership = Membership { cluster_uuid: info.clusterUuid, clique: Some(info.cliqueId) };
    let fabric = registered(info.state, info.status, membership)?;
    let health_summary = Some(u32::from(info.healthSummary));
    Ok(Fabric { health_mask: info.healthMask, health_summary, ..fabric })
}

fn version_2(nvml: &Nvml, gpu: Handle) -> Result<Fabric, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuFabricInfoV)?;
    let mut info = nvmlGpuFabricInfo_v2_t {
        version: version::<nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
    };
    // SAFETY: `info` is a live struct and its version field contains the size; the call writes that
    // version, whatever its signature is.
    check(unsafe { call(gpu.0, (&raw mut info).cast()) })?;
    let membership = Membership { cluster_uuid: info.clusterUuid, clique: Some(info.cliqueId) };
    let fabric = registered(info.state, info.status, membership)?;
    Ok(Fabric { health_mask: info.healthMask, ..fabric })
}

/// Cluster and clique are valid only after a successful registration.
fn registered(state: u8, status: nvmlReturn_t, membership: Membership) -> Result<Fabric, Missing> {
    if state == NOT_SUPPORTED {
        return Err(Missing::Unsupported);
    }
    let status = (state == COMPLETED).then_some(status);
    let membership = (status == Some(SUCCESS)).then_some(membership);
    Ok(Fabric { state: state.into(), status, membership, health_mask: 0, health_summary: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_a_bit_of_the_mask_or_a_failed_registration() {
        let healthy = Fabric {
            state: 3,
            status: Some(SUCCESS),
            membership: None,
            health_mask: 0b0001_1010_1010,
            health_summary: None,
        };
        let of =
            |state, status, health_mask| Fabric { state, status, health_mask, ..healthy }.health();
        assert_eq!(healthy.health(), FabricHealth::Healthy);
        assert_eq!(of(3, Some(SUCCESS), 0), FabricHealth::Healthy, "nothing is supported");
        for mask in [0b0001_1010_1001, 0b0001_1010_0110, 0b0001_1001_1010, 0b0001_0110_1010, 0x5AA]
        {
            assert_eq!(of(3, Some(SUCCESS), mask), FabricHealth::Faulty, "{mask:b}");
        }
        // Bits of newer drivers are no faults: no partition is assigned, and no fabric manager is connected.
        assert_eq!(of(3, Some(SUCCESS), 0b1010_0001_1010_1010), FabricHealth::Healthy);
        assert_eq!(of(3, Some(999), 0), FabricHealth::Faulty);
        assert_eq!(
            [of(1, None, 0), of(2, None, 0)],
            [FabricHealth::Faulty, FabricHealth::Registering]
        );
    }

    #[test]
    fn cluster_and_clique_need_a_successful_registration() {
        let membership = Membership { cluster_uuid: [7; 16], clique: Some(3) };
        let of = |state, status| registered(state, status, membership);
        assert_eq!(of(0, 0), Err(Missing::Unsupported));
        assert_eq!(of(2, 0).map(|fabric| (fabric.status, fabric.membership)), Ok((None, None)));
        assert_eq!(
            of(3, 999).map(|fabric| (fabric.status, fabric.membership)),
            Ok((Some(999), None))
        );
        assert_eq!(of(3, 0).map(|fabric| fabric.membership), Ok(Some(membership)));
    }
}
