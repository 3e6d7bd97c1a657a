//! Reaching an API server, or the kubelet's, and asking it for bytes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::http::request::Builder;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, Client, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use super::source::Failure;
use crate::policy;
use crate::quote::in_part;

/// Characters of a detail.
const DETAIL_MAX: usize = 1000;

/// Where a server is, and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The API server of the cluster that this pod runs in, with the pod's service account.
    InCluster,
    /// The one that the current context of a kubeconfig file names.
    Kubeconfig(PathBuf),
    /// A URL without credentials, as `kubectl proxy` serves it.
    Url(String),
    /// The kubelet of this node.
    Kubelet {
        /// Such as `https://127.0.0.1:10250`.
        url: String,
        /// Bundle that its certificate is checked against; the system's if none is given.
        ca: Option<PathBuf>,
        /// Its certificate is not checked: many are self-signed.
        insecure: bool,
        /// The token that is sent; read again when it may have changed.
        token: Option<PathBuf>,
    },
    /// A running exporter.
    Exporter {
        /// Such as `http://node:9400`.
        url: String,
        /// Name and password.
        user: Option<(String, Password)>,
        /// Bundle that its certificate is checked against; the system's if none is given.
        ca: Option<PathBuf>,
        /// Its certificate is not checked.
        insecure: bool,
    },
}

/// A password, which no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The name of a node, fit to stand in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(Box<str>);

/// Why a name cannot be a node's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNodeName {
    /// Without a name every node would watch all pods of the cluster.
    #[error(
        "the name of this node is not known, and without it every exporter would watch all pods of \
         the cluster; set NODE_NAME through the downward API (spec.nodeName), or --node-name"
    )]
    Missing,
    /// Kubernetes would not accept it.
    #[error(
        "node name {0:?}: Kubernetes names nodes in lower-case letters, digits, '-' and '.'; give \
         it as `kubectl get nodes` shows it"
    )]
    Illegal(String),
}

impl NodeName {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, or not a DNS subdomain.
    pub fn new(name: &str) -> Result<Self, BadNodeName> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        match name {
            "" => Err(BadNodeName::Missing),
            _ if name.len() > 253 || !name.bytes().all(legal) => {
                Err(BadNodeName::Illegal(name.to_owned()))
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// The fixed reason.
    pub failure: Failure,
    /// The HTTP status, if it came to one.
    pub status: Option<u16>,
    /// What happened, for the log.
    pub detail: String,
}

impl Fault {
    /// A failure below HTTP. The detail may quote what was sent: as much of it as a line has room for.
    #[must_use]
    pub fn new(failure: Failure, detail: impl AsRef<str>) -> Self {
        Self { failure, status: None, detail: in_part(detail.as_ref(), DETAIL_MAX) }
    }

    fn config(detail: impl AsRef<str>) -> Self {
        Self::new(Failure::Config, detail)
    }
}

impl Address {
    /// A client with credentials as they are now: a new one reads tokens and files again.
    ///
    /// # Errors
    /// Files or addresses that cannot be used, and which.
    pub async fn connect(&self) -> Result<Client, Fault> {
        let config = self.config().await?;
        if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
            return Err(Fault::config(format!(
                "{self:?}: its user needs a helper program, and the exporter runs none; give a \
                 kubeconfig with a token or a client certificate"
            )));
        }
        let unusable = |e: kube::Error| Fault::config(format!("{self:?}: {e}"));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(policy::KUBE_ANSWER));
        let connector =
            config.rustls_https_connector_with_connector(connector).map_err(unusable)?;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(unusable)?)
            .layer(config.extra_headers_layer().map_err(unusable)?)
            .map_err(BoxError::from)
            .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
        Ok(Client::new(service, config.default_namespace))
    }

    /// The URL of the server.
    ///
    /// # Errors
    /// Files or addresses that cannot be used, and which.
    pub async fn server(&self) -> Result<String, Fault> {
        Ok(self.config().await?.cluster_url.to_string())
    }

    async fn config(&self) -> Result<kube::Config, Fault> {
        match self {
            Self::InCluster => kube::Config::incluster().map_err(|e| {
                Fault::config(format!(
                    "not in a cluster ({e}); give --kubeconfig, or run with a service account"
                ))
            }),
            Self::Kubeconfig(path) => {
                let unusable = |e| Fault::config(format!("--kubeconfig {}: {e}", path.display()));
                let file = Kubeconfig::read_from(path).map_err(unusable)?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
            }
            Self::Url(url) => Ok(kube::Config::new(uri(url)?)),
            Self::Kubelet { url, ca, insecure, token } => {
                let mut config = kube::Config::new(uri(url)?);
                config.root_cert_file.clone_from(ca);
                config.accept_invalid_certs = *insecure;
                config.auth_info.token_file =
                    token.as_ref().map(|path| path.to_string_lossy().into_owned());
                Ok(config)
            }
            Self::Exporter { url, user, ca, insecure } => {
                let mut config = kube::Config::new(uri(url)?);
                config.root_cert_file.clone_from(ca);
                config.accept_invalid_certs = *insecure;
                if let Some((name, password)) = user {
                    config.auth_info.username = Some(name.clone());
                    config.auth_info.password = Some(password.0.clone().into());
                }
                Ok(config)
            }
        }
    }
}

