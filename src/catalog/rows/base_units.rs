//! Rows of a GPU in base units, with the names of DCGM 4.7.

use nvml_wrapper_sys::bindings::field_id;

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Read, ReadOrUsage};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::{Second, Slow};

const BATCH: &str = "nvmlDeviceGetFieldValues";

/// Values in base units, with the names of newer versions of dcgm-exporter.
pub(super) const BASE_UNITS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_SM_CLOCK_HERTZ",
        unit: "Hz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Second,
        help: "SM clock frequency (in Hz).",
        ..gauge(Read(|p| Ok(p.sm_clock()? * 1e6)))
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ",
        unit: "Hz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Second,
        help: "Memory clock frequency (in Hz).",
        ..gauge(Read(|p| Ok(p.memory_clock()? * 1e6)))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL",
        unit: "J",
        symbol: BATCH,
        help: "Energy consumption since the driver was loaded (in J).",
        absent: "before Volta",
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION), |mj| {
            Ok(mj / 1000.0)
        }))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_UTIL_RATIO",
        unit: "ratio 0..1",
        symbol: "nvmlDeviceGetUtilizationRates",
        help: "GPU utilization: fraction of the last sample period in which a kernel was running (0 to 1).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(
            |p| Ok(p.gpu_utilization()? / 100.0),
            |usage| Ok(usage.utilization?.sm / 100.0),
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_UTIL_RATIO",
        unit: "ratio 0..1",
        symbol: "nvmlDeviceGetUtilizationRates",
        help: "Memory utilization: fraction of the last sample period in which memory was read or written (0 to 1).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(
            |p| Ok(p.memory_utilization()? / 100.0),
            |usage| Ok(usage.utilization?.memory / 100.0),
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_ENC_UTIL_RATIO",
        unit: "ratio 0..1",
        symbol: "nvmlDeviceGetEncoderUtilization",
        tier: Second,
        help: "Video encoder utilization (0 to 1).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(
            |p| Ok(p.encoder_utilization()? / 100.0),
            |usage| Ok(usage.utilization?.encoder / 100.0),
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_DEC_UTIL_RATIO",
        unit: "ratio 0..1",
        symbol: "nvmlDeviceGetDecoderUtilization",
        tier: Second,
        help: "Video decoder utilization (0 to 1).",
        absent: "while MIG is enabled",
        ..gauge(ReadOrUsage(
            |p| Ok(p.decoder_utilization()? / 100.0),
            |usage| Ok(usage.utilization?.decoder / 100.0),
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_FAN_SPEED_RATIO",
        unit: "ratio",
        symbol: "nvmlDeviceGetFanSpeed_v2",
        tier: Second,
        help: "Intended fan speed (1 is the nominal speed).",
        absent: "passively cooled boards",
        ..gauge(Read(|p| Ok(p.fan_speed()? / 100.0)))
    },
    Metric {
        name: "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
        unit: "bool",
        symbol: "nvmlDeviceGetGridLicensableFeatures_v4",
        tier: Slow,
        help: "1 if a vGPU license is active; 0 also where none is required.",
        absent: "where the driver does not report it",
        ..gauge(Read(|p| p.vgpu_licensed()))
    },
];
