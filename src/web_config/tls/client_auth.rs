//! Authentication of clients by certificates (`client_auth_type`).

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::unsupported::curve_problem;
use super::verifier::{AnyCertVerifier, San, SanVerifier};
use super::{certificates, value};
use crate::model::Problem;
use crate::web_config::at_key;
use crate::web_config::schema::{ClientAuth, TlsServerConfig};

/// The verifier of client certificates; `None` if none are requested.
///
/// # Errors
/// `client_ca` or `client_allowed_sans` is missing, invalid, or not used with the authentication type.
pub(super) fn verifier(
    tls: &TlsServerConfig,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    const REMEDY: &str = "set client_auth_type to RequireAndVerifyClientCert";
    let auth = tls.client_auth_type.unwrap_or_default();
    if client_ca.is_some() && auth == ClientAuth::None {
        return Err(value("client_ca_file", "not used without client_auth_type", REMEDY));
    }
    let names = allowed_sans(&tls.client_allowed_sans)?;
    if !names.is_empty() && auth != ClientAuth::RequireAndVerify {
        let message = "not used with this client_auth_type";
        return Err(value("client_allowed_sans", message, REMEDY));
    }
    let algorithms = provider.signature_verification_algorithms;
    Ok(match auth {
        ClientAuth::None => None,
        ClientAuth::Request => Some(Arc::new(AnyCertVerifier { algorithms, mandatory: false })),
        ClientAuth::Any => Some(Arc::new(AnyCertVerifier { algorithms, mandatory: true })),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let verifier = ca_verifier(client_ca, auth == ClientAuth::RequireAndVerify, provider)?;
            Some(if names.is_empty() {
                verifier
            } else {
                Arc::new(SanVerifier { verifier, names })
            })
        }
    })
}

/// Verifies that a client certificate is signed by one of the CA certificates.
fn ca_verifier(
    client_ca: Option<&[u8]>,
    mandatory: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let key = "client_ca_file";
    let client_ca = client_ca
        .ok_or_else(|| value(key, "missing", "give the CA that signs the client certificates"))?;
    let unusable = || value(key, "a certificate is damaged", "give CA certificates in PEM format");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, client_ca)? {
        if let Some(problem) = curve_problem(&certificate) {
            return Err(at_key("tls_server_config.client_ca_file", problem));
        }
        roots.add(certificate).map_err(|_| unusable())?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    // The only errors of the builder: no root certificate, or a damaged revocation list.
    builder.build().map_err(|_| unusable())
}

/// Parses `client_allowed_sans`.
fn allowed_sans(names: &[String]) -> Result<Vec<San>, Problem> {
    let parse = |name: &String| {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(San::Ip(ServerName::IpAddress(address.into())));
        }
        if name.contains("://") {
            return Ok(San::Uri(name.clone()));
        }
        let is_valid = ServerName::try_from(name.as_str()).is_ok();
        is_valid.then(|| San::Dns(name.clone())).ok_or_else(|| {
            let message = format!("{name}: not a subject alternative name");
            value("client_allowed_sans", message, "give a DNS name, an IP address or a URI")
        })
    };
    names.iter().map(parse).collect()
}
