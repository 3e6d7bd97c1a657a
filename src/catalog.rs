//! The catalogue of metrics: the only place where a series is named.
//!
//! A new series is one row. HELP, TYPE, the order of the exposition, the batch of NVML field ids,
//! the table of `docs/metrics.md` and the contract tests are derived from these slices. [`exporter_metrics`] has
//! the rows of the exporter's own series.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of `Probe<'nvml>` has one lifetime, a row is generic over it"
)]

pub mod alias;
pub mod exporter_metrics;
pub mod headline;
pub mod preset;
pub mod unit;
pub mod unsupported_fields;
pub mod xid;

mod accumulated;
mod board;
mod errors;
mod events;
mod health;
mod links;
mod profiling;

pub use accumulated::ACCUMULATED;
use nvml_wrapper_sys::bindings::field_id;

use crate::model::{
    AllocatedFraction, ClockEventCounts, ContainerAllocation, Gpu, HealthState, LinkStates,
    Missing, NodeSample, Reading, Usage, Windows, XidState,
};
use crate::nvml::inventory::DriverInfo;
use crate::nvml::probe::{MinMeanMax, Probe, celsius, mebibytes};
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;
use crate::nvml::{Session, device_info};
use crate::policy::Tier;

/// Prometheus type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Can increase and decrease.
    Gauge,
    /// Only increases until it is reset, as by a reload of the driver.
    Counter,
}

impl Kind {
    /// The name in counters files and `# TYPE` lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub struct Metric<Source: 'static> {
    /// Name of the family, as it is exported.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: &'static str,
    /// NVML symbol or kubelet method that the value is read with.
    pub symbol: &'static str,
    /// How often the value is read.
    pub tier: Tier,
    /// How the value is read.
    pub source: Source,
    /// HELP text, one line.
    pub help: &'static str,
    /// When the series is absent for a healthy GPU; for `docs/metrics.md`.
    pub absent: &'static str,
}

