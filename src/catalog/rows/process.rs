//! Rows of processes.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::ProcessSource;
use crate::nvml::probe::mebibytes;

const PROCESS_UTILIZATION_ABSENT: &str =
    "in a GPU's first cycle; MPS clients and servers; while MIG is enabled";

/// Rows with one series per process and device.
pub const PROCESS: &[Metric<ProcessSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_PROCESS_SM_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "SM utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.sm))
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_MEM_COPY_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Memory interface utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.memory))
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_ENCODE_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Video encoder utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.encoder))
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_DECODE_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Video decoder utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.decoder))
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_MEM_USED",
        unit: "MiB",
        symbol: "nvmlDeviceGetComputeRunningProcesses_v3",
        help: "Framebuffer memory used by the process on the GPU (in MiB).",
        absent: "where the driver does not report it (WSL, some vGPU guests)",
        ..gauge(|p| Ok(mebibytes(p.memory?)))
    },
];

/// Rows with one series per process and device, of processes without an allocation on the device.
pub const ILLEGAL: &[Metric<ProcessSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "SM utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.sm))
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_COPY_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Memory interface utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.memory))
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_ENCODE_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Video encoder utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.encoder))
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_DECODE_UTIL",
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        help: "Video decoder utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
        ..gauge(|p| Ok(p.utilization?.decoder))
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED",
        unit: "MiB",
        symbol: "nvmlDeviceGetComputeRunningProcesses_v3",
        help: "Framebuffer memory used by a process without an allocation on the GPU (in MiB).",
        absent: "where the driver does not report it (WSL, some vGPU guests)",
        ..gauge(|p| Ok(mebibytes(p.memory?)))
    },
];
