//! Rows of the activity of a container that alone holds a device.

use nvml_wrapper_sys::bindings as nvml;

use super::profiling::ratio;
use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::DeviceSource::{self, Gpm};

const GPM: &str = "nvmlGpmMetricsGet";
const NOT_ALONE: &str = "before Hopper; unless one container holds the whole GPU or GPU instance, and nothing else is known to use it; in a device's first cycle";

/// Activity of a GPU or GPU instance, with the labels of the only container that holds it.
pub const ACTIVITY: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_SM_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which an SM had at least one warp of the container, mean over all SMs (0 to 1).",
        absent: NOT_ALONE,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, ratio))
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_SM_OCCUPANCY",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Resident warps of the container as a fraction of the maximum, mean over all SMs (0 to 1).",
        absent: NOT_ALONE,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY, ratio))
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_TENSOR_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the container used the tensor cores, with any data type (0 to 1).",
        absent: NOT_ALONE,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL, ratio))
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_DRAM_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of the memory bandwidth that the container used (0 to 1).",
        absent: NOT_ALONE,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL, ratio))
    },
];
