//! `tls_server_config` → what rustls is told.

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

use super::wire::Tls;
use super::{Files, Problem};

/// Which clients are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientAuth {
    /// Nobody is asked for a certificate.
    None,
    /// Whoever has one may show it, whatever it is.
    Request,
    /// Everybody shows one, whatever it is.
    Any,
    /// One that is shown is checked.
    VerifyIfGiven,
    /// Everybody shows one, and it is checked.
    RequireAndVerify,
}

/// What rustls is told; none where no certificate is named, as in a file with only other settings.
///
/// # Errors
/// Names the key and the mend.
pub(super) fn server_config(
    tls: &Tls,
    files: &mut Files<'_>,
    remarks: &mut Vec<String>,
) -> Result<Option<ServerConfig>, Problem> {
    let cert = one_of("cert", tls.cert.as_deref(), tls.cert_file.as_deref(), files)?;
    let key = one_of("key", tls.key.as_deref(), tls.key_file.as_deref(), files)?;
    let client_ca =
        one_of("client_ca", tls.client_ca.as_deref(), tls.client_ca_file.as_deref(), files)?;
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if client_ca.is_none() && tls.client_auth_type.is_none() => return Ok(None),
        (None, _) => return Err(value("cert_file", "missing; name the server's certificate")),
        (_, None) => return Err(value("key_file", "missing; name the certificate's key")),
    };
    if tls.prefer_server_cipher_suites == Some(false) {
        remarks.push("prefer_server_cipher_suites: the server's order always counts".to_owned());
    }
    let provider = Arc::new(provider(tls)?);
    let versions = versions(tls)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
    let certificates = certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| value("cert_file", "no certificate in PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| value("key_file", "no private key in PEM"))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| value("cipher_suites", error.to_string()))?;
    let builder = match verifier(tls, client_ca.as_deref(), &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| {
        value("key_file", format!("{error}; is it the key of the certificate?"))
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(config))
}

/// What is written in the file itself, or in one that it names.
fn one_of(
    key: &str,
    text: Option<&str>,
    file: Option<&Path>,
    files: &mut Files<'_>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (text.filter(|text| !text.is_empty()), file.filter(|path| *path != Path::new(""))) {
        (Some(_), Some(_)) => {
            Err(value(key, format!("given as {key} and as {key}_file; keep one")))
        }
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(path)) => {
            let path = files.folder.join(path);
            let named = |problem: Problem| {
                value(&format!("{key}_file"), format!("{}: {problem}", path.display()))
            };
            files.read(&path).map(Some).map_err(named)
        }
        (None, None) => Ok(None),
    }
}

