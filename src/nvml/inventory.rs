//! Driver versions, GPUs and MIG devices of a session.

use std::sync::Arc;

use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND;

use super::Session;
use super::raw::texts::{self, DeviceText};
use super::raw::{Handle, instances};
use crate::model::{Gpu, MigDevice, Missing};
use crate::policy::GPUS_MAX;

/// Upper bound of MIG devices per GPU; protects against an invalid count of the driver.
const MIG_SLOTS: u32 = 64;
/// Largest minor number of a device (`MINORMASK`).
const MINOR_MAX: u32 = (1 << 20) - 1;
/// Largest id of a GPU instance or a compute instance.
const ID_MAX: u32 = MIG_SLOTS;

/// Versions of driver and library, and the path of the library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInfo {
    /// `nvmlSystemGetDriverVersion`; empty where it fails.
    pub version: String,
    /// `nvmlSystemGetNVMLVersion`; empty where it fails.
    pub nvml_version: String,
    /// `nvmlSystemGetCudaDriverVersion_v2`, as `12.4`; empty where it fails.
    pub cuda_version: String,
    /// Path of the library.
    pub library: String,
}

impl Session {
    /// Reads the versions of driver and library.
    #[must_use]
    pub fn driver_info(&self) -> DriverInfo {
        DriverInfo {
            version: texts::driver_version(self.nvml()).unwrap_or_default(),
            nvml_version: texts::nvml_version(self.nvml()).unwrap_or_default(),
            cuda_version: self
                .nvml()
                .sys_cuda_driver_version()
                .map(format_cuda_version)
                .unwrap_or_default(),
            library: self.library.clone(),
        }
    }

    /// Number of GPUs, lost ones included (`nvmlDeviceGetCount_v2`).
    ///
    /// # Errors
    /// Returns the NVML error, or [`Missing::Invalid`] above [`GPUS_MAX`], since each GPU gets a
    /// thread.
    pub fn gpu_count(&self) -> Result<u32, Missing> {
        at_most(GPUS_MAX, self.nvml().device_count()?)
    }

    /// Identity and handle of the GPU at `index`.
    ///
    /// # Errors
    /// Returns the NVML error if UUID or name cannot be read: there is no fallback identity. Minor
    /// number and PCI bus id may be unsupported: the GPU of a Jetson is not on a PCI bus.
    pub fn identify(&self, index: u32) -> Result<(Gpu, Handle), Missing> {
        let nvml = self.nvml();
        let device = nvml.device_by_index(index)?;
        let handle = Handle::of(&device);
        let gpu = Gpu {
            index,
            minor: unsupported_as_none(device.minor_number())?
                .map(|n| at_most(MINOR_MAX, n))
                .transpose()?,
            uuid: texts::device_text(nvml, handle, DeviceText::Uuid)?.into(),
            name: texts::device_text(nvml, handle, DeviceText::Name)?.into(),
            pci_bus_id: unsupported_as_none(texts::pci_bus_id(nvml, handle))?
                .map_or_else(Arc::default, Into::into),
        };
        Ok((gpu, handle))
    }

    /// Whether MIG is enabled (`nvmlDeviceGetMigMode`, current mode).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the GPU has no MIG.
    pub fn mig_mode(&self, gpu: Handle) -> Result<bool, Missing> {
        Ok(gpu.device(self.nvml()).mig_mode()?.current != 0)
    }

    /// The MIG devices of a GPU with MIG enabled, and whether the list is complete. Slots are
    /// sparse, and an unreadable one does not hide the others. `known` returns the cached device of
    /// a UUID, so that the properties of each MIG device are read once.
    ///
    /// # Errors
    /// The second element is the last NVML error if some devices could not be read.
    pub fn mig_devices(
        &self,
        gpu: Handle,
        known: impl Fn(&str, Handle) -> Option<MigDevice>,
    ) -> (Vec<(MigDevice, Handle)>, Result<(), Missing>) {
        let slots = match gpu.device(self.nvml()).mig_device_count() {
            Ok(slots) => slots.min(MIG_SLOTS),
            Err(error) => return (Vec::new(), Err(error.into())),
        };
        let (mut found, mut complete) = (Vec::new(), Ok(()));
        for slot in 0..slots {
            match self.mig_device(gpu, slot, &known) {
                Ok(device) => found.push(device),
                // A MIG slot without a device.
                Err(Missing::Failed(NOT_FOUND)) => {}
                Err(missing) => complete = Err(missing),
            }
        }
        mark_shared(&mut found);
        (found, complete)
    }

