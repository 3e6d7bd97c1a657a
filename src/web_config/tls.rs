//! Converts `tls_server_config` into a rustls configuration.

mod client_auth;
mod provider;
mod unsupported;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig, SupportedProtocolVersion, version};

pub(crate) use self::unsupported::refused_client_certificate;

use self::client_auth::verifier;
use self::provider::provider;
use self::unsupported::{curve_problem, version_problem};
use super::schema::{TlsServerConfig, TlsVersion};
use super::{ReferencedFiles, at_key};
use crate::model::Problem;

/// The rustls configuration; `None` if no certificate is configured.
///
/// # Errors
/// A certificate or key file cannot be read or is invalid, or a key has a value that is not allowed.
pub(super) fn server_config(
    tls: &TlsServerConfig,
    files: &mut ReferencedFiles<'_>,
    remarks: &mut Vec<String>,
) -> Result<Option<ServerConfig>, Problem> {
    let cert = inline_or_file("cert", tls.cert.as_deref(), tls.cert_file.as_deref(), files)?;
    let key = inline_or_file("key", tls.key.as_deref(), tls.key_file.as_deref(), files)?;
    let client_ca = inline_or_file(
        "client_ca",
        tls.client_ca.as_deref(),
        tls.client_ca_file.as_deref(),
        files,
    )?;
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if client_ca.is_none() && tls.client_auth_type.is_none() => return Ok(None),
        (None, _) => return Err(value("cert_file", "missing", "give the server certificate")),
        (_, None) => return Err(value("key_file", "missing", "give the key of the certificate")),
    };
    if tls.prefer_server_cipher_suites == Some(false) {
        let remark = "prefer_server_cipher_suites: false is ignored: the server always decides";
        remarks.push(remark.to_owned());
    }
    let provider = Arc::new(provider(tls)?);
    let versions = versions(tls)?;
    let certificates = certificates("cert_file", &cert)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| value("key_file", "no private key in PEM format", "give a PEM file"))?;
    if let Some(problem) = certificates.first().and_then(version_problem) {
        return Err(at_key("tls_server_config.cert_file", problem));
    }
    if let Some(problem) = curve_problem(key.secret_der()) {
        return Err(at_key("tls_server_config.key_file", problem));
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|_| {
            let message = "none can be used with the TLS versions of min_version and max_version";
            value("cipher_suites", message, "add another cipher suite")
        })?;
    let builder = match verifier(tls, client_ca.as_deref(), &provider, remarks)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|error| unusable_pair(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(config))
}

/// The certificates in the text of `key`.
///
/// # Errors
/// There is none, or one is not in PEM format.
fn certificates(key: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    certificates.ok_or_else(|| value(key, "no certificate in PEM format", "give a PEM file"))
}

/// Why certificate and key cannot be used together.
fn unusable_pair(error: &Error) -> Problem {
    if let Error::InvalidCertificate(_) = error {
        let remedy = "give an X.509 certificate in PEM format";
        return value("cert_file", "the server certificate is damaged", remedy);
    }
    if let Error::InconsistentKeys(_) = error {
        let message = "not the key of the certificate in cert_file";
        return value("key_file", message, "give the key of this certificate");
    }
    let message = "the key is damaged or of an unsupported type";
    value("key_file", message, "give an ECDSA, Ed25519 or RSA key")
}

/// The value of `key`, or the content of the file of `{key}_file`.
fn inline_or_file(
    key: &str,
    text: Option<&str>,
    file: Option<&Path>,
    files: &mut ReferencedFiles<'_>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (text.filter(|text| !text.is_empty()), file.filter(|path| *path != Path::new(""))) {
        (Some(_), Some(_)) => {
            Err(value(key, format!("set both as {key} and as {key}_file"), "remove one"))
        }
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(path)) => {
            let path = files.directory.join(path);
            let with_path = |problem: Problem| {
                at_key(format!("tls_server_config.{key}_file"), problem.at(path.display()))
            };
            files.read(&path).map(Some).map_err(with_path)
        }
        (None, None) => Ok(None),
    }
}

fn versions(tls: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
    let min = tls.min_version.unwrap_or(TlsVersion::Tls12);
    let max = tls.max_version.unwrap_or(TlsVersion::Tls13);
    let all = [(TlsVersion::Tls12, &version::TLS12), (TlsVersion::Tls13, &version::TLS13)];
    let between: Vec<_> =
        all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect();
    if between.is_empty() {
        Err(value("max_version", "older than min_version", "give at least min_version"))
    } else {
        Ok(between)
    }
}

fn value(key: &str, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
    at_key(format!("tls_server_config.{key}"), Problem::new(message, remedy))
}
