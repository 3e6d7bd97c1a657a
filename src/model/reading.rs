//! Readings: a value, or why it is missing.

use std::fmt;

use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_DEPRECATED as DEPRECATED,
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED as DRIVER_NOT_LOADED,
    nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND as FUNCTION_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND as GPU_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH as LIB_RM_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_NO_PERMISSION as NO_PERMISSION,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED as RESET_REQUIRED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN,
};

/// Why a reading has no value. Absent is not zero: only `Ok` becomes a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Not supported by the GPU, the driver or the library (`NOT_SUPPORTED`, or the symbol is
    /// missing).
    Unsupported,
    /// Permission denied (`NO_PERMISSION`).
    Denied,
    /// The GPU fell off the bus or needs a reset (`GPU_IS_LOST`, `RESET_REQUIRED`).
    Lost,
    /// The driver was unloaded or replaced during the session (`UNINITIALIZED`,
    /// `DRIVER_NOT_LOADED`, `LIB_RM_VERSION_MISMATCH`).
    DriverGone,
    /// The call has not returned and the last reading is older than the maximum age.
    Hung,
    /// The driver limits the memory of the exporter's cgroup, so that it reports that limit in place of
    /// the GPU's memory; or it is unknown whether it does.
    Limited,
    /// Not available yet: the first window of a mean has not ended.
    Pending,
    /// The driver returned an impossible value (a sentinel, a percentage above 100).
    Invalid,
    /// Any other `nvmlReturn_t`.
    Failed(u32),
}

impl Missing {
    /// Every value of [`Missing::reason`], in the order of [`Missing::position`].
    pub const REASONS: [&'static str; 9] = [
        "unsupported",
        "denied",
        "lost",
        "driver_gone",
        "hung",
        "pending",
        "invalid",
        "failed",
        "limited",
    ];

    /// Maps an `nvmlReturn_t` other than `NVML_SUCCESS`.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            NOT_SUPPORTED | FUNCTION_NOT_FOUND | DEPRECATED => Self::Unsupported,
            NO_PERMISSION => Self::Denied,
            GPU_IS_LOST | RESET_REQUIRED | GPU_NOT_FOUND => Self::Lost,
            UNINITIALIZED | DRIVER_NOT_LOADED | LIB_RM_VERSION_MISMATCH => Self::DriverGone,
            other => Self::Failed(other),
        }
    }

    /// Value of the `reason` label, one of [`Missing::REASONS`].
    #[must_use]
    pub fn reason(self) -> &'static str {
        Self::REASONS.get(self.position()).copied().unwrap_or_default()
    }

    /// Index in [`Missing::REASONS`].
    #[must_use]
    pub fn position(self) -> usize {
        match self {
            Self::Unsupported => 0,
            Self::Denied => 1,
            Self::Lost => 2,
            Self::DriverGone => 3,
            Self::Hung => 4,
            Self::Pending => 5,
            Self::Invalid => 6,
            Self::Failed(_) => 7,
            Self::Limited => 8,
        }
    }
}

/// Names of `nvmlReturn_t` from 1 on, without `NVML_ERROR_`.
const CODE_NAMES: [&str; 30] = [
    "UNINITIALIZED",
    "INVALID_ARGUMENT",
    "NOT_SUPPORTED",
    "NO_PERMISSION",
    "ALREADY_INITIALIZED",
    "NOT_FOUND",
    "INSUFFICIENT_SIZE",
    "INSUFFICIENT_POWER",
    "DRIVER_NOT_LOADED",
    "TIMEOUT",
    "IRQ_ISSUE",
    "LIBRARY_NOT_FOUND",
    "FUNCTION_NOT_FOUND",
    "CORRUPTED_INFOROM",
    "GPU_IS_LOST",
    "RESET_REQUIRED",
    "OPERATING_SYSTEM",
    "LIB_RM_VERSION_MISMATCH",
    "IN_USE",
    "MEMORY",
    "NO_DATA",
    "VGPU_ECC_NOT_SUPPORTED",
    "INSUFFICIENT_RESOURCES",
    "FREQ_NOT_SUPPORTED",
    "ARGUMENT_VERSION_MISMATCH",
    "DEPRECATED",
    "NOT_READY",
    "GPU_NOT_FOUND",
    "INVALID_STATE",
    "RESET_TYPE_NOT_SUPPORTED",
];

/// Name of an `nvmlReturn_t` without `NVML_ERROR_`; `None` if it is not known.
fn code_name(code: u32) -> Option<&'static str> {
    if code == UNKNOWN {
        return Some("UNKNOWN");
    }
    CODE_NAMES.get(usize::try_from(code.checked_sub(1)?).ok()?).copied()
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(code) => match code_name(*code) {
                Some(name) => write!(f, "failed (NVML_ERROR_{name})"),
                None => write!(f, "failed (nvmlReturn_t {code})"),
            },
            Self::Unsupported
            | Self::Denied
            | Self::Lost
            | Self::DriverGone
            | Self::Hung
            | Self::Pending
            | Self::Invalid
            | Self::Limited => f.write_str(self.reason()),
        }
    }
}

/// A value in the exported unit, or why it is missing.
pub type Reading = Result<f64, Missing>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_variant_has_its_own_reason() {
        let all = [
            Missing::Unsupported,
            Missing::Denied,
            Missing::Lost,
            Missing::DriverGone,
            Missing::Hung,
            Missing::Pending,
            Missing::Invalid,
            Missing::Failed(999),
            Missing::Limited,
        ];
        assert_eq!(all.map(Missing::reason), Missing::REASONS);
    }

    #[test]
    fn error_codes_have_names() {
        let text = |code| Missing::Failed(code).to_string();
        assert_eq!(text(DEPRECATED), "failed (NVML_ERROR_DEPRECATED)");
        assert_eq!(text(27), "failed (NVML_ERROR_NOT_READY)");
        assert_eq!(text(UNKNOWN), "failed (NVML_ERROR_UNKNOWN)");
        assert_eq!(text(31), "failed (nvmlReturn_t 31)");
        assert_eq!(code_name(GPU_IS_LOST), Some("GPU_IS_LOST"));
    }
}
