//! The TOML tables of hardware faults and XIDs.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct EccTable {
    #[serde(default)]
    pub(in crate::scenario_file) sbe_volatile: u32,
    #[serde(default)]
    pub(in crate::scenario_file) dbe_volatile: u32,
    pub(in crate::scenario_file) sbe_aggregate: Option<u32>,
    pub(in crate::scenario_file) dbe_aggregate: Option<u32>,
    pub(in crate::scenario_file) from: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario_file) struct RetiredTable {
    pub(in crate::scenario_file) sbe: u32,
    pub(in crate::scenario_file) dbe: u32,
    pub(in crate::scenario_file) pending: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario_file) struct RemappedTable {
    pub(in crate::scenario_file) correctable: u32,
    pub(in crate::scenario_file) uncorrectable: u32,
    pub(in crate::scenario_file) pending: bool,
    pub(in crate::scenario_file) failure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "independent keys")]
pub(in crate::scenario_file) struct RepairTable {
    pub(in crate::scenario_file) action: u32,
    pub(in crate::scenario_file) unrepairable: bool,
    pub(in crate::scenario_file) channel: bool,
    pub(in crate::scenario_file) tpc: bool,
    pub(in crate::scenario_file) sram: bool,
    pub(in crate::scenario_file) from: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario_file) struct NvLinkTable {
    pub(in crate::scenario_file) down: Vec<u32>,
    pub(in crate::scenario_file) link: u32,
    pub(in crate::scenario_file) crc_flit: u32,
    pub(in crate::scenario_file) crc_data: u32,
    pub(in crate::scenario_file) replay: u32,
    pub(in crate::scenario_file) recovery: u32,
    pub(in crate::scenario_file) ecc: u32,
    pub(in crate::scenario_file) symbol: u32,
    pub(in crate::scenario_file) effective: u32,
    pub(in crate::scenario_file) packet: u32,
    pub(in crate::scenario_file) fabric: Option<Spanned<String>>,
    pub(in crate::scenario_file) count: Option<Spanned<u32>>,
    pub(in crate::scenario_file) from: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario_file) struct C2cTable {
    pub(in crate::scenario_file) errors: u32,
    pub(in crate::scenario_file) down: Vec<u32>,
    pub(in crate::scenario_file) from: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct MemoryLimitTable {
    pub(in crate::scenario_file) cgroup: String,
    pub(in crate::scenario_file) soft: Option<Spanned<String>>,
    pub(in crate::scenario_file) hard: Option<Spanned<String>>,
    pub(in crate::scenario_file) used: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct ThrottleTable {
    pub(in crate::scenario_file) by: Spanned<String>,
    pub(in crate::scenario_file) from: Option<Spanned<f64>>,
    pub(in crate::scenario_file) to: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct XidTable {
    pub(in crate::scenario_file) gpu: Spanned<usize>,
    pub(in crate::scenario_file) at: Spanned<f64>,
    pub(in crate::scenario_file) code: Spanned<u32>,
    pub(in crate::scenario_file) gi: Option<u32>,
    pub(in crate::scenario_file) ci: Option<u32>,
}
