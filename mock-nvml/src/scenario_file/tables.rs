//! The TOML tables of a scenario file, before validation.

mod answers;
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
    C2cTable, EccTable, MemoryLimitTable, NvLinkTable, RemappedTable, RepairTable, RetiredTable,
    ThrottleTable, XidTable,
};
pub(super) use self::{
    answers::{AnswerTables, recording},
    cluster::{
        AckTable, ClaimTable, ClusterFaultTable, ClusterTable, ConfigMapTable, ContainerTable,
        GpuSelection, NodeLabelTable, PodTable, ShareTable, SlicesTable,
    },
    mig::{InstanceTable, LayoutTable},
    pipes::PipesTable,
};
use crate::{
    scenario::InjectedSample,
    scenario_file::error::{SpannedError, ValidationResult, suggestion},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioTable {
    #[serde(rename = "about")]
    pub(super) _about: Option<String>,
    pub(super) now: Option<Spanned<f64>>,
    pub(super) pid_namespace: Option<Spanned<String>>,
    pub(super) cgroup_namespace: Option<Spanned<String>>,
    pub(super) platform: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) driver: DriverTable,
    #[serde(default)]
    pub(super) gpu: Vec<Spanned<GpuTable>>,
    #[serde(default)]
    pub(super) process: Vec<Spanned<ProcessTable>>,
    #[serde(default)]
    pub(super) garbage: Vec<InjectedSamplesTable>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<FaultTable>>,
    #[serde(default)]
    pub(super) xid: Vec<XidTable>,
    #[serde(default)]
    pub(super) answers: AnswerTables,
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
    #[serde(default)]
    pub(super) missing: Vec<Spanned<String>>,
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
    pub(super) power_limit: Option<Spanned<f64>>,
    pub(super) memory_total: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) memory_limits: Vec<MemoryLimitTable>,
    #[serde(default)]
    pub(super) lost: Vec<Spanned<WindowTable>>,
    pub(super) ecc: Option<Spanned<EccTable>>,
    pub(super) retired: Option<Spanned<RetiredTable>>,
    pub(super) remapped: Option<Spanned<RemappedTable>>,
    pub(super) repair: Option<Spanned<RepairTable>>,
    pub(super) c2c: Option<Spanned<C2cTable>>,
    pub(super) nvlink: Option<Spanned<NvLinkTable>>,
    #[serde(default)]
    pub(super) slowed: Vec<ThrottleTable>,
    pub(super) samples: Option<Spanned<SamplesTable>>,
    #[serde(default)]
    pub(super) mig: Vec<Spanned<LayoutTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SamplesTable {
    pub(super) period: Option<f64>,
    pub(super) delivery: Option<f64>,
    #[serde(default)]
    pub(super) clock: Vec<(f64, f64)>,
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
    pub(super) sm: Option<Spanned<CurveValue>>,
    pub(super) mem: Option<Spanned<CurveValue>>,
    pub(super) enc: Option<Spanned<CurveValue>>,
    pub(super) dec: Option<Spanned<CurveValue>>,
    pub(super) jpg: Option<Spanned<CurveValue>>,
    pub(super) ofa: Option<Spanned<CurveValue>>,
    pub(super) nvlink: Option<Spanned<CurveValue>>,
    pub(super) pcie_tx: Option<Spanned<CurveValue>>,
    pub(super) pcie_rx: Option<Spanned<CurveValue>>,
    pub(super) pipes: Option<Spanned<PipesTable>>,
    pub(super) start: Option<Spanned<f64>>,
    pub(super) end: Option<Spanned<f64>>,
    pub(super) zombie: Option<Spanned<WindowTable>>,
    pub(super) proc: Option<Spanned<ProcEntry>>,
    pub(super) count: Option<Spanned<u32>>,
    pub(super) pod: Option<Spanned<String>>,
    pub(super) container: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InjectedSamplesTable {
    pub(super) gpu: Spanned<usize>,
    pub(super) from: Option<Spanned<f64>>,
    pub(super) to: Option<Spanned<f64>>,
    pub(super) rows: Spanned<Vec<InjectedSample>>,
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
    pub(super) empty: Option<Spanned<bool>>,
    pub(super) value: Option<u32>,
}

/// `false`, `"unreadable"` or `{ from, to }`.
#[derive(Debug)]
pub(super) enum ProcEntry {
    Flag(bool),
    Word(String),
    Window(WindowTable),
}

impl<'de> Deserialize<'de> for ProcEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ProcVisitor;
        impl<'de> Visitor<'de> for ProcVisitor {
            type Value = ProcEntry;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("true, false, \"unreadable\" or { from = …, to = … }")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<ProcEntry, E> {
                Ok(ProcEntry::Flag(flag))
            }

            fn visit_str<E>(self, word: &str) -> Result<ProcEntry, E> {
                Ok(ProcEntry::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProcEntry, A::Error> {
                WindowTable::deserialize(MapAccessDeserializer::new(map)).map(ProcEntry::Window)
            }
        }
        deserializer.deserialize_any(ProcVisitor)
    }
}

/// `[0, 1]` or `"spread"`.
#[derive(Debug)]
pub(super) enum GpuList {
    Indexes(Vec<usize>),
    Word(String),
}

impl<'de> Deserialize<'de> for GpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GpuListVisitor;
        impl<'de> Visitor<'de> for GpuListVisitor {
            type Value = GpuList;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("an array of GPU indexes or \"spread\"")
            }

            fn visit_str<E>(self, word: &str) -> Result<GpuList, E> {
                Ok(GpuList::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<GpuList, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(GpuList::Indexes)
            }
        }
        deserializer.deserialize_any(GpuListVisitor)
    }
}

/// A number or a curve table.
#[derive(Debug)]
pub(super) enum CurveValue {
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

impl<'de> Deserialize<'de> for CurveValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CurveVisitor;
        impl<'de> Visitor<'de> for CurveVisitor {
            type Value = CurveValue;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a number or a curve { wave = … } or { points = … }")
            }

            fn visit_f64<E>(self, value: f64) -> Result<CurveValue, E> {
                Ok(CurveValue::Number(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<CurveValue, E> {
                let value = i32::try_from(value)
                    .map_err(|_| E::custom("the number is too large, write a smaller one"))?;
                Ok(CurveValue::Number(f64::from(value)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CurveValue, A::Error> {
                let table = CurveTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(CurveValue::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(CurveVisitor)
    }
}

/// Parses the text of a scenario file.
pub(super) fn parse(text: &str) -> ValidationResult<ScenarioTable> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        SpannedError::new(span, explain(error.message()))
    })
}

/// The message of the TOML parser in the terms of a scenario, with a remedy for unknown and missing keys.
fn explain(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let word = quoted.next().unwrap_or_default();
        let known: Vec<_> = quoted.collect();
        let hint = suggestion(word, known.iter().copied());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        return format!("unknown key \"{word}\"{hint} the keys here are {}", known.join(", "));
    }
    if message.starts_with("missing field") {
        let word = quoted.next().unwrap_or_default();
        return format!("missing key \"{word}\": add it");
    }
    let mut plain = message;
    for (from, to) in [
        ("expected f64", "expected a number"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected usize", "expected a whole number from 0"),
        ("expected a sequence", "expected an array [ … ]"),
        ("expected a tuple of size 2", "expected a pair [seconds, value]"),
    ] {
        plain = plain.replace(from, to);
    }
    plain
}
