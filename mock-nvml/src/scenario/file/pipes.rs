//! The table of what a process does with the SM.

use serde::Deserialize;

/// What a process does while its SM are busy, each as a share of that time.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct PipesTable {
    pub(in crate::scenario) occupancy: Option<f64>,
    pub(in crate::scenario) tensor: Option<f64>,
    pub(in crate::scenario) fp64: Option<f64>,
    pub(in crate::scenario) fp32: Option<f64>,
    pub(in crate::scenario) fp16: Option<f64>,
    pub(in crate::scenario) integer: Option<f64>,
}
