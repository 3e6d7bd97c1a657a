//! Rows with one series per link.

use nvml_wrapper_sys::bindings::{
    field_id, nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA as DATA,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT as FLIT,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY as RECOVERY,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY as REPLAY,
};

use super::kib_to_mb;
use crate::catalog::event_source::{EventInput, EventSource};
use crate::catalog::events;
use crate::catalog::metric::{Metric, counter, gauge};
use crate::nvml::links::bit_error_rate;
use crate::policy::Tier::Slow;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const NO_NVLINK_5: &str = "before Blackwell, and boards without NVLink";
const NO_RATE: &str = "boards without NVLink; in a GPU's first cycle";
const NO_C2C: &str = "boards without a C2C link to a CPU: all but Grace Hopper and Grace Blackwell";
const NO_C2C_ERRORS: &str = "boards without a C2C link to a CPU: all but Grace Hopper and Grace Blackwell; drivers before 575";

/// Fields of each NVLink.
macro_rules! nvlink_fields {
    ($($name:literal $base:ident $unit:literal $field:ident $convert:expr, $help:literal);*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_NVLINK_", $name),
            unit: $unit,
            symbol: BATCH,
            tier: Slow,
            help: $help,
            absent: NO_NVLINK_5,
            ..$base(EventSource {
                labels: &["nvlink"],
                is_single: false,
                needs: EventInput::NvLinkField(field_id::$field),
                read: |inputs| events::nvlink_field(inputs, field_id::$field, $convert),
            })
        }),*]
    };
}

/// Fields of each C2C link.
macro_rules! c2c_fields {
    ($($name:literal $base:ident $unit:literal $field:ident $absent:expr, $help:literal);*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_C2C_", $name),
            unit: $unit,
            symbol: BATCH,
            tier: Slow,
            help: $help,
            absent: $absent,
            ..$base(EventSource {
                labels: &["c2c_link"],
                is_single: false,
                needs: EventInput::C2cField(field_id::$field),
                read: |inputs| events::c2c_field(inputs, field_id::$field),
            })
        }),*]
    };
}

/// Throughput of each NVLink.
macro_rules! nvlink_rates {
    ($($name:literal $unit:literal [$($field:ident)*] $convert:expr, $help:literal);*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_", $name, "_PER_LINK"),
            unit: $unit,
            symbol: BATCH,
            help: $help,
            absent: NO_RATE,
            ..gauge(EventSource {
                labels: &["nvlink"],
                is_single: false,
                needs: EventInput::NvLinkRate(&[$(field_id::$field),*]),
                read: |inputs| events::nvlink_rate(inputs, &[$(field_id::$field),*], $convert),
            })
        }),*]
    };
}

/// Errors of each NVLink.
macro_rules! nvlink_errors {
    ($($name:literal $counter:ident $errors:literal),*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_NVLINK_", $name, "_ERROR_PER_LINK_TOTAL"),
            unit: "count",
            symbol: "nvmlDeviceGetNvLinkErrorCounter",
            tier: Slow,
            help: concat!($errors, " on the NVLink."),
            absent: "boards without NVLink; since Hopper, which has other counters",
            ..counter(EventSource {
                labels: &["nvlink"],
                is_single: false,
                needs: EventInput::NvLinkErrors($counter),
                read: |inputs| events::nvlink_errors(inputs, $counter),
            })
        }),*]
    };
}

pub(super) const RATES: &[Metric<EventSource>] = nvlink_rates!(
    "DEV_NVLINK_THROUGHPUT" "MB/s" [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX] kib_to_mb, "Throughput of the NVLink in both directions (in MB/s).";
    "DEV_NVLINK_TX_THROUGHPUT" "MB/s" [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX] kib_to_mb, "Transmit throughput of the NVLink (in MB/s).";
    "DEV_NVLINK_RX_THROUGHPUT" "MB/s" [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX] kib_to_mb, "Receive throughput of the NVLink (in MB/s).";
    "PROF_NVLINK_TX_BYTES" "bytes/s" [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX] kib_to_bytes, "Data that the NVLink sends (in bytes per second).";
    "PROF_NVLINK_RX_BYTES" "bytes/s" [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX] kib_to_bytes, "Data that the NVLink receives (in bytes per second)."
);

pub(super) const ERRORS: &[Metric<EventSource>] = nvlink_errors!(
    "CRC_FLIT" FLIT "Flit CRC errors",
    "CRC_DATA" DATA "Data CRC errors",
    "REPLAY" REPLAY "Replays",
    "RECOVERY" RECOVERY "Recoveries"
);

fn kib_to_bytes(kib: f64) -> f64 {
    kib * 1024.0
}

