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
pub(crate) use tls::refused_client_certificate;

use hyper::header::{HeaderName, HeaderValue};
use ring::digest::{self, Context, SHA256};
use tokio_rustls::rustls::ServerConfig;

use crate::model::Problem;
use crate::sanitize::truncate_for_log;

/// Maximum size in bytes of the file, and of each certificate and key file.
const FILE_MAX: u64 = 1 << 20;
/// Maximum bcrypt cost: a higher one takes more than a minute per check on one core.
const COST_MAX: u32 = 17;
/// Longest key that an error quotes, in characters.
const KEY_MAX: usize = 100;
/// Longest message of an error without its key, in characters.
const MESSAGE_MAX: usize = 800;

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
    /// The file that was read; `None` without a file.
    pub path: Option<PathBuf>,
    /// SHA-256 of the file and of all files that it references; another digest is a change.
    pub digest: Vec<u8>,
    /// SHA-256 of the settings of TLS, with all files that they reference.
    pub tls_digest: Vec<u8>,
}

/// A rate limit (token bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Time per request.
    pub interval: Duration,
    /// Maximum number of requests at once.
    pub burst: u32,
}

/// Why the value of `key`, such as `tls_server_config.cert_file`, cannot be used. Key and message are
/// truncated, because they may quote the file.
fn at_key(key: impl AsRef<str>, problem: Problem) -> Problem {
    let message = truncate_for_log(&problem.message, MESSAGE_MAX);
    Problem { message, ..problem }.at(truncate_for_log(key.as_ref(), KEY_MAX))
}

impl WebConfig {
    /// Reads the file, and the certificate and key files that it references.
    ///
    /// # Errors
    /// The file cannot be read or is invalid; the message names the file, the key and the remedy.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let problem =
            |problem: Problem| problem.at(format!("--web-config-file {}", path.display()));
        let text = read_file(path).map_err(problem)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = Self::parse(&text, directory).map_err(problem)?;
        Ok(Self { path: Some(path.to_owned()), ..config })
    }

    /// Parses the content of a file. Relative paths are resolved against `directory`.
    ///
    /// # Errors
    /// A referenced file cannot be read, or the content is invalid.
    pub fn parse(text: &[u8], directory: &Path) -> Result<Self, Problem> {
        let file = schema::WebConfigFile::parse(text)?;
        let mut remarks = Vec::new();
        let mut files = ReferencedFiles { directory, digest: Context::new(&SHA256) };
        files.digest.update(format!("{:?}", file.tls_server_config).as_bytes());
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
        let tls_digest = files.digest.finish().as_ref().to_vec();
        let digest = digest::digest(&SHA256, &[text, &tls_digest].concat()).as_ref().to_vec();
        let users = file.basic_auth_users;
        Ok(Self { tls, headers, users, rate, warnings: remarks, path: None, digest, tls_digest })
    }
}

/// Reads the referenced files, and adds their content to the digest.
struct ReferencedFiles<'a> {
    /// Directory of relative paths.
    directory: &'a Path,
    digest: Context,
}

impl ReferencedFiles<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Problem> {
        let bytes = read_file(path)?;
        self.digest.update(&bytes.len().to_le_bytes());
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: io::Error| {
        let message = format!("the file cannot be read ({error})");
        Problem::new(message, "check its path and permissions")
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        let message = format!("the file is larger than {FILE_MAX} bytes");
        return Err(Problem::new(message, "check its path"));
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
    file: &BTreeMap<String, Option<String>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let mut headers = Vec::new();
    for (name, value) in file {
        let key = || format!("http_server_config.headers.{name}");
        let known = HEADERS.iter().find(|(known, _)| known == name);
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some(((_, values), parsed)) = known.zip(parsed) else {
            let known: Vec<&str> = HEADERS.iter().map(|(known, _)| *known).collect();
            let remedy = format!("use only {}", known.join(", "));
            return Err(at_key(key(), Problem::new("this header cannot be set", remedy)));
        };
        // A header without a value is not sent.
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        if !values.is_empty() && !values.contains(&value.to_lowercase().as_str()) {
            let remedy = format!("give {}", values.join(" or "));
            return Err(at_key(key(), Problem::new("this value is not allowed", remedy)));
        }
        let invalid = |_| {
            let message = "a header value cannot have control characters";
            at_key(key(), Problem::new(message, "remove them"))
        };
        headers.push((parsed, HeaderValue::from_str(value).map_err(invalid)?));
    }
    Ok(headers)
}

/// Checks that a hash is a bcrypt hash with an acceptable cost, such as `$2y$10$…`.
fn check_hash(user: &str, hash: &str) -> Result<(), Problem> {
    let parts = hash.parse::<bcrypt::HashParts>();
    let problem = match parts {
        Ok(parts) if parts.get_cost() <= COST_MAX => return Ok(()),
        Ok(parts) => {
            let cost = parts.get_cost();
            let message = format!("a bcrypt cost of {cost} takes minutes per check");
            Problem::new(message, format!("give at most {COST_MAX}"))
        }
        Err(_) => Problem::new("not a bcrypt hash", "create one with `htpasswd -nBC 10 \"\"`"),
    };
    Err(at_key(format!("basic_auth_users.{user}"), problem))
}

#[cfg(test)]
mod tests;
