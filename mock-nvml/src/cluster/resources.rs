//! Extended resources of the device plugins: their names, and the resource limits of a container.

use std::collections::BTreeMap;

use crate::scenario::{
    Gpu,
    cluster::{GpuAllocation, GpuShare},
    mig::{MigForm, SchedulerMig},
};

/// Resource of the NVIDIA, GKE and `HAMi` plugins.
pub(crate) const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// Resource of the ACK GPU sharing plugin, in units of 1 GiB.
pub(crate) const ACK_MEMORY: &str = "aliyun.com/gpu-mem";
const ACK_CORES: &str = "aliyun.com/gpu-core.percentage";
/// Resource of Volcano.
pub(crate) const VOLCANO: &str = "volcano.sh/vgpu-number";

/// MIG strategy of the NVIDIA device plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MigStrategy {
    /// MIG devices are [`GPU_RESOURCE`] resources.
    Single,
    /// One resource per profile.
    Mixed,
}

impl MigStrategy {
    /// The resource name of a MIG device.
    pub(crate) fn resource(self, profile: &str) -> String {
        match self {
            Self::Single => GPU_RESOURCE.to_owned(),
            Self::Mixed => format!("nvidia.com/mig-{}", profile.replace('+', ".")),
        }
    }
}

/// Number of [`ACK_MEMORY`] units of a GPU: its memory in GiB.
pub(crate) fn gib_units(gpu: &Gpu) -> u64 {
    gpu.model.total_mib / 1_024
}

/// The resource limits of a container with this allocation.
pub(crate) fn limits(allocation: &GpuAllocation) -> BTreeMap<String, String> {
    let whole = |count: usize| vec![(GPU_RESOURCE, count.to_string())];
    let sum = |of: &mut dyn Iterator<Item = u32>| of.map(u64::from).sum::<u64>().to_string();
    let limits = match allocation {
        GpuAllocation::Claim(claim) if claim.extended => whole(claim.devices.len()),
        GpuAllocation::Nothing | GpuAllocation::Claim(_) => vec![],
        GpuAllocation::Whole(gpus) | GpuAllocation::Slices(gpus, ..) => whole(gpus.len()),
        GpuAllocation::Gke(ids) => whole(ids.len()),
        GpuAllocation::Mig(ids) => return mig_limits(ids),
        GpuAllocation::Ack(gpus, gib, cores) => {
            let memory = sum(&mut gpus.iter().map(|_| *gib));
            let cores = cores.map(|cores| (ACK_CORES, sum(&mut gpus.iter().map(|_| cores))));
            [(ACK_MEMORY, memory)].into_iter().chain(cores).collect()
        }
        GpuAllocation::AckV1(_, gib) => vec![(ACK_MEMORY, gib.to_string())],
        GpuAllocation::Hami(shares) => {
            let first = shares.first();
            let each = |of: fn(&GpuShare) -> u32| first.map(of).unwrap_or_default().to_string();
            vec![
                (GPU_RESOURCE, shares.len().to_string()),
                ("nvidia.com/gpumem", each(|share| share.mib)),
                ("nvidia.com/gpucores", each(|share| share.cores)),
            ]
        }
        GpuAllocation::SchedulerMig(form, devices) => {
            let mib = devices.first().map(SchedulerMig::template_mib).unwrap_or_default();
            let (resource, memory) = match form {
                MigForm::HamiIdentity | MigForm::HamiIndex => (GPU_RESOURCE, "nvidia.com/gpumem"),
                MigForm::Volcano => (VOLCANO, "volcano.sh/vgpu-memory"),
            };
            vec![(resource, devices.len().to_string()), (memory, mib.to_string())]
        }
        GpuAllocation::Koordinator(shares) => vec![
            ("koordinator.sh/gpu-core", sum(&mut shares.iter().map(|share| share.cores))),
            ("koordinator.sh/gpu-memory", sum(&mut shares.iter().map(|share| share.mib)) + "Mi"),
        ],
        GpuAllocation::Volcano(shares) => vec![
            (VOLCANO, shares.len().to_string()),
            ("volcano.sh/vgpu-memory", sum(&mut shares.iter().map(|share| share.mib))),
            ("volcano.sh/vgpu-cores", sum(&mut shares.iter().map(|share| share.cores))),
        ],
    };
    limits.into_iter().map(|(resource, amount)| (resource.to_owned(), amount)).collect()
}

/// Number of MIG devices per resource, from pairs of resource and UUID.
fn mig_limits(devices: &[(String, String)]) -> BTreeMap<String, String> {
    let count = |resource: &String| devices.iter().filter(|(other, _)| other == resource).count();
    devices.iter().map(|(resource, _)| (resource.clone(), count(resource).to_string())).collect()
}