/// How a value of a device is read.
#[derive(Clone, Copy, Debug)]
pub enum DeviceSource {
    /// A converted field value. All fields of a device are read with one `nvmlDeviceGetFieldValues`
    /// call.
    Field(Field, fn(f64) -> Reading),
    /// Increase per second of the sum of some fields, converted.
    Rate(&'static [Field], fn(f64) -> f64),
    /// A converted GPM metric (`nvmlGpmMetricId_t`); all metrics of a device are read with one
    /// call.
    Gpm(u32, fn(f64) -> f64),
    /// A GPM metric or, on boards without GPM, the increase per second of the sum of some fields.
    GpmOrRate(u32, fn(f64) -> f64, &'static [Field], fn(f64) -> f64),
    /// A separate NVML call, which several rows may share.
    Read(fn(&Probe<'_>) -> Reading),
    /// As `Read`. While the series of a shared GPU are repeated for each container, the value is
    /// that of the container, from its usage.
    ReadOrUsage(fn(&Probe<'_>) -> Reading, ProcessSource),
    /// From minimum, mean and maximum of the GPU utilization samples since the last cycle.
    Sampled(fn(MinMeanMax) -> f64),
}

/// Value of a process, or of all processes of a container, from its usage.
pub type ProcessSource = fn(&Usage) -> Reading;

/// Value of a container from its allocation.
pub type ContainerSource = fn(&ContainerAllocation) -> Reading;

/// Value of a device from the fraction of it that is allocated.
pub type AllocatedFractionSource = fn(&AllocatedFraction) -> Reading;

/// Reads the samples of an event family from a GPU's event inputs.
#[derive(Clone, Copy, Debug)]
pub struct EventSource {
    /// Names of the labels that the samples have besides those of the GPU.
    pub labels: &'static [&'static str],
    /// What the samples are computed from.
    pub needs: EventInput,
    /// Returns the samples; empty if the family has no series.
    pub read: fn(&GpuEventInputs<'_>) -> Vec<EventSample>,
}

/// Data of a GPU that event rows are computed from. All but XIDs are read only while a selected row
/// needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventInput {
    /// XID errors.
    Xids,
    /// Clock event reasons, read every cycle.
    ClockEvents,
    /// Peer-to-peer status of GPU pairs.
    Peers,
    /// States of `NVLink` links.
    Links,
    /// Health readings, taken every cycle, with the clock event reasons and link states.
    Health,
}

/// Inputs of a GPU's event families.
#[derive(Clone, Copy, Debug)]
pub struct GpuEventInputs<'a> {
    /// XID errors.
    pub xids: &'a XidState,
    /// Counts of clock event reasons.
    pub clock_events: Result<ClockEventCounts, Missing>,
    /// Peer-to-peer status (`nvmlGpuP2PStatus_t`) by index of the other GPU.
    pub peers: &'a [(u32, Result<u32, Missing>)],
    /// `NVLink` states.
    pub links: Result<&'a LinkStates, Missing>,
    /// Health readings and their changes.
    pub health: Result<&'a HealthState, Missing>,
    /// Whether the GPU can be read.
    pub state: Result<(), Missing>,
    /// Windows over which events are counted.
    pub windows: Windows,
    /// Whether the dialect adds the last XID and its name as labels.
    pub label_last_xid: bool,
}

/// One sample of an event family.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSample {
    /// Labels that distinguish the samples of one family and GPU.
    pub labels: Vec<(&'static str, String)>,
    /// Value of the sample.
    pub reading: Reading,
}

impl From<Reading> for EventSample {
    fn from(reading: Reading) -> Self {
        Self { labels: Vec::new(), reading }
    }
}

/// A value that is accumulated over cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccumulatedMetric {
    /// SM time of a process.
    ProcessSmTime,
    /// SM time of a container.
    ContainerSmTime,
    /// Time in which a container did not use its device.
    ContainerIdleTime,
    /// Time since a container last used its device.
    ContainerLastActive,
    /// Energy of a GPU that is attributed to a container.
    ContainerEnergy,
    /// Energy of a GPU by owner of the SM time.
    Energy,
}

impl AccumulatedMetric {
    fn scope(self) -> &'static str {
        match self {
            Self::ProcessSmTime => "process",
            Self::Energy => "device",
            Self::ContainerSmTime
            | Self::ContainerIdleTime
            | Self::ContainerLastActive
            | Self::ContainerEnergy => "container",
        }
    }

    /// Whether the value is energy, so that the energy counter has to be read.
    #[must_use]
    pub fn is_energy(self) -> bool {
        matches!(self, Self::ContainerEnergy | Self::Energy)
    }
}

/// How a label value of every series of a GPU is read.
#[derive(Debug)]
pub enum InfoLabelSource {
    /// From the driver.
    Driver(fn(&DriverInfo) -> &str),
    /// From the GPU's identity.
    Gpu(fn(&Gpu) -> &str),
    /// A separate NVML call, made once per session.
    Read(fn(&Session, Handle) -> Result<String, Missing>),
}

/// Value of the node from its readings.
pub type NodeSource = fn(&NodeSample) -> Reading;

use DeviceSource::{Rate, Read, ReadOrUsage};
use Kind::{Counter, Gauge};
use Tier::{Cycle, Slow};

/// Rows with one series per GPU.
pub const DEVICE: &[Metric<DeviceSource>] = &concat::<{ row_count(DEVICE_SLICES) }>(DEVICE_SLICES);
const DEVICE_SLICES: &[&[Metric<DeviceSource>]] = &[
    GPU,
    board::ROWS,
    board::BASE_UNITS,
    accumulated::MIN_MEAN_MAX,
    errors::ROWS,
    errors::CORRECTED_VOLATILE,
    errors::CORRECTED_AGGREGATE,
    errors::UNCORRECTED_VOLATILE,
    errors::UNCORRECTED_AGGREGATE,
    links::ROWS,
    links::BANDWIDTHS,
    links::FLIT_ERRORS,
    links::DATA_ERRORS,
    links::REPLAYS,
    links::RECOVERIES,
    profiling::BY_GPU,
    profiling::DECODERS,
    profiling::JPEG,
    profiling::OPTICAL_FLOW,
    profiling::SENT,
    profiling::RECEIVED,
];

/// Rows with one series per GPU or, while MIG is enabled, one per GPU instance. The GPU itself then
/// has no series: sums would count its instances twice.
pub const INSTANCE: &[Metric<DeviceSource>] =
    &concat::<{ row_count(INSTANCE_SLICES) }>(INSTANCE_SLICES);
const INSTANCE_SLICES: &[&[Metric<DeviceSource>]] =
    &[MEMORY, MORE_MEMORY, profiling::BY_INSTANCE, profiling::TOTALS];

/// The most used rows of a GPU.
const GPU: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_SM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Slow,
        source: Read(|p| p.sm_clock()),
        help: "SM clock frequency (in MHz).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Slow,
        source: Read(|p| p.memory_clock()),
        help: "Memory clock frequency (in MHz).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_VIDEO_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetClockInfo",
        tier: Slow,
        source: Read(|p| p.video_clock()),
        help: "Video engine clock frequency (in MHz).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_APP_SM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        source: Read(|p| p.application_sm_clock()),
        help: "SM application clock frequency (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
    },
    Metric {
        name: "DCGM_FI_DEV_APP_MEM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        source: Read(|p| p.application_memory_clock()),
        help: "Memory application clock frequency (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_TEMP",
        kind: Gauge,
        unit: "C",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_MEMORY_TEMP), celsius),
        help: "Memory temperature (in C).",
        absent: "boards without a memory sensor: most with GDDR memory",
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_TEMP",
        kind: Gauge,
        unit: "C",
        symbol: "nvmlDeviceGetTemperature",
        tier: Slow,
        source: Read(|p| p.temperature()),
        help: "GPU temperature (in C).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_USAGE",
        kind: Gauge,
        unit: "W",
        symbol: "nvmlDeviceGetPowerUsage",
        tier: Cycle,
        source: Read(|p| p.power()),
        help: "Power draw of the board (in W), averaged over one second on most boards since Ampere.",
        absent: "boards without a power sensor",
    },
    Metric {
        name: "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        kind: Counter,
        unit: "mJ",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION), Ok),
        help: "Energy consumption since the driver was loaded (in mJ).",
        absent: "before Volta",
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        kind: Counter,
        unit: "count",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PCIE_REPLAY_COUNTER), Ok),
        help: "PCIe replays since the driver was loaded.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        tier: Cycle,
        source: ReadOrUsage(|p| p.gpu_utilization(), |usage| Ok(usage.utilization?.sm)),
        help: "GPU utilization: fraction of the last sample period in which a kernel was running (in %).",
        absent: "while MIG is enabled",
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_COPY_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        tier: Cycle,
        source: ReadOrUsage(|p| p.memory_utilization(), |usage| Ok(usage.utilization?.memory)),
        help: "Memory utilization: fraction of the last sample period in which memory was read or written (in %).",
        absent: "while MIG is enabled",
    },
    Metric {
        name: "DCGM_FI_DEV_ENC_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetEncoderUtilization",
        tier: Tier::Video,
        source: ReadOrUsage(|p| p.encoder_utilization(), |usage| Ok(usage.utilization?.encoder)),
        help: "Video encoder utilization (in %).",
        absent: "while MIG is enabled",
    },
    Metric {
        name: "DCGM_FI_DEV_DEC_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetDecoderUtilization",
        tier: Tier::Video,
        source: ReadOrUsage(|p| p.decoder_utilization(), |usage| Ok(usage.utilization?.decoder)),
        help: "Video decoder utilization (in %).",
        absent: "while MIG is enabled",
    },
    Metric {
        name: "DCGM_FI_DEV_PSTATE",
        kind: Gauge,
        unit: "P-state",
        symbol: "nvmlDeviceGetPerformanceState",
        tier: Slow,
        source: Read(|p| p.performance_state()),
        help: "Performance state (P-state), 0 (highest performance) to 15 (lowest).",
        absent: "while the driver reports it as unknown",
    },
    Metric {
        name: "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        kind: Gauge,
        unit: "bitmask",
        symbol: "nvmlDeviceGetCurrentClocksEventReasons",
        tier: Slow,
        source: Read(|p| p.clock_event_reasons()),
        help: "Clock event (throttle) reasons (bitmask of nvmlClocksEventReasons).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_POWER), Ok),
        help: "Throttling duration due to power limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_THERMAL_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_THERMAL), Ok),
        help: "Throttling duration due to thermal limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST), Ok),
        help: "Throttling duration due to sync boost since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT), Ok),
        help: "Throttling duration due to board limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_LOW_UTIL_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(
            Field::of(field_id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION),
            Ok,
        ),
        help: "Throttling duration due to low utilization since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_RELIABILITY_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_PERF_POLICY_RELIABILITY), Ok),
        help: "Throttling duration due to reliability limits since the driver was loaded (in ns; some vendor documentation states us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_SBE",
        kind: Counter,
        unit: "pages",
        symbol: "nvmlDeviceGetRetiredPages",
        tier: Slow,
        source: Read(|p| p.single_bit_retired_pages()),
        help: "Framebuffer pages retired because of single-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_DBE",
        kind: Counter,
        unit: "pages",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_RETIRED_DBE), Ok),
        help: "Framebuffer pages retired because of double-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_PENDING",
        kind: Counter,
        unit: "bool",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(field_id::NVML_FI_DEV_RETIRED_PENDING), Ok),
        help: "1 while page retirements are pending until the next reboot.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        kind: Counter,
        unit: "MB/s",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: Rate(
            &[
                Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
                Field::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
            ],
            kib_to_mb,
        ),
        help: "Throughput of all NVLinks in both directions (in MB/s): a rate, although dcgm-exporter types it as a counter.",
        absent: "boards without NVLink; in a GPU's first cycle",
    },
];

