//! The YAML schema of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

use super::{MESSAGE_MAX, RequestRate, at_key};
use crate::model::Problem;
use crate::sanitize::truncate_for_log;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebConfigFile {
    pub(super) tls_server_config: Option<TlsServerConfig>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) http_server_config: HttpServerConfig,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) basic_auth_users: BTreeMap<String, String>,
    pub(super) rate_limit: Option<RateLimitConfig>,
}

/// `tls_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsServerConfig {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "empty_as_none")]
    pub(super) client_auth_type: Option<ClientAuth>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) cipher_suites: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) curve_preferences: Vec<Curve>,
    #[serde(deserialize_with = "empty_as_none")]
    pub(super) min_version: Option<TlsVersion>,
    #[serde(deserialize_with = "empty_as_none")]
    pub(super) max_version: Option<TlsVersion>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

/// `client_auth_type`: client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    /// Not requested.
    #[default]
    #[serde(rename = "NoClientCert")]
    None,
    /// Requested, but optional and not verified.
    #[serde(rename = "RequestClientCert")]
    Request,
    /// Required, but not verified.
    #[serde(rename = "RequireAnyClientCert", alias = "RequireClientCert")]
    Any,
    /// Optional; verified if the client sends one.
    #[serde(rename = "VerifyClientCertIfGiven")]
    VerifyIfGiven,
    /// Required and verified.
    #[serde(rename = "RequireAndVerifyClientCert")]
    RequireAndVerify,
}

/// One of `curve_preferences`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Curve {
    #[serde(rename = "CurveP256")]
    P256,
    #[serde(rename = "CurveP384")]
    P384,
    X25519,
}

/// `min_version` and `max_version`; older versions are insecure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum TlsVersion {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// `http_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpServerConfig {
    /// Ignored: the server has HTTP/1.1 only, which every client supports.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) headers: BTreeMap<String, Option<String>>,
}

/// `rate_limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimitConfig {
    interval: Option<String>,
    burst: Option<u32>,
}

impl WebConfigFile {
    /// Parses the file. Unknown keys are an error, because a misspelled key could disable
    /// authentication.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(text)
            .map_err(|_| Problem::new("the file is not UTF-8 text", "check its path"))?;
        let file: Option<Self> =
            serde_saphyr::from_str(text).map_err(|error| yaml_error(&error))?;
        Ok(file.unwrap_or_default())
    }
}

/// Position, reason and remedy. Never contains the line itself, which may hold a password.
fn yaml_error(error: &Error) -> Problem {
    let error = error.without_snippet();
    let (message, remedy) = explain(error);
    let position = error.location().map_or_else(String::new, |location| {
        format!("line {}, column {}: ", location.line(), location.column())
    });
    Problem::new(truncate_for_log(&format!("{position}{message}"), MESSAGE_MAX), remedy)
}

/// Reason and remedy.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other errors are those of YAML's syntax")]
fn explain(error: &Error) -> (String, String) {
    let (message, remedy) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let remedy = format!("use only {}", expected.join(", "));
            return (format!("unknown key {field}"), remedy);
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let remedy = format!("give one of {}", expected.join(", "));
            return (format!("unknown value {variant}"), remedy);
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or_default();
            return (format!("the key {key} is given twice"), "remove one".to_owned());
        }
        Error::NullIntoString { .. } => ("the value is missing", "give a text"),
        Error::Unexpected { expected: "mapping start", .. } => {
            ("keys are expected here", "write KEY: VALUE, one per line")
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            ("a list is expected here", "write it in brackets, as in [a, b]")
        }
        Error::Unexpected { expected: "string scalar", .. } => {
            ("a text is expected here", "give a text, in quotes if it has special characters")
        }
        Error::InvalidScalar { ty: "u32", .. } => {
            ("not a whole number", "give a number from 0 to 4294967295")
        }
        Error::InvalidScalar { ty: "boolean", .. } => ("not a boolean", "give true or false"),
        _ => {
            let message = UserMessageFormatter.format_message(error);
            let message = message.lines().next().unwrap_or_default().to_owned();
            return (message, "correct the YAML syntax at this position".to_owned());
        }
    };
    (message.to_owned(), remedy.to_owned())
}

/// An empty text counts as a missing value, as in Go.
fn empty_as_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| T::deserialize(text.into_deserializer())).transpose()
}

/// A key without a value counts as missing, as in Go.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl RateLimitConfig {
    /// The validated limit; `None` if there is no limit.
    pub(super) fn validate(self) -> Result<Option<RequestRate>, Problem> {
        let Some(text) = self.interval else { return Ok(None) };
        // A number without a unit is nanoseconds, as in Go.
        let nanoseconds = text.parse().map(Duration::from_nanos).ok();
        let interval = nanoseconds.or_else(|| parse_duration(&text)).ok_or_else(|| {
            let message = format!("{text:?} is not a duration");
            at_key("rate_limit.interval", Problem::new(message, "give for example 100ms or 1s"))
        })?;
        if interval.is_zero() {
            return Ok(None);
        }
        match self.burst {
            Some(0) => {
                let problem = Problem::new("0 allows no request", "give at least 1");
                Err(at_key("rate_limit.burst", problem))
            }
            burst => Ok(Some(RequestRate { interval, burst: burst.unwrap_or(1) })),
        }
    }
}

/// Parses a duration in the notation of Go, such as `1m30s`, `1.5s`, `500us` or `0`, of 0 to 292 years.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Some(Duration::ZERO);
    }
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut rest, mut sum) = (unsigned, Duration::ZERO);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c| !is_of_number(c))?);
        let (unit, tail) = tail.split_at(tail.find(is_of_number).unwrap_or(tail.len()));
        let unit = match unit {
            "ns" => Duration::from_nanos(1),
            // Two characters look like this one.
            "us" | "\u{b5}s" | "\u{3bc}s" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        let time = number.parse::<f64>().ok()? * unit.as_secs_f64();
        sum = sum.checked_add(Duration::try_from_secs_f64(time).ok()?)?;
        rest = tail;
    }
    let is_in_range = i64::try_from(sum.as_nanos()).is_ok();
    (is_in_range && !unsigned.is_empty()).then_some(sum)
}
