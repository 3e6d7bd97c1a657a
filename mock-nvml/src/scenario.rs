//! What a node is and does: a validated scenario. `scenarios/README.md` documents the text of one.

mod check;
pub(crate) mod cluster;
mod complaint;
mod curves;
mod file;
pub(crate) mod hardware;
mod memory;
pub(crate) mod mig;
mod pipes;
mod source;

use std::{sync::Arc, time::Duration};

pub(crate) use self::{
    complaint::Complaint,
    file::GarbageRow,
    pipes::Pipes,
    source::{BUILT_IN, Error, Source, Watch},
};
use self::{
    hardware::{Hardware, Xid},
    mig::{Layout, Place},
};
use crate::{curve::Curve, fault::Fault, models::Model};

/// A node and its timeline.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// World time at which the clock is held, if it is.
    pub(crate) hold: Option<f64>,
    /// Whether the proc tree is that of a container instead of the host's.
    pub(crate) in_container: bool,
    /// The driver.
    pub(crate) driver: Driver,
    /// The GPUs, by index.
    pub(crate) gpus: Vec<Gpu>,
    /// The processes, clones written out.
    pub(crate) processes: Vec<Process>,
    /// Rows of nonsense in the utilization rings.
    pub(crate) garbage: Vec<Garbage>,
    /// XIDs, in order of time.
    pub(crate) xids: Vec<Xid>,
    /// Calls that answer something else than the truth.
    pub(crate) faults: Vec<Fault>,
    /// The Kubernetes node, if it is one.
    pub(crate) cluster: Option<Arc<cluster::Cluster>>,
}

/// A stretch of world time in seconds: `from` is in it, `to` is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// Its first moment.
    pub(crate) from: f64,
    /// The first moment after it, or infinity.
    pub(crate) to: f64,
}

impl Window {
    /// Whether `time` is in it.
    pub(crate) fn contains(self, time: f64) -> bool {
        self.from <= time && time < self.to
    }

    /// Whether the two have a moment in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// The driver's versions, and when it is being reloaded.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    /// As `nvmlSystemGetDriverVersion` tells it.
    pub(crate) version: String,
    /// As `nvmlSystemGetNVMLVersion` tells it.
    pub(crate) nvml: String,
    /// As `nvmlSystemGetCudaDriverVersion` tells it: 1000 × major + 10 × minor.
    pub(crate) cuda: i32,
    /// When no driver is loaded.
    pub(crate) reloads: Vec<Window>,
}

impl Driver {
    /// The branch: the first number of the version.
    pub(crate) fn branch(&self) -> u32 {
        let first = self.version.split('.').next().unwrap_or_default();
        first.parse().unwrap_or(u32::MAX)
    }
}

/// One GPU.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    /// Its index in NVML's order.
    pub(crate) index: usize,
    /// What all boards like it have in common.
    pub(crate) model: &'static Model,
    /// `GPU-…`.
    pub(crate) uuid: String,
    /// Board serial number.
    pub(crate) serial: String,
    /// Number of `/dev/nvidia…`.
    pub(crate) minor: u32,
    /// Where it sits.
    pub(crate) pci: Pci,
    /// Rate of the PCIe replay counter, per hour.
    pub(crate) replays_per_hour: f64,
    /// Temperature of the room in °C.
    pub(crate) ambient: f64,
    /// When it has fallen off the bus.
    pub(crate) lost: Vec<Window>,
    /// What is wrong with it.
    pub(crate) hardware: Hardware,
    /// How it is partitioned, in order of time.
    pub(crate) mig: Arc<[Layout]>,
    /// Indexes of its processes.
    pub(crate) processes: Vec<usize>,
}

/// A place on the PCI bus; the function is always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pci {
    /// Domain.
    pub(crate) domain: u32,
    /// Bus.
    pub(crate) bus: u32,
    /// Device.
    pub(crate) device: u32,
}

