//! Label names and values of device, process and node series, in each dialect.

mod set;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::set::Labels;
use crate::model::{AllocateMode, Claim, Gpu, MigDevice, NO_CLAIM};

/// Label of series that are repeated for each HPC job on the device.
pub const HPC_JOB: &str = "hpc_job";
/// Label of device series that are divided by class of owner.
pub const OWNER: &str = "owner";

/// Label naming scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Names of the GPU exporter of Alibaba Cloud ACK.
    Ack,
    /// Names of NVIDIA's dcgm-exporter, of one version or of several at once.
    DcgmExporter(Vec<Compat>),
}

/// A range of versions of dcgm-exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    /// Up to 4.8.2.
    V4_8,
    /// 4.8.3 and 4.8.4.
    V4_8_4,
    /// 4.9 and later.
    V4_9,
}

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

/// Options of dcgm-exporter for label names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// Omit the host name (`--no-hostname`).
    pub no_hostname: bool,
    /// Use the old names for UUID, pod, namespace and container (`--use-old-namespace`).
    pub old_namespace: bool,
    /// Replace blanks in the model name by hyphens (`--replace-blanks-in-model-name`).
    pub replace_blanks: bool,
}

/// Label values of a device.
struct DeviceLabelValues<'a> {
    index: String,
    file: String,
    model: Cow<'a, str>,
    instance: Vec<(&'static str, String)>,
}

impl LabelSchema {
    /// Sets the node name, also as the host name.
    #[must_use]
    pub fn with_node_name(self, name: &str) -> Self {
        Self { hostname: name.to_owned(), node_name: name.to_owned(), ..self }
    }

    /// All label names of a dialect, with any options: those of a MIG device that is shared,
    /// claimed and used by a process.
    #[must_use]
    pub fn names(dialect: &Dialect) -> BTreeSet<String> {
        let dialect = match dialect {
            Dialect::Ack => Dialect::Ack,
            Dialect::DcgmExporter(_) => {
                Dialect::DcgmExporter(vec![Compat::V4_8, Compat::V4_8_4, Compat::V4_9])
            }
        };
        let none: Arc<str> = "".into();
        let gpu = Gpu {
            index: 0,
            minor: None,
            uuid: Arc::clone(&none),
            name: Arc::clone(&none),
            pci_bus_id: Arc::clone(&none),
        };
        let mig = MigDevice {
            uuid: Arc::clone(&none),
            profile: none,
            gpu_instance: 0,
            compute_instance: 0,
            multiprocessors: None,
            shares_instance: true,
        };
        let owner = OwnerLabels {
            uid: Some(""),
            claim: Some(&NO_CLAIM),
            replica: Some(String::new()),
            ..OwnerLabels::default()
        };
        let input = DeviceLabelInput { owner: Some(&owner), ..DeviceLabelInput::default() };
        let workload = WorkloadLabels {
            process: Some(ProcessLabelValues::default()),
            ..WorkloadLabels::default()
        };
        let mut names = BTreeSet::new();
        for old_namespace in [false, true] {
            let schema = Self {
                dialect: dialect.clone(),
                hostname: String::new(),
                node_name: String::new(),
                extra: Vec::new(),
                options: LabelOptions { old_namespace, ..LabelOptions::default() },
            };
            for labels in [
                schema.device(&gpu, Some(&mig), &input),
                schema.workload(&gpu, Some(&mig), &workload, &[]),
                schema.node(),
            ] {
                names.extend(labels.pairs().into_iter().map(|(name, _)| name.to_owned()));
            }
        }
        names
    }

    /// Labels of a device series: of a GPU, or of the GPU instance of a MIG device.
    #[must_use]
    pub fn device(
        &self,
        gpu: &Gpu,
        mig: Option<&MigDevice>,
        input: &DeviceLabelInput<'_>,
    ) -> Labels {
        let device = self.device_values(gpu, mig);
        let mut labels = self.device_pairs(gpu, &device, input.info_labels);
        if let Some(owner) = &input.owner {
            labels.extend(self.owner_pairs(owner));
        }
        labels.extend(input.extra_labels);
        self.finish(labels)
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
        let (device, compute) = (self.device_values(gpu, mig), compute_instance(mig));
        let compute = compute.iter().map(|(key, value)| (*key, value.as_str()));
        let (namespace, pod, container) = workload.container.unwrap_or_default();
        let owner = OwnerLabels { namespace, pod, container, ..OwnerLabels::default() };
        let mut labels = Vec::with_capacity(16);
        match &self.dialect {
            Dialect::Ack => {
                labels.extend([
                    ("AllocateMode", workload.mode.label()),
                    ("ContainerName", container),
                    ("NamespaceName", namespace),
                    ("NodeName", &self.node_name),
                    ("PodName", pod),
                ]);
                labels.extend(workload.process.iter().flat_map(|process| {
                    [
                        ("ProcessId", process.pid),
                        ("ProcessName", process.name),
                        ("ProcessType", process.kind),
                    ]
                }));
                labels.extend([
                    ("UUID", &*gpu.uuid),
                    ("device", &device.file),
                    ("gpu", &device.index),
                    ("modelName", &device.model),
                ]);
                labels.extend(device.instance.iter().map(|(key, value)| (*key, value.as_str())));
                labels.extend(compute);
            }
            Dialect::DcgmExporter(_) => {
                labels = self.device_pairs(gpu, &device, info_labels);
                labels.extend(compute);
                labels.extend(self.owner_pairs(&owner));
                labels.push(("allocate_mode", workload.mode.label()));
                labels.extend(workload.process.iter().flat_map(|process| {
                    [
                        ("process_id", process.pid),
                        ("process_name", process.name),
                        ("process_type", process.kind),
                    ]
                }));
            }
        }
        self.finish(labels)
    }

