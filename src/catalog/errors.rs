//! Rows of memory errors: ECC errors, remapped rows and spare rows.

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use nvml_wrapper_sys::bindings::field_id;

use super::DeviceSource::{self, Field, Read};
use super::Kind::{Counter, Gauge};
use super::{Metric, each_cycle, slow};
use crate::nvml::raw::fields::Field as Id;

const BATCH: &str = "nvmlDeviceGetFieldValues";
const TOTAL: &str = "nvmlDeviceGetTotalEccErrors";
const HISTOGRAM: &str = "nvmlDeviceGetRowRemapperHistogram";
const NO_ECC: &str = "boards without ECC; while ECC is disabled";
const NO_REMAPPING: &str = "before Ampere, and boards without ECC";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    slow(
        "DCGM_FI_DEV_ECC_CURRENT",
        Gauge,
        "bool",
        "nvmlDeviceGetEccMode",
        Read(|p| p.ecc_mode()),
        "1 while ECC is enabled.",
        "boards without ECC",
    ),
    slow(
        "DCGM_FI_DEV_ECC_PENDING",
        Gauge,
        "bool",
        "nvmlDeviceGetEccMode",
        Read(|p| p.ecc_mode_pending()),
        "1 if ECC will be enabled after the next reboot.",
        "boards without ECC",
    ),
    slow(
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        Counter,
        "count",
        TOTAL,
        Read(|p| p.ecc_errors(MemoryError::Corrected, EccCounter::Volatile)),
        "Corrected ECC errors since the driver was loaded.",
        NO_ECC,
    ),
    slow(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        Counter,
        "count",
        TOTAL,
        Read(|p| p.ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)),
        "Uncorrected ECC errors since the driver was loaded.",
        NO_ECC,
    ),
    slow(
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",
        Counter,
        "count",
        TOTAL,
        Read(|p| p.ecc_errors(MemoryError::Corrected, EccCounter::Aggregate)),
        "Corrected ECC errors over the lifetime of the board.",
        NO_ECC,
    ),
    slow(
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
        Counter,
        "count",
        TOTAL,
        Read(|p| p.ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate)),
        "Uncorrected ECC errors over the lifetime of the board.",
        NO_ECC,
    ),
    slow(
        "DCGM_FI_DEV_THRESHOLD_SRM",
        Gauge,
        "bool",
        "nvmlDeviceGetSramEccErrorStatus",
        Read(|p| p.sram_threshold_exceeded()),
        "1 if the SRAM errors exceed the threshold at which the board should be replaced.",
        "before Ampere; drivers before 550",
    ),
    each_cycle(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        Counter,
        "rows",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_UNC), Ok),
        "Rows remapped because of uncorrectable errors.",
        NO_REMAPPING,
    ),
    each_cycle(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        Counter,
        "rows",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_COR), Ok),
        "Rows remapped because of correctable errors.",
        NO_REMAPPING,
    ),
    each_cycle(
        "DCGM_FI_DEV_ROW_REMAP_PENDING",
        Gauge,
        "bool",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_PENDING), Ok),
        "1 while row remappings are pending until the next reset.",
        NO_REMAPPING,
    ),
    each_cycle(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        Gauge,
        "bool",
        BATCH,
        Field(Id::of(field_id::NVML_FI_DEV_REMAPPED_FAILURE), Ok),
        "1 if a row remapping failed.",
        NO_REMAPPING,
    ),
    slow(
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX",
        Gauge,
        "banks",
        HISTOGRAM,
        Read(|p| p.spare_rows(|rows| rows.max)),
        "Memory banks with all spare rows left.",
        NO_REMAPPING,
    ),
    slow(
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_HIGH",
        Gauge,
        "banks",
        HISTOGRAM,
        Read(|p| p.spare_rows(|rows| rows.high)),
        "Memory banks with many spare rows left.",
        NO_REMAPPING,
    ),
    slow(
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_PARTIAL",
        Gauge,
        "banks",
        HISTOGRAM,
        Read(|p| p.spare_rows(|rows| rows.partial)),
        "Memory banks with some spare rows left.",
        NO_REMAPPING,
    ),
    slow(
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW",
        Gauge,
        "banks",
        HISTOGRAM,
        Read(|p| p.spare_rows(|rows| rows.low)),
        "Memory banks with few spare rows left.",
        NO_REMAPPING,
    ),
    slow(
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE",
        Gauge,
        "banks",
        HISTOGRAM,
        Read(|p| p.spare_rows(|rows| rows.none)),
        "Memory banks with no spare row left.",
        NO_REMAPPING,
    ),
];

/// Errors of one kind over one period, by location.
macro_rules! by_location {
    ($name:literal, $kind:ident, $counter:ident, $errors:literal, $period:literal, $($end:literal $location:ident $memory:literal),*) => {
        &[$(slow(
            concat!("DCGM_FI_DEV_ECC_", $name, "_", $end),
            Counter,
            "count",
            "nvmlDeviceGetMemoryErrorCounter",
            Read(|p| p.ecc_errors_by_location(MemoryError::$kind, EccCounter::$counter, MemoryLocation::$location)),
            concat!($errors, " in ", $memory, " ", $period, "."),
            "boards without ECC, or without a counter for this memory",
        )),*]
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
