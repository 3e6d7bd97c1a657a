//! Health of a cluster source: its state, its failures and its last success.

use std::time::Duration;

use tracing::{info, warn};

use crate::model::Problem;

/// Why a request to a source failed; a label value of the failure counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// No socket, or the connection is refused.
    Absent,
    /// The connection failed.
    Connection,
    /// No response in time, or no data on a stream.
    Timeout,
    /// HTTP 401 or 403, or the equivalent gRPC codes.
    Denied,
    /// HTTP 429, or the kubelet's rate limit.
    Throttled,
    /// The response is above the size limit.
    TooLarge,
    /// The response cannot be decoded.
    Garbage,
    /// The requested `resourceVersion` has expired (HTTP 410); a new list follows.
    Expired,
    /// The server does not support the request.
    Unsupported,
    /// Any other error status.
    Refused,
    /// The configured address or credentials cannot be used.
    Config,
}

impl FailureReason {
    /// All failures, in the order of the counters.
    pub const ALL: [Self; 11] = [
        Self::Absent,
        Self::Connection,
        Self::Timeout,
        Self::Denied,
        Self::Throttled,
        Self::TooLarge,
        Self::Garbage,
        Self::Expired,
        Self::Unsupported,
        Self::Refused,
        Self::Config,
    ];

    /// Label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::TooLarge => "too_large",
            Self::Garbage => "garbage",
            Self::Expired => "expired",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Config => "config",
        }
    }

    /// The failure of an HTTP status other than 2xx.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            410 => Self::Expired,
            429 => Self::Throttled,
            404 | 405 => Self::Unsupported,
            _ => Self::Refused,
        }
    }
}

/// State of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// No request has succeeded or failed yet.
    Starting,
    /// The last request succeeded.
    Up,
    /// The last request failed.
    Down(FailureReason),
}

/// Health of one source, updated by the task that reads it. Each change of state is logged once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTracker {
    /// Name of the source in logs and labels.
    pub source: &'static str,
    /// Present state.
    pub state: SourceState,
    /// Time of the last response (monotonic).
    pub last_success: Option<Duration>,
    /// Number of state changes.
    pub state_changes: u64,
    failures: [u64; FailureReason::ALL.len()],
}

impl HealthTracker {
    /// A source without a request so far.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        let failures = [0; FailureReason::ALL.len()];
        Self {
            source,
            state: SourceState::Starting,
            last_success: None,
            state_changes: 0,
            failures,
        }
    }

    /// Records a response at `now`.
    pub fn record_success(&mut self, now: Duration) {
        self.last_success = Some(now);
        if self.set_state(SourceState::Up) {
            info!(source = self.source, "source is up");
        }
    }

    /// Records a failure; the source is down.
    pub fn record_failure(&mut self, failure: FailureReason, problem: &Problem) {
        self.count_failure(failure);
        if self.set_state(SourceState::Down(failure)) {
            let reason = failure.label();
            warn!(source = self.source, reason, "source is down, using cached data: {problem}");
        }
    }

    /// Counts a failure without a change of state.
    pub fn count_failure(&mut self, failure: FailureReason) {
        if let Some(n) = self.failures.get_mut(failure as usize) {
            *n += 1;
        }
    }

    /// All failures with their counts.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> + '_ {
        FailureReason::ALL.into_iter().zip(self.failures)
    }

    /// Number of failures of this kind.
    #[must_use]
    pub fn failures_of(&self, failure: FailureReason) -> u64 {
        self.failures.get(failure as usize).copied().unwrap_or_default()
    }

    /// Time since the last response; none before the first.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.last_success?))
    }

    fn set_state(&mut self, state: SourceState) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.state_changes += 1;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_state_is_not_counted_again() {
        let mut health = HealthTracker::new("test");
        for _ in 0..3 {
            health.record_failure(FailureReason::Absent, &Problem::without_remedy("no socket"));
        }
        assert_eq!((health.state_changes, health.failures_of(FailureReason::Absent)), (1, 3));
        health.record_success(Duration::from_secs(7));
        health.record_success(Duration::from_secs(8));
        assert_eq!((health.state, health.state_changes), (SourceState::Up, 2));
        assert_eq!(health.age(Duration::from_secs(10)), Some(Duration::from_secs(2)));
        health.record_failure(FailureReason::Timeout, &Problem::without_remedy("hung"));
        assert_eq!(health.last_success, Some(Duration::from_secs(8)), "the last success is kept");
    }

    #[test]
    fn failures_are_counted_by_reason() {
        for failure in FailureReason::ALL {
            let mut health = HealthTracker::new("test");
            health.count_failure(failure);
            let counted: Vec<_> = health.failures().filter(|(_, n)| *n == 1).collect();
            assert_eq!(counted, [(failure, 1)]);
        }
    }
}
