//! How a source of the cluster's knowledge fares: up, or why not, and since when.

use std::time::Duration;

use tracing::{info, warn};

/// Why a source did not say what it was asked; the fixed label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens: no socket, or connection refused.
    Absent,
    /// The connection broke, or could not be made.
    Connection,
    /// No answer in time, or a stream that fell silent.
    Timeout,
    /// 401 or 403, or the gRPC codes of the same meaning.
    Denied,
    /// 429, or the kubelet's rate limit.
    Throttled,
    /// The answer is larger than we take.
    TooLarge,
    /// The answer cannot be decoded.
    Garbage,
    /// The history that we asked for is gone (410); a new list follows.
    Expired,
    /// The source does not know the question.
    Unsupported,
    /// Any other refusal.
    Refused,
    /// Our own credentials or addresses are unusable.
    Config,
}

impl Failure {
    /// Every failure, in the order of the counters.
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

    /// The fixed label.
    #[must_use]
    pub fn reason(self) -> &'static str {
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

    /// What an HTTP status other than 2xx means.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            410 => Self::Expired,
            429 => Self::Throttled,
            404 | 405 => Self::Unsupported,
            _ => Self::Refused,
        }
    }
}

/// Whether a source speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been reached yet.
    Starting,
    /// The last question was answered.
    Up,
    /// The last question was not answered, and why.
    Down(Failure),
}

/// The fate of one source, kept by whoever asks it. A change is logged once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The source's name in logs and labels.
    pub source: &'static str,
    /// Its present state.
    pub state: State,
    /// When it last said anything, on the monotonic clock.
    pub contact: Option<Duration>,
    /// How many times the state has changed.
    pub changes: u64,
    failures: [u64; Failure::ALL.len()],
}

impl Health {
    /// A source that has not been reached.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        let failures = [0; Failure::ALL.len()];
        Self { source, state: State::Starting, contact: None, changes: 0, failures }
    }

    /// It spoke at `now`.
    pub fn answered(&mut self, now: Duration) {
        self.contact = Some(now);
        if self.turn(State::Up) {
            info!(source = self.source, "source is up");
        }
    }

    /// It failed to.
    pub fn failed(&mut self, failure: Failure, detail: &str) {
        self.count(failure);
        if self.turn(State::Down(failure)) {
            let reason = failure.reason();
            warn!(source = self.source, reason, "source is down; its last word is kept: {detail}");
        }
    }

    /// Counts a failure that does not make the source down.
    pub fn count(&mut self, failure: Failure) {
        if let Some(n) = self.failures.get_mut(failure as usize) {
            *n += 1;
        }
    }

    /// Every failure with its count.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> + '_ {
        Failure::ALL.into_iter().zip(self.failures)
    }

    /// How many times it failed so.
    #[must_use]
    pub fn failed_so(&self, failure: Failure) -> u64 {
        self.failures.get(failure as usize).copied().unwrap_or_default()
    }

    /// Time since it last said anything.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.contact?))
    }

    fn turn(&mut self, to: State) -> bool {
        let changed = self.state != to;
        if changed {
            self.state = to;
            self.changes += 1;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_lasts_changes_once() {
        let mut health = Health::new("test");
        for _ in 0..3 {
            health.failed(Failure::Absent, "no socket");
        }
        assert_eq!((health.changes, health.failed_so(Failure::Absent)), (1, 3));
        health.answered(Duration::from_secs(7));
        health.answered(Duration::from_secs(8));
        assert_eq!((health.state, health.changes), (State::Up, 2));
        assert_eq!(health.age(Duration::from_secs(10)), Some(Duration::from_secs(2)));
        health.failed(Failure::Timeout, "hung");
        assert_eq!(health.contact, Some(Duration::from_secs(8)), "its last word is kept");
    }

    #[test]
    fn failures_are_counted_under_their_own_reason() {
        for failure in Failure::ALL {
            let mut health = Health::new("test");
            health.count(failure);
            let counted: Vec<_> = health.failures().filter(|(_, n)| *n == 1).collect();
            assert_eq!(counted, [(failure, 1)]);
        }
    }
}
