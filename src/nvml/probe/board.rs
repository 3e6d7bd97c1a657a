//! Reads of a board: clock, temperature and power limits, fan, PCIe link, modes, licences, fabric.

use nvml_wrapper::enum_wrappers::device::{Clock, GpuVirtualizationMode, TemperatureThreshold};
use nvml_wrapper_sys::bindings::{
    nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT as DEFAULT,
    nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS as EXCLUSIVE_PROCESS_MODE,
    nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED as PROHIBITED,
};

use super::{EXCLUSIVE_PROCESS, Probe, celsius};
use crate::model::{FabricHealth, Missing, Reading};
use crate::nvml::raw::{self, fabric::Fabric};

/// Maximum plausible fan speed, percent of the nominal speed.
const FAN_MAX: u32 = 255;

impl Probe<'_> {
    /// Whether the InfoROM checksum is valid (`nvmlDeviceValidateInforom`). Slow: reads the flash of
    /// the board.
    ///
    /// # Errors
    /// Returns the NVML error; unsupported on boards without an InfoROM.
    pub fn inforom_valid(&self) -> Result<bool, Missing> {
        raw::health::inforom_valid(self.session.nvml(), self.handle)
    }

    /// Maximum clock of a clock domain, MHz (`nvmlDeviceGetMaxClockInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn max_clock(&self, clock: Clock) -> Reading {
        Ok(f64::from(self.device.max_clock_info(clock)?))
    }

    /// A temperature threshold (slowdown, shutdown, …), °C (`nvmlDeviceGetTemperatureThreshold`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the board does not have the threshold.
    pub fn temperature_threshold(&self, threshold: TemperatureThreshold) -> Reading {
        celsius(f64::from(self.device.temperature_threshold(threshold)?))
    }

    /// Configured power limit, W (`nvmlDeviceGetPowerManagementLimit`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn power_limit(&self) -> Reading {
        Ok(watts(self.device.power_management_limit()?))
    }

    /// Minimum configurable power limit, W
    /// (`nvmlDeviceGetPowerManagementLimitConstraints`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn power_limit_min(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_constraints()?.min_limit))
    }

    /// Maximum configurable power limit, W.
    ///
    /// # Errors
    /// As [`Probe::power_limit_min`].
    pub fn power_limit_max(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_constraints()?.max_limit))
    }

    /// Default power limit, W (`nvmlDeviceGetPowerManagementDefaultLimit`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn power_limit_default(&self) -> Reading {
        Ok(watts(self.device.power_management_limit_default()?))
    }

    /// Effective power limit (minimum of all limiters), W (`nvmlDeviceGetEnforcedPowerLimit`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn power_limit_enforced(&self) -> Reading {
        Ok(watts(self.device.enforced_power_limit()?))
    }

    /// Fan speed, percent of the nominal speed (`nvmlDeviceGetFanSpeed_v2`); may exceed 100.
    ///
    /// # Errors
    /// Returns the NVML error; unsupported on passively cooled boards.
    pub fn fan_speed(&self) -> Reading {
        let speed = self.device.fan_speed(0)?;
        if speed <= FAN_MAX { Ok(f64::from(speed)) } else { Err(Missing::Invalid) }
    }

    /// Current PCIe link generation (`nvmlDeviceGetCurrPcieLinkGeneration`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn pcie_generation(&self) -> Reading {
        Ok(f64::from(self.device.current_pcie_link_gen()?))
    }

    /// Current PCIe link width, lanes (`nvmlDeviceGetCurrPcieLinkWidth`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn pcie_width(&self) -> Reading {
        Ok(f64::from(self.device.current_pcie_link_width()?))
    }

    /// Maximum PCIe link generation of board and system (`nvmlDeviceGetMaxPcieLinkGeneration`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn pcie_generation_max(&self) -> Reading {
        Ok(f64::from(self.device.max_pcie_link_gen()?))
    }

    /// Maximum PCIe link width of board and system, lanes (`nvmlDeviceGetMaxPcieLinkWidth`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn pcie_width_max(&self) -> Reading {
        Ok(f64::from(self.device.max_pcie_link_width()?))
    }

    /// Compute mode in DCGM's encoding: 0 default, 1 prohibited, 2 exclusive process
    /// (`nvmlDeviceGetComputeMode`).
    ///
    /// # Errors
    /// Returns the NVML error; invalid for the obsolete exclusive-thread mode and unknown modes.
    pub fn compute_mode(&self) -> Reading {
        match raw::modes::compute_mode(self.session.nvml(), self.handle)? {
            DEFAULT => Ok(0.0),
            PROHIBITED => Ok(1.0),
            EXCLUSIVE_PROCESS_MODE => Ok(EXCLUSIVE_PROCESS),
            _ => Err(Missing::Invalid),
        }
    }

    /// Whether persistence mode is enabled (`nvmlDeviceGetPersistenceMode`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn persistence_mode(&self) -> Reading {
        Ok(flag(self.device.is_in_persistent_mode()?))
    }

    /// Whether MIG is enabled (`nvmlDeviceGetMigMode`, current mode).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn mig_mode(&self) -> Reading {
        Ok(flag(self.device.mig_mode()?.current != 0))
    }

    /// Maximum number of slices of a GPU instance; 0 while MIG is disabled
    /// (`nvmlDeviceGetGpuInstanceProfileInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn mig_slices(&self) -> Reading {
        if self.device.mig_mode()?.current == 0 {
            return Ok(0.0);
        }
        Ok(f64::from(raw::health::max_slices(self.session.nvml(), self.handle)?))
    }

    /// Compute capability: major × 65536 + minor (`nvmlDeviceGetCudaComputeCapability`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn compute_capability(&self) -> Reading {
        let capability = self.device.cuda_compute_capability()?;
        Ok(f64::from(capability.major) * 65_536.0 + f64::from(capability.minor))
    }

    /// NVML index (`nvmlDeviceGetIndex`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn index(&self) -> Reading {
        Ok(f64::from(self.device.index()?))
    }

    /// Confirms that the GPU responds, before a value of the whole driver is read for it: a GPU that is lost has no
    /// series. A driver without the function that is called can have one.
    pub(super) fn require_response(&self) -> Result<(), Missing> {
        match self.index() {
            Ok(_) | Err(Missing::Unsupported) => Ok(()),
            Err(missing) => Err(missing),
        }
    }

    /// Minor number of the device file (`nvmlDeviceGetMinorNumber`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn minor_number(&self) -> Reading {
        Ok(f64::from(self.device.minor_number()?))
    }

    /// Virtualization mode: 0 none, 1 passthrough, 2 vGPU, 3 vGPU host, 4 vSGA host
    /// (`nvmlDeviceGetVirtualizationMode`).
    ///
    /// # Errors
    /// Returns the NVML error.
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
    /// Returns the NVML error.
    pub fn cuda_version(&self) -> Reading {
        self.require_response()?;
        Ok(f64::from(self.session.nvml().sys_cuda_driver_version()?))
    }

    /// PCI device id (high half) and vendor id (`nvmlDeviceGetPciInfo_v3`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported on platforms without PCI.
    pub fn pci_device_id(&self) -> Reading {
        Ok(f64::from(raw::texts::pci_info(self.session.nvml(), self.handle)?.pciDeviceId))
    }

    /// PCI subsystem id (high half) and vendor id (`nvmlDeviceGetPciInfo_v3`).
    ///
    /// # Errors
    /// As [`Probe::pci_device_id`].
    pub fn pci_subsystem_id(&self) -> Reading {
        Ok(f64::from(raw::texts::pci_info(self.session.nvml(), self.handle)?.pciSubSystemId))
    }

    /// Whether the GPU has GPM metrics (`nvmlGpmQueryDeviceSupport`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before driver branch 525.
    pub fn gpm_support(&self) -> Reading {
        Ok(flag(raw::gpm::is_supported(self.session.nvml(), self.handle)?))
    }

    /// Whether a vGPU licence is active (`nvmlDeviceGetGridLicensableFeatures_v4`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn vgpu_licensed(&self) -> Reading {
        Ok(flag(raw::health::vgpu_licensed(self.session.nvml(), self.handle)?))
    }

    /// Registration state of the GPU in its `NVLink` fabric, `nvmlGpuFabricState_t`
    /// (`nvmlDeviceGetGpuFabricInfoV`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported on boards without `NVSwitch`.
    pub fn fabric_state(&self) -> Reading {
        Ok(f64::from(self.fabric()?.state))
    }

    /// Health mask of the fabric, `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`].
    pub fn fabric_health_mask(&self) -> Reading {
        Ok(f64::from(self.fabric()?.health_mask))
    }

    /// Health summary of the fabric, `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`]; unsupported before driver 570.
    pub fn fabric_health_summary(&self) -> Reading {
        Ok(f64::from(self.fabric()?.health_summary.ok_or(Missing::Unsupported)?))
    }

    /// Result of the registration with the fabric, an `nvmlReturn_t`.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`]; pending until the registration is completed.
    pub fn fabric_status(&self) -> Reading {
        Ok(f64::from(self.fabric()?.status.ok_or(Missing::Pending)?))
    }

    /// Clique of the GPU in its fabric.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`]; pending until the registration succeeds.
    pub fn fabric_clique(&self) -> Reading {
        let membership = self.fabric()?.membership.ok_or(Missing::Pending)?;
        Ok(f64::from(membership.clique.ok_or(Missing::Unsupported)?))
    }

    /// State of the GPU in its fabric.
    ///
    /// # Errors
    /// As [`Probe::fabric_state`].
    pub fn fabric_health(&self) -> Result<FabricHealth, Missing> {
        Ok(self.fabric()?.health())
    }

    fn fabric(&self) -> Result<Fabric, Missing> {
        let read = || raw::fabric::fabric(self.session.nvml(), self.session.newer(), self.handle);
        *self.fabric.get_or_init(read)
    }
}

/// Converts milliwatts to whole watts, truncated as in DCGM series of power limits.
fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts / 1000)
}

pub(super) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