    /// Labels of a node series that is not repeated per GPU.
    #[must_use]
    pub fn node(&self) -> Labels {
        self.finish(vec![("NodeName", &self.node_name)])
    }

    fn device_values<'a>(&self, gpu: &'a Gpu, mig: Option<&MigDevice>) -> DeviceLabelValues<'a> {
        let model = if self.options.replace_blanks {
            gpu.name.split_whitespace().collect::<Vec<_>>().join("-").into()
        } else {
            Cow::Borrowed(&*gpu.name)
        };
        DeviceLabelValues {
            index: gpu.index.to_string(),
            file: device_file(gpu),
            model,
            instance: instance(mig),
        }
    }

    /// Labels of the device, with its info labels.
    fn device_pairs<'a>(
        &'a self,
        gpu: &'a Gpu,
        device: &'a DeviceLabelValues<'_>,
        info_labels: &'a [(Arc<str>, Arc<str>)],
    ) -> Vec<(&'a str, &'a str)> {
        let instance = device.instance.iter().map(|(key, value)| (*key, value.as_str()));
        let info_labels = info_labels.iter().map(|(key, value)| (&**key, &**value));
        let mut labels = Vec::with_capacity(20);
        match &self.dialect {
            Dialect::Ack => {
                if !self.options.no_hostname {
                    labels.push(("Hostname", &*self.hostname));
                }
                labels.extend([
                    ("NodeName", &*self.node_name),
                    ("UUID", &gpu.uuid),
                    ("device", &device.file),
                    ("gpu", &device.index),
                    ("modelName", &device.model),
                ]);
                labels.extend(instance);
            }
            Dialect::DcgmExporter(compat) => {
                let uuid = if self.options.old_namespace { "uuid" } else { "UUID" };
                labels.extend([
                    ("gpu", &*device.index),
                    (uuid, &gpu.uuid),
                    ("pci_bus_id", &gpu.pci_bus_id),
                    ("device", &device.file),
                    ("modelName", &device.model),
                ]);
                labels.extend(instance);
                if !self.options.no_hostname {
                    labels.extend(host_keys(compat).map(|key| (key, &*self.hostname)));
                }
            }
        }
        labels.extend(info_labels);
        labels
    }

    fn owner_pairs<'a>(
        &self,
        owner: &'a OwnerLabels<'a>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let [container, namespace, pod]: [&'a str; 3] = self.owner_keys();
        let uid = owner.uid.map(|uid| ("pod_uid", uid));
        let replica = owner.replica.as_deref().map(|replica| ("vgpu", replica));
        [(container, owner.container)]
            .into_iter()
            .chain(owner.claim.into_iter().flat_map(claim_pairs))
            .chain([(namespace, owner.namespace), (pod, owner.pod)])
            .chain(uid)
            .chain(replica)
    }

    fn owner_keys(&self) -> [&'static str; 3] {
        match self.dialect {
            Dialect::Ack => ["ContainerName", "NamespaceName", "PodName"],
            Dialect::DcgmExporter(_) if self.options.old_namespace => {
                ["container_name", "pod_namespace", "pod_name"]
            }
            Dialect::DcgmExporter(_) => ["container", "namespace", "pod"],
        }
    }

    fn finish<'a>(&'a self, labels: Vec<(&'a str, &'a str)>) -> Labels {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Labels::from_pairs(labels.into_iter().chain(extra))
    }
}

fn claim_pairs(claim: &Claim) -> [(&str, &str); 7] {
    [
        ("dra_claim_name", &claim.name),
        ("dra_claim_namespace", &claim.namespace),
        ("dra_device_name", &claim.device),
        ("dra_driver_name", &claim.driver),
        ("dra_mig_device_uuid", &claim.mig_uuid),
        ("dra_mig_profile", &claim.mig_profile),
        ("dra_pool_name", &claim.pool),
    ]
}

/// Label names for the host name, of all these versions.
fn host_keys<'a>(compat: &[Compat]) -> impl Iterator<Item = &'a str> + use<'a> {
    let old = compat.contains(&Compat::V4_8);
    let new = compat.iter().any(|compat| *compat != Compat::V4_8);
    old.then_some("Hostname").into_iter().chain(new.then_some("hostname"))
}

/// Labels of the GPU instance, named as in dcgm-exporter.
fn instance(mig: Option<&MigDevice>) -> Vec<(&'static str, String)> {
    mig.map_or_else(Vec::new, |mig| {
        vec![("GPU_I_PROFILE", mig.profile.to_string()), ("GPU_I_ID", mig.gpu_instance.to_string())]
    })
}

/// Label of the compute instance, if its GPU instance has several.
fn compute_instance(mig: Option<&MigDevice>) -> Option<(&'static str, String)> {
    let mig = mig.filter(|mig| mig.shares_instance)?;
    Some(("GPU_C_ID", mig.compute_instance.to_string()))
}

fn device_file(gpu: &Gpu) -> String {
    gpu.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NO_CLAIM;

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
            gpu_instance: 2,
            compute_instance: 1,
            multiprocessors: Some(42),
            shares_instance: true,
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
        let names = LabelSchema::names(&Dialect::Ack);
        for name in ["namespace", "pod", "node", "service", "job", "instance", "container"] {
            assert!(!names.contains(name), "{name}");
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
