//! The file of `--web-config-file`: certificates, passwords, headers, a limit of requests. Its keys are
//! those of Prometheus' exporters.

mod tls;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use wire::duration;

use hyper::header::{HeaderName, HeaderValue};
use ring::digest::{Context, SHA256};
use tokio_rustls::rustls::ServerConfig;

use crate::quote::in_part;

/// The largest file that is read: of settings, of certificates, of a key.
const FILE_MAX: u64 = 1 << 20;
/// Costs of passwords that are checked: more than this takes a minute on one core.
const COST_MAX: u32 = 17;

/// What the file says, ready to be used.
#[derive(Clone, Default)]
pub struct WebConfig {
    /// How connections are encrypted; none for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Headers of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Users with the bcrypt hashes of their passwords; empty lets everybody in.
    pub users: BTreeMap<String, String>,
    /// How many requests are answered.
    pub rate: Option<Rate>,
    /// What it asks for in vain, as sentences.
    pub remarks: Vec<String>,
    /// Stands for the bytes of the file and of all that it names: others than before are a change.
    pub digest: Vec<u8>,
}

/// A bucket of requests that fills with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one request is let in.
    pub interval: Duration,
    /// How many are let in at once after a pause.
    pub burst: u32,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--web-config-file {path}: {problem}", path = path.display())]
pub struct WebConfigError {
    path: PathBuf,
    problem: Problem,
}

/// What is wrong with a file, or with one that it names.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is larger than such a file can be.
    #[error("larger than {FILE_MAX} bytes")]
    TooLarge,
    /// It is no such YAML, and where.
    #[error("{0}")]
    Yaml(String),
    /// A key has a value that it cannot have.
    #[error("{key}: {detail}")]
    Value {
        /// Where it stands.
        key: String,
        /// What is wrong, and the mend.
        detail: String,
    },
}

impl Problem {
    /// Keys and details may quote what is written there: as much of it as a line has room for.
    fn value(key: impl AsRef<str>, detail: impl AsRef<str>) -> Self {
        Self::Value { key: in_part(key.as_ref(), 100), detail: in_part(detail.as_ref(), 800) }
    }
}

impl WebConfig {
    /// Reads the file, and the certificates and keys that it names.
    ///
    /// # Errors
    /// Names the file, the key and the mend.
    pub fn read(path: &Path) -> Result<Self, WebConfigError> {
        let problem = |problem| WebConfigError { path: path.to_owned(), problem };
        let text = read_file(path).map_err(problem)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(problem)
    }

    /// What `text` says; relative paths in it begin in `folder`.
    ///
    /// # Errors
    /// As [`WebConfig::read`].
    pub fn parse(text: &[u8], folder: &Path) -> Result<Self, Problem> {
        let wire = wire::File::parse(text)?;
        let mut remarks = Vec::new();
        let mut files = Files { folder, digest: Context::new(&SHA256) };
        files.digest.update(text);
        let tls = match &wire.tls_server_config {
            Some(tls) => tls::server_config(tls, &mut files, &mut remarks)?.map(Arc::new),
            None => None,
        };
        let headers = headers(&wire.http_server_config.headers)?;
        for (user, hash) in &wire.basic_auth_users {
            check_hash(user, hash)?;
        }
        if tls.is_none() && !wire.basic_auth_users.is_empty() {
            remarks.push(
                "passwords without tls_server_config cross the network readable for everybody"
                    .to_owned(),
            );
        }
        let rate = wire.rate_limit.map(wire::RateLimit::checked).transpose()?.flatten();
        let digest = files.digest.finish().as_ref().to_vec();
        Ok(Self { tls, headers, users: wire.basic_auth_users, rate, remarks, digest })
    }
}

/// The files that the settings name.
struct Files<'a> {
    /// Where relative paths begin.
    folder: &'a Path,
    digest: Context,
}

impl Files<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Problem> {
        let bytes = read_file(path)?;
        self.digest.update(&bytes.len().to_le_bytes());
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(Problem::TooLarge);
    }
    Ok(bytes)
}

/// The headers that may be set, with the values that some of them are limited to.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn headers(given: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let mut headers = Vec::new();
    for (name, value) in given {
        let key = || format!("http_server_config.headers.{name}");
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = HEADERS.iter().map(|(known, _)| *known).collect();
            let detail = format!("this header cannot be set; those that can: {}", known.join(", "));
            return Err(Problem::value(key(), detail));
        };
        // A header that is left empty is not sent.
        if value.is_empty() {
            continue;
        }
        if !values.is_empty() && !values.contains(&value.to_lowercase().as_str()) {
            return Err(Problem::value(key(), format!("give {}", values.join(" or "))));
        }
        let no_header = |_| Problem::value(key(), "not what a header can hold");
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Problem::value(key(), "not what a header can be called"))?;
        headers.push((parsed, HeaderValue::from_str(value).map_err(no_header)?));
    }
    Ok(headers)
}

/// A hash of bcrypt names its version and its cost: `$2y$10$…`.
fn check_hash(user: &str, hash: &str) -> Result<(), Problem> {
    let parts = hash.parse::<bcrypt::HashParts>();
    let detail = match parts {
        Ok(parts) if parts.get_cost() <= COST_MAX => return Ok(()),
        Ok(parts) => {
            format!("a cost of {} would take minutes; give at most {COST_MAX}", parts.get_cost())
        }
        Err(_) => "no bcrypt hash; make one with `htpasswd -nBC 10 \"\"`".to_owned(),
    };
    Err(Problem::value(format!("basic_auth_users.{user}"), detail))
}

#[cfg(test)]
mod tests;
