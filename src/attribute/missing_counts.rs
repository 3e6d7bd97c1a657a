//! Number of absent readings by reason.

use crate::model::{Missing, Reading};

/// Number of absent readings, indexed by [`Missing::position`].
#[derive(Default)]
pub(super) struct MissingCounts([u64; Missing::REASONS.len()]);

impl MissingCounts {
    /// Counts the absent ones of `readings`.
    pub(super) fn add(&mut self, readings: impl Iterator<Item = Reading>) {
        readings.filter_map(Reading::err).for_each(|missing| self.add_repeated(missing, 1));
    }

    /// Counts `n` absent readings with the same reason.
    pub(super) fn add_repeated(&mut self, missing: Missing, n: usize) {
        if let Some(count) = self.0.get_mut(missing.position()) {
            *count += u64::try_from(n).unwrap_or(u64::MAX);
        }
    }

    pub(super) fn counts(self) -> [u64; Missing::REASONS.len()] {
        self.0
    }
}