fn provider(tls: &Tls) -> Result<CryptoProvider, Problem> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let known = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
        for name in &tls.cipher_suites {
            let is_known =
                provider.cipher_suites.iter().any(|suite| is_called(&known(suite), name));
            if !is_known {
                let names: Vec<String> = provider.cipher_suites.iter().map(known).collect();
                let detail = format!("{name}: not among {}", names.join(", "));
                return Err(value("cipher_suites", detail));
            }
        }
        let chosen = |suite: &SupportedCipherSuite| {
            tls.cipher_suites.iter().any(|name| is_called(&known(suite), name))
        };
        // Those of TLS 1.3 are not chosen by anybody, as in Go.
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen(suite));
    }
    if !tls.curve_preferences.is_empty() {
        provider.kx_groups =
            tls.curve_preferences.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// Whether a suite is called so, in rustls' spelling or in Go's.
fn is_called(suite: &str, name: &str) -> bool {
    let plain = |name: &str| name.replace("TLS13_", "TLS_").trim_end_matches("_SHA256").to_owned();
    plain(suite) == plain(name)
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, Problem> {
    match name {
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        "X25519" => Ok(ring::kx_group::X25519),
        _ => {
            Err(value("curve_preferences", format!("{name}: give CurveP256, CurveP384 or X25519")))
        }
    }
}

fn versions(tls: &Tls) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
    let number = |key: &str, name: Option<&str>, default: u32| match name {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(12),
        Some("TLS13") => Ok(13),
        Some(other) => {
            Err(value(key, format!("{other}: give TLS12 or TLS13; older ones are broken")))
        }
    };
    let min = number("min_version", tls.min_version.as_deref(), 12)?;
    let max = number("max_version", tls.max_version.as_deref(), 13)?;
    let all = [(12, &version::TLS12), (13, &version::TLS13)];
    let between: Vec<_> =
        all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect();
    if between.is_empty() {
        Err(value("max_version", "older than min_version"))
    } else {
        Ok(between)
    }
}

fn verifier(
    tls: &Tls,
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
            let detail = format!(
                "{other}: give NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            );
            return Err(value("client_auth_type", detail));
        }
    };
    let names = allowed(&tls.client_allowed_sans)?;
    let checked = matches!(auth, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify);
    match (client_ca, checked) {
        (Some(_), false) if auth == ClientAuth::None => {
            return Err(value(
                "client_ca_file",
                "without client_auth_type nobody is asked for a certificate; give RequireAndVerifyClientCert",
            ));
        }
        (None, true) => {
            return Err(value(
                "client_ca_file",
                "missing; name who signs the clients' certificates",
            ));
        }
        _ => {}
    }
    if !names.is_empty() && auth != ClientAuth::RequireAndVerify {
        return Err(value(
            "client_allowed_sans",
            "only with client_auth_type RequireAndVerifyClientCert",
        ));
    }
    let algorithms = provider.signature_verification_algorithms;
    Ok(match auth {
        ClientAuth::None => None,
        ClientAuth::Request => Some(Arc::new(Unchecked { algorithms, mandatory: false })),
        ClientAuth::Any => Some(Arc::new(Unchecked { algorithms, mandatory: true })),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(client_ca.unwrap_or_default()) {
                let no_ca = || value("client_ca_file", "no certificate in PEM");
                roots.add(certificate.map_err(|_| no_ca())?).map_err(|_| no_ca())?;
            }
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let builder = if auth == ClientAuth::VerifyIfGiven {
                builder.allow_unauthenticated()
            } else {
                builder
            };
            let verifier = builder
                .build()
                .map_err(|error| value("client_ca_file", format!("{error}: is it a PEM file?")))?;
            Some(if names.is_empty() { verifier } else { Arc::new(Named { verifier, names }) })
        }
    })
}

/// Names of clients that are let in.
fn allowed(names: &[String]) -> Result<Vec<San>, Problem> {
    let parse = |name: &String| {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(San::Name(ServerName::IpAddress(address.into())));
        }
        if name.contains("://") {
            return Ok(San::Uri(name.clone()));
        }
        ServerName::try_from(name.clone()).map(San::Name).map_err(|_| {
            value("client_allowed_sans", format!("{name}: give a DNS name, an IP address or a URI"))
        })
    };
    names.iter().map(parse).collect()
}

/// A name that a client's certificate may have.
#[derive(Debug)]
enum San {
    /// A DNS name or an address.
    Name(ServerName<'static>),
    /// A URI, as SPIFFE's.
    Uri(String),
}

/// Checks a client's certificate, and that it has one of some names.
#[derive(Debug)]
struct Named {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<San>,
}

/// Has clients show that they have the key of their certificate, whatever it is.
#[derive(Debug)]
struct Unchecked {
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl ClientCertVerifier for Named {
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
        let has = |name: &San| match name {
            San::Name(name) => certificate.verify_is_valid_for_subject_name(name).is_ok(),
            San::Uri(uri) => certificate.valid_uri_names().any(|known| known == uri),
        };
        if self.names.iter().any(has) { Ok(verified) } else { Err(refused) }
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

impl ClientCertVerifier for Unchecked {
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

fn value(key: &str, detail: impl AsRef<str>) -> Problem {
    Problem::value(format!("tls_server_config.{key}"), detail)
}
