//! Rows of accumulated usage. They cost nothing unless they are selected.

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::AccumulatedMetric;

const UTILIZATION: &str = "nvmlDeviceGetProcessUtilization";
const ENERGY: &str = "nvmlDeviceGetFieldValues";
const NO_UTILIZATION: &str =
    "MPS clients; while MIG is enabled; where the driver reports no process utilization";
const NO_ENERGY: &str = "before Volta; while MIG is enabled";

/// Rows of accumulated usage.
pub const ACCUMULATED: &[Metric<AccumulatedMetric>] = &[
    Metric {
        name: "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL",
        unit: "s",
        symbol: UTILIZATION,
        help: "SM time used by the process since it was first seen (in seconds of the whole GPU).",
        absent: NO_UTILIZATION,
        ..counter(AccumulatedMetric::ProcessSmTime)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL",
        unit: "s",
        symbol: UTILIZATION,
        help: "SM time used by the container since it was first seen (in seconds of the whole GPU).",
        absent: NO_UTILIZATION,
        ..counter(AccumulatedMetric::ContainerSmTime)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
        unit: "s",
        symbol: UTILIZATION,
        help: "Time for which the container had the GPU but did not use its SMs (in seconds).",
        absent: NO_UTILIZATION,
        ..counter(AccumulatedMetric::ContainerIdleTime)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS",
        unit: "s",
        symbol: UTILIZATION,
        help: "Time since the container last used the GPU's SMs, or since it was first seen (in seconds).",
        absent: NO_UTILIZATION,
        ..gauge(AccumulatedMetric::ContainerLastActive)
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL",
        unit: "J",
        symbol: ENERGY,
        help: "Energy of the GPU attributed to the container by SM time since it was first seen (in J).",
        absent: NO_ENERGY,
        ..counter(AccumulatedMetric::ContainerEnergy)
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL",
        unit: "J",
        symbol: ENERGY,
        help: "Energy of the GPU by owner of the SM time since the GPU was first seen (in J).",
        absent: NO_ENERGY,
        ..counter(AccumulatedMetric::Energy)
    },
];
