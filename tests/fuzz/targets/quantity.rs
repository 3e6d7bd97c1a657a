//! Kubernetes quantities.

use nvml_exporter::kube::quantity::{mib, parse};

/// A parsed quantity is finite and at most 2^63, and its decimal notation parses to the same value.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(value) = parse(text) else { return assert_eq!(mib(text), None) };
    assert!((0.0..=2_f64.powi(63)).contains(&value), "{text}: {value}");
    assert_eq!(mib(text), Some(value / 1_048_576.0));
    let plain = format!("{value}");
    if plain.len() <= 64 {
        assert_eq!(parse(&plain), Some(value), "{text}");
    }
}
