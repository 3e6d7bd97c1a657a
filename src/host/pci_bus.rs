//! Whether the node has an NVIDIA GPU, from its PCI bus.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// PCI vendor ID of NVIDIA.
const NVIDIA: &str = "0x10de";
/// Base class of display controllers: `0x03` of `0x030200`.
const DISPLAY: &str = "0x03";

/// The directories that are read as `/sys` and `/proc`.
#[derive(Clone, Debug)]
pub struct PciBus {
    sys_root: PathBuf,
    proc_root: PathBuf,
}

impl PciBus {
    /// Reads under these directories instead of `/sys` and `/proc`.
    #[must_use]
    pub fn new(sys_root: &Path, proc_root: &Path) -> Self {
        Self { sys_root: sys_root.to_owned(), proc_root: proc_root.to_owned() }
    }

    /// The directory with one entry per PCI device.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.sys_root.join("bus/pci/devices")
    }

    /// The number of PCI devices if certainly none is an NVIDIA GPU. `None` if one is, if a device
    /// cannot be read, if the bus is absent or empty, and on nodes with GPUs that are not PCI devices:
    /// there the driver's library decides.
    #[must_use]
    pub fn devices_without_gpu(&self) -> Option<usize> {
        if self.has_kernel_driver() || self.is_wsl() || self.is_tegra() {
            return None;
        }
        let mut devices = 0;
        for device in fs::read_dir(self.devices()).ok()? {
            if is_nvidia_gpu(&device.ok()?.path()).ok()? {
                return None;
            }
            devices += 1;
        }
        (devices > 0).then_some(devices)
    }

    fn has_kernel_driver(&self) -> bool {
        self.proc_root.join("driver/nvidia/version").exists()
    }

    /// Windows shows a GPU to WSL as a device of its own.
    fn is_wsl(&self) -> bool {
        let release = fs::read_to_string(self.proc_root.join("sys/kernel/osrelease"));
        release.is_ok_and(|release| release.to_lowercase().contains("microsoft"))
    }

    /// The GPU of Jetson boards is part of the processor. Containers cannot read the device tree.
    fn is_tegra(&self) -> bool {
        let family = fs::read_to_string(self.sys_root.join("devices/soc0/family"));
        family.is_ok_and(|family| family.to_lowercase().starts_with("tegra"))
    }
}

fn is_nvidia_gpu(device: &Path) -> io::Result<bool> {
    let vendor = fs::read_to_string(device.join("vendor"))?;
    let class = fs::read_to_string(device.join("class"))?;
    Ok(vendor.trim() == NVIDIA && class.starts_with(DISPLAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestNode(tempfile::TempDir);

    impl TestNode {
        fn new(devices: &[(&str, &str)]) -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            for (n, (vendor, class)) in devices.iter().enumerate() {
                let device = format!("sys/bus/pci/devices/0000:00:{n:02x}.0");
                node.write(&format!("{device}/vendor"), &format!("{vendor}\n"));
                node.write(&format!("{device}/class"), &format!("{class}\n"));
            }
            node
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn devices_without_gpu(&self) -> Option<usize> {
            let root = self.0.path();
            PciBus::new(&root.join("sys"), &root.join("proc")).devices_without_gpu()
        }
    }

    const HOST_BRIDGE: (&str, &str) = ("0x8086", "0x060000");

    #[test]
    fn gpu_is_a_display_controller_of_nvidia() {
        for (devices, expected) in [
            (vec![HOST_BRIDGE], Some(1)),
            (vec![HOST_BRIDGE, ("0x10de", "0x030200")], None),
            (vec![("0x10de", "0x030000"), HOST_BRIDGE], None),
            // Another vendor's GPU; an NVSwitch, a root port of Grace and an audio device of NVIDIA.
            (vec![("0x1002", "0x030000")], Some(1)),
            (vec![("0x10de", "0x068000"), ("0x10de", "0x060400"), ("0x10de", "0x040300")], Some(3)),
        ] {
            assert_eq!(TestNode::new(&devices).devices_without_gpu(), expected, "{devices:?}");
        }
    }

    #[test]
    fn no_device_and_an_unreadable_one_are_no_evidence() {
        assert_eq!(TestNode::new(&[]).devices_without_gpu(), None, "no PCI bus");
        let node = TestNode::new(&[HOST_BRIDGE]);
        node.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
        assert_eq!(node.devices_without_gpu(), None, "a device without a class");
        let empty = TestNode::new(&[HOST_BRIDGE]);
        fs::remove_dir_all(empty.0.path().join("sys/bus/pci/devices/0000:00:00.0")).unwrap();
        assert_eq!(empty.devices_without_gpu(), None, "an empty bus");
    }

    #[test]
    fn gpus_that_are_not_pci_devices_are_left_to_the_library() {
        for (file, text, expected) in [
            ("sys/devices/soc0/family", "Tegra\n", None),
            ("sys/devices/soc0/family", "jep106:036b\n", Some(1)),
            ("proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n", None),
            ("proc/sys/kernel/osrelease", "6.8.0-1021-azure\n", Some(1)),
            ("proc/driver/nvidia/version", "NVRM version: …\n", None),
        ] {
            let node = TestNode::new(&[HOST_BRIDGE]);
            node.write(file, text);
            assert_eq!(node.devices_without_gpu(), expected, "{file}: {text}");
        }
    }
}
