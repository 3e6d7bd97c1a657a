//! THE TABLE: the only place where a series is named.
//!
//! A new series is one row here. HELP and TYPE, the order of the page, the batch of field ids, the
//! README's table and the contract tests are all derived from these slices.
//! [`own`] is its other half: the series about the exporter itself.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of `Probe<'nvml>` is for one lifetime, a row for all"
)]

pub mod alias;
pub mod glance;
pub mod own;
pub mod preset;
pub mod unanswered;
pub mod unit;
pub mod xid;

mod accounts;
mod board;
mod errors;
mod events;
mod health;
mod links;
mod profiling;

use std::time::Duration;

pub use accounts::ACCOUNT;

use crate::model::{
    Allotted, ClockCounts, Gpu, Grant, LinkStates, Missing, NodeSample, Reading, Usage, Vitals,
    Windows, XidRecord,
};
use crate::nvml::inventory::Driver;
use crate::nvml::probe::{Probe, celsius, mebibytes};
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;
use crate::nvml::{Session, facts};
use crate::policy::Tier;

/// How Prometheus types a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// May go up and down.
    Gauge,
    /// Only goes up, until the driver is reloaded.
    Counter,
}

impl Kind {
    /// As counters files and `# TYPE` say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One series family.
#[derive(Clone, Copy, Debug)]
pub struct Metric<Source: 'static> {
    /// The family's name, exactly as it is exposed.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the exported number.
    pub unit: &'static str,
    /// The NVML symbol that the number comes from.
    pub symbol: &'static str,
    /// How often it is read.
    pub tier: Tier,
    /// How it is read.
    pub source: Source,
    /// HELP text, one line.
    pub help: &'static str,
    /// When the series is absent although the GPU is healthy, for the README.
    pub absent: &'static str,
}

/// How a device's number is read.
#[derive(Clone, Copy, Debug)]
pub enum DeviceSource {
    /// A field value; all fields of one device travel in one `nvmlDeviceGetFieldValues` call.
    Field(Field, fn(f64) -> Reading),
    /// How fast the sum of some fields grows in a second.
    Rate(&'static [Field], fn(f64) -> f64),
    /// A metric of GPM (`nvmlGpmMetricId_t`); all metrics of one device travel in one call.
    Gpm(u32, fn(f64) -> f64),
    /// The same, or on boards without GPM how fast the sum of some fields grows in a second.
    GpmOrRate(u32, fn(f64) -> f64, &'static [Field], fn(f64) -> f64),
    /// A call of its own, or one that several rows share.
    Read(fn(&Probe<'_>) -> Reading),
}

/// How the number of a process, or of all processes of a container, is made of what they use.
pub type ProcessSource = fn(&Usage) -> Reading;

/// How the number of a container is made of what it was given.
pub type ContainerSource = fn(&Grant) -> Reading;

/// How the number of a device is made of what was given away of it.
pub type AllottedSource = fn(&Allotted) -> Reading;

/// What numbers are made of what the driver told by itself; none for a family that has nothing to
/// tell of.
#[derive(Clone, Copy, Debug)]
pub struct EventSource {
    /// The names of the labels that its samples have besides those of the GPU.
    pub labels: &'static [&'static str],
    /// The samples.
    pub read: fn(&Told<'_>) -> Vec<EventSample>,
}

/// What is known of a GPU's events.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its XIDs.
    pub xids: &'a XidRecord,
    /// How often there were reasons for lower clocks.
    pub clocks: Result<ClockCounts, Missing>,
    /// How it reaches other GPUs, by their index (`nvmlGpuP2PStatus_t`).
    pub peers: &'a [(u32, Result<u32, Missing>)],
    /// The states of its links to others.
    pub links: Result<&'a LinkStates, Missing>,
    /// What tells of its health.
    pub vitals: Result<&'a Vitals, Missing>,
    /// Whether it can be read.
    pub state: Result<(), Missing>,
    /// How far back counts of a window look.
    pub windows: Windows,
    /// Now (monotonic).
    pub now: Duration,
    /// Whether the dialect names the last XID in labels.
    pub names_xid: bool,
}

/// One number of a family of events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSample {
    /// What tells it from the others of the family on the same GPU.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub reading: Reading,
}

impl From<Reading> for EventSample {
    fn from(reading: Reading) -> Self {
        Self { labels: Vec::new(), reading }
    }
}

/// What the series of a shared GPU tell of one of those who share it, where they are repeated for each:
/// of some rows what it uses itself, in the unit of the row.
#[must_use]
pub fn own_use(row: &str) -> Option<ProcessSource> {
    match row {
        "DCGM_FI_DEV_GPU_UTIL" => Some(|usage| Ok(usage.utilization?.sm)),
        "DCGM_FI_DEV_MEM_COPY_UTIL" => Some(|usage| Ok(usage.utilization?.memory)),
        "DCGM_FI_DEV_ENC_UTIL" => Some(|usage| Ok(usage.utilization?.encoder)),
        "DCGM_FI_DEV_DEC_UTIL" => Some(|usage| Ok(usage.utilization?.decoder)),
        "DCGM_FI_DEV_FB_USED" => Some(|usage| usage.memory.map(mebibytes)),
        _ => None,
    }
}

/// What is reckoned up over many cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// SM time of a process.
    ProcessSmTime,
    /// SM time of a container.
    ContainerSmTime,
    /// Time for which a container did not use what it holds.
    ContainerIdleTime,
    /// Time since a container used what it holds.
    ContainerLastActive,
    /// A container's part of a GPU's energy.
    ContainerEnergy,
    /// A GPU's energy by who used it.
    Energy,
}

impl Account {
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

