//! Rows of GPM metrics, which are measured between two samples.

use nvml_wrapper_sys::bindings::{self as nvml, field_id};

use crate::catalog::headline::Headline;
use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Gpm, GpmOrRate};
use crate::nvml::raw::fields::Field as Id;

const GPM: &str = "nvmlGpmMetricsGet";
const NO_GPM: &str = "before Hopper; in a device's first cycle";
const NO_TOTALS: &str = "before Hopper; drivers before 595";
const NO_RATE: &str = "boards with neither GPM nor byte counters; in a device's first cycle";
const MIB: f64 = 1_048_576.0;

/// One series per GPU, or per GPU instance while MIG is enabled.
pub(super) const BY_INSTANCE: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of time in which the graphics or compute engines were active (0 to 1).",
        absent: NO_GPM,
        headline: Some(Headline::InstanceActive),
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_SM_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which an SM had at least one warp assigned, mean over all SMs (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_SM_OCCUPANCY",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Resident warps as a fraction of the maximum, mean over all SMs (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the tensor cores were active, with any data type (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_DRAM_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of the memory bandwidth that was used (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the FP64 pipes were active (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP64_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_FP32_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the FP32 pipes were active (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP32_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_FP16_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the FP16 pipes were active (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP16_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the tensor cores were active with integers (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_IMMA_TENSOR_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the tensor cores were active with 16-bit floating point (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_HMMA_TENSOR_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the tensor cores were active with 64-bit floating point (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DFMA_TENSOR_UTIL, ratio))
    },
    Metric {
        name: "DCGM_FI_PROF_PIPE_INT_ACTIVE",
        unit: "ratio 0..1",
        symbol: GPM,
        help: "Fraction of cycles in which the integer pipes were active (0 to 1).",
        absent: NO_GPM,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_INTEGER_UTIL, ratio))
    },
];

/// One series per GPU only.
pub(super) const BY_GPU: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_PROF_PCIE_TX_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "PCIe transmit throughput, including headers (in bytes per second).",
        absent: NO_RATE,
        ..gauge(GpmOrRate(
            nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC,
            bytes,
            &[Id::of(field_id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES)],
            whole,
        ))
    },
    Metric {
        name: "DCGM_FI_PROF_PCIE_RX_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "PCIe receive throughput, including headers (in bytes per second).",
        absent: NO_RATE,
        ..gauge(GpmOrRate(
            nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC,
            bytes,
            &[Id::of(field_id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES)],
            whole,
        ))
    },
    Metric {
        name: "DCGM_FI_PROF_NVLINK_TX_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Transmit throughput of all NVLinks, including headers (in bytes per second).",
        absent: NO_RATE,
        ..gauge(GpmOrRate(
            nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC,
            bytes,
            &[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX)],
            of_kib,
        ))
    },
    Metric {
        name: "DCGM_FI_PROF_NVLINK_RX_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Receive throughput of all NVLinks, including headers (in bytes per second).",
        absent: NO_RATE,
        ..gauge(GpmOrRate(
            nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC,
            bytes,
            &[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX)],
            of_kib,
        ))
    },
    Metric {
        name: "DCGM_FI_PROF_C2C_TX_ALL_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Transmit throughput of the C2C link to the CPU, including headers (in bytes per second).",
        absent: C2C,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_C2C_TOTAL_TX_PER_SEC, bytes))
    },
    Metric {
        name: "DCGM_FI_PROF_C2C_RX_ALL_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Receive throughput of the C2C link to the CPU, including headers (in bytes per second).",
        absent: C2C,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_C2C_TOTAL_RX_PER_SEC, bytes))
    },
    Metric {
        name: "DCGM_FI_PROF_C2C_TX_DATA_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Transmit throughput of the C2C link to the CPU, without headers (in bytes per second).",
        absent: C2C,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_C2C_DATA_TX_PER_SEC, bytes))
    },
    Metric {
        name: "DCGM_FI_PROF_C2C_RX_DATA_BYTES",
        unit: "bytes/s",
        symbol: GPM,
        help: "Receive throughput of the C2C link to the CPU, without headers (in bytes per second).",
        absent: C2C,
        ..gauge(Gpm(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_C2C_DATA_RX_PER_SEC, bytes))
    },
];

const C2C: &str = "boards without a C2C link to a CPU: all but Grace Hopper and Grace Blackwell";

/// Engines of one kind, by number.
macro_rules! engines {
    ($name:literal, $first:ident, $engine:literal, $($number:literal)*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_PROF_", $name, $number, "_ACTIVE"),
            unit: "ratio 0..1",
            symbol: GPM,
            help: concat!("Fraction of time in which ", $engine, " ", $number, " was active (0 to 1)."),
            absent: "before Hopper; engines that the board does not have; in a device's first cycle",
            ..gauge(Gpm(nvml::$first + $number, ratio))
        }),*]
    };
}

/// Throughput in one direction, by link.
macro_rules! by_link {
    ($end:literal, $id:ident, $direction:literal, $($link:literal)*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_PROF_NVLINK_L", $link, $end),
            unit: "bytes/s",
            symbol: GPM,
            help: concat!($direction, " throughput of NVLink ", $link, " (in bytes per second)."),
            absent: "before Hopper; links that the board does not have; in a device's first cycle",
            ..gauge(Gpm($id($link), bytes))
        }),*]
    };
}

