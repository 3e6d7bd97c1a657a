//! Label names and values of device, process and node series, in each dialect.

mod dialect;
mod set;
mod table;
mod values;

use std::sync::Arc;

pub use self::dialect::{Compat, Dialect, LabelOptions};
pub use self::set::Labels;
use self::set::{LabelEncoder, LabelValue};
use self::table::{Conditions, DialectLabels, LabelField, LabelRow, NODE_NAME};
use self::values::LabelValues;
pub use self::values::{DeviceLabelInput, OwnerLabels, ProcessLabelValues, WorkloadLabels};
use crate::model::{Gpu, MigDevice};

/// Label of series that are repeated for each HPC job on the device.
pub const HPC_JOB: &str = "hpc_job";
/// Label of device series that are divided by class of owner.
pub const OWNER: &str = "owner";

/// Label naming scheme, and label values that all series have in common.
#[derive(Clone, Debug)]
pub struct LabelSchema {
    /// Label naming scheme.
    pub dialect: Dialect,
    /// Value of `Hostname`.
    pub hostname: String,
    /// Value of `NodeName`: the name of the Kubernetes node; empty without a cluster.
    pub node_name: String,
    /// `--extra-label`, appended to every GPU series.
    pub extra: Vec<(String, String)>,
    /// Options of the naming scheme.
    pub options: LabelOptions,
}

impl LabelSchema {
    /// Sets the node name, also as the host name.
    #[must_use]
    pub fn with_node_name(self, name: &str) -> Self {
        Self { hostname: name.to_owned(), node_name: name.to_owned(), ..self }
    }

