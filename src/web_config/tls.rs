//! Converts `tls_server_config` into a rustls configuration.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, ring,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use webpki::EndEntityCert;

use super::schema::TlsServerConfig;
use super::{ReferencedFiles, at_key};
use crate::model::Problem;

/// Client certificates (`client_auth_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientAuth {
    /// Not requested.
    None,
    /// Requested, but optional and not verified.
    Request,
    /// Required, but not verified.
    Any,
    /// Optional; verified if the client sends one.
    VerifyIfGiven,
    /// Required and verified.
    RequireAndVerify,
}

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
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
    let certificates = certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| value("cert_file", "no certificate in PEM format", "give a PEM file"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| value("key_file", "no private key in PEM format", "give a PEM file"))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| {
            let message = format!(
                "not usable with the TLS versions of min_version and max_version ({error})"
            );
            value("cipher_suites", message, "add another cipher suite")
        })?;
    let builder = match verifier(tls, client_ca.as_deref(), &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| {
        let message = format!("not usable ({error})");
        value("key_file", message, "give the key of the certificate in cert_file")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(config))
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

fn provider(tls: &TlsServerConfig) -> Result<CryptoProvider, Problem> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let suite_name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
        for name in &tls.cipher_suites {
            let is_known =
                provider.cipher_suites.iter().any(|suite| is_same_suite(&suite_name(suite), name));
            if !is_known {
                let names: Vec<String> = provider.cipher_suites.iter().map(suite_name).collect();
                let message = format!("{name}: unknown cipher suite");
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
        provider.kx_groups =
            tls.curve_preferences.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// Whether a cipher suite has this name, in the notation of rustls or of Go.
fn is_same_suite(suite: &str, name: &str) -> bool {
    let plain = |name: &str| name.replace("TLS13_", "TLS_").trim_end_matches("_SHA256").to_owned();
    plain(suite) == plain(name)
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, Problem> {
    match name {
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        "X25519" => Ok(ring::kx_group::X25519),
        _ => {
            let message = format!("{name}: unknown curve");
            Err(value("curve_preferences", message, "give CurveP256, CurveP384 or X25519"))
        }
    }
}

fn versions(tls: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
    let number = |key: &str, name: Option<&str>, default: u32| match name {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(12),
        Some("TLS13") => Ok(13),
        Some(other) => {
            let message = format!("{other}: unknown or insecure version");
            Err(value(key, message, "give TLS12 or TLS13"))
        }
    };
    let min = number("min_version", tls.min_version.as_deref(), 12)?;
    let max = number("max_version", tls.max_version.as_deref(), 13)?;
    let all = [(12, &version::TLS12), (13, &version::TLS13)];
    let between: Vec<_> =
        all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect();
    if between.is_empty() {
        Err(value("max_version", "older than min_version", "give at least min_version"))
    } else {
        Ok(between)
    }
}

fn verifier(
    tls: &TlsServerConfig,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    let auth = match tls.client_auth_type.as_deref() {
        None | Some("" | "NoClientCert") => ClientAuth::None,
        Some("RequestClientCert") => ClientAuth::Request,
        Some("RequireAnyClientCert") => ClientAuth::Any,
        Some("VerifyClientCertIfGiven") => ClientAuth::VerifyIfGiven,
        Some("RequireAndVerifyClientCert") => ClientAuth::RequireAndVerify,
        Some(other) => {
            return Err(value(
                "client_auth_type",
                format!("{other}: unknown type"),
                "give NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert",
            ));
        }
    };
    let names = allowed_sans(&tls.client_allowed_sans)?;
    let checked = matches!(auth, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify);
    match (client_ca, checked) {
        (Some(_), false) if auth == ClientAuth::None => {
            return Err(value(
                "client_ca_file",
                "not used without client_auth_type",
                "set client_auth_type to \
                 RequireAndVerifyClientCert",
            ));
        }
        (None, true) => {
            return Err(value(
                "client_ca_file",
                "missing",
                "give the CA that signs the client certificates",
            ));
        }
        _ => {}
    }
    if !names.is_empty() && auth != ClientAuth::RequireAndVerify {
        return Err(value(
            "client_allowed_sans",
            "not used with this client_auth_type",
            "set client_auth_type to \
             RequireAndVerifyClientCert",
        ));
    }
    let algorithms = provider.signature_verification_algorithms;
    Ok(match auth {
        ClientAuth::None => None,
        ClientAuth::Request => Some(Arc::new(AnyCertVerifier { algorithms, mandatory: false })),
        ClientAuth::Any => Some(Arc::new(AnyCertVerifier { algorithms, mandatory: true })),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(client_ca.unwrap_or_default()) {
                let invalid =
                    || value("client_ca_file", "no certificate in PEM format", "give a PEM file");
                roots.add(certificate.map_err(|_| invalid())?).map_err(|_| invalid())?;
            }
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let builder = if auth == ClientAuth::VerifyIfGiven {
                builder.allow_unauthenticated()
            } else {
                builder
            };
            let verifier = builder.build().map_err(|error| {
                let message = format!("not usable ({error})");
                value("client_ca_file", message, "give CA certificates in PEM format")
            })?;
            Some(if names.is_empty() {
                verifier
            } else {
                Arc::new(SanVerifier { verifier, names })
            })
        }
    })
}

/// Parses `client_allowed_sans`.
fn allowed_sans(names: &[String]) -> Result<Vec<San>, Problem> {
    let parse = |name: &String| {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(San::Name(ServerName::IpAddress(address.into())));
        }
        if name.contains("://") {
            return Ok(San::Uri(name.clone()));
        }
        ServerName::try_from(name.clone()).map(San::Name).map_err(|_| {
            let message = format!("{name}: not a subject alternative name");
            value("client_allowed_sans", message, "give a DNS name, an IP address or a URI")
        })
    };
    names.iter().map(parse).collect()
}

/// A subject alternative name of a client certificate.
#[derive(Debug)]
enum San {
    /// A DNS name or an IP address.
    Name(ServerName<'static>),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
}

/// Verifies a client certificate, and that it has one of the allowed names.
#[derive(Debug)]
struct SanVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<San>,
}

/// Accepts every client certificate, but verifies that the client has its private key.
#[derive(Debug)]
struct AnyCertVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl ClientCertVerifier for SanVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let Ok(certificate) = EndEntityCert::try_from(end_entity) else { return Err(refused) };
        let has_name = |name: &San| match name {
            San::Name(name) => certificate.verify_is_valid_for_subject_name(name).is_ok(),
            San::Uri(uri) => certificate.valid_uri_names().any(|known| known == uri),
        };
        if self.names.iter().any(has_name) { Ok(verified) } else { Err(refused) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ClientCertVerifier for AnyCertVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn value(key: &str, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
    at_key(format!("tls_server_config.{key}"), Problem::new(message, remedy))
}
