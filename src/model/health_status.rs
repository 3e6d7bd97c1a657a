//! The verdict about a GPU, or about a node.

use serde::{Deserialize, Serialize};

/// Health of a GPU, the same in all views; a later value is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Every health watch that the board supports passes.
    Ok,
    /// A health watch warns.
    Warning,
    /// No watch warns or fails, but at least one cannot be evaluated, or the GPU cannot be read.
    Unknown,
    /// A health watch fails.
    Failed,
    /// The driver does not return from a call for the GPU.
    Hung,
    /// The GPU has fallen off the bus, or needs a reset.
    Lost,
}

impl HealthStatus {
    /// Every status, worst first.
    pub const WORST_FIRST: [Self; 6] =
        [Self::Lost, Self::Hung, Self::Failed, Self::Unknown, Self::Warning, Self::Ok];

    /// The name, equal to the one in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_is_first_and_labels_match_json() {
        let mut sorted = HealthStatus::WORST_FIRST;
        sorted.sort();
        sorted.reverse();
        assert_eq!(sorted, HealthStatus::WORST_FIRST);
        for status in sorted {
            assert_eq!(serde_json::to_value(status).unwrap(), status.label());
        }
    }
}
