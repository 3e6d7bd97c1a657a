//! A model of the `HorizontalPodAutoscaler` controller for a pods metric with a target of type `AverageValue`, and for
//! an external metric with one of type `Value` (all values in thousandths, tolerance 0.1).

use std::collections::BTreeMap;

/// Metric values in thousandths, by pod.
pub(crate) type Values = BTreeMap<String, i64>;

/// Why the number of replicas does not change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScalingError {
    /// No pod has a metric value: the autoscaler reports an error.
    NoMetrics,
}

/// Relative deviation from the target within which the number of replicas does not change.
const TOLERANCE: f64 = 0.1;

#[expect(clippy::cast_precision_loss, reason = "the controller computes in f64")]
fn ratio(values: &Values, target: i64) -> f64 {
    let sum: i64 = values.values().fold(0, |sum, value| sum.wrapping_add(*value));
    // The controller rounds the mean down to whole thousandths.
    let mean = sum / i64::try_from(values.len()).unwrap();
    mean as f64 / target as f64
}

fn ceiling(ratio: f64, pods: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "the count is small, and negative values become 0"
    )]
    let count = (ratio * pods as f64).ceil() as usize;
    count
}

/// Desired replicas for `pods`, which are all running. Pods without a value count as missing.
pub(crate) fn desired_replicas(
    pods: &[&str],
    values: &Values,
    target: i64,
    bounds: (usize, usize),
) -> Result<usize, ScalingError> {
    let current = pods.len();
    let present: Values = values
        .iter()
        .filter(|(pod, _)| pods.contains(&pod.as_str()))
        .map(|(pod, value)| (pod.clone(), *value))
        .collect();
    if present.is_empty() {
        return Err(ScalingError::NoMetrics);
    }
    let desired = unbounded(pods, present, target);
    Ok(desired.unwrap_or(current).clamp(bounds.0, bounds.1))
}

/// Desired replicas before the bounds apply; `None` if the number does not change.
fn unbounded(pods: &[&str], mut values: Values, target: i64) -> Option<usize> {
    let current = pods.len();
    let before = ratio(&values, target);
    let missing: Vec<&&str> = pods.iter().filter(|pod| !values.contains_key(**pod)).collect();
    let near = |ratio: f64| (1.0 - ratio).abs() <= TOLERANCE;
    if missing.is_empty() {
        return (!near(before)).then(|| ceiling(before, current));
    }
    // Missing pods are assumed to have the value that opposes a change.
    let assumed = if before < 1.0 { target } else { 0 };
    values.extend(missing.into_iter().map(|pod| ((*pod).to_owned(), assumed)));
    let after = ratio(&values, target);
    if near(after) || (before < 1.0) != (after < 1.0) {
        return None;
    }
    let desired = ceiling(after, values.len());
    let opposite = (after < 1.0 && desired > current) || (after > 1.0 && desired < current);
    (!opposite).then_some(desired)
}

/// Replicas for an external metric, before the bounds apply, of which `current` are ready.
pub(crate) fn external_replicas(value: i64, target: i64, current: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "the controller computes in f64")]
    let ratio = value as f64 / target as f64;
    if (1.0 - ratio).abs() <= TOLERANCE { current } else { ceiling(ratio, current) }
}

#[test]
fn missing_pods_prevent_scaling_in_and_idle_pods_allow_it() {
    let all = ["a", "b", "c", "d"];
    let decide = |count: usize, values: &[(&str, i64)]| {
        let values = values.iter().map(|(pod, value)| ((*pod).to_owned(), value * 1000)).collect();
        desired_replicas(&all[..count], &values, 20_000, (1, 10))
    };
    // The example of the ACK guide: 23 % of one GPU with target 20; then idle.
    assert_eq!(decide(1, &[("a", 23)]), Ok(2));
    assert_eq!(decide(2, &[("a", 0), ("b", 0)]), Ok(1));
    assert_eq!(decide(1, &[("a", 46)]), Ok(3));
    // Within the tolerance nothing changes.
    assert_eq!(decide(1, &[("a", 21)]), Ok(1));
    // One busy pod of three: the others are idle or have no value.
    assert_eq!(decide(3, &[("a", 30), ("b", 0), ("c", 0)]), Ok(2));
    assert_eq!(decide(3, &[("a", 30)]), Ok(3));
    assert_eq!(decide(3, &[("a", 5), ("b", 0), ("c", 0)]), Ok(1));
    assert_eq!(decide(3, &[("a", 5)]), Ok(3));
    // A new pod without a value does not prevent scaling out.
    assert_eq!(decide(2, &[("a", 100)]), Ok(5));
    assert_eq!(decide(3, &[]), Err(ScalingError::NoMetrics));
    // Values of other pods are ignored.
    assert_eq!(decide(1, &[("d", 90)]), Err(ScalingError::NoMetrics));
    assert_eq!(decide(4, &[("a", 90), ("b", 90), ("c", 90), ("d", 90)]), Ok(10));
}
