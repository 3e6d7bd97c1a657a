//! Rows of `NVLink`.

use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper_sys::bindings::field_id;

use super::DeviceSource::{self, Field, Rate, Read};
use super::Kind::{Counter, Gauge};
use super::{Metric, each_cycle, kib_to_mb, slow};
use crate::nvml::raw::fields::Field as Id;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const NO_RATE: &str = "boards without NVLink; in a GPU's first cycle";
const OLDER: &str = "boards without NVLink; since Hopper, which has other counters";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    each_cycle(
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL), Ok),
        "Flit CRC errors on all NVLinks.",
        OLDER,
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL), Ok),
        "Data CRC errors on all NVLinks.",
        OLDER,
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL), Ok),
        "Replays on all NVLinks.",
        OLDER,
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL), Ok),
        "Recoveries on all NVLinks.",
        OLDER,
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_REPLAY_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY), Ok),
        "Replays on all NVLinks (counter since Hopper).",
        "before Hopper, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY), Ok),
        "Recoveries on all NVLinks (counter since Hopper).",
        "before Hopper, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC), Ok),
        "CRC errors on all NVLinks (counter since Hopper).",
        "before Hopper, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(
            Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS),
            Ok,
        ),
        "Successful recoveries on all NVLinks.",
        "before Blackwell, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS), Ok),
        "Failed recoveries on all NVLinks.",
        "before Blackwell, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL",
        Counter,
        "count",
        BATCH,
        Field(Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS), Ok),
        "Recoveries on all NVLinks, successful or not.",
        "before Blackwell, and boards without NVLink",
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_TX_BANDWIDTH_TOTAL",
        Gauge,
        "MB/s",
        BATCH,
        Rate(&[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX)], kib_to_mb),
        "Transmit throughput of all NVLinks (in MB/s).",
        NO_RATE,
    ),
    each_cycle(
        "DCGM_FI_DEV_NVLINK_RX_BANDWIDTH_TOTAL",
        Gauge,
        "MB/s",
        BATCH,
        Rate(&[Id::of_all_links(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX)], kib_to_mb),
        "Receive throughput of all NVLinks (in MB/s).",
        NO_RATE,
    ),
];

/// Errors of one kind, by link.
macro_rules! errors_by_link {
    ($name:literal, $counter:ident, $errors:literal, $($link:literal)*) => {
        &[$(slow(
            concat!("DCGM_FI_DEV_NVLINK_", $name, "_ERROR_COUNT_L", $link),
            Counter,
            "count",
            "nvmlDeviceGetNvLinkErrorCounter",
            Read(|p| p.link_errors($link, ErrorCounter::$counter)),
            concat!($errors, " on NVLink ", $link, "."),
            OLDER,
        )),*]
    };
    ($name:literal, $counter:ident, $errors:literal) => {
        errors_by_link!($name, $counter, $errors, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)
    };
}

/// Throughput in both directions, by link.
macro_rules! bandwidth_by_link {
    ($($link:literal)*) => {
        &[$(each_cycle(
            concat!("DCGM_FI_DEV_NVLINK_BANDWIDTH_L", $link),
            Counter,
            "MB/s",
            BATCH,
            Rate(&[Id::of_link(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, $link), Id::of_link(field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, $link)], kib_to_mb),
            concat!("Throughput of NVLink ", $link, " in both directions (in MB/s): a rate, although dcgm-exporter types it as a counter."),
            NO_RATE,
        )),*]
    };
}

pub(super) const FLIT_ERRORS: &[Metric<DeviceSource>] =
    errors_by_link!("CRC_FLIT", DlCrcFlit, "Flit CRC errors");
pub(super) const DATA_ERRORS: &[Metric<DeviceSource>] =
    errors_by_link!("CRC_DATA", DlCrcData, "Data CRC errors");
pub(super) const REPLAYS: &[Metric<DeviceSource>] = errors_by_link!("REPLAY", DlReplay, "Replays");
pub(super) const RECOVERIES: &[Metric<DeviceSource>] =
    errors_by_link!("RECOVERY", DlRecovery, "Recoveries");
pub(super) const BANDWIDTHS: &[Metric<DeviceSource>] =
    bandwidth_by_link!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
