//! The active `--web-config-file`, and its reload: a change applies to new connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::task;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::auth::BasicAuth;
use crate::model::Problem;
use crate::policy;
use crate::web_config::{RequestRate, WebConfig};

/// A web configuration in use.
pub(super) struct LiveWebConfig {
    /// `None` for plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Headers of every response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if no authentication is required.
    pub(super) basic_auth: Option<Arc<BasicAuth>>,
    rate_limit: Option<Mutex<TokenBucket>>,
}

/// Rate limit of requests.
struct TokenBucket {
    rate: RequestRate,
    /// Requests that are allowed at `updated`.
    tokens: f64,
    updated: Instant,
}

impl LiveWebConfig {
    pub(super) fn new(config: WebConfig) -> Self {
        let full = |rate: RequestRate| {
            let tokens = f64::from(rate.burst);
            TokenBucket { rate, tokens, updated: Instant::now() }
        };
        Self {
            tls: config.tls.map(TlsAcceptor::from),
            headers: config.headers,
            basic_auth: BasicAuth::new(config.users).map(Arc::new),
            rate_limit: config.rate.map(|rate| Mutex::new(full(rate))),
        }
    }

    /// Whether the rate limit allows a request at `now`; consumes a token.
    pub(super) fn try_acquire(&self, now: Instant) -> bool {
        let Some(bucket) = &self.rate_limit else { return true };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).try_take(now)
    }
}

impl TokenBucket {
    fn try_take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let tokens = self.tokens + elapsed / self.rate.interval.as_secs_f64();
        self.tokens = tokens.min(f64::from(self.rate.burst));
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }
}

/// Reads a web configuration file at startup and logs its warnings.
///
/// # Errors
/// The file cannot be read or is invalid.
pub fn load(path: &Path) -> Result<WebConfig, Problem> {
    let config = WebConfig::read(path)?;
    for remark in &config.warnings {
        tracing::warn!("--web-config-file {}: {remark}", path.display());
    }
    Ok(config)
}

/// Puts `config` into use, and reloads its file when it changes. Needs a tokio runtime.
pub(super) fn start(mut config: WebConfig) -> watch::Receiver<Arc<LiveWebConfig>> {
    let (path, digest) = (config.path.take(), std::mem::take(&mut config.digest));
    let (publish, live) = watch::channel(Arc::new(LiveWebConfig::new(config)));
    if let Some(path) = path {
        tokio::spawn(reload_on_change(path, digest, publish));
    }
    live
}

/// Reads the file every [`policy::WEB_CONFIG_EVERY`] and publishes it if its content, or that of a file
/// that it references, has changed. While the file is invalid, the previous configuration stays active.
async fn reload_on_change(
    path: PathBuf,
    mut digest: Vec<u8>,
    publish: watch::Sender<Arc<LiveWebConfig>>,
) {
    let mut is_invalid = false;
    loop {
        tokio::time::sleep(policy::WEB_CONFIG_EVERY).await;
        let file = path.clone();
        let Ok(read) = task::spawn_blocking(move || WebConfig::read(&file)).await else { continue };
        match read {
            Ok(config) => {
                if std::mem::take(&mut is_invalid) {
                    tracing::info!("--web-config-file {}: valid again", path.display());
                }
                if config.digest != digest {
                    tracing::info!("--web-config-file {}: reloaded", path.display());
                    digest.clone_from(&config.digest);
                    publish.send_replace(Arc::new(LiveWebConfig::new(config)));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_invalid, true) {
                    tracing::warn!("{error}; the previous configuration stays active");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rate_limit_allows_a_burst_and_then_one_request_per_interval() {
        let start = Instant::now();
        let rate = RequestRate { interval: Duration::from_secs(1), burst: 2 };
        let mut bucket = TokenBucket { rate, tokens: 2.0, updated: start };
        let mut at = |ms: u64| bucket.try_take(start + Duration::from_millis(ms));
        assert!(at(0) && at(0) && !at(0) && !at(999));
        assert!(at(1000) && !at(1500) && at(2000));
        assert!(at(60_000) && at(60_000) && !at(60_000), "no more than the burst");
    }
}
