//! Plausible values of each unit.

/// Integers up to 2^53 are exact in an `f64`; a bitmask or an id must be.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Counters have 64 bits: a link that transfers 50 GB/s has more than 2^53 bytes after two days. All bits set, a
/// sentinel value, is 2^64 as an `f64`, and this the largest below it.
const LONG: f64 = 18_446_744_073_709_549_568.0;
/// Largest 32-bit count; all bits set is a sentinel value.
const COUNT: f64 = 4_294_967_294.0;
/// NVML documents GPM percentages as 0 to 100. The two counters of a ratio are not read at the same
/// instant: a ratio that is above 1 by less than this is 1.
const RATIO_EXCESS: f64 = 0.01;

/// The value in `unit`, or `None` if it is impossible: a sentinel value of the driver, or out of
/// range. Ratios of 0 to 1 are never above 1.
#[must_use]
pub fn plausible(unit: &str, value: f64) -> Option<f64> {
    if unit == "ratio 0..1" {
        return (0.0..=1.0 + RATIO_EXCESS).contains(&value).then_some(value.min(1.0));
    }
    (value.is_finite() && value <= max_plausible(unit)).then_some(value)
}

fn max_plausible(unit: &str) -> f64 {
    match unit {
        "W" => 10_000.0,
        "Hz" => 1e11,
        "MiB" | "MB/s" => 1e7,
        "bytes/s" => 1e13,
        // The ratio of a fan may exceed 1.
        "MHz" | "C" | "%" | "P-state" | "lanes" | "gen" | "index" | "bool" | "enum" | "ratio" => {
            1e5
        }
        "count" | "pages" | "samples" | "KB/s" => COUNT,
        "bitmask" | "id" | "packed" => EXACT,
        _ => LONG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_set_is_impossible() {
        let ones = f64::from(u32::MAX);
        for (unit, value) in [("W", ones / 1000.0), ("Hz", ones * 1e6), ("count", ones)] {
            assert_eq!(plausible(unit, value), None, "{unit}");
            assert_eq!(plausible(unit, 700.0), Some(700.0), "{unit}");
        }
        for unit in ["bitmask", "bytes", "ns", "packets", "errors", "ratio"] {
            assert_eq!(plausible(unit, 18_446_744_073_709_551_615.0), None, "{unit}");
        }
        assert_eq!(plausible("mJ", 1e15), Some(1e15));
        assert_eq!(plausible("%", f64::INFINITY), None);
        assert_eq!(plausible("bytes/s", ones * 1_048_576.0), None);
    }

    #[test]
    fn counters_may_have_64_bits() {
        for unit in ["bytes", "ns", "packets", "errors", "blocks"] {
            assert_eq!(plausible(unit, 1.2e19), Some(1.2e19), "{unit}");
        }
    }

    #[test]
    fn ratio_is_between_0_and_1() {
        let ratio = |value| plausible("ratio 0..1", value);
        assert_eq!([0.0, 0.5, 1.0].map(ratio), [Some(0.0), Some(0.5), Some(1.0)]);
        assert_eq!(ratio(1.005), Some(1.0), "the counters are not read at the same instant");
        for value in [1.29, 4_294_967_295.0, 9e15, -0.1, f64::NAN] {
            assert_eq!(ratio(value), None, "{value}");
        }
    }
}
