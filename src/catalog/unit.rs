//! Largest plausible value of each unit.

/// Integers up to 2^53 are exact in an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Largest 32-bit count; all bits set is a sentinel value.
const COUNT: f64 = 4_294_967_294.0;

/// Largest plausible value of `unit`; a larger one is a sentinel value of the driver.
#[must_use]
pub fn max_plausible(unit: &str) -> f64 {
    match unit {
        "W" => 10_000.0,
        "Hz" => 1e11,
        "MiB" | "MB/s" => 1e7,
        "MHz" | "C" | "%" | "P-state" | "lanes" | "gen" | "index" | "bool" | "enum" => 1e5,
        "count" | "pages" | "samples" | "KB/s" => COUNT,
        // Bitmasks, ratios and long-running counters.
        _ => EXACT,
    }
}
