//! Rows of power smoothing, power profiles and the time of clock events.

use nvml_wrapper_sys::bindings::field_id;

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Read};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::Slow;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const PROFILES: &str = "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles";
const NO_SMOOTHING: &str = "boards without power smoothing: all but Blackwell and later for data centers; drivers before 570; where the driver denies it to the exporter";
const NO_PROFILES: &str = "before Blackwell; drivers before 570";
const NO_TIMES: &str = "drivers before 575; consumer boards";

/// `NVML_FI_*` of newer headers than that of nvml-wrapper-sys.
const MMA_STALL_PERCENT: u32 = 297;
const LIMITED_TIME: u32 = 309;
/// `NVML_FI_*` as since CUDA 13.0 Update 1; nvml-wrapper-sys has the earlier numbers.
const SW_THERMAL_TIME: u32 = 269;
const HW_THERMAL_TIME: u32 = 270;
const POWER_BRAKE_TIME: u32 = 271;

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_REQUESTED_POWER_PROFILE_MASK",
        unit: "bitmask",
        symbol: PROFILES,
        tier: Slow,
        help: "Power profiles that were requested: bit n is profile n.",
        absent: NO_PROFILES,
        ..gauge(Read(|p| p.power_profiles(|profiles| profiles.requested)))
    },
    Metric {
        name: "DCGM_FI_DEV_ENFORCED_POWER_PROFILE_MASK",
        unit: "bitmask",
        symbol: PROFILES,
        tier: Slow,
        help: "Power profiles that are in effect: bit n is profile n.",
        absent: NO_PROFILES,
        ..gauge(Read(|p| p.power_profiles(|profiles| profiles.enforced)))
    },
    Metric {
        name: "DCGM_FI_DEV_VALID_POWER_PROFILE_MASK",
        unit: "bitmask",
        symbol: PROFILES,
        tier: Slow,
        help: "Power profiles that the board has: bit n is profile n.",
        absent: NO_PROFILES,
        ..gauge(Read(|p| p.power_profiles(|profiles| profiles.supported)))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_PWR_SMOOTHING_LIMITED_TIME",
        unit: "ns",
        symbol: BATCH,
        tier: Slow,
        help: "Time for which power smoothing limited the GPU (in ns).",
        absent: "boards without power smoothing; drivers before 615",
        ..counter(Field(Id::of(LIMITED_TIME), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_MMA_STALL_PERCENT",
        unit: "%",
        symbol: BATCH,
        help: "Time for which the tensor cores waited (in %).",
        absent: "boards without this counter; drivers before 610",
        ..gauge(Field(Id::of(MMA_STALL_PERCENT), Ok))
    },
];

/// Time of a clock event reason since the driver was loaded.
macro_rules! event_times {
    ($($reason:literal $field:expr, $absent:expr, $help:literal);*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_CLOCKS_EVENT_REASON_", $reason, "_NS"),
            unit: "ns",
            symbol: BATCH,
            tier: Slow,
            help: concat!("Time for which the clocks were reduced ", $help, " since the driver was loaded (in ns)."),
            absent: $absent,
            ..counter(Field(Id::of($field), Ok))
        }),*]
    };
}

pub(super) const EVENT_TIMES: &[Metric<DeviceSource>] = event_times!(
    "SW_POWER_CAP" field_id::NVML_FI_DEV_PERF_POLICY_POWER, "consumer boards", "by the power limit";
    "SYNC_BOOST" field_id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, "consumer boards", "by sync boost";
    "SW_THERM_SLOWDOWN" SW_THERMAL_TIME, NO_TIMES, "by the driver because of temperature";
    "HW_THERM_SLOWDOWN" HW_THERMAL_TIME, NO_TIMES, "by the hardware because of temperature";
    "HW_POWER_BRAKE_SLOWDOWN" POWER_BRAKE_TIME, NO_TIMES, "by an external power brake"
);

/// Power smoothing.
macro_rules! power_smoothing {
    ($($end:literal $field:literal $unit:literal $help:literal),*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_PWR_SMOOTHING_", $end),
            unit: $unit,
            symbol: BATCH,
            tier: Slow,
            help: concat!($help, "."),
            absent: NO_SMOOTHING,
            ..gauge(Field(Id::of($field), Ok))
        }),*]
    };
}

pub(super) const POWER_SMOOTHING: &[Metric<DeviceSource>] = power_smoothing!(
    "ENABLED" 251 "bool" "1 if power smoothing is enabled",
    "PRIV_LVL" 252 "enum" "Privilege level of the caller for power smoothing: 0 none, 1 user, 2 administrator",
    "IMM_RAMP_DOWN_ENABLED" 253 "bool" "1 if immediate ramp-down is enabled",
    "APPLIED_TMP_CEIL" 254 "W" "Power ceiling that power smoothing applies (in W)",
    "APPLIED_TMP_FLOOR" 255 "W" "Power floor that power smoothing applies (in W)",
    "MAX_PERCENT_TMP_FLOOR_SETTING" 256 "%" "Highest power floor that can be set (in % of the ceiling)",
    "MIN_PERCENT_TMP_FLOOR_SETTING" 257 "%" "Lowest power floor that can be set (in % of the ceiling)",
    "HW_CIRCUITRY_PERCENT_LIFETIME_REMAINING" 258 "%" "Remaining lifetime of the power smoothing circuitry (in %)",
    "MAX_NUM_PRESET_PROFILES" 259 "count" "Number of preset profiles of power smoothing",
    "PROFILE_PERCENT_TMP_FLOOR" 260 "%" "Power floor of preset profile 0 (in % of the ceiling)",
    "PROFILE_RAMP_UP_RATE" 261 "mW/s" "Ramp-up rate of preset profile 0 (in mW/s)",
    "PROFILE_RAMP_DOWN_RATE" 262 "mW/s" "Ramp-down rate of preset profile 0 (in mW/s)",
    "PROFILE_RAMP_DOWN_HYST_VAL" 263 "ms" "Ramp-down hysteresis of preset profile 0 (in ms)",
    "ACTIVE_PRESET_PROFILE" 264 "index" "Active preset profile of power smoothing",
    "ADMIN_OVERRIDE_PERCENT_TMP_FLOOR" 265 "%" "Power floor set by an administrator (in % of the ceiling)",
    "ADMIN_OVERRIDE_RAMP_UP_RATE" 266 "mW/s" "Ramp-up rate set by an administrator (in mW/s)",
    "ADMIN_OVERRIDE_RAMP_DOWN_RATE" 267 "mW/s" "Ramp-down rate set by an administrator (in mW/s)",
    "ADMIN_OVERRIDE_RAMP_DOWN_HYST_VAL" 268 "ms" "Ramp-down hysteresis set by an administrator (in ms)"
);