    /// Whether it is a part of a GPU's energy.
    #[must_use]
    pub fn is_energy(self) -> bool {
        matches!(self, Self::ContainerEnergy | Self::Energy)
    }
}

/// How a text that labels every series of a GPU is known.
#[derive(Debug)]
pub enum TextSource {
    /// Of the driver.
    Driver(fn(&Driver) -> &str),
    /// Of the GPU's identity.
    Gpu(fn(&Gpu) -> &str),
    /// A call of its own, made once a session.
    Read(fn(&Session, Handle) -> Result<String, Missing>),
}

/// How a node's number is read.
pub type NodeSource = fn(&NodeSample) -> Reading;

use DeviceSource::{Rate, Read};
use Kind::{Counter, Gauge};
use Tier::{Cycle, Slow};

/// Rows with one series per GPU.
pub const DEVICE: &[Metric<DeviceSource>] = &joined::<{ DEVICES }>(&[
    &GPU,
    &board::ROWS,
    &board::BASE_UNITS,
    &accounts::EXTENT,
    &errors::ROWS,
    &errors::CORRECTED_VOLATILE,
    &errors::CORRECTED_AGGREGATE,
    &errors::UNCORRECTED_VOLATILE,
    &errors::UNCORRECTED_AGGREGATE,
    &links::ROWS,
    &links::BANDWIDTHS,
    &links::FLIT_ERRORS,
    &links::DATA_ERRORS,
    &links::REPLAYS,
    &links::RECOVERIES,
    &profiling::BY_GPU,
    &profiling::DECODERS,
    &profiling::JPEG,
    &profiling::OPTICAL_FLOW,
    &profiling::SENT,
    &profiling::RECEIVED,
]);
const DEVICES: usize = GPU.len() + 35 + 5 + 3 + 16 + 4 * 8 + 12 + 5 * 18 + 8 + 8 + 8 + 2 + 2 * 18;

/// Rows of what MIG divides: one series per GPU, or one per GPU instance while MIG is on. The GPU as
/// a whole then has none: beside its instances it would double every sum.
pub const INSTANCE: &[Metric<DeviceSource>] =
    &joined::<{ INSTANCES }>(&[&MEMORY, &MORE_MEMORY, &profiling::BY_INSTANCE, &profiling::TOTALS]);
const INSTANCES: usize = MEMORY.len() + MORE_MEMORY.len() + 12 + 13;

/// Those of a GPU that most users look at.
const GPU: [Metric<DeviceSource>; 26] = [
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
        help: "Clock frequency of the video engines (in MHz).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_APP_SM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        source: Read(|p| p.application_sm_clock()),
        help: "SM clock frequency that applications asked for (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
    },
    Metric {
        name: "DCGM_FI_DEV_APP_MEM_CLOCK",
        kind: Gauge,
        unit: "MHz",
        symbol: "nvmlDeviceGetApplicationsClock",
        tier: Slow,
        source: Read(|p| p.application_memory_clock()),
        help: "Memory clock frequency that applications asked for (in MHz).",
        absent: "consumer boards; recent drivers, where the call is deprecated",
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_TEMP",
        kind: Gauge,
        unit: "C",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(82), celsius),
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
        help: "Power draw of the board (in W); the mean of the last second on most boards since Ampere.",
        absent: "boards without a power sensor",
    },
    Metric {
        name: "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        kind: Counter,
        unit: "mJ",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(83), Ok),
        help: "Energy used since the driver was loaded (in mJ).",
        absent: "before Volta",
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        kind: Counter,
        unit: "count",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(94), Ok),
        help: "PCIe retries since the driver was loaded.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        tier: Cycle,
        source: Read(|p| p.gpu_utilization()),
        help: "Share of the last sample period in which a kernel ran (in %).",
        absent: "while MIG is on",
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_COPY_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetUtilizationRates",
        tier: Cycle,
        source: Read(|p| p.memory_utilization()),
        help: "Share of the last sample period in which memory was read or written (in %).",
        absent: "while MIG is on",
    },
    Metric {
        name: "DCGM_FI_DEV_ENC_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetEncoderUtilization",
        tier: Tier::Video,
        source: Read(|p| p.encoder_utilization()),
        help: "Video encoder utilization (in %).",
        absent: "while MIG is on",
    },
    Metric {
        name: "DCGM_FI_DEV_DEC_UTIL",
        kind: Gauge,
        unit: "%",
        symbol: "nvmlDeviceGetDecoderUtilization",
        tier: Tier::Video,
        source: Read(|p| p.decoder_utilization()),
        help: "Video decoder utilization (in %).",
        absent: "while MIG is on",
    },
    Metric {
        name: "DCGM_FI_DEV_PSTATE",
        kind: Gauge,
        unit: "P-state",
        symbol: "nvmlDeviceGetPerformanceState",
        tier: Slow,
        source: Read(|p| p.performance_state()),
        help: "Performance state, 0 (fastest) to 15.",
        absent: "while the driver calls it unknown",
    },
    Metric {
        name: "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        kind: Gauge,
        unit: "bitmask",
        symbol: "nvmlDeviceGetCurrentClocksEventReasons",
        tier: Slow,
        source: Read(|p| p.clock_event_reasons()),
        help: "Why the clocks are lower than they could be (bitmask of nvmlClocksEventReasons).",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(74), Ok),
        help: "Time for which the clocks were held down by power limits, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_THERMAL_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(75), Ok),
        help: "Time for which the clocks were held down by thermal limits, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(76), Ok),
        help: "Time for which the clocks were held down by synchronised boost, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(77), Ok),
        help: "Time for which the clocks were held down by limits of the board, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_LOW_UTIL_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(78), Ok),
        help: "Time for which the clocks were held down by low utilization, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_RELIABILITY_VIOLATION",
        kind: Counter,
        unit: "ns",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(79), Ok),
        help: "Time for which the clocks were held down by reliability limits, since the driver was loaded (in ns; some pages of vendors say us).",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_SBE",
        kind: Counter,
        unit: "pages",
        symbol: "nvmlDeviceGetRetiredPages",
        tier: Slow,
        source: Read(|p| p.retired_by_single_bit_errors()),
        help: "Framebuffer pages retired because of single-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_DBE",
        kind: Counter,
        unit: "pages",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(30), Ok),
        help: "Framebuffer pages retired because of double-bit ECC errors.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_RETIRED_PENDING",
        kind: Counter,
        unit: "bool",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: DeviceSource::Field(Field::of(31), Ok),
        help: "1 while pages wait for a reboot to be retired.",
        absent: "without ECC; Ampere and later, which remap rows instead",
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        kind: Counter,
        unit: "MB/s",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: Rate(&[Field::of_all_links(138), Field::of_all_links(139)], kib_to_mb),
        help: "Data sent and received over all NVLinks (in MB/s): a rate, although dcgm-exporter types it a counter.",
        absent: "boards without NVLink; in a GPU's first cycle",
    },
];

