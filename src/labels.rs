//! One label schema per scope and dialect.

use std::sync::Arc;

use crate::model::{AllocateMode, Gpu, MigDevice};

/// The longest label value that the managed Prometheus keeps, in bytes.
const VALUE_MAX: usize = 256;

/// Names that a scrape job gives to its targets; ours would be renamed `exported_*`.
pub const RESERVED: [&str; 7] =
    ["namespace", "pod", "node", "service", "job", "instance", "container"];

/// Whose dashboards and rules the label names are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The GPU exporter of Alibaba Cloud ACK.
    Ack,
    /// NVIDIA's dcgm-exporter.
    DcgmExporter,
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

/// A label set, in the order of the page. Values are clean, see [`clean`].
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

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
}

impl Schema {
    /// The same for a node of this name, which stands in for the host's, too.
    #[must_use]
    pub fn of_node(self, name: &str) -> Self {
        Self { hostname: name.to_owned(), node_name: name.to_owned(), ..self }
    }

    /// Labels of a device's series: of a GPU, or of the GPU instance that a MIG device is in.
    #[must_use]
    pub fn device(&self, gpu: &Gpu, mig: Option<&MigDevice>, driver_version: &str) -> Labels {
        let (index, device) = (gpu.index.to_string(), device_file(gpu));
        let instance = instance(mig);
        let instance = pairs(&instance);
        match self.dialect {
            Dialect::Ack => self.finish(
                [
                    ("Hostname", &*self.hostname),
                    ("NodeName", &self.node_name),
                    ("UUID", &gpu.uuid),
                    ("device", &device),
                    ("gpu", &index),
                    ("modelName", &gpu.name),
                ]
                .into_iter()
                .chain(instance),
            ),
            Dialect::DcgmExporter => self.finish(
                [
                    ("gpu", &*index),
                    ("UUID", &gpu.uuid),
                    ("pci_bus_id", &gpu.pci_bus_id),
                    ("device", &device),
                    ("modelName", &gpu.name),
                ]
                .into_iter()
                .chain(instance)
                .chain([("Hostname", &*self.hostname), ("DCGM_FI_DRIVER_VERSION", driver_version)]),
            ),
        }
    }

    /// Labels of the series of a process or a container on a device; none in a dialect that does
    /// not have them.
    #[must_use]
    pub fn subject(
        &self,
        gpu: &Gpu,
        mig: Option<&MigDevice>,
        subject: &Subject<'_>,
    ) -> Option<Labels> {
        let (index, device) = (gpu.index.to_string(), device_file(gpu));
        let (instance, compute) = (instance(mig), compute_instance(mig));
        let (namespace, pod, container) = subject.holder.unwrap_or_default();
        let face = subject.face.as_ref();
        let face = face.map(|face| {
            [("ProcessId", face.pid), ("ProcessName", face.name), ("ProcessType", face.kind)]
        });
        let labels = [
            ("AllocateMode", subject.mode.label()),
            ("ContainerName", container),
            ("NamespaceName", namespace),
            ("NodeName", &self.node_name),
            ("PodName", pod),
        ]
        .into_iter()
        .chain(face.into_iter().flatten())
        .chain([
            ("UUID", &*gpu.uuid),
            ("device", &device),
            ("gpu", &index),
            ("modelName", &gpu.name),
        ]);
        match self.dialect {
            Dialect::Ack => {
                Some(self.finish(labels.chain(pairs(&instance)).chain(pairs(&compute))))
            }
            Dialect::DcgmExporter => None,
        }
    }

    /// Labels of a node's series.
    #[must_use]
    pub fn node(&self) -> Labels {
        match self.dialect {
            Dialect::Ack => self.finish([("NodeName", &*self.node_name)].into_iter()),
            Dialect::DcgmExporter => self.finish([("Hostname", &*self.hostname)].into_iter()),
        }
    }

    /// Whether `key` is a label of this dialect already.
    #[must_use]
    pub fn owns(&self, key: &str) -> bool {
        const ACK: [&str; 16] = [
            "AllocateMode",
            "ContainerName",
            "GPU_C_ID",
            "GPU_I_ID",
            "GPU_I_PROFILE",
            "Hostname",
            "NamespaceName",
            "NodeName",
            "PodName",
            "ProcessId",
            "ProcessName",
            "ProcessType",
            "UUID",
            "device",
            "gpu",
            "modelName",
        ];
        const DCGM: [&str; 9] = [
            "gpu",
            "UUID",
            "pci_bus_id",
            "device",
            "modelName",
            "GPU_I_PROFILE",
            "GPU_I_ID",
            "Hostname",
            "DCGM_FI_DRIVER_VERSION",
        ];
        match self.dialect {
            Dialect::Ack => ACK.contains(&key),
            Dialect::DcgmExporter => DCGM.contains(&key),
        }
    }

