//! Allocations of devices to containers.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Claim, ContainerIdentity, Missing, Reading};

/// How a GPU is allocated to containers. Ordered: the mode of a node is the maximum of its devices.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AllocateMode {
    /// Not allocated.
    #[default]
    None,
    /// One container is allocated the whole GPU or MIG device.
    Exclusive,
    /// Containers are allocated shares of it.
    Share,
}

impl AllocateMode {
    /// Value of the `AllocateMode` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exclusive => "exclusive",
            Self::Share => "share",
        }
    }

    /// Value of the node's series: 0, 1 or 2.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Exclusive => 1.0,
            Self::Share => 2.0,
        }
    }
}

/// Allocation of one device to one container.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceAllocation {
    /// The container; the UID of its pod is empty if the pods are unknown.
    pub container: ContainerIdentity,
    /// UUID of the GPU or MIG device.
    pub device: Arc<str>,
    /// Exclusive or shared.
    pub mode: AllocateMode,
    /// Allocated framebuffer, MiB; `None` if unknown, never 0.
    pub memory: Option<f64>,
    /// Allocated fraction of the device's compute, 0 to 1; 0 is unlimited, `None` if unknown.
    pub compute: Option<f64>,
    /// Whether the memory is reserved for the container, so that the allocations of a device add
    /// up. Otherwise each container may use all of it.
    pub reserved: bool,
    /// Number of the replica, or the lowest of several; `None` without replicas.
    pub replica: Option<u32>,
    /// The resource claim (DRA) that allocated the device.
    pub claim: Option<Arc<Claim>>,
    /// Whether the pod is known to still exist.
    pub confirmed: bool,
    /// Whether the container is known to run, with no init container that still has to end before
    /// it.
    pub running: bool,
    /// When the allocation was first known as it is now (monotonic).
    pub known_since: Duration,
}

impl DeviceAllocation {
    /// Values of the allocation series of the container; absent if the pod may no longer exist.
    #[must_use]
    pub fn series_values(&self) -> ContainerAllocation {
        let known = if self.confirmed { Ok(()) } else { Err(Missing::Pending) };
        ContainerAllocation {
            memory: known.and(self.memory.ok_or(Missing::Pending)),
            compute: known.and(self.compute.ok_or(Missing::Pending)),
            charged: Err(Missing::Unsupported),
            unlisted: Err(Missing::Unsupported),
        }
    }
}

/// The amount of a device that is allocated to a container, and what the driver charges to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContainerAllocation {
    /// Framebuffer, MiB.
    pub memory: Reading,
    /// Fraction of the compute, 0 to 1; 0 is unlimited.
    pub compute: Reading,
    /// Framebuffer that the driver charges to the container, MiB.
    pub charged: Reading,
    /// What of that the processes in the driver's list do not explain, MiB; negative if they use more.
    pub unlisted: Reading,
}

/// The fraction of a device that is allocated to containers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AllocatedFraction {
    /// Fraction of the framebuffer, 0 to 1.
    pub framebuffer: Reading,
}
