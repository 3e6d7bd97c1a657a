//! Validation of curves: utilization in percent and traffic in MiB/s.

use toml::Spanned;

use crate::{
    curve::Curve,
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::{CurveTable, CurveValue},
    },
};

/// Unit and maximum of a curve.
#[derive(Clone, Copy)]
struct Scale {
    most: f64,
    unit: &'static str,
}

const PERCENT: Scale = Scale { most: 100.0, unit: "%" };
const RATE: Scale = Scale { most: 10_000_000.0, unit: "MiB/s" };

impl Scale {
    fn contains(self, value: f64) -> bool {
        (0.0..=self.most).contains(&value)
    }
}

/// The utilization of `key` in percent; 0 if absent.
pub(super) fn check(key: &str, text: Option<&Spanned<CurveValue>>) -> ValidationResult<Curve> {
    scaled(key, text, PERCENT)
}

/// The traffic of `key` in MiB/s; 0 if absent.
pub(super) fn rate(key: &str, text: Option<&Spanned<CurveValue>>) -> ValidationResult<Curve> {
    scaled(key, text, RATE)
}

fn scaled(key: &str, text: Option<&Spanned<CurveValue>>, scale: Scale) -> ValidationResult<Curve> {
    let Some(text) = text else { return Ok(Curve::default()) };
    let Scale { most, unit } = scale;
    match text.get_ref() {
        CurveValue::Number(value) => {
            ensure(scale.contains(*value), text, || {
                format!("{key} = {value} is out of range: write 0 to {most} {unit}")
            })?;
            Ok(Curve::Constant(*value))
        }
        CurveValue::Table(table) => curve(table, scale)
            .map_err(|error| SpannedError::new(text.span(), format!("{key}: {error}"))),
    }
}

fn curve(table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    match (&table.wave, &table.points) {
        (Some(wave), None) => self::wave(wave, table, scale),
        (None, Some(points)) => self::points(points, table, scale),
        _ => Err("a curve has either \"wave\" or \"points\": write one of them".into()),
    }
}

fn wave(wave: &str, table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    if table.repeat.is_some() {
        return Err(
            "\"repeat\" is a key of \"points\", since a wave always repeats: remove it".into()
        );
    }
    let low = table.low.unwrap_or(0.0);
    let high = table.high.ok_or("\"high\" is missing, which a wave requires: add it")?;
    let period =
        table.period.ok_or("\"period\" is missing, which a wave requires: add it in seconds")?;
    let phase = table.phase.unwrap_or(0.0);
    let Scale { most, unit } = scale;
    if !(scale.contains(low) && scale.contains(high) && low <= high) {
        return Err(format!(
            "low = {low} and high = {high} are out of range: write 0 <= low <= high <= {most} {unit}"
        ));
    }
    if !(period.is_finite() && period > 0.0) {
        return Err(format!("period = {period} is out of range: write seconds above 0"));
    }
    if !phase.is_finite() {
        return Err(format!("phase = {phase} is out of range: write finite seconds"));
    }
    match (wave, table.duty) {
        ("sine", None) => Ok(Curve::Sine { low, high, period, phase }),
        ("sine", Some(_)) => Err("\"duty\" is a key of square waves: remove it".into()),
        ("square", duty) => {
            let duty = duty.unwrap_or(0.5);
            if !(0.0..=1.0).contains(&duty) {
                return Err(format!(
                    "duty = {duty} is out of range: write the high fraction of a period, 0 to 1"
                ));
            }
            Ok(Curve::Square { low, high, period, phase, duty })
        }
        (other, _) => Err(format!("unknown wave \"{other}\": write \"sine\" or \"square\"")),
    }
}

fn points(points: &[(f64, f64)], table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    let Scale { most, unit } = scale;
    let CurveTable { low, high, period, phase, duty, repeat, .. } = table;
    if [low, high, period, phase, duty].iter().any(|key| key.is_some()) {
        return Err("a curve with \"points\" has no keys of a wave: remove them".into());
    }
    if points.is_empty() {
        return Err("\"points\" is empty: write at least one [seconds, value]".into());
    }
    for (time, value) in points {
        if !time.is_finite() || !scale.contains(*value) {
            return Err(format!(
                "point [{time}, {value}] is out of range: write finite seconds and 0 to {most} {unit}"
            ));
        }
    }
    if let Some((before, after)) =
        points.iter().zip(points.iter().skip(1)).find(|(a, b)| a.0 >= b.0)
    {
        return Err(format!(
            "the point at {} s follows the one at {} s: write points in ascending order of time",
            after.0, before.0
        ));
    }
    Ok(Curve::Points { points: points.into(), repeat: repeat.unwrap_or(false) })
}
