//! Tables of what is wrong with a GPU's hardware.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct EccTable {
    #[serde(default)]
    pub(in crate::scenario) sbe_volatile: u32,
    #[serde(default)]
    pub(in crate::scenario) dbe_volatile: u32,
    pub(in crate::scenario) sbe_aggregate: Option<u32>,
    pub(in crate::scenario) dbe_aggregate: Option<u32>,
    pub(in crate::scenario) from: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario) struct RetiredTable {
    pub(in crate::scenario) sbe: u32,
    pub(in crate::scenario) dbe: u32,
    pub(in crate::scenario) pending: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario) struct RemappedTable {
    pub(in crate::scenario) correctable: u32,
    pub(in crate::scenario) uncorrectable: u32,
    pub(in crate::scenario) pending: bool,
    pub(in crate::scenario) failure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::scenario) struct NvLinkTable {
    pub(in crate::scenario) down: Vec<u32>,
    pub(in crate::scenario) link: u32,
    pub(in crate::scenario) crc_flit: u32,
    pub(in crate::scenario) crc_data: u32,
    pub(in crate::scenario) replay: u32,
    pub(in crate::scenario) recovery: u32,
    pub(in crate::scenario) from: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct SlowedTable {
    pub(in crate::scenario) by: Spanned<String>,
    pub(in crate::scenario) from: Option<Spanned<f64>>,
    pub(in crate::scenario) to: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct XidTable {
    pub(in crate::scenario) gpu: Spanned<usize>,
    pub(in crate::scenario) at: Spanned<f64>,
    pub(in crate::scenario) code: Spanned<u32>,
    pub(in crate::scenario) gi: Option<u32>,
    pub(in crate::scenario) ci: Option<u32>,
}
