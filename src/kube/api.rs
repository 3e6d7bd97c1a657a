//! HTTP client of an API server, a kubelet or another exporter.

use std::error::Error;
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
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::Deserialize;
use tokio::time;
use tower::{BoxError, ServiceBuilder};

use super::source::FailureReason;
use crate::model::Problem;
use crate::policy;
use crate::sanitize::truncate_for_log;

/// Longest message of a [`RequestError`], in characters.
const MESSAGE_MAX: usize = 1000;

/// Address and credentials of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The API server of the cluster that this pod runs in, with the pod's service account.
    InCluster,
    /// The API server of the current context of a kubeconfig file.
    Kubeconfig(PathBuf),
    /// A URL without credentials, such as that of `kubectl proxy`.
    Url(String),
    /// The kubelet of this node.
    Kubelet {
        /// Such as `https://127.0.0.1:10250`.
        url: String,
        /// CA bundle for its certificate; none for the system's.
        ca: Option<PathBuf>,
        /// Skips certificate verification; many kubelets have a self-signed certificate.
        insecure: bool,
        /// File of the bearer token; it is read again when it may have changed.
        token: Option<PathBuf>,
    },
    /// A running exporter.
    Exporter {
        /// Such as `http://node:9400`.
        url: String,
        /// User name and password.
        user: Option<(String, Password)>,
        /// CA bundle for its certificate; none for the system's.
        ca: Option<PathBuf>,
        /// Skips certificate verification.
        insecure: bool,
    },
}

/// A password; its `Debug` output is masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A valid node name, safe to use in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(Box<str>);

/// Why a node name is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum NodeNameError {
    /// The name is empty. Without it every exporter would watch all pods of the cluster.
    Missing,
    /// The name is not a DNS subdomain.
    Invalid(String),
}

impl NodeNameError {
    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Missing => Problem::new(
                "no node name is set, and without one every exporter would watch all pods of the \
                 cluster",
                "set NODE_NAME through the downward API (fieldPath: spec.nodeName) or pass \
                 --node-name",
            ),
            Self::Invalid(name) => Problem::new(
                format!(
                    "node name {name:?} is not a valid Kubernetes name (lower-case letters, digits, \
                     '-' and '.')"
                ),
                "pass the name that `kubectl get nodes` prints",
            ),
        }
    }
}

