//! One label schema per scope and dialect.

use std::sync::Arc;

use crate::model::{Gpu, ProcessSample};

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
    /// Labels of a device's series.
    #[must_use]
    pub fn device(&self, gpu: &Gpu, driver_version: &str) -> Labels {
        let (index, device) = (gpu.index.to_string(), device_file(gpu));
        match self.dialect {
            Dialect::Ack => self.finish(&[
                ("Hostname", &self.hostname),
                ("NodeName", &self.node_name),
                ("UUID", &gpu.uuid),
                ("device", &device),
                ("gpu", &index),
                ("modelName", &gpu.name),
            ]),
            Dialect::DcgmExporter => self.finish(&[
                ("gpu", &index),
                ("UUID", &gpu.uuid),
                ("pci_bus_id", &gpu.pci_bus_id),
                ("device", &device),
                ("modelName", &gpu.name),
                ("Hostname", &self.hostname),
                ("DCGM_FI_DRIVER_VERSION", driver_version),
            ]),
        }
    }

    /// Labels of a process's series on a device; none in a dialect that does not have them.
    ///
    /// The pod labels are empty until processes are attributed to pods.
    #[must_use]
    pub fn process(&self, gpu: &Gpu, process: &ProcessSample) -> Option<Labels> {
        match self.dialect {
            Dialect::Ack => Some(self.finish(&[
                ("AllocateMode", "none"),
                ("ContainerName", ""),
                ("NamespaceName", ""),
                ("NodeName", &self.node_name),
                ("PodName", ""),
                ("ProcessId", &process.id.pid.to_string()),
                ("ProcessName", &process.name),
                ("ProcessType", process.kind.label()),
                ("UUID", &gpu.uuid),
                ("device", &device_file(gpu)),
                ("gpu", &gpu.index.to_string()),
                ("modelName", &gpu.name),
            ])),
            Dialect::DcgmExporter => None,
        }
    }

    /// Labels of a node's series.
    #[must_use]
    pub fn node(&self) -> Labels {
        match self.dialect {
            Dialect::Ack => self.finish(&[("NodeName", &self.node_name)]),
            Dialect::DcgmExporter => self.finish(&[("Hostname", &self.hostname)]),
        }
    }

    /// Whether `key` is a label of this dialect already.
    #[must_use]
    pub fn owns(&self, key: &str) -> bool {
        const ACK: [&str; 13] = [
            "AllocateMode",
            "ContainerName",
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
        const DCGM: [&str; 7] = [
            "gpu",
            "UUID",
            "pci_bus_id",
            "device",
            "modelName",
            "Hostname",
            "DCGM_FI_DRIVER_VERSION",
        ];
        match self.dialect {
            Dialect::Ack => ACK.contains(&key),
            Dialect::DcgmExporter => DCGM.contains(&key),
        }
    }

    fn finish(&self, own: &[(&str, &str)]) -> Labels {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        label_set(own.iter().copied().chain(extra))
    }
}

/// A label set of these pairs, with clean values.
pub fn label_set<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    pairs.map(|(key, value)| (key.into(), clean(value).into())).collect()
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
    use crate::model::{Missing, ProcessId, ProcessKind};
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

    fn process() -> ProcessSample {
        ProcessSample {
            id: ProcessId { pid: 7, started: 1 },
            name: "python".into(),
            kind: ProcessKind::Compute,
            memory: Err(Missing::Unsupported),
            utilization: Err(Missing::Unsupported),
        }
    }

    fn keys(labels: &Labels) -> Vec<&str> {
        labels.iter().map(|(key, _)| &**key).collect()
    }

    #[test]
    fn the_ack_dialect_never_uses_a_name_that_belongs_to_the_scrape_job() {
        let schema = schema(Dialect::Ack);
        let sets = [
            schema.device(&gpu(), "550"),
            schema.process(&gpu(), &process()).unwrap(),
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
            let process = schema.process(&gpu(), &process());
            for labels in [schema.device(&gpu(), "550"), schema.node()].iter().chain(&process) {
                assert!(keys(labels).iter().all(|key| schema.owns(key)), "{labels:?}");
            }
        }
    }

    #[test]
    fn device_labels_name_the_device_file_by_its_minor_number() {
        let labels = schema(Dialect::Ack).device(&gpu(), "550");
        let value = |key: &str| {
            labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| v.to_string()).unwrap()
        };
        assert_eq!((value("gpu"), value("device")), ("3".to_owned(), "nvidia5".to_owned()));
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
