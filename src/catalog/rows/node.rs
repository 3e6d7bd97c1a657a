//! Rows of the node.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::NodeSource;

/// Rows with one series per node.
pub const NODE: &[Metric<NodeSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_COUNT",
        unit: "count",
        symbol: "nvmlDeviceGetCount_v2",
        help: "Number of GPUs on the node, including lost ones.",
        ..gauge(|n| n.gpu_count)
    },
    Metric {
        name: "DCGM_CUSTOM_ALLOCATE_MODE",
        unit: "enum",
        symbol: "v1.PodResourcesLister/List",
        help: "Allocation mode of the node's GPUs: 0 none, 1 exclusive, 2 shared.",
        absent: "without a cluster; while the kubelet does not respond",
        ..gauge(|n| n.allocate_mode)
    },
];
