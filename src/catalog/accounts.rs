//! Rows that nobody has to pay for who does not ask: what was used in all, and how much it varied.

use super::DeviceSource::{self, Read};
use super::Kind::{Counter, Gauge};
use super::{Account, Kind, Metric, SAMPLES_SYMBOL, Tier, each_cycle};

const UTILIZATION: &str = "nvmlDeviceGetProcessUtilization";
const METER: &str = "nvmlDeviceGetFieldValues";
const NO_UTILIZATION: &str =
    "MPS clients; while MIG is on; where the driver tells no utilization of processes";
const NO_METER: &str = "before Volta; while MIG is on";
const NO_SAMPLES: &str = "while MIG is on; in a GPU's first cycle";

pub(super) const EXTENT: [Metric<DeviceSource>; 3] = [
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MIN",
        Gauge,
        "%",
        SAMPLES_SYMBOL,
        Read(|p| Ok(p.utilization_extent()?.min)),
        "Lowest sample of the GPU's utilization since the last cycle (in %).",
        NO_SAMPLES,
    ),
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MEAN",
        Gauge,
        "%",
        SAMPLES_SYMBOL,
        Read(|p| Ok(p.utilization_extent()?.mean)),
        "Mean of the samples of the GPU's utilization since the last cycle (in %).",
        NO_SAMPLES,
    ),
    each_cycle(
        "DCGM_CUSTOM_DEV_GPU_UTIL_MAX",
        Gauge,
        "%",
        SAMPLES_SYMBOL,
        Read(|p| Ok(p.utilization_extent()?.max)),
        "Highest sample of the GPU's utilization since the last cycle (in %).",
        NO_SAMPLES,
    ),
];

/// Rows of what was used in all.
pub const ACCOUNT: &[Metric<Account>] = &[
    row(
        "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        Account::ProcessSmTime,
        "SM time that the process has used since it was first seen (in s of the whole GPU).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        Account::ContainerSmTime,
        "SM time that the container has used since it was first seen (in s of the whole GPU).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
        Counter,
        "s",
        UTILIZATION,
        Account::ContainerIdleTime,
        "Time for which the container held the GPU and did not use its SMs (in s).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS",
        Gauge,
        "s",
        UTILIZATION,
        Account::ContainerLastActive,
        "Time since the container last used the GPU's SMs, or was first seen to hold it (in s).",
        NO_UTILIZATION,
    ),
    row(
        "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL",
        Counter,
        "J",
        METER,
        Account::ContainerEnergy,
        "The container's part of the GPU's energy, by SM time, since it was first seen (in J).",
        NO_METER,
    ),
    row(
        "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL",
        Counter,
        "J",
        METER,
        Account::Energy,
        "The GPU's energy by who used its SMs, since it was first seen (in J).",
        NO_METER,
    ),
];

const fn row(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    symbol: &'static str,
    source: Account,
    help: &'static str,
    absent: &'static str,
) -> Metric<Account> {
    Metric { name, kind, unit, symbol, tier: Tier::Cycle, source, help, absent }
}