/// Those of what MIG divides that most users look at.
const MEMORY: [Metric<DeviceSource>; 6] = [
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
        source: Read(|p| p.memory_used()),
        help: "Framebuffer memory used (in MiB), without the part that the driver reserves (drivers before 510 include it).",
        absent: "",
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FB_TOTAL",
        kind: Gauge,
        unit: "MiB",
        symbol: "nvmlDeviceGetMemoryInfo_v2",
        tier: Cycle,
        source: Read(|p| p.memory_total()),
        help: "Framebuffer memory of the device (in MiB).",
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
        help: "BAR1 aperture (in MiB).",
        absent: "",
    },
];

/// The rest of the framebuffer's, and the same in bytes.
const MORE_MEMORY: [Metric<DeviceSource>; 7] = [
    each_cycle(
        "DCGM_FI_DEV_FB_TOTAL",
        Gauge,
        "MiB",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_total()),
        "Framebuffer memory of the device (in MiB).",
        "",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_RESERVED",
        Gauge,
        "MiB",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_reserved()),
        "Framebuffer memory that the driver keeps for itself (in MiB).",
        "drivers before 510",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_USED_PERCENT",
        Gauge,
        "ratio 0..1",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_used_ratio()),
        "Framebuffer memory used of what can be used (0 to 1, whatever the name says).",
        "",
    ),
    each_cycle(
        "DCGM_FI_DEV_FB_CAPACITY_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetMemoryInfo_v2",
        Read(|p| p.memory_total_bytes()),
        "Framebuffer memory of the device (in bytes).",
        "",
    ),
    slow(
        "DCGM_FI_DEV_BAR1_CAPACITY_BYTES",
        Gauge,
        "bytes",
        "nvmlDeviceGetBAR1MemoryInfo",
        Read(|p| p.bar1_total_bytes()),
        "BAR1 aperture (in bytes).",
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

/// A row that is read every cycle.
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

/// A row that is read now and then.
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

/// One slice of several; `N` is their length, or it does not compile.
#[expect(clippy::indexing_slicing, reason = "at compile time, where an index too far is an error")]
const fn joined<const N: usize>(slices: &[&[Metric<DeviceSource>]]) -> [Metric<DeviceSource>; N] {
    let mut joined = [slices[0][0]; N];
    let (mut at, mut slice) = (0, 0);
    while slice < slices.len() {
        let mut row = 0;
        while row < slices[slice].len() {
            joined[at] = slices[slice][row];
            (at, row) = (at + 1, row + 1);
        }
        slice += 1;
    }
    assert!(at == N, "another number of rows");
    joined
}

/// Rows of what the driver tells by itself, with one series per GPU.
pub const EVENT: &[Metric<EventSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_XID_ERRORS",
        kind: Gauge,
        unit: "XID",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource { labels: &["err_code", "err_msg"], read: events::last_xid },
        help: "The last XID that befell the GPU since the exporter started, 0 before the first.",
        absent: NO_XIDS,
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_COUNT",
        kind: Counter,
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource { labels: &["window_size_in_ms", "xid"], read: events::xids_within },
        help: "XIDs that befell the GPU within the window.",
        absent: NO_XIDS,
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_TOTAL",
        kind: Counter,
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        tier: Cycle,
        source: EventSource { labels: &["xid"], read: events::xids_in_all },
        help: "XIDs that befell the GPU since the exporter started.",
        absent: "before the first XID",
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_COUNT",
        kind: Counter,
        unit: "samples",
        symbol: CLOCK_EVENT_SYMBOL,
        tier: Cycle,
        source: EventSource {
            labels: &["clock_event", "window_size_in_ms"],
            read: events::clock_events_within,
        },
        help: "Samples within the window in which there was this reason for lower clocks.",
        absent: "",
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_TOTAL",
        kind: Counter,
        unit: "events",
        symbol: CLOCK_EVENT_SYMBOL,
        tier: Cycle,
        source: EventSource { labels: &["clock_event"], read: events::clock_events_in_all },
        help: "How often this reason for lower clocks has begun since the exporter started.",
        absent: "",
    },
    Metric {
        name: "DCGM_EXP_P2P_STATUS",
        kind: Counter,
        unit: "enum",
        symbol: PEER_SYMBOL,
        tier: Slow,
        source: EventSource { labels: &["link_status", "peer_gpu"], read: events::peers },
        help: "Whether the GPU reaches another over NVLink: 0 it does, else why not (nvmlGpuP2PStatus).",
        absent: "on a node with one GPU",
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_GET_STATE",
        kind: Gauge,
        unit: "enum",
        symbol: LINK_SYMBOL,
        tier: Slow,
        source: EventSource { labels: &["nvlink"], read: events::links },
        help: "State of each NVLink: 0 inactive, 1 active, 2 asleep.",
        absent: "boards without NVLink",
    },
    Metric {
        name: HEALTH,
        kind: Counter,
        unit: "0/10/20",
        symbol: "nvmlDeviceGetFieldValues",
        tier: Cycle,
        source: EventSource {
            labels: &["health_error_code", "health_watch"],
            read: health::watches,
        },
        help: "Health of the GPU as far as NVML tells: 0 pass, 10 warn, 20 fail.",
        absent: "watches that NVML has nothing on (PMU, MCU, SM); what the board does not have; while anything of a watch that would pass cannot be read",
    },
];