    fn mig_device(
        &self,
        gpu: Handle,
        slot: u32,
        known: impl Fn(&str, Handle) -> Option<MigDevice>,
    ) -> Result<(MigDevice, Handle), Missing> {
        let gpu = gpu.device(self.nvml());
        let device = gpu.mig_device_by_index(slot)?;
        let handle = Handle::of(&device);
        let text = |text| texts::device_text(self.nvml(), handle, text);
        let uuid = text(DeviceText::Uuid)?;
        if let Some(mig) = known(&uuid, handle) {
            return Ok((MigDevice { index: slot, ..mig }, handle));
        }
        let gpu_instance = at_most(ID_MAX, instances::gpu_instance_id(self.nvml(), handle)?)?;
        let mig = MigDevice {
            uuid: uuid.into(),
            profile: profile(&text(DeviceText::Name)?).into(),
            index: slot,
            gpu_instance,
            compute_instance: at_most(
                ID_MAX,
                instances::compute_instance_id(self.nvml(), handle)?,
            )?,
            multiprocessors: unsupported_as_none(
                device.attributes().map(|a| a.multiprocessor_count),
            )?,
            shares_instance: false,
            // Only claims of MIG devices without a UUID need it, and reading it needs root.
            placement: instances::placement(self.nvml(), Handle::of(&gpu), gpu_instance).ok(),
        };
        Ok((mig, handle))
    }

    /// A new handle of a known GPU (`nvmlDeviceGetHandleByUUID`), for one that was lost or reset.
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn handle(&self, gpu: &Gpu) -> Result<Handle, Missing> {
        let device = self.nvml().device_by_uuid(&*gpu.uuid)?;
        Ok(Handle::of(&device))
    }
}

/// Rejects numbers above `most`: drivers set all bits for an unknown value.
fn at_most(most: u32, number: u32) -> Result<u32, Missing> {
    if number <= most { Ok(number) } else { Err(Missing::Invalid) }
}

/// Formats a CUDA version; NVML encodes it as 1000 × major + 10 × minor.
fn format_cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn unsupported_as_none<T>(result: Result<T, impl Into<Missing>>) -> Result<Option<T>, Missing> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(Missing::Unsupported) => Ok(None),
        Err(missing) => Err(missing),
    }
}

/// Parses the GPU instance profile from the name of a MIG device: `1g.10gb` of `NVIDIA H100 80GB
/// HBM3 MIG 1g.10gb`, and `3g.40gb` of `… MIG 1c.3g.40gb` (a compute instance of one slice).
fn profile(name: &str) -> &str {
    let profile = name.rsplit_once("MIG ").map_or("", |(_, profile)| profile);
    match profile.split_once('.') {
        Some((compute, instance)) if compute.ends_with('c') => instance,
        _ => profile,
    }
}

fn mark_shared(found: &mut [(MigDevice, Handle)]) {
    let instances: Vec<u32> = found.iter().map(|(mig, _)| mig.gpu_instance).collect();
    for (mig, _) in found {
        mig.shares_instance = instances.iter().filter(|gi| **gi == mig.gpu_instance).count() > 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_version_is_formatted() {
        assert_eq!([12_040, 11_080, 13_000].map(format_cuda_version), ["12.4", "11.8", "13.0"]);
    }

    #[test]
    fn profile_is_parsed_from_device_name() {
        assert_eq!(profile("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), "1g.5gb");
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb"), "3g.40gb");
        assert_eq!(profile("NVIDIA H100 80GB HBM3"), "");
    }
}
