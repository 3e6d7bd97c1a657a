//! The PCI bus of a mock environment, in the layout of `/sys`.

use std::{fs, path::Path};

use crate::{
    environment_dir::{FileError, SYS, file_error},
    models::Model,
    scenario::{Pci, Platform, Scenario},
};

/// Vendor and class of the devices that every server has: host bridge, disk and network card.
const OTHER_DEVICES: [(&str, u32, u32); 3] = [
    ("0000:00:00.0", 0x8086, 0x06_00_00),
    ("0000:00:17.0", 0x8086, 0x01_08_02),
    ("0000:01:00.0", 0x15b3, 0x02_00_00),
];
/// NVIDIA's vendor id.
const NVIDIA: u32 = 0x10de;
/// PCI class of a GPU without a display: 3D controller.
const GPU_CLASS: u32 = 0x03_02_00;

/// Writes the bus of the scenario to the mock environment `home`.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(scenario: &Scenario, home: &Path) -> Result<(), FileError> {
    let root = home.join(SYS);
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(file_error(&root)(error));
        }
        _ => {}
    }
    for (address, vendor, class) in OTHER_DEVICES {
        write_device(&root, address, vendor, class)?;
    }
    match scenario.platform {
        Platform::Pci => scenario
            .gpus
            .iter()
            .try_for_each(|gpu| {
                let address = gpu.pci.legacy_id().to_lowercase();
                write_device(&root, &address, vendor(gpu.model), GPU_CLASS)
            })
            .and_then(|()| write_recorded(scenario, &root)),
        Platform::Tegra => write_file(&root.join("devices/soc0"), "family", "Tegra\n"),
        Platform::NoGpu => Ok(()),
    }
}

/// Writes the GPUs of a recording.
fn write_recorded(scenario: &Scenario, root: &Path) -> Result<(), FileError> {
    let recording = scenario.recording.iter();
    let ids = recording.flat_map(|recording| recording.pci_bus_ids().filter_map(Pci::parse));
    ids.into_iter()
        .try_for_each(|pci| write_device(root, &pci.legacy_id().to_lowercase(), NVIDIA, GPU_CLASS))
}

fn vendor(model: &Model) -> u32 {
    model.pci_device & 0xFFFF
}

fn write_device(root: &Path, address: &str, vendor: u32, class: u32) -> Result<(), FileError> {
    let directory = root.join("bus/pci/devices").join(address);
    write_file(&directory, "vendor", &format!("0x{vendor:04x}\n"))?;
    write_file(&directory, "class", &format!("0x{class:06x}\n"))
}

fn write_file(directory: &Path, name: &str, text: &str) -> Result<(), FileError> {
    fs::create_dir_all(directory).map_err(file_error(directory))?;
    let path = directory.join(name);
    fs::write(&path, text).map_err(file_error(&path))
}
