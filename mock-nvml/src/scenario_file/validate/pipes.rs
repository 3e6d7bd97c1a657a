//! Validation of the activity of the SM pipes.

use toml::Spanned;

use crate::{
    scenario::pipes::Pipes,
    scenario_file::{
        error::{ValidationResult, ensure},
        tables::PipesTable,
    },
};

/// The values of the table; absent keys have the defaults.
pub(super) fn check(table: Option<&Spanned<PipesTable>>) -> ValidationResult<Pipes> {
    let Some(table) = table else { return Ok(Pipes::default()) };
    let defaults = Pipes::default();
    let fraction = |key: &str, value: Option<f64>, default: f64| {
        let fraction = value.unwrap_or(default);
        let error = || {
            format!(
                "pipes: {key} = {fraction} is out of range: write a fraction of the busy time, 0 to 1"
            )
        };
        ensure((0.0..=1.0).contains(&fraction), table, error)?;
        Ok(fraction)
    };
    let spec = table.get_ref();
    Ok(Pipes {
        occupancy: fraction("occupancy", spec.occupancy, defaults.occupancy)?,
        tensor: fraction("tensor", spec.tensor, defaults.tensor)?,
        fp64: fraction("fp64", spec.fp64, defaults.fp64)?,
        fp32: fraction("fp32", spec.fp32, defaults.fp32)?,
        fp16: fraction("fp16", spec.fp16, defaults.fp16)?,
        integer: fraction("integer", spec.integer, defaults.integer)?,
    })
}
