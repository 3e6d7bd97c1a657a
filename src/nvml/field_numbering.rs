//! Numbers of `NVML_FI_*` fields: NVIDIA changed those from 251 on twice.

/// Which numbers a driver uses. Rows have those of the header of CUDA 13.0 Update 1 and later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldNumbering {
    /// Before CUDA 12.8: nothing after the recovery action.
    Older,
    /// CUDA 12.8: no C2C errors, and nothing after power smoothing.
    Cuda12_8,
    /// CUDA 12.9 and 13.0, driver 575 to 580.65: clock event times before power smoothing.
    Cuda12_9,
    /// Driver 580.82 and later.
    #[default]
    Current,
}

impl FieldNumbering {
    /// The numbering of a driver version such as `580.95.05`; the current one if it is unknown.
    #[must_use]
    pub fn of(driver_version: &str) -> Self {
        let mut numbers = driver_version.split('.').map(str::parse::<u32>);
        let branch = numbers.next().and_then(Result::ok);
        let release = numbers.next().and_then(Result::ok).unwrap_or(u32::MAX);
        match branch {
            Some(..=569) => Self::Older,
            Some(570..=574) => Self::Cuda12_8,
            Some(575..=579) => Self::Cuda12_9,
            Some(580) if release < 82 => Self::Cuda12_9,
            Some(_) | None => Self::Current,
        }
    }

    /// The number that the driver uses for a field; `None` if it does not have the field.
    #[must_use]
    pub fn number(self, field: u32) -> Option<u32> {
        match (self, field) {
            (Self::Current, _)
            | (Self::Older | Self::Cuda12_8 | Self::Cuda12_9, ..=230)
            | (Self::Cuda12_8, 235..=268)
            | (Self::Cuda12_9, 231..=250) => Some(field),
            (Self::Cuda12_9, 251..=268) => Some(field + 5),
            (Self::Cuda12_9, 269..=273) => Some(field - 18),
            (Self::Older | Self::Cuda12_8 | Self::Cuda12_9, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbering_follows_the_driver_version() {
        for (version, expected) in [
            ("470.256.02", FieldNumbering::Older),
            ("570.148.08", FieldNumbering::Cuda12_8),
            ("575.57.08", FieldNumbering::Cuda12_9),
            ("580.65.06", FieldNumbering::Cuda12_9),
            ("580.82.07", FieldNumbering::Current),
            ("615.20", FieldNumbering::Current),
            ("", FieldNumbering::Current),
        ] {
            assert_eq!(FieldNumbering::of(version), expected, "{version}");
        }
    }

    /// The numbers are those of the headers of CUDA 12.8, 12.9 and 13.0 Update 1.
    #[test]
    fn fields_are_renumbered_as_in_the_headers() {
        let (smoothing, thermal, c2c) = (251, 269, 231);
        let all =
            |numbering: FieldNumbering| [smoothing, thermal, c2c].map(|f| numbering.number(f));
        assert_eq!(all(FieldNumbering::Older), [None; 3]);
        assert_eq!(all(FieldNumbering::Cuda12_8), [Some(251), None, None]);
        assert_eq!(all(FieldNumbering::Cuda12_9), [Some(256), Some(251), Some(231)]);
        assert_eq!(all(FieldNumbering::Current), [Some(251), Some(269), Some(231)]);
        assert_eq!(FieldNumbering::Cuda12_9.number(297), None);
    }
}
