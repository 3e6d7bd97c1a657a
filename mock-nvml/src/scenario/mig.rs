//! How a GPU is partitioned.

use super::{Gpu, Process, Window};
use crate::models::{
    MIB,
    mig::{MEMORY_SLICES, Profile, SLICES},
};

/// How a GPU is partitioned for a time. Outside of its layouts, MIG mode is off.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// When.
    pub(crate) during: Window,
    /// Its GPU instances; there may be none.
    pub(crate) instances: Vec<GpuInstance>,
}

/// A GPU instance.
#[derive(Clone, Debug)]
pub(crate) struct GpuInstance {
    /// Its id, which another one has after it.
    pub(crate) id: u32,
    /// What tells it from all others that ever have its id.
    pub(crate) life: u64,
    /// How it is cut.
    pub(crate) profile: &'static Profile,
    /// Its first memory slice.
    pub(crate) start: u32,
    /// Its compute instances, each of which makes a MIG device.
    pub(crate) compute: Vec<ComputeInstance>,
}

/// A compute instance, and the MIG device that it makes.
#[derive(Clone, Debug)]
pub(crate) struct ComputeInstance {
    /// Its id within the GPU instance.
    pub(crate) id: u32,
    /// What tells it from all others that ever have its id.
    pub(crate) life: u64,
    /// Compute slices.
    pub(crate) slices: u32,
    /// Its first compute slice within the GPU instance.
    pub(crate) start: u32,
    /// Index of the MIG device.
    pub(crate) slot: u32,
    /// `MIG-…`, of the MIG device.
    pub(crate) uuid: String,
}

/// Where in a partitioned GPU a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Id of the GPU instance.
    pub(crate) gpu_instance: u32,
    /// Id of the compute instance.
    pub(crate) compute_instance: u32,
}

/// What part of a GPU's engines an instance has: of the SM and the video engines, and of the memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction {
    /// Of the SM and the video engines.
    pub(crate) compute: f64,
    /// Of the memory.
    pub(crate) memory: f64,
}

impl Gpu {
    /// How it is partitioned at `time`; `None` when MIG mode is off.
    pub(crate) fn layout(&self, time: f64) -> Option<&Layout> {
        self.mig.iter().find(|layout| layout.during.contains(time))
    }
}

impl Layout {
    /// The GPU instance of this id.
    pub(crate) fn instance(&self, id: u32) -> Option<&GpuInstance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// All MIG devices.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.instances.iter().flat_map(|gi| gi.compute.iter().map(move |ci| (gi, ci)))
    }
}

/// Framebuffer of a GPU instance counted as used with no process there, in MiB.
const BASE_MIB: u64 = 13;

impl GpuInstance {
    /// Framebuffer counted as used with no process there, in bytes.
    pub(crate) fn base() -> u64 {
        BASE_MIB * MIB
    }

    /// Framebuffer that processes can have, in bytes.
    pub(crate) fn room(&self) -> u64 {
        self.profile.mib * MIB - Self::base()
    }

    /// What part of its GPU it has.
    pub(crate) fn fraction(&self) -> Fraction {
        let part = |of: u32, all: u32| f64::from(of) / f64::from(all);
        Fraction {
            compute: part(self.profile.slices, SLICES),
            memory: part(self.profile.memory_slices, MEMORY_SLICES),
        }
    }

    /// Whether a process of its GPU runs in it.
    pub(crate) fn holds(&self, process: &Process) -> bool {
        process.place.is_some_and(|place| place.gpu_instance == self.id)
    }

    /// What a MIG device is called: `3g.40gb`, or `1c.3g.40gb` if it has a part of the instance only.
    pub(crate) fn device_profile(&self, ci: &ComputeInstance) -> String {
        let whole = ci.slices == self.profile.slices;
        let part = if whole { String::new() } else { format!("{}c.", ci.slices) };
        part + self.profile.name
    }

    /// Multiprocessors of one of its compute instances.
    pub(crate) fn multiprocessors(&self, ci: &ComputeInstance) -> u32 {
        self.profile.multiprocessors * ci.slices / self.profile.slices
    }
}