/// The most used memory rows of a GPU or GPU instance.
const MEMORY: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_FB_FREE",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        tier: Cycle,
        source: Read(|p| p.memory_free()),
        help: "Framebuffer memory free (in MiB).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_FB_USED",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        tier: Cycle,
        source: ReadOrUsage(|p| p.memory_used(), |usage| usage.memory.map(mebibytes)),
        help: "Framebuffer memory used (in MiB), excluding memory that the driver reserves (included by drivers before 510).",
        absent: "",
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FB_TOTAL",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        tier: Cycle,
        source: Read(|p| p.memory_total()),
        help: "Total framebuffer memory (in MiB).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_USED",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        source: Read(|p| p.bar1_used()),
        help: "BAR1 memory used (in MiB).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_FREE",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        source: Read(|p| p.bar1_free()),
        help: "BAR1 memory free (in MiB).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_BAR1_TOTAL",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetBAR1MemoryInfo",
        tier: Slow,
        source: Read(|p| p.bar1_total()),
        help: "Total BAR1 memory (in MiB).",
        absent: "",
    },
];

/// More memory rows, and the same in bytes.
const MORE_MEMORY: &[Metric<DeviceSource>] = &[
    each_cycle(
        "DCGM_FI_DEV_FB_TOTAL",
        Gauge,
        "MiB",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_total()),
        "Total framebuffer memory (in MiB).",
        "",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_RESERVED",
        Gauge,
        "MiB",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_reserved()),
        "Framebuffer memory reserved by the driver (in MiB).",
        "drivers before 510",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_USED_PERCENT",
        Gauge,
        "ratio 0..1",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_used_ratio()),
        "Fraction of the usable framebuffer memory that is used (0 to 1, despite the name).",
        "",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_CAPACITY_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_total_bytes()),
        "Total framebuffer memory (in bytes).",
        "",
    ),
    slow(
        "DCGM_FI_DEV_BAR1_CAPACITY_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetBAR1MemoryInfo",
        Read(|p| p.bar1_total_bytes()),
        "Total BAR1 memory (in bytes).",
        "",
    ),
    slow(
        "DCGM_FI_DEV_BAR1_USED_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetBAR1MemoryInfo",
        Read(|p| p.bar1_used_bytes()),
        "BAR1 memory used (in bytes).",
        "",
    ),
    slow(
        "DCGM_FI_DEV_BAR1_FREE_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetBAR1MemoryInfo",
        Read(|p| p.bar1_free_bytes()),
        "BAR1 memory free (in bytes).",
        "",
    ),
];

