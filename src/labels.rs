//! One label schema per scope and dialect.

mod set;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::set::Labels;
use crate::model::{AllocateMode, Claim, Gpu, MigDevice, NO_CLAIM};

/// The label of series that are repeated for each job of a batch system.
pub const HPC_JOB: &str = "hpc_job";
/// The label of what is divided among the owners of a device's processes.
pub const OWNER: &str = "owner";

/// Whose dashboards and rules the label names are made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The GPU exporter of Alibaba Cloud ACK.
    Ack,
    /// NVIDIA's dcgm-exporter, of one version or of several at once.
    DcgmExporter(Vec<Compat>),
}

/// Which version of dcgm-exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    /// Until 4.8.2.
    V4_8,
    /// 4.8.3 and 4.8.4.
    V4_8_4,
    /// Since 4.9.
    V4_9,
}

/// Whom a series on a device is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// How the container was given the device.
    pub mode: AllocateMode,
    /// Namespace, pod and container; empty where there are none.
    pub holder: Option<(&'a str, &'a str, &'a str)>,
    /// The process; none for the series of what a container was given.
    pub face: Option<Face<'a>>,
}

/// What tells a process from others, as label values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Face<'a> {
    /// `ProcessId`.
    pub pid: &'a str,
    /// `ProcessName`.
    pub name: &'a str,
    /// `ProcessType`.
    pub kind: &'a str,
}

/// Whose a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held<'a> {
    /// Namespace of the pod; empty where nobody holds the device.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// The container.
    pub container: &'a str,
    /// The pod's UID, where it is asked for.
    pub uid: Option<&'a str>,
    /// The claim that the device was given by, where that is asked for.
    pub claim: Option<&'a Claim>,
    /// Which replica of the device, where that is asked for.
    pub replica: Option<&'a str>,
}

/// What is told of a device beside what it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Texts that label all its series.
    pub texts: &'a [(Arc<str>, Arc<str>)],
    /// Whose it is; none where that is not asked for.
    pub held: Option<Held<'a>>,
    /// What tells this series from others of the device.
    pub more: &'a [(&'a str, &'a str)],
}

/// What all label sets of this exporter have in common.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Which names.
    pub dialect: Dialect,
    /// Value of `Hostname`.
    pub hostname: String,
    /// Value of `NodeName`: the Kubernetes node's name, empty where there is no cluster.
    pub node_name: String,
    /// `--extra-label`, appended to every GPU series.
    pub extra: Vec<(String, String)>,
    /// Lesser choices.
    pub style: Style,
}

/// Choices that dcgm-exporter offers within its dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// No label names the host.
    pub no_hostname: bool,
    /// The names of the first versions for UUID, pod, namespace and container.
    pub old_namespace: bool,
    /// Hyphens instead of blanks in the model.
    pub replace_blanks: bool,
}

/// A device as label values.
struct Facts<'a> {
    index: String,
    file: String,
    model: Cow<'a, str>,
    instance: Vec<(&'static str, String)>,
}

impl Schema {
    /// The same for a node of this name, which stands in for the host's, too.
    #[must_use]
    pub fn of_node(self, name: &str) -> Self {
        Self { hostname: name.to_owned(), node_name: name.to_owned(), ..self }
    }

