//! Where the driver is found.

use std::path::PathBuf;

use crate::host::ProcRoot;
use crate::host::pci_bus::PciBus;

/// Where the driver is found.
#[derive(Clone, Debug)]
pub struct DriverSource {
    /// Paths of the NVML library, in the order in which they are tried.
    pub libraries: Vec<PathBuf>,
    /// Shows whether the kernel module is loaded.
    pub proc_root: ProcRoot,
    /// While this bus certainly has no NVIDIA GPU, no library is loaded. `None`: a library is loaded in any
    /// case.
    pub pci_bus: Option<PciBus>,
}
