//! Rows of GPM metrics, which are measured between two samples.

use super::DeviceSource::{self, Gpm, GpmOrRate};
use super::Kind::{Counter, Gauge};
use super::{Metric, each_cycle};
use crate::nvml::raw::fields::Field as Id;

const GPM: &str = "nvmlGpmMetricsGet";
const NO_GPM: &str = "before Hopper; in a device's first cycle";
const NO_TOTALS: &str = "before Hopper; drivers before 580";
const NO_RATE: &str = "boards with neither GPM nor byte counters; in a device's first cycle";
const MIB: f64 = 1_048_576.0;

/// One series per GPU, or per GPU instance while MIG is enabled.
pub(super) const BY_INSTANCE: [Metric<DeviceSource>; 12] = [
    each_cycle(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(1, ratio),
        "Fraction of time in which the graphics or compute engines were active (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_SM_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(2, ratio),
        "Fraction of cycles in which an SM had at least one warp assigned, mean over all SMs (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_SM_OCCUPANCY",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(3, ratio),
        "Resident warps as a fraction of the maximum, mean over all SMs (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(5, ratio),
        "Fraction of cycles in which the tensor cores were active, with any data type (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_DRAM_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(10, ratio),
        "Fraction of the memory bandwidth that was used (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(11, ratio),
        "Fraction of cycles in which the FP64 pipes were active (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_FP32_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(12, ratio),
        "Fraction of cycles in which the FP32 pipes were active (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_FP16_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(13, ratio),
        "Fraction of cycles in which the FP16 pipes were active (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(9, ratio),
        "Fraction of cycles in which the tensor cores were active with integers (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(7, ratio),
        "Fraction of cycles in which the tensor cores were active with 16-bit floating point (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(6, ratio),
        "Fraction of cycles in which the tensor cores were active with 64-bit floating point (0 to 1).",
        NO_GPM,
    ),
    each_cycle(
        "DCGM_FI_PROF_PIPE_INT_ACTIVE",
        Gauge,
        "ratio 0..1",
        GPM,
        Gpm(4, ratio),
        "Fraction of cycles in which the integer pipes were active (0 to 1).",
        NO_GPM,
    ),
];

/// One series per GPU only.
pub(super) const BY_GPU: [Metric<DeviceSource>; 8] = [
    each_cycle(
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        GpmOrRate(20, bytes, &[Id::of(197)], whole),
        "PCIe transmit throughput, including headers (in bytes per second).",
        NO_RATE,
    ),
    each_cycle(
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        GpmOrRate(21, bytes, &[Id::of(198)], whole),
        "PCIe receive throughput, including headers (in bytes per second).",
        NO_RATE,
    ),
    each_cycle(
        "DCGM_FI_PROF_NVLINK_TX_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        GpmOrRate(61, bytes, &[Id::of_all_links(140)], of_kib),
        "Transmit throughput of all NVLinks, including headers (in bytes per second).",
        NO_RATE,
    ),
    each_cycle(
        "DCGM_FI_PROF_NVLINK_RX_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        GpmOrRate(60, bytes, &[Id::of_all_links(141)], of_kib),
        "Receive throughput of all NVLinks, including headers (in bytes per second).",
        NO_RATE,
    ),
    each_cycle(
        "DCGM_FI_PROF_C2C_TX_ALL_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        Gpm(100, bytes),
        "Transmit throughput of the C2C link to the CPU, including headers (in bytes per second).",
        C2C,
    ),
    each_cycle(
        "DCGM_FI_PROF_C2C_RX_ALL_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        Gpm(101, bytes),
        "Receive throughput of the C2C link to the CPU, including headers (in bytes per second).",
        C2C,
    ),
    each_cycle(
        "DCGM_FI_PROF_C2C_TX_DATA_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        Gpm(102, bytes),
        "Transmit throughput of the C2C link to the CPU, without headers (in bytes per second).",
        C2C,
    ),
    each_cycle(
        "DCGM_FI_PROF_C2C_RX_DATA_BYTES",
        Gauge,
        "bytes/s",
        GPM,
        Gpm(103, bytes),
        "Receive throughput of the C2C link to the CPU, without headers (in bytes per second).",
        C2C,
    ),
];

