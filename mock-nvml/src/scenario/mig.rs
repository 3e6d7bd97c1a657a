//! MIG layouts of a GPU.

use crate::{
    models::{
        MIB,
        mig::{MEMORY_SLICES, Profile, SLICES},
    },
    window::Window,
};

/// The MIG instances of a GPU during a time window. Outside of its layouts, MIG mode is off.
#[derive(Clone, Debug)]
pub(crate) struct MigLayout {
    pub(crate) during: Window,
    /// May be empty: MIG mode is on without instances.
    pub(crate) instances: Vec<GpuInstance>,
}

#[derive(Clone, Debug)]
pub(crate) struct GpuInstance {
    /// GPU instance id; later instances may reuse it.
    pub(crate) id: u32,
    /// Distinguishes it from other instances with the same id.
    pub(crate) generation: u64,
    pub(crate) profile: &'static Profile,
    /// First memory slice.
    pub(crate) start: u32,
    /// Each compute instance is one MIG device.
    pub(crate) compute: Vec<ComputeInstance>,
}

/// A compute instance, which is also a MIG device.
#[derive(Clone, Debug)]
pub(crate) struct ComputeInstance {
    /// Id within the GPU instance.
    pub(crate) id: u32,
    /// Distinguishes it from other instances with the same id.
    pub(crate) generation: u64,
    /// Number of compute slices.
    pub(crate) slices: u32,
    /// First compute slice within the GPU instance.
    pub(crate) start: u32,
    /// Index of the MIG device.
    pub(crate) slot: u32,
    /// `MIG-<UUID>` of the MIG device.
    pub(crate) uuid: String,
}

/// The MIG instance in which a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InstanceIds {
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
}

/// How a scheduler's annotation identifies MIG devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MigForm {
    /// `HAMi` since 2.10: UUID and instance ids.
    HamiIdentity,
    /// `HAMi` before 2.10: index of the MIG device.
    HamiIndex,
    /// Volcano, mode `mig`: index of the MIG device.
    Volcano,
}

/// A MIG device that a scheduler allocates.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerMig {
    /// Index of the GPU.
    pub(crate) gpu: usize,
    /// UUID of the MIG device.
    pub(crate) uuid: String,
    /// Index of the MIG device.
    pub(crate) index: u32,
    pub(crate) ids: InstanceIds,
    pub(crate) profile: &'static Profile,
    /// First memory slice.
    pub(crate) start: u32,
}

impl SchedulerMig {
    /// The memory in the name of the profile, in MiB, which the templates of the schedulers have.
    pub(crate) fn template_mib(&self) -> u64 {
        let gib = self.profile.name.split_once('.').map_or("", |(_, size)| size);
        gib.split("gb").next().and_then(|gib| gib.parse::<u64>().ok()).unwrap_or_default() * 1_024
    }
}

/// Fractions of the GPU resources that an instance has, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EngineFraction {
    /// SMs and video engines.
    pub(crate) compute: f64,
    /// Memory slices.
    pub(crate) memory: f64,
}

/// The times at which MIG mode of a GPU with these layouts is off.
pub(crate) fn unpartitioned_windows(layouts: &[MigLayout]) -> Vec<Window> {
    let mut from = f64::NEG_INFINITY;
    let mut gaps = vec![];
    for layout in layouts {
        gaps.push(Window { from, to: layout.during.from });
        from = layout.during.to;
    }
    gaps.push(Window { from, to: f64::INFINITY });
    gaps.retain(|gap| gap.from < gap.to);
    gaps
}

impl MigLayout {
    /// The GPU instance with this id.
    pub(crate) fn instance(&self, id: u32) -> Option<&GpuInstance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// All MIG devices: GPU instance and compute instance.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.instances.iter().flat_map(|gi| gi.compute.iter().map(move |ci| (gi, ci)))
    }
}

/// Framebuffer of a GPU instance that is used without any process, in MiB.
const BASE_MIB: u64 = 13;

impl GpuInstance {
    /// Framebuffer used without any process, in bytes.
    pub(crate) fn reserved_bytes() -> u64 {
        BASE_MIB * MIB
    }

    /// Framebuffer available to processes, in bytes.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.profile.mib * MIB - Self::reserved_bytes()
    }

    /// The fractions of its GPU that it has.
    pub(crate) fn fraction(&self) -> EngineFraction {
        let part = |of: u32, all: u32| f64::from(of) / f64::from(all);
        EngineFraction {
            compute: part(self.profile.slices, SLICES),
            memory: part(self.profile.memory_slices, MEMORY_SLICES),
        }
    }

    /// Profile of a MIG device: `3g.40gb`, or `1c.3g.40gb` if it is only a part of the GPU instance.
    pub(crate) fn device_profile(&self, ci: &ComputeInstance) -> String {
        let whole = ci.slices == self.profile.slices;
        let part = if whole { String::new() } else { format!("{}c.", ci.slices) };
        part + self.profile.name
    }

    /// Multiprocessor count of one of its compute instances.
    pub(crate) fn multiprocessors(&self, ci: &ComputeInstance) -> u32 {
        self.profile.multiprocessors * ci.slices / self.profile.slices
    }
}
