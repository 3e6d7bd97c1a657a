//! Texts that a board tells of itself, for labels.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Brand, InfoRom};
use nvml_wrapper::error::NvmlError;

use super::Session;
use super::raw::Handle;
use crate::model::Missing;

fn ask<'nvml>(
    session: &'nvml Session,
    gpu: Handle,
    ask: impl Fn(&Device<'nvml>) -> Result<String, NvmlError>,
) -> Result<String, Missing> {
    Ok(ask(&gpu.device(session.nvml()))?)
}

/// The line of products (`nvmlDeviceGetBrand`).
///
/// # Errors
/// What the driver answered.
pub fn brand(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, |device| Ok(brand_name(device.brand()?).to_owned()))
}

/// The board's serial number (`nvmlDeviceGetSerial`).
///
/// # Errors
/// What the driver answered; consumer boards have none.
pub fn serial(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, Device::serial)
}

/// Version of the VBIOS (`nvmlDeviceGetVbiosVersion`).
///
/// # Errors
/// What the driver answered.
pub fn vbios(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, Device::vbios_version)
}

/// Version of the inforom's image (`nvmlDeviceGetInforomImageVersion`).
///
/// # Errors
/// What the driver answered.
pub fn inforom(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, Device::info_rom_image_version)
}

/// Version of the inforom's object for the maker's data (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// What the driver answered.
pub fn inforom_oem(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, |device| device.info_rom_version(InfoRom::OEM))
}

/// Version of the inforom's object for ECC.
///
/// # Errors
/// What the driver answered.
pub fn inforom_ecc(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, |device| device.info_rom_version(InfoRom::ECC))
}

/// Version of the inforom's object for power management.
///
/// # Errors
/// What the driver answered.
pub fn inforom_power(session: &Session, gpu: Handle) -> Result<String, Missing> {
    ask(session, gpu, |device| device.info_rom_version(InfoRom::Power))
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
