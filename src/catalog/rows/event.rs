//! Rows of a GPU's events, topology and health.

use crate::catalog::event_source::{EventInput, EventSource};
use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::{events, health};
use crate::policy::Tier::Slow;

const NO_XIDS: &str = "where the driver reports no XID events (WSL, some vGPU guests)";
const CLOCK_EVENT_REASONS: &str = "nvmlDeviceGetCurrentClocksEventReasons";

pub(super) const ROWS: &[Metric<EventSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_XID_ERRORS",
        unit: "XID",
        symbol: "nvmlEventSetWait_v2",
        help: "The last XID error reported for the GPU since the exporter started, 0 before the first.",
        absent: NO_XIDS,
        ..gauge(EventSource {
            labels: &["err_code", "err_msg"],
            is_single: true,
            needs: EventInput::Xids,
            read: events::last_xid,
        })
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_COUNT",
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        help: "XID errors reported for the GPU within the window.",
        absent: NO_XIDS,
        ..counter(EventSource {
            labels: &["window_size_in_ms", "xid"],
            is_single: false,
            needs: EventInput::Xids,
            read: events::xids_in_window,
        })
    },
    Metric {
        name: "DCGM_EXP_XID_ERRORS_TOTAL",
        unit: "count",
        symbol: "nvmlEventSetWait_v2",
        help: "XID errors reported for the GPU since the exporter started.",
        absent: "before the first XID error",
        ..counter(EventSource {
            labels: &["xid"],
            is_single: false,
            needs: EventInput::Xids,
            read: events::xids_total,
        })
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_COUNT",
        unit: "samples",
        symbol: CLOCK_EVENT_REASONS,
        help: "Samples within the window in which the clock event reason was active.",
        ..counter(EventSource {
            labels: &["clock_event", "window_size_in_ms"],
            is_single: false,
            needs: EventInput::ClockEvents,
            read: events::clock_events_in_window,
        })
    },
    Metric {
        name: "DCGM_EXP_CLOCK_EVENTS_TOTAL",
        unit: "events",
        symbol: CLOCK_EVENT_REASONS,
        help: "Number of times the clock event reason became active since the exporter started.",
        ..counter(EventSource {
            labels: &["clock_event"],
            is_single: false,
            needs: EventInput::ClockEvents,
            read: events::clock_events_total,
        })
    },
    Metric {
        name: "DCGM_EXP_P2P_STATUS",
        unit: "enum",
        symbol: "nvmlDeviceGetP2PStatus",
        tier: Slow,
        help: "NVLink peer-to-peer status of a pair of GPUs: 0 OK, otherwise the reason (nvmlGpuP2PStatus).",
        absent: "on a node with one GPU",
        ..counter(EventSource {
            labels: &["link_status", "peer_gpu"],
            is_single: false,
            needs: EventInput::Peers,
            read: events::peers,
        })
    },
    Metric {
        name: "DCGM_FI_DEV_NVLINK_GET_STATE",
        unit: "enum",
        symbol: "nvmlDeviceGetNvLinkState",
        tier: Slow,
        help: "State of the NVLink: 0 inactive, 1 active, 2 sleep, 3 active but closed to traffic.",
        absent: "boards without NVLink",
        ..gauge(EventSource {
            labels: &["nvlink"],
            is_single: false,
            needs: EventInput::Links,
            read: events::links,
        })
    },
    Metric {
        name: "DCGM_EXP_GPU_HEALTH_STATUS",
        unit: "0/10/20",
        symbol: "nvmlDeviceGetFieldValues",
        help: "Health of the GPU as far as NVML reports it: 0 pass, 10 warn, 20 fail.",
        absent: "watches without NVML data (PMU, MCU, SM); watches that the board does not support; a watch that would pass while one of its inputs cannot be read",
        ..counter(EventSource {
            labels: &["health_error_code", "health_watch"],
            is_single: false,
            needs: EventInput::Health,
            read: health::watches,
        })
    },
    Metric {
        name: "DCGM_FI_DEV_INFOROM_VALID",
        unit: "bool",
        symbol: "nvmlDeviceValidateInforom",
        tier: Slow,
        help: "1 if the checksum of the InfoROM is valid; read once an hour.",
        absent: "boards without an InfoROM",
        ..gauge(EventSource {
            labels: &[],
            is_single: true,
            needs: EventInput::SlowHealth,
            read: events::inforom_valid,
        })
    },
];
