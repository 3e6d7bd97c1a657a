//! A directory with a web configuration file and certificates, and connections to an exporter that uses it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::exporter::{Exporter, Response, run_with};

const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";

/// A directory with a web configuration file, a CA and a server certificate.
pub(crate) struct WebFixture {
    directory: tempfile::TempDir,
    pub(crate) authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM format.
pub(crate) struct CertificateAndKey {
    pub(crate) cert: String,
    pub(crate) key: String,
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

    pub(crate) fn sign(&self, name: &str) -> CertificateAndKey {
        self.sign_params(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    pub(crate) fn sign_params(&self, params: &CertificateParams) -> CertificateAndKey {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        CertificateAndKey { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Replaces the server certificate.
    pub(crate) fn renew(&self) -> CertificateAndKey {
        let signed = self.sign("localhost");
        self.write("tls.key", &signed.key);
        self.write("tls.crt", &signed.cert);
        signed
    }

    /// Path of the CA certificate.
    pub(crate) fn authority(&self) -> String {
        self.path("ca.crt")
    }

    /// Path of a file of the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Replaces a file of the directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.directory.path().join(name)).unwrap();
    }

    /// Runs the exporter with a configuration that it refuses, and returns the error.
    pub(crate) fn error(&self, config: &str) -> String {
        self.write("web.yml", config);
        let file = self.path("web.yml");
        let output = run_with(&[("DCGM_EXPORTER_WEB_CONFIG_FILE", &file)], &["--mock=idle-t4"]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Writes the configuration, and returns its flag.
    pub(crate) fn write_config(&self, config: &str) -> String {
        self.write("web.yml", config);
        format!("--web-config-file={}", self.path("web.yml"))
    }

    pub(crate) fn start(&self, config: &str, flags: &[&str]) -> Exporter {
        self.start_with(&[], config, flags)
    }

    pub(crate) fn start_with(
        &self,
        environment: &[(&str, &str)],
        config: &str,
        flags: &[&str],
    ) -> Exporter {
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
    pub(crate) fn connect(
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

pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
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
