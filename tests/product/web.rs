//! The HTTP server: TLS, authentication, limits, socket activation and invalid requests.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::denial_of_service::send;
use crate::exporter::{Exporter, Response, run_with, value};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A directory with a web configuration file, a CA and a server certificate.
pub(crate) struct WebFixture {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM format.
pub(crate) struct CertificateAndKey {
    cert: String,
    key: String,
}

impl WebFixture {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let site = Self { directory: tempfile::tempdir().unwrap(), authority };
        site.write("ca.crt", &site.authority.pem());
        site.renew();
        site
    }

    fn sign(&self, name: &str) -> CertificateAndKey {
        self.sign_params(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    fn sign_params(&self, params: &CertificateParams) -> CertificateAndKey {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        CertificateAndKey { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Replaces the server certificate.
    fn renew(&self) -> CertificateAndKey {
        let signed = self.sign("localhost");
        self.write("tls.key", &signed.key);
        self.write("tls.crt", &signed.cert);
        signed
    }

    /// Path of the CA certificate.
    pub(crate) fn authority(&self) -> String {
        self.directory.path().join("ca.crt").display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.directory.path().join(name)).unwrap();
    }

    /// Runs the exporter with a configuration that it refuses, and returns the error.
    fn error(&self, config: &str) -> String {
        self.write("web.yml", config);
        let file = self.directory.path().join("web.yml").display().to_string();
        let output = run_with(&[("DCGM_EXPORTER_WEB_CONFIG_FILE", &file)], &["--mock=idle-t4"]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Writes the configuration, and returns its flag.
    pub(crate) fn write_config(&self, config: &str) -> String {
        self.write("web.yml", config);
        format!("--web-config-file={}", self.directory.path().join("web.yml").display())
    }

    pub(crate) fn start(&self, config: &str, flags: &[&str]) -> Exporter {
        self.start_with(&[], config, flags)
    }

    fn start_with(&self, environment: &[(&str, &str)], config: &str, flags: &[&str]) -> Exporter {
        let file = self.write_config(config);
        let base = ["--mock=idle-t4", "--collect-interval=200", &file];
        Exporter::start_with(environment, &[&base, flags].concat())
    }

    /// Sends a request over TLS, with the client certificate `client` if there is one. Returns the
    /// response and the server certificate.
    pub(crate) fn get(
        &self,
        exporter: &Exporter,
        path: &str,
        client: Option<&CertificateAndKey>,
    ) -> io::Result<(Response, Vec<u8>)> {
        let mut stream = self.connect(exporter, client)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let certificate = stream.conn.peer_certificates().unwrap()[0].to_vec();
        Ok((Response::parse(&response), certificate))
    }

    /// Sends a request head over TLS and returns the response.
    pub(crate) fn request(&self, exporter: &Exporter, head: &str) -> io::Result<Response> {
        let mut stream = self.connect(exporter, None)?;
        stream.write_all(head.as_bytes())?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        Ok(Response::parse(&response))
    }

    /// Opens a connection over TLS.
    fn connect(
        &self,
        exporter: &Exporter,
        client: Option<&CertificateAndKey>,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.authority.pem())).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
        let config = match client {
            Some(signed) => {
                let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![der(&signed.cert)], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(exporter.address())?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(StreamOwned::new(connection, stream))
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub(crate) const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";

fn refused(exporter: &Exporter, reason: &str) -> Option<f64> {
    let text = exporter.metrics();
    value(&text, "nvml_exporter_http_refused_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn tls_certificate_is_reloaded_for_new_connections() {
    let site = WebFixture::new();
    let first = site.renew();
    let exporter = site.start(TLS, &[]);
    let certificate = || site.get(&exporter, "/healthz", None).unwrap().1;
    assert_eq!(certificate(), der(&first.cert).to_vec());
    let (metrics, _) = site.get(&exporter, "/metrics", None).unwrap();
    assert!(metrics.status == 200 || metrics.status == 503, "503 before the first cycle");

    // The key does not match the certificate, as between the replacements of the two files.
    let other = site.sign("localhost");
    site.write("tls.key", &other.key);
    exporter.wait_for_log("the previous configuration stays active");
    assert_eq!(certificate(), der(&first.cert).to_vec());
    let second = site.renew();
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!(certificate(), der(&second.cert).to_vec());

    // Plain HTTP has no response and does not affect other connections.
    let mut plain = TcpStream::connect(exporter.address()).unwrap();
    plain.set_read_timeout(Some(TIMEOUT)).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut response = Vec::new();
    let _ = plain.read_to_end(&mut response);
    assert!(!response.starts_with(b"HTTP"), "{response:?}");
    assert_eq!(certificate(), der(&second.cert).to_vec());
}

#[test]
fn client_certificates_are_verified() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(Some(&site.sign("scraper.example"))).unwrap().0.status, 200);
    for other in ["other.example", "*.example", "Scraper.Example", "scraper.example.org"] {
        assert!(get(Some(&site.sign(other))).is_err(), "{other}");
    }
    assert!(get(Some(&WebFixture::new().sign("scraper.example"))).is_err(), "another CA");
    assert!(get(None).is_err(), "no certificate");
}

#[test]
fn every_kind_of_name_of_a_client_certificate_is_compared_exactly() {
    let site = WebFixture::new();
    let allowed = |names: &str| {
        format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: {names}\n"
        )
    };
    let config = allowed("['*.lab.example', scraper@a.example, 10.0.0.1, 'fd00::1', 'urn:x:y']");
    let exporter = site.start(&config, &[]);
    let is_accepted = |name: SanType| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("other".try_into().unwrap()), name];
        site.get(&exporter, "/healthz", Some(&site.sign_params(&params))).is_ok()
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let ip = |name: &str| SanType::IpAddress(name.parse().unwrap());
    for name in [
        dns("*.lab.example"),
        email("scraper@a.example"),
        uri("urn:x:y"),
        ip("10.0.0.1"),
        ip("fd00::1"),
    ] {
        assert!(is_accepted(name.clone()), "{name:?}");
    }
    for name in [
        dns("a.lab.example"),
        email("other@a.example"),
        uri("urn:x:z"),
        ip("10.0.0.2"),
        ip("fd00::2"),
        dns("10.0.0.1"),
    ] {
        // The same text as a name of another kind is allowed, as in Go.
        assert_eq!(is_accepted(name.clone()), name == dns("10.0.0.1"), "{name:?}");
    }
    // An empty list allows no name.
    let exporter = site.start(&allowed("[]"), &[]);
    assert!(site.get(&exporter, "/healthz", Some(&site.sign("a.example"))).is_err());
}

#[test]
fn optional_client_certificate_has_an_allowed_name() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(None).unwrap().0.status, 200);
    assert_eq!(get(Some(&site.sign("scraper.example"))).unwrap().0.status, 200);
    assert!(get(Some(&site.sign("other.example"))).is_err());
}

#[test]
fn without_a_ca_the_certificates_of_the_system_verify_clients() {
    let site = WebFixture::new();
    let config = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n");
    let exporter = site.start_with(&[("SSL_CERT_FILE", &site.authority())], &config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(Some(&site.sign("a.example"))).unwrap().0.status, 200);
    assert!(get(Some(&WebFixture::new().sign("a.example"))).is_err(), "another CA");
    assert!(get(None).is_err(), "no certificate");
    exporter.wait_for_log("each CA of the system can issue client certificates");

    site.write("web.yml", &config);
    site.write("empty", "");
    let file = |name: &str| site.directory.path().join(name).display().to_string();
    let environment =
        [("SSL_CERT_FILE", &*file("empty")), ("DCGM_EXPORTER_WEB_CONFIG_FILE", &file("web.yml"))];
    let output = run_with(&environment, &["--mock=idle-t4"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("client_ca_file: missing, and the system has no CA"), "{error}");
}

/// A certificate of X.509 version 1.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBFTCBvQIUb0o5fHm80il8UmLlNPSX2n8Zz7YwCgYIKoZIzj0EAwIwDTELMAkG\n\
A1UEAwwCdjEwIBcNMjYxMTMwMDgxOTM0WhgPMjEyNjExMDYwODE5MzRaMA0xCzAJ\n\
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEk0HbWyiFLc2gqZtn\n\
vZu1coV0BlPoruFvovn9NQn48GFVjuwVZ8V4W64fzUynfuhgnD6pJIBsARm3HzU8\n\
iOkuUDAKBggqhkjOPQQDAgNHADBEAiABD8TCVK0f5KyM/FBxb0eeXNj5N0wItteE\n\
Cn9jOkDMwwIgcm3N5R0+ER0uT1VVY9Q7h8Z5CsOvku9VSX9civ7y5H8=\n\
-----END CERTIFICATE-----\n\
";

/// A self-signed CA certificate with a P-521 key.
const P521_CERT: &str = "-----BEGIN CERTIFICATE-----\n\
MIIB9zCCAVigAwIBAgIUIqmek1PQI3QDhWqsnQpXUKqjDBAwCgYIKoZIzj0EAwIw\n\
DDEKMAgGA1UEAwwBcDAgFw0yNjExMzAwODE5MzRaGA8yMTI2MTEwNjA4MTkzNFow\n\
DDEKMAgGA1UEAwwBcDCBmzAQBgcqhkjOPQIBBgUrgQQAIwOBhgAEAeh1Y7wLzUV7\n\
cuqTx6txWjKE1nxyxh9Ws5Gf4vhvKYPcpg9BsIIhYZXplEaS0lR29B7YCG/ZR+wI\n\
uP3E6COR90x5AFUucPmXZ8/O6HhXQwH4Hy6o1dl+OIVmQDk6UO5V6dqQabEQV3Ar\n\
H0GAAmUAlmGFHUWtJfKbbx+m0hR7IlywlCURo1MwUTAdBgNVHQ4EFgQULkcymFiW\n\
HJXbF3q3D7LTK/vALvowHwYDVR0jBBgwFoAULkcymFiWHJXbF3q3D7LTK/vALvow\n\
DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgOBjAAwgYgCQgHLkasrQ/iLcnhP\n\
YSoM4IlU6nLCaPvJ7pOkHCMwzC1+RV14VKKIQQ+wzxpjBGgFkl4+EGRYIpfR5Iji\n\
Ves5o8FUPAJCAf25YBdzUplI+GgtGLRdfZsmyJ8BHg34JbK7xSfAZdT9m7F/E6RR\n\
CFkLSEdL1a3ZuY242nZWvjAl1ERJMIjMHAPo\n\
-----END CERTIFICATE-----\n\
";

/// Its key.
const P521_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBMay0Phejh/SurVS6\n\
52M/ymdNWMhs6jyAWPcWyS3OAak2zXwHTvGi+5ZVkRaFXRgsgqnGcutBHDGUaNAV\n\
PPwnKcKhgYkDgYYABAHodWO8C81Fe3Lqk8ercVoyhNZ8csYfVrORn+L4bymD3KYP\n\
QbCCIWGV6ZRGktJUdvQe2Ahv2UfsCLj9xOgjkfdMeQBVLnD5l2fPzuh4V0MB+B8u\n\
qNXZfjiFZkA5OlDuVenakGmxEFdwKx9BgAJlAJZhhR1FrSXym28fptIUeyJcsJQl\n\
EQ==\n\
-----END PRIVATE KEY-----\n\
";

#[test]
fn unsupported_tls_is_refused_with_its_reason() {
    let site = WebFixture::new();
    site.write("v1.crt", VERSION_1);
    site.write("p521.crt", P521_CERT);
    site.write("p521.key", P521_KEY);
    let client_ca = |file: &str| {
        let auth = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ";
        format!("{TLS}{auth}{file}\n")
    };
    for (config, expected) in [
        (TLS.replace("tls.crt", "v1.crt"), "cert_file: a certificate of X.509 version 1"),
        (TLS.replace("tls.", "p521."), "key_file: keys of the curve P-521 are not supported"),
        (client_ca("p521.crt"), "client_ca_file: keys of the curve P-521"),
        (client_ca("v1.crt"), "client_ca_file: a certificate of X.509 version 1"),
        (
            format!("{TLS}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"),
            "cipher suites with CBC are insecure",
        ),
        (format!("{TLS}  curve_preferences: [CurveP521]\n"), "unknown value CurveP521"),
    ] {
        let error = site.error(&config);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn refused_client_certificate_has_its_reason_in_the_log_once() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    // The CA's own certificate, as a self-signed one that is given as its own CA.
    let own =
        CertificateAndKey { cert: site.authority.pem(), key: site.authority.key().serialize_pem() };
    let other_ca = WebFixture::new().sign("scraper.example");
    let other_name = site.sign("other.example");
    for (client, reason) in [
        (Some(&own), "it is a CA certificate, such as a self-signed one"),
        (
            Some(&other_ca),
            "no CA of client_ca_file, or of the system if there is none, has issued it",
        ),
        (Some(&other_name), "none of its names is in client_allowed_sans"),
        (None, "the client sent none"),
    ] {
        for _ in 0..3 {
            assert!(site.get(&exporter, "/healthz", client).is_err(), "{reason}");
        }
        exporter.wait_for_log(reason);
        assert_eq!(exporter.log().matches(reason).count(), 1, "{}", exporter.log());
    }
}

fn with_password(exporter: &Exporter, path: &str, user: &str, password: &str) -> Response {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    exporter.request(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn everything_but_probes_requires_a_password() {
    let site = WebFixture::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let config = format!(
        "basic_auth_users:\n  alice: {hash}\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    );
    let exporter = site.start(&config, &[]);
    let status = |user, password| with_password(&exporter, "/metrics", user, password).status;
    for _ in 0..2 {
        assert!(matches!(status("alice", "secret"), 200 | 503));
        assert_eq!((status("alice", "wrong"), status("bob", "secret")), (401, 401));
    }
    let response = exporter.get("/metrics");
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").unwrap().starts_with("basic realm="));
    assert_eq!(response.header("x-frame-options"), Some("deny"));
    assert_eq!(exporter.get("/nothing").status, 401, "not 404: paths are not disclosed");
    assert_eq!(exporter.get("/healthz").status, 200);
    let ready = exporter.get("/readyz").text();
    assert!(ready == "ready\n" || ready == "not ready\n", "{ready}");
    assert!(!exporter.log().contains("secret"), "{}", exporter.log());
}

/// A connection that stays open between requests.
pub(crate) struct KeepAlive<S>(pub(crate) S);

impl<S: Read + Write> KeepAlive<S> {
    /// Sends a request; `headers` end in a line break each. Returns the response, unless the connection is
    /// closed.
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> io::Result<Response> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")?;
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            response.extend(byte);
        }
        let length = Response::parse(&response).header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Response::parse(&[response, body].concat()))
    }
}

#[test]
fn removed_user_has_no_access_on_an_open_connection() {
    let site = WebFixture::new();
    let users = |names: &[&str]| {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = names.iter().map(|name| format!("\n  {name}: {hash}"));
        format!("basic_auth_users:{}\n", users.collect::<String>())
    };
    let exporter = site.start(&users(&["alice", "bob"]), &["--web-read-timeout=1h"]);
    let mut connection = KeepAlive(TcpStream::connect(exporter.address()).unwrap());
    let mut status = |user: &str| {
        let encoded = STANDARD.encode(format!("{user}:secret"));
        connection.get("/", &format!("Authorization: Basic {encoded}\r\n")).unwrap().status
    };
    assert_eq!([status("alice"), status("bob")], [200, 200]);
    site.write("web.yml", &users(&["bob"]));
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!([status("alice"), status("bob")], [401, 200], "on the same connection");
}

#[test]
fn client_certificate_that_is_no_longer_allowed_has_no_open_connection() {
    let site = WebFixture::new();
    let config = |san: &str| {
        format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: [{san}]\n"
        )
    };
    let exporter = site.start(&config("scraper.example"), &["--web-read-timeout=1h"]);
    let client = site.sign("scraper.example");
    let mut connection = KeepAlive(site.connect(&exporter, Some(&client)).unwrap());
    assert_eq!(connection.get("/healthz", "").unwrap().status, 200);
    // Other settings do not end connections.
    site.write("web.yml", &format!("{}rate_limit: {{}}\n", config("scraper.example")));
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!(connection.get("/healthz", "").unwrap().status, 200);
    site.write("web.yml", &config("other.example"));
    let mut end = [0];
    assert!(matches!(connection.0.read(&mut end), Ok(0)), "closed");
}

#[test]
fn expensive_password_hash_does_not_delay_other_requests() {
    let site = WebFixture::new();
    // One check takes some seconds of CPU time.
    let hash = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$15$");
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {hash}\n"), &[]);
    let mut slow = TcpStream::connect(exporter.address()).unwrap();
    let encoded = STANDARD.encode("alice:secret");
    write!(slow, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\n\r\n")
        .unwrap();
    slow.set_nonblocking(true).unwrap();
    for _ in 0..10 {
        assert_eq!(exporter.get("/healthz").status, 200);
    }
    let early = slow.read(&mut [0; 16]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "it is still being checked");
}

#[test]
fn requests_above_the_rate_limit_are_refused() {
    let site = WebFixture::new();
    let exporter = site.start("rate_limit:\n  interval: 1h\n  burst: 2\n", &[]);
    exporter.wait_for_at("/readyz", "a sample", |text| text.starts_with("ready"));
    // Probes are exempt: under a flood of scrapes, the kubelet would restart the exporter otherwise.
    assert!((0..100).all(|_| exporter.get("/healthz").status == 200));
    let statuses = [0; 3].map(|_| exporter.get("/metrics").status);
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!([exporter.get("/").status, exporter.get("/nothing").status], [429, 429]);
    assert_eq!([exporter.get("/healthz").status, exporter.get("/readyz").status], [200, 200]);
    // Readiness probes have a limit of their own; only the client that floods them uses it up.
    let probe = "GET /readyz HTTP/1.1\r\nHost: x\r\n";
    let flood = format!("{probe}\r\n").repeat(200) + probe + "Connection: close\r\n\r\n";
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream.write_all(flood.as_bytes()).unwrap();
    let mut responses = String::new();
    stream.read_to_string(&mut responses).unwrap();
    assert!(responses.matches("HTTP/1.1 429").count() > 100, "{responses}");
    let probe = format!("{probe}Connection: close\r\n\r\n");
    assert_eq!(send("127.0.0.3", exporter.address(), &probe).unwrap().status, 200);
    assert_eq!(exporter.get("/healthz").status, 200);
}

#[test]
fn invalid_web_configuration_is_refused_at_startup() {
    let site = WebFixture::new();
    for (config, expected) in [
        ("tls_server_config:\n  cert_file: tls.crt\n", "key_file: missing"),
        ("tls_sever_config: {}\n", "tls_sever_config"),
        ("basic_auth_users:\n  a: b\n", "not a bcrypt hash"),
        ("basic_auth_users:\n  a:\n", "the value is missing"),
    ] {
        let error = site.error(config);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("web.yml"), "{error}");
    }
}

/// Opens a connection that sends scrapes and reads nothing.
fn unread(exporter: &Exporter) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    // More responses than fit into the socket buffers.
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    let _ = stream.write_all(request.as_bytes());
    stream
}

#[test]
fn client_that_does_not_read_is_disconnected_after_the_write_timeout() {
    let flags = ["--mock=huge", "--collect-interval=500", "--web-write-timeout=500ms"];
    let exporter = Exporter::start(&flags);
    exporter.wait_for("processes", |text| text.len() > 100_000);
    let unread: Vec<_> = (0..4).map(|_| unread(&exporter)).collect();
    exporter.wait_for("write timeouts", |text| {
        value(text, "nvml_exporter_http_refused_total", &["reason=\"write_deadline\""]) >= Some(4.0)
    });
    drop(unread);
}

#[test]
fn idle_connections_are_evicted_at_the_connection_limit() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--collect-interval=200"]);
    exporter.wait_for("a GPU", |text| text.contains("DCGM_FI_DEV_GPU_UTIL"));
    let silent: Vec<_> =
        (0..300).filter_map(|_| TcpStream::connect(exporter.address()).ok()).collect();
    assert!(exporter.metrics().contains("DCGM_FI_DEV_GPU_UTIL"), "a scrape succeeds");
    exporter.wait_for("evictions", |text| {
        value(text, "nvml_exporter_http_refused_total", &["reason=\"cap\""]) > Some(100.0)
    });
    assert!(refused(&exporter, "auth").is_none());
    drop(silent);
}

#[test]
fn invalid_and_oversized_requests_are_refused() {
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for text in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", &long, &many] {
        let mut stream = TcpStream::connect(exporter.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 4"), "{response:?}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}

#[test]
fn sockets_passed_by_systemd_are_used() {
    let output = run_with(&[], &["--mock=idle-t4", "--web-systemd-socket"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("LISTEN_FDS is not set"), "{error}");

    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let exporter =
        Exporter::socket_activated(listeners, &["--mock=idle-t4", "--web-systemd-socket"]);
    for address in &addresses {
        assert_eq!(send("127.0.0.3", address, PROBE).unwrap().status, 200);
    }
    assert!(Path::new(&format!("/proc/{}", exporter.pid())).exists());
}

const PROBE: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn every_address_is_served() {
    // The exporter is started with another address already; one is given twice.
    let [first, second] =
        ["127.0.0.2:0", "127.0.0.4:0"].map(|address| format!("--address={address}"));
    let exporter = Exporter::start(&["--mock=idle-t4", &first, &second, &second]);
    // All are logged before the first response.
    assert_eq!(exporter.get("/healthz").status, 200);
    let log = exporter.log();
    let served: Vec<&str> =
        log.lines().filter_map(|line| Some(line.split_once("serving address=")?.1)).collect();
    assert_eq!(served.len(), 3, "{log}");
    for address in served {
        assert_eq!(send("127.0.0.3", address, PROBE).unwrap().status, 200, "{address}");
    }
    // One that cannot be used is an error, not a warning.
    let used = format!("--address={}", exporter.address());
    let output = run_with(&[], &["--mock=idle-t4", "--address=127.0.0.1:0", &used]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("another program listens"), "{error}");
}
