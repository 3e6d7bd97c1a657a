//! The most used rows of a GPU.

use nvml_wrapper_sys::bindings::field_id;

use super::kib_to_mb;
use crate::catalog::headline::Headline;
use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Rate, Read, ReadOrUsage};
use crate::nvml::probe::celsius;
use crate::nvml::raw::fields::Field;
use crate::policy::Tier::{Second, Slow};

pub(super) const GPU: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_SM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Second,
        help: "SM clock frequency (in MHz).",
        ..gauge(Read(|p| p.sm_clock()))
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Second,
        help: "Memory clock frequency (in MHz).",
        ..gauge(Read(|p| p.memory_clock()))
    },
    Metric {
        name: "DCGM_FI_DEV_VIDEO_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Second,
        help: "Video engine clock frequency (in MHz).",
        ..gauge(Read(|p| p.video_clock()))
    },
    Metric {
        name: "DCGM_FI_DEV_APP_SM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        help: "SM application clock frequency (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
        ..gauge(Read(|p| p.application_sm_clock()))
    },
    Metric {
        name: "DCGM_FI_DEV_APP_MEM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        help: "Memory application clock frequency (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
        ..gauge(Read(|p| p.application_memory_clock()))
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_TEMP",
        unit: "C",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Memory temperature (in C).",
        absent: "boards without a memory sensor: most with GDDR memory",
        ..gauge(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_MEMORY_TEMP), celsius))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_TEMP",
        unit: "C",
        symbol: "nvmlDeviceGetTemperatureV",
        tier: Second,
        help: "GPU temperature (in C).",
        headline: Some(Headline::Temperature),
        ..gauge(Read(|p| p.temperature()))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_USAGE",
        unit: "W",
        symbol: "nvmlDeviceGetPowerUsage",
        help: "Power draw of the board (in W), averaged over one second on most boards since Ampere.",
        absent: "boards without a power sensor",
        headline: Some(Headline::Power),
        ..gauge(Read(|p| p.power()))
    },
    Metric {
        name: "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        unit: "mJ",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Energy consumption since the driver was loaded (in mJ).",
        absent: "before Volta",
        ..counter(DeviceSource::Field(
            Field::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION),
            Ok,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        unit: "count",
        symbol: "nvmlDeviceGetFieldValues",
        help: "PCIe replays since the driver was loaded.",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PCIE_REPLAY_COUNTER), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        help: "GPU utilization: fraction of the last sample period in which a kernel was running (in %).",
        absent: "while MIG is enabled",
        headline: Some(Headline::Utilization),
        ..gauge(ReadOrUsage(|p| p.gpu_utilization(), |usage| Ok(usage.utilization?.sm)))
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_COPY_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        help: "Memory utilization: fraction of the last sample period in which memory was read or written (in %).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(|p| p.memory_utilization(), |usage| Ok(usage.utilization?.memory)))
    },
    Metric {
        name: "DCGM_FI_DEV_ENC_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetEncoderUtilization",
        tier: Second,
        help: "Video encoder utilization (in %).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(|p| p.encoder_utilization(), |usage| Ok(usage.utilization?.encoder)))
    },
    Metric {
        name: "DCGM_FI_DEV_DEC_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetDecoderUtilization",
        tier: Second,
        help: "Video decoder utilization (in %).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(|p| p.decoder_utilization(), |usage| Ok(usage.utilization?.decoder)))
    },
    Metric {
        name: "DCGM_FI_DEV_PSTATE",
        unit: "P-state",
        symbol: "nvmlDeviceGetPerformanceState",
        tier: Second,
        help: "Performance state (P-state), 0 (highest performance) to 15 (lowest).",
        absent: "while the driver reports it as unknown",
        ..gauge(Read(|p| p.performance_state()))
    },
    Metric {
        name: "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        unit: "bitmask",
        symbol: "nvmlDeviceGetCurrentClocksEventReasons",
        tier: Second,
        help: "Clock event (throttle) reasons (bitmask of nvmlClocksEventReasons).",
        headline: Some(Headline::ClockEvents),
        ..gauge(Read(|p| p.clock_event_reasons()))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to power limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_POWER), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_THERMAL_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to thermal limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_THERMAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to sync boost since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to board limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_LOW_UTIL_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to low utilization since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(
            Field::of(field_id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION),
            Ok,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_RELIABILITY_VIOLATION",
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throttling duration due to reliability limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_RELIABILITY), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_SBE",
        unit: "pages",
        symbol: "nvmlDeviceGetRetiredPages",
        tier: Slow,
        help: "Framebuffer pages retired because of single-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
        ..counter(Read(|p| p.single_bit_retired_pages()))
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_DBE",
        unit: "pages",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Slow,
        help: "Framebuffer pages retired because of double-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_RETIRED_DBE), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_PENDING",
        unit: "bool",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Slow,
        help: "1 while page retirements are pending until the next reboot.",
        absent: "without ECC; Ampere and later, which remap rows instead",
        ..counter(DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_RETIRED_PENDING), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        unit: "MB/s",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Throughput of all NVLinks in both directions (in MB/s): a rate, although dcgm-exporter types it as a counter.",
        absent: "boards without NVLink; in a GPU's first cycle",
        ..counter(Rate(
            &[
                Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
                Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
            ],
            kib_to_mb,
        ))
    },
];
