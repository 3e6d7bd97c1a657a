//! Validation of load curves.

use toml::Spanned;

use super::{
    complaint::{Checked, Flaw, ensure},
    file::{CurveTable, CurveText},
};
use crate::curve::Curve;

/// What a curve may say.
#[derive(Clone, Copy)]
struct Scale {
    /// Its highest value.
    most: f64,
    /// What it counts.
    unit: &'static str,
}

const PERCENT: Scale = Scale { most: 100.0, unit: "%" };
const RATE: Scale = Scale { most: 10_000_000.0, unit: "MiB/s" };

impl Scale {
    fn holds(self, value: f64) -> bool {
        (0.0..=self.most).contains(&value)
    }
}

/// The load that the text of `key` says, in percent; nothing said is no load.
pub(super) fn check(key: &str, text: Option<&Spanned<CurveText>>) -> Checked<Curve> {
    scaled(key, text, PERCENT)
}

/// The traffic that the text of `key` says, in MiB/s; nothing said is none.
pub(super) fn rate(key: &str, text: Option<&Spanned<CurveText>>) -> Checked<Curve> {
    scaled(key, text, RATE)
}

fn scaled(key: &str, text: Option<&Spanned<CurveText>>, scale: Scale) -> Checked<Curve> {
    let Some(text) = text else { return Ok(Curve::default()) };
    let Scale { most, unit } = scale;
    match text.get_ref() {
        CurveText::Number(value) => {
            ensure(scale.holds(*value), text, || {
                format!("{key} = {value} is no load: give 0 to {most} {unit}")
            })?;
            Ok(Curve::Constant(*value))
        }
        CurveText::Table(table) => {
            curve(table, scale).map_err(|mend| Flaw::new(text.span(), format!("{key}: {mend}")))
        }
    }
}

fn curve(table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    match (&table.wave, &table.points) {
        (Some(wave), None) => self::wave(wave, table, scale),
        (None, Some(points)) => self::points(points, table, scale),
        _ => Err("a curve has either \"wave\" or \"points\": give one of them".into()),
    }
}

fn wave(wave: &str, table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    if table.repeat.is_some() {
        return Err("a wave repeats by itself: leave out \"repeat\"".into());
    }
    let low = table.low.unwrap_or(0.0);
    let high = table.high.ok_or("a wave needs \"high\": add it")?;
    let period = table.period.ok_or("a wave needs \"period\" in seconds: add it")?;
    let phase = table.phase.unwrap_or(0.0);
    let Scale { most, unit } = scale;
    if !(scale.holds(low) && scale.holds(high) && low <= high) {
        return Err(format!("low = {low}, high = {high}: give 0 <= low <= high <= {most} {unit}"));
    }
    if !(period.is_finite() && period > 0.0) {
        return Err(format!("period = {period}: give seconds above 0"));
    }
    if !phase.is_finite() {
        return Err(format!("phase = {phase}: give finite seconds"));
    }
    match (wave, table.duty) {
        ("sine", None) => Ok(Curve::Sine { low, high, period, phase }),
        ("sine", Some(_)) => Err("a sine has no \"duty\": leave it out".into()),
        ("square", duty) => {
            let duty = duty.unwrap_or(0.5);
            if !(0.0..=1.0).contains(&duty) {
                return Err(format!("duty = {duty}: give the high part of a period, 0 to 1"));
            }
            Ok(Curve::Square { low, high, period, phase, duty })
        }
        (other, _) => Err(format!("no wave \"{other}\": use \"sine\" or \"square\"")),
    }
}

fn points(points: &[(f64, f64)], table: &CurveTable, scale: Scale) -> Result<Curve, String> {
    let Scale { most, unit } = scale;
    let CurveTable { low, high, period, phase, duty, repeat, .. } = table;
    if [low, high, period, phase, duty].iter().any(|key| key.is_some()) {
        return Err("points say everything: leave out the keys of a wave".into());
    }
    if points.is_empty() {
        return Err("no points: give at least one [seconds, load]".into());
    }
    for (time, value) in points {
        if !time.is_finite() || !scale.holds(*value) {
            return Err(format!(
                "point [{time}, {value}]: give finite seconds and 0 to {most} {unit}"
            ));
        }
    }
    if let Some((before, after)) =
        points.iter().zip(points.iter().skip(1)).find(|(a, b)| a.0 >= b.0)
    {
        return Err(format!(
            "the point at {} s comes after the one at {} s: put points in rising order of time",
            after.0, before.0
        ));
    }
    Ok(Curve::Points { points: points.into(), repeat: repeat.unwrap_or(false) })
}
