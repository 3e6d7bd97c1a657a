//! The TOML table of the SM pipes.

use serde::Deserialize;

/// Activity of each pipe as a fraction of the time in which the SM is busy.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario_file) struct PipesTable {
    pub(in crate::scenario_file) occupancy: Option<f64>,
    pub(in crate::scenario_file) tensor: Option<f64>,
    pub(in crate::scenario_file) fp64: Option<f64>,
    pub(in crate::scenario_file) fp32: Option<f64>,
    pub(in crate::scenario_file) fp16: Option<f64>,
    pub(in crate::scenario_file) integer: Option<f64>,
}
