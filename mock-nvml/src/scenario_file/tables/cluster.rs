//! The TOML tables of the Kubernetes node and its cluster.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use toml::Spanned;

use crate::scenario::recorded::{ListedPod, LoggedContainer};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ClusterTable {
    pub(in crate::scenario_file) node: Option<Spanned<String>>,
    pub(in crate::scenario_file) cgroups: Option<Spanned<String>>,
    pub(in crate::scenario_file) runtime: Option<Spanned<String>>,
    pub(in crate::scenario_file) streaming_lists: Option<bool>,
    pub(in crate::scenario_file) pods_api: Option<Spanned<String>>,
    pub(in crate::scenario_file) mig_strategy: Option<Spanned<String>>,
    #[serde(default)]
    pub(in crate::scenario_file) dynamic_mig: bool,
    #[serde(default)]
    pub(in crate::scenario_file) slices_for_all_nodes: bool,
    #[serde(default)]
    pub(in crate::scenario_file) labels: Vec<NodeLabelTable>,
    #[serde(default)]
    pub(in crate::scenario_file) denied: Vec<Spanned<String>>,
    #[serde(default)]
    pub(in crate::scenario_file) config_maps: Vec<ConfigMapTable>,
    #[serde(default)]
    pub(in crate::scenario_file) objects: Vec<serde_json::Value>,
    #[serde(default)]
    pub(in crate::scenario_file) listed: Vec<ListedPod>,
    #[serde(default)]
    pub(in crate::scenario_file) allocatable: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(in crate::scenario_file) logs: Vec<LoggedContainer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ConfigMapTable {
    pub(in crate::scenario_file) namespace: Spanned<String>,
    pub(in crate::scenario_file) name: Spanned<String>,
    pub(in crate::scenario_file) data: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct NodeLabelTable {
    pub(in crate::scenario_file) key: Spanned<String>,
    pub(in crate::scenario_file) value: Spanned<String>,
    pub(in crate::scenario_file) from: Option<Spanned<f64>>,
    pub(in crate::scenario_file) to: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct PodTable {
    pub(in crate::scenario_file) name: Spanned<String>,
    pub(in crate::scenario_file) namespace: Option<Spanned<String>>,
    pub(in crate::scenario_file) uid: Option<Spanned<String>>,
    pub(in crate::scenario_file) count: Option<Spanned<u32>>,
    pub(in crate::scenario_file) start: Option<Spanned<f64>>,
    pub(in crate::scenario_file) end: Option<Spanned<f64>>,
    pub(in crate::scenario_file) deleting: Option<Spanned<f64>>,
    pub(in crate::scenario_file) force_deleted: Option<Spanned<f64>>,
    pub(in crate::scenario_file) completed: Option<Spanned<f64>>,
    pub(in crate::scenario_file) phase: Option<Spanned<String>>,
    #[serde(default, rename = "static")]
    pub(in crate::scenario_file) is_static: bool,
    pub(in crate::scenario_file) annotations: Option<Spanned<BTreeMap<String, String>>>,
    pub(in crate::scenario_file) labels: Option<Spanned<BTreeMap<String, String>>>,
    pub(in crate::scenario_file) qos: Option<Spanned<String>>,
    pub(in crate::scenario_file) runtime_class: Option<Spanned<String>>,
    pub(in crate::scenario_file) containers: Spanned<Vec<Spanned<ContainerTable>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ContainerTable {
    pub(in crate::scenario_file) name: Spanned<String>,
    pub(in crate::scenario_file) kind: Option<Spanned<String>>,
    pub(in crate::scenario_file) start: Option<Spanned<f64>>,
    pub(in crate::scenario_file) end: Option<Spanned<f64>>,
    pub(in crate::scenario_file) restarts: Option<Spanned<Vec<f64>>>,
    pub(in crate::scenario_file) status_lag: Option<Spanned<f64>>,
    pub(in crate::scenario_file) gpus: Option<Spanned<GpuSelection>>,
    pub(in crate::scenario_file) slices: Option<Spanned<SlicesTable>>,
    pub(in crate::scenario_file) mig: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario_file) gke: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario_file) ack: Option<Spanned<AckTable>>,
    pub(in crate::scenario_file) ack_v1: Option<Spanned<AckTable>>,
    pub(in crate::scenario_file) hami: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario_file) koordinator: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario_file) volcano: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario_file) hami_mig: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario_file) hami_mig_index: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario_file) volcano_mig: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario_file) claim: Option<Spanned<ClaimTable>>,
    pub(in crate::scenario_file) devices: Option<Spanned<BTreeMap<String, Vec<String>>>>,
    #[serde(default)]
    pub(in crate::scenario_file) limits: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct SlicesTable {
    #[serde(alias = "gpu")]
    pub(in crate::scenario_file) gpus: GpuSelection,
    pub(in crate::scenario_file) replicas: u32,
    #[serde(default)]
    pub(in crate::scenario_file) mps: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct AckTable {
    #[serde(alias = "gpus")]
    pub(in crate::scenario_file) gpu: GpuSelection,
    pub(in crate::scenario_file) gib: u32,
    pub(in crate::scenario_file) cores: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ShareTable {
    pub(in crate::scenario_file) gpu: GpuSelection,
    pub(in crate::scenario_file) mib: u32,
    #[serde(default)]
    pub(in crate::scenario_file) cores: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ClaimTable {
    pub(in crate::scenario_file) name: Spanned<String>,
    #[serde(alias = "gpu")]
    pub(in crate::scenario_file) gpus: Option<GpuSelection>,
    #[serde(default)]
    pub(in crate::scenario_file) mig: Vec<String>,
    pub(in crate::scenario_file) driver: Option<Spanned<String>>,
    #[serde(default)]
    pub(in crate::scenario_file) devices: Vec<String>,
    #[serde(default)]
    pub(in crate::scenario_file) admin: bool,
    pub(in crate::scenario_file) share_mib: Option<u32>,
    #[serde(default)]
    pub(in crate::scenario_file) time_slicing: bool,
    pub(in crate::scenario_file) mps: Option<MpsTable>,
    #[serde(default)]
    pub(in crate::scenario_file) extended: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct MpsTable {
    pub(in crate::scenario_file) threads: Option<u32>,
    pub(in crate::scenario_file) mib: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ClusterFaultTable {
    pub(in crate::scenario_file) source: Spanned<String>,
    pub(in crate::scenario_file) effect: Spanned<String>,
    pub(in crate::scenario_file) delay: Option<Spanned<f64>>,
    pub(in crate::scenario_file) from: Option<Spanned<f64>>,
    pub(in crate::scenario_file) to: Option<Spanned<f64>>,
}

/// `0`, `[0, 1]` or `"spread"`.
#[derive(Debug)]
pub(in crate::scenario_file) enum GpuSelection {
    Indexes(Vec<usize>),
    Word(String),
}

impl<'de> Deserialize<'de> for GpuSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SelectionVisitor;
        impl<'de> Visitor<'de> for SelectionVisitor {
            type Value = GpuSelection;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a GPU index, an array of them or \"spread\"")
            }

            fn visit_i64<E: serde::de::Error>(self, index: i64) -> Result<GpuSelection, E> {
                let index = usize::try_from(index)
                    .map_err(|_| E::custom("a GPU index is not negative, write 0 or more"))?;
                Ok(GpuSelection::Indexes(vec![index]))
            }

            fn visit_str<E>(self, word: &str) -> Result<GpuSelection, E> {
                Ok(GpuSelection::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<GpuSelection, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(GpuSelection::Indexes)
            }
        }
        deserializer.deserialize_any(SelectionVisitor)
    }
}
