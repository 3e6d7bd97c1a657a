//! Authentication of clients by certificates (`client_auth_type`).

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::unsupported::{curve_problem, version_problem};
use super::verifier::{AnyCertVerifier, SanVerifier};
use super::{certificates, value};
use crate::model::Problem;
use crate::web_config::at_key;
use crate::web_config::schema::{ClientAuth, TlsServerConfig};

/// The CA certificates of the system, read once.
static SYSTEM_ROOTS: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    // One that cannot be read or used has issued no usable certificate.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// The verifier of client certificates; `None` if none are requested.
///
/// # Errors
/// `client_ca` is invalid, or `client_ca` or `client_allowed_sans` not used with the authentication type.
pub(super) fn verifier(
    tls: &TlsServerConfig,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
    remarks: &mut Vec<String>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    const REMEDY: &str = "set client_auth_type to RequireAndVerifyClientCert";
    let auth = tls.client_auth_type.unwrap_or_default();
    let unused = |key| Err(value(key, "not used without client_auth_type", REMEDY));
    if client_ca.is_some() && auth == ClientAuth::None {
        return unused("client_ca_file");
    }
    let algorithms = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::None if tls.client_allowed_sans.is_some() => {
            return unused("client_allowed_sans");
        }
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => Arc::new(AnyCertVerifier { algorithms, mandatory: false }),
        ClientAuth::Any => Arc::new(AnyCertVerifier { algorithms, mandatory: true }),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let roots = roots(client_ca, remarks)?;
            ca_verifier(roots, auth == ClientAuth::RequireAndVerify, provider)?
        }
    };
    let Some(names) = tls.client_allowed_sans.clone() else { return Ok(Some(verifier)) };
    if auth != ClientAuth::RequireAndVerify {
        let remark = "client_allowed_sans: clients without a verified certificate are accepted";
        remarks.push(format!("{remark}; {REMEDY}"));
    }
    Ok(Some(Arc::new(SanVerifier { verifier, names })))
}

/// The CAs that issue client certificates: those of `client_ca`, else of the system.
fn roots(client_ca: Option<&[u8]>, remarks: &mut Vec<String>) -> Result<RootCertStore, Problem> {
    let key = "client_ca_file";
    let Some(client_ca) = client_ca else {
        let remark =
            "client_ca_file: missing, so that each CA of the system can issue client certificates";
        remarks.push(remark.to_owned());
        return Ok(SYSTEM_ROOTS.clone());
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, client_ca)? {
        let problem = curve_problem(&certificate).or_else(|| version_problem(&certificate));
        if let Some(problem) = problem {
            return Err(at_key("tls_server_config.client_ca_file", problem));
        }
        let unusable =
            |_| value(key, "a certificate is damaged", "give CA certificates in PEM format");
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

/// Verifies that a client certificate is signed by one of the CAs.
fn ca_verifier(
    roots: RootCertStore,
    mandatory: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    // The only errors of the builder: no root certificate, or a damaged revocation list.
    let missing = "missing, and the system has no CA certificates";
    let remedy = "give the CA that signs the client certificates";
    builder.build().map_err(|_| value("client_ca_file", missing, remedy))
}
