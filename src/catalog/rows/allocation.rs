//! Rows of allocations.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::{AllocatedFractionSource, ContainerSource};

/// Rows with one series per container and device that is allocated to it.
pub const CONTAINER: &[Metric<ContainerSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
        unit: "MiB",
        symbol: "v1.PodResourcesLister/List",
        help: "Framebuffer memory allocated to the container on the GPU (in MiB).",
        absent: "if the amount is unknown",
        ..gauge(|allocation| allocation.memory)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED",
        unit: "ratio",
        symbol: "v1.PodResourcesLister/List",
        help: "Fraction of the GPU's compute allocated to the container (0 to 1; 0 is unlimited).",
        ..gauge(|allocation| allocation.compute)
    },
];

const NO_ACCOUNT: &str = "before driver 615; with cgroup v1; on MIG devices; without a limit of the container's cgroup; if the exporter cannot see the cgroup; until the container has had a process on the GPU";

/// Rows of the driver's account of each container to which a GPU is allocated.
pub const MEMORY_ACCOUNT: &[Metric<ContainerSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_MEM_CHARGED",
        unit: "MiB",
        symbol: MEMORY_LIMITS,
        help: "Framebuffer memory that the driver charges to the cgroup of the container (in MiB).",
        absent: NO_ACCOUNT,
        ..gauge(|allocation| allocation.charged)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_MEM_UNLISTED",
        unit: "MiB",
        symbol: MEMORY_LIMITS,
        help: "Framebuffer memory charged to the container, less that of its processes in the driver's list (in MiB).",
        absent: NO_ACCOUNT,
        ..gauge(|allocation| allocation.unlisted)
    },
];
const MEMORY_LIMITS: &str = "nvmlDeviceGetMemoryLimits_v1";

/// Rows of the allocated fraction: one series per GPU, or per GPU instance while MIG is enabled.
pub const ALLOCATED_FRACTION: &[Metric<AllocatedFractionSource>] = &[Metric {
    name: "DCGM_CUSTOM_DEV_FB_ALLOCATED",
    unit: "ratio",
    symbol: "v1.PodResourcesLister/List",
    help: "Fraction of the framebuffer memory that is allocated to containers (0 to 1).",
    absent: "without a cluster; while the kubelet does not respond",
    ..gauge(|allocated| allocated.framebuffer)
}];
