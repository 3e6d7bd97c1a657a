//! Rows of accumulated usage, and of minimum, mean and maximum of the GPU utilization. They cost
//! nothing unless they are selected.

use super::DeviceSource::{self, Sampled};
use super::Kind::{Counter, Gauge};
use super::{AccumulatedMetric, Kind, Metric, Tier, each_cycle};

const SAMPLES: &str = "nvmlDeviceGetSamples";
const UTILIZATION: &str = "nvmlDeviceGetProcessUtilization";
const ENERGY: &str = "nvmlDeviceGetFieldValues";
const NO_UTILIZATION: &str =
    "MPS clients; while MIG is enabled; where the driver reports no process utilization";
const NO_ENERGY: &str = "before Volta; while MIG is enabled";
const NO_SAMPLES: &str = "while MIG is enabled; in a GPU's first cycle";

pub(super) const MIN_MEAN_MAX: &[Metric<DeviceSource>] = &[
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MIN",
        Gauge,
        "%",
        SAMPLES,
        Sampled(|samples| samples.min),
        "Minimum of the GPU utilization samples since the last cycle (in %).",
        NO_SAMPLES,
    ),
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MEAN",
        Gauge,
        "%",
        SAMPLES,
        Sampled(|samples| samples.mean),
        "Mean of the GPU utilization samples since the last cycle (in %).",
        NO_SAMPLES,
    ),
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MAX",
        Gauge,
        "%",
        SAMPLES,
        Sampled(|samples| samples.max),
        "Maximum of the GPU utilization samples since the last cycle (in %).",
        NO_SAMPLES,
    ),
];

/// Rows of accumulated usage.
pub const ACCUMULATED: &[Metric<AccumulatedMetric>] = &[
    row(
        "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        AccumulatedMetric::ProcessSmTime,
        "SM time used by the process since it was first seen (in seconds of the whole GPU).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        AccumulatedMetric::ContainerSmTime,
        "SM time used by the container since it was first seen (in seconds of the whole GPU).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        AccumulatedMetric::ContainerIdleTime,
        "Time for which the container had the GPU but did not use its SMs (in seconds).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS",
        Gauge,
        "s",
        UTILIZATION,
        AccumulatedMetric::ContainerLastActive,
        "Time since the container last used the GPU's SMs, or since it was first seen (in seconds).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL",
        Counter,
        "J",
        ENERGY,
        AccumulatedMetric::ContainerEnergy,
        "Energy of the GPU attributed to the container by SM time since it was first seen (in J).",
        NO_ENERGY,
    ),
    row(
        "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL",
        Counter,
        "J",
        ENERGY,
        AccumulatedMetric::Energy,
        "Energy of the GPU by owner of the SM time since the GPU was first seen (in J).",
        NO_ENERGY,
    ),
];

const fn row(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    symbol: &'static str,
    source: AccumulatedMetric,
    help: &'static str,
    absent: &'static str,
) -> Metric<AccumulatedMetric> {
    Metric { name, kind, unit, symbol, tier: Tier::Cycle, source, help, absent }
}
