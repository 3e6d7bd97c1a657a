//! Text properties of a GPU for labels: brand, serial number, firmware versions.

use nvml_wrapper::enum_wrappers::device::Brand;

use super::Session;
use super::raw::Handle;
use super::raw::texts::{self, DeviceText, InforomObject};
use crate::model::Missing;

/// Product brand (`nvmlDeviceGetBrand`).
///
/// # Errors
/// Returns the NVML error.
pub fn brand(session: &Session, gpu: Handle) -> Result<String, Missing> {
    Ok(brand_name(gpu.device(session.nvml()).brand()?).to_owned())
}

/// Serial number of the board (`nvmlDeviceGetSerial`).
///
/// # Errors
/// Returns the NVML error; consumer boards have no serial number.
pub fn serial(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::device_text(session.nvml(), gpu, DeviceText::Serial)
}

/// VBIOS version (`nvmlDeviceGetVbiosVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn vbios(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::device_text(session.nvml(), gpu, DeviceText::Vbios)
}

/// InfoROM image version (`nvmlDeviceGetInforomImageVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::device_text(session.nvml(), gpu, DeviceText::InforomImage)
}

/// Version of the InfoROM OEM object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_oem(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::inforom_version(session.nvml(), gpu, InforomObject::Oem)
}

/// Version of the InfoROM ECC object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_ecc(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::inforom_version(session.nvml(), gpu, InforomObject::Ecc)
}

/// Version of the InfoROM power management object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_power(session: &Session, gpu: Handle) -> Result<String, Missing> {
    texts::inforom_version(session.nvml(), gpu, InforomObject::Power)
}

fn brand_name(brand: Brand) -> &'static str {
    match brand {
        Brand::Unknown => "Unknown",
        Brand::Quadro => "Quadro",
        Brand::Tesla => "Tesla",
        Brand::NVS => "NVS",
        Brand::GRID => "Grid",
        Brand::GeForce => "GeForce",
        Brand::Titan => "Titan",
        Brand::VApps => "NVIDIA Virtual Applications",
        Brand::VPC => "NVIDIA Virtual PC",
        Brand::VCS => "NVIDIA Virtual Compute Server",
        Brand::VWS => "NVIDIA RTX Virtual Workstation",
        Brand::CloudGaming => "NVIDIA Cloud Gaming",
        Brand::VGaming => "NVIDIA vGaming",
        Brand::QuadroRTX => "Quadro RTX",
        Brand::NvidiaRTX => "NVIDIA RTX",
        Brand::Nvidia => "NVIDIA",
        Brand::GeForceRTX => "GeForce RTX",
        Brand::TitanRTX => "Titan RTX",
    }
}
