//! The TOML tables of MIG layouts.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct LayoutTable {
    pub(in crate::scenario_file) from: Option<f64>,
    pub(in crate::scenario_file) to: Option<f64>,
    #[serde(default)]
    pub(in crate::scenario_file) instances: Vec<Spanned<InstanceTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct InstanceTable {
    pub(in crate::scenario_file) profile: Spanned<String>,
    pub(in crate::scenario_file) count: Option<u32>,
    pub(in crate::scenario_file) start: Option<u32>,
    pub(in crate::scenario_file) gi: Option<u32>,
    pub(in crate::scenario_file) slot: Option<u32>,
    pub(in crate::scenario_file) compute: Option<Vec<String>>,
    pub(in crate::scenario_file) uuid: Option<String>,
}
