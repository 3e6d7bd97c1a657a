//! Texts of the driver. nvml-wrapper reads beyond the buffer if the driver does not end a text with a NUL.

use std::ffi::{c_char, c_uint};

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlInforomObject_enum_NVML_INFOROM_ECC as ECC, nvmlInforomObject_enum_NVML_INFOROM_OEM as OEM,
    nvmlInforomObject_enum_NVML_INFOROM_POWER as POWER, nvmlPciInfo_t, nvmlReturn_t,
};

use super::{Handle, check, symbol};
use crate::model::Missing;

/// Size of a buffer: the longest text of all, `NVML_DEVICE_NAME_V2_BUFFER_SIZE`.
const CAPACITY: usize = 96;

/// A text of a GPU or MIG device.
#[derive(Clone, Copy, Debug)]
pub enum DeviceText {
    /// `nvmlDeviceGetUUID`.
    Uuid,
    /// `nvmlDeviceGetName`.
    Name,
    /// `nvmlDeviceGetSerial`.
    Serial,
    /// `nvmlDeviceGetVbiosVersion`.
    Vbios,
    /// `nvmlDeviceGetInforomImageVersion`.
    InforomImage,
}

/// An object of the InfoROM.
#[derive(Clone, Copy, Debug)]
pub enum InforomObject {
    /// Data of the board's manufacturer.
    Oem,
    /// Support of ECC.
    Ecc,
    /// Power management.
    Power,
}

/// Reads a text.
///
/// # Errors
/// Returns the NVML error, or [`Missing::Invalid`] if the text has no end or is not UTF-8.
pub fn device_text(nvml: &Nvml, gpu: Handle, text: DeviceText) -> Result<String, Missing> {
    let lib = nvml.lib();
    let call = symbol(match text {
        DeviceText::Uuid => &lib.nvmlDeviceGetUUID,
        DeviceText::Name => &lib.nvmlDeviceGetName,
        DeviceText::Serial => &lib.nvmlDeviceGetSerial,
        DeviceText::Vbios => &lib.nvmlDeviceGetVbiosVersion,
        DeviceText::InforomImage => &lib.nvmlDeviceGetInforomImageVersion,
    })?;
    // SAFETY: the buffer has `length` bytes.
    read(|buffer, length| unsafe { call(gpu.0, buffer, length) })
}

/// Reads the version of an object of the InfoROM (`nvmlDeviceGetInforomVersion`).
///
/// # Errors
/// As [`device_text`].
pub fn inforom_version(nvml: &Nvml, gpu: Handle, object: InforomObject) -> Result<String, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetInforomVersion)?;
    let object = match object {
        InforomObject::Oem => OEM,
        InforomObject::Ecc => ECC,
        InforomObject::Power => POWER,
    };
    // SAFETY: the buffer has `length` bytes.
    read(|buffer, length| unsafe { call(gpu.0, object, buffer, length) })
}

/// Reads the version of the driver (`nvmlSystemGetDriverVersion`).
///
/// # Errors
/// As [`device_text`].
pub fn driver_version(nvml: &Nvml) -> Result<String, Missing> {
    let call = symbol(&nvml.lib().nvmlSystemGetDriverVersion)?;
    // SAFETY: the buffer has `length` bytes.
    read(|buffer, length| unsafe { call(buffer, length) })
}

/// Reads the version of the library (`nvmlSystemGetNVMLVersion`).
///
/// # Errors
/// As [`device_text`].
pub fn nvml_version(nvml: &Nvml) -> Result<String, Missing> {
    let call = symbol(&nvml.lib().nvmlSystemGetNVMLVersion)?;
    // SAFETY: the buffer has `length` bytes.
    read(|buffer, length| unsafe { call(buffer, length) })
}

/// Reads the PCI bus id (`nvmlDeviceGetPciInfo_v3`).
///
/// # Errors
/// As [`device_text`].
pub fn pci_bus_id(nvml: &Nvml, gpu: Handle) -> Result<String, Missing> {
    ended(&pci_info(nvml, gpu)?.busId)
}

/// Reads the PCI attributes (`nvmlDeviceGetPciInfo_v3`).
///
/// # Errors
/// Returns the NVML error; unsupported on platforms without PCI.
pub fn pci_info(nvml: &Nvml, gpu: Handle) -> Result<nvmlPciInfo_t, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetPciInfo_v3)?;
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: 0,
        bus: 0,
        device: 0,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    // SAFETY: `info` is a live struct.
    check(unsafe { call(gpu.0, &raw mut info) })?;
    Ok(info)
}

fn read(call: impl FnOnce(*mut c_char, c_uint) -> nvmlReturn_t) -> Result<String, Missing> {
    let mut buffer = [0; CAPACITY];
    let length = c_uint::try_from(CAPACITY).unwrap_or_default();
    check(call(buffer.as_mut_ptr(), length))?;
    ended(&buffer)
}

/// The text up to the NUL.
fn ended(buffer: &[c_char]) -> Result<String, Missing> {
    let text = buffer.split(|byte| *byte == 0).next().filter(|text| text.len() < buffer.len());
    let bytes = text.ok_or(Missing::Invalid)?.iter().flat_map(|byte| byte.to_ne_bytes());
    String::from_utf8(bytes.collect()).map_err(|_| Missing::Invalid)
}

#[cfg(test)]
mod tests {
    use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_SUCCESS as SUCCESS;

    use super::*;

    #[test]
    fn text_ends_within_its_buffer() {
        let filled = |byte: u8, count: usize| {
            let mut buffer = [0; CAPACITY];
            buffer[..count].fill(c_char::from_ne_bytes([byte]));
            ended(&buffer)
        };
        assert_eq!(filled(b'x', 0), Ok(String::new()));
        assert_eq!(filled(b'x', CAPACITY - 1), Ok("x".repeat(CAPACITY - 1)));
        assert_eq!(filled(b'x', CAPACITY), Err(Missing::Invalid), "no NUL");
        assert_eq!(filled(0xff, 3), Err(Missing::Invalid), "not UTF-8");
        assert_eq!(read(|_, length| if length == 96 { SUCCESS } else { 1 }), Ok(String::new()));
    }
}
