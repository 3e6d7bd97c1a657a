//! `nvmlReturn_t`: codes, names and error strings.

use std::ffi::CStr;

/// An `nvmlReturn_t` other than `NVML_SUCCESS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReturnCode(pub(crate) u32);

/// The result of an NVML call.
pub(crate) type NvmlResult<T> = Result<T, ReturnCode>;

impl ReturnCode {
    pub(crate) const UNINITIALIZED: Self = Self(1);
    pub(crate) const INVALID_ARGUMENT: Self = Self(2);
    pub(crate) const NOT_SUPPORTED: Self = Self(3);
    pub(crate) const NOT_FOUND: Self = Self(6);
    pub(crate) const OPERATING_SYSTEM: Self = Self(17);
    pub(crate) const INSUFFICIENT_SIZE: Self = Self(7);
    pub(crate) const MEMORY: Self = Self(20);
    pub(crate) const DRIVER_NOT_LOADED: Self = Self(9);
    pub(crate) const TIMEOUT: Self = Self(10);
    pub(crate) const FUNCTION_NOT_FOUND: Self = Self(13);
    pub(crate) const GPU_IS_LOST: Self = Self(15);
    pub(crate) const ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    pub(crate) const DEPRECATED: Self = Self(26);
    pub(crate) const UNKNOWN: Self = Self(999);

    /// The code of a scenario's `code` key: NVML's constant without `NVML_ERROR_`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| Self(row.0))
    }

    /// The name in a scenario.
    pub(crate) fn name(self) -> Option<&'static str> {
        TABLE.iter().find(|row| row.0 == self.0).map(|row| row.1)
    }

    /// The names that a scenario may inject: all but `SUCCESS`.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().skip(1).map(|row| row.1)
    }
}

/// The string of `nvmlErrorString`.
pub(crate) fn error_string(code: u32) -> &'static CStr {
    TABLE.iter().find(|row| row.0 == code).map_or(c"Unknown Error", |row| row.2)
}

const TABLE: &[(u32, &str, &CStr)] = &[
    (0, "SUCCESS", c"Success"),
    (1, "UNINITIALIZED", c"Uninitialized"),
    (2, "INVALID_ARGUMENT", c"Invalid Argument"),
    (3, "NOT_SUPPORTED", c"Not Supported"),
    (4, "NO_PERMISSION", c"Insufficient Permissions"),
    (5, "ALREADY_INITIALIZED", c"Already Initialized"),
    (6, "NOT_FOUND", c"Not Found"),
    (7, "INSUFFICIENT_SIZE", c"Insufficient Size"),
    (8, "INSUFFICIENT_POWER", c"Insufficient External Power"),
    (9, "DRIVER_NOT_LOADED", c"Driver Not Loaded"),
    (10, "TIMEOUT", c"Timeout"),
    (11, "IRQ_ISSUE", c"Interrupt Request Issue"),
    (12, "LIBRARY_NOT_FOUND", c"NVML Shared Library Not Found"),
    (13, "FUNCTION_NOT_FOUND", c"Function Not Found"),
    (14, "CORRUPTED_INFOROM", c"Corrupted infoROM"),
    (15, "GPU_IS_LOST", c"GPU is lost"),
    (16, "RESET_REQUIRED", c"GPU requires reset"),
    (17, "OPERATING_SYSTEM", c"GPU access blocked by the operating system"),
    (18, "LIB_RM_VERSION_MISMATCH", c"Driver/library version mismatch"),
    (19, "IN_USE", c"In use by another client"),
    (20, "MEMORY", c"Insufficient Memory"),
    (21, "NO_DATA", c"No data"),
    (22, "VGPU_ECC_NOT_SUPPORTED", c"vGPU operation not supported with ECC enabled"),
    (23, "INSUFFICIENT_RESOURCES", c"Insufficient Resources"),
    (24, "FREQ_NOT_SUPPORTED", c"Frequency Not Supported"),
    (25, "ARGUMENT_VERSION_MISMATCH", c"Argument Version Mismatch"),
    (26, "DEPRECATED", c"Deprecated Function"),
    (27, "NOT_READY", c"Not Ready"),
    (28, "GPU_NOT_FOUND", c"GPU Not Found"),
    (29, "INVALID_STATE", c"Invalid State"),
    (30, "RESET_TYPE_NOT_SUPPORTED", c"Reset Type Not Supported"),
    (999, "UNKNOWN", c"Unknown Error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_and_a_string() {
        for code in (0..=30).chain([999]) {
            assert!(TABLE.iter().any(|row| row.0 == code), "no row for {code}");
        }
        assert_eq!(ReturnCode::from_name("GPU_IS_LOST"), Some(ReturnCode::GPU_IS_LOST));
        assert_eq!(ReturnCode::from_name("NVML_ERROR_GPU_IS_LOST"), None);
        assert_eq!(error_string(31), c"Unknown Error");
        assert!(!ReturnCode::names().any(|name| name == "SUCCESS"));
    }
}