/// A row of [`Tier::Cycle`].
const fn each_cycle(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    symbol: &'static str,
    source: DeviceSource,
    help: &'static str,
    absent: &'static str,
) -> Metric<DeviceSource> {
    Metric { name, kind, unit, symbol, tier: Cycle, source, help, absent }
}

/// A row of [`Tier::Slow`].
const fn slow(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    symbol: &'static str,
    source: DeviceSource,
    help: &'static str,
    absent: &'static str,
) -> Metric<DeviceSource> {
    Metric { name, kind, unit, symbol, tier: Slow, source, help, absent }
}

#[expect(clippy::indexing_slicing, reason = "at compile time, an index out of bounds is an error")]
const fn row_count(slices: &[&[Metric<DeviceSource>]]) -> usize {
    let (mut count, mut slice) = (0, 0);
    while slice < slices.len() {
        count += slices[slice].len();
        slice += 1;
    }
    count
}

/// Concatenates slices; `N` is their [`row_count`].
#[expect(clippy::indexing_slicing, reason = "at compile time, an index out of bounds is an error")]
const fn concat<const N: usize>(slices: &[&[Metric<DeviceSource>]]) -> [Metric<DeviceSource>; N] {
    let mut rows = [slices[0][0]; N];
    let (mut at, mut slice) = (0, 0);
    while slice < slices.len() {
        let mut row = 0;
        while row < slices[slice].len() {
            rows[at] = slices[slice][row];
            (at, row) = (at + 1, row + 1);
        }
        slice += 1;
    }
    rows
}

