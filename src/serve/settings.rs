//! The settings of `--web-config-file` in force, and their following: what is changed counts for the
//! next connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::task;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::auth::Doorkeeper;
use crate::policy;
use crate::web_config::{Rate, WebConfig, WebConfigError};

/// What is in force.
pub(super) struct Settings {
    /// How connections are encrypted; none for plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Headers of every response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Who checks passwords; none where everybody is let in.
    pub(super) doorkeeper: Option<Arc<Doorkeeper>>,
    bucket: Option<Mutex<Bucket>>,
}

/// Requests that may be answered; it fills with time.
struct Bucket {
    rate: Rate,
    filled: f64,
    at: Instant,
}

impl Settings {
    pub(super) fn new(config: WebConfig) -> Self {
        let full = |rate: Rate| Bucket { rate, filled: f64::from(rate.burst), at: Instant::now() };
        Self {
            tls: config.tls.map(TlsAcceptor::from),
            headers: config.headers,
            doorkeeper: Doorkeeper::new(config.users).map(Arc::new),
            bucket: config.rate.map(|rate| Mutex::new(full(rate))),
        }
    }

    /// Whether one more request is let in at `now`.
    pub(super) fn lets_in(&self, now: Instant) -> bool {
        let Some(bucket) = &self.bucket else { return true };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let filled = self.filled + passed / self.rate.interval.as_secs_f64();
        self.filled = filled.min(f64::from(self.rate.burst));
        let lets_in = self.filled >= 1.0;
        if lets_in {
            self.filled -= 1.0;
        }
        lets_in
    }
}

/// Reads a file of settings for the first time, and logs what it asks for in vain.
///
/// # Errors
/// It cannot be used.
pub fn read(path: &Path) -> Result<WebConfig, WebConfigError> {
    let config = WebConfig::read(path)?;
    for remark in &config.remarks {
        tracing::warn!("--web-config-file {}: {remark}", path.display());
    }
    Ok(config)
}

/// Reads the file again and again and publishes it when what it says, or a file that it names, may
/// have changed. While it cannot be used, what it said before stays in force.
pub(super) async fn follow(
    path: PathBuf,
    mut known: Vec<u8>,
    publish: watch::Sender<Arc<Settings>>,
) {
    let mut in_trouble = false;
    loop {
        tokio::time::sleep(policy::WEB_CONFIG_EVERY).await;
        let file = path.clone();
        let Ok(read) = task::spawn_blocking(move || WebConfig::read(&file)).await else { continue };
        match read {
            Ok(config) => {
                if std::mem::take(&mut in_trouble) {
                    tracing::info!("--web-config-file {}: can be used again", path.display());
                }
                if config.digest != known {
                    tracing::info!(
                        "--web-config-file {}: has changed and is in force",
                        path.display()
                    );
                    known.clone_from(&config.digest);
                    publish.send_replace(Arc::new(Settings::new(config)));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut in_trouble, true) {
                    tracing::warn!("{error}; what it said before stays in force");
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
    fn a_bucket_lets_a_burst_in_and_then_one_at_a_time() {
        let start = Instant::now();
        let rate = Rate { interval: Duration::from_secs(1), burst: 2 };
        let mut bucket = Bucket { rate, filled: 2.0, at: start };
        let mut at = |ms: u64| bucket.take(start + Duration::from_millis(ms));
        assert!(at(0) && at(0) && !at(0) && !at(999));
        assert!(at(1000) && !at(1500) && at(2000));
        assert!(at(60_000) && at(60_000) && !at(60_000), "no more than the burst");
    }
}