/// The family whose signs have to be read each cycle.
pub const HEALTH: &str = "DCGM_EXP_GPU_HEALTH_STATUS";

const NO_XIDS: &str = "where the driver tells of no XIDs (WSL, some vGPU guests)";
/// The call behind the extent of utilization.
pub const SAMPLES_SYMBOL: &str = "nvmlDeviceGetSamples";
/// The call behind counts of reasons for lower clocks.
pub const CLOCK_EVENT_SYMBOL: &str = "nvmlDeviceGetCurrentClocksEventReasons";
/// The call behind what is told of pairs of GPUs.
pub const PEER_SYMBOL: &str = "nvmlDeviceGetP2PStatus";
/// The call behind the states of links.
pub const LINK_SYMBOL: &str = "nvmlDeviceGetNvLinkState";

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
        help: "Framebuffer memory that the process holds on the GPU (in MiB).",
        absent: "where the driver does not tell (WSL, some vGPU guests)",
    },
];

/// Rows with one series per process and device of those that use a GPU which nobody gave them.
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
        help: "Framebuffer memory that a process without an allocation holds on the GPU (in MiB).",
        absent: "where the driver does not tell (WSL, some vGPU guests)",
    },
];

const PROCESS_UTILIZATION_ABSENT: &str =
    "in a GPU's first cycle; MPS clients and servers; while MIG is on";

