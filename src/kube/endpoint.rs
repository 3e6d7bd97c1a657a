//! An HTTP server at a URL, and the client of a server.

use std::path::PathBuf;
use std::{fmt, fs, io};

use hyper::Uri;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Client, ConfigExt};
use tower::{BoxError, ServiceBuilder};

use super::request_error::{RequestError, causes};
use crate::policy;

/// An HTTP server: URL, certificates and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Such as `https://127.0.0.1:10250`.
    pub url: String,
    /// CA bundle for its certificate; none for the system's.
    pub ca: Option<PathBuf>,
    /// Skips certificate verification.
    pub insecure: bool,
    /// What every request is authenticated with.
    pub auth: EndpointAuth,
}

/// Credentials for an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAuth {
    /// No credentials.
    None,
    /// A file with a bearer token, which each client reads once.
    TokenFile(PathBuf),
    /// A user name and a password.
    Basic(String, Password),
}

/// A password; its `Debug` output is masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Endpoint {
    /// A client with the present credentials, which it keeps.
    ///
    /// # Errors
    /// A file, URL or credential cannot be used.
    pub fn client(&self) -> Result<Client, RequestError> {
        let token = match &self.auth {
            EndpointAuth::TokenFile(token) => Some(token.as_path()),
            EndpointAuth::None | EndpointAuth::Basic(..) => None,
        };
        let files = [self.ca.as_deref(), token].into_iter().flatten();
        let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
        new_client(self.config()?, &self.url, &files.join(" and "))
    }

    pub(super) fn config(&self) -> Result<kube::Config, RequestError> {
        let mut config = kube::Config::new(parse_url(&self.url)?);
        config.root_cert_file.clone_from(&self.ca);
        config.accept_invalid_certs = self.insecure;
        match &self.auth {
            EndpointAuth::None => {}
            EndpointAuth::TokenFile(token) => {
                config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
            }
            EndpointAuth::Basic(user, password) => {
                config.auth_info.username = Some(user.clone());
                config.auth_info.password = Some(password.0.clone().into());
            }
        }
        Ok(config)
    }
}

/// Parses the URL of a server.
///
/// # Errors
/// The text is not a URL with scheme and host.
pub fn parse_url(url: &str) -> Result<Uri, RequestError> {
    const REMEDY: &str = "use http(s)://HOST:PORT";
    let uri: Uri = url
        .parse()
        .map_err(|e| RequestError::config(format!("{url:?} is not a URL ({e})"), REMEDY))?;
    if uri.scheme().is_none() || uri.host().is_none() {
        return Err(RequestError::config(format!("{url:?} is not a URL"), REMEDY));
    }
    Ok(uri)
}

/// A client for `config`. `location` is where the configuration is from, and `files` are its
/// certificates and tokens, both for error messages.
pub(super) fn new_client(
    mut config: kube::Config,
    location: &str,
    files: &str,
) -> Result<Client, RequestError> {
    let files = if files.is_empty() { "the certificates and tokens" } else { files };
    let unusable = |e: kube::Error| {
        let causes = causes(&e);
        RequestError::config(
            format!("{location}: TLS or credentials cannot be set up: {causes}"),
            format!("check {files}"),
        )
    };
    // A client that reads the file again does so on the thread of all sources, which a file system that does not
    // respond would stop.
    if let (Some(file), None) = (config.auth_info.token_file.take(), &config.auth_info.token) {
        config.auth_info.token = Some(read_token(&file, location)?.into());
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(policy::KUBE_TIMEOUT));
    let connector = config.rustls_https_connector_with_connector(connector).map_err(unusable)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(unusable)?)
        .layer(config.extra_headers_layer().map_err(unusable)?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

fn read_token(file: &str, location: &str) -> Result<String, RequestError> {
    let unusable = |error: io::Error| {
        let message = format!("{location}: the token file {file} cannot be read: {error}");
        RequestError::config(message, "give a file with a token that the exporter may read")
    };
    Ok(fs::read_to_string(file).map_err(unusable)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::source::FailureReason;

    #[tokio::test]
    async fn error_of_an_unusable_endpoint_names_the_url_or_the_file() {
        let endpoint = |url: &str, ca: Option<&str>| Endpoint {
            url: url.to_owned(),
            ca: ca.map(PathBuf::from),
            insecure: false,
            auth: EndpointAuth::Basic("alice".to_owned(), Password("secret".to_owned())),
        };
        for (endpoint, expected) in [
            (endpoint("nonsense", None), "use http(s)://HOST:PORT"),
            (endpoint("https://a:1", Some("/no/such.crt")), "check /no/such.crt"),
            (
                Endpoint {
                    auth: EndpointAuth::TokenFile("/no/such-token".into()),
                    ..endpoint("https://a:1", None)
                },
                "https://a:1: the token file /no/such-token cannot be read: No such file",
            ),
        ] {
            let fault = endpoint.client().err().unwrap();
            assert_eq!(fault.reason, FailureReason::Config);
            let text = format!("{fault} {endpoint:?}");
            assert!(text.contains(expected) && !text.contains("secret"), "{text}");
        }
    }
}