    /// All label names of a dialect, with any options.
    pub fn names(dialect: &Dialect) -> impl Iterator<Item = &'static str> + use<> {
        DialectLabels::of(dialect).names()
    }

    /// Labels of a device series: of a GPU, or of the GPU instance of a MIG device.
    #[must_use]
    pub fn device(
        &self,
        gpu: &Gpu,
        mig: Option<&MigDevice>,
        input: &DeviceLabelInput<'_>,
    ) -> Labels {
        let rows = DialectLabels::of(&self.dialect).device;
        let none = WorkloadLabels::default();
        let values = self.values(gpu, mig, input.owner, &none);
        self.encode(rows, &values, input.info_labels, input.extra_labels)
    }

    /// Labels of the series of a process or a container on a device.
    #[must_use]
    pub fn workload(
        &self,
        gpu: &Gpu,
        mig: Option<&MigDevice>,
        workload: &WorkloadLabels<'_>,
        info_labels: &[(Arc<str>, Arc<str>)],
    ) -> Labels {
        let rows = DialectLabels::of(&self.dialect).workload;
        let (namespace, pod, container) = workload.container.unwrap_or_default();
        let owner = OwnerLabels { namespace, pod, container, ..OwnerLabels::default() };
        let values = self.values(gpu, mig, Some(&owner), workload);
        self.encode(rows, &values, info_labels, &[])
    }

    /// Label of the exporter's own series: in the ACK dialect they have the node's name, as all others do,
    /// since the scrape job has no label for it.
    #[must_use]
    pub fn exporter_label(&self) -> Option<(&'static str, String)> {
        let is_labelled = self.dialect == Dialect::Ack && !self.node_name.is_empty();
        is_labelled.then(|| (NODE_NAME, self.node_name.clone()))
    }

    /// Labels of a node series that is not repeated per GPU.
    #[must_use]
    pub fn node(&self) -> Labels {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Labels::from_pairs([(NODE_NAME, self.node_name.as_str())].into_iter().chain(extra))
    }

    fn values<'a>(
        &'a self,
        gpu: &'a Gpu,
        mig: Option<&'a MigDevice>,
        owner: Option<&'a OwnerLabels<'a>>,
        workload: &'a WorkloadLabels<'a>,
    ) -> LabelValues<'a> {
        LabelValues {
            hostname: &self.hostname,
            node_name: &self.node_name,
            replace_blanks: self.options.replace_blanks,
            gpu,
            mig,
            owner,
            workload,
        }
    }

    fn encode(
        &self,
        rows: &[&[LabelRow]],
        values: &LabelValues<'_>,
        info_labels: &[(Arc<str>, Arc<str>)],
        extra_labels: &[(&str, &str)],
    ) -> Labels {
        let conditions = Conditions::of(&self.dialect, self.options);
        let mut labels = LabelEncoder::default();
        for row in rows.iter().copied().flatten().filter(|row| conditions.meet(row.when)) {
            if let LabelField::InfoLabels = row.field {
                for (name, value) in info_labels {
                    labels.push(name, LabelValue::Text(value));
                }
            } else if let Some(value) = values.get(row.field) {
                labels.push(row.name, value);
            }
        }
        for (name, value) in extra_labels {
            labels.push(name, LabelValue::Text(value));
        }
        for (name, value) in &self.extra {
            labels.push(name, LabelValue::Text(value));
        }
        labels.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AllocateMode, NO_CLAIM};

    const DCGM: [Compat; 1] = [Compat::V4_8];

    fn dcgm(compat: &[Compat]) -> LabelSchema {
        schema(Dialect::DcgmExporter(compat.to_vec()))
    }

    fn info_labels() -> [(Arc<str>, Arc<str>); 1] {
        [("DCGM_FI_DRIVER_VERSION".into(), "550".into())]
    }

    const NO_INPUT: DeviceLabelInput<'_> =
        DeviceLabelInput { info_labels: &[], owner: None, extra_labels: &[] };

    fn schema(dialect: Dialect) -> LabelSchema {
        LabelSchema {
            options: LabelOptions::default(),
            dialect,
            hostname: "host-1".to_owned(),
            node_name: "node-1".to_owned(),
            extra: vec![("pool".to_owned(), "a".to_owned())],
        }
    }

    fn gpu() -> Gpu {
        Gpu {
            index: 3,
            minor: Some(5),
            uuid: "GPU-1".into(),
            name: "NVIDIA L20".into(),
            pci_bus_id: "00000000:1B:00.0".into(),
        }
    }

    fn mig() -> MigDevice {
        MigDevice {
            uuid: "MIG-1".into(),
            profile: "3g.40gb".into(),
            index: 0,
            gpu_instance: 2,
            compute_instance: 1,
            multiprocessors: Some(42),
            shares_instance: true,
            placement: None,
        }
    }

    const WORKER: WorkloadLabels<'_> = WorkloadLabels {
        mode: AllocateMode::Exclusive,
        container: Some(("team-a", "train-0", "main")),
        process: Some(ProcessLabelValues { pid: "7", name: "python", kind: "C" }),
    };

    fn keys(labels: &Labels) -> Vec<&str> {
        labels.pairs().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn ack_dialect_uses_no_target_label_of_the_scrape_job() {
        let names: Vec<_> = LabelSchema::names(&Dialect::Ack).collect();
        for name in ["namespace", "pod", "node", "service", "job", "instance", "container"] {
            assert!(!names.contains(&name), "{name}");
        }
    }

    #[test]
    fn device_label_is_the_device_file_with_the_minor_number() {
        let labels = schema(Dialect::Ack).device(&gpu(), None, &NO_INPUT);
        let value = |key: &str| labels.value(key).unwrap();
        assert_eq!((value("gpu"), value("device")), ("3".to_owned(), "nvidia5".to_owned()));
    }

    #[test]
    fn order_and_names_are_those_of_each_dcgm_exporter_version() {
        let owner = OwnerLabels {
            namespace: "a",
            pod: "p",
            container: "c",
            uid: Some("u"),
            ..OwnerLabels::default()
        };
        let more = [("err_code", "79")];
        let labels = |schema: &LabelSchema| {
            let input = DeviceLabelInput {
                info_labels: &info_labels(),
                owner: Some(&owner),
                extra_labels: &more,
            };
            keys(&schema.device(&gpu(), Some(&mig()), &input)).join(" ")
        };
        let old = "gpu UUID pci_bus_id device modelName GPU_I_PROFILE GPU_I_ID Hostname \
                   DCGM_FI_DRIVER_VERSION container namespace pod pod_uid err_code pool";
        assert_eq!(labels(&dcgm(&DCGM)), old);
        let claimed =
            OwnerLabels { claim: Some(&NO_CLAIM), replica: Some("1".to_owned()), ..owner };
        let input = DeviceLabelInput {
            info_labels: &info_labels(),
            owner: Some(&claimed),
            extra_labels: &more,
        };
        let keys = keys(&dcgm(&DCGM).device(&gpu(), Some(&mig()), &input)).join(" ");
        assert!(keys.ends_with(
            "container dra_claim_name dra_claim_namespace dra_device_name dra_driver_name \
             dra_mig_device_uuid dra_mig_profile dra_pool_name namespace pod pod_uid vgpu err_code pool"
        ));
        assert_eq!(labels(&dcgm(&[Compat::V4_8_4])), old.replace("Hostname", "hostname"));
        let both = old.replace("Hostname", "Hostname hostname");
        assert_eq!(labels(&dcgm(&[Compat::V4_8, Compat::V4_9])), both);
        let options = LabelOptions { no_hostname: true, old_namespace: true, replace_blanks: true };
        let with_options = LabelSchema { options, ..dcgm(&DCGM) };
        assert_eq!(
            labels(&with_options),
            "gpu uuid pci_bus_id device modelName GPU_I_PROFILE GPU_I_ID DCGM_FI_DRIVER_VERSION \
             container_name pod_namespace pod_name pod_uid err_code pool"
        );
        let set = with_options.device(&gpu(), None, &NO_INPUT);
        assert_eq!(set.value("modelName").as_deref(), Some("NVIDIA-L20"));
    }

    #[test]
    fn mig_device_has_the_labels_of_its_gpu_and_instance() {
        let (ack, dcgm) = (schema(Dialect::Ack), dcgm(&DCGM));
        assert_eq!(
            keys(&ack.device(&gpu(), Some(&mig()), &NO_INPUT))[5..],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "pool"]
        );
        assert_eq!(
            keys(&dcgm.device(&gpu(), Some(&mig()), &NO_INPUT))[4..8],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname"]
        );
        let process = |mig: &MigDevice| ack.workload(&gpu(), Some(mig), &WORKER, &[]);
        assert!(keys(&process(&mig())).contains(&"GPU_C_ID"));
        let only = MigDevice { shares_instance: false, ..mig() };
        assert!(!keys(&process(&only)).contains(&"GPU_C_ID"));
    }

    #[test]
    fn process_has_pod_labels_and_container_has_no_process_labels() {
        let schema = schema(Dialect::Ack);
        let labels = |workload| schema.workload(&gpu(), None, &workload, &[]);
        let text = |labels: Labels| {
            let pairs = labels.pairs().into_iter().map(|(k, v)| format!("{k}={v}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            text(labels(WORKER)),
            "AllocateMode=exclusive ContainerName=main NamespaceName=team-a NodeName=node-1 \
             PodName=train-0 ProcessId=7 ProcessName=python ProcessType=C UUID=GPU-1 \
             device=nvidia5 gpu=3 modelName=NVIDIA L20 pool=a"
        );
        let container = WorkloadLabels { process: None, ..WORKER };
        assert!(!text(labels(container)).contains("Process"));
        assert!(
            text(labels(WorkloadLabels::default())).contains("AllocateMode=none ContainerName= ")
        );
    }
}
