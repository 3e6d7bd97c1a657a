//! The use of each pod over all devices of the node.

use std::collections::{BTreeMap, BTreeSet};

use super::{ContainerView, GpuView, NodeView, Number, PartitionView};
use crate::model::AllocateMode;

/// The use of one pod. A sum is absent if a part of it is.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTotals {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Indexes of the GPUs.
    pub gpus: BTreeSet<u32>,
    /// Number of devices: GPUs and MIG devices.
    pub devices: usize,
    /// How the devices are allocated.
    pub modes: BTreeSet<Allocation>,
    /// Percent of the SM time of one device, summed over the devices.
    pub sm_percent: Number,
    /// Used framebuffer.
    pub memory_used_mib: Number,
    /// Number of processes.
    pub processes: usize,
}

/// How a device is allocated to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allocation {
    /// The container uses the device without an allocation.
    None,
    /// It is unknown whether it has one.
    Unknown,
    /// It has the device alone.
    Exclusive,
    /// It has a share.
    Share,
}

impl Allocation {
    /// The allocation of a container.
    #[must_use]
    pub fn of(container: &ContainerView) -> Self {
        match container.mode {
            None => Self::Unknown,
            Some(AllocateMode::None) => Self::None,
            Some(AllocateMode::Exclusive) => Self::Exclusive,
            Some(AllocateMode::Share) => Self::Share,
        }
    }

    /// A short text.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "not allocated",
            Self::Unknown => "unknown",
            Self::Exclusive => "exclusive",
            Self::Share => "share",
        }
    }
}

impl NodeView {
    /// The pods of all devices: those with the most memory first, then by name.
    #[must_use]
    pub fn pods(&self) -> Vec<PodTotals> {
        let mut pods = BTreeMap::<(&str, &str), PodTotals>::new();
        for gpu in &self.gpus {
            for part in &gpu.parts {
                add(&mut pods, gpu, part);
            }
        }
        let mut pods: Vec<PodTotals> = pods.into_values().collect();
        let memory = |pod: &PodTotals| pod.memory_used_mib.known().unwrap_or(-1.0);
        pods.sort_by(|one, other| memory(other).total_cmp(&memory(one)));
        pods
    }
}

fn add<'a>(
    pods: &mut BTreeMap<(&'a str, &'a str), PodTotals>,
    gpu: &'a GpuView,
    part: &'a PartitionView,
) {
    let mut seen = BTreeSet::new();
    for container in &part.containers {
        let name = (container.namespace.as_str(), container.pod.as_str());
        let pod = pods.entry(name).or_insert_with(|| PodTotals {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            gpus: BTreeSet::new(),
            devices: 0,
            modes: BTreeSet::new(),
            sm_percent: Number::Known(0.0),
            memory_used_mib: Number::Known(0.0),
            processes: 0,
        });
        pod.gpus.insert(gpu.index);
        pod.devices += usize::from(seen.insert(name));
        pod.modes.insert(Allocation::of(container));
        pod.sm_percent.add(&container.sm_percent);
        pod.memory_used_mib.add(&container.memory_used_mib);
        pod.processes += container.processes.len();
    }
}

impl Number {
    /// Adds a number; the sum is absent if one of them is.
    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Known(sum), Self::Known(value)) => *sum += value,
            (Self::Known(_), absent @ Self::Absent { .. }) => *self = absent.clone(),
            (Self::Absent { .. }, _) => {}
        }
    }
}