/// Rows of a GPU's events, topology and health; their series have further labels.
pub const EVENT: &[Metric<EventSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_XID_ERRORS",
        kind: Gauge,
        unit: "XID",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource {
            labels: &["err_code", "err_msg"],
            needs: EventInput::Xids,
            read: events::last_xid,
        },
        help: "The last XID error reported for the GPU since the exporter started, 0 before the first.",
        absent: NO_XIDS,
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_COUNT",
        kind: Counter,
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource {
            labels: &["window_size_in_ms", "xid"],
            needs: EventInput::Xids,
            read: events::xids_in_window,
        },
        help: "XID errors reported for the GPU within the window.",
        absent: NO_XIDS,
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_TOTAL",
        kind: Counter,
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource { labels: &["xid"], needs: EventInput::Xids, read: events::xids_total },
        help: "XID errors reported for the GPU since the exporter started.",
        absent: "before the first XID error",
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_COUNT",
        kind: Counter,
        unit: "samples",
        symbol: CLOCK_EVENT_REASONS,
        tier: Cycle,
        source: EventSource {
            labels: &["clock_event", "window_size_in_ms"],
            needs: EventInput::ClockEvents,
            read: events::clock_events_in_window,
        },
        help: "Samples within the window in which the clock event reason was active.",
        absent: "",
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_TOTAL",
        kind: Counter,
        unit: "events",
        symbol: CLOCK_EVENT_REASONS,
        tier: Cycle,
        source: EventSource {
            labels: &["clock_event"],
            needs: EventInput::ClockEvents,
            read: events::clock_events_total,
        },
        help: "Number of times the clock event reason became active since the exporter started.",
        absent: "",
    },
    Metric {
        name: "DCGM_EXP_P2P_STATUS",
        kind: Counter,
        unit: "enum",
        symbol: "nvmlDeviceGetP2PStatus",
        tier: Slow,
        source: EventSource {
            labels: &["link_status", "peer_gpu"],
            needs: EventInput::Peers,
            read: events::peers,
        },
        help: "NVLink peer-to-peer status of a pair of GPUs: 0 OK, otherwise the reason (nvmlGpuP2PStatus).",
        absent: "on a node with one GPU",
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_GET_STATE",
        kind: Gauge,
        unit: "enum",
        symbol: "nvmlDeviceGetNvLinkState",
        tier: Slow,
        source: EventSource { labels: &["nvlink"], needs: EventInput::Links, read: events::links },
        help: "State of the NVLink: 0 inactive, 1 active, 2 sleep.",
        absent: "boards without NVLink",
    },
    Metric {
        name: "DCGM_EXP_GPU_HEALTH_STATUS",
        kind: Counter,
        unit: "0/10/20",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: EventSource {
            labels: &["health_error_code", "health_watch"],
            needs: EventInput::Health,
            read: health::watches,
        },
        help: "Health of the GPU as far as NVML reports it: 0 pass, 10 warn, 20 fail.",
        absent: "watches without NVML data (PMU, MCU, SM); watches that the board does not support; a watch that would pass while one of its inputs cannot be read",
    },
];

