//! Rows of `NVLink`.

use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper_sys::bindings::field_id;

use super::kib_to_mb;
use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Rate, Read};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::Slow;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const NO_RATE: &str = "boards without NVLink; in a GPU's first cycle";
const OLDER: &str = "boards without NVLink; since Hopper, which has other counters";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND",
        unit: "bytes/s",
        symbol: BATCH,
        help: "Throughput of all NVLinks in both directions (in bytes per second).",
        absent: NO_RATE,
        ..gauge(Rate(
            &[
                Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
                Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
            ],
            |kib_per_second| kib_per_second * 1024.0,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Flit CRC errors on all NVLinks.",
        absent: OLDER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Data CRC errors on all NVLinks.",
        absent: OLDER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Replays on all NVLinks.",
        absent: OLDER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Recoveries on all NVLinks.",
        absent: OLDER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "ECC errors of data on all NVLinks.",
        absent: "before Ampere, and boards without NVLink",
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_REPLAY_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Replays on all NVLinks (counter since Hopper).",
        absent: "before Hopper, and boards without NVLink",
        ..counter(Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Recoveries on all NVLinks (counter since Hopper).",
        absent: "before Hopper, and boards without NVLink",
        ..counter(Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "CRC errors on all NVLinks (counter since Hopper).",
        absent: "before Hopper, and boards without NVLink",
        ..counter(Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Successful recoveries on all NVLinks.",
        absent: "before Blackwell, and boards without NVLink",
        ..counter(Field(
            Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS),
            Ok,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Failed recoveries on all NVLinks.",
        absent: "before Blackwell, and boards without NVLink",
        ..counter(Field(
            Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS),
            Ok,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Recoveries on all NVLinks, successful or not.",
        absent: "before Blackwell, and boards without NVLink",
        ..counter(Field(
            Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS),
            Ok,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_C2C_LINK_COUNT",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Number of C2C links to a CPU.",
        absent: "drivers before 525",
        ..gauge(Field(Id::of(field_id::NVML_FI_DEV_C2C_LINK_COUNT), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_TX_BANDWIDTH_TOTAL",
        unit: "MB/s",
        symbol: BATCH,
        help: "Transmit throughput of all NVLinks (in MB/s).",
        absent: NO_RATE,
        ..gauge(Rate(
            &[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX)],
            kib_to_mb,
        ))
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_RX_BANDWIDTH_TOTAL",
        unit: "MB/s",
        symbol: BATCH,
        help: "Receive throughput of all NVLinks (in MB/s).",
        absent: NO_RATE,
        ..gauge(Rate(
            &[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX)],
            kib_to_mb,
        ))
    },
];

/// Errors of one kind, by link.
macro_rules! errors_by_link {
    ($name:literal, $counter:ident, $errors:literal, $($link:literal)*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_NVLINK_", $name, "_ERROR_COUNT_L", $link),
            unit: "count",
            symbol: "nvmlDeviceGetNvLinkErrorCounter",
            tier: Slow,
            help: concat!($errors, " on NVLink ", $link, "."),
            absent: OLDER,
            ..counter(Read(|p| p.link_errors($link, ErrorCounter::$counter)))
        }),*]
    };
    ($name:literal, $counter:ident, $errors:literal) => {
        errors_by_link!($name, $counter, $errors, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)
    };
}

/// Throughput, by link.
macro_rules! throughput_by_link {
    ($base:ident, $name:literal, $help:literal, $fields:tt, $note:literal, $($link:literal)*) => {
        &[$(throughput_of_link!($base, $name, $help, $fields, $note, $link)),*]
    };
}

macro_rules! throughput_of_link {
    ($base:ident, $name:literal, $help:literal, [$($field:ident)*], $note:literal, $link:literal) => {
        Metric {
            name: concat!("DCGM_FI_DEV_NVLINK_", $name, "_L", $link),
            unit: "MB/s",
            symbol: BATCH,
            help: concat!($help, " of NVLink ", $link, $note),
            absent: NO_RATE,
            ..$base(Rate(&[$(Id::of_link(field_id::$field, $link)),*], kib_to_mb))
        }
    };
}

pub(super) const FLIT_ERRORS: &[Metric<DeviceSource>] =
    errors_by_link!("CRC_FLIT", DlCrcFlit, "Flit CRC errors");
pub(super) const DATA_ERRORS: &[Metric<DeviceSource>] =
    errors_by_link!("CRC_DATA", DlCrcData, "Data CRC errors");
pub(super) const REPLAYS: &[Metric<DeviceSource>] = errors_by_link!("REPLAY", DlReplay, "Replays");
pub(super) const RECOVERIES: &[Metric<DeviceSource>] =
    errors_by_link!("RECOVERY", DlRecovery, "Recoveries");
pub(super) const BANDWIDTHS: &[Metric<DeviceSource>] = each_nvlink!(throughput_by_link!(
    counter, "BANDWIDTH", "Throughput",
    [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX],
    " in both directions (in MB/s): a rate, although dcgm-exporter types it as a counter.",
));
pub(super) const SENT: &[Metric<DeviceSource>] = each_nvlink!(throughput_by_link!(
    gauge,
    "TX_BANDWIDTH",
    "Transmit throughput",
    [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX],
    " (in MB/s).",
));
pub(super) const RECEIVED: &[Metric<DeviceSource>] = each_nvlink!(throughput_by_link!(
    gauge,
    "RX_BANDWIDTH",
    "Receive throughput",
    [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX],
    " (in MB/s).",
));