    fn finish<'a>(&'a self, own: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        label_set(own.chain(extra))
    }
}

/// A label set of these pairs, with clean values.
pub fn label_set<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    pairs.map(|(key, value)| (key.into(), clean(value).into())).collect()
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

fn pairs<'a>(
    owned: impl IntoIterator<Item = &'a (&'static str, String)>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    owned.into_iter().map(|(key, value)| (*key, value.as_str()))
}

fn device_file(gpu: &Gpu) -> String {
    gpu.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default()
}

/// `value` with control characters replaced, cut to [`VALUE_MAX`] bytes between two characters.
#[must_use]
pub fn clean(value: &str) -> String {
    let mut clean = String::with_capacity(value.len().min(VALUE_MAX));
    for c in value.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if clean.len() + c.len_utf8() > VALUE_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schema(dialect: Dialect) -> Schema {
        Schema {
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
        labels.iter().map(|(key, _)| &**key).collect()
    }

    #[test]
    fn the_ack_dialect_never_uses_a_name_that_belongs_to_the_scrape_job() {
        let schema = schema(Dialect::Ack);
        let sets = [
            schema.device(&gpu(), Some(&mig()), "550"),
            schema.subject(&gpu(), Some(&mig()), &WORKER).unwrap(),
            schema.node(),
        ];
        for labels in &sets {
            assert!(keys(labels).iter().all(|key| !RESERVED.contains(key)), "{labels:?}");
        }
    }

    #[test]
    fn every_label_is_known_as_our_own() {
        for dialect in [Dialect::Ack, Dialect::DcgmExporter] {
            let schema = Schema { extra: Vec::new(), ..schema(dialect) };
            let process = schema.subject(&gpu(), Some(&mig()), &WORKER);
            for labels in
                [schema.device(&gpu(), Some(&mig()), "550"), schema.node()].iter().chain(&process)
            {
                assert!(keys(labels).iter().all(|key| schema.owns(key)), "{labels:?}");
            }
        }
    }

    #[test]
    fn device_labels_name_the_device_file_by_its_minor_number() {
        let labels = schema(Dialect::Ack).device(&gpu(), None, "550");
        let value = |key: &str| {
            labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| v.to_string()).unwrap()
        };
        assert_eq!((value("gpu"), value("device")), ("3".to_owned(), "nvidia5".to_owned()));
    }

    #[test]
    fn a_mig_device_is_named_after_its_instance_and_its_gpu() {
        let (ack, dcgm) = (schema(Dialect::Ack), schema(Dialect::DcgmExporter));
        assert_eq!(
            keys(&ack.device(&gpu(), Some(&mig()), "550"))[5..],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "pool"]
        );
        assert_eq!(
            keys(&dcgm.device(&gpu(), Some(&mig()), "550"))[4..8],
            ["modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname"]
        );
        let process = |mig: &MigDevice| ack.subject(&gpu(), Some(mig), &WORKER).unwrap();
        assert!(keys(&process(&mig())).contains(&"GPU_C_ID"));
        let alone = MigDevice { shares_instance: false, ..mig() };
        assert!(!keys(&process(&alone)).contains(&"GPU_C_ID"));
    }

    #[test]
    fn a_process_is_named_with_its_pod_and_a_container_without_processes() {
        let schema = schema(Dialect::Ack);
        let labels = |subject| schema.subject(&gpu(), None, &subject).unwrap();
        let text = |labels: Labels| {
            labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
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

    proptest! {
        #[test]
        fn a_clean_value_is_short_printable_and_a_prefix(value in any::<String>()) {
            let cleaned = clean(&value);
            prop_assert!(cleaned.len() <= VALUE_MAX);
            prop_assert!(!cleaned.contains(char::is_control));
            for (a, b) in cleaned.chars().zip(value.chars()) {
                prop_assert!(a == b || (a == char::REPLACEMENT_CHARACTER && b.is_control()));
            }
        }
    }
}
