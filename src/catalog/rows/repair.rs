//! Rows that ask an operator to act: recovery action, repairs, spare memory, temperature margin.

use nvml_wrapper_sys::bindings::field_id;

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Read};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::Slow;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const REPAIR: &str = "nvmlDeviceGetRepairStatus";
const SRAM: &str = "nvmlDeviceGetSramEccErrorStatus";
const NO_REPAIR: &str = "before Ampere, and boards without ECC; drivers before 580";
const NO_SRAM: &str = "before Ampere; drivers before 535";
const NO_BANK_REMAPPING: &str = "before Rubin; drivers before 615";

/// `NVML_FI_*` of newer headers than that of nvml-wrapper-sys.
const REMAPPED_COR_INACTIVE: u32 = 301;
const REMAPPED_UNC_INACTIVE: u32 = 302;
const ACTIVE_BANK_REMAPPINGS: u32 = 303;
const INACTIVE_BANK_REMAPPINGS: u32 = 304;
const BANK_REMAPPER_MAX: u32 = 305;
const BANK_REMAPPER_NONE: u32 = 306;
const PENDING_BANK_REMAPPING: u32 = 307;

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION",
        unit: "enum",
        symbol: BATCH,
        tier: Slow,
        help: "What the driver asks for to recover the GPU: 0 nothing, 1 reset the GPU, 2 reboot the node, 3 stop peer-to-peer traffic, 4 drain and reset, 5 recover the IMEX domain, 6 reset the PCIe bus, 7 reboot the system.",
        absent: "drivers before 565",
        ..gauge(Field(Id::of(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_MEMORY_UNREPAIRABLE_FLAG",
        unit: "bool",
        symbol: "nvmlDeviceGetUnrepairableMemoryFlag_v1",
        tier: Slow,
        help: "1 if the GPU has memory that cannot be repaired: replace the board.",
        absent: "before Hopper; drivers before 590 and early releases of 580",
        ..gauge(Read(|p| p.unrepairable_memory()))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_TEMP_LIMIT",
        unit: "C",
        symbol: "nvmlDeviceGetMarginTemperature",
        tier: Slow,
        help: "Distance of the GPU temperature to the nearest slowdown threshold (in C); not positive while the clocks are reduced.",
        absent: "before Ada; drivers before 570",
        ..gauge(Read(|p| p.temperature_margin()))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_CHANNEL_REPAIR_PENDING",
        unit: "bool",
        symbol: REPAIR,
        tier: Slow,
        help: "1 if the next reset of the GPU repairs a memory channel.",
        absent: NO_REPAIR,
        ..gauge(Read(|p| p.channel_repair_pending()))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_TPC_REPAIR_PENDING",
        unit: "bool",
        symbol: REPAIR,
        tier: Slow,
        help: "1 if the next reset of the GPU repairs a TPC.",
        absent: NO_REPAIR,
        ..gauge(Read(|p| p.tpc_repair_pending()))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_CORRECTABLE_REMAPPED_ROWS_INACTIVE",
        unit: "rows",
        symbol: BATCH,
        tier: Slow,
        help: "Rows with a remapping because of correctable errors that is not in use.",
        absent: "before Ampere, and boards without ECC; drivers before 595",
        ..gauge(Field(Id::of(REMAPPED_COR_INACTIVE), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_UNCORRECTABLE_REMAPPED_ROWS_INACTIVE",
        unit: "rows",
        symbol: BATCH,
        tier: Slow,
        help: "Rows with a remapping because of uncorrectable errors that is not in use.",
        absent: "before Ampere, and boards without ECC; drivers before 595",
        ..gauge(Field(Id::of(REMAPPED_UNC_INACTIVE), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_BANK_REMAP_ACTIVE",
        unit: "banks",
        symbol: BATCH,
        tier: Slow,
        help: "Memory banks with a remapping that is in use.",
        absent: NO_BANK_REMAPPING,
        ..gauge(Field(Id::of(ACTIVE_BANK_REMAPPINGS), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_BANK_REMAP_INACTIVE",
        unit: "banks",
        symbol: BATCH,
        tier: Slow,
        help: "Memory banks with a remapping that is not in use.",
        absent: NO_BANK_REMAPPING,
        ..gauge(Field(Id::of(INACTIVE_BANK_REMAPPINGS), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_BANK_REMAP_GROUPS_MAX",
        unit: "groups",
        symbol: BATCH,
        tier: Slow,
        help: "Groups of memory banks with all spare banks left.",
        absent: NO_BANK_REMAPPING,
        ..gauge(Field(Id::of(BANK_REMAPPER_MAX), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_BANK_REMAP_GROUPS_NONE",
        unit: "groups",
        symbol: BATCH,
        tier: Slow,
        help: "Groups of memory banks with no spare bank left.",
        absent: NO_BANK_REMAPPING,
        ..gauge(Field(Id::of(BANK_REMAPPER_NONE), Ok))
    },
    Metric {
        name: "DCGM_CUSTOM_DEV_BANK_REMAP_PENDING",
        unit: "bool",
        symbol: BATCH,
        tier: Slow,
        help: "1 while remappings of memory banks are pending until the next reset.",
        absent: NO_BANK_REMAPPING,
        ..gauge(Field(Id::of(PENDING_BANK_REMAPPING), Ok))
    },
];

/// SRAM errors, by kind.
macro_rules! sram_errors {
    ($($end:literal $field:ident $errors:literal),*) => {
        &[$(Metric {
            name: concat!("DCGM_CUSTOM_DEV_SRAM_", $end),
            unit: "count",
            symbol: SRAM,
            tier: Slow,
            help: concat!($errors, "."),
            absent: NO_SRAM,
            ..counter(Read(|p| p.sram_errors(|errors| errors.$field)))
        }),*]
    };
}

pub(super) const SRAM_ERRORS: &[Metric<DeviceSource>] = sram_errors!(
    "CORRECTED_VOL" volatileCor "Corrected SRAM errors since the driver was loaded",
    "PARITY_VOL" volatileUncParity "Uncorrected SRAM parity errors since the driver was loaded",
    "SECDED_VOL" volatileUncSecDed "Uncorrected SRAM SEC-DED errors since the driver was loaded",
    "CORRECTED_AGG" aggregateCor "Corrected SRAM errors over the lifetime of the board",
    "PARITY_AGG" aggregateUncParity "Uncorrected SRAM parity errors over the lifetime of the board",
    "SECDED_AGG" aggregateUncSecDed "Uncorrected SRAM SEC-DED errors over the lifetime of the board",
    "L2_AGG" aggregateUncBucketL2 "Uncorrected SRAM errors in the L2 cache over the lifetime of the board",
    "SM_AGG" aggregateUncBucketSm "Uncorrected SRAM errors in SMs over the lifetime of the board",
    "PCIE_AGG" aggregateUncBucketPcie "Uncorrected SRAM errors in PCIe over the lifetime of the board",
    "MCU_AGG" aggregateUncBucketMcu "Uncorrected SRAM errors in microcontrollers over the lifetime of the board",
    "OTHER_AGG" aggregateUncBucketOther "Uncorrected SRAM errors elsewhere over the lifetime of the board"
);