    /// Every label name that series of a dialect have in any of its styles: those of a MIG device that
    /// is shared, claimed and used by a process, as they are written.
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
        let held =
            Held { uid: Some(""), claim: Some(&NO_CLAIM), replica: Some(""), ..Held::default() };
        let about = About { held: Some(held), ..About::default() };
        let subject = Subject { face: Some(Face::default()), ..Subject::default() };
        let mut names = BTreeSet::new();
        for old_namespace in [false, true] {
            let schema = Self {
                dialect: dialect.clone(),
                hostname: String::new(),
                node_name: String::new(),
                extra: Vec::new(),
                style: Style { old_namespace, ..Style::default() },
            };
            for labels in [
                schema.device(&gpu, Some(&mig), &about),
                schema.subject(&gpu, Some(&mig), &subject, &[]),
                schema.node(),
            ] {
                names.extend(labels.pairs().into_iter().map(|(name, _)| name.to_owned()));
            }
        }
        names
    }

    /// Labels of a device's series: of a GPU, or of the GPU instance that a MIG device is in.
    #[must_use]
    pub fn device(&self, gpu: &Gpu, mig: Option<&MigDevice>, about: &About<'_>) -> Labels {
        let facts = self.facts(gpu, mig);
        let mut labels = self.of_device(gpu, &facts, about.texts);
        if let Some(held) = &about.held {
            labels.extend(self.of_holder(held));
        }
        labels.extend(about.more);
        self.finish(labels)
    }

    /// Labels of the series of a process or a container on a device.
    #[must_use]
    pub fn subject(
        &self,
        gpu: &Gpu,
        mig: Option<&MigDevice>,
        subject: &Subject<'_>,
        texts: &[(Arc<str>, Arc<str>)],
    ) -> Labels {
        let (facts, compute) = (self.facts(gpu, mig), compute_instance(mig));
        let compute = compute.iter().map(|(key, value)| (*key, value.as_str()));
        let (namespace, pod, container) = subject.holder.unwrap_or_default();
        let held = Held { namespace, pod, container, ..Held::default() };
        let mut labels = Vec::with_capacity(16);
        match &self.dialect {
            Dialect::Ack => {
                labels.extend([
                    ("AllocateMode", subject.mode.label()),
                    ("ContainerName", container),
                    ("NamespaceName", namespace),
                    ("NodeName", &self.node_name),
                    ("PodName", pod),
                ]);
                labels.extend(subject.face.iter().flat_map(|face| {
                    [
                        ("ProcessId", face.pid),
                        ("ProcessName", face.name),
                        ("ProcessType", face.kind),
                    ]
                }));
                labels.extend([
                    ("UUID", &*gpu.uuid),
                    ("device", &facts.file),
                    ("gpu", &facts.index),
                    ("modelName", &facts.model),
                ]);
                labels.extend(facts.instance.iter().map(|(key, value)| (*key, value.as_str())));
                labels.extend(compute);
            }
            Dialect::DcgmExporter(_) => {
                labels = self.of_device(gpu, &facts, texts);
                labels.extend(compute);
                labels.extend(self.of_holder(&held));
                labels.push(("allocate_mode", subject.mode.label()));
                labels.extend(subject.face.iter().flat_map(|face| {
                    [
                        ("process_id", face.pid),
                        ("process_name", face.name),
                        ("process_type", face.kind),
                    ]
                }));
            }
        }
        self.finish(labels)
    }

    /// Labels of a node's series, where it has one only.
    #[must_use]
    pub fn node(&self) -> Labels {
        self.finish(vec![("NodeName", &self.node_name)])
    }

    fn facts<'a>(&self, gpu: &'a Gpu, mig: Option<&MigDevice>) -> Facts<'a> {
        let model = if self.style.replace_blanks {
            gpu.name.split_whitespace().collect::<Vec<_>>().join("-").into()
        } else {
            Cow::Borrowed(&*gpu.name)
        };
        Facts {
            index: gpu.index.to_string(),
            file: device_file(gpu),
            model,
            instance: instance(mig),
        }
    }

    /// What a device is, with its texts.
    fn of_device<'a>(
        &'a self,
        gpu: &'a Gpu,
        facts: &'a Facts<'_>,
        texts: &'a [(Arc<str>, Arc<str>)],
    ) -> Vec<(&'a str, &'a str)> {
        let instance = facts.instance.iter().map(|(key, value)| (*key, value.as_str()));
        let texts = texts.iter().map(|(key, value)| (&**key, &**value));
        let mut labels = Vec::with_capacity(20);
        match &self.dialect {
            Dialect::Ack => {
                if !self.style.no_hostname {
                    labels.push(("Hostname", &*self.hostname));
                }
                labels.extend([
                    ("NodeName", &*self.node_name),
                    ("UUID", &gpu.uuid),
                    ("device", &facts.file),
                    ("gpu", &facts.index),
                    ("modelName", &facts.model),
                ]);
                labels.extend(instance);
            }
            Dialect::DcgmExporter(compat) => {
                let uuid = if self.style.old_namespace { "uuid" } else { "UUID" };
                labels.extend([
                    ("gpu", &*facts.index),
                    (uuid, &gpu.uuid),
                    ("pci_bus_id", &gpu.pci_bus_id),
                    ("device", &facts.file),
                    ("modelName", &facts.model),
                ]);
                labels.extend(instance);
                if !self.style.no_hostname {
                    labels.extend(host_keys(compat).map(|key| (key, &*self.hostname)));
                }
            }
        }
        labels.extend(texts);
        labels
    }

    fn of_holder<'a>(&self, held: &Held<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let [container, namespace, pod]: [&'a str; 3] = self.holder_keys();
        let uid = held.uid.map(|uid| ("pod_uid", uid));
        let replica = held.replica.map(|replica| ("vgpu", replica));
        [(container, held.container)]
            .into_iter()
            .chain(held.claim.into_iter().flat_map(of_claim))
            .chain([(namespace, held.namespace), (pod, held.pod)])
            .chain(uid)
            .chain(replica)
    }

    fn holder_keys(&self) -> [&'static str; 3] {
        match self.dialect {
            Dialect::Ack => ["ContainerName", "NamespaceName", "PodName"],
            Dialect::DcgmExporter(_) if self.style.old_namespace => {
                ["container_name", "pod_namespace", "pod_name"]
            }
            Dialect::DcgmExporter(_) => ["container", "namespace", "pod"],
        }
    }

    fn finish<'a>(&'a self, own: Vec<(&'a str, &'a str)>) -> Labels {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Labels::of(own.into_iter().chain(extra))
    }
}

