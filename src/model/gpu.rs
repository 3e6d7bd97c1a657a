//! GPUs and MIG devices.

use std::sync::Arc;

use super::{Missing, Reading};

/// Identity of a GPU; read once per session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML index (`nvmlDeviceGetHandleByIndex_v2`); the `gpu` label.
    pub index: u32,
    /// Minor number of `/dev/nvidiaN` (`nvmlDeviceGetMinorNumber`); `None` on platforms without
    /// one.
    pub minor: Option<u32>,
    /// `nvmlDeviceGetUUID`; a GPU without one has no series.
    pub uuid: Arc<str>,
    /// `nvmlDeviceGetName`.
    pub name: Arc<str>,
    /// `nvmlDeviceGetPciInfo_v3`, as `00000000:1B:00.0`; empty on platforms without PCI.
    pub pci_bus_id: Arc<str>,
}

impl Gpu {
    /// What selects the GPU in `nvidia-smi -i`. The index may be another one than that of NVML here.
    #[must_use]
    pub fn selector(&self) -> &str {
        if self.pci_bus_id.is_empty() { &self.uuid } else { &self.pci_bus_id }
    }
}

/// A MIG device: a compute instance inside a GPU instance of its GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigDevice {
    /// `nvmlDeviceGetUUID` of the MIG device, as `MIG-…`.
    pub uuid: Arc<str>,
    /// Profile of its GPU instance, as `1g.10gb` (parsed from `nvmlDeviceGetName`); empty if the
    /// name has none.
    pub profile: Arc<str>,
    /// Its index on the GPU (`nvmlDeviceGetMigDeviceHandleByIndex`); indexes may have gaps.
    pub index: u32,
    /// `nvmlDeviceGetGpuInstanceId`; reused after an instance is destroyed.
    pub gpu_instance: u32,
    /// `nvmlDeviceGetComputeInstanceId`; unique within the GPU instance.
    pub compute_instance: u32,
    /// Number of streaming multiprocessors (`nvmlDeviceGetAttributes_v2`), if known.
    pub multiprocessors: Option<u32>,
    /// Whether other compute instances share the framebuffer of its GPU instance.
    pub shares_instance: bool,
    /// Placement of its GPU instance, if the driver permits reading it.
    pub placement: Option<MigPlacement>,
}

/// Where a GPU instance is on its GPU (`nvmlGpuInstanceGetInfo`). No two instances of a GPU that
/// exist at the same time have the same placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigPlacement {
    /// Id of the GPU instance profile.
    pub profile_id: u32,
    /// First memory slice.
    pub start: u32,
}

/// Limits of a board.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Enforced power limit, watts (`nvmlDeviceGetEnforcedPowerLimit`).
    pub power: Reading,
    /// Slowdown temperature, °C (`nvmlDeviceGetTemperatureThreshold`).
    pub temperature: Reading,
}

impl Default for Limits {
    fn default() -> Self {
        Self { power: Err(Missing::Pending), temperature: Err(Missing::Pending) }
    }
}

/// Readings of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeSample {
    /// Number of GPUs, including lost ones (`nvmlDeviceGetCount_v2`).
    pub gpu_count: Reading,
    /// [`AllocateMode`](super::AllocateMode) of the node, as a number.
    pub allocate_mode: Reading,
}
