//! MIG mode of a GPU.

use crate::model::Missing;
use crate::nvml::Session;
use crate::nvml::raw::Handle;

/// MIG mode of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MigMode {
    Unknown,
    Unsupported,
    Off,
    On,
}

impl MigMode {
    /// The current mode. It is not read again where it is unsupported.
    ///
    /// # Errors
    /// Returns the NVML error.
    pub(super) fn read(self, session: &Session, gpu: Handle) -> Result<Self, Missing> {
        if self == Self::Unsupported {
            return Ok(self);
        }
        match session.mig_mode(gpu) {
            Ok(true) => Ok(Self::On),
            Ok(false) => Ok(Self::Off),
            Err(Missing::Unsupported) => Ok(Self::Unsupported),
            Err(missing) => Err(missing),
        }
    }

    /// Whether the GPU was in another mode before this one.
    pub(super) fn differs_from(self, before: Self) -> bool {
        self != before && before != Self::Unknown
    }
}
