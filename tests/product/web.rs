//! How the exporter is reached: certificates, passwords, limits, sockets, and clients who mean no good.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::exporter::{Exporter, Response, run_with, value};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with settings, an authority, and what it has signed.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Signed {
    cert: String,
    key: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let site = Self { folder: tempfile::tempdir().unwrap(), authority };
        site.write("ca.crt", &site.authority.pem());
        site.renew();
        site
    }

    fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Gives the server another certificate.
    fn renew(&self) -> Signed {
        let signed = self.sign("localhost");
        self.write("tls.key", &signed.key);
        self.write("tls.crt", &signed.cert);
        signed
    }

    /// The file with the authority's certificate.
    pub(crate) fn authority(&self) -> String {
        self.folder.path().join("ca.crt").display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.folder.path().join(name)).unwrap();
    }

    pub(crate) fn start(&self, settings: &str, flags: &[&str]) -> Exporter {
        self.write("web.yml", settings);
        let file = format!("--web-config-file={}", self.folder.path().join("web.yml").display());
        let ours = ["--mock=idle-t4", "--collect-interval=200", &file];
        Exporter::start(&[&ours, flags].concat())
    }

    /// Asks over TLS; `client` is the client's own certificate.
    pub(crate) fn get(
        &self,
        exporter: &Exporter,
        path: &str,
        client: Option<&Signed>,
    ) -> io::Result<(Response, Vec<u8>)> {
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
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, stream);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
        Ok((Response::parse(&answer), shown))
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub(crate) const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";

fn refused(exporter: &Exporter, reason: &str) -> Option<f64> {
    let page = exporter.metrics();
    value(&page, "nvml_exporter_http_refused_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn a_page_comes_over_tls_and_another_certificate_counts_for_the_next_connection() {
    let site = Site::new();
    let first = site.renew();
    let exporter = site.start(TLS, &[]);
    let shown = || site.get(&exporter, "/healthz", None).unwrap().1;
    assert_eq!(shown(), der(&first.cert).to_vec());
    let (page, _) = site.get(&exporter, "/metrics", None).unwrap();
    assert!(page.status == 200 || page.status == 503, "a page, or none yet");

    // A key that is not the certificate's, as while one of the two is being replaced.
    let other = site.sign("localhost");
    site.write("tls.key", &other.key);
    exporter.wait_for_log("what it said before stays in force");
    assert_eq!(shown(), der(&first.cert).to_vec());
    let second = site.renew();
    exporter.wait_for_log("has changed and is in force");
    assert_eq!(shown(), der(&second.cert).to_vec());

    // Who does not speak TLS gets nothing, and harms nobody.
    let mut plain = TcpStream::connect(exporter.address()).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(shown(), der(&second.cert).to_vec());
}

#[test]
fn only_clients_with_the_right_certificate_are_let_in() {
    let site = Site::new();
    let settings = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&settings, &[]);
    let asked = |client: Option<&Signed>| site.get(&exporter, "/healthz", client);
    assert_eq!(asked(Some(&site.sign("scraper.example"))).unwrap().0.status, 200);
    assert!(asked(Some(&site.sign("somebody.example"))).is_err(), "another name");
    assert!(asked(Some(&Site::new().sign("scraper.example"))).is_err(), "another authority");
    assert!(asked(None).is_err(), "no certificate");
}

