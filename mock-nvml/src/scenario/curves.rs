//! Validation of load curves.

use toml::Spanned;

use super::{
    complaint::{Checked, Flaw, ensure},
    file::{CurveTable, CurveText},
};
use crate::curve::Curve;

/// The curve that the text of `key` says; nothing said is no load.
pub(super) fn check(key: &str, text: Option<&Spanned<CurveText>>) -> Checked<Curve> {
    let Some(text) = text else { return Ok(Curve::default()) };
    match text.get_ref() {
        CurveText::Number(value) => {
            ensure(percent(*value), text, || {
                format!("{key} = {value} is no load: give 0 to 100 %")
            })?;
            Ok(Curve::Constant(*value))
        }
        CurveText::Table(table) => {
            curve(table).map_err(|mend| Flaw::new(text.span(), format!("{key}: {mend}")))
        }
    }
}

fn curve(table: &CurveTable) -> Result<Curve, String> {
    match (&table.wave, &table.points) {
        (Some(wave), None) => self::wave(wave, table),
        (None, Some(points)) => self::points(points, table),
        _ => Err("a curve has either \"wave\" or \"points\": give one of them".into()),
    }
}

fn wave(wave: &str, table: &CurveTable) -> Result<Curve, String> {
    if table.repeat.is_some() {
        return Err("a wave repeats by itself: leave out \"repeat\"".into());
    }
    let low = table.low.unwrap_or(0.0);
    let high = table.high.ok_or("a wave needs \"high\": add it")?;
    let period = table.period.ok_or("a wave needs \"period\" in seconds: add it")?;
    let phase = table.phase.unwrap_or(0.0);
    if !(percent(low) && percent(high) && low <= high) {
        return Err(format!("low = {low}, high = {high}: give 0 <= low <= high <= 100 %"));
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

fn points(points: &[(f64, f64)], table: &CurveTable) -> Result<Curve, String> {
    let CurveTable { low, high, period, phase, duty, repeat, .. } = table;
    if [low, high, period, phase, duty].iter().any(|key| key.is_some()) {
        return Err("points say everything: leave out the keys of a wave".into());
    }
    if points.is_empty() {
        return Err("no points: give at least one [seconds, percent]".into());
    }
    for (time, value) in points {
        if !time.is_finite() || !percent(*value) {
            return Err(format!("point [{time}, {value}]: give finite seconds and 0 to 100 %"));
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

fn percent(value: f64) -> bool {
    (0.0..=100.0).contains(&value)
}
