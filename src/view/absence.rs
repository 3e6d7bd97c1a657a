//! The reason why a number of the view is absent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a number or a process list is absent. In JSON a text: `not_collected`, or the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Absence {
    /// Its family is not selected.
    NotCollected,
    /// It could not be read, with the reason, such as `hung`.
    Unread(String),
}

const NOT_COLLECTED: &str = "not_collected";

impl From<String> for Absence {
    fn from(text: String) -> Self {
        if text == NOT_COLLECTED { Self::NotCollected } else { Self::Unread(text) }
    }
}

impl From<Absence> for String {
    fn from(absence: Absence) -> Self {
        absence.to_string()
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotCollected => NOT_COLLECTED,
            Self::Unread(reason) => reason,
        })
    }
}
