//! Counters of refused connections and requests, by reason
//! (`nvml_exporter_http_refused_total`).

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection or request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// At the connection limit, an open connection was evicted or the new one refused.
    ConnectionLimit,
    /// The TLS handshake failed or timed out.
    Handshake,
    /// A request began and was not complete within the read timeout.
    ReadTimeout,
    /// The response was not written within the write timeout.
    WriteTimeout,
    /// Response bodies of earlier cycles exceeded the memory limit, and this was one of the oldest.
    StaleResponse,
    /// The request is not HTTP, or its head is too large.
    Malformed,
    /// A connection could not be accepted, usually because of the limit of open files.
    OpenFileLimit,
    /// Credentials were missing or invalid.
    Auth,
    /// The rate limit was exceeded.
    RateLimit,
}

/// Number of refusals by reason.
#[derive(Debug, Default)]
pub struct RejectCounters([AtomicU64; RejectReason::ALL.len()]);

impl RejectReason {
    /// Every reason, in the order of [`RejectCounters`].
    pub const ALL: [Self; 9] = [
        Self::ConnectionLimit,
        Self::Handshake,
        Self::ReadTimeout,
        Self::WriteTimeout,
        Self::StaleResponse,
        Self::Malformed,
        Self::OpenFileLimit,
        Self::Auth,
        Self::RateLimit,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLimit => "cap",
            Self::Handshake => "handshake",
            Self::ReadTimeout => "read_deadline",
            Self::WriteTimeout => "write_deadline",
            Self::StaleResponse => "old_page",
            Self::Malformed => "malformed",
            Self::OpenFileLimit => "files",
            Self::Auth => "auth",
            Self::RateLimit => "rate",
        }
    }
}

impl RejectCounters {
    /// Counts one refusal.
    pub fn increment(&self, refusal: RejectReason) {
        if let Some(count) = self.0.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts by reason, without those that are 0.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let all = RejectReason::ALL.into_iter().map(RejectReason::as_str).zip(counts);
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        for refusal in RejectReason::ALL {
            let counters = RejectCounters::default();
            counters.increment(refusal);
            assert_eq!(counters.counts(), [(refusal.as_str(), 1)]);
        }
    }
}
