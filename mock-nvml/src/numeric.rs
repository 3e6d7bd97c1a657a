//! Conversions between the floating-point numbers of the simulation and NVML's integers.

/// `value` rounded down, saturating at the bounds of `u32` (NaN is 0).
///
/// 1e-9 is added first, so that 85 with a negative rounding error is still 85.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, as intended here"
)]
pub(crate) fn floor_u32(value: f64) -> u32 {
    (value + 1e-9).floor() as u32
}

/// `value` rounded to the nearest integer, saturating at the bounds of `u32` (NaN is 0).
pub(crate) fn round_u32(value: f64) -> u32 {
    floor_u32(value.round())
}

/// `value` rounded down, saturating at the bounds of `u64` (NaN is 0).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, as intended here"
)]
pub(crate) fn floor_u64(value: f64) -> u64 {
    (value + 1e-9).floor() as u64
}

/// `value` rounded down, saturating at the bounds of `i64` (NaN is 0).
#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, as intended here")]
pub(crate) fn floor_i64(value: f64) -> i64 {
    (value + 1e-9).floor() as i64
}

/// `value` as a float; exact below 2⁵³, which is above any time or size of a simulation.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// `value` as a float; exact below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
pub(crate) fn float_i64(value: i64) -> f64 {
    value as f64
}

/// `value` as a `u32`, saturating.
pub(crate) fn clamp_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