pub(super) const NVLINK_5: &[Metric<EventSource>] = nvlink_fields!(
    "TX_PACKET_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS Ok, "Packets that the NVLink sent.";
    "TX_BYTES_TOTAL" counter "bytes" NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES Ok, "Data that the NVLink sent (in bytes).";
    "RX_PACKET_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_RCV_PACKETS Ok, "Packets that the NVLink received.";
    "RX_BYTES_TOTAL" counter "bytes" NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES Ok, "Data that the NVLink received (in bytes).";
    "RX_PACKET_MALFORMED_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS Ok, "Malformed packets that the NVLink received.";
    "RX_PACKET_DROPPED_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS Ok, "Packets that the NVLink discarded because its buffer was full.";
    "RX_ERROR_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS Ok, "Packets with errors that the NVLink received.";
    "RX_REMOTE_ERROR_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS Ok, "Packets that the NVLink received with an error mark of the other end.";
    "RX_GENERAL_ERROR_TOTAL" counter "packets" NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS Ok, "Packets with a wrong header that the NVLink received.";
    "INTEGRITY_ERROR_TOTAL" counter "errors" NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS Ok, "Number of times that the local errors of the NVLink exceeded their threshold.";
    "COUNT_TX_DISCARDS" counter "packets" NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS Ok, "Packets with errors that the NVLink did not send.";
    "RX_SYMBOL_ERROR_TOTAL" counter "errors" NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS Ok, "Errors in the symbols that the NVLink received.";
    "SYMBOL_BER_RATIO" gauge "ratio" NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER bit_error_rate, "Bit error rate of the symbols that the NVLink received.";
    "SYMBOL_BER_RAW" gauge "packed" NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER Ok, "Bit error rate of the symbols that the NVLink received: mantissa times 256, plus the negative exponent of 10.";
    "EFFECTIVE_ERROR_TOTAL" counter "errors" NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS Ok, "Errors of the NVLink that remained after error correction.";
    "EFFECTIVE_BER_RATIO" gauge "ratio" NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER bit_error_rate, "Bit error rate of the NVLink after error correction.";
    "EFFECTIVE_BER_RAW" gauge "packed" NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER Ok, "Bit error rate of the NVLink after error correction: mantissa times 256, plus the negative exponent of 10.";
    "COUNT_FEC_HISTORY_0" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_0 Ok, "Blocks of the NVLink in which error correction corrected no symbol.";
    "COUNT_FEC_HISTORY_1" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_1 Ok, "Blocks of the NVLink in which error correction corrected one symbol.";
    "COUNT_FEC_HISTORY_2" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_2 Ok, "Blocks of the NVLink in which error correction corrected 2 symbols.";
    "COUNT_FEC_HISTORY_3" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_3 Ok, "Blocks of the NVLink in which error correction corrected 3 symbols.";
    "COUNT_FEC_HISTORY_4" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_4 Ok, "Blocks of the NVLink in which error correction corrected 4 symbols.";
    "COUNT_FEC_HISTORY_5" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_5 Ok, "Blocks of the NVLink in which error correction corrected 5 symbols.";
    "COUNT_FEC_HISTORY_6" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_6 Ok, "Blocks of the NVLink in which error correction corrected 6 symbols.";
    "COUNT_FEC_HISTORY_7" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_7 Ok, "Blocks of the NVLink in which error correction corrected 7 symbols.";
    "COUNT_FEC_HISTORY_8" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_8 Ok, "Blocks of the NVLink in which error correction corrected 8 symbols.";
    "COUNT_FEC_HISTORY_9" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_9 Ok, "Blocks of the NVLink in which error correction corrected 9 symbols.";
    "COUNT_FEC_HISTORY_10" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_10 Ok, "Blocks of the NVLink in which error correction corrected 10 symbols.";
    "COUNT_FEC_HISTORY_11" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_11 Ok, "Blocks of the NVLink in which error correction corrected 11 symbols.";
    "COUNT_FEC_HISTORY_12" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_12 Ok, "Blocks of the NVLink in which error correction corrected 12 symbols.";
    "COUNT_FEC_HISTORY_13" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_13 Ok, "Blocks of the NVLink in which error correction corrected 13 symbols.";
    "COUNT_FEC_HISTORY_14" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_14 Ok, "Blocks of the NVLink in which error correction corrected 14 symbols.";
    "COUNT_FEC_HISTORY_15" counter "blocks" NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_15 Ok, "Blocks of the NVLink in which error correction corrected 15 symbols or more."
);

pub(super) const C2C: &[Metric<EventSource>] = c2c_fields!(
    "LINK_STATUS" gauge "bool" NVML_FI_DEV_C2C_LINK_GET_STATUS NO_C2C, "1 while the C2C link is active.";
    "MAX_BANDWIDTH" gauge "MB/s" NVML_FI_DEV_C2C_LINK_GET_MAX_BW NO_C2C, "Bandwidth of the C2C link (in MB/s).";
    "LINK_ERROR_INTR" counter "count" NVML_FI_DEV_C2C_LINK_ERROR_INTR NO_C2C_ERRORS, "CRC errors of the C2C link.";
    "LINK_ERROR_REPLAY" counter "count" NVML_FI_DEV_C2C_LINK_ERROR_REPLAY NO_C2C_ERRORS, "Replays of the C2C link.";
    "LINK_ERROR_REPLAY_B2B" counter "count" NVML_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B NO_C2C_ERRORS, "Successive replays of the C2C link.";
    "LINK_POWER_STATE" gauge "enum" NVML_FI_DEV_C2C_LINK_POWER_STATE NO_C2C_ERRORS, "Power state of the C2C link: 0 full, 1 low."
);

/// The place of the GPU as labels.
pub(super) const PLATFORM: &[Metric<EventSource>] = &[Metric {
    name: "DCGM_CUSTOM_DEV_PLATFORM_INFO",
    unit: "1",
    symbol: "nvmlDeviceGetPlatformInfo",
    tier: Slow,
    help: "1; the place of the GPU in its rack as labels.",
    absent: "before Blackwell, and boards that are not in a rack; drivers before 570",
    ..gauge(EventSource {
        labels: &["chassis_serial", "host", "module", "slot", "tray"],
        is_single: false,
        needs: EventInput::Platform,
        read: events::platform_info,
    })
}];
