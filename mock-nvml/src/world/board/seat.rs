//! What of a GPU a board is: all of it, or a part.

use super::Board;
use crate::{
    code::{Answer, Code},
    scenario::{
        Gpu,
        mig::{ComputeInstance, GpuInstance, Layout, Place},
    },
    world::Part,
};

/// What of a GPU a handle means, as it is at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Seat {
    /// All of it.
    Board,
    /// A MIG device.
    MigDevice(GpuInstance, ComputeInstance),
    /// A GPU instance.
    GpuInstance(GpuInstance),
    /// A compute instance.
    ComputeInstance(GpuInstance, ComputeInstance),
}

impl Seat {
    /// What a part of a GPU is at `time`, if it is.
    pub(crate) fn of(gpu: &Gpu, part: Part, time: f64) -> Option<Self> {
        let layout = gpu.layout(time);
        let compute = |life: u64| {
            let mut devices = layout?.devices().filter(|(_, ci)| ci.life == life);
            devices.next().map(|(gi, ci)| (gi.clone(), ci.clone()))
        };
        match part {
            Part::Board => Some(Self::Board),
            Part::MigDevice(life) => compute(life).map(|(gi, ci)| Self::MigDevice(gi, ci)),
            Part::ComputeInstance(life) => {
                compute(life).map(|(gi, ci)| Self::ComputeInstance(gi, ci))
            }
            Part::GpuInstance(life) => {
                let mut instances = layout?.instances.iter().filter(|gi| gi.life == life);
                instances.next().cloned().map(Self::GpuInstance)
            }
        }
    }

    /// The GPU instance it is or is in.
    pub(crate) fn gpu_instance(&self) -> Option<&GpuInstance> {
        match self {
            Self::Board => None,
            Self::MigDevice(gi, _) | Self::GpuInstance(gi) | Self::ComputeInstance(gi, _) => {
                Some(gi)
            }
        }
    }

    /// Where the processes of a MIG device run.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::Board | Self::GpuInstance(_) => None,
            Self::MigDevice(gi, ci) | Self::ComputeInstance(gi, ci) => {
                Some(Place { gpu_instance: gi.id, compute_instance: ci.id })
            }
        }
    }
}

impl Board {
    /// The same GPU, but that part of it.
    pub(crate) fn seated(self, seat: Seat) -> Self {
        Self { seat, ..self }
    }

    /// What of the GPU it is.
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// How the GPU is partitioned now; `None` when MIG mode is off.
    pub(crate) fn layout(&self) -> Option<&Layout> {
        self.gpu.layout(self.now.world)
    }

    /// The same of a whole GPU that must be partitioned.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` when MIG mode is off, `INVALID_ARGUMENT` for a part of a GPU.
    pub(crate) fn partitioned(&self) -> Answer<&Layout> {
        match self.seat {
            Seat::Board => self.layout().ok_or(Code::NOT_SUPPORTED),
            Seat::MigDevice(..) | Seat::GpuInstance(_) | Seat::ComputeInstance(..) => {
                Err(Code::INVALID_ARGUMENT)
            }
        }
    }

    /// Whether MIG mode is on.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` where there is none.
    pub(crate) fn mig_mode(&self) -> Answer<bool> {
        if self.model().mig().is_empty() {
            return Err(Code::NOT_SUPPORTED);
        }
        Ok(self.layout().is_some())
    }

    /// The MIG device that it is.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a whole GPU, `INVALID_ARGUMENT` for what is no device.
    pub(crate) fn mig_device(&self) -> Answer<(&GpuInstance, &ComputeInstance)> {
        match &self.seat {
            Seat::Board => Err(Code::NOT_SUPPORTED),
            Seat::MigDevice(gi, ci) => Ok((gi, ci)),
            Seat::GpuInstance(_) | Seat::ComputeInstance(..) => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// Its name as NVML tells it.
    pub(crate) fn name(&self) -> String {
        let name = self.model().name;
        match &self.seat {
            Seat::MigDevice(gi, ci) => format!("{name} MIG {}", gi.device_profile(ci)),
            Seat::Board | Seat::GpuInstance(_) | Seat::ComputeInstance(..) => name.to_owned(),
        }
    }

    /// Its UUID.
    pub(crate) fn uuid(&self) -> String {
        self.mig_device().map_or_else(|_| self.gpu.uuid.clone(), |(_, ci)| ci.uuid.clone())
    }
}