const NO_XIDS: &str = "where the driver reports no XID events (WSL, some vGPU guests)";
const CLOCK_EVENT_REASONS: &str = "nvmlDeviceGetCurrentClocksEventReasons";

/// Rows with one series per process and device.
pub const PROCESS: &[Metric<ProcessSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_PROCESS_SM_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.sm),
        help: "SM utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_MEM_COPY_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.memory),
        help: "Memory interface utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_ENCODE_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.encoder),
        help: "Video encoder utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_DECODE_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.decoder),
        help: "Video decoder utilization of the process on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_PROCESS_MEM_USED",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetComputeRunningProcesses_v3",
        tier: Cycle,
        source: |p| Ok(mebibytes(p.memory?)),
        help: "Framebuffer memory used by the process on the GPU (in MiB).",
        absent: "where the driver does not report it (WSL, some vGPU guests)",
    },
];

/// Rows with one series per process and device, of processes without an allocation on the device.
pub const ILLEGAL: &[Metric<ProcessSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.sm),
        help: "SM utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_COPY_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.memory),
        help: "Memory interface utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_ENCODE_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.encoder),
        help: "Video encoder utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_DECODE_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetProcessUtilization",
        tier: Cycle,
        source: |p| Ok(p.utilization?.decoder),
        help: "Video decoder utilization of a process without an allocation on the GPU, mean over the collect interval (in %).",
        absent: PROCESS_UTILIZATION_ABSENT,
    },
    Metric {
        name: "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetComputeRunningProcesses_v3",
        tier: Cycle,
        source: |p| Ok(mebibytes(p.memory?)),
        help: "Framebuffer memory used by a process without an allocation on the GPU (in MiB).",
        absent: "where the driver does not report it (WSL, some vGPU guests)",
    },
];

const PROCESS_UTILIZATION_ABSENT: &str =
    "in a GPU's first cycle; MPS clients and servers; while MIG is enabled";

/// Rows with one series per container and device that is allocated to it.
pub const CONTAINER: &[Metric<ContainerSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
        kind: Gauge,
        unit: "MiB",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |allocation| allocation.memory,
        help: "Framebuffer memory allocated to the container on the GPU (in MiB).",
        absent: "if the amount is unknown",
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED",
        kind: Gauge,
        unit: "ratio",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |allocation| allocation.compute,
        help: "Fraction of the GPU's compute allocated to the container (0 to 1; 0 is unlimited).",
        absent: "",
    },
];

