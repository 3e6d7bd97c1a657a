//! Label names of each dialect, in the order of the exposition.

use super::dialect::{Compat, Dialect, LabelOptions};
use crate::model::Claim;

/// Labels of the kinds of series of a dialect, in parts.
pub(super) struct DialectLabels {
    /// Series of a GPU or a GPU instance.
    pub device: &'static [&'static [LabelRow]],
    /// Series of a process or a container on a device.
    pub workload: &'static [&'static [LabelRow]],
}

/// The label of series of the node, in each dialect.
pub(super) const NODE_NAME: &str = "NodeName";

/// One label, or the place of the info labels.
pub(super) struct LabelRow {
    /// Label name; empty for the info labels.
    pub name: &'static str,
    pub field: LabelField,
    /// Conditions that all have to hold.
    pub when: Conditions,
}

/// Value of a label.
#[derive(Clone, Copy)]
pub(super) enum LabelField {
    AllocateMode,
    Claim(fn(&Claim) -> &str),
    ComputeInstance,
    Container,
    DeviceFile,
    Hostname,
    Index,
    InfoLabels,
    Instance,
    InstanceProfile,
    Model,
    Namespace,
    NodeName,
    PciBusId,
    Pod,
    PodUid,
    ProcessId,
    ProcessName,
    ProcessType,
    Replica,
    Uuid,
}

/// A set of conditions on flags and versions.
#[derive(Clone, Copy)]
pub(super) struct Conditions(u8);

const ALWAYS: Conditions = Conditions(0);
/// The host name is labelled as in dcgm-exporter up to 4.8.2, and in ACK.
const OLD_HOSTNAME: Conditions = Conditions(1);
/// The host name is labelled as in dcgm-exporter 4.8.3 and later.
const NEW_HOSTNAME: Conditions = Conditions(2);
/// `--use-old-namespace`.
const OLD_NAMES: Conditions = Conditions(4);
/// No `--use-old-namespace`.
const NEW_NAMES: Conditions = Conditions(8);

impl Conditions {
    /// The conditions that hold with this configuration.
    pub(super) fn of(dialect: &Dialect, options: LabelOptions) -> Self {
        let (old, new) = match dialect {
            Dialect::Ack => (true, false),
            Dialect::DcgmExporter(compat) => (
                compat.contains(&Compat::V4_8),
                compat.iter().any(|compat| *compat != Compat::V4_8),
            ),
        };
        let bit = |condition: Self, holds: bool| if holds { condition.0 } else { 0 };
        let names = if options.old_namespace { OLD_NAMES } else { NEW_NAMES };
        let hostname = bit(OLD_HOSTNAME, old) | bit(NEW_HOSTNAME, new);
        Self(names.0 | if options.no_hostname { 0 } else { hostname })
    }

    /// Whether all of `required` hold.
    pub(super) fn meet(self, required: Self) -> bool {
        self.0 & required.0 == required.0
    }
}

impl DialectLabels {
    pub(super) fn of(dialect: &Dialect) -> &'static Self {
        match dialect {
            Dialect::Ack => &ACK,
            Dialect::DcgmExporter(_) => &DCGM_EXPORTER,
        }
    }

    /// All label names.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let rows = self.device.iter().chain(self.workload).copied().flatten();
        rows.map(|row| row.name).filter(|name| !name.is_empty()).chain([NODE_NAME])
    }
}

/// The resource claim that allocated a device.
const CLAIM: &[LabelRow] = &[
    row("dra_claim_name", LabelField::Claim(|claim| &claim.name)),
    row("dra_claim_namespace", LabelField::Claim(|claim| &claim.namespace)),
    row("dra_device_name", LabelField::Claim(|claim| &claim.device)),
    row("dra_driver_name", LabelField::Claim(|claim| &claim.driver)),
    row("dra_mig_device_uuid", LabelField::Claim(|claim| &claim.mig_uuid)),
    row("dra_mig_profile", LabelField::Claim(|claim| &claim.mig_profile)),
    row("dra_pool_name", LabelField::Claim(|claim| &claim.pool)),
];

