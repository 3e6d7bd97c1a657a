//! Rows of the framebuffer and of BAR1 memory.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::DeviceSource::{self, Read, ReadOrUsage};
use crate::nvml::probe::{bytes, mebibytes};
use crate::policy::Tier::Slow;

/// The most used memory rows of a GPU or GPU instance.
pub(super) const MEMORY: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_FB_FREE",
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory free (in MiB).",
        ..gauge(Read(|p| p.memory_free()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_USED",
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory used (in MiB), excluding memory that the driver reserves (included by drivers before 510).",
        ..gauge(ReadOrUsage(|p| p.memory_used(), |usage| usage.memory.map(mebibytes)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FB_TOTAL",
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Total framebuffer memory (in MiB).",
        ..gauge(Read(|p| p.memory_total()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_USED",
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "BAR1 memory used (in MiB).",
        ..gauge(Read(|p| p.bar1_used()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_FREE",
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "BAR1 memory free (in MiB).",
        ..gauge(Read(|p| p.bar1_free()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_TOTAL",
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "Total BAR1 memory (in MiB).",
        ..gauge(Read(|p| p.bar1_total()))
    },
];

/// More memory rows, and the same in bytes.
pub(super) const MORE_MEMORY: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_FB_TOTAL",
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Total framebuffer memory (in MiB).",
        ..gauge(Read(|p| p.memory_total()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_RESERVED",
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory reserved by the driver (in MiB).",
        absent: "drivers before 510",
        ..gauge(Read(|p| p.memory_reserved()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_USED_PERCENT",
        unit: "ratio 0..1",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Fraction of the usable framebuffer memory that is used (0 to 1, despite the name).",
        ..gauge(Read(|p| p.memory_used_ratio()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_CAPACITY_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Total framebuffer memory (in bytes).",
        ..gauge(Read(|p| p.memory_total_bytes()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_FREE_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory free (in bytes).",
        ..gauge(Read(|p| p.memory_free_bytes()))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_USED_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory used (in bytes), excluding memory that the driver reserves (included by drivers before 510).",
        ..gauge(ReadOrUsage(|p| p.memory_used_bytes(), |usage| usage.memory.map(bytes)))
    },
    Metric {
        name: "DCGM_FI_DEV_FB_RESERVED_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        help: "Framebuffer memory reserved by the driver (in bytes).",
        absent: "drivers before 510",
        ..gauge(Read(|p| p.memory_reserved_bytes()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_CAPACITY_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "Total BAR1 memory (in bytes).",
        ..gauge(Read(|p| p.bar1_total_bytes()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_USED_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "BAR1 memory used (in bytes).",
        ..gauge(Read(|p| p.bar1_used_bytes()))
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_FREE_BYTES",
        unit: "bytes",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        help: "BAR1 memory free (in bytes).",
        ..gauge(Read(|p| p.bar1_free_bytes()))
    },
];
