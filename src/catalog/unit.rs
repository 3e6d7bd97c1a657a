//! What a number of a unit cannot be.

/// Whole numbers up to this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// A count of 32 bits, of which all set is none.
const COUNT: f64 = 4_294_967_294.0;

/// More than this is no number of the unit, but what a driver writes where it knows nothing.
#[must_use]
pub fn most(unit: &str) -> f64 {
    match unit {
        "W" => 10_000.0,
        "Hz" => 1e11,
        "MiB" | "MB/s" => 1e7,
        "MHz" | "C" | "%" | "P-state" | "lanes" | "gen" | "index" | "bool" | "enum" => 1e5,
        "count" | "pages" | "samples" | "KB/s" => COUNT,
        // Masks, shares, and what grows for years.
        _ => EXACT,
    }
}
