//! The tables of MIG.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct LayoutTable {
    pub(in crate::scenario) from: Option<f64>,
    pub(in crate::scenario) to: Option<f64>,
    #[serde(default)]
    pub(in crate::scenario) instances: Vec<Spanned<InstanceTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct InstanceTable {
    pub(in crate::scenario) profile: Spanned<String>,
    pub(in crate::scenario) count: Option<u32>,
    pub(in crate::scenario) start: Option<u32>,
    pub(in crate::scenario) gi: Option<u32>,
    pub(in crate::scenario) slot: Option<u32>,
    pub(in crate::scenario) compute: Option<Vec<String>>,
    pub(in crate::scenario) uuid: Option<String>,
}