const C2C: &str = "boards without a C2C link to a CPU: all but Grace Hopper and Grace Blackwell";

/// Engines of one kind, by number.
macro_rules! engines {
    ($name:literal, $first:literal, $engine:literal, $($number:literal)*) => {
        [$(each_cycle(
            concat!("DCGM_FI_PROF_", $name, $number, "_ACTIVE"),
            Gauge,
            "ratio 0..1",
            GPM,
            Gpm($first + $number, ratio),
            concat!("Fraction of time in which ", $engine, " ", $number, " was active (0 to 1)."),
            "before Hopper; engines that the board does not have; in a device's first cycle",
        )),*]
    };
}

/// Throughput in one direction, by link.
macro_rules! by_link {
    ($end:literal, $first:literal, $direction:literal, $($link:literal)*) => {
        [$(each_cycle(
            concat!("DCGM_FI_PROF_NVLINK_L", $link, $end),
            Gauge,
            "bytes/s",
            GPM,
            Gpm($first + 2 * $link, bytes),
            concat!($direction, " throughput of NVLink ", $link, " (in bytes per second)."),
            "before Hopper; links that the board does not have; in a device's first cycle",
        )),*]
    };
}

pub(super) const DECODERS: [Metric<DeviceSource>; 8] =
    engines!("NVDEC", 30, "video decoder", 0 1 2 3 4 5 6 7);
pub(super) const JPEG: [Metric<DeviceSource>; 8] =
    engines!("NVJPG", 40, "JPEG decoder", 0 1 2 3 4 5 6 7);
pub(super) const OPTICAL_FLOW: [Metric<DeviceSource>; 2] =
    engines!("NVOFA", 50, "optical flow engine", 0 1);
pub(super) const SENT: [Metric<DeviceSource>; 18] =
    by_link!("_TX_BYTES", 63, "Transmit", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
pub(super) const RECEIVED: [Metric<DeviceSource>; 18] =
    by_link!("_RX_BYTES", 62, "Receive", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);

/// Counters since the driver was loaded.
pub(super) const TOTALS: [Metric<DeviceSource>; 13] = [
    each_cycle(
        "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(248, whole),
        "Elapsed SM cycles.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_SM_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(249, whole),
        "Active SM cycles.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(250, whole),
        "SM cycles in which the tensor cores were active.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_DMMA_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(251, whole),
        "SM cycles in which the tensor cores were active with 64-bit floating point.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(252, whole),
        "SM cycles in which the tensor cores were active with 16-bit floating point.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_IMMA_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(253, whole),
        "SM cycles in which the tensor cores were active with integers.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_DFMA_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(254, whole),
        "SM cycles in which the tensor cores were active with fused 64-bit operations.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_INT_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(257, whole),
        "SM cycles in which the integer pipes were active.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_FP64_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(258, whole),
        "SM cycles in which the FP64 pipes were active.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_FP32_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(259, whole),
        "SM cycles in which the FP32 pipes were active.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL",
        Counter,
        "cycles",
        GPM,
        Gpm(260, whole),
        "SM cycles in which the FP16 pipes were active.",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_PCIE_TX_BYTES_TOTAL",
        Counter,
        "bytes",
        GPM,
        Gpm(255, whole),
        "Data transmitted over PCIe (in bytes).",
        NO_TOTALS,
    ),
    each_cycle(
        "DCGM_FI_PROF_PCIE_RX_BYTES_TOTAL",
        Counter,
        "bytes",
        GPM,
        Gpm(256, whole),
        "Data received over PCIe (in bytes).",
        NO_TOTALS,
    ),
];

fn ratio(percent: f64) -> f64 {
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
