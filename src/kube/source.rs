//! Health of a cluster source: its state, its failures and its last success.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::model::Problem;
use crate::policy;

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
    /// The kubelet does not know its pods yet.
    NotReady,
    /// Any other error status.
    Refused,
    /// The configured address or credentials cannot be used.
    Config,
}

impl FailureReason {
    /// All failures, in the order of the counters.
    pub const ALL: [Self; 12] = [
        Self::Absent,
        Self::Connection,
        Self::Timeout,
        Self::Denied,
        Self::Throttled,
        Self::TooLarge,
        Self::Garbage,
        Self::Expired,
        Self::Unsupported,
        Self::NotReady,
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
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::Config => "config",
        }
    }

    /// Whether a retry may succeed without a change by the operator.
    fn may_pass(self) -> bool {
        match self {
            Self::Absent
            | Self::Connection
            | Self::Timeout
            | Self::Throttled
            | Self::Expired
            | Self::NotReady
            | Self::Refused
            | Self::Garbage => true,
            Self::Denied | Self::TooLarge | Self::Unsupported | Self::Config => false,
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

/// Number of objects of a source that were skipped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkippedObjects {
    /// Events and list items that are not JSON, not of the API, or above the size limit.
    pub undecodable: u64,
    /// Objects of other kinds, and events of unknown types.
    pub unknown: u64,
    /// Pods of other nodes.
    pub foreign: u64,
    /// Pods above the limit of [`PODS_MAX`](crate::policy::PODS_MAX).
    pub overflow: u64,
}

impl SkippedObjects {
    /// The numbers with their label values.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 4] {
        let Self { undecodable, unknown, foreign, overflow } = *self;
        [
            ("undecodable", undecodable),
            ("unknown_kind", unknown),
            ("other_node", foreign),
            ("too_many", overflow),
        ]
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
    /// Why the last request failed; none while the source is up.
    pub last_problem: Option<Arc<str>>,
    /// Number of state changes.
    pub state_changes: u64,
    /// Objects skipped since the start.
    pub skipped: SkippedObjects,
    /// Since when no request has succeeded; none while the source is up.
    failing_since: Option<Duration>,
    /// The failure that was logged as a warning.
    warned: Option<FailureReason>,
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
            last_problem: None,
            state_changes: 0,
            skipped: SkippedObjects::default(),
            failing_since: None,
            warned: None,
            failures,
        }
    }

    /// Forgets the state, but not the counts, of a source that is used again.
    pub fn restart(&mut self) {
        self.state = SourceState::Starting;
        (self.failing_since, self.warned) = (None, None);
    }

    /// Records a response at `now`.
    pub fn record_success(&mut self, now: Duration) {
        self.last_success = Some(now);
        (self.failing_since, self.warned, self.last_problem) = (None, None, None);
        if self.set_state(SourceState::Up) {
            info!(source = self.source, "source is up");
        }
    }

    /// Records a failure at `now`. A reconnect is usual; only a source that does not respond for
    /// [`policy::SOURCE_DOWN_AFTER`], or with a failure that does not pass by itself, is logged as down.
    pub fn record_failure(&mut self, failure: FailureReason, problem: &Problem, now: Duration) {
        self.count_failure(failure);
        self.last_problem = Some(problem.message.as_str().into());
        let since = *self.failing_since.get_or_insert(self.last_success.unwrap_or(now));
        let is_long = now.saturating_sub(since) >= policy::SOURCE_DOWN_AFTER;
        let (source, reason) = (self.source, failure.label());
        let has_changed = self.set_state(SourceState::Down(failure));
        if is_long || !failure.may_pass() {
            if self.warned.replace(failure) != Some(failure) {
                warn!(source, reason, "source is down, using cached data: {problem}");
            }
        } else if has_changed {
            info!(source, reason, "request failed and is retried: {problem}");
        }
    }

    /// Whether it has responded, and is not logged as down since.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.last_success.is_some() && self.warned.is_none()
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

    /// Whether the next request would have the same result: it succeeded, or the cause remains.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.state {
            SourceState::Up => true,
            // If a kind of request is unsupported, another follows at once.
            SourceState::Starting | SourceState::Down(FailureReason::Unsupported) => false,
            SourceState::Down(reason) => reason == FailureReason::Absent || !reason.may_pass(),
        }
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
            health.record_failure(
                FailureReason::Absent,
                &Problem::without_remedy("no socket"),
                Duration::from_secs(6),
            );
        }
        assert_eq!((health.state_changes, health.failures_of(FailureReason::Absent)), (1, 3));
        health.record_success(Duration::from_secs(7));
        health.record_success(Duration::from_secs(8));
        assert_eq!((health.state, health.state_changes), (SourceState::Up, 2));
        assert_eq!(health.age(Duration::from_secs(10)), Some(Duration::from_secs(2)));
        health.record_failure(
            FailureReason::Timeout,
            &Problem::without_remedy("hung"),
            Duration::from_secs(6),
        );
        assert_eq!(health.last_success, Some(Duration::from_secs(8)), "the last success is kept");
    }

    #[test]
    fn source_is_reported_down_after_a_while_or_if_a_retry_does_not_help() {
        let problem = Problem::without_remedy("gone");
        let start = Duration::from_secs(7);
        let mut health = HealthTracker::new("test");
        let mut fail = |failure, after: Duration| {
            health.record_failure(failure, &problem, start + after);
            health.warned
        };
        let almost = policy::SOURCE_DOWN_AFTER.saturating_sub(Duration::from_millis(1));
        assert_eq!(fail(FailureReason::Connection, Duration::ZERO), None);
        assert_eq!(fail(FailureReason::Absent, almost), None);
        let absent = Some(FailureReason::Absent);
        assert_eq!(fail(FailureReason::Absent, policy::SOURCE_DOWN_AFTER), absent);
        health.record_success(start);
        health.record_failure(FailureReason::Expired, &problem, start + almost);
        assert_eq!(health.warned, None, "it has responded since");
        assert!(health.is_up());
        health.record_failure(FailureReason::Denied, &problem, start + almost);
        assert_eq!(health.warned, Some(FailureReason::Denied));
        assert!(!health.is_up() && !HealthTracker::new("test").is_up());
    }

    #[test]
    fn source_that_cannot_succeed_is_settled() {
        let is_settled = |failure| {
            let mut health = HealthTracker::new("test");
            assert!(!health.is_settled(), "not asked yet");
            health.record_failure(failure, &Problem::without_remedy("x"), Duration::ZERO);
            health.is_settled()
        };
        for failure in [FailureReason::Absent, FailureReason::Denied, FailureReason::Config] {
            assert!(is_settled(failure), "{failure:?}");
        }
        for failure in
            [FailureReason::Timeout, FailureReason::Connection, FailureReason::Unsupported]
        {
            assert!(!is_settled(failure), "{failure:?}");
        }
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
