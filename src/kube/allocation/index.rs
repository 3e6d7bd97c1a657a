//! Index of the node's devices by UUID, minor number and MIG instance.

use std::collections::HashMap;
use std::sync::Arc;

use super::{AllocatableGpu, AllocatableMig, positive_mib};
use crate::kube::annotations::MigName;
use crate::kube::device_id::DeviceName;
use crate::kube::sharing::SharingEvidence;
use crate::model::MigPlacement;

/// A GPU or MIG device.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexedDevice<'a> {
    pub(super) uuid: &'a Arc<str>,
    /// MiB.
    pub(super) framebuffer: Option<f64>,
    pub(super) sharing: SharingEvidence,
}

/// Result of a lookup.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeviceMatch<'a> {
    Found(IndexedDevice<'a>),
    /// An unknown or ambiguous MIG device of this GPU.
    PartitionOf(&'a Arc<str>),
    Unknown,
}

#[derive(Debug)]
pub(super) struct DeviceIndex<'a> {
    devices: HashMap<&'a str, IndexedDevice<'a>>,
    gpus: HashMap<&'a str, &'a AllocatableGpu>,
    /// None if several GPUs have this minor number.
    minors: HashMap<u32, Option<&'a AllocatableGpu>>,
}

impl<'a> DeviceIndex<'a> {
    pub(super) fn new(devices: &'a [AllocatableGpu]) -> Self {
        let mut index =
            Self { devices: HashMap::new(), gpus: HashMap::new(), minors: HashMap::new() };
        for gpu in devices {
            index.devices.insert(&gpu.uuid, gpu_device(gpu));
            index.gpus.insert(&gpu.uuid, gpu);
            for mig in &gpu.migs {
                index.devices.insert(&mig.uuid, mig_device(gpu, mig));
            }
            if let Some(minor) = gpu.minor {
                index.minors.entry(minor).and_modify(|gpu| *gpu = None).or_insert(Some(gpu));
            }
        }
        index
    }

    pub(super) fn framebuffer(&self, device: &str) -> Option<f64> {
        self.devices.get(device)?.framebuffer
    }

    pub(super) fn by_uuid(&self, uuid: &str) -> DeviceMatch<'a> {
        match (self.gpus.get(uuid), self.devices.get(uuid)) {
            (Some(gpu), _) => whole_gpu(gpu),
            (None, Some(mig)) => DeviceMatch::Found(*mig),
            (None, None) => DeviceMatch::Unknown,
        }
    }

    /// Whether this is the UUID of a GPU, not of a MIG device.
    pub(super) fn is_gpu(&self, uuid: &str) -> bool {
        self.gpus.contains_key(uuid)
    }

    /// The only MIG device in the GPU instance of `gpu` with this placement.
    pub(super) fn by_placement(&self, gpu: &str, placement: MigPlacement) -> DeviceMatch<'a> {
        let matches = |mig: &&AllocatableMig| mig.placement == Some(placement);
        self.gpus.get(gpu).map_or(DeviceMatch::Unknown, |gpu| unique_mig(gpu, matches))
    }

    pub(super) fn by_minor(&self, minor: u32) -> DeviceMatch<'a> {
        let gpu = self.minors.get(&minor).copied().flatten();
        gpu.map_or(DeviceMatch::Unknown, whole_gpu)
    }

    /// The MIG device of a GPU that `mig` identifies. `mib` is the memory that an annotation states for
    /// it.
    pub(super) fn by_mig(&self, gpu: &str, mig: &MigName, mib: Option<f64>) -> DeviceMatch<'a> {
        let matches = |device: &&AllocatableMig| match mig {
            MigName::Pending => false,
            MigName::Identity { uuid, gpu_instance, compute_instance } => {
                let instances = (device.gpu_instance, device.compute_instance);
                *device.uuid == **uuid && instances == (*gpu_instance, *compute_instance)
            }
            MigName::Index(index) => device.index == *index && has_memory(device, mib),
        };
        self.gpus.get(gpu).map_or(DeviceMatch::Unknown, |gpu| unique_mig(gpu, matches))
    }

    /// UUIDs of a device and of its MIG devices.
    pub(super) fn with_partitions(&self, uuid: &Arc<str>) -> Vec<Arc<str>> {
        let migs = self.gpus.get(&**uuid).into_iter().flat_map(|gpu| &gpu.migs);
        migs.map(|mig| Arc::clone(&mig.uuid)).chain([Arc::clone(uuid)]).collect()
    }

    pub(super) fn by_name(&self, name: DeviceName<'_>) -> DeviceMatch<'a> {
        match name {
            DeviceName::Gpu(uuid) | DeviceName::Mig(uuid) => self.by_uuid(uuid),
            DeviceName::LegacyMig { gpu, gpu_instance, compute_instance } => {
                let matches = |mig: &&AllocatableMig| {
                    (mig.gpu_instance, mig.compute_instance) == (gpu_instance, compute_instance)
                };
                self.gpus.get(gpu).map_or(DeviceMatch::Unknown, |gpu| unique_mig(gpu, matches))
            }
            DeviceName::Minor(minor) => self.by_minor(minor),
            DeviceName::OnlyGpu => {
                let mut gpus = self.gpus.values().filter(|gpu| gpu.is_only);
                gpus.next().map_or(DeviceMatch::Unknown, |gpu| whole_gpu(gpu))
            }
            DeviceName::MinorMig { minor, gpu_instance } => {
                let matches = |mig: &&AllocatableMig| mig.gpu_instance == gpu_instance;
                let gpu = self.minors.get(&minor).copied().flatten();
                gpu.map_or(DeviceMatch::Unknown, |gpu| unique_mig(gpu, matches))
            }
        }
    }
}

/// The only MIG device that matches; if none or several match, only the GPU is known.
fn unique_mig(gpu: &AllocatableGpu, matches: impl Fn(&&AllocatableMig) -> bool) -> DeviceMatch<'_> {
    let mut matching = gpu.migs.iter().filter(matches);
    match (matching.next(), matching.next()) {
        (Some(mig), None) => DeviceMatch::Found(mig_device(gpu, mig)),
        _ => DeviceMatch::PartitionOf(&gpu.uuid),
    }
}

/// Whether a MIG device has the memory of a scheduler's template: its size in GiB, of which the
/// driver makes 80 to 100 % available. Sizes of different profiles differ by half at least.
fn has_memory(mig: &AllocatableMig, template_mib: Option<f64>) -> bool {
    let (Some(mib), Some(template)) = (mig.framebuffer_mib, template_mib) else { return false };
    (0.8..=1.05).contains(&(mib / template))
}

/// A GPU without MIG devices. Workloads can use one with MIG devices only in part.
fn whole_gpu(gpu: &AllocatableGpu) -> DeviceMatch<'_> {
    if gpu.migs.is_empty() {
        DeviceMatch::Found(gpu_device(gpu))
    } else {
        DeviceMatch::PartitionOf(&gpu.uuid)
    }
}

fn gpu_device(gpu: &AllocatableGpu) -> IndexedDevice<'_> {
    let framebuffer = positive_mib(gpu.framebuffer_mib);
    IndexedDevice { uuid: &gpu.uuid, framebuffer, sharing: gpu.sharing }
}

fn mig_device<'a>(gpu: &AllocatableGpu, mig: &'a AllocatableMig) -> IndexedDevice<'a> {
    let framebuffer = positive_mib(mig.framebuffer_mib);
    IndexedDevice { uuid: &mig.uuid, framebuffer, sharing: gpu.sharing }
}