fn with_password(exporter: &Exporter, path: &str, user: &str, password: &str) -> Response {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    exporter.request(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn a_password_is_asked_for_everything_but_whether_it_lives() {
    let site = Site::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let settings = format!(
        "basic_auth_users:\n  alice: {hash}\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    );
    let exporter = site.start(&settings, &[]);
    let status = |user, password| with_password(&exporter, "/metrics", user, password).status;
    for _ in 0..2 {
        assert!(matches!(status("alice", "secret"), 200 | 503));
        assert_eq!((status("alice", "wrong"), status("bob", "secret")), (401, 401));
    }
    let refusal = exporter.get("/metrics");
    assert_eq!(refusal.status, 401);
    assert!(refusal.header("www-authenticate").unwrap().starts_with("basic realm="));
    assert_eq!(refusal.header("x-frame-options"), Some("deny"));
    assert_eq!(exporter.get("/nothing").status, 401, "what there is is not told either");
    assert_eq!(exporter.get("/healthz").status, 200);
    let ready = exporter.get("/readyz").text();
    assert!(ready == "ready\n" || ready == "not ready\n", "{ready}");
    assert!(!exporter.log().contains("secret"), "{}", exporter.log());
}

#[test]
fn a_password_that_takes_its_time_keeps_nobody_waiting() {
    let site = Site::new();
    // Some seconds of one core.
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
fn requests_above_the_limit_are_told_to_come_back() {
    let site = Site::new();
    let exporter = site.start("rate_limit:\n  interval: 1h\n  burst: 2\n", &[]);
    let statuses = [0; 3].map(|_| exporter.get("/healthz").status);
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn settings_that_cannot_be_used_end_it_before_it_serves() {
    let site = Site::new();
    for (settings, expected) in [
        ("tls_server_config:\n  cert_file: tls.crt\n", "key_file: missing"),
        ("tls_sever_config: {}\n", "tls_sever_config"),
        ("basic_auth_users:\n  a: b\n", "no bcrypt hash"),
    ] {
        site.write("web.yml", settings);
        let file = site.folder.path().join("web.yml").display().to_string();
        let output = run_with(&[("DCGM_EXPORTER_WEB_CONFIG_FILE", &file)], &["--mock=idle-t4"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        assert!(said.contains("web.yml"), "{said}");
    }
}

/// Opens a connection that asks for a page and takes nothing of it.
fn deaf(exporter: &Exporter) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    // More pages than the system keeps for a reader.
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    let _ = stream.write_all(request.as_bytes());
    stream
}

#[test]
fn who_does_not_read_is_let_go() {
    let flags = ["--mock=huge", "--collect-interval=500", "--web-write-timeout=500ms"];
    let exporter = Exporter::start(&flags);
    exporter.wait_for("a page", |page| page.len() > 100_000);
    let deaf: Vec<_> = (0..4).map(|_| deaf(&exporter)).collect();
    exporter.wait_for("their end", |page| {
        value(page, "nvml_exporter_http_refused_total", &["reason=\"write_deadline\""]) >= Some(4.0)
    });
    drop(deaf);
}

#[test]
fn who_holds_connections_and_asks_nothing_makes_room() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--collect-interval=200"]);
    exporter.wait_for("a page", |page| page.contains("DCGM_FI_DEV_GPU_UTIL"));
    let silent: Vec<_> =
        (0..300).filter_map(|_| TcpStream::connect(exporter.address()).ok()).collect();
    assert!(exporter.metrics().contains("DCGM_FI_DEV_GPU_UTIL"), "a scrape comes through");
    exporter.wait_for("the count", |page| {
        value(page, "nvml_exporter_http_refused_total", &["reason=\"cap\""]) > Some(100.0)
    });
    assert!(refused(&exporter, "auth").is_none());
    drop(silent);
}

#[test]
fn garbage_and_heads_without_end_are_refused() {
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for text in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", &long, &many] {
        let mut stream = TcpStream::connect(exporter.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}

#[test]
fn systemds_socket_is_taken_over() {
    let output = run_with(&[], &["--mock=idle-t4", "--web-systemd-socket"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("LISTEN_FDS is not set"), "{said}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let exporter = Exporter::activated(listener, &["--mock=idle-t4", "--web-systemd-socket"]);
    assert_eq!(exporter.address(), address.to_string());
    assert_eq!(exporter.get("/healthz").status, 200);
    assert!(Path::new(&format!("/proc/{}", exporter.pid())).exists());
}
