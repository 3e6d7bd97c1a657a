//! NVLink fabric.

use crate::{scenario::hardware::FabricFault, world::board::Board};

/// `NVML_GPU_FABRIC_STATE_IN_PROGRESS`.
const IN_PROGRESS: u8 = 2;
/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;
/// Health mask: each two-bit field is `…_FALSE`, no problem.
const ALL_HEALTHY: u32 = 0b1010_1010;
/// The same with less bandwidth.
const DEGRADED: u32 = 0b1010_1001;
/// `NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY`.
const LIMITED: u8 = 3;
/// `NVML_SUCCESS`.
const SUCCESS: u32 = 0;
/// `NVML_ERROR_UNKNOWN`.
const UNKNOWN_ERROR: u32 = 999;
/// `NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY`.
const HEALTHY: u8 = 1;

/// Membership in a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fabric {
    /// UUID of the cluster; zeros on a node without other nodes in its fabric.
    pub(crate) cluster_uuid: [u8; 16],
    /// Id of the clique.
    pub(crate) clique: Option<u32>,
    /// Result of the registration, an `nvmlReturn_t`.
    pub(crate) status: u32,
    /// `NVML_GPU_FABRIC_STATE_*`.
    pub(crate) state: u8,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub(crate) health_mask: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`.
    pub(crate) health_summary: u8,
}

impl Board {
    /// Its fabric; state 0 without one.
    pub(crate) fn fabric(&self) -> Fabric {
        if !self.is_in_fabric() {
            let none = [0; 16];
            return Fabric {
                cluster_uuid: none,
                clique: None,
                status: SUCCESS,
                state: 0,
                health_mask: 0,
                health_summary: 0,
            };
        }
        // Racks of several nodes are one cluster.
        let cluster_uuid =
            if self.model().extras.platform { *b"rack-of-18-trays" } else { [0; 16] };
        let clique = Some(u32::from(self.model().extras.platform));
        let healthy = Fabric {
            cluster_uuid,
            clique,
            status: SUCCESS,
            state: COMPLETED,
            health_mask: ALL_HEALTHY,
            health_summary: HEALTHY,
        };
        match self.gpu.hardware.nvlink.fabric {
            FabricFault::None => healthy,
            FabricFault::Registering => Fabric { state: IN_PROGRESS, ..healthy },
            FabricFault::Failed => Fabric { status: UNKNOWN_ERROR, ..healthy },
            FabricFault::Degraded => {
                Fabric { health_mask: DEGRADED, health_summary: LIMITED, ..healthy }
            }
        }
    }
}
