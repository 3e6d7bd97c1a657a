//! A scenario: a node and its timeline.

pub(crate) mod claim;
pub(crate) mod cluster;
pub(crate) mod config_map;
pub(crate) mod hardware;
pub(crate) mod mig;
pub(crate) mod pipes;
pub(crate) mod recorded;
pub(crate) mod samples;

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    curve::Curve,
    fault::InjectedFault,
    models::Model,
    recording::Recording,
    scenario::{
        hardware::{HardwareFaults, Xid},
        mig::{GpuInstance, InstanceIds, MigLayout},
        pipes::Pipes,
    },
    window::Window,
};

/// What clients see of the node's cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// All of them, without a namespace of their own.
    #[default]
    Host,
    /// Their own, in a namespace.
    Private,
    /// Their own, in a namespace, and a mount of all of them.
    Mounted,
}

/// A node and its timeline.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// World time in seconds at which the clock is held; `None` if it runs.
    pub(crate) held_at: Option<f64>,
    /// Whether the proc root has the PID namespace of a container instead of the host.
    pub(crate) in_container: bool,
    /// What clients see of the node's cgroups.
    pub(crate) cgroup_view: CgroupView,
    /// How the GPUs are attached.
    pub(crate) platform: Platform,
    pub(crate) driver: Driver,
    /// By index.
    pub(crate) gpus: Vec<Gpu>,
    /// One entry per process; `count` is expanded.
    pub(crate) processes: Vec<Process>,
    /// Invalid samples in the process utilization buffers.
    pub(crate) injected_samples: Vec<InjectedSamples>,
    /// Sorted by time.
    pub(crate) xids: Vec<Xid>,
    /// Faults of NVML calls.
    pub(crate) faults: Vec<InjectedFault>,
    /// What the driver returns, if the scenario is a recording.
    pub(crate) recording: Option<Arc<Recording>>,
    /// The Kubernetes node and its cluster, if the scenario has one.
    pub(crate) cluster: Option<Arc<cluster::Cluster>>,
}

/// How the GPUs of a node are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Platform {
    /// They are PCI devices.
    #[default]
    Pci,
    /// The GPU is part of the processor, as on Jetson boards.
    Tegra,
    /// There are none, and no driver.
    NoGpu,
}

/// Driver versions, and the times at which the driver is being reloaded.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    /// `nvmlSystemGetDriverVersion`.
    pub(crate) version: String,
    /// `nvmlSystemGetNVMLVersion`.
    pub(crate) nvml: String,
    /// `nvmlSystemGetCudaDriverVersion`: 1000 × major + 10 × minor.
    pub(crate) cuda: i32,
    /// Times without a loaded driver.
    pub(crate) reloads: Vec<Window>,
}

impl Driver {
    /// The driver branch: the first number of the version.
    pub(crate) fn branch(&self) -> u32 {
        let first = self.version.split('.').next().unwrap_or_default();
        first.parse().unwrap_or(u32::MAX)
    }
}

/// A limit of the memory that a cgroup can use on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// Path of the cgroup, or `namespace/pod/container`; `*` for every cgroup that is asked for, that of
    /// the caller included.
    pub(crate) cgroup: String,
    /// Soft limit in bytes; 0 for none.
    pub(crate) soft: u64,
    /// Hard limit in bytes.
    pub(crate) hard: Option<u64>,
    /// Used memory in bytes; that of the processes of the container if `None`.
    pub(crate) used: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    /// Index in NVML order.
    pub(crate) index: usize,
    pub(crate) model: &'static Model,
    /// `GPU-<UUID>`.
    pub(crate) uuid: String,
    /// Board serial number.
    pub(crate) serial: String,
    /// The number in `/dev/nvidia<minor>`.
    pub(crate) minor: u32,
    pub(crate) pci: Pci,
    /// Rate of the PCIe replay counter.
    pub(crate) replays_per_hour: f64,
    /// Ambient temperature in °C.
    pub(crate) ambient: f64,
    /// Enforced power limit in W, if it is lower than that of the model.
    pub(crate) power_limit: Option<f64>,
    /// Total framebuffer in bytes that the driver reports, if it is not that of the model.
    pub(crate) memory_total: Option<u64>,
    /// Limits of the memory that cgroups can use.
    pub(crate) memory_limits: Vec<MemoryLimit>,
    /// Times at which it has fallen off the bus.
    pub(crate) lost: Vec<Window>,
    /// Hardware faults.
    pub(crate) hardware: HardwareFaults,
    /// Whether its compute mode is "exclusive process", which the device plugin sets for MPS.
    pub(crate) exclusive_process: bool,
    /// When utilization samples are taken, and their clock.
    pub(crate) samples: samples::SampleTiming,
    /// MIG layouts, sorted by time.
    pub(crate) mig: Arc<[MigLayout]>,
    /// Indexes in [`Scenario::processes`].
    pub(crate) processes: Vec<usize>,
}

impl Gpu {
    /// The layout at `time`; `None` while MIG mode is off.
    pub(crate) fn layout(&self, time: f64) -> Option<&MigLayout> {
        self.mig.iter().find(|layout| layout.during.contains(time))
    }
}

/// A PCI address; the function is always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pci {
    pub(crate) domain: u32,
    pub(crate) bus: u32,
    pub(crate) device: u32,
}