/// The device of a series in the dialect of ACK.
const ACK_DEVICE: &[LabelRow] = &[
    row("UUID", LabelField::Uuid),
    row("device", LabelField::DeviceFile),
    row("gpu", LabelField::Index),
    row("modelName", LabelField::Model),
    row("GPU_I_PROFILE", LabelField::InstanceProfile),
    row("GPU_I_ID", LabelField::Instance),
];

/// The device of a series in the dialect of dcgm-exporter.
const DCGM_DEVICE: &[LabelRow] = &[
    row("gpu", LabelField::Index),
    row_when("UUID", LabelField::Uuid, NEW_NAMES),
    row_when("uuid", LabelField::Uuid, OLD_NAMES),
    row("pci_bus_id", LabelField::PciBusId),
    row("device", LabelField::DeviceFile),
    row("modelName", LabelField::Model),
    row("GPU_I_PROFILE", LabelField::InstanceProfile),
    row("GPU_I_ID", LabelField::Instance),
    row_when("Hostname", LabelField::Hostname, OLD_HOSTNAME),
    row_when("hostname", LabelField::Hostname, NEW_HOSTNAME),
    row("", LabelField::InfoLabels),
];

const ACK: DialectLabels = DialectLabels {
    device: &[
        &[
            row_when("Hostname", LabelField::Hostname, OLD_HOSTNAME),
            row(NODE_NAME, LabelField::NodeName),
        ],
        ACK_DEVICE,
        &[row("", LabelField::InfoLabels), row("ContainerName", LabelField::Container)],
        CLAIM,
        &[
            row("NamespaceName", LabelField::Namespace),
            row("PodName", LabelField::Pod),
            row("pod_uid", LabelField::PodUid),
            row("vgpu", LabelField::Replica),
        ],
    ],
    workload: &[
        &[
            row("AllocateMode", LabelField::AllocateMode),
            row("ContainerName", LabelField::Container),
            row("NamespaceName", LabelField::Namespace),
            row(NODE_NAME, LabelField::NodeName),
            row("PodName", LabelField::Pod),
            row("ProcessId", LabelField::ProcessId),
            row("ProcessName", LabelField::ProcessName),
            row("ProcessType", LabelField::ProcessType),
        ],
        ACK_DEVICE,
        &[row("GPU_C_ID", LabelField::ComputeInstance)],
    ],
};

const DCGM_EXPORTER: DialectLabels = DialectLabels {
    device: &[
        DCGM_DEVICE,
        &[
            row_when("container", LabelField::Container, NEW_NAMES),
            row_when("container_name", LabelField::Container, OLD_NAMES),
        ],
        CLAIM,
        &[
            row_when("namespace", LabelField::Namespace, NEW_NAMES),
            row_when("pod_namespace", LabelField::Namespace, OLD_NAMES),
            row_when("pod", LabelField::Pod, NEW_NAMES),
            row_when("pod_name", LabelField::Pod, OLD_NAMES),
            row("pod_uid", LabelField::PodUid),
            row("vgpu", LabelField::Replica),
        ],
    ],
    workload: &[
        DCGM_DEVICE,
        &[
            row("GPU_C_ID", LabelField::ComputeInstance),
            row_when("container", LabelField::Container, NEW_NAMES),
            row_when("container_name", LabelField::Container, OLD_NAMES),
            row_when("namespace", LabelField::Namespace, NEW_NAMES),
            row_when("pod_namespace", LabelField::Namespace, OLD_NAMES),
            row_when("pod", LabelField::Pod, NEW_NAMES),
            row_when("pod_name", LabelField::Pod, OLD_NAMES),
            row("allocate_mode", LabelField::AllocateMode),
            row("process_id", LabelField::ProcessId),
            row("process_name", LabelField::ProcessName),
            row("process_type", LabelField::ProcessType),
        ],
    ],
};

const fn row(name: &'static str, field: LabelField) -> LabelRow {
    LabelRow { name, field, when: ALWAYS }
}

const fn row_when(name: &'static str, field: LabelField, when: Conditions) -> LabelRow {
    LabelRow { name, field, when }
}