pub(super) const DECODERS: &[Metric<DeviceSource>] = engines!("NVDEC", nvmlGpmMetricId_t_NVML_GPM_METRIC_NVDEC_0_UTIL, "video decoder", 0 1 2 3 4 5 6 7);
pub(super) const JPEG: &[Metric<DeviceSource>] = engines!("NVJPG", nvmlGpmMetricId_t_NVML_GPM_METRIC_NVJPG_0_UTIL, "JPEG decoder", 0 1 2 3 4 5 6 7);
pub(super) const OPTICAL_FLOW: &[Metric<DeviceSource>] =
    engines!("NVOFA", nvmlGpmMetricId_t_NVML_GPM_METRIC_NVOFA_0_UTIL, "optical flow engine", 0 1);
pub(super) const SENT: &[Metric<DeviceSource>] =
    each_nvlink!(by_link!("_TX_BYTES", sent_by, "Transmit",));
pub(super) const RECEIVED: &[Metric<DeviceSource>] =
    each_nvlink!(by_link!("_RX_BYTES", received_by, "Receive",));

/// `NVML_GPM_METRIC_NVLINK_L*_RX_PER_SEC`. Those of more than 18 links are newer than nvml-wrapper-sys.
const fn received_by(link: u32) -> u32 {
    match link {
        ..18 => nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_L0_RX_PER_SEC + 2 * link,
        18..36 => 212 + 2 * (link - 18),
        36.. => 405 + 2 * (link - 36),
    }
}

/// `NVML_GPM_METRIC_NVLINK_L*_TX_PER_SEC`.
const fn sent_by(link: u32) -> u32 {
    received_by(link) + 1
}

/// `NVML_GPM_METRIC_*` of drivers since 595, which nvml-wrapper-sys does not have.
const SM_CYCLES_ELAPSED: u32 = 248;
const SM_CYCLES_ACTIVE: u32 = 249;
const MMA_CYCLES_ACTIVE: u32 = 250;
const DMMA_CYCLES_ACTIVE: u32 = 251;
const HMMA_CYCLES_ACTIVE: u32 = 252;
const IMMA_CYCLES_ACTIVE: u32 = 253;
const DFMA_CYCLES_ACTIVE: u32 = 254;
const PCIE_TX: u32 = 255;
const PCIE_RX: u32 = 256;
const INTEGER_CYCLES_ACTIVE: u32 = 257;
const FP64_CYCLES_ACTIVE: u32 = 258;
const FP32_CYCLES_ACTIVE: u32 = 259;
const FP16_CYCLES_ACTIVE: u32 = 260;

/// Counters since the driver was loaded.
pub(super) const TOTALS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "Elapsed SM cycles.",
        absent: NO_TOTALS,
        ..counter(Gpm(SM_CYCLES_ELAPSED, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_SM_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "Active SM cycles.",
        absent: NO_TOTALS,
        ..counter(Gpm(SM_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the tensor cores were active.",
        absent: NO_TOTALS,
        ..counter(Gpm(MMA_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_DMMA_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the tensor cores were active with 64-bit floating point.",
        absent: NO_TOTALS,
        ..counter(Gpm(DMMA_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the tensor cores were active with 16-bit floating point.",
        absent: NO_TOTALS,
        ..counter(Gpm(HMMA_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_IMMA_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the tensor cores were active with integers.",
        absent: NO_TOTALS,
        ..counter(Gpm(IMMA_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_DFMA_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the tensor cores were active with fused 64-bit operations.",
        absent: NO_TOTALS,
        ..counter(Gpm(DFMA_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_INT_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the integer pipes were active.",
        absent: NO_TOTALS,
        ..counter(Gpm(INTEGER_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_FP64_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the FP64 pipes were active.",
        absent: NO_TOTALS,
        ..counter(Gpm(FP64_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_FP32_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the FP32 pipes were active.",
        absent: NO_TOTALS,
        ..counter(Gpm(FP32_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL",
        unit: "cycles",
        symbol: GPM,
        help: "SM cycles in which the FP16 pipes were active.",
        absent: NO_TOTALS,
        ..counter(Gpm(FP16_CYCLES_ACTIVE, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_PCIE_TX_BYTES_TOTAL",
        unit: "bytes",
        symbol: GPM,
        help: "Data transmitted over PCIe (in bytes).",
        absent: NO_TOTALS,
        ..counter(Gpm(PCIE_TX, whole))
    },
    Metric {
        name: "DCGM_FI_PROF_PCIE_RX_BYTES_TOTAL",
        unit: "bytes",
        symbol: GPM,
        help: "Data received over PCIe (in bytes).",
        absent: NO_TOTALS,
        ..counter(Gpm(PCIE_RX, whole))
    },
];

pub(super) fn ratio(percent: f64) -> f64 {
    percent / 100.0
}

fn bytes(mebibytes: f64) -> f64 {
    (mebibytes * MIB).trunc()
}

fn of_kib(kibibytes: f64) -> f64 {
    (kibibytes * 1024.0).trunc()
}

fn whole(bytes: f64) -> f64 {
    bytes.trunc()
}