/// Rows of the allocated fraction: one series per GPU, or per GPU instance while MIG is enabled.
pub const ALLOCATED_FRACTION: &[Metric<AllocatedFractionSource>] = &[Metric {
    name: "DCGM_CUSTOM_DEV_FB_ALLOCATED",
    kind: Gauge,
    unit: "ratio",
    symbol: "v1.PodResourcesLister/List",
    tier: Cycle,
    source: |allocated| allocated.framebuffer,
    help: "Fraction of the framebuffer memory that is allocated to containers (0 to 1).",
    absent: "without a cluster; while the kubelet does not respond",
}];

/// Rows with one series per node.
pub const NODE: &[Metric<NodeSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_COUNT",
        kind: Gauge,
        unit: "count",
        symbol: "nvmlDeviceGetCount_v2",
        tier: Cycle,
        source: |n| n.gpu_count,
        help: "Number of GPUs on the node, including lost ones.",
        absent: "",
    },
    Metric {
        name: "DCGM_CUSTOM_ALLOCATE_MODE",
        kind: Gauge,
        unit: "enum",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |n| n.allocate_mode,
        help: "Allocation mode of the node's GPUs: 0 none, 1 exclusive, 2 shared.",
        absent: "without a cluster; while the kubelet does not respond",
    },
];

/// Rows that are a label of every series of a GPU and have no series of their own.
pub const INFO_LABELS: &[Metric<InfoLabelSource>] = &[
    Metric {
        name: "DCGM_FI_DRIVER_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlSystemGetDriverVersion",
        tier: Slow,
        source: InfoLabelSource::Driver(|driver| &driver.version),
        help: "Driver version.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_NVML_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlSystemGetNVMLVersion",
        tier: Slow,
        source: InfoLabelSource::Driver(|driver| &driver.nvml_version),
        help: "NVML version.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_NAME",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetName",
        tier: Slow,
        source: InfoLabelSource::Gpu(|gpu| &gpu.name),
        help: "Product name of the GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_UUID",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetUUID",
        tier: Slow,
        source: InfoLabelSource::Gpu(|gpu| &gpu.uuid),
        help: "UUID of the GPU; for a GPU instance, of the parent GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_PCI_BUSID",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetPciInfo_v3",
        tier: Slow,
        source: InfoLabelSource::Gpu(|gpu| &gpu.pci_bus_id),
        help: "PCI bus ID of the GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_BRAND",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetBrand",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::brand),
        help: "Product brand of the GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_SERIAL",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetSerial",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::serial),
        help: "Serial number of the board.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_OEM_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::inforom_oem),
        help: "Version of the InfoROM OEM object.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::inforom_ecc),
        help: "Version of the InfoROM ECC object.",
        absent: "boards without ECC",
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::inforom_power),
        help: "Version of the InfoROM power management object.",
        absent: "boards without this object",
    },
    Metric {
        name: "DCGM_FI_DEV_INFOROM_IMAGE_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomImageVersion",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::inforom),
        help: "Version of the InfoROM image.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_VBIOS_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetVbiosVersion",
        tier: Slow,
        source: InfoLabelSource::Read(device_info::vbios),
        help: "VBIOS version.",
        absent: "",
    },
];

impl DeviceSource {
    /// The NVML fields that the value is computed from.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Field(field, _) => std::slice::from_ref(field),
            Rate(fields, _) | Self::GpmOrRate(_, _, fields, _) => fields,
            Read(_) | ReadOrUsage(..) | Self::Gpm(..) | Self::Sampled(_) => &[],
        }
    }

    /// Id of the GPM metric, if the value is one.
    #[must_use]
    pub fn gpm(&self) -> Option<u32> {
        match self {
            Self::Gpm(id, _) | Self::GpmOrRate(id, ..) => Some(*id),
            Self::Field(..) | Rate(..) | Read(_) | ReadOrUsage(..) | Self::Sampled(_) => None,
        }
    }

    /// The value of a container that replaces the one of a shared GPU, if the row has one.
    #[must_use]
    pub fn usage(&self) -> Option<ProcessSource> {
        match self {
            ReadOrUsage(_, usage) => Some(*usage),
            Self::Field(..)
            | Rate(..)
            | Read(_)
            | Self::Gpm(..)
            | Self::GpmOrRate(..)
            | Self::Sampled(_) => None,
        }
    }
}