impl Pci {
    /// `busId` of `nvmlPciInfo_t`: `00000000:1B:00.0`.
    pub(crate) fn id(self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// `busIdLegacy` of `nvmlPciInfo_t`: `0000:1B:00.0`, with a domain of four digits.
    pub(crate) fn legacy_id(self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// Parses `domain:bus:device.function` or `bus:device.function`, hexadecimal in either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str| u32::from_str_radix(part, 16).ok();
        let (rest, function) = text.rsplit_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let address = Self { domain: hex(domain)?, bus: hex(bus)?, device: hex(device)? };
        (hex(function)? == 0).then_some(address)
    }
}

/// Type of a GPU process, as `nvidia-smi` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessType {
    /// `C`
    Compute,
    /// `G`
    Graphics,
    /// `C+G`
    Both,
    /// `M`: a client of the MPS server.
    Mps,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// In the PID namespace of the host.
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// Arguments, the program first.
    pub(crate) command: Vec<String>,
    /// Content of `/proc/<pid>/cgroup` without the final newline.
    pub(crate) cgroup: String,
    /// Selects the process lists that contain it.
    pub(crate) kind: ProcessType,
    /// Indexes of its GPUs.
    pub(crate) gpus: Vec<usize>,
    /// Its MIG instance on partitioned GPUs.
    pub(crate) instance: Option<InstanceIds>,
    /// Framebuffer in bytes on each GPU; `None` if the driver does not report it.
    pub(crate) memory: Option<u64>,
    /// Utilization of the SM in percent.
    pub(crate) sm: Curve,
    /// Utilization of the memory controller in percent.
    pub(crate) mem: Curve,
    /// Utilization of the encoder in percent.
    pub(crate) enc: Curve,
    /// Utilization of the decoder in percent.
    pub(crate) dec: Curve,
    /// Utilization of the JPEG decoder in percent.
    pub(crate) jpg: Curve,
    /// Utilization of the optical flow accelerator in percent.
    pub(crate) ofa: Curve,
    /// NVLink traffic in each direction, in MiB/s.
    pub(crate) nvlink: Curve,
    /// PCIe traffic that its GPU sends, in MiB/s.
    pub(crate) pcie_tx: Curve,
    /// PCIe traffic that its GPU receives, in MiB/s.
    pub(crate) pcie_rx: Curve,
    /// Activity of the SM pipes.
    pub(crate) pipes: Pipes,
    /// Lifetime; from minus infinity if it has no start time.
    pub(crate) lifetime: Window,
    /// Time as a zombie.
    pub(crate) zombie: Option<Window>,
    /// While the proc root contains it, within its lifetime; never if `None`.
    pub(crate) in_proc: Option<Window>,
    /// Whether its files in the proc root can be read.
    pub(crate) readable: bool,
}

impl Process {
    pub(crate) fn is_zombie(&self, time: f64) -> bool {
        self.zombie.is_some_and(|zombie| zombie.contains(time))
    }

    /// While the proc root contains it.
    pub(crate) fn proc_lifetime(&self) -> Option<Window> {
        let Window { from, to } = self.lifetime;
        let shown = self.in_proc.map(|during| during.until(Some(to)))?;
        let shown = Window { from: shown.from.max(from), ..shown };
        (shown.from < shown.to).then_some(shown)
    }

    /// Whether it runs in this GPU instance of its GPU.
    pub(crate) fn runs_in(&self, instance: &GpuInstance) -> bool {
        self.instance.is_some_and(|ids| ids.gpu_instance == instance.id)
    }
}

/// An invalid sample of the process utilization buffer, returned as written here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(crate) struct InjectedSample {
    pub(crate) pid: u32,
    /// `smUtil`.
    pub(crate) sm: u32,
    /// `memUtil`.
    pub(crate) mem: u32,
    /// `encUtil`.
    pub(crate) enc: u32,
    /// `decUtil`.
    pub(crate) dec: u32,
    /// Age of its timestamp in seconds; negative for a timestamp in the future.
    pub(crate) age: f64,
}

/// Invalid samples that the driver adds to the process utilization buffer of a GPU.
#[derive(Clone, Debug)]
pub(crate) struct InjectedSamples {
    /// Index of the GPU.
    pub(crate) gpu: usize,
    pub(crate) during: Window,
    pub(crate) rows: Vec<InjectedSample>,
}

impl Scenario {
    /// All processes of a GPU, whether they exist at present or not.
    pub(crate) fn processes_of(&self, gpu: &Gpu) -> impl Iterator<Item = &Process> {
        gpu.processes.iter().filter_map(|&index| self.processes.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_address_is_parsed_in_all_its_formats() {
        let pci = Pci { domain: 0, bus: 0x1b, device: 0 };
        for text in ["00000000:1B:00.0", "0000:1b:00.0", "1b:00.0"] {
            assert_eq!(Pci::parse(text), Some(pci), "{text}");
        }
        assert_eq!(
            (pci.id().as_str(), pci.legacy_id().as_str()),
            ("00000000:1B:00.0", "0000:1B:00.0")
        );
        for invalid in ["", "1b", "1b:00", "zz:00.0", "1b:00.1"] {
            assert_eq!(Pci::parse(invalid), None, "{invalid}");
        }
    }
}
