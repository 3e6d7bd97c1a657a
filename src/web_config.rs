//! Parses the file of `--web-config-file`: TLS, basic authentication, response headers and rate limit.
//! Its keys are those of Prometheus' exporter toolkit.

mod schema;
mod tls;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use schema::parse_duration;

use hyper::header::{HeaderName, HeaderValue};
use ring::digest::{Context, SHA256};
use tokio_rustls::rustls::ServerConfig;

use crate::sanitize::truncate_for_log;

/// Maximum size in bytes of the file, and of each certificate and key file.
const FILE_MAX: u64 = 1 << 20;
/// Maximum bcrypt cost: a higher one takes more than a minute per check on one core.
const COST_MAX: u32 = 17;

/// The validated content of the file.
#[derive(Clone, Default)]
pub struct WebConfig {
    /// TLS configuration; `None` for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Headers of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// User name → bcrypt hash; empty if no authentication is required.
    pub users: BTreeMap<String, String>,
    /// Rate limit of requests.
    pub rate: Option<RequestRate>,
    /// Warnings, for example about ignored keys.
    pub warnings: Vec<String>,
    /// SHA-256 of the file and of all files that it references; another digest is a change.
    pub digest: Vec<u8>,
}

/// A rate limit (token bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Time per request.
    pub interval: Duration,
    /// Maximum number of requests at once.
    pub burst: u32,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--web-config-file {path}: {problem}", path = path.display())]
pub struct WebConfigError {
    path: PathBuf,
    problem: WebConfigProblem,
}

/// Why the file, or a file that it references, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigProblem {
    /// The file cannot be read.
    #[error("the file cannot be read ({0}); check its path and permissions")]
    Unreadable(#[from] io::Error),
    /// The file is larger than 1 MiB.
    #[error("the file is larger than {FILE_MAX} bytes; check its path")]
    TooLarge,
    /// The content is not valid YAML or has unknown keys; position and reason.
    #[error("{0}")]
    Yaml(String),
    /// A value is not allowed.
    #[error("{key}: {detail}")]
    Value {
        /// Path of the key, such as `tls_server_config.cert_file`.
        key: String,
        /// Reason and remedy.
        detail: String,
    },
}

impl WebConfigProblem {
    /// Truncates key and detail, because they may quote the file.
    fn value(key: impl AsRef<str>, detail: impl AsRef<str>) -> Self {
        Self::Value {
            key: truncate_for_log(key.as_ref(), 100),
            detail: truncate_for_log(detail.as_ref(), 800),
        }
    }
}

impl WebConfig {
    /// Reads the file, and the certificate and key files that it references.
    ///
    /// # Errors
    /// The file cannot be read or is invalid; the message names the file, the key and the remedy.
    pub fn read(path: &Path) -> Result<Self, WebConfigError> {
        let problem = |problem| WebConfigError { path: path.to_owned(), problem };
        let text = read_file(path).map_err(problem)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(problem)
    }

    /// Parses the content of a file. Relative paths are resolved against `directory`.
    ///
    /// # Errors
    /// A referenced file cannot be read, or the content is invalid.
    pub fn parse(text: &[u8], directory: &Path) -> Result<Self, WebConfigProblem> {
        let file = schema::WebConfigFile::parse(text)?;
        let mut remarks = Vec::new();
        let mut files = ReferencedFiles { directory, digest: Context::new(&SHA256) };
        files.digest.update(text);
        let tls = match &file.tls_server_config {
            Some(tls) => tls::server_config(tls, &mut files, &mut remarks)?.map(Arc::new),
            None => None,
        };
        let headers = headers(&file.http_server_config.headers)?;
        for (user, hash) in &file.basic_auth_users {
            check_hash(user, hash)?;
        }
        if tls.is_none() && !file.basic_auth_users.is_empty() {
            remarks.push(
                "basic_auth_users: passwords are sent unencrypted; add tls_server_config"
                    .to_owned(),
            );
        }
        let rate = file.rate_limit.map(schema::RateLimitConfig::validate).transpose()?.flatten();
        let digest = files.digest.finish().as_ref().to_vec();
        Ok(Self { tls, headers, users: file.basic_auth_users, rate, warnings: remarks, digest })
    }
}

/// Reads the referenced files, and adds their content to the digest.
struct ReferencedFiles<'a> {
    /// Directory of relative paths.
    directory: &'a Path,
    digest: Context,
}

impl ReferencedFiles<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, WebConfigProblem> {
        let bytes = read_file(path)?;
        self.digest.update(&bytes.len().to_le_bytes());
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, WebConfigProblem> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(WebConfigProblem::TooLarge);
    }
    Ok(bytes)
}

/// The headers that can be set, and their allowed values; no values allow all.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn headers(
    file: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, WebConfigProblem> {
    let mut headers = Vec::new();
    for (name, value) in file {
        let key = || format!("http_server_config.headers.{name}");
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = HEADERS.iter().map(|(known, _)| *known).collect();
            let detail = format!("this header cannot be set; use only {}", known.join(", "));
            return Err(WebConfigProblem::value(key(), detail));
        };
        // A header with an empty value is not sent.
        if value.is_empty() {
            continue;
        }
        if !values.is_empty() && !values.contains(&value.to_lowercase().as_str()) {
            let detail = format!("this value is not allowed; give {}", values.join(" or "));
            return Err(WebConfigProblem::value(key(), detail));
        }
        let invalid = |_| {
            WebConfigProblem::value(
                key(),
                "a header value cannot have control characters; remove them",
            )
        };
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| WebConfigProblem::value(key(), "not a header name"))?;
        headers.push((parsed, HeaderValue::from_str(value).map_err(invalid)?));
    }
    Ok(headers)
}

/// Checks that a hash is a bcrypt hash with an acceptable cost, such as `$2y$10$…`.
fn check_hash(user: &str, hash: &str) -> Result<(), WebConfigProblem> {
    let parts = hash.parse::<bcrypt::HashParts>();
    let detail = match parts {
        Ok(parts) if parts.get_cost() <= COST_MAX => return Ok(()),
        Ok(parts) => {
            let cost = parts.get_cost();
            format!("a bcrypt cost of {cost} takes minutes per check; give at most {COST_MAX}")
        }
        Err(_) => "not a bcrypt hash; create one with `htpasswd -nBC 10 \"\"`".to_owned(),
    };
    Err(WebConfigProblem::value(format!("basic_auth_users.{user}"), detail))
}

#[cfg(test)]
mod tests;
