//! Rows of minimum, mean and maximum of the GPU utilization. They cost nothing unless they are selected.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::DeviceSource::{self, Sampled};

const SAMPLES: &str = "nvmlDeviceGetSamples";
const NO_SAMPLES: &str = "while MIG is enabled; in a GPU's first cycle";

pub(super) const MIN_MEAN_MAX: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_DEV_GPU_UTIL_MIN",
        unit: "%",
        symbol: SAMPLES,
        help: "Minimum of the GPU utilization samples since the last cycle (in %).",
        absent: NO_SAMPLES,
        ..gauge(Sampled(|samples| samples.min))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_GPU_UTIL_MEAN",
        unit: "%",
        symbol: SAMPLES,
        help: "Mean of the GPU utilization samples since the last cycle (in %).",
        absent: NO_SAMPLES,
        ..gauge(Sampled(|samples| samples.mean))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_GPU_UTIL_MAX",
        unit: "%",
        symbol: SAMPLES,
        help: "Maximum of the GPU utilization samples since the last cycle (in %).",
        absent: NO_SAMPLES,
        ..gauge(Sampled(|samples| samples.max))
    },
];