/// Rows with one series per container and device that was given to it.
pub const CONTAINER: &[Metric<ContainerSource>] = &[
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
        kind: Gauge,
        unit: "MiB",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |grant| grant.memory,
        help: "Framebuffer memory allocated to the container on the GPU (in MiB).",
        absent: "where it is not known how much that is",
    },
    Metric {
        name: "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED",
        kind: Gauge,
        unit: "ratio",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |grant| grant.compute,
        help: "Share of the GPU's compute allocated to the container (0 to 1; 0 is unlimited).",
        absent: "",
    },
];

/// Rows with one series per GPU, or one per GPU instance while MIG is on, of what was given away.
pub const ALLOTTED: &[Metric<AllottedSource>] = &[Metric {
    name: "DCGM_CUSTOM_DEV_FB_ALLOCATED",
    kind: Gauge,
    unit: "ratio",
    symbol: "v1.PodResourcesLister/List",
    tier: Cycle,
    source: |allotted| allotted.framebuffer,
    help: "Part of the framebuffer memory that is allocated to containers (0 to 1).",
    absent: "without a cluster; while the kubelet does not answer",
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
        help: "GPUs on the node, lost ones included.",
        absent: "",
    },
    Metric {
        name: "DCGM_CUSTOM_ALLOCATE_MODE",
        kind: Gauge,
        unit: "enum",
        symbol: "v1.PodResourcesLister/List",
        tier: Cycle,
        source: |n| n.allocate_mode,
        help: "How containers hold the node's GPUs: 0 not at all, 1 whole ones, 2 shares.",
        absent: "without a cluster; while the kubelet does not answer",
    },
];

