//! What a horizontal pod autoscaler decides on a metric of pods with an average value for its target, as
//! its controller reckons (thousandths throughout, tolerance 0.1).

use std::collections::BTreeMap;

/// Thousandths of a metric, by pod.
pub(crate) type Values = BTreeMap<String, i64>;

/// Why the number of replicas stays what it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// No pod has a number: the autoscaler reports an error.
    NoMetrics,
}

/// How far from the target is not worth a change.
const TOLERANCE: f64 = 0.1;

#[expect(clippy::cast_precision_loss, reason = "as the controller reckons")]
fn ratio(values: &Values, target: i64) -> f64 {
    let sum: i64 = values.values().fold(0, |sum, value| sum.wrapping_add(*value));
    // The mean is a whole number of thousandths there.
    let mean = sum / i64::try_from(values.len()).unwrap();
    mean as f64 / target as f64
}

fn ceiling(ratio: f64, pods: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a small count, and less than nothing is nothing"
    )]
    let wanted = (ratio * pods as f64).ceil() as usize;
    wanted
}

/// Replicas for `pods`, all of which run; those without a value are missing.
pub(crate) fn replicas(
    pods: &[&str],
    values: &Values,
    target: i64,
    bounds: (usize, usize),
) -> Result<usize, Hold> {
    let current = pods.len();
    let present: Values = values
        .iter()
        .filter(|(pod, _)| pods.contains(&pod.as_str()))
        .map(|(pod, value)| (pod.clone(), *value))
        .collect();
    if present.is_empty() {
        return Err(Hold::NoMetrics);
    }
    let wanted = plain(pods, present, target);
    Ok(wanted.unwrap_or(current).clamp(bounds.0, bounds.1))
}

/// Another number of replicas, if there is a reason for one.
fn plain(pods: &[&str], mut values: Values, target: i64) -> Option<usize> {
    let current = pods.len();
    let before = ratio(&values, target);
    let missing: Vec<&&str> = pods.iter().filter(|pod| !values.contains_key(**pod)).collect();
    let near = |ratio: f64| (1.0 - ratio).abs() <= TOLERANCE;
    if missing.is_empty() {
        return (!near(before)).then(|| ceiling(before, current));
    }
    // Who is missing is taken for what speaks against a change.
    let assumed = if before < 1.0 { target } else { 0 };
    values.extend(missing.into_iter().map(|pod| ((*pod).to_owned(), assumed)));
    let after = ratio(&values, target);
    if near(after) || (before < 1.0) != (after < 1.0) {
        return None;
    }
    let wanted = ceiling(after, values.len());
    let against = (after < 1.0 && wanted > current) || (after > 1.0 && wanted < current);
    (!against).then_some(wanted)
}

#[test]
fn missing_pods_make_it_hold_and_idle_ones_let_it_scale_in() {
    let all = ["a", "b", "c", "d"];
    let decide = |count: usize, values: &[(&str, i64)]| {
        let values = values.iter().map(|(pod, value)| ((*pod).to_owned(), value * 1000)).collect();
        replicas(&all[..count], &values, 20_000, (1, 10))
    };
    // The guide's: 23 % of one GPU, target 20; then idle.
    assert_eq!(decide(1, &[("a", 23)]), Ok(2));
    assert_eq!(decide(2, &[("a", 0), ("b", 0)]), Ok(1));
    assert_eq!(decide(1, &[("a", 46)]), Ok(3));
    // Within a tenth of the target nothing changes.
    assert_eq!(decide(1, &[("a", 21)]), Ok(1));
    // One busy pod of three: the others idle, or without a number.
    assert_eq!(decide(3, &[("a", 30), ("b", 0), ("c", 0)]), Ok(2));
    assert_eq!(decide(3, &[("a", 30)]), Ok(3));
    assert_eq!(decide(3, &[("a", 5), ("b", 0), ("c", 0)]), Ok(1));
    assert_eq!(decide(3, &[("a", 5)]), Ok(3));
    // A pod that has only just started does not stop a service from growing.
    assert_eq!(decide(2, &[("a", 100)]), Ok(5));
    assert_eq!(decide(3, &[]), Err(Hold::NoMetrics));
    // Pods of others do not count.
    assert_eq!(decide(1, &[("d", 90)]), Err(Hold::NoMetrics));
    assert_eq!(decide(4, &[("a", 90), ("b", 90), ("c", 90), ("d", 90)]), Ok(10));
}
