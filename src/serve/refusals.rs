//! Connections and requests that were refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There were too many connections: one that asked nothing, or the new one.
    Cap,
    /// The handshake of TLS failed, or took too long.
    Handshake,
    /// A request began and did not arrive in time.
    ReadDeadline,
    /// The response was not taken in time.
    WriteDeadline,
    /// An old page was held while there were too many of those.
    OldPage,
    /// What came is no HTTP, or has a head that is too large.
    Malformed,
    /// No file was left for a connection.
    Files,
    /// No password, or the wrong one.
    Auth,
    /// More requests than the limit lets in.
    Rate,
}

/// How often each happened.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusal {
    /// Every reason, in the order of [`Refusals`].
    pub const ALL: [Self; 9] = [
        Self::Cap,
        Self::Handshake,
        Self::ReadDeadline,
        Self::WriteDeadline,
        Self::OldPage,
        Self::Malformed,
        Self::Files,
        Self::Auth,
        Self::Rate,
    ];

    /// The fixed label of this reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::Handshake => "handshake",
            Self::ReadDeadline => "read_deadline",
            Self::WriteDeadline => "write_deadline",
            Self::OldPage => "old_page",
            Self::Malformed => "malformed",
            Self::Files => "files",
            Self::Auth => "auth",
            Self::Rate => "rate",
        }
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, refusal: Refusal) {
        if let Some(count) = self.0.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts by reason, of those that happened.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let all = Refusal::ALL.into_iter().map(Refusal::reason).zip(counts);
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_under_its_own_reason() {
        for refusal in Refusal::ALL {
            let refusals = Refusals::default();
            refusals.count(refusal);
            assert_eq!(refusals.counts(), [(refusal.reason(), 1)]);
        }
    }
}