/// Rows whose text is a label of every series of a GPU, and which have no series of their own.
pub const TEXT: &[Metric<TextSource>] = &[
    Metric {
        name: "DCGM_FI_DRIVER_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlSystemGetDriverVersion",
        tier: Slow,
        source: TextSource::Driver(|driver| &driver.version),
        help: "Version of the driver.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_NVML_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlSystemGetNVMLVersion",
        tier: Slow,
        source: TextSource::Driver(|driver| &driver.nvml_version),
        help: "Version of NVML.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_NAME",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetName",
        tier: Slow,
        source: TextSource::Gpu(|gpu| &gpu.name),
        help: "Model of the GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_UUID",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetUUID",
        tier: Slow,
        source: TextSource::Gpu(|gpu| &gpu.uuid),
        help: "UUID of the GPU; of the parent, for a GPU instance.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_PCI_BUSID",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetPciInfo_v3",
        tier: Slow,
        source: TextSource::Gpu(|gpu| &gpu.pci_bus_id),
        help: "PCI address of the GPU.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_BRAND",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetBrand",
        tier: Slow,
        source: TextSource::Read(facts::brand),
        help: "Line of products that the GPU is of.",
        absent: "",
    },
    Metric {
        name: "DCGM_FI_DEV_SERIAL",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetSerial",
        tier: Slow,
        source: TextSource::Read(facts::serial),
        help: "Serial number of the board.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_OEM_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: TextSource::Read(facts::inforom_oem),
        help: "Version of the inforom's object for the maker's data.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: TextSource::Read(facts::inforom_ecc),
        help: "Version of the inforom's object for ECC.",
        absent: "boards without ECC",
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_INFOROM_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        source: TextSource::Read(facts::inforom_power),
        help: "Version of the inforom's object for power management.",
        absent: "where the board has none",
    },
    Metric {
        name: "DCGM_FI_DEV_INFOROM_IMAGE_VER",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetInforomImageVersion",
        tier: Slow,
        source: TextSource::Read(facts::inforom),
        help: "Version of the inforom's image.",
        absent: "consumer boards",
    },
    Metric {
        name: "DCGM_FI_DEV_VBIOS_VERSION",
        kind: Gauge,
        unit: "text",
        symbol: "nvmlDeviceGetVbiosVersion",
        tier: Slow,
        source: TextSource::Read(facts::vbios),
        help: "Version of the VBIOS.",
        absent: "",
    },
];

impl DeviceSource {
    /// The fields that the number is made of.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Field(field, _) => std::slice::from_ref(field),
            Rate(fields, _) | Self::GpmOrRate(_, _, fields, _) => fields,
            Read(_) | Self::Gpm(..) => &[],
        }
    }

    /// The metric of GPM that the number is.
    #[must_use]
    pub fn gpm(&self) -> Option<u32> {
        match self {
            Self::Gpm(id, _) | Self::GpmOrRate(id, ..) => Some(*id),
            Self::Field(..) | Rate(..) | Read(_) => None,
        }
    }
}

/// A row, whatever its slice: what a list of all rows shows of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The family's name.
    pub name: &'static str,
    /// What it has one series for, or that it is a label.
    pub scope: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the exported number.
    pub unit: &'static str,
    /// The NVML symbol that it comes from.
    pub symbol: &'static str,
    /// How often it is read.
    pub tier: Tier,
    /// HELP text, one line.
    pub help: &'static str,
    /// When it is absent although the GPU is healthy.
    pub absent: &'static str,
    /// Whether it is a text, which labels the other series.
    pub is_text: bool,
}

impl<Source> Metric<Source> {
    fn row(&self, scope: &'static str) -> Row {
        let Self { name, kind, unit, symbol, tier, source: _, help, absent } = *self;
        Row { name, scope, kind, unit, symbol, tier, help, absent, is_text: false }
    }
}

/// The row of this name, or of what is also called so.
#[must_use]
pub fn find(name: &str) -> Option<Row> {
    let exact = |name: &str| rows().find(|row| row.name == name);
    exact(name).or_else(|| exact(&alias::row_of(name)?))
}

/// Every name that is found: of rows, and what they are also called.
pub fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|row| row.name).chain(alias::all().map(|(name, _)| name))
}

/// Every row, in the order of the page.
pub fn rows() -> impl Iterator<Item = Row> {
    fn of<S>(scope: &'static str, slice: &'static [Metric<S>]) -> impl Iterator<Item = Row> {
        slice.iter().map(move |metric| metric.row(scope))
    }
    const PART: &str = "device or MIG instance";
    let devices = of("node", NODE).chain(of("device", DEVICE)).chain(of("device", EVENT));
    let parts = of(PART, INSTANCE).chain(of(PART, ALLOTTED));
    let people =
        of("container", CONTAINER).chain(of("process", PROCESS)).chain(of("process", ILLEGAL));
    let accounts = ACCOUNT.iter().map(|account| account.row(account.source.scope()));
    let texts = of("label", TEXT).map(|row| Row { is_text: true, ..row });
    devices.chain(parts).chain(people).chain(accounts).chain(texts)
}

/// As dcgm-exporter reckons: thousands of KiB, whole.
fn kib_to_mb(kib_per_second: f64) -> f64 {
    (kib_per_second / 1000.0).trunc()
}
