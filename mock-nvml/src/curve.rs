//! Load curves: a percentage as a function of world time.

use std::{f64::consts::TAU, sync::Arc};

/// The load of an engine in percent, over world time in seconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Curve {
    /// Constant load.
    Constant(f64),
    /// A sine between `low` and `high`; rising through the middle when `time + phase` is a multiple
    /// of `period`.
    Sine { low: f64, high: f64, period: f64, phase: f64 },
    /// `high` for the first `duty` (0..1) of each period, then `low`.
    Square { low: f64, high: f64, period: f64, phase: f64, duty: f64 },
    /// Linear interpolation between (seconds, percent); constant before the first point and after
    /// the last, or periodic if `repeat`.
    Points { points: Arc<[(f64, f64)]>, repeat: bool },
}

impl Curve {
    /// The load at world time `time`, in percent.
    pub(crate) fn at(&self, time: f64) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Sine { low, high, period, phase } => {
                let swing = (TAU * (time + phase) / period).sin();
                (low + (high - low) * (swing + 1.0) / 2.0).clamp(*low, *high)
            }
            Self::Square { low, high, period, phase, duty } => {
                if (time + phase).rem_euclid(*period) < duty * period { *high } else { *low }
            }
            Self::Points { points, repeat } => interpolate(points, *repeat, time),
        }
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self::Constant(0.0)
    }
}

fn interpolate(points: &[(f64, f64)], repeat: bool, time: f64) -> f64 {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return 0.0 };
    let span = last.0 - first.0;
    let time =
        if repeat && span > 0.0 { first.0 + (time - first.0).rem_euclid(span) } else { time };
    let after = points.partition_point(|point| point.0 <= time);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (None, _) => first.1,
        (Some(from), None) => from.1,
        (Some(from), Some(to)) => from.1 + (to.1 - from.1) * (time - from.0) / (to.0 - from.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mean(curve: &Curve, from: f64, to: f64) -> f64 {
        let steps = 10_000;
        let sum: f64 = (0..steps)
            .map(|step| curve.at(from + (to - from) * (f64::from(step) + 0.5) / f64::from(steps)))
            .sum();
        sum / f64::from(steps)
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn waves_have_the_expected_mean() {
        let sine = Curve::Sine { low: 10.0, high: 60.0, period: 45.0, phase: 7.0 };
        assert!((mean(&sine, 0.0, 45.0) - 35.0).abs() < 0.01);
        let square = Curve::Square { low: 0.0, high: 40.0, period: 20.0, phase: 0.0, duty: 0.25 };
        assert!((mean(&square, 0.0, 20.0) - 10.0).abs() < 0.01);
        assert_eq!([0.0, 4.9, 5.0, 19.9, 20.0].map(|t| square.at(t)), [40.0, 40.0, 0.0, 0.0, 40.0]);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn points_are_interpolated_linearly() {
        let points: Arc<[_]> = [(10.0, 0.0), (40.0, 90.0), (70.0, 0.0)].into();
        let once = Curve::Points { points: points.clone(), repeat: false };
        assert_eq!(
            [0.0, 10.0, 20.0, 40.0, 55.0, 99.0].map(|t| once.at(t)),
            [0.0, 0.0, 30.0, 90.0, 45.0, 0.0]
        );
        let repeated = Curve::Points { points, repeat: true };
        assert_eq!([20.0, 80.0, 140.0].map(|t| repeated.at(t)), [30.0, 30.0, 30.0]);
        assert!((mean(&repeated, 10.0, 70.0) - 45.0).abs() < 0.01);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn two_points_at_almost_the_same_time_form_a_step() {
        let step =
            Curve::Points { points: [(0.0, 5.0), (1.0, 5.0), (1.001, 50.0)].into(), repeat: false };
        assert_eq!([0.5, 1.0, 2.0].map(|t| step.at(t)), [5.0, 5.0, 50.0]);
    }

    proptest! {
        #[test]
        fn curve_stays_within_its_bounds(
            time in -1e5..1e6_f64, low in 0.0..50.0_f64, high in 50.0..100.0_f64,
            period in 0.1..1e4_f64, phase in -1e3..1e3_f64, duty in 0.0..1.0_f64,
        ) {
            let points: Arc<[_]> = [(0.0, low), (period, high)].into();
            for curve in [
                Curve::Sine { low, high, period, phase },
                Curve::Square { low, high, period, phase, duty },
                Curve::Points { points: points.clone(), repeat: false },
                Curve::Points { points, repeat: true },
            ] {
                let value = curve.at(time);
                prop_assert!((low - 1e-9..=high + 1e-9).contains(&value), "{curve:?} at {time}: {value}");
            }
        }
    }
}