impl NodeName {
    /// Validates a name.
    ///
    /// # Errors
    /// The name is empty or not a DNS subdomain.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        let is_valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        match name {
            "" => Err(NodeNameError::Missing),
            _ if name.len() > 253 || !name.bytes().all(is_valid) => {
                Err(NodeNameError::Invalid(name.to_owned()))
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct RequestError {
    /// Reason, of a fixed set.
    pub reason: FailureReason,
    /// HTTP status, if the server sent one.
    pub status: Option<u16>,
    /// What is wrong, and what to do about it if the configuration is the cause.
    pub problem: Problem,
}

impl RequestError {
    /// An error without an HTTP status. `message` may contain text of the server: control characters
    /// are replaced and its length is limited.
    #[must_use]
    pub fn new(failure: FailureReason, message: impl AsRef<str>) -> Self {
        let message = truncate_for_log(message.as_ref(), MESSAGE_MAX);
        Self { reason: failure, status: None, problem: Problem::without_remedy(message) }
    }

    fn config(message: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        let mut error = Self::new(FailureReason::Config, message);
        error.problem.remedy = Some(remedy.into());
        error
    }
}

impl Address {
    /// A client with the present credentials. A new client reads tokens and files again.
    ///
    /// # Errors
    /// A file, URL or credential cannot be used.
    pub async fn client(&self) -> Result<Client, RequestError> {
        let config = self.config().await?;
        if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
            return Err(RequestError::config(
                format!(
                    "{self}: the user needs a credential plugin, and the exporter runs no programs"
                ),
                "use a kubeconfig with a token or a client certificate",
            ));
        }
        let files = self.credential_files();
        let unusable = |e: kube::Error| {
            let causes = causes(&e);
            RequestError::config(
                format!("{self}: TLS or credentials cannot be set up: {causes}"),
                format!("check {files}"),
            )
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(policy::KUBE_TIMEOUT));
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

    /// The files with certificates and tokens, for error messages.
    fn credential_files(&self) -> String {
        let files = match self {
            Self::Kubelet { ca, token, .. } => [ca.as_deref(), token.as_deref()],
            Self::Exporter { ca, .. } => [ca.as_deref(), None],
            Self::InCluster | Self::Kubeconfig(_) | Self::Url(_) => [None, None],
        };
        let files: Vec<_> =
            files.into_iter().flatten().map(|file| file.display().to_string()).collect();
        if files.is_empty() {
            "the certificates and tokens".to_owned()
        } else {
            files.join(" and ")
        }
    }

    /// The URL of the server.
    ///
    /// # Errors
    /// A file, URL or credential cannot be used.
    pub async fn server_url(&self) -> Result<String, RequestError> {
        Ok(self.config().await?.cluster_url.to_string())
    }

    async fn config(&self) -> Result<kube::Config, RequestError> {
        match self {
            Self::InCluster => kube::Config::incluster().map_err(|e| {
                RequestError::config(
                    format!("the in-cluster configuration cannot be read: {e}"),
                    "pass --kubeconfig, or run as a pod with a service account token",
                )
            }),
            Self::Kubeconfig(path) => {
                let unusable = |e: KubeconfigError| {
                    let reason = kubeconfig_error(&e);
                    RequestError::config(
                        format!("{self}: {reason}"),
                        "use a file that kubectl accepts",
                    )
                };
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("service account"),
            Self::Kubeconfig(path) => write!(f, "--kubeconfig {}", path.display()),
            Self::Url(url) | Self::Kubelet { url, .. } | Self::Exporter { url, .. } => {
                f.write_str(url)
            }
        }
    }
}

fn uri(url: &str) -> Result<Uri, RequestError> {
    const REMEDY: &str = "use http(s)://HOST:PORT";
    let uri: Uri = url
        .parse()
        .map_err(|e| RequestError::config(format!("{url:?} is not a URL ({e})"), REMEDY))?;
    if uri.scheme().is_none() || uri.host().is_none() {
        return Err(RequestError::config(format!("{url:?} is not a URL"), REMEDY));
    }
    Ok(uri)
}

/// Sends a GET request for `path`. The response headers have to arrive within `timeout`.
///
/// # Errors
/// No response in time, or a status other than 2xx, with the server's message.
pub async fn get(client: &Client, path: &str, timeout: Duration) -> Result<Body, RequestError> {
    send(client, Request::get(path), Body::empty(), path, timeout).await
}

/// Sends a POST request with a JSON body. The response headers have to arrive within `timeout`.
///
/// # Errors
/// As for [`get`].
pub async fn post(
    client: &Client,
    path: &str,
    json: Vec<u8>,
    timeout: Duration,
) -> Result<Body, RequestError> {
    let request = Request::post(path).header("content-type", "application/json");
    send(client, request, Body::from(json), path, timeout).await
}

async fn send(
    client: &Client,
    request: Builder,
    body: Body,
    path: &str,
    timeout: Duration,
) -> Result<Body, RequestError> {
    let request = request.header("accept", "application/json").body(body).map_err(|e| {
        let message = format!("{path}: the request cannot be built: {e}");
        RequestError::new(FailureReason::Config, message)
    })?;
    let result = time::timeout(timeout, client.send(request)).await;
    let response = result
        .map_err(|_| timed_out(path, "no response", timeout))?
        .map_err(|e| connection_error(path, &e))?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    Err(status_error(path, response, timeout).await)
}

/// The next chunk of a response body; none at its end.
///
/// # Errors
/// The connection failed, or nothing was received for `timeout`.
pub async fn next_chunk(
    body: &mut Body,
    timeout: Duration,
) -> Result<Option<bytes::Bytes>, RequestError> {
    loop {
        let frame = time::timeout(timeout, body.frame()).await;
        match frame.map_err(|_| timed_out("response body", "no data", timeout))? {
            None => return Ok(None),
            Some(Err(e)) => {
                let detail = format!("the response body ended early: {}", causes(&e));
                return Err(RequestError::new(FailureReason::Connection, detail));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The whole response body, of at most `limit` bytes.
///
/// # Errors
/// The body is larger or incomplete.
pub async fn read_body(
    mut body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, RequestError> {
    let mut bytes = Vec::new();
    while let Some(data) = next_chunk(&mut body, timeout).await? {
        if bytes.len() + data.len() > limit {
            let detail = format!("the response is larger than {limit} bytes");
            return Err(RequestError::new(FailureReason::TooLarge, detail));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn timed_out(subject: &str, missing: &str, timeout: Duration) -> RequestError {
    let seconds = timeout.as_secs_f64();
    RequestError::new(FailureReason::Timeout, format!("{subject}: {missing} within {seconds} s"))
}

fn connection_error(path: &str, error: &kube::Error) -> RequestError {
    let mut failure = FailureReason::Connection;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            failure = FailureReason::Absent;
        }
        cause = error.source();
    }
    if matches!(error, kube::Error::Auth(_)) {
        failure = FailureReason::Config;
    }
    RequestError::new(failure, format!("{path}: the request failed: {}", causes(error)))
}

/// The texts of an error's causes, outermost first. The wrappers of the client libraries are left
/// out: their texts are names of Rust types.
fn causes(error: &kube::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        let repeated = texts.iter().any(|known| known.contains(&text));
        if !error.is::<legacy::Error>() && !repeated {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

fn kubeconfig_error(error: &KubeconfigError) -> String {
    // The text of this variant contains the path a second time, in debug format.
    if let KubeconfigError::ReadConfig(cause, _) = error {
        cause.to_string()
    } else {
        error.to_string()
    }
}

/// Most bytes that are read of the body of an error response.
const ERROR_BODY_MAX: usize = 64 << 10;

/// A `Status` object of the API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiStatus {
    message: String,
}

async fn status_error(path: &str, response: Response<Body>, timeout: Duration) -> RequestError {
    let status = response.status().as_u16();
    let body = read_body(response.into_body(), ERROR_BODY_MAX, timeout).await.unwrap_or_default();
    let message = serde_json::from_slice::<ApiStatus>(&body)
        .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |status| status.message);
    let message: String = message.chars().take(300).collect();
    RequestError {
        reason: FailureReason::from_status(status),
        status: Some(status),
        problem: Problem::without_remedy(format!("{path}: HTTP status {status}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_node_names_are_rejected() {
        assert_eq!(NodeName::new("gpu-1.example").unwrap().as_str(), "gpu-1.example");
        assert_eq!(NodeName::new(""), Err(NodeNameError::Missing));
        for name in ["a b", "a&watch=1", "a/../b", "A", &"a".repeat(254)] {
            assert_eq!(NodeName::new(name), Err(NodeNameError::Invalid(name.to_owned())));
        }
    }

    #[tokio::test]
    async fn error_of_an_unusable_address_contains_the_address() {
        for (address, expected) in [
            (Address::Url("nonsense".to_owned()), "use http(s)://HOST:PORT"),
            (Address::Kubeconfig("/no/such".into()), "--kubeconfig /no/such"),
            (exporter("/no/such.crt"), "/no/such.crt"),
        ] {
            let fault = address.client().await.err().unwrap();
            assert_eq!(fault.reason, FailureReason::Config);
            let text = fault.to_string();
            assert!(text.contains(expected) && !text.contains("secret"), "{text}");
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
    async fn kubeconfig_with_a_credential_plugin_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
            users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}}]\n\
            contexts: [{name: c, context: {cluster: k, user: u}}]\n";
        std::fs::write(&path, text).unwrap();
        let fault = Address::Kubeconfig(path).client().await.err().unwrap();
        assert!(fault.problem.message.contains("the exporter runs no programs"), "{fault}");
    }
}
