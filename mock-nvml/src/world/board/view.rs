//! What a handle refers to at one time: a GPU, a MIG device, a GPU instance or a compute instance.

use crate::{
    scenario::{
        Gpu,
        mig::{ComputeInstance, GpuInstance, InstanceIds},
    },
    world::handles::HandleTarget,
};

/// A [`HandleTarget`] with its MIG instances as they are at one time.
#[derive(Clone, Debug)]
pub(crate) enum BoardView {
    /// A whole GPU.
    Board,
    /// A MIG device.
    MigDevice(GpuInstance, ComputeInstance),
    /// A GPU instance.
    GpuInstance(GpuInstance),
    /// A compute instance.
    ComputeInstance(GpuInstance, ComputeInstance),
}

impl BoardView {
    /// The MIG instances of `part` at `time`; `None` if they do not exist.
    pub(crate) fn of(gpu: &Gpu, part: HandleTarget, time: f64) -> Option<Self> {
        let layout = gpu.layout(time);
        let compute = |life: u64| {
            let mut devices = layout?.devices().filter(|(_, ci)| ci.generation == life);
            devices.next().map(|(gi, ci)| (gi.clone(), ci.clone()))
        };
        match part {
            HandleTarget::Board => Some(Self::Board),
            HandleTarget::MigDevice(life) => compute(life).map(|(gi, ci)| Self::MigDevice(gi, ci)),
            HandleTarget::ComputeInstance(life) => {
                compute(life).map(|(gi, ci)| Self::ComputeInstance(gi, ci))
            }
            HandleTarget::GpuInstance(life) => {
                let mut instances = layout?.instances.iter().filter(|gi| gi.generation == life);
                instances.next().cloned().map(Self::GpuInstance)
            }
        }
    }

    /// The GPU instance, or the one of the compute instance or MIG device.
    pub(crate) fn gpu_instance(&self) -> Option<&GpuInstance> {
        match self {
            Self::Board => None,
            Self::MigDevice(gi, _) | Self::GpuInstance(gi) | Self::ComputeInstance(gi, _) => {
                Some(gi)
            }
        }
    }

    /// Instance ids of the processes of a MIG device; `None` for a GPU or GPU instance.
    pub(crate) fn place(&self) -> Option<InstanceIds> {
        match self {
            Self::Board | Self::GpuInstance(_) => None,
            Self::MigDevice(gi, ci) | Self::ComputeInstance(gi, ci) => {
                Some(InstanceIds { gpu_instance: gi.id, compute_instance: ci.id })
            }
        }
    }
}
