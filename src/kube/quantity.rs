//! Parser of Kubernetes quantities (`16Gi`, `1e3`, `500m`).
//!
//! The client library has them as text only.

use serde::Deserialize;

/// A quantity in JSON: a string or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum JsonQuantity {
    /// Such as `"16Gi"`.
    Text(Box<str>),
    /// Such as `50`.
    Number(serde_json::Number),
}

impl JsonQuantity {
    /// The text of the quantity.
    #[must_use]
    pub fn into_text(self) -> Box<str> {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string().into(),
        }
    }
}

/// Longest accepted text. An API server admits no longer quantity.
const LENGTH_MAX: usize = 64;

/// The number of a quantity; none if the text is malformed, negative or above 2^63, the limit of the
/// API.
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (digits, suffix) = unsigned.split_at(end);
    if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // "1." and ".5" are quantities; the float parser rejects two points.
    let value = digits.parse::<f64>().ok()? * scale(suffix)?;
    (value <= 2_f64.powi(63)).then_some(value)
}

/// A quantity of bytes, in MiB.
#[must_use]
pub fn mib(text: &str) -> Option<f64> {
    parse(text).map(|bytes| bytes / 1_048_576.0)
}

fn scale(suffix: &str) -> Option<f64> {
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2_f64.powi(10),
        "Mi" => 2_f64.powi(20),
        "Gi" => 2_f64.powi(30),
        "Ti" => 2_f64.powi(40),
        "Pi" => 2_f64.powi(50),
        "Ei" => 2_f64.powi(60),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E'])?;
            10_f64.powi(i32::from(exponent.parse::<i8>().ok()?))
        }
    };
    Some(scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_formats_are_parsed() {
        for (text, value) in [
            ("50", 50.0),
            ("0", 0.0),
            ("+7", 7.0),
            ("500m", 0.5),
            ("1.5", 1.5),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("1E3", 1000.0),
            ("1e+3", 1000.0),
            ("5e-1", 0.5),
            ("1E", 1e18),
            ("2k", 2000.0),
            ("3M", 3e6),
            ("1Ki", 1024.0),
            ("16Gi", 17_179_869_184.0),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        assert_eq!(mib("81251Mi"), Some(81251.0));
        assert_eq!(mib("16Gi"), Some(16384.0));
    }

    #[test]
    fn malformed_quantities_are_rejected() {
        let long = "1".repeat(LENGTH_MAX + 1);
        let malformed = ["", "-1", "Gi", ".", "1..2", "1 Gi", "1gi", "1e", "1e999", "1e1.5", "NaN"];
        for text in malformed.into_iter().chain(["inf", "++1", "0x10", "١", "9e99", &long]) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_finite_number_or_none(text in "[-+0-9.eEKMGTPinumk]{0,12}|\\PC{0,20}") {
            if let Some(value) = parse(&text) {
                prop_assert!(value.is_finite() && value >= 0.0, "{value}");
            }
        }

        #[test]
        fn whole_numbers_are_exact(n in 0_u32..) {
            prop_assert_eq!(parse(&n.to_string()), Some(f64::from(n)));
            prop_assert_eq!(mib(&format!("{n}Mi")), Some(f64::from(n)));
        }
    }
}
