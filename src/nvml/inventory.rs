//! What a session finds: the driver's versions, and which GPUs there are.

use nvml_wrapper::error::NvmlError;

use super::Session;
use super::raw::Handle;
use crate::model::{Gpu, Missing};

/// Versions of what was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// `nvmlSystemGetDriverVersion`; empty where it fails.
    pub version: String,
    /// `nvmlSystemGetNVMLVersion`; empty where it fails.
    pub nvml_version: String,
    /// Path of the library.
    pub library: String,
}

impl Session {
    /// Versions of the driver and the library.
    #[must_use]
    pub fn driver(&self) -> Driver {
        Driver {
            version: self.nvml().sys_driver_version().unwrap_or_default(),
            nvml_version: self.nvml().sys_nvml_version().unwrap_or_default(),
            library: self.library.clone(),
        }
    }

    /// GPUs that the driver counts, lost ones included (`nvmlDeviceGetCount_v2`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn gpu_count(&self) -> Result<u32, Missing> {
        Ok(self.nvml().device_count()?)
    }

    /// Who the GPU at `index` is, and a handle to it.
    ///
    /// # Errors
    /// A GPU whose UUID, name or bus id cannot be read has no identity, and nothing is invented.
    pub fn identify(&self, index: u32) -> Result<(Gpu, Handle), Missing> {
        let device = self.nvml().device_by_index(index)?;
        let gpu = Gpu {
            index,
            minor: optional(device.minor_number())?,
            uuid: device.uuid()?.into(),
            name: device.name()?.into(),
            pci_bus_id: device.pci_info()?.bus_id.into(),
        };
        Ok((gpu, Handle::of(&device)))
    }

    /// A new handle to a known GPU, for one that was lost and may be back.
    ///
    /// # Errors
    /// What the driver answered.
    pub fn handle(&self, gpu: &Gpu) -> Result<Handle, Missing> {
        let device = self.nvml().device_by_uuid(&*gpu.uuid)?;
        Ok(Handle::of(&device))
    }
}

fn optional<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, Missing> {
    match answer.map_err(Missing::from) {
        Ok(value) => Ok(Some(value)),
        Err(Missing::Unsupported) => Ok(None),
        Err(missing) => Err(missing),
    }
}
