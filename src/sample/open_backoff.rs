//! When the driver may be opened again.

use std::time::Duration;

use crate::policy::{SESSION_STABLE_AFTER, open_backoff};

/// Delay between attempts to open a session, which grows with the number of failures. All times are
/// monotonic.
#[derive(Debug, Default)]
pub(super) struct OpenBackoff {
    next_open: Duration,
    opened_at: Duration,
    failures: u32,
}

impl OpenBackoff {
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.next_open
    }

    /// Permits the next attempt at once.
    pub(super) fn end(&mut self) {
        self.next_open = Duration::ZERO;
    }

    /// Permits the next attempt at `time`; nothing has failed.
    pub(super) fn postpone(&mut self, time: Duration) {
        self.next_open = time;
    }

    pub(super) fn record_opened(&mut self, now: Duration) {
        self.opened_at = now;
    }

    pub(super) fn record_failure(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.next_open = now + open_backoff(self.failures);
    }

    /// A session that was short counts as a failure: each may leave a hung thread behind.
    pub(super) fn record_closed(&mut self, now: Duration) {
        if now.saturating_sub(self.opened_at) >= SESSION_STABLE_AFTER {
            self.failures = 0;
            self.next_open = now;
        } else {
            self.record_failure(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_session_counts_as_a_failure_and_a_stable_one_ends_the_backoff() {
        let mut backoff = OpenBackoff::default();
        let start = Duration::from_secs(1000);
        assert!(backoff.is_over(start));
        backoff.record_opened(start);
        backoff.record_closed(start);
        assert!(!backoff.is_over(start));
        assert!(backoff.is_over(start + open_backoff(1)));
        backoff.record_failure(start);
        assert!(!backoff.is_over(start + open_backoff(1)));
        backoff.record_opened(start);
        backoff.record_closed(start + SESSION_STABLE_AFTER);
        assert!(backoff.is_over(start + SESSION_STABLE_AFTER));
        assert_eq!(backoff.failures, 0);
        backoff.postpone(start + SESSION_STABLE_AFTER);
        assert!(!backoff.is_over(start) && backoff.is_over(start + SESSION_STABLE_AFTER));
    }
}
