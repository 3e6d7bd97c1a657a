//! The tables about the Kubernetes node.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ClusterTable {
    pub(in crate::scenario) node: Option<Spanned<String>>,
    pub(in crate::scenario) cgroups: Option<Spanned<String>>,
    pub(in crate::scenario) runtime: Option<Spanned<String>>,
    pub(in crate::scenario) streaming_lists: Option<bool>,
    pub(in crate::scenario) mig_strategy: Option<Spanned<String>>,
    #[serde(default)]
    pub(in crate::scenario) labels: Vec<NodeLabelTable>,
    #[serde(default)]
    pub(in crate::scenario) denied: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct NodeLabelTable {
    pub(in crate::scenario) key: String,
    pub(in crate::scenario) value: String,
    pub(in crate::scenario) from: Option<Spanned<f64>>,
    pub(in crate::scenario) to: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct PodTable {
    pub(in crate::scenario) name: Spanned<String>,
    pub(in crate::scenario) namespace: Option<Spanned<String>>,
    pub(in crate::scenario) uid: Option<Spanned<String>>,
    pub(in crate::scenario) count: Option<Spanned<u32>>,
    pub(in crate::scenario) start: Option<Spanned<f64>>,
    pub(in crate::scenario) end: Option<Spanned<f64>>,
    pub(in crate::scenario) deleting: Option<Spanned<f64>>,
    pub(in crate::scenario) completed: Option<Spanned<f64>>,
    pub(in crate::scenario) phase: Option<Spanned<String>>,
    #[serde(default, rename = "static")]
    pub(in crate::scenario) is_static: bool,
    #[serde(default)]
    pub(in crate::scenario) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(in crate::scenario) labels: BTreeMap<String, String>,
    pub(in crate::scenario) qos: Option<Spanned<String>>,
    pub(in crate::scenario) containers: Spanned<Vec<Spanned<ContainerTable>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ContainerTable {
    pub(in crate::scenario) name: Spanned<String>,
    pub(in crate::scenario) kind: Option<Spanned<String>>,
    pub(in crate::scenario) start: Option<Spanned<f64>>,
    pub(in crate::scenario) end: Option<Spanned<f64>>,
    pub(in crate::scenario) restarts: Option<Spanned<Vec<f64>>>,
    pub(in crate::scenario) status_lag: Option<Spanned<f64>>,
    pub(in crate::scenario) gpus: Option<Spanned<Which>>,
    pub(in crate::scenario) slices: Option<Spanned<SlicesTable>>,
    pub(in crate::scenario) mig: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario) gke: Option<Spanned<Vec<String>>>,
    pub(in crate::scenario) ack: Option<Spanned<AckTable>>,
    pub(in crate::scenario) ack_v1: Option<Spanned<AckTable>>,
    pub(in crate::scenario) hami: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario) koordinator: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario) volcano: Option<Spanned<Vec<ShareTable>>>,
    pub(in crate::scenario) claim: Option<Spanned<ClaimTable>>,
    pub(in crate::scenario) devices: Option<Spanned<BTreeMap<String, Vec<String>>>>,
    #[serde(default)]
    pub(in crate::scenario) limits: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct SlicesTable {
    #[serde(alias = "gpu")]
    pub(in crate::scenario) gpus: Which,
    pub(in crate::scenario) replicas: u32,
    #[serde(default)]
    pub(in crate::scenario) mps: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct AckTable {
    #[serde(alias = "gpus")]
    pub(in crate::scenario) gpu: Which,
    pub(in crate::scenario) gib: u32,
    pub(in crate::scenario) cores: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ShareTable {
    pub(in crate::scenario) gpu: Which,
    pub(in crate::scenario) mib: u32,
    #[serde(default)]
    pub(in crate::scenario) cores: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ClaimTable {
    pub(in crate::scenario) name: Spanned<String>,
    #[serde(alias = "gpu")]
    pub(in crate::scenario) gpus: Option<Which>,
    #[serde(default)]
    pub(in crate::scenario) mig: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ClusterFaultTable {
    pub(in crate::scenario) source: Spanned<String>,
    pub(in crate::scenario) effect: Spanned<String>,
    pub(in crate::scenario) delay: Option<Spanned<f64>>,
    pub(in crate::scenario) from: Option<Spanned<f64>>,
    pub(in crate::scenario) to: Option<Spanned<f64>>,
}

/// `0`, `[0, 1]` or `"spread"`.
#[derive(Debug)]
pub(in crate::scenario) enum Which {
    These(Vec<usize>),
    Word(String),
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Which;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a GPU index, an array of them or \"spread\"")
            }

            fn visit_i64<E: serde::de::Error>(self, index: i64) -> Result<Which, E> {
                let index =
                    usize::try_from(index).map_err(|_| E::custom("give an index from 0"))?;
                Ok(Which::These(vec![index]))
            }

            fn visit_str<E>(self, word: &str) -> Result<Which, E> {
                Ok(Which::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Which, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Which::These)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
