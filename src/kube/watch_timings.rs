//! Timeouts and retry delays of the watches and lists of an API server.

use std::time::Duration;

use crate::policy;

/// Timeouts and retry delays of a watch; the defaults are those of [`policy`].
#[derive(Clone, Debug)]
pub struct WatchTimings {
    /// Upper bound of the random delay of the first request after a broken watch, besides the retry
    /// delay.
    pub reconnect_jitter: Duration,
    /// First retry delay.
    pub backoff_min: Duration,
    /// Longest retry delay.
    pub backoff_max: Duration,
    /// Timeout of the response headers.
    pub response_timeout: Duration,
    /// Idle timeout of a stream.
    pub idle_timeout: Duration,
    /// Timeout of the initial events or of a complete list.
    pub list_timeout: Duration,
}

impl Default for WatchTimings {
    fn default() -> Self {
        Self {
            reconnect_jitter: policy::KUBE_RECONNECT_JITTER,
            backoff_min: policy::KUBE_BACKOFF_MIN,
            backoff_max: policy::KUBE_BACKOFF_MAX,
            response_timeout: policy::KUBE_TIMEOUT,
            idle_timeout: policy::WATCH_IDLE,
            list_timeout: policy::WATCH_INITIAL_EVENTS,
        }
    }
}

impl WatchTimings {
    /// Retry delay after the `failures`th consecutive failure.
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Duration {
        policy::jittered_backoff(self.backoff_min, self.backoff_max, failures, fastrand::f64())
    }

    /// Delay of the next watch after the `failures`th consecutive failure; `broken`: a watch that was
    /// established has lost its connection.
    #[must_use]
    pub fn reconnect_delay(&self, failures: u32, broken: bool) -> Duration {
        let jitter = if broken { self.reconnect_jitter } else { Duration::ZERO };
        self.backoff(failures) + jitter.mul_f64(fastrand::f64())
    }
}