fn uri(url: &str) -> Result<Uri, Fault> {
    let uri: Uri = url
        .parse()
        .map_err(|e| Fault::config(format!("{url:?} is no URL ({e}); give http(s)://HOST:PORT")))?;
    if uri.scheme().is_none() || uri.host().is_none() {
        return Err(Fault::config(format!("{url:?} is no URL; give http(s)://HOST:PORT")));
    }
    Ok(uri)
}

/// Asks for `path`; the answer has begun, with a status of success, within `patience`.
///
/// # Errors
/// No answer, or another status, with the server's own words.
pub async fn get(client: &Client, path: &str, patience: Duration) -> Result<Body, Fault> {
    send(client, Request::get(path), Body::empty(), path, patience).await
}

/// Tells `path` something in JSON; the answer has begun, with a status of success, within `patience`.
///
/// # Errors
/// As with [`get`].
pub async fn post(
    client: &Client,
    path: &str,
    json: Vec<u8>,
    patience: Duration,
) -> Result<Body, Fault> {
    let request = Request::post(path).header("content-type", "application/json");
    send(client, request, Body::from(json), path, patience).await
}

async fn send(
    client: &Client,
    request: Builder,
    body: Body,
    path: &str,
    patience: Duration,
) -> Result<Body, Fault> {
    let request = request
        .header("accept", "application/json")
        .body(body)
        .map_err(|e| Fault::config(format!("{path}: {e}")))?;
    let answer = timeout(patience, client.send(request)).await.map_err(|_| silent(path))?;
    let response = answer.map_err(|e| unreachable_server(&e))?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    Err(refusal(path, response, patience).await)
}

/// The next piece of an answer, none at its end.
///
/// # Errors
/// The connection broke, or said nothing for `patience`.
pub async fn chunk(body: &mut Body, patience: Duration) -> Result<Option<bytes::Bytes>, Fault> {
    loop {
        let frame = timeout(patience, body.frame()).await.map_err(|_| silent("the stream"))?;
        match frame {
            None => return Ok(None),
            Some(Err(e)) => return Err(Fault::new(Failure::Connection, e.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole answer of at most `limit` bytes.
///
/// # Errors
/// It is larger, or did not come to its end.
pub async fn whole(mut body: Body, limit: usize, patience: Duration) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(data) = chunk(&mut body, patience).await? {
        if bytes.len() + data.len() > limit {
            return Err(Fault::new(Failure::TooLarge, format!("an answer above {limit} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn silent(what: &str) -> Fault {
    Fault::new(Failure::Timeout, format!("{what}: no answer in time"))
}

fn unreachable_server(error: &kube::Error) -> Fault {
    let mut detail = error.to_string();
    let mut failure = Failure::Connection;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            failure = Failure::Absent;
        }
        let text = error.to_string();
        if !detail.contains(&text) {
            detail = format!("{detail}: {text}");
        }
        cause = error.source();
    }
    if matches!(error, kube::Error::Auth(_)) {
        failure = Failure::Config;
    }
    Fault::new(failure, detail)
}

/// How much of a refusal is read for its words.
const REFUSAL_MAX: usize = 64 << 10;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

async fn refusal(path: &str, response: Response<Body>, patience: Duration) -> Fault {
    let status = response.status().as_u16();
    let body = whole(response.into_body(), REFUSAL_MAX, patience).await.unwrap_or_default();
    let said = serde_json::from_slice::<Status>(&body)
        .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |status| status.message);
    let said: String = said.chars().take(300).collect();
    Fault {
        failure: Failure::of_status(status),
        status: Some(status),
        detail: format!("{path}: {status} {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_needs_a_legal_name() {
        assert_eq!(NodeName::new("gpu-1.example").unwrap().as_str(), "gpu-1.example");
        assert_eq!(NodeName::new(""), Err(BadNodeName::Missing));
        for name in ["a b", "a&watch=1", "a/../b", "A", &"a".repeat(254)] {
            assert_eq!(NodeName::new(name), Err(BadNodeName::Illegal(name.to_owned())));
        }
    }

    #[tokio::test]
    async fn an_unusable_address_is_named() {
        for (address, expected) in [
            (Address::Url("nonsense".to_owned()), "give http(s)://HOST:PORT"),
            (Address::Kubeconfig("/no/such".into()), "--kubeconfig /no/such"),
            (exporter("/no/such.crt"), "/no/such.crt"),
        ] {
            let fault = address.connect().await.err().unwrap();
            assert_eq!(fault.failure, Failure::Config);
            assert!(fault.detail.contains(expected), "{fault}");
            assert!(!fault.detail.contains("secret"), "{fault}");
        }
    }

    fn exporter(ca: &str) -> Address {
        Address::Exporter {
            url: "https://a:1".to_owned(),
            user: Some(("alice".to_owned(), Password("secret".to_owned()))),
            ca: Some(ca.into()),
            insecure: false,
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_runs_programs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
            users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}}]\n\
            contexts: [{name: c, context: {cluster: k, user: u}}]\n";
        std::fs::write(&path, text).unwrap();
        let fault = Address::Kubeconfig(path).connect().await.err().unwrap();
        assert!(fault.detail.contains("the exporter runs none"), "{fault}");
    }
}
