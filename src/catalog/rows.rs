//! The rows, by topic. Their order is that of the exposition.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of `Probe<'nvml>` has one lifetime, a row is generic over it"
)]

/// Calls a macro with its arguments and the numbers of 72 NVLinks, as many as NVML has metrics of.
macro_rules! each_nvlink {
    ($rows:ident!($($argument:tt)*)) => {
        $rows!($($argument)* 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35
            36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71)
    };
}

mod accumulated;
mod activity;
mod allocation;
mod base_units;
mod board;
mod errors;
mod event;
mod gpu;
mod info_labels;
mod link_fields;
mod links;
mod memory;
mod node;
mod platform;
mod power;
mod process;
mod profiling;
mod repair;
mod utilization;

pub use self::accumulated::ACCUMULATED;
pub use self::activity::ACTIVITY;
pub use self::allocation::{ALLOCATED_FRACTION, CONTAINER, MEMORY_ACCOUNT};
pub use self::info_labels::INFO_LABELS;
pub use self::node::NODE;
pub use self::process::{ILLEGAL, PROCESS};
use super::event_source::EventSource;
use super::metric::Metric;
use super::source::DeviceSource;

/// Rows with one series per GPU.
pub const DEVICE: &[Metric<DeviceSource>] =
    &concat::<_, { row_count(DEVICE_SLICES) }>(DEVICE_SLICES);
const DEVICE_SLICES: &[&[Metric<DeviceSource>]] = &[
    gpu::GPU,
    board::ROWS,
    base_units::BASE_UNITS,
    utilization::MIN_MEAN_MAX,
    errors::ROWS,
    errors::CORRECTED_VOLATILE,
    errors::CORRECTED_AGGREGATE,
    errors::UNCORRECTED_VOLATILE,
    errors::UNCORRECTED_AGGREGATE,
    repair::ROWS,
    repair::SRAM_ERRORS,
    power::ROWS,
    power::EVENT_TIMES,
    power::POWER_SMOOTHING,
    platform::ROWS,
    links::ROWS,
    links::BANDWIDTHS,
    links::SENT,
    links::RECEIVED,
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

/// Rows of a GPU's events, topology, links and health; their series have further labels.
pub const EVENT: &[Metric<EventSource>] = &concat::<_, { row_count(EVENT_SLICES) }>(EVENT_SLICES);
const EVENT_SLICES: &[&[Metric<EventSource>]] = &[
    event::ROWS,
    link_fields::RATES,
    link_fields::ERRORS,
    link_fields::NVLINK_5,
    link_fields::C2C,
    link_fields::PLATFORM,
];

/// Rows with one series per GPU or, while MIG is enabled, one per GPU instance. The GPU itself then
/// has no series: sums would count its instances twice.
pub const INSTANCE: &[Metric<DeviceSource>] =
    &concat::<_, { row_count(INSTANCE_SLICES) }>(INSTANCE_SLICES);
const INSTANCE_SLICES: &[&[Metric<DeviceSource>]] =
    &[memory::MEMORY, memory::MORE_MEMORY, profiling::BY_INSTANCE, profiling::TOTALS];

#[expect(clippy::indexing_slicing, reason = "at compile time, an index out of bounds is an error")]
const fn row_count<S: 'static>(slices: &[&[Metric<S>]]) -> usize {
    let (mut count, mut slice) = (0, 0);
    while slice < slices.len() {
        count += slices[slice].len();
        slice += 1;
    }
    count
}

/// Concatenates slices; `N` is their [`row_count`].
#[expect(clippy::indexing_slicing, reason = "at compile time, an index out of bounds is an error")]
const fn concat<S: Copy + 'static, const N: usize>(slices: &[&[Metric<S>]]) -> [Metric<S>; N] {
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

/// Whole MB/s, the documented unit of DCGM's fields, from KiB/s. DCGM itself divides KiB by 1000, which
/// does not agree with its bytes per second.
fn kib_to_mb(kib_per_second: f64) -> f64 {
    (kib_per_second * 1024.0 / 1e6).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::metric::gauge;

    /// Nothing but the row itself is written for a new row: no length, and no list of names.
    #[test]
    fn row_of_a_slice_is_a_row_of_the_catalogue() {
        const ADDED: &[Metric<DeviceSource>] = &[Metric {
            name: "DCGM_FI_DEV_ADDED",
            unit: "C",
            symbol: "nvmlDeviceGetTemperatureV",
            help: "A row.",
            ..gauge(DeviceSource::Read(|p| p.temperature()))
        }];
        const SLICES: &[&[Metric<DeviceSource>]] = &[gpu::GPU, ADDED, board::ROWS];
        const ROWS: &[Metric<DeviceSource>] = &concat::<_, { row_count(SLICES) }>(SLICES);
        let names: Vec<&str> = ROWS.iter().map(|metric| metric.name).collect();
        let expected = SLICES.iter().copied().flatten().map(|metric| metric.name);
        assert_eq!(names, expected.collect::<Vec<_>>());
        assert!(names.contains(&"DCGM_FI_DEV_ADDED"));
    }
}
