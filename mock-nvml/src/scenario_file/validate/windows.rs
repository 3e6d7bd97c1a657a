//! Validation of time windows.

use std::ops::Range;

use toml::Spanned;

use crate::{
    scenario_file::{
        error::{SpannedError, ValidationResult},
        tables::WindowTable,
    },
    window::Window,
};

pub(super) fn windows(key: &str, tables: &[Spanned<WindowTable>]) -> ValidationResult<Vec<Window>> {
    tables.iter().map(|table| window(key, table)).collect()
}

pub(super) fn window(key: &str, table: &Spanned<WindowTable>) -> ValidationResult<Window> {
    let spec = table.get_ref();
    time_window(spec.from.unwrap_or(0.0), spec.to)
        .map_err(|error| SpannedError::new(table.span(), format!("{key}: {error}")))
}

pub(super) fn parse_window(
    from: Option<&Spanned<f64>>,
    to: Option<&Spanned<f64>>,
) -> ValidationResult<Window> {
    let span: Range<usize> = from.or(to).map(Spanned::span).unwrap_or_default();
    time_window(from.map_or(0.0, |from| *from.get_ref()), to.map(|to| *to.get_ref()))
        .map_err(|error| SpannedError::new(span, error))
}

pub(super) fn time_window(from: f64, to: Option<f64>) -> Result<Window, String> {
    let to = to.unwrap_or(f64::INFINITY);
    if !from.is_finite() || to.is_nan() || from >= to {
        return Err(format!("from {from} s to {to} s is empty: write a \"from\" before \"to\""));
    }
    Ok(Window { from, to })
}
