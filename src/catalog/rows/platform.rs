//! Rows of the place in the rack, confidential computing, and sessions of encoder and capture.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::DeviceSource::{self, Read};
use crate::policy::Tier::Slow;

const PLATFORM: &str = "nvmlDeviceGetPlatformInfo";
const ENCODER: &str = "nvmlDeviceGetEncoderStats";
const CAPTURE: &str = "nvmlDeviceGetFBCStats";
const FABRIC: &str = "nvmlDeviceGetGpuFabricInfoV";
const NO_PLATFORM: &str = "before Blackwell, and boards that are not in a rack; drivers before 570";
const NO_FABRIC: &str = "boards without an NVLink fabric; until the GPU is registered with it";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_CHASSIS_SLOT_NUMBER",
        unit: "index",
        symbol: PLATFORM,
        tier: Slow,
        help: "Slot of the chassis that the GPU is in, switches included.",
        absent: NO_PLATFORM,
        ..gauge(Read(|p| p.platform_number(|platform| platform.slot)))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_TRAY_INDEX",
        unit: "index",
        symbol: PLATFORM,
        tier: Slow,
        help: "Compute tray of the chassis that the GPU is in.",
        absent: NO_PLATFORM,
        ..gauge(Read(|p| p.platform_number(|platform| platform.tray)))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_HOST_ID",
        unit: "index",
        symbol: PLATFORM,
        tier: Slow,
        help: "Node within the slot that the GPU is in.",
        absent: NO_PLATFORM,
        ..gauge(Read(|p| p.platform_number(|platform| platform.host)))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_PEER_TYPE",
        unit: "enum",
        symbol: PLATFORM,
        tier: Slow,
        help: "What the NVLinks of the GPU are connected to: 0 GPUs, 1 switches.",
        absent: NO_PLATFORM,
        ..gauge(Read(|p| p.platform_number(|platform| Some(platform.peer_type))))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_MODULE_ID",
        unit: "index",
        symbol: PLATFORM,
        tier: Slow,
        help: "Number of the GPU within the node.",
        absent: NO_PLATFORM,
        ..gauge(Read(|p| p.platform_number(|platform| Some(platform.module))))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_CLIQUE_ID",
        unit: "index",
        symbol: FABRIC,
        tier: Slow,
        help: "Clique of the GPU in its NVLink fabric: GPUs of one cluster and clique reach the memory of each other.",
        absent: NO_FABRIC,
        ..gauge(Read(|p| p.fabric_clique()))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_MANAGER_ERROR_CODE",
        unit: "enum",
        symbol: FABRIC,
        tier: Slow,
        help: "Result of the registration with the NVLink fabric (nvmlReturn_t): 0 success.",
        absent: NO_FABRIC,
        ..gauge(Read(|p| p.fabric_status()))
    },
    Metric {
        name: "DCGM_FI_DEV_CC_MODE",
        unit: "enum",
        symbol: "nvmlSystemGetConfComputeState",
        tier: Slow,
        help: "Confidential computing: 0 off, 1 on, 2 on for secure AI on bare metal.",
        absent: "drivers before 535; boards without confidential computing",
        ..gauge(Read(|p| p.confidential_compute_mode()))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_ENC_SESSIONS",
        unit: "count",
        symbol: ENCODER,
        tier: Slow,
        help: "Sessions of the video encoder.",
        absent: "boards without a video encoder",
        ..gauge(Read(|p| p.encoder_sessions(|stats| stats.sessions)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_ENC_AVERAGE_FPS",
        unit: "frames/s",
        symbol: ENCODER,
        tier: Slow,
        help: "Mean frame rate of the sessions of the video encoder (in frames per second).",
        absent: "boards without a video encoder",
        ..gauge(Read(|p| p.encoder_sessions(|stats| stats.frames_per_second)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_ENC_AVERAGE_LATENCY",
        unit: "us",
        symbol: ENCODER,
        tier: Slow,
        help: "Mean latency of the sessions of the video encoder (in us).",
        absent: "boards without a video encoder",
        ..gauge(Read(|p| p.encoder_sessions(|stats| stats.latency_us)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FBC_SESSIONS",
        unit: "count",
        symbol: CAPTURE,
        tier: Slow,
        help: "Sessions of framebuffer capture.",
        absent: "boards without framebuffer capture",
        ..gauge(Read(|p| p.capture_sessions(|stats| stats.sessions)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FBC_AVERAGE_FPS",
        unit: "frames/s",
        symbol: CAPTURE,
        tier: Slow,
        help: "Mean frame rate of the sessions of framebuffer capture (in frames per second).",
        absent: "boards without framebuffer capture",
        ..gauge(Read(|p| p.capture_sessions(|stats| stats.frames_per_second)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_FBC_AVERAGE_LATENCY",
        unit: "us",
        symbol: CAPTURE,
        tier: Slow,
        help: "Mean latency of the sessions of framebuffer capture (in us).",
        absent: "boards without framebuffer capture",
        ..gauge(Read(|p| p.capture_sessions(|stats| stats.latency_us)))
    },
];
