//! Text properties of a GPU for labels: brand, serial number, firmware versions.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Brand, InfoRom};
use nvml_wrapper::error::NvmlError;

use super::Session;
use super::raw::Handle;
use crate::model::Missing;

fn read<'nvml>(
    session: &'nvml Session,
    gpu: Handle,
    read: impl Fn(&Device<'nvml>) -> Result<String, NvmlError>,
) -> Result<String, Missing> {
    Ok(read(&gpu.device(session.nvml()))?)
}

/// Product brand (`nvmlDeviceGetBrand`).
///
/// # Errors
/// Returns the NVML error.
pub fn brand(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, |device| Ok(brand_name(device.brand()?).to_owned()))
}

/// Serial number of the board (`nvmlDeviceGetSerial`).
///
/// # Errors
/// Returns the NVML error; consumer boards have no serial number.
pub fn serial(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, Device::serial)
}

/// VBIOS version (`nvmlDeviceGetVbiosVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn vbios(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, Device::vbios_version)
}

/// InfoROM image version (`nvmlDeviceGetInforomImageVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, Device::info_rom_image_version)
}

/// Version of the InfoROM OEM object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_oem(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, |device| device.info_rom_version(InfoRom::OEM))
}

/// Version of the InfoROM ECC object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_ecc(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, |device| device.info_rom_version(InfoRom::ECC))
}

/// Version of the InfoROM power management object (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// Returns the NVML error.
pub fn inforom_power(session: &Session, gpu: Handle) -> Result<String, Missing> {
    read(session, gpu, |device| device.info_rom_version(InfoRom::Power))
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