impl Pci {
    /// `00000000:1B:00.0`.
    pub(crate) fn id(self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// `0000:1B:00.0`, which has room for smaller domains only.
    pub(crate) fn legacy_id(self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// Reads `domain:bus:device.function` or `bus:device.function`, hexadecimal in either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str| u32::from_str_radix(part, 16).ok();
        let (rest, function) = text.rsplit_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let place = Self { domain: hex(domain)?, bus: hex(bus)?, device: hex(device)? };
        (hex(function)? == 0).then_some(place)
    }
}

/// What a process does on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `C`
    Compute,
    /// `G`
    Graphics,
    /// `C+G`
    Both,
    /// `M`: a client of the MPS server.
    Mps,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its arguments, the program first.
    pub(crate) command: Vec<String>,
    /// The text of its `/proc/<pid>/cgroup`, without the last newline.
    pub(crate) cgroup: String,
    /// The list or lists that it stands in.
    pub(crate) kind: Kind,
    /// Indexes of its GPUs.
    pub(crate) gpus: Vec<usize>,
    /// Where on a partitioned GPU it runs.
    pub(crate) place: Option<Place>,
    /// Framebuffer it holds on each of them in bytes; `None` if the driver does not tell.
    pub(crate) memory: Option<u64>,
    /// Load of the SM.
    pub(crate) sm: Curve,
    /// Load of the memory controller.
    pub(crate) mem: Curve,
    /// Load of the encoder.
    pub(crate) enc: Curve,
    /// Load of the decoder.
    pub(crate) dec: Curve,
    /// Load of the JPEG decoder.
    pub(crate) jpg: Curve,
    /// Load of the optical flow accelerator.
    pub(crate) ofa: Curve,
    /// What it moves over NVLink in each direction, in MiB/s.
    pub(crate) nvlink: Curve,
    /// What its GPU sends over PCIe, in MiB/s.
    pub(crate) pcie_tx: Curve,
    /// What its GPU receives over PCIe, in MiB/s.
    pub(crate) pcie_rx: Curve,
    /// What it does with the SM.
    pub(crate) pipes: Pipes,
    /// When it is alive; from minus infinity if it ran before the world began.
    pub(crate) life: Window,
    /// When it is a zombie.
    pub(crate) zombie: Option<Window>,
    /// Whether the proc tree shows it.
    pub(crate) visible: bool,
}

impl Process {
    /// Whether it is a zombie at `time`.
    pub(crate) fn is_zombie(&self, time: f64) -> bool {
        self.zombie.is_some_and(|zombie| zombie.contains(time))
    }
}

/// Nonsense that a driver adds to a ring.
#[derive(Clone, Debug)]
pub(crate) struct Garbage {
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// When.
    pub(crate) during: Window,
    /// What.
    pub(crate) rows: Vec<GarbageRow>,
}

impl Scenario {
    /// Reads a scenario from its text; `name` seeds what identifies its GPUs.
    ///
    /// # Errors
    /// The first thing that is wrong, and its mend.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Complaint> {
        file::read(text)
            .and_then(|file| check::check(name, &file))
            .map_err(|flaw| flaw.at_line(text))
    }

    /// The processes of one of its GPUs, dead or alive.
    pub(crate) fn processes_of(&self, gpu: &Gpu) -> impl Iterator<Item = &Process> {
        gpu.processes.iter().filter_map(|&index| self.processes.get(index))
    }
}

/// A time span of `seconds`, which validation has found finite and not negative.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_id_is_read_in_all_its_forms() {
        let pci = Pci { domain: 0, bus: 0x1b, device: 0 };
        for form in ["00000000:1B:00.0", "0000:1b:00.0", "1b:00.0"] {
            assert_eq!(Pci::parse(form), Some(pci), "{form}");
        }
        assert_eq!(
            (pci.id().as_str(), pci.legacy_id().as_str()),
            ("00000000:1B:00.0", "0000:1B:00.0")
        );
        for nonsense in ["", "1b", "1b:00", "zz:00.0", "1b:00.1"] {
            assert_eq!(Pci::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn windows_hold_their_first_moment_and_not_their_last() {
        let window = Window { from: 1.0, to: 2.0 };
        assert!(window.contains(1.0) && !window.contains(2.0));
        assert!(!window.overlaps(Window { from: 2.0, to: 3.0 }));
        assert!(window.overlaps(Window { from: 0.0, to: f64::INFINITY }));
    }
}
