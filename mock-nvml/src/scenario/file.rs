//! The text of a scenario as TOML tables, before anything is believed of it.

mod cluster;
mod hardware;
mod mig;
mod pipes;

use serde::{
    Deserialize, Deserializer,
    de::{
        MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer,
    },
};
use toml::Spanned;

pub(super) use self::hardware::{
    EccTable, NvLinkTable, RemappedTable, RetiredTable, SlowedTable, XidTable,
};
pub(super) use self::{
    cluster::{
        AckTable, ClaimTable, ClusterFaultTable, ClusterTable, ContainerTable, NodeLabelTable,
        PodTable, ShareTable, SlicesTable, Which,
    },
    mig::{InstanceTable, LayoutTable},
    pipes::PipesTable,
};
use super::complaint::{Checked, Flaw, suggestion};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "about")]
    pub(super) _about: Option<String>,
    pub(super) now: Option<Spanned<f64>>,
    pub(super) pid_namespace: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) driver: DriverTable,
    #[serde(default)]
    pub(super) gpu: Vec<Spanned<GpuTable>>,
    #[serde(default)]
    pub(super) process: Vec<Spanned<ProcessTable>>,
    #[serde(default)]
    pub(super) garbage: Vec<GarbageTable>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<FaultTable>>,
    #[serde(default)]
    pub(super) xid: Vec<XidTable>,
    pub(super) cluster: Option<ClusterTable>,
    #[serde(default)]
    pub(super) pod: Vec<Spanned<PodTable>>,
    #[serde(default)]
    pub(super) cluster_fault: Vec<ClusterFaultTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DriverTable {
    pub(super) version: Option<Spanned<String>>,
    pub(super) nvml: Option<Spanned<String>>,
    pub(super) cuda: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) reload: Vec<Spanned<WindowTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowTable {
    pub(super) from: Option<f64>,
    pub(super) to: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpuTable {
    pub(super) model: Spanned<String>,
    pub(super) count: Option<Spanned<u32>>,
    pub(super) uuid: Option<Spanned<String>>,
    pub(super) serial: Option<Spanned<String>>,
    pub(super) minor: Option<Spanned<u32>>,
    pub(super) pcie_replays_per_hour: Option<Spanned<f64>>,
    pub(super) ambient: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) lost: Vec<Spanned<WindowTable>>,
    pub(super) ecc: Option<Spanned<EccTable>>,
    pub(super) retired: Option<Spanned<RetiredTable>>,
    pub(super) remapped: Option<Spanned<RemappedTable>>,
    pub(super) nvlink: Option<Spanned<NvLinkTable>>,
    #[serde(default)]
    pub(super) slowed: Vec<SlowedTable>,
    #[serde(default)]
    pub(super) mig: Vec<Spanned<LayoutTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessTable {
    pub(super) pid: Spanned<u32>,
    pub(super) name: Spanned<String>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) cgroup: Option<Spanned<String>>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Spanned<String>>,
    pub(super) gpus: Spanned<GpuList>,
    pub(super) gi: Option<Spanned<u32>>,
    pub(super) ci: Option<Spanned<u32>>,
    pub(super) memory: Spanned<String>,
    pub(super) sm: Option<Spanned<CurveText>>,
    pub(super) mem: Option<Spanned<CurveText>>,
    pub(super) enc: Option<Spanned<CurveText>>,
    pub(super) dec: Option<Spanned<CurveText>>,
    pub(super) jpg: Option<Spanned<CurveText>>,
    pub(super) ofa: Option<Spanned<CurveText>>,
    pub(super) nvlink: Option<Spanned<CurveText>>,
    pub(super) pcie_tx: Option<Spanned<CurveText>>,
    pub(super) pcie_rx: Option<Spanned<CurveText>>,
    pub(super) pipes: Option<Spanned<PipesTable>>,
    pub(super) start: Option<Spanned<f64>>,
    pub(super) end: Option<Spanned<f64>>,
    pub(super) zombie: Option<Spanned<WindowTable>>,
    pub(super) proc: Option<bool>,
    pub(super) count: Option<Spanned<u32>>,
    pub(super) pod: Option<Spanned<String>>,
    pub(super) container: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GarbageTable {
    pub(super) gpu: Spanned<usize>,
    pub(super) from: Option<Spanned<f64>>,
    pub(super) to: Option<Spanned<f64>>,
    pub(super) rows: Spanned<Vec<GarbageRow>>,
}

/// A row of nonsense, just as the ring is to show it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(crate) struct GarbageRow {
    /// Process id.
    pub(crate) pid: u32,
    /// `smUtil`.
    pub(crate) sm: u32,
    /// `memUtil`.
    pub(crate) mem: u32,
    /// `encUtil`.
    pub(crate) enc: u32,
    /// `decUtil`.
    pub(crate) dec: u32,
    /// How many seconds ago its stamp is; negative for one to come.
    pub(crate) age: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultTable {
    pub(super) function: Spanned<String>,
    pub(super) gpu: Option<Spanned<usize>>,
    pub(super) field: Option<Spanned<u32>>,
    pub(super) from: Option<Spanned<f64>>,
    pub(super) to: Option<Spanned<f64>>,
    pub(super) code: Option<Spanned<String>>,
    pub(super) delay: Option<Spanned<f64>>,
    pub(super) hang: Option<Spanned<bool>>,
    pub(super) missing: Option<Spanned<bool>>,
    pub(super) ones: Option<Spanned<bool>>,
}

/// `[0, 1]` or `"spread"`.
#[derive(Debug)]
pub(super) enum GpuList {
    These(Vec<usize>),
    Word(String),
}

impl<'de> Deserialize<'de> for GpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = GpuList;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("an array of GPU indexes or \"spread\"")
            }

            fn visit_str<E>(self, word: &str) -> Result<GpuList, E> {
                Ok(GpuList::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<GpuList, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(GpuList::These)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number or a table.
#[derive(Debug)]
pub(super) enum CurveText {
    Number(f64),
    Table(Box<CurveTable>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CurveTable {
    pub(super) wave: Option<String>,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    pub(super) period: Option<f64>,
    pub(super) phase: Option<f64>,
    pub(super) duty: Option<f64>,
    pub(super) points: Option<Vec<(f64, f64)>>,
    pub(super) repeat: Option<bool>,
}

impl<'de> Deserialize<'de> for CurveText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = CurveText;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a number or a curve { wave = … } or { points = … }")
            }

            fn visit_f64<E>(self, value: f64) -> Result<CurveText, E> {
                Ok(CurveText::Number(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<CurveText, E> {
                let value = i32::try_from(value).map_err(|_| E::custom("give a smaller number"))?;
                Ok(CurveText::Number(f64::from(value)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CurveText, A::Error> {
                let table = CurveTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(CurveText::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads the tables of a scenario.
pub(super) fn read(text: &str) -> Checked<File> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or_default();
        Flaw::new(at, mend(error.message()))
    })
}

/// The parser's message in our words, with a mend.
fn mend(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let word = quoted.next().unwrap_or_default();
        let known: Vec<_> = quoted.collect();
        let near = suggestion(word, known.iter().copied());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        return format!("unknown key \"{word}\"{near} known here: {}", known.join(", "));
    }
    if message.starts_with("missing field") {
        let word = quoted.next().unwrap_or_default();
        return format!("the key \"{word}\" is missing: add it");
    }
    let mut plain = message;
    for (theirs, ours) in [
        ("expected f64", "expected a number"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected usize", "expected a whole number from 0"),
        ("expected a sequence", "expected an array [ … ]"),
        ("expected a tuple of size 2", "expected a pair [seconds, load]"),
    ] {
        plain = plain.replace(theirs, ours);
    }
    plain
}
