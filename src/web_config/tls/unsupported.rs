//! Certificates and keys that are valid and that TLS libraries no longer support, and the reasons why a
//! client certificate is refused.

use std::io;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{CertificateError, Error};
use webpki::EndEntityCert;

use crate::model::Problem;

/// The DER encoding of the object identifier of the curve P-521.
const P521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// Why a certificate or key cannot be used for its curve; `None` if it is of another one.
pub(super) fn curve_problem(der: &[u8]) -> Option<Problem> {
    let is_p521 = der.windows(P521.len()).any(|window| window == P521);
    let remedy = "give one with P-256, P-384, Ed25519 or RSA";
    is_p521.then(|| Problem::new("keys of the curve P-521 are not supported", remedy))
}

/// Why a certificate of the server or of a CA cannot be used for its version; `None` if it is of version 3.
pub(super) fn version_problem(certificate: &CertificateDer<'_>) -> Option<Problem> {
    let is_old = EndEntityCert::try_from(certificate).err();
    is_old.filter(|error| *error == webpki::Error::UnsupportedCertVersion).map(|_| {
        let message = "a certificate of X.509 version 1 is not supported";
        Problem::new(message, "give one of version 3")
    })
}

/// Why a TLS handshake refused the certificate of the client, of a fixed set of texts; `None` if it failed
/// for another reason.
pub(crate) fn refused_client_certificate(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    if matches!(error, Error::NoCertificatesPresented) {
        return Some("the client sent none");
    }
    let Error::InvalidCertificate(error) = error else { return None };
    Some(certificate_reason(error))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others need no advice of their own")]
fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::ApplicationVerificationFailure => {
            "none of its names is in client_allowed_sans"
        }
        // A bad signature: another CA with the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no CA of client_ca_file, or of the system if there is none, has issued it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet"
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "it is a CA certificate, such as a self-signed one that is its own CA; issue another one with it"
            }
            Some(webpki::Error::UnsupportedCertVersion) => {
                "it is of X.509 version 1; issue one of version 3"
            }
            _ => "it is not valid for clients",
        },
        _ => "it is not valid, or its algorithm is not supported (P-521)",
    }
}
