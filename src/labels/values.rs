//! Label values of one series.

use std::sync::Arc;

use super::set::LabelValue;
use super::table::LabelField;
use crate::model::{AllocateMode, Claim, Gpu, MigDevice};

/// Label values of a container or process on a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkloadLabels<'a> {
    /// How the device is allocated to the container.
    pub mode: AllocateMode,
    /// Namespace, pod and container; `None` gives empty labels.
    pub container: Option<(&'a str, &'a str, &'a str)>,
    /// The process; `None` for series without process labels.
    pub process: Option<ProcessLabelValues<'a>>,
}

/// Label values of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessLabelValues<'a> {
    /// Value of `ProcessId` (`process_id`).
    pub pid: &'a str,
    /// Value of `ProcessName` (`process_name`).
    pub name: &'a str,
    /// Value of `ProcessType` (`process_type`).
    pub kind: &'a str,
}

/// Label values of the container that a device is allocated to; empty without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerLabels<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// Name of the container.
    pub container: &'a str,
    /// UID of the pod, if enabled.
    pub uid: Option<&'a str>,
    /// The resource claim that allocated the device, if enabled.
    pub claim: Option<&'a Claim>,
    /// Replica of the device, if enabled.
    pub replica: Option<String>,
}

/// Labels of a device series besides those of the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceLabelInput<'a> {
    /// Info labels of the device: name and value.
    pub info_labels: &'a [(Arc<str>, Arc<str>)],
    /// Labels of the container that the device is allocated to; `None` if disabled.
    pub owner: Option<&'a OwnerLabels<'a>>,
    /// Labels that distinguish this series from others of the device.
    pub extra_labels: &'a [(&'a str, &'a str)],
}

/// What the labels of one series describe.
pub(super) struct LabelValues<'a> {
    pub hostname: &'a str,
    pub node_name: &'a str,
    /// Replace blanks in the model name by hyphens.
    pub replace_blanks: bool,
    pub gpu: &'a Gpu,
    pub mig: Option<&'a MigDevice>,
    pub owner: Option<&'a OwnerLabels<'a>>,
    pub workload: &'a WorkloadLabels<'a>,
}

impl<'a> LabelValues<'a> {
    /// The value of a label; `None` if the series does not have the label.
    pub(super) fn get(&self, field: LabelField) -> Option<LabelValue<'a>> {
        let (gpu, owner, process) = (self.gpu, self.owner, self.workload.process);
        Some(match field {
            LabelField::AllocateMode => LabelValue::Text(self.workload.mode.label()),
            LabelField::Claim(of) => LabelValue::Text(of(owner?.claim?)),
            LabelField::ComputeInstance => {
                LabelValue::Number(self.mig.filter(|mig| mig.shares_instance)?.compute_instance)
            }
            LabelField::Container => LabelValue::Text(owner?.container),
            LabelField::DeviceFile => {
                gpu.minor.map_or(LabelValue::Text(""), LabelValue::DeviceFile)
            }
            LabelField::Hostname => LabelValue::Text(self.hostname),
            LabelField::Index => LabelValue::Number(gpu.index),
            LabelField::InfoLabels => return None,
            LabelField::Instance => LabelValue::Number(self.mig?.gpu_instance),
            LabelField::InstanceProfile => LabelValue::Text(&self.mig?.profile),
            LabelField::Model if self.replace_blanks => {
                let words: Vec<_> = gpu.name.split_whitespace().collect();
                LabelValue::Owned(words.join("-"))
            }
            LabelField::Model => LabelValue::Text(&gpu.name),
            LabelField::Namespace => LabelValue::Text(owner?.namespace),
            LabelField::NodeName => LabelValue::Text(self.node_name),
            LabelField::PciBusId => LabelValue::Text(&gpu.pci_bus_id),
            LabelField::Pod => LabelValue::Text(owner?.pod),
            LabelField::PodUid => LabelValue::Text(owner?.uid?),
            LabelField::ProcessId => LabelValue::Text(process?.pid),
            LabelField::ProcessName => LabelValue::Text(process?.name),
            LabelField::ProcessType => LabelValue::Text(process?.kind),
            LabelField::Replica => LabelValue::Text(owner?.replica.as_deref()?),
            LabelField::Uuid => LabelValue::Text(&gpu.uuid),
        })
    }
}
