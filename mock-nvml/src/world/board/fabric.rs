//! NVLink fabric.

use crate::world::board::Board;

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;
/// Health mask: each two-bit field is `…_FALSE`, no problem.
const ALL_HEALTHY: u32 = 0b1010_1010;
/// `NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY`.
const HEALTHY: u8 = 1;

/// Membership in a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fabric {
    /// UUID of the cluster; zeros on a node without other nodes in its fabric.
    pub(crate) cluster_uuid: [u8; 16],
    /// Id of the clique.
    pub(crate) clique: Option<u32>,
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
                state: 0,
                health_mask: 0,
                health_summary: 0,
            };
        }
        // Racks of several nodes are one cluster.
        let cluster_uuid =
            if self.model().extras.platform { *b"rack-of-18-trays" } else { [0; 16] };
        Fabric {
            cluster_uuid,
            clique: Some(u32::from(self.model().extras.platform)),
            state: COMPLETED,
            health_mask: ALL_HEALTHY,
            health_summary: HEALTHY,
        }
    }
}
