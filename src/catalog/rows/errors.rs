//! Rows of memory errors: ECC errors, remapped rows and spare rows.

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use nvml_wrapper_sys::bindings::field_id;

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Read};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::Slow;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const TOTAL: &str = "nvmlDeviceGetTotalEccErrors";
const HISTOGRAM: &str = "nvmlDeviceGetRowRemapperHistogram";
const NO_ECC: &str = "boards without ECC; while ECC is disabled";
const NO_REMAPPING: &str = "before Ampere, and boards without ECC";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_ECC_CURRENT",
        unit: "bool",
        symbol: "nvmlDeviceGetEccMode",
        tier: Slow,
        help: "1 while ECC is enabled.",
        absent: "boards without ECC",
        ..gauge(Read(|p| p.ecc_mode()))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_PENDING",
        unit: "bool",
        symbol: "nvmlDeviceGetEccMode",
        tier: Slow,
        help: "1 if ECC will be enabled after the next reboot.",
        absent: "boards without ECC",
        ..gauge(Read(|p| p.ecc_mode_pending()))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        unit: "count",
        symbol: TOTAL,
        tier: Slow,
        help: "Corrected ECC errors since the driver was loaded.",
        absent: NO_ECC,
        ..counter(Read(|p| p.ecc_errors(MemoryError::Corrected, EccCounter::Volatile)))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        unit: "count",
        symbol: TOTAL,
        tier: Slow,
        help: "Uncorrected ECC errors since the driver was loaded.",
        absent: NO_ECC,
        ..counter(Read(|p| p.ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",
        unit: "count",
        symbol: TOTAL,
        tier: Slow,
        help: "Corrected ECC errors over the lifetime of the board.",
        absent: NO_ECC,
        ..counter(Read(|p| p.ecc_errors(MemoryError::Corrected, EccCounter::Aggregate)))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
        unit: "count",
        symbol: TOTAL,
        tier: Slow,
        help: "Uncorrected ECC errors over the lifetime of the board.",
        absent: NO_ECC,
        ..counter(Read(|p| p.ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate)))
    },
    Metric {
        name: "DCGM_FI_DEV_THRESHOLD_SRM",
        unit: "bool",
        symbol: "nvmlDeviceGetSramEccErrorStatus",
        tier: Slow,
        help: "1 if the SRAM errors exceed the threshold at which the board should be replaced.",
        absent: "before Ampere; drivers before 550",
        ..gauge(Read(|p| p.sram_threshold_exceeded()))
    },
    Metric {
        name: "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        unit: "rows",
        symbol: BATCH,
        help: "Rows remapped because of uncorrectable errors.",
        absent: NO_REMAPPING,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_UNC), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        unit: "rows",
        symbol: BATCH,
        help: "Rows remapped because of correctable errors.",
        absent: NO_REMAPPING,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_COR), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_ROW_REMAP_PENDING",
        unit: "bool",
        symbol: BATCH,
        help: "1 while row remappings are pending until the next reset.",
        absent: NO_REMAPPING,
        ..gauge(Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_PENDING), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        unit: "bool",
        symbol: BATCH,
        help: "1 if a row remapping failed.",
        absent: NO_REMAPPING,
        ..gauge(Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_FAILURE), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX",
        unit: "banks",
        symbol: HISTOGRAM,
        tier: Slow,
        help: "Memory banks with all spare rows left.",
        absent: NO_REMAPPING,
        ..gauge(Read(|p| p.spare_rows(|rows| rows.max)))
    },
    Metric {
        name: "DCGM_FI_DEV_BANK_REMAP_AVAIL_HIGH",
        unit: "banks",
        symbol: HISTOGRAM,
        tier: Slow,
        help: "Memory banks with many spare rows left.",
        absent: NO_REMAPPING,
        ..gauge(Read(|p| p.spare_rows(|rows| rows.high)))
    },
    Metric {
        name: "DCGM_FI_DEV_BANK_REMAP_AVAIL_PARTIAL",
        unit: "banks",
        symbol: HISTOGRAM,
        tier: Slow,
        help: "Memory banks with some spare rows left.",
        absent: NO_REMAPPING,
        ..gauge(Read(|p| p.spare_rows(|rows| rows.partial)))
    },
    Metric {
        name: "DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW",
        unit: "banks",
        symbol: HISTOGRAM,
        tier: Slow,
        help: "Memory banks with few spare rows left.",
        absent: NO_REMAPPING,
        ..gauge(Read(|p| p.spare_rows(|rows| rows.low)))
    },
    Metric {
        name: "DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE",
        unit: "banks",
        symbol: HISTOGRAM,
        tier: Slow,
        help: "Memory banks with no spare row left.",
        absent: NO_REMAPPING,
        ..gauge(Read(|p| p.spare_rows(|rows| rows.none)))
    },
];

/// Errors of one kind over one period, by location.
macro_rules! by_location {
    ($name:literal, $kind:ident, $counter:ident, $errors:literal, $period:literal, $($end:literal $location:ident $memory:literal),*) => {
        &[$(Metric {
            name: concat!("DCGM_FI_DEV_ECC_", $name, "_", $end),
            unit: "count",
            symbol: "nvmlDeviceGetMemoryErrorCounter",
            tier: Slow,
            help: concat!($errors, " in ", $memory, " ", $period, "."),
            absent: "boards without ECC, or without a counter for this memory",
            ..counter(Read(|p| p.ecc_errors_by_location(MemoryError::$kind, EccCounter::$counter, MemoryLocation::$location)))
        }),*]
    };
    ($name:literal, $kind:ident, $counter:ident, $errors:literal, $period:literal) => {
        by_location!($name, $kind, $counter, $errors, $period,
            "L1" L1Cache "the L1 cache",
            "L2" L2Cache "the L2 cache",
            "DEV" Device "the device memory",
            "REG" RegisterFile "the register file",
            "TEX" Texture "texture memory",
            "SHM" Shared "shared memory",
            "CBU" Cbu "the CBU",
            "SRM" SRAM "SRAM")
    };
}

pub(super) const CORRECTED_VOLATILE: &[Metric<DeviceSource>] = by_location!(
    "SBE_VOL",
    Corrected,
    Volatile,
    "Corrected ECC errors",
    "since the driver was loaded"
);
pub(super) const CORRECTED_AGGREGATE: &[Metric<DeviceSource>] = by_location!(
    "SBE_AGG",
    Corrected,
    Aggregate,
    "Corrected ECC errors",
    "over the lifetime of the board"
);
pub(super) const UNCORRECTED_VOLATILE: &[Metric<DeviceSource>] = by_location!(
    "DBE_VOL",
    Uncorrected,
    Volatile,
    "Uncorrected ECC errors",
    "since the driver was loaded"
);
pub(super) const UNCORRECTED_AGGREGATE: &[Metric<DeviceSource>] = by_location!(
    "DBE_AGG",
    Uncorrected,
    Aggregate,
    "Uncorrected ECC errors",
    "over the lifetime of the board"
);