/// A row of any slice, without its source; for lists of all rows.
#[derive(Clone, Copy, Debug)]
pub struct CatalogRow {
    /// Name of the family.
    pub name: &'static str,
    /// What it has one series per, or `label`.
    pub scope: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: &'static str,
    /// NVML symbol or kubelet method that the value is read with.
    pub symbol: &'static str,
    /// How often the value is read.
    pub tier: Tier,
    /// HELP text, one line.
    pub help: &'static str,
    /// When the series is absent for a healthy GPU.
    pub absent: &'static str,
    /// Whether the row is a label of other series.
    pub is_info_label: bool,
}

impl<Source> Metric<Source> {
    fn row(&self, scope: &'static str) -> CatalogRow {
        let Self { name, kind, unit, symbol, tier, source: _, help, absent } = *self;
        CatalogRow { name, scope, kind, unit, symbol, tier, help, absent, is_info_label: false }
    }
}

/// The row with this name or alias.
#[must_use]
pub fn find(name: &str) -> Option<CatalogRow> {
    let exact = |name: &str| rows().find(|row| row.name == name);
    exact(name).or_else(|| exact(&alias::row_of(name)?))
}

/// All names of rows, and all aliases.
pub fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|row| row.name).chain(alias::all().map(|(name, _)| name))
}

/// All rows, in the order of the exposition.
pub fn rows() -> impl Iterator<Item = CatalogRow> {
    fn of<S>(scope: &'static str, slice: &'static [Metric<S>]) -> impl Iterator<Item = CatalogRow> {
        slice.iter().map(move |metric| metric.row(scope))
    }
    const PARTITION: &str = "device or MIG instance";
    let devices = of("node", NODE).chain(of("device", DEVICE)).chain(of("device", EVENT));
    let partitions = of(PARTITION, INSTANCE).chain(of(PARTITION, ALLOCATED_FRACTION));
    let workloads =
        of("container", CONTAINER).chain(of("process", PROCESS)).chain(of("process", ILLEGAL));
    let accumulated = ACCUMULATED.iter().map(|metric| metric.row(metric.source.scope()));
    let info_labels = of("label", INFO_LABELS).map(|row| CatalogRow { is_info_label: true, ..row });
    devices.chain(partitions).chain(workloads).chain(accumulated).chain(info_labels)
}

/// Thousands of KiB, truncated, as in dcgm-exporter.
fn kib_to_mb(kib_per_second: f64) -> f64 {
    (kib_per_second / 1000.0).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but the row itself is written for a new row: no length, and no list of names.
    #[test]
    fn row_of_a_slice_is_a_row_of_the_catalogue() {
        const ADDED: &[Metric<DeviceSource>] = &[slow(
            "DCGM_FI_DEV_ADDED",
            Gauge,
            "C",
            "nvmlDeviceGetTemperature",
            Read(|p| p.temperature()),
            "A row.",
            "",
        )];
        const SLICES: &[&[Metric<DeviceSource>]] = &[GPU, ADDED, board::ROWS];
        const ROWS: &[Metric<DeviceSource>] = &concat::<{ row_count(SLICES) }>(SLICES);
        let names: Vec<&str> = ROWS.iter().map(|metric| metric.name).collect();
        let expected = SLICES.iter().copied().flatten().map(|metric| metric.name);
        assert_eq!(names, expected.collect::<Vec<_>>());
        assert!(names.contains(&"DCGM_FI_DEV_ADDED"));
    }
}
