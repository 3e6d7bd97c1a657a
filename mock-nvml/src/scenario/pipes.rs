//! What a process does with the SM.

use toml::Spanned;

use super::{
    complaint::{Checked, ensure},
    file::PipesTable,
};

/// How busy the parts of the SM are while a process runs there: each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pipes {
    /// Warps, of those there is room for.
    pub(crate) occupancy: f64,
    /// Tensor cores.
    pub(crate) tensor: f64,
    /// 64-bit floating point.
    pub(crate) fp64: f64,
    /// 32-bit floating point.
    pub(crate) fp32: f64,
    /// 16-bit floating point.
    pub(crate) fp16: f64,
    /// Integers.
    pub(crate) integer: f64,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { occupancy: 0.5, tensor: 0.3, fp64: 0.0, fp32: 0.2, fp16: 0.05, integer: 0.1 }
    }
}

/// What the table says; what it leaves out is as for a model of today.
pub(super) fn check(table: Option<&Spanned<PipesTable>>) -> Checked<Pipes> {
    let Some(table) = table else { return Ok(Pipes::default()) };
    let usual = Pipes::default();
    let share = |key: &str, said: Option<f64>, usual: f64| {
        let share = said.unwrap_or(usual);
        let mend = || format!("pipes: {key} = {share}: give a share of the SM's time, 0 to 1");
        ensure((0.0..=1.0).contains(&share), table, mend)?;
        Ok(share)
    };
    let said = table.get_ref();
    Ok(Pipes {
        occupancy: share("occupancy", said.occupancy, usual.occupancy)?,
        tensor: share("tensor", said.tensor, usual.tensor)?,
        fp64: share("fp64", said.fp64, usual.fp64)?,
        fp32: share("fp32", said.fp32, usual.fp32)?,
        fp16: share("fp16", said.fp16, usual.fp16)?,
        integer: share("integer", said.integer, usual.integer)?,
    })
}