fn of_claim(claim: &Claim) -> [(&str, &str); 7] {
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

/// The keys of the host's name, of all versions at once.
fn host_keys<'a>(compat: &[Compat]) -> impl Iterator<Item = &'a str> + use<'a> {
    let old = compat.contains(&Compat::V4_8);
    let new = compat.iter().any(|compat| *compat != Compat::V4_8);
    old.then_some("Hostname").into_iter().chain(new.then_some("hostname"))
}

/// Which GPU instance, as dcgm-exporter names it.
fn instance(mig: Option<&MigDevice>) -> Vec<(&'static str, String)> {
    mig.map_or_else(Vec::new, |mig| {
        vec![("GPU_I_PROFILE", mig.profile.to_string()), ("GPU_I_ID", mig.gpu_instance.to_string())]
    })
}

/// Which compute instance, where its GPU instance has others.
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

    fn dcgm(compat: &[Compat]) -> Schema {
        schema(Dialect::DcgmExporter(compat.to_vec()))
    }

    fn texts() -> [(Arc<str>, Arc<str>); 1] {
        [("DCGM_FI_DRIVER_VERSION".into(), "550".into())]
    }

    const NOTHING: About<'_> = About { texts: &[], held: None, more: &[] };

    fn schema(dialect: Dialect) -> Schema {
        Schema {
            style: Style::default(),
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

    const WORKER: Subject<'_> = Subject {
        mode: AllocateMode::Exclusive,
        holder: Some(("team-a", "train-0", "main")),
        face: Some(Face { pid: "7", name: "python", kind: "C" }),
    };

    fn keys(labels: &Labels) -> Vec<&str> {
        labels.pairs().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_ack_dialect_never_uses_a_name_that_belongs_to_the_scrape_job() {
        let names = Schema::names(&Dialect::Ack);
        for name in ["namespace", "pod", "node", "service", "job", "instance", "container"] {
            assert!(!names.contains(name), "{name}");
        }
    }

    #[test]
    fn device_labels_name_the_device_file_by_its_minor_number() {
        let labels = schema(Dialect::Ack).device(&gpu(), None, &NOTHING);
        let value = |key: &str| labels.value(key).unwrap();
        assert_eq!((value("gpu"), value("device")), ("3".to_owned(), "nvidia5".to_owned()));
    }

    #[test]
    fn dcgm_exporters_order_and_names_are_kept_through_its_versions() {
        let held =
            Held { namespace: "a", pod: "p", container: "c", uid: Some("u"), ..Held::default() };
        let more = [("err_code", "79")];
        let labels = |schema: &Schema| {
            let about = About { texts: &texts(), held: Some(held), more: &more };
            keys(&schema.device(&gpu(), Some(&mig()), &about)).join(" ")
        };
        let old = "gpu UUID pci_bus_id device modelName GPU_I_PROFILE GPU_I_ID Hostname \
                   DCGM_FI_DRIVER_VERSION container namespace pod pod_uid err_code pool";
        assert_eq!(labels(&dcgm(&DCGM)), old);
        let claimed = Held { claim: Some(&NO_CLAIM), replica: Some("1"), ..held };
        let about = About { texts: &texts(), held: Some(claimed), more: &more };
        let keys = keys(&dcgm(&DCGM).device(&gpu(), Some(&mig()), &about)).join(" ");
        assert!(keys.ends_with(
            "container dra_claim_name dra_claim_namespace dra_device_name dra_driver_name \
             dra_mig_device_uuid dra_mig_profile dra_pool_name namespace pod pod_uid vgpu err_code pool"
        ));
        assert_eq!(labels(&dcgm(&[Compat::V4_8_4])), old.replace("Hostname", "hostname"));
        let both = old.replace("Hostname", "Hostname hostname");
        assert_eq!(labels(&dcgm(&[Compat::V4_8, Compat::V4_9])), both);
        let style = Style { no_hostname: true, old_namespace: true, replace_blanks: true };
        let styled = Schema { style, ..dcgm(&DCGM) };
        assert_eq!(
            labels(&styled),
            "gpu uuid pci_bus_id device modelName GPU_I_PROFILE GPU_I_ID DCGM_FI_DRIVER_VERSION \
             container_name pod_namespace pod_name pod_uid err_code pool"
        );
        let set = styled.device(&gpu(), None, &NOTHING);
        assert_eq!(set.value("modelName").as_deref(), Some("NVIDIA-L20"));
    }

    #[test]
    fn a_mig_device_is_named_after_its_instance_and_its_gpu() {
        let (ack, dcgm) = (schema(Dialect::Ack), dcgm(&DCGM));
        assert_eq!(
            keys(&ack.device(&gpu(), Some(&mig()), &NOTHING))[5..],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "pool"]
        );
        assert_eq!(
            keys(&dcgm.device(&gpu(), Some(&mig()), &NOTHING))[4..8],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname"]
        );
        let process = |mig: &MigDevice| ack.subject(&gpu(), Some(mig), &WORKER, &[]);
        assert!(keys(&process(&mig())).contains(&"GPU_C_ID"));
        let alone = MigDevice { shares_instance: false, ..mig() };
        assert!(!keys(&process(&alone)).contains(&"GPU_C_ID"));
    }

    #[test]
    fn a_process_is_named_with_its_pod_and_a_container_without_processes() {
        let schema = schema(Dialect::Ack);
        let labels = |subject| schema.subject(&gpu(), None, &subject, &[]);
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
        let container = Subject { face: None, ..WORKER };
        assert!(!text(labels(container)).contains("Process"));
        assert!(text(labels(Subject::default())).contains("AllocateMode=none ContainerName= "));
    }
}
