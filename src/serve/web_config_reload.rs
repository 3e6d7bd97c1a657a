//! The active `--web-config-file`, and its reload: a change applies to the next request of each connection,
//! and one of TLS to new connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::task;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::auth::BasicAuth;
use super::peer::Peer;
use super::rate_limit::RateLimit;
use super::routes::Route;
use super::web_config_health::WebConfigHealth;
use crate::clock::Clock;
use crate::model::Problem;
use crate::policy;
use crate::web_config::WebConfig;
use crate::worker;

/// A web configuration in use.
pub(super) struct LiveWebConfig {
    /// `None` for plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Equal if the settings of TLS are equal.
    pub(super) tls_digest: Vec<u8>,
    /// Headers of every response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if no authentication is required.
    pub(super) basic_auth: Option<Arc<BasicAuth>>,
    rate_limit: Option<RateLimit>,
}

impl LiveWebConfig {
    pub(super) fn new(config: WebConfig) -> Self {
        Self {
            tls: config.tls.map(TlsAcceptor::from),
            tls_digest: config.tls_digest,
            headers: config.headers,
            basic_auth: BasicAuth::new(config.users).map(Arc::new),
            rate_limit: config.rate.map(|rate| RateLimit::new(rate, Instant::now())),
        }
    }

    /// Whether the rate limit allows a request of `peer` for `route` at `now`; consumes a token.
    pub(super) fn try_acquire(&self, peer: Peer, route: Option<Route>, now: Instant) -> bool {
        self.rate_limit.as_ref().is_none_or(|limit| limit.try_acquire(peer, route, now))
    }
}

/// The file, or one that it references, is on a mount that hangs.
const NO_RESPONSE: &str = "the file system does not respond";

/// Reads a web configuration file, within [`policy::FILE_STARTUP_TIMEOUT`].
///
/// # Errors
/// The file cannot be read or is invalid.
pub fn read_in_time(path: &Path) -> Result<WebConfig, Problem> {
    let file = path.to_owned();
    let read = move || WebConfig::read(&file);
    worker::call_in_time(policy::FILE_STARTUP_TIMEOUT, read).unwrap_or_else(|| {
        let message = format!("--web-config-file {}: {NO_RESPONSE}", path.display());
        Err(Problem::new(message, "check the mounts of the file and of its certificates"))
    })
}

/// Logs what may be a mistake in a configuration that is put into use.
fn log_warnings(path: &Path, config: &WebConfig) {
    for warning in &config.warnings {
        tracing::warn!("--web-config-file {}: {warning}", path.display());
    }
}

/// Puts `config` into use, and reloads its file when it changes. `health` is that of the file. Needs a tokio
/// runtime.
pub(super) fn start(
    mut config: WebConfig,
    clock: Clock,
    health: &Arc<WebConfigHealth>,
) -> watch::Receiver<Arc<LiveWebConfig>> {
    let (path, digest) = (config.path.take(), std::mem::take(&mut config.digest));
    if let Some(path) = &path {
        log_warnings(path, &config);
    }
    let (publish, live) = watch::channel(Arc::new(LiveWebConfig::new(config)));
    if let Some(path) = path {
        health.record_read(true, clock.now().mono);
        let reload = Reload { path, digest, publish, clock, health: Arc::clone(health) };
        tokio::spawn(reload.run());
    }
    live
}

/// Reads the file every [`policy::WEB_CONFIG_EVERY`] and publishes it if its content, or that of a file
/// that it references, has changed. While the file is invalid, the previous configuration stays active.
struct Reload {
    path: PathBuf,
    digest: Vec<u8>,
    publish: watch::Sender<Arc<LiveWebConfig>>,
    clock: Clock,
    health: Arc<WebConfigHealth>,
}

impl Reload {
    async fn run(mut self) {
        let mut is_invalid = false;
        loop {
            tokio::time::sleep(policy::WEB_CONFIG_EVERY).await;
            // The panic of the reading thread is on standard error.
            let Some(read) = self.read().await else { continue };
            self.health.record_read(read.is_ok(), self.clock.now().mono);
            match read {
                Ok(config) => {
                    if std::mem::take(&mut is_invalid) {
                        tracing::info!("--web-config-file {}: valid again", self.path.display());
                    }
                    self.apply(config);
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_invalid, true) {
                        tracing::warn!("{error}; the previous configuration stays active");
                    }
                }
            }
        }
    }

    /// One read, however long it takes; `None` if the reading thread panicked.
    async fn read(&self) -> Option<Result<WebConfig, Problem>> {
        let file = self.path.clone();
        let mut reading = task::spawn_blocking(move || WebConfig::read(&file));
        if let Ok(read) = timeout(policy::SOURCE_DOWN_AFTER, &mut reading).await {
            return read.ok();
        }
        self.health.record_hang();
        let path = self.path.display();
        tracing::warn!(
            "--web-config-file {path}: {NO_RESPONSE}; the previous configuration stays active"
        );
        reading.await.ok()
    }

    fn apply(&mut self, config: WebConfig) {
        if config.digest != self.digest {
            tracing::info!("--web-config-file {}: reloaded", self.path.display());
            log_warnings(&self.path, &config);
            self.digest.clone_from(&config.digest);
            self.publish.send_replace(Arc::new(LiveWebConfig::new(config)));
        }
    }
}
