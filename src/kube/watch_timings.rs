//! Timeouts and retry delays of the watches and lists of an API server.

use std::time::Duration;

use crate::policy;

/// Timeouts and retry delays of a watch; the defaults are those of [`policy`].
#[derive(Clone, Debug)]
pub struct WatchTimings {
    /// Upper bound of the random delay of the first request.
    pub start_jitter: Duration,
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
            start_jitter: policy::KUBE_START_JITTER,
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

    /// Random delay of the first request.
    #[must_use]
    pub fn start_delay(&self) -> Duration {
        self.start_jitter.mul_f64(fastrand::f64())
    }
}
