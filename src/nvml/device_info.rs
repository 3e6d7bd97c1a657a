//! Text properties of a GPU for labels: brand, serial number, firmware versions.

use super::Session;
use super::raw::texts::{self, DeviceText, InforomObject};
use super::raw::{self, Handle};
use crate::model::Missing;

/// Product brand (`nvmlDeviceGetBrand`).
///
/// # Errors
/// Returns the NVML error.
pub fn brand(session: &Session, gpu: Handle) -> Result<String, Missing> {
    let brand = usize::try_from(raw::modes::brand(session.nvml(), gpu)?).unwrap_or(usize::MAX);
    Ok((*BRANDS.get(brand).unwrap_or(&"Unknown")).to_owned())
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

/// UUID of the cluster of the GPU's `NVLink` fabric.
///
/// # Errors
/// Returns the NVML error; unsupported without a fabric of several nodes, pending until the GPU is
/// registered with it.
pub fn cluster_uuid(session: &Session, gpu: Handle) -> Result<String, Missing> {
    let fabric = raw::fabric::fabric(session.nvml(), session.newer(), gpu)?;
    let uuid = fabric.membership.ok_or(Missing::Pending)?.cluster_uuid;
    if uuid == [0; 16] {
        return Err(Missing::Unsupported);
    }
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    Ok(parts.join("-"))
}

/// `InfiniBand` GUID of the platform, hexadecimal (`nvmlDeviceGetPlatformInfo`).
///
/// # Errors
/// Returns the NVML error; unsupported if the board reports none.
pub fn infiniband_guid(session: &Session, gpu: Handle) -> Result<String, Missing> {
    some_text(raw::platform::platform(session.nvml(), gpu)?.infiniband_guid)
}

/// Serial number of the chassis (`nvmlDeviceGetPlatformInfo`).
///
/// # Errors
/// Returns the NVML error; unsupported if the board reports none.
pub fn chassis_serial(session: &Session, gpu: Handle) -> Result<String, Missing> {
    some_text(raw::platform::platform(session.nvml(), gpu)?.chassis_serial)
}

fn some_text(text: String) -> Result<String, Missing> {
    if text.is_empty() { Err(Missing::Unsupported) } else { Ok(text) }
}

/// The names of `nvmlBrandType_t`.
const BRANDS: [&str; 20] = [
    "Unknown",
    "Quadro",
    "Tesla",
    "NVS",
    "Grid",
    "GeForce",
    "Titan",
    "NVIDIA Virtual Applications",
    "NVIDIA Virtual PC",
    "NVIDIA Virtual Compute Server",
    "NVIDIA RTX Virtual Workstation",
    "NVIDIA Cloud Gaming",
    "Quadro RTX",
    "NVIDIA RTX",
    "NVIDIA",
    "GeForce RTX",
    "Titan RTX",
    "NVIDIA DLA",
    "NVIDIA RTX Virtual Game Development",
    "NVIDIA NPU",
];
