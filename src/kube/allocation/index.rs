//! The node's devices by everything that names them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DeviceFacts, MigFacts, memory};
use crate::kube::device_id::Named;

/// A GPU or a MIG device of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) uuid: &'a Arc<str>,
    pub(super) framebuffer: Option<f64>,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lookup<'a> {
    Found(Target<'a>),
    /// A part of this GPU that we do not see.
    PartOf(&'a Arc<str>),
    Unknown,
}

#[derive(Debug)]
pub(super) struct Index<'a> {
    targets: HashMap<&'a str, Target<'a>>,
    gpus: HashMap<&'a str, &'a DeviceFacts>,
    /// None where two GPUs say the same.
    minors: HashMap<u32, Option<&'a DeviceFacts>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(devices: &'a [DeviceFacts]) -> Self {
        let mut index =
            Self { targets: HashMap::new(), gpus: HashMap::new(), minors: HashMap::new() };
        for gpu in devices {
            index.targets.insert(&gpu.uuid, whole(gpu));
            index.gpus.insert(&gpu.uuid, gpu);
            for mig in &gpu.migs {
                index.targets.insert(&mig.uuid, part(mig));
            }
            if let Some(minor) = gpu.minor {
                index.minors.entry(minor).and_modify(|gpu| *gpu = None).or_insert(Some(gpu));
            }
        }
        index
    }

    pub(super) fn framebuffer(&self, device: &str) -> Option<f64> {
        self.targets.get(device)?.framebuffer
    }

    pub(super) fn uuid(&self, uuid: &str) -> Lookup<'a> {
        self.targets.get(uuid).map_or(Lookup::Unknown, |target| Lookup::Found(*target))
    }

    pub(super) fn minor(&self, minor: u32) -> Lookup<'a> {
        match self.minors.get(&minor) {
            Some(Some(gpu)) => Lookup::Found(whole(gpu)),
            Some(None) | None => Lookup::Unknown,
        }
    }

    pub(super) fn named(&self, named: Named<'_>) -> Lookup<'a> {
        match named {
            Named::Gpu(uuid) | Named::Mig(uuid) => self.uuid(uuid),
            Named::LegacyMig { gpu, gpu_instance, compute_instance } => {
                let same = |mig: &&MigFacts| {
                    (mig.gpu_instance, mig.compute_instance) == (gpu_instance, compute_instance)
                };
                self.gpus.get(gpu).map_or(Lookup::Unknown, |gpu| the_one(gpu, same))
            }
            Named::Minor(minor) => self.minor(minor),
            Named::MinorMig { minor, gpu_instance } => {
                let same = |mig: &&MigFacts| mig.gpu_instance == gpu_instance;
                let gpu = self.minors.get(&minor).copied().flatten();
                gpu.map_or(Lookup::Unknown, |gpu| the_one(gpu, same))
            }
        }
    }
}

/// The one MIG device that is meant; if none or several are, only the GPU is known.
fn the_one(gpu: &DeviceFacts, same: impl Fn(&&MigFacts) -> bool) -> Lookup<'_> {
    let mut meant = gpu.migs.iter().filter(same);
    match (meant.next(), meant.next()) {
        (Some(mig), None) => Lookup::Found(part(mig)),
        _ => Lookup::PartOf(&gpu.uuid),
    }
}

fn whole(gpu: &DeviceFacts) -> Target<'_> {
    Target { uuid: &gpu.uuid, framebuffer: memory(gpu.framebuffer_mib) }
}

fn part(mig: &MigFacts) -> Target<'_> {
    Target { uuid: &mig.uuid, framebuffer: memory(mig.framebuffer_mib) }
}
