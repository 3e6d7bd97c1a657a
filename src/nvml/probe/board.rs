//! The board: limits, modes, links to its host, licences.

use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode, GpuVirtualizationMode, TemperatureThreshold,
};

use super::{Probe, celsius};
use crate::model::{Missing, Reading};
use crate::nvml::raw::{self, health::Fabric};

/// No fan turns faster, in percent of its nominal speed.
const FAN_MAX: u32 = 255;

impl Probe<'_> {
    /// The highest clock of a kind, MHz (`nvmlDeviceGetMaxClockInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn max_clock(&self, clock: Clock) -> Reading {
        Ok(f64::from(self.device.max_clock_info(clock)?))
    }

    /// A temperature at which something happens, °C (`nvmlDeviceGetTemperatureThreshold`).
    ///
    /// # Errors
    /// What the driver answered; the board has no such threshold.
    pub fn temperature_threshold(&self, threshold: TemperatureThreshold) -> Reading {
        celsius(f64::from(self.device.temperature_threshold(threshold)?))
    }

    /// The power limit that was asked for, W (`nvmlDeviceGetPowerManagementLimit`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn power_limit(&self) -> Reading {
        Ok(watts(self.device.power_management_limit()?))
    }

    /// The lowest power limit that can be asked for, W
    /// (`nvmlDeviceGetPowerManagementLimitConstraints`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn power_limit_min(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_constraints()?.min_limit))
    }

    /// The highest power limit that can be asked for, W.
    ///
    /// # Errors
    /// As [`Probe::power_limit_min`].
    pub fn power_limit_max(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_constraints()?.max_limit))
    }

    /// The power limit that the board starts with, W (`nvmlDeviceGetPowerManagementDefaultLimit`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn power_limit_default(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_default()?))
    }

    /// The lowest of all power limits in force, W (`nvmlDeviceGetEnforcedPowerLimit`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn power_limit_enforced(&self) -> Reading {
        Ok(watts(self.device.enforced_power_limit()?))
    }

    /// Fan speed, percent of the nominal one (`nvmlDeviceGetFanSpeed_v2`); may be above 100.
    ///
    /// # Errors
    /// What the driver answered; boards that are cooled by their server have no fan.
    pub fn fan_speed(&self) -> Reading {
        let speed = self.device.fan_speed(0)?;
        if speed <= FAN_MAX { Ok(f64::from(speed)) } else { Err(Missing::Invalid) }
    }

    /// Generation of the PCIe link as it runs (`nvmlDeviceGetCurrPcieLinkGeneration`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn pcie_generation(&self) -> Reading {
        Ok(f64::from(self.device.current_pcie_link_gen()?))
    }

    /// Lanes of the PCIe link as it runs (`nvmlDeviceGetCurrPcieLinkWidth`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn pcie_width(&self) -> Reading {
        Ok(f64::from(self.device.current_pcie_link_width()?))
    }

    /// The highest PCIe generation in this system (`nvmlDeviceGetMaxPcieLinkGeneration`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn pcie_generation_max(&self) -> Reading {
        Ok(f64::from(self.device.max_pcie_link_gen()?))
    }

    /// The most PCIe lanes in this system (`nvmlDeviceGetMaxPcieLinkWidth`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn pcie_width_max(&self) -> Reading {
        Ok(f64::from(self.device.max_pcie_link_width()?))
    }

    /// Who may use the GPU: 0 everybody, 1 nobody, 2 one process (`nvmlDeviceGetComputeMode`, by
    /// DCGM's numbers).
    ///
    /// # Errors
    /// What the driver answered; invalid where it is a mode that no driver has any more.
    pub fn compute_mode(&self) -> Reading {
        match self.device.compute_mode()? {
            ComputeMode::Default => Ok(0.0),
            ComputeMode::Prohibited => Ok(1.0),
            ComputeMode::ExclusiveProcess => Ok(2.0),
            ComputeMode::ExclusiveThread => Err(Missing::Invalid),
        }
    }

    /// Whether the driver stays loaded while nobody uses the GPU (`nvmlDeviceGetPersistenceMode`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn persistence_mode(&self) -> Reading {
        Ok(flag(self.device.is_in_persistent_mode()?))
    }

    /// Whether MIG is on (`nvmlDeviceGetMigMode`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn mig_mode(&self) -> Reading {
        Ok(flag(self.device.mig_mode()?.current != 0))
    }

    /// The most slices that a GPU instance can have; 0 while MIG is off
    /// (`nvmlDeviceGetGpuInstanceProfileInfo`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn mig_slices(&self) -> Reading {
        if self.device.mig_mode()?.current == 0 {
            return Ok(0.0);
        }
        Ok(f64::from(raw::health::most_slices(self.session.nvml(), self.handle)?))
    }

    /// Compute capability: major × 65536 + minor (`nvmlDeviceGetCudaComputeCapability`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn compute_capability(&self) -> Reading {
        let capability = self.device.cuda_compute_capability()?;
        Ok(f64::from(capability.major) * 65_536.0 + f64::from(capability.minor))
    }

    /// NVML's index (`nvmlDeviceGetIndex`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn index(&self) -> Reading {
        Ok(f64::from(self.device.index()?))
    }

    /// Minor number of the device file (`nvmlDeviceGetMinorNumber`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn minor_number(&self) -> Reading {
        Ok(f64::from(self.device.minor_number()?))
    }

    /// How the GPU is virtualised: 0 not, 1 passed through, 2 a virtual GPU, 3 and 4 host of virtual
    /// GPUs (`nvmlDeviceGetVirtualizationMode`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn virtualization_mode(&self) -> Reading {
        Ok(match self.device.virtualization_mode()? {
            GpuVirtualizationMode::Bare => 0.0,
            GpuVirtualizationMode::PassThrough => 1.0,
            GpuVirtualizationMode::Vgpu => 2.0,
            GpuVirtualizationMode::HostVgpu => 3.0,
            GpuVirtualizationMode::HostVsga => 4.0,
        })
    }

    /// CUDA version of the driver: 12040 is 12.4 (`nvmlSystemGetCudaDriverVersion_v2`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn cuda_version(&self) -> Reading {
        Ok(f64::from(self.session.nvml().sys_cuda_driver_version()?))
    }

    /// Whether a licence for virtual GPUs is in force (`nvmlDeviceGetGridLicensableFeatures_v4`).
    ///
    /// # Errors
    /// What the driver answered.
    pub fn vgpu_licensed(&self) -> Reading {
        Ok(flag(raw::health::vgpu_licensed(self.session.nvml(), self.handle)?))
    }

    /// How far the GPU has been taken into its fabric (`nvmlDeviceGetGpuFabricInfoV`).
    ///
    /// # Errors
    /// What the driver answered; boards without switches are in no fabric.
    pub fn fabric_state(&self) -> Reading {
        Ok(f64::from(self.fabric()?.state))
    }

    /// What is wrong with the fabric, a bitmask.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`].
    pub fn fabric_health_mask(&self) -> Reading {
        Ok(f64::from(self.fabric()?.health_mask))
    }

    /// How the fabric is on the whole.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`].
    pub fn fabric_health_summary(&self) -> Reading {
        Ok(f64::from(self.fabric()?.health_summary.ok_or(Missing::Unsupported)?))
    }

    fn fabric(&self) -> Result<Fabric, Missing> {
        let read = || raw::health::fabric(self.session.nvml(), self.handle);
        *self.fabric.get_or_init(read)
    }
}

/// Whole watts of milliwatts, as users of the DCGM series of limits expect.
fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts / 1000)
}

pub(super) fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
