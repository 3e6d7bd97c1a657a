//! How the value of a row is read.

use crate::model::{
    AllocatedFraction, ContainerAllocation, Gpu, Missing, NodeSample, Reading, Usage,
};
use crate::nvml::Session;
use crate::nvml::inventory::DriverInfo;
use crate::nvml::probe::{MinMeanMax, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;

/// How a value of a device is read.
#[derive(Clone, Copy, Debug)]
pub enum DeviceSource {
    /// A converted field value. All fields of a device are read with one `nvmlDeviceGetFieldValues`
    /// call.
    Field(Field, fn(f64) -> Reading),
    /// Increase per second of the sum of some fields, converted.
    Rate(&'static [Field], fn(f64) -> f64),
    /// A converted GPM metric (`nvmlGpmMetricId_t`); all metrics of a device are read with one
    /// call.
    Gpm(u32, fn(f64) -> f64),
    /// A GPM metric or, on boards without GPM, the increase per second of the sum of some fields.
    GpmOrRate(u32, fn(f64) -> f64, &'static [Field], fn(f64) -> f64),
    /// A separate NVML call, which several rows may share.
    Read(fn(&Probe<'_>) -> Reading),
    /// As `Read`. While the series of a shared GPU are repeated for each container, the value is
    /// that of the container, from its usage.
    ReadOrUsage(fn(&Probe<'_>) -> Reading, ProcessSource),
    /// From minimum, mean and maximum of the GPU utilization samples since the last cycle.
    Sampled(fn(MinMeanMax) -> f64),
}

impl DeviceSource {
    /// The NVML fields that the value is computed from.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Field(field, _) => std::slice::from_ref(field),
            Self::Rate(fields, _) | Self::GpmOrRate(_, _, fields, _) => fields,
            Self::Read(_) | Self::ReadOrUsage(..) | Self::Gpm(..) | Self::Sampled(_) => &[],
        }
    }

    /// Id of the GPM metric, if the value is one.
    #[must_use]
    pub fn gpm(&self) -> Option<u32> {
        match self {
            Self::Gpm(id, _) | Self::GpmOrRate(id, ..) => Some(*id),
            Self::Field(..)
            | Self::Rate(..)
            | Self::Read(_)
            | Self::ReadOrUsage(..)
            | Self::Sampled(_) => None,
        }
    }

    /// The value of a container that replaces the one of a shared GPU, if the row has one.
    #[must_use]
    pub fn usage(&self) -> Option<ProcessSource> {
        match self {
            Self::ReadOrUsage(_, usage) => Some(*usage),
            Self::Field(..)
            | Self::Rate(..)
            | Self::Read(_)
            | Self::Gpm(..)
            | Self::GpmOrRate(..)
            | Self::Sampled(_) => None,
        }
    }
}

/// Value of a process, or of all processes of a container, from its usage.
pub type ProcessSource = fn(&Usage) -> Reading;

/// Value of a container from its allocation.
pub type ContainerSource = fn(&ContainerAllocation) -> Reading;

/// Value of a device from the fraction of it that is allocated.
pub type AllocatedFractionSource = fn(&AllocatedFraction) -> Reading;

/// A value that is accumulated over cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccumulatedMetric {
    /// SM time of a process.
    ProcessSmTime,
    /// SM time of a container.
    ContainerSmTime,
    /// Time in which a container did not use its device.
    ContainerIdleTime,
    /// Time since a container last used its device.
    ContainerLastActive,
    /// Energy of a GPU that is attributed to a container.
    ContainerEnergy,
    /// Energy of a GPU by owner of the SM time.
    Energy,
}

impl AccumulatedMetric {
    /// What a family has one series per.
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::ProcessSmTime => "process",
            Self::Energy => "device",
            Self::ContainerSmTime
            | Self::ContainerIdleTime
            | Self::ContainerLastActive
            | Self::ContainerEnergy => "container",
        }
    }

    /// Whether the value is energy, so that the energy counter has to be read.
    #[must_use]
    pub fn is_energy(self) -> bool {
        matches!(self, Self::ContainerEnergy | Self::Energy)
    }
}

/// How a label value of every series of a GPU is read.
#[derive(Clone, Copy, Debug)]
pub enum InfoLabelSource {
    /// From the driver.
    Driver(fn(&DriverInfo) -> &str),
    /// From the GPU's identity.
    Gpu(fn(&Gpu) -> &str),
    /// A separate NVML call, made once per session.
    Read(fn(&Session, Handle) -> Result<String, Missing>),
}

/// Value of the node from its readings.
pub type NodeSource = fn(&NodeSample) -> Reading;
