//! Cipher suites and curves (`cipher_suites`, `curve_preferences`).

use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};

use super::value;
use crate::model::Problem;
use crate::web_config::schema::{Curve, TlsServerConfig};

/// The algorithms of TLS.
///
/// # Errors
/// A cipher suite is unknown.
pub(super) fn provider(tls: &TlsServerConfig) -> Result<CryptoProvider, Problem> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let suite_name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
        for name in &tls.cipher_suites {
            let is_known =
                provider.cipher_suites.iter().any(|suite| is_same_suite(&suite_name(suite), name));
            if !is_known {
                let names: Vec<String> = provider.cipher_suites.iter().map(suite_name).collect();
                let message = if name.contains("_CBC_") {
                    format!("{name}: cipher suites with CBC are insecure and not supported")
                } else {
                    format!("{name}: unknown cipher suite")
                };
                let remedy = format!("give one of {}", names.join(", "));
                return Err(value("cipher_suites", message, remedy));
            }
        }
        let is_listed = |suite: &SupportedCipherSuite| {
            tls.cipher_suites.iter().any(|name| is_same_suite(&suite_name(suite), name))
        };
        // The cipher suites of TLS 1.3 are not configurable, as in Go.
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || is_listed(suite));
    }
    if !tls.curve_preferences.is_empty() {
        provider.kx_groups = tls.curve_preferences.iter().map(|curve| group(*curve)).collect();
    }
    Ok(provider)
}

/// Whether a cipher suite has this name, in the notation of rustls or of Go.
fn is_same_suite(suite: &str, name: &str) -> bool {
    let plain = |name: &str| name.replace("TLS13_", "TLS_").trim_end_matches("_SHA256").to_owned();
    plain(suite) == plain(name)
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::P256 => ring::kx_group::SECP256R1,
        Curve::P384 => ring::kx_group::SECP384R1,
        Curve::X25519 => ring::kx_group::X25519,
    }
}
